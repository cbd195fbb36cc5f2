"""Streaming from an application's own routes: FastAPI, Starlette, or any ASGI framework.

Without a log, closing the connection cancels the run::

    @app.post("/chat")
    async def chat(prompt: str):
        return stream_response(tokenwire.stream(prompt, model="demo"))

With a log (`tokenwire.server.embed.live`), a reader may resume and the run continues without one.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tokenwire.per_loop import PerLoop
from tokenwire.server.edge.connections import Connection, Connections, SlowReader
from tokenwire.server.edge.disconnect import watch_disconnect
from tokenwire.server.edge.respond import STREAM_HEADERS
from tokenwire.server.edge.transport import transport_of
from tokenwire.wire.base import Encoder
from tokenwire.wire.native import NativeEncoder
from tokenwire.wire.token_sse import TokenEncoder

if TYPE_CHECKING:
    from tokenwire.run.stream import Run

__all__ = ["Wire", "encoder_of", "stream_response"]

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
        encoder = encoder_of(wire, run.id)
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


def encoder_of(wire: Wire, run: str) -> Encoder:
    """The encoder of a wire of an application's own routes."""
    return NativeEncoder() if wire == "events" else TokenEncoder(run)
