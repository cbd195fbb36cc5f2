"""``WS /ag-ui``: TanStack AI's WebSocket connection.

Client: a ``RunAgentInput`` a turn, or ``{"type":"abort","runId"}``. Server: ``{"id","chunk"}`` with
an AG-UI event and its place, a bare ``RUN_ERROR`` for a turn that could not start,
``{"type":"ping"}``. ``?runId=&offset=`` reads the rest of one run only: the socket closes with 1000
after it.

Always true: a frame's ``id`` is a place to resume at; a socket that only reads starts nothing;
``abort`` stops the run, because these pages send it when a person stops, and a closed socket does
not, because it may have been cut.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any
from urllib.parse import parse_qs

from starlette.types import Message, Receive, Scope, Send

from tokenwire.errors import InputError, TokenwireError
from tokenwire.server.edge.problems import message_of
from tokenwire.server.sockets.base import POLICY
from tokenwire.server.sockets.requests import MAX_REQUESTS, RequestSocket
from tokenwire.server.state import State
from tokenwire.wire.ag_ui.encoder import AGUIEncoder
from tokenwire.wire.fields import Fields, one_name
from tokenwire.wire.place import Place

__all__ = ["AGUISocket", "Stream"]

#: A run, how to tell it, and from where.
Stream = tuple[str, AGUIEncoder, Place | None]


class AGUISocket(RequestSocket):
    """One conversation, or the rest of one run."""

    wire = "ag-ui-websocket"

    def __init__(
        self,
        state: State,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        begin: Callable[..., Awaitable[Stream]],
        join: Callable[..., Awaitable[Stream]],
        stop: Callable[..., Awaitable[None]],
    ) -> None:
        super().__init__(state, scope, receive, send)
        self._begin, self._join, self._stop = begin, join, stop
        query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
        self._query = {name: values[-1] for name, values in query.items()}
        self._only_reads = "offset" in self._query

    def keep_alive(self) -> dict[str, Any] | None:
        """These clients expect messages from time to time."""
        return {"type": "ping"}

    async def opened(self) -> None:
        """With an offset: the rest of that run, and nothing else."""
        if self._only_reads:
            self.start("rest", self._stream_rest(self._query["offset"]))

    async def take(self, message: Message) -> None:
        """A turn, or the stop of one."""
        if self._only_reads:
            return
        run = ""
        try:
            value = self.json(message)
            frame = Fields(value)
            run = one_name(frame, "runId")
            if frame.raw("type") == "abort":
                await self._stop(self.state, run, self.info)
            elif len(self.requests) >= MAX_REQUESTS:
                raise InputError("too many open turns on this socket")
            else:
                self.start(run, self._turn(run, value))
        except TokenwireError as error:
            await self._say(error, run)

    async def _turn(self, run: str, value: Any) -> None:
        try:
            await self._stream(await self._begin(self.state, value, self.info, self._query))
        except TokenwireError as error:
            await self._say(error, run)

    async def _stream_rest(self, offset: str) -> None:
        try:
            run = self._query.get("runId", "")
            await self._stream(await self._join(self.state, run, offset, self.info.principal))
        except TokenwireError as error:
            await self.close(POLICY, message_of(error))
        else:
            await self.close(1000)

    async def _stream(self, stream: Stream) -> None:
        run, encoder, place = stream
        is_resumed = place is not None
        async with aclosing(self.follow(run, encoder, place)) as batches:
            async for batch in batches:
                pieces = [encoder.reopen()] if is_resumed else []
                is_resumed = False
                pieces += [encoder.encode(event, cursor) for cursor, event in batch]
                for line in b"".join(pieces).decode().split("\n"):
                    if line:
                        await self.send_text(line)

    async def _say(self, error: TokenwireError, run: str) -> None:
        named = {"runId": run} if run else {}
        failure = {"message": message_of(error), "code": error.code}
        await self.send({"type": "RUN_ERROR", **named, **failure})
