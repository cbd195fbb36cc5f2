"""Runs on a log inside of an application: its own routes, or all of the server's under a prefix.

With routes of one's own::

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

With every route of ``tokenwire serve``, behind the application's own login::

    app.include_router(live.router(prefix="/ai", user=Depends(me)))

Always true: an error of a call is an HTTP answer of its status wherever a route raises it; when the
process is told to stop, readers are told to come back, so that no server waits for them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from starlette.responses import Response
from starlette.types import ASGIApp

from tokenwire.errors import ConfigError, InputError, TokenwireError, UnknownModelError
from tokenwire.events.message import messages_of
from tokenwire.events.names import TENANT_END, names_of
from tokenwire.events.principal import Principal
from tokenwire.events.request import Request
from tokenwire.providers.routing.aliases import aliases_of
from tokenwire.relay import store_over
from tokenwire.relay.description import RunInfo
from tokenwire.server.app import App
from tokenwire.server.edge.problems import http_error
from tokenwire.server.edge.respond import RunResponse
from tokenwire.server.embed.mount import Mounted, Wrapped
from tokenwire.server.embed.stop_signals import call_on_stop
from tokenwire.server.embed.unlogged import encoder_of
from tokenwire.server.hosted import Hosted, User
from tokenwire.server.own_wires.installed import checked
from tokenwire.server.own_wires.response import cursor_in
from tokenwire.server.settings import Settings
from tokenwire.server.tokens.by_host import issue_for
from tokenwire.server.tokens.tokens import TTL
from tokenwire.tools.registry import ToolSet
from tokenwire.wire.own import AnyEncoder, OwnEncoder

if TYPE_CHECKING:
    from fastapi import APIRouter

    from tokenwire.agents.context import RunContext
    from tokenwire.providers.http.client import HttpClient
    from tokenwire.providers.registry import Registry
    from tokenwire.relay import Store
    from tokenwire.relay.conversation.summary import Summarise
    from tokenwire.relay.outbox import OnEnd
    from tokenwire.relay.runs import Runs
    from tokenwire.relay.starts.request import StartRequest
    from tokenwire.run.hooks.tools import CallRequest, CallResult
    from tokenwire.server.edge.connections import Connections
    from tokenwire.tools.tool import Tool

__all__ = ["Live"]

_NOT_STARTED = (
    "Live has not started; pass live.lifespan to the application, or put it inside of "
    "'async with live:'"
)


class Live:
    """Runs on a log, and responses that follow them, for an application.

    ``store``: a store or its URL; ``pool``: an asyncpg pool or SQLAlchemy's AsyncEngine, whose
    PostgreSQL is the store. ``models``: the only models that requests may name; one, or
    several. ``aliases``: further names for requests, each with its model.
    ``agents``: functions made by `tokenwire.agent`, objects of frameworks, or names such
    as ``my_app:support``; they are started by name, as models are, and get ``app`` as ``ctx.app``.
    The first of agents and models is the default. What an agent calls is not bounded by
    ``models``. ``on_end`` is called with every run that ended, as a
    `tokenwire.relay.outbox.EndedRun`; with two parameters, in the transaction that ends it, and
    with that connection. ``prepare``: a function of a `tokenwire.RunContext` with
    which each run of a model begins; the conversation that it returns is what the model receives.
    ``before_start`` may change or refuse a run before it exists, ``before_tool`` a tool's call
    before it starts, ``after_tool`` its result before anybody sees it; plain or async functions.
    ``summarise``: makes the text in place of turns that fall out of a conversation's budget of
    tokens, from the summary before (or None) and the messages of those turns.
    ``webhooks``: addresses that receive ``run.ended``, ``run.waiting`` and ``approval.expired``,
    signed with ``webhook_secrets`` (``whsec_`` and base64).

    ``user``: who sends a request to `asgi`, a function of a ``starlette.requests.HTTPConnection``
    that returns a `tokenwire.Principal`, or the name of one, or None to refuse the request; it may
    be a coroutine function.
    ``check_origin``: whether requests to the mounted routes that change something must come from
    pages of the same origin (or of ``settings.cors_origin``); False leaves that to the application.

    ``wires``: wires of your own, each a class of encoders (`tokenwire.wire.base.Encoder`), a
    function that makes one, or a `tokenwire.server.OwnWire`; ``wire``: what `start` and `resume`
    answer in by default, one of these, or the name of one, ``events`` or ``tokens``.

    ``registry``, ``tools``: the models by name, and the tools of the runs (functions, or a tool
    set); ``http``: what asks providers, such as a `tokenwire.testing.ScriptedModel`.
    ``settings``: limits, quotas and clocks, as those of ``tokenwire serve``; ``heartbeat``:
    keep-alive interval, ``max_age``: of a connection, both in seconds, in place of theirs. Raises
    `ConfigError` for what contradicts itself or is no agent.
    """

    def __init__(
        self,
        store: str | Store = "memory:",
        *,
        pool: object = None,
        models: str | Iterable[str] | None = None,
        aliases: Mapping[str, str] | None = None,
        registry: Registry | None = None,
        tools: ToolSet | Iterable[Tool | Callable[..., Any]] | None = None,
        agents: Iterable[object] = (),
        app: object = None,
        on_end: OnEnd | None = None,
        prepare: Callable[[RunContext], Any] | None = None,
        before_start: Callable[[StartRequest], Any] | None = None,
        before_tool: Callable[[CallRequest], Any] | None = None,
        after_tool: Callable[[CallRequest, CallResult], Any] | None = None,
        summarise: Summarise | None = None,
        webhooks: str | Iterable[str] = (),
        webhook_secrets: str | Iterable[str] = (),
        user: User | None = None,
        check_origin: bool = True,
        wires: Iterable[object] = (),
        wire: object = "events",
        http: HttpClient | None = None,
        settings: Settings | None = None,
        heartbeat: float | None = None,
        max_age: float | None = None,
    ) -> None:
        settings = settings or Settings()
        named = names_of(models or (), "models")
        has_agents = bool(settings.agent) or bool(agents)
        self.settings = dataclasses.replace(
            settings,
            alias=[f"{name}={model}" for name, model in aliases_of(aliases).items()]
            if aliases
            else settings.alias,
            model=named or ([] if has_agents and settings.model == ["demo"] else settings.model),
            webhook=names_of(webhooks, "webhooks") or settings.webhook,
            webhook_secrets=names_of(webhook_secrets, "webhook_secrets")
            or settings.webhook_secrets,
            heartbeat=settings.heartbeat if heartbeat is None else heartbeat,
            max_age=settings.max_age if max_age is None else max_age,
        )
        if user is not None and not callable(user):
            raise ConfigError(
                "user must be a function of the request's connection that returns a principal or "
                f"None, not {type(user).__name__}"
            )
        self._store = store_over(pool, store)
        self._user, self._hosted = user, Hosted(check_origin=check_origin)
        self._more: dict[str, Any] = {
            "registry": registry,
            "tools": ToolSet.of(tools),
            "agents": agents,
            "app": app,
            "on_end": on_end,
            "prepare": prepare,
            "before_start": before_start,
            "before_tool": before_tool,
            "after_tool": after_tool,
            "summarise": summarise,
            "http": http,
            "wires": [checked(each) for each in wires],
        }
        self._server = self._new_server()
        self._wire = self._name_of(wire)
        self._is_used = self._is_open = False

    @property
    def models(self) -> list[str]:
        """What requests may name: agents, then models; the first is the default."""
        return self._server.state.model_names

    @property
    def connections(self) -> Connections:
        """The readers of this process."""
        return self._server.state.connections

    @property
    def server(self) -> App:
        """The server inside, which all mounted routes belong to."""
        return self._server

    @property
    def runs(self) -> Runs:
        """The runs: ``cancel``, ``approve``, ``thread``, ``delete``, ..."""
        self.require_open()
        return self._server.state.runs

    def require_open(self) -> None:
        """Raise `RuntimeError` unless the lifespan has begun, and has not ended."""
        if not self._is_open:
            raise RuntimeError(_NOT_STARTED)

    # --- life ------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Start by hand, for a host without lifespans; ``async with live:``."""
        await self.startup()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.shutdown()

    @asynccontextmanager
    async def lifespan(self, app: Any = None) -> AsyncIterator[None]:
        """Give this to ``FastAPI(lifespan=...)``, which passes its ``app``: it opens the store, and
        closes it at the end."""
        async with self:
            yield

    async def startup(self) -> None:
        """Open the store and begin to serve; `lifespan` calls it. Raises `ConfigError`."""
        if self._is_open:
            raise RuntimeError("Live has started already; give its lifespan to one application")
        if self._is_used:
            self._server = self._new_server()
        self._is_used = True
        try:
            await self._server.startup()
        except BaseException:
            await self._server.abandon()
            raise
        self._is_open = True
        # A server waits for its readers before it ends the lifespan: they are told first.
        self._ignore_stop = call_on_stop(self._server.state.drain)

    async def shutdown(self) -> None:
        """Tell readers, hand runs over, close the store; `lifespan` calls it."""
        if not self._is_open:
            return
        self._is_open = False
        self._ignore_stop()
        await self._server.shutdown()

    # --- routes of one's own ---------------------------------------------------------------------

    async def start(
        self,
        prompt: Any,
        *,
        model: str | None = None,
        wire: object = None,
        principal: str | Principal = "",
        thread: str | None = None,
        key: str | None = None,
        on_disconnect: str = "continue",
        metadata: dict[str, Any] | None = None,
        run_id: str | None = None,
        **request: Any,
    ) -> Response:
        """Start a run of ``prompt`` (a text, a message or a conversation) and stream it.
        ``model``: default the first of `models`; ``wire``: ``events``, ``tokens`` or one of your
        own, default `Live`'s;
        ``principal``: the caller, or the caller's id; ``thread``: a conversation's id; ``key``: an
        idempotency key; ``on_disconnect``: ``continue``, ``stop`` or ``stop:SECONDS``;
        ``metadata``: JSON values;
        ``run_id``: the run's id; ``request``: the other fields of `tokenwire.Request`. The header
        ``Tokenwire-Run`` has the run's id. Raises `UnknownModelError` and `InputError`, as HTTP
        answers of their status."""
        try:
            if model is not None and model not in self.models:
                # A model's name may hold an address, which would be called with this server's key.
                raise UnknownModelError(
                    f"unknown model '{str(model)[:80]}'; choose one of {', '.join(self.models)}",
                    field="model",
                )
            info = await self.runs.start(
                request_of(prompt, request),
                model=model or self.models[0],
                principal=_name(principal),
                thread=thread,
                key=key,
                on_disconnect=on_disconnect,
                metadata=metadata,
                run_id=run_id,
            )
        except TokenwireError as error:
            raise http_error(error) from None
        return await self.resume(info.id, wire=wire, principal=principal)

    async def resume(
        self,
        run: str,
        after: str | None = None,
        *,
        wire: object = None,
        principal: str | Principal = "",
    ) -> Response:
        """Stream the run with the id ``run`` after the cursor ``after`` (an ``id`` that a reader
        received), or all of it, as ``wire``; 204, which stops an `EventSource`, to a reader that
        has its end. Raises `NotFoundError` for a run of another ``principal``, and `CursorError`,
        as HTTP answers of their status."""
        try:
            name = self._wire if wire is None else self._name_of(wire)
            return await self._resumed(run, cursor_in(after), name, _name(principal))
        except TokenwireError as error:
            raise http_error(error) from None

    async def _resumed(self, run: str, after: str | None, wire: str, principal: str) -> Response:
        follower = await self.runs.follow(run, after=after, principal=principal)
        skip = follower.after
        try:
            is_read = skip > 0 and await follower.is_read()
            encoder = self._encoder_of(wire, run)
        except BaseException:
            follower.close(returning=True)  # its client retries
            raise
        if is_read:
            follower.close(returning=True)  # it has all of it
            return Response(status_code=204)
        if skip and not encoder.stateless:
            follower.rewind()
        is_other = isinstance(encoder, OwnEncoder) and not encoder.is_event_stream
        return RunResponse(
            self.connections,
            follower,
            encoder,
            run_id=run,
            skip=skip if not encoder.stateless else 0,
            headers={"tokenwire-run": run},
            preamble=b"" if is_other else None,
        )

    def _encoder_of(self, name: str, run: str) -> AnyEncoder:
        own = self._server.state.own_wires.get(name)
        if own is not None:
            return OwnEncoder(own.encoder(), own.name)
        return encoder_of("tokens" if name == "tokens" else "events", run)

    def _name_of(self, wire: object) -> str:
        """The name of a wire, which is served from now on. Raises `ConfigError`."""
        wires = self._server.state.own_wires
        if isinstance(wire, str):
            if wire in ("events", "tokens") or wire in wires:
                return wire
            raise ConfigError(
                f"unknown wire {wire[:40]!r}; choose of {', '.join(['events', 'tokens', *wires])}"
            )
        there = [name for name, own in wires.items() if wire is own or wire is own.encoder]
        if there:
            return there[0]
        own = checked(wire)
        self._server.add_wire(own)
        self._more["wires"].append(own)
        return own.name

    # --- tokens for browsers ---------------------------------------------------------------------

    async def token(
        self,
        run: str | RunInfo | None = None,
        *,
        thread: str | None = None,
        principal: str | Principal | None = None,
        scopes: Iterable[str] = ("read",),
        ttl: float = TTL,
        refresh: float | None = None,
        ticket: bool = False,
    ) -> str:
        """A token for a browser, which it sends as ``Authorization: Bearer TOKEN``: for one ``run``
        (the id, or a description), or for a ``thread`` with all of its runs, also later ones, of
        ``principal`` (default: the run's own), whose roles bound it. ``scopes``: ``read``,
        ``write`` (start, cancel, answer tools) and ``approve``, ``read`` always being one;
        ``ttl``: seconds that it is good for; ``refresh``: seconds for which it may be refreshed, 0
        for never, default 12 hours. ``ticket``: instead a ticket, for one request within a minute,
        as ``?ticket=`` of an `EventSource`. Raises `InputError`, `RoleError` for more than the
        principal may, and `NotFoundError` for an unknown run."""
        return await issue_for(
            self._server.state.identify.tokens,
            self.runs,
            run=run,
            thread=thread,
            principal=principal,
            how={"scopes": scopes, "ttl": ttl, "refresh": refresh, "is_ticket": ticket},
        )

    async def revoke(
        self,
        token: str | None = None,
        *,
        run: str | None = None,
        thread: str | None = None,
        principal: str | Principal = "",
    ) -> None:
        """End a ``token`` and all that it was refreshed to, or all tokens of ``principal`` for a
        ``run`` or a ``thread``, on every server of the store; a connection that one opened ends
        within a minute. Erasing a run or thread does the same. Raises `InputError`."""
        self.require_open()
        tokens = self._server.state.identify.tokens
        if sum(target is not None for target in (token, run, thread)) != 1:
            raise InputError("pass a token, a run or a thread")
        if token is not None:
            await tokens.revoke_text(token)
        elif run is not None:
            await tokens.revoke("run", _name(principal), run)
        elif thread is not None:
            await tokens.revoke("thread", _name(principal), thread)

    # --- the server's routes ---------------------------------------------------------------------

    @property
    def asgi(self) -> ASGIApp:
        """All routes of ``tokenwire serve`` and its chat page, as an ASGI application to mount:
        ``Mount("/ai", live.asgi)``. Needs ``user``. Raises `ConfigError` without."""
        if self._user is None:
            raise ConfigError(
                "Live has no user: pass Live(user=...), a function of the connection that returns "
                'the name of a principal, such as lambda connection: "all" where everybody is one'
            )
        return Mounted(self, self._user)

    def router(
        self,
        *,
        prefix: str = "",
        user: Any = None,
        wires: Iterable[object] | None = None,
        sockets: bool = True,
    ) -> APIRouter:
        """The server's routes as a FastAPI router, for ``app.include_router``. ``prefix``: what
        stands before their paths, such as ``/ai``; ``user``: a
        dependency (``Depends(me)``, or ``me``) that returns a principal, its name or None, takes
        an ``HTTPConnection`` where it needs the request, and is asked for each request and
        WebSocket; default Live's own. ``wires``: some of ``native``, ``ai-sdk``, ``ag-ui``,
        ``openai``, ``anthropic``, ``durable-streams``, ``page`` and ``openapi``, and wires of your
        own or their names; default all but the page and ``openapi``. ``sockets``: False leaves the
        WebSockets out, for a ``user`` that needs a ``Request``. Raises `ConfigError`."""
        from tokenwire.server.embed.fastapi_router import fastapi_router

        if wires is not None and not isinstance(wires, str):
            wires = [each if isinstance(each, str) else self._name_of(each) for each in wires]
        return fastapi_router(
            self, prefix=prefix, user=user or self._user, wires=wires, sockets=sockets
        )

    def wrap(self, app: ASGIApp, *, prefix: str, user: User | None = None) -> ASGIApp:
        """``app`` with the server's routes under ``prefix``, for hosts that mount nothing (Django,
        Quart): ``application = live.wrap(get_asgi_application(), prefix="/ai", user=who)``. It
        starts and stops with the application. Raises `ConfigError`."""
        asker = user or self._user
        if asker is None:
            raise ConfigError("pass wrap(..., user=...), or Live(user=...)")
        return Wrapped(self, app, prefix, asker)

    def _new_server(self) -> App:
        return App(self.settings, store=self._store, hosted=self._hosted, **self._more)


def _name(principal: str | Principal) -> str:
    """The name of a principal. A text is an id: one with a tenant comes as a `Principal` only."""
    if isinstance(principal, Principal):
        return principal.name
    if isinstance(principal, str) and TENANT_END in principal:
        raise InputError("'principal' must not contain control characters", field="principal")
    return principal


def request_of(prompt: Any, fields: dict[str, Any]) -> Request:
    """The request of ``prompt`` and the other fields of `tokenwire.Request`, all checked: what
    cannot be stored must not start. Raises `InputError`."""
    import msgspec

    unknown = sorted(set(fields) - {f.name for f in msgspec.structs.fields(Request)})
    if unknown:
        raise InputError(f"unknown field '{unknown[0]}' of the request", field=unknown[0])
    request = Request(messages=messages_of(prompt), **fields)
    try:
        return msgspec.convert(msgspec.to_builtins(request), Request)
    except (msgspec.ValidationError, TypeError, ValueError) as error:
        raise InputError(f"the request is not valid: {str(error)[:200]}") from error
