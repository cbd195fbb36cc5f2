"""An answer's bytes on their way out: in pieces that wait for the socket, and counted.

Always true: no piece is written before the socket has taken most of the one before; what does not
fit the client's budget is refused before the answer has begun, and a stream is broken off.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import count

from starlette.types import Message, Send

from tokenwire.errors import BusyError
from tokenwire.server.budget import Account

__all__ = ["MeteredSend"]

#: The most that is written at once, and how many of these in one turn of the loop.
_PIECE, _PIECES_IN_TURN = 64 << 10, 32


class MeteredSend:
    """``send`` of one request. ``abort`` drops its connection, where the server can."""

    __slots__ = ("_abort", "_account", "_counted", "_send")

    def __init__(self, send: Send, account: Account, abort: Callable[[], None] | None) -> None:
        self._send, self._account, self._abort = send, account, abort
        #: Bytes of the body that are counted already.
        self._counted = 0

    async def begin(self, message: Message, size: int) -> None:
        """The head of an answer of ``size`` bytes, 0 where that is not known. Raises
        `BusyError`."""
        if size > _PIECE:
            self._account.take(size)
            self._counted = size
        await self._send(message)

    async def body(self, message: Message) -> None:
        """Some of the body."""
        data: bytes = message.get("body", b"")
        if len(data) <= _PIECE:
            await self._send(message)
            self._give(len(data))
            return
        if not self._counted:  # of a stream
            try:
                self._account.take(len(data))
            except BusyError:
                if self._abort is None:
                    raise
                self._abort()
                return
            self._counted = len(data)
        more = message.get("more_body", False)
        view = memoryview(data)
        for number in count(1):
            piece, view = bytes(view[:_PIECE]), view[_PIECE:]
            is_last = not view and not more
            await self._send({"type": message["type"], "body": piece, "more_body": not is_last})
            self._give(len(piece))
            if not view:
                break
            if number % _PIECES_IN_TURN == 0:  # a socket that takes all of it never waits
                await asyncio.sleep(0)

    async def stream(self, message: Message) -> None:
        """`begin` or `body`, for what writes past the guard."""
        if message["type"] == "http.response.body":
            await self.body(message)
        else:
            await self._send(message)

    def _give(self, size: int) -> None:
        if self._counted:
            self._account.give(min(size, self._counted))
            self._counted = max(0, self._counted - size)
