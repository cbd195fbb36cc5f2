"""``WS /api/chat/ws``: the AI SDK's WebSocket transport (version 7).

Client: ``send``, ``resume``, ``abort``. Server: ``start``, ``chunk`` with a ``sequence`` without
gap per request, ``end``, ``no-active``, ``error``. ``?history=`` and ``?while_busy=`` of its
address are those of ``POST /api/chat``.

Always true: every request ends in exactly one ``end``, ``no-active`` or ``error``; ``abort`` and a
closed socket detach the reader and stop nothing, because pages send it when a tab goes away.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from urllib.parse import parse_qs

from starlette.types import Message, Receive, Scope, Send

from tokenwire.errors import InputError, TokenwireError
from tokenwire.relay.description import RunInfo
from tokenwire.server.edge.problems import message_of
from tokenwire.server.routes.support import folded, resolved_ids
from tokenwire.server.sockets.requests import MAX_REQUESTS, RequestSocket
from tokenwire.server.starts.start import thread_query
from tokenwire.server.state import State
from tokenwire.wire.ai_sdk.encoder import UIMessageEncoder
from tokenwire.wire.ai_sdk.request import UIRequest, parse_ui_request
from tokenwire.wire.fields import Fields
from tokenwire.wire.place import Place

__all__ = ["UISocket"]

Begin = Callable[..., Awaitable[tuple[str, UIMessageEncoder, Place | None]]]
Active = Callable[..., Awaitable[RunInfo | None]]


class UISocket(RequestSocket):
    """One socket with many requests."""

    wire = "ui-websocket"

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
        super().__init__(state, scope, receive, send)
        self._begin, self._active = begin, active
        query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
        self._query = {name: values[-1] for name, values in query.items()}

    async def take(self, message: Message) -> None:
        """``send``, ``resume`` or ``abort``."""
        try:
            frame = Fields(self.json(message))
            request = frame.need("requestId")
            kind = frame.need("type")
        except InputError as error:
            await self.send({"type": "error", "requestId": "", "errorText": message_of(error)})
            return
        if kind == "abort":
            self.stop(request)
            return
        if request in self.requests or len(self.requests) >= MAX_REQUESTS:
            text = "duplicate requestId, or too many open requests"
            await self.send({"type": "error", "requestId": request, "errorText": text})
            return
        self.start(request, self._answer(request, kind, frame))

    async def _answer(self, request: str, kind: str, frame: Fields) -> None:
        try:
            if kind == "send":
                await self._start(request, frame)
            elif kind == "resume":
                await self._resume(request, frame)
            else:
                raise frame.fail("type", "must be send, resume or abort")
        except TokenwireError as error:
            message = message_of(error)
            await self.send({"type": "error", "requestId": request, "errorText": message})

    async def _start(self, request: str, frame: Fields) -> None:
        extra = frame.object("body")
        fields = dict(extra.value) if extra is not None else {}
        fields |= {
            name: frame.raw(name)
            for name in ("id", "messages", "trigger", "messageId")
            if frame.has(name)
        }
        body: UIRequest = parse_ui_request(fields)
        compat = self.state.settings.compat
        if compat in ("common", "6"):
            compat = "7"  # older releases have no transport over a socket
        query = thread_query(self._query.get("history"), self._query.get("while_busy"))
        run, encoder, place = await self._begin(self.state, body, self.info, None, compat, query)
        await self._stream(request, run, encoder, place)

    async def _resume(self, request: str, frame: Fields) -> None:
        run = await self._active(self.state, frame.need("id"), self.info.principal)
        if run is None:
            await self.send({"type": "no-active", "requestId": request})
            return
        fold, _ = await folded(self.state, run.id, self.info.principal)
        encoder = UIMessageEncoder(compat="7", resolved_ids=resolved_ids(fold))
        await self._stream(request, run.id, encoder, None)

    async def _stream(
        self, request: str, run: str, encoder: UIMessageEncoder, place: Place | None
    ) -> None:
        sequence = 0
        await self.send({"type": "start", "requestId": request})
        async with aclosing(self.follow(run, encoder, place)) as batches:
            async for batch in batches:
                for _, event in batch:
                    for chunk in encoder.chunks(event):
                        head = {"type": "chunk", "requestId": request, "sequence": sequence}
                        await self.send({**head, "chunk": chunk})
                        sequence += 1
        await self.send({"type": "end", "requestId": request})
