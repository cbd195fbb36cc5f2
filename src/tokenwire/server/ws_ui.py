"""``WS /api/chat/ws``: the AI SDK's WebSocket transport (version 7).

Client: ``send``, ``resume``, ``abort``. Server: ``start``, ``chunk`` with a ``sequence`` without
gap per request, ``end``, ``no-active``, ``error``.

Always true: every request ends in exactly one ``end``, ``no-active`` or ``error``; ``abort`` and a
closed socket detach the reader and stop nothing, because pages send it when a tab goes away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from starlette.types import Receive, Scope, Send

from tokenwire.errors import InputError, TokenwireError
from tokenwire.relay.run_info import RunInfo
from tokenwire.server.connections import Connection
from tokenwire.server.guard import RequestInfo, parse_json
from tokenwire.server.state import State
from tokenwire.server.wire_support import answered_names, folded
from tokenwire.wire.fields import Fields
from tokenwire.wire.frames import Place
from tokenwire.wire.ui_message import UIMessageEncoder
from tokenwire.wire.ui_request import UIRequest, parse_ui_request

__all__ = ["UISocket"]

_MOST_REQUESTS = 64
Begin = Callable[..., Awaitable[tuple[str, UIMessageEncoder, Place | None]]]
Active = Callable[..., Awaitable[RunInfo | None]]


class UISocket:
    """One socket with many requests."""

    def __init__(
        self,
        state: State,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        begin: Begin,
        active: Active,
    ) -> None:
        self.state = state
        self.info: RequestInfo = scope["tokenwire"]
        self._receive, self._asgi_send = receive, send
        self._begin, self._active = begin, active
        self._lock = asyncio.Lock()
        self._requests: dict[str, asyncio.Task[None]] = {}
        self._connection: Connection | None = None
        self._leaving: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Until the socket closes."""
        await self._receive()
        if self.state.auth.on and self.info.how == "later":
            # This transport has no place for a key; a cookie or header must bring it.
            await self._asgi_send({"type": "websocket.close", "code": 1008, "reason": "no key"})
            return
        await self._asgi_send({"type": "websocket.accept"})
        # A place in the list of connections: told to leave when the server stops.
        connection = self._connection = self.state.connections.open(self)
        connection.expires = float("inf")
        try:
            while True:
                message = await self._receive()
                if message["type"] != "websocket.receive":
                    break
                await self._take(message.get("text") or "")
        finally:
            for task in self._requests.values():
                task.cancel()
            self.state.connections.close(connection)

    def poke(self) -> None:
        """The ticker: nothing is sent to keep the socket alive (the protocol pings); when the
        server stops, the socket is closed so that its client comes back."""
        connection = self._connection
        if connection is None:
            return
        connection.last_write = asyncio.get_running_loop().time()
        if connection.leaving is not None and self._leaving is None:
            close = {"type": "websocket.close", "code": 1012, "reason": "come back"}
            self._leaving = asyncio.ensure_future(self._asgi_send(close))

    async def _take(self, text: str) -> None:
        try:
            frame = Fields(parse_json(text.encode(), self.state.settings.json_depth))
            request = frame.need("requestId")
            kind = frame.need("type")
        except InputError as error:
            await self._send({"type": "error", "requestId": "", "errorText": error.message})
            return
        if kind == "abort":
            task = self._requests.pop(request, None)
            if task is not None:
                task.cancel()
            return
        if request in self._requests or len(self._requests) >= _MOST_REQUESTS:
            text = "this request is under way already, or there are too many"
            await self._send({"type": "error", "requestId": request, "errorText": text})
            return
        task = asyncio.create_task(self._answer(request, kind, frame))
        self._requests[request] = task
        task.add_done_callback(lambda _: self._requests.pop(request, None))

    async def _answer(self, request: str, kind: str, frame: Fields) -> None:
        try:
            if kind == "send":
                await self._start(request, frame)
            elif kind == "resume":
                await self._resume(request, frame)
            else:
                raise frame.fail("type", "must be send, resume or abort")
        except TokenwireError as error:
            text = error.message[:500]
            await self._send({"type": "error", "requestId": request, "errorText": text})

    async def _start(self, request: str, frame: Fields) -> None:
        body = frame.object("body")
        fields = dict(body.value) if body is not None else {}
        fields |= {
            name: frame.raw(name)
            for name in ("id", "messages", "trigger", "messageId")
            if frame.has(name)
        }
        asked: UIRequest = parse_ui_request(fields)
        compat = "7" if self.state.settings.compat == "common" else self.state.settings.compat
        run, encoder, place = await self._begin(
            self.state, asked, self.info.principal, None, compat
        )
        await self._tell(request, run, encoder, place)

    async def _resume(self, request: str, frame: Fields) -> None:
        run = await self._active(self.state, frame.need("id"), self.info.principal)
        if run is None:
            await self._send({"type": "no-active", "requestId": request})
            return
        fold, _ = await folded(self.state, run.id, self.info.principal)
        encoder = UIMessageEncoder(compat="7", answered=answered_names(fold))
        await self._tell(request, run.id, encoder, None)

    async def _tell(
        self, request: str, run: str, encoder: UIMessageEncoder, place: Place | None
    ) -> None:
        release = self.state.limits.attach(run, self.info.principal)
        try:
            follower = await self.state.runs.follow(run, principal=self.info.principal)
        except BaseException:
            release()
            raise
        skip = place.offset if place is not None else 0
        sequence = 0
        try:
            await self._send({"type": "start", "requestId": request})
            while not encoder.ended and (batch := await follower.next()) is not None:
                frames: list[dict[str, Any]] = []
                for offset, (_, event) in enumerate(batch.events(), batch.first):
                    if offset <= skip:
                        encoder.skip(event)
                        continue
                    for chunk in encoder.chunks(event):
                        frames.append(
                            {
                                "type": "chunk",
                                "requestId": request,
                                "sequence": sequence,
                                "chunk": chunk,
                            }
                        )
                        sequence += 1
                for frame in frames:
                    await self._send(frame)
            await self._send({"type": "end", "requestId": request})
        finally:
            follower.close()
            release()

    async def _send(self, frame: dict[str, Any]) -> None:
        async with self._lock:
            text = msgspec.json.encode(frame).decode()
            try:
                await self._asgi_send({"type": "websocket.send", "text": text})
            except OSError:
                pass  # the peer has gone; the receive loop hears of it by itself
