"""Where the bytes of one stream go: pieces that wait for the socket, or one write at once.

Always true: a piece is written when the one before it has gone, and counted while it waits; what
goes past the task is written only where the response has nothing else to send.
"""

from __future__ import annotations

import asyncio

from starlette.types import Send

from tokenwire.errors import BusyError
from tokenwire.express import NO, SETTLE, YES, Taken
from tokenwire.relay.follow import Batch
from tokenwire.relay.record import CHECK
from tokenwire.server.budget import Account
from tokenwire.server.edge.connections import Connection, SlowReader
from tokenwire.server.edge.encoding.batches import BatchEncoder
from tokenwire.server.edge.transport import ResponseBody
from tokenwire.wire.own import AnyEncoder

__all__ = ["ENDINGS", "TURN", "Express", "Out"]

#: The most that goes into one send, so that a slow reader's socket is asked again in between.
_PIECE = 64 << 10
#: Records, and KiB, after which a reader that catches up leaves the loop to others: some 5 ms.
TURN = 1024
#: Records after which a run has little more to say, and says most of it at once: the rest of the
#: answer, the ends of its step and of the run.
ENDINGS = tuple(
    b'{"type":"%b"' % kind.encode()
    for kind in ("finish", "usage", "text-end", "reasoning-end", "step-end", "run-end")
)


class Express:
    """The last piece of the express way: encode and write at once, where the socket takes it and
    the response has nothing else to send."""

    __slots__ = ("_batches", "_body", "_connection", "_encoder", "_now")

    def __init__(
        self,
        encoder: AnyEncoder,
        batches: BatchEncoder,
        connection: Connection,
        body: ResponseBody,
    ) -> None:
        self._encoder, self._batches = encoder, batches
        self._connection, self._body = connection, body
        self._now = asyncio.get_running_loop().time
        port = connection.port = body.port
        if port is not None:
            batches.open(port)

    def take(self, batch: Batch) -> Taken:
        """Write ``batch``, unless the response's task has to."""
        connection = self._connection
        if connection.lost or connection.leaving is not None or not self._body.ready():
            return NO
        if batch.records[-1].startswith(ENDINGS, CHECK):
            self._body.hold()
        return self._write_out(self._batches.encode(batch))

    def one(self, offset: int, record: bytes) -> Taken:
        """The same for one record."""
        connection, body = self._connection, self._body
        if connection.lost or connection.leaving is not None or not body.ready():
            return NO
        if record.startswith(ENDINGS, CHECK):
            body.hold()
        data = self._batches.encode_one(offset, record)
        if data:
            body.write(data)
            connection.last_write = self._now()
        return SETTLE if self._encoder.ended else YES

    def _write_out(self, data: bytes) -> Taken:
        if data:
            self._body.write(data)
            self._connection.last_write = self._now()
        return SETTLE if self._encoder.ended else YES


class Out:
    """Where one reader's bytes go: in pieces, and counted while they wait."""

    __slots__ = ("_account", "_connection", "_send")

    def __init__(self, connection: Connection, send: Send, account: Account | None) -> None:
        self._connection, self._send, self._account = connection, send, account

    async def send(self, data: bytes, *, last: bool = False) -> None:
        """Send ``data``. Raises `SlowReader`, also where the client's budget has no room for it."""
        if len(data) > _PIECE:
            data = await self._pieces(data)
        body = {"type": "http.response.body", "body": data, "more_body": not last}
        await self._connection.write(self._send, body)

    async def _pieces(self, data: bytes) -> bytes:
        """Send all but the last piece, which is returned."""
        account, connection = self._account, self._connection
        waiting = len(data)
        if account is not None:
            try:
                account.take(waiting)
            except BusyError:
                raise SlowReader from None
        view, work = memoryview(data), 0
        try:
            while len(view) > _PIECE and not connection.lost:
                piece, view = bytes(view[:_PIECE]), view[_PIECE:]
                body = {"type": "http.response.body", "body": piece, "more_body": True}
                await connection.write(self._send, body)
                work += len(piece) >> 10
                if work >= TURN:
                    work = 0
                    await asyncio.sleep(0)
                if account is not None:
                    account.give(len(piece))
                    waiting -= len(piece)
        finally:
            if account is not None:
                account.give(waiting)
        return bytes(view)
