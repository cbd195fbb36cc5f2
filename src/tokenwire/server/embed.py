"""Streaming from an application's own routes: FastAPI, Starlette, or any ASGI framework.

Without a log, closing the connection cancels the run::

    @app.post("/chat")
    async def chat(prompt: str):
        return stream_response(tokenwire.stream(prompt, model="demo"))

With a log, a reader may resume and the run continues without one::

    live = Live("sqlite:chat.db", models=["demo"])
    app = FastAPI(lifespan=live.lifespan)

    @app.post("/chat")
    async def chat(prompt: str):
        return await live.start(prompt)

    @app.get("/chat/{run}")
    async def again(run: str, request: Request):
        return await live.resume(run, request.headers.get("last-event-id"))

    @app.post("/chat/{run}/stop")
    async def stop(run: str):
        await live.runs.cancel(run)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tokenwire.agents.load import agents_of
from tokenwire.agents.prepare import preparation_of
from tokenwire.errors import UnknownModelError
from tokenwire.events.message import messages_of
from tokenwire.events.names import names_of
from tokenwire.events.request import Request
from tokenwire.per_loop import PerLoop
from tokenwire.relay import open_store
from tokenwire.relay.webhooks.config import Webhooks
from tokenwire.server.edge.connections import Connection, Connections, SlowReader
from tokenwire.server.edge.disconnect import watch_disconnect
from tokenwire.server.edge.respond import STREAM_HEADERS, RunResponse
from tokenwire.server.edge.transport import transport_of
from tokenwire.wire.base import Encoder
from tokenwire.wire.native import NativeEncoder
from tokenwire.wire.token_sse import TokenEncoder

if TYPE_CHECKING:
    from tokenwire.agents.context import RunContext
    from tokenwire.providers.registry import Registry
    from tokenwire.relay import Store
    from tokenwire.relay.outbox import OnEnd
    from tokenwire.relay.runs import Runs
    from tokenwire.run.stream import Run
    from tokenwire.tools.registry import ToolSet

__all__ = ["Live", "stream_response"]

Wire = Literal["events", "tokens"]

#: One ticker per event loop, for runs outside of a server.
_connections = PerLoop(Connections)


def stream_response(
    run: Run, *, wire: Wire = "events", headers: dict[str, str] | None = None
) -> Response:
    """A response that streams ``run`` (of `tokenwire.stream`, not entered yet) as it is written.

    ``wire``: ``events`` is the native wire (one JSON event a block), ``tokens`` the plain one
    (``token``, ``done``, ``error``). ``headers``: added to the response's. Without a log the run
    is cancelled when its reader leaves.
    """
    return _Unlogged(run, wire, headers or {})


class _Unlogged(Response):
    """Events of a run in this process, one batch per send."""

    def __init__(self, run: Run, wire: Wire, headers: dict[str, str]) -> None:
        encoder = _encoder(wire, run.id)
        super().__init__(
            headers={
                "content-type": encoder.content_type,
                **STREAM_HEADERS,
                **headers,
                "tokenwire-run": run.id,
            }
        )
        del self.headers["content-length"]
        self._run, self._encoder = run, encoder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": b": ok\n\n", "more_body": True})
        async with self._run as run:
            reader = _Reader(run, self._encoder, send)
            watch = watch_disconnect(receive, reader.stop)
            connections = _connections()
            connection = connections.open(reader)
            # Without a log nothing can be resumed: no planned reconnect.
            reader.connection = connection
            connection.expires = float("inf")
            try:
                await self._pump(run, reader)
            except SlowReader:
                run.cancel(reason="the reader does not read")
                await transport_of(scope).drop()
            finally:
                connections.close(connection)
                watch.cancel()
                if reader.heartbeat is not None:
                    reader.heartbeat.cancel()

    async def _pump(self, run: Run, reader: _Reader) -> None:
        async for batch in run.batches():
            if reader.stopped:
                break
            cursors = [(event, str(event.seq)) for event in batch]
            data = b"".join([self._encoder.encode(event, at) for event, at in cursors])
            if data:
                await reader.write(data)
        if reader.failure is not None:
            raise reader.failure
        if not reader.stopped:
            await reader.write(self._encoder.finish(), last=True)


class _Reader:
    """The run's one reader: the ticker pokes it, and its end cancels the run."""

    connection: Connection

    def __init__(self, run: Run, encoder: Encoder, send: Send) -> None:
        self.stopped = False
        #: The keep-alive that is being sent; what fails it ends the response.
        self.heartbeat: asyncio.Task[None] | None = None
        self.failure: BaseException | None = None
        self._run, self._encoder, self._send = run, encoder, send

    async def write(self, data: bytes, *, last: bool = False) -> None:
        """Some of the body, behind a keep-alive that is under way. Raises `SlowReader`."""
        if self.heartbeat is not None:
            await asyncio.wait({self.heartbeat})
        body = {"type": "http.response.body", "body": data, "more_body": not last}
        await self.connection.write(self._send, body)

    def poke(self) -> None:
        if self.heartbeat is None and not self.connection.sending:
            body = {
                "type": "http.response.body",
                "body": self._encoder.heartbeat(),
                "more_body": True,
            }
            self.heartbeat = asyncio.create_task(self.connection.write(self._send, body))
            self.heartbeat.add_done_callback(self._sent)

    def _sent(self, heartbeat: asyncio.Task[None]) -> None:
        self.heartbeat = None
        if not heartbeat.cancelled() and (failure := heartbeat.exception()) is not None:
            self.failure = failure
            self.stop()

    def stop(self) -> None:
        self.stopped = True
        self._run.cancel(reason="the reader disconnected")


class Live:
    """Runs on a log, and responses that follow them, for an application's own routes.

    ``store``: a store or its URL. ``models``: the only models that `start` accepts; one, or
    several. ``agents``:
    functions made by `tokenwire.agent`, objects of frameworks, or names such as ``my_app:support``;
    they are started by name, as models are, and get ``app`` as ``ctx.app``. The first of agents and
    models is the default. What an agent calls is not bounded by ``models``. ``on_end`` is called
    with every run that ended, as a `tokenwire.relay.outbox.EndedRun`. ``prepare``: a function of a
    `tokenwire.RunContext` with which each run of a model begins; the conversation that it returns
    is what the model receives. ``webhooks``: addresses that receive ``run.ended``, ``run.waiting``
    and ``approval.expired``, signed with ``webhook_secrets`` (``whsec_`` and base64).

    ``registry``, ``tools``: the models by name, and the tools of the runs. ``heartbeat``:
    keep-alive interval, ``max_age``: of a connection; both in seconds.
    """

    def __init__(
        self,
        store: str | Store = "memory:",
        *,
        models: str | Iterable[str] | None = None,
        registry: Registry | None = None,
        tools: ToolSet | None = None,
        agents: Iterable[object] = (),
        app: object = None,
        on_end: OnEnd | None = None,
        prepare: Callable[[RunContext], Any] | None = None,
        webhooks: Iterable[str] = (),
        webhook_secrets: Iterable[str] = (),
        heartbeat: float = 15.0,
        max_age: float = 240.0,
    ) -> None:
        self._agents = agents_of(agents)
        self._models = names_of(models or ([] if self._agents else ["demo"]), "models")
        #: What `start` accepts: agents, then models; the first is the default.
        self.models = [*self._agents, *self._models]
        self._app, self._on_end = app, on_end
        self._prepare = preparation_of(prepare) if prepare is not None else None
        urls = list(webhooks)
        self._webhooks = Webhooks(urls, list(webhook_secrets)) if urls else None
        self._store = open_store(store) if isinstance(store, str) else store
        self._registry, self._tools = registry, tools
        self.connections = Connections(heartbeat=heartbeat, max_age=max_age)
        self._runs: Runs | None = None

    @property
    def runs(self) -> Runs:
        """The runs: ``cancel``, ``approve``, ``thread``, ``delete``, ..."""
        if self._runs is None:
            raise RuntimeError("Live has not started; pass live.lifespan to the application")
        return self._runs

    @asynccontextmanager
    async def lifespan(self, app: Any = None) -> AsyncIterator[None]:
        """Give this to ``FastAPI(lifespan=...)``, which passes its ``app``: it opens the store, and
        closes it at the end."""
        from tokenwire.relay.runs import Runs
        from tokenwire.server.app import default_registry

        async with default_registry(self._models) as default:
            runs = Runs(
                self._store,
                registry=self._registry or default,
                tools=self._tools,
                models=self._models,
                agents=self._agents,
                app=self._app,
                on_end=self._on_end,
                prepare=self._prepare,
                webhooks=self._webhooks,
            )
            await runs.open()
            self._runs = runs
            try:
                yield
            finally:
                self.connections.drain()
                await runs.drain(3.0)
                await runs.aclose()
                await self.connections.aclose()
                self._runs = None

    async def start(
        self,
        prompt: Any,
        *,
        model: str | None = None,
        wire: Wire = "events",
        principal: str = "",
        thread: str | None = None,
        key: str | None = None,
        on_disconnect: str = "continue",
        **request: Any,
    ) -> Response:
        """Start a run of ``prompt`` (a text, a message or a conversation) and stream it.
        ``model``: default the first of `models`; ``wire``: ``events`` or ``tokens``;
        ``principal``: the caller; ``thread``: a conversation's id; ``key``: an idempotency key;
        ``on_disconnect``: ``continue``, ``stop`` or ``stop:SECONDS``; ``request``: the other
        fields of `tokenwire.Request`. The header ``Tokenwire-Run`` has the run's id. Raises
        `UnknownModelError` and `InputError`."""
        if model is not None and model not in self.models:
            # A model's name may hold an address, which would be called with this server's key.
            raise UnknownModelError(
                f"unknown model '{model[:80]}'; choose one of {', '.join(self.models)}",
                field="model",
            )
        info = await self.runs.start(
            Request(messages=messages_of(prompt), **request),
            model=model or self.models[0],
            principal=principal,
            thread=thread,
            key=key,
            on_disconnect=on_disconnect,
        )
        return await self.resume(info.id, wire=wire, principal=principal)

    async def resume(
        self,
        run: str,
        after: str | None = None,
        *,
        wire: Wire = "events",
        principal: str = "",
    ) -> Response:
        """Stream the run with the id ``run`` after the cursor ``after`` (an ``id`` that a reader
        received), or all of it, as ``wire``. Raises `NotFoundError` for a run of another
        ``principal``, and `CursorError`."""
        if after and ":" in after:  # the token wire's ids name their run as well
            after = after.partition(":")[2]
        follower = await self.runs.follow(run, after=after or None, principal=principal)
        skip = follower.after
        if skip and wire == "tokens":
            checked = follower
            try:
                follower = await self.runs.follow(run, principal=principal)
            finally:
                checked.close(returning=True)  # its client retries
        return RunResponse(
            self.connections,
            follower,
            _encoder(wire, run),
            run_id=run,
            skip=skip,
            headers={"tokenwire-run": run},
        )


def _encoder(wire: Wire, run: str) -> Encoder:
    return NativeEncoder() if wire == "events" else TokenEncoder(run)
