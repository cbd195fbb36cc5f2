"""One reader's stream of a run, from its head to its end, in a task or in none.

Under our own server a stream that waits has no task: ASGI's call returns with the first pause, and
all that it held goes; the stream is woken by its follower, works in a task of its own until there
is nothing to do, and sleeps again (`Rest`).

Always true: `close` is called once, whichever way the stream ends; while the stream works it is in
one task only; what wakes it while it works is not lost.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from starlette.types import Receive, Send

from tokenwire.errors import GoneError, LogError, NotFoundError, TokenwireError
from tokenwire.events.model import Reconnect
from tokenwire.observe.facts import FollowerGone, FollowerOpened
from tokenwire.observe.hooks import report
from tokenwire.relay.follow import WAITS, Batch, Follower
from tokenwire.relay.record import CHECK
from tokenwire.server.edge.auth import Identity
from tokenwire.server.edge.connections import Connection, Connections, SlowReader
from tokenwire.server.edge.disconnect import watch_disconnect
from tokenwire.server.edge.encoding.batches import BatchEncoder
from tokenwire.server.edge.encoding.states import Keeper
from tokenwire.server.edge.streaming.out import ENDINGS, TURN, Express, Out
from tokenwire.server.edge.transport import RestWay, Transport
from tokenwire.wire.own import AnyEncoder, EncoderError, OwnEncoder

__all__ = ["Stream"]

_log = logging.getLogger("tokenwire.server")


class Stream:
    """What a response keeps while it streams. ``skip``: the offset up to which the client has seen
    the run; ``when_ended``: more bytes after the encoder's own end; ``release``: called at the
    end."""

    __slots__ = (
        "_arrival",
        "_encode",
        "_first",
        "_is_asleep",
        "_keeper",
        "_may_rest",
        "_out",
        "_release",
        "_shared_wire",
        "_skip",
        "_transport",
        "_watch",
        "_way",
        "_when_ended",
        "connection",
        "connections",
        "encoder",
        "follower",
        "run",
        "why",
    )

    connection: Connection
    _encode: BatchEncoder
    _out: Out

    def __init__(
        self,
        connections: Connections,
        follower: Follower,
        encoder: AnyEncoder,
        transport: Transport,
        *,
        run: str,
        skip: int,
        when_ended: Callable[[], bytes] | None,
        release: Callable[[], None] | None,
        keeper: Keeper | None = None,
    ) -> None:
        self.connections, self.follower, self.encoder = connections, follower, encoder
        self.run, self._skip = run, skip
        self._keeper = keeper
        self._transport = transport
        self._when_ended, self._release = when_ended, release
        #: The offset up to which the log is not read at all.
        self._first = follower.after
        self._arrival = asyncio.get_running_loop().time()
        #: Why the stream ended: ``closed``, unless something else is known.
        self.why = "closed"
        self._watch: asyncio.Task[None] | None = None
        self._shared_wire: str | None = None
        self._way: RestWay | None = None
        self._is_asleep = False
        #: Whether the stream can go on after ASGI's call.
        self._may_rest = False

    def open(self, identity: Identity | None, receive: Receive) -> None:
        """Begin to look after the peer, of whom ``identity`` is known."""
        resumed = self._skip > 0 or self._first > 0
        report(FollowerOpened(self.run, self.encoder.name, resumed))
        transport = self._transport
        self.connection = self.connections.open(self.follower, identity)
        self.connection.unsent = transport.unsent
        # Decided once: it says who hears of the peer's end. Another kind of follower only waits.
        is_run = isinstance(self.follower, Follower)
        self._may_rest = is_run and transport.takes_rest and transport.is_received()
        if self._may_rest:
            transport.watch(self.connection.gone)
        else:
            self._watch = watch_disconnect(receive, self.connection.gone)

    async def begin(self, send: Send, preamble: bytes, batches: list[Batch]) -> bool:
        """After the head: ``preamble``, the ``batches`` that were waited for, and all that follows
        until the stream is over; False where the rest may come later (`Rest`)."""
        encoder, transport = self.encoder, self._transport
        # Another's encoder may call itself as one of ours does.
        is_shared = encoder.stateless and bool(self.run) and not isinstance(encoder, OwnEncoder)
        shared = None
        if is_shared:
            self._shared_wire = encoder.name
            shared = self.connections.share(self.run, encoder.name)
        self._encode = encode = BatchEncoder(encoder, self._skip, shared)
        self._out = out = Out(self.connection, send, transport.account)
        await out.send(preamble + b"".join(map(encode.encode, batches)))
        body = transport.body
        if body is not None:
            express = Express(encoder, encode, self.connection, body)
            self.follower.express(express.take, express.one, body.port)
        return await self._pump(waits=not self._may_rest)

    async def dealt_with(self, error: Exception) -> bool:
        """What a failure means for the stream; False where it has to be raised."""
        if isinstance(error, OSError):  # how other ASGI servers report that the peer is gone
            connection: Connection | None = getattr(self, "connection", None)
            if connection is not None:
                connection.lost = True
            return False
        if isinstance(error, SlowReader):
            self.why = "slow"
        elif isinstance(error, EncoderError):
            # To the reader, what was sent must not look like a whole answer.
            self.why = "wire"
            _log.error("%s at run %s", error.message, self.run, exc_info=error.__cause__)
        else:
            return False
        await self._transport.drop()
        return True

    def close(self) -> None:
        """The stream is over."""
        # Whoever did not close the connection has not left: it was asked to reconnect, or the
        # server stops.
        connection: Connection | None = getattr(self, "connection", None)
        is_gone = connection is not None and connection.lost and connection.leaving is None
        self.follower.close(returning=not is_gone)
        why = "slow" if self._transport.is_slow and self.why == "closed" else self.why
        seconds = asyncio.get_running_loop().time() - self._arrival
        records = max(0, self.follower.after - max(self._skip, self._first))
        report(FollowerGone(self.run, self.encoder.name, why, records, seconds))
        if self._watch is not None:
            self._watch.cancel()
        if connection is not None:
            self.connections.close(connection)
        if self._shared_wire is not None:
            self.connections.unshare(self.run, self._shared_wire)
        if self._release is not None:
            self._release()

    # --- after ASGI's call, see `Rest` -----------------------------------------------------------

    def go_on(self, way: RestWay) -> None:
        """See `Rest`."""
        self._way = way
        self._sleep()

    def _sleep(self) -> None:
        self._is_asleep = True
        if not self.follower.sleep(self):
            self.set_result(None)

    def done(self) -> bool:
        """Whether it was woken, as of a future."""
        return not self._is_asleep

    def set_result(self, result: None) -> None:
        """Wake it."""
        self._is_asleep = False
        if self._way is not None:
            self._way.spawn(self._work())

    async def _work(self) -> None:
        failure: BaseException | None = None
        try:
            if not await self._pump(waits=False):
                self._sleep()
                return
        except Exception as error:
            if not await self.dealt_with(error):
                failure = error
        except BaseException as error:
            failure = error
        way, self._way = self._way, None
        try:
            self.close()
        except Exception as error:
            failure = failure or error
        try:
            if way is not None:
                await way.over(failure)
        finally:
            failure = None  # its traceback has this frame

    # --- the stream ------------------------------------------------------------------------------

    async def _pump(self, *, waits: bool) -> bool:
        """Send what there is until the stream is over; unless it ``waits``, False when there is
        nothing to send now."""
        loop = asyncio.get_running_loop()
        follower, encoder, connections = self.follower, self.encoder, self.connections
        connection, out, body = self.connection, self._out, self._transport.body
        work = 0
        while True:
            try:
                batch = await (follower.next() if waits else follower.next(waits=False))
            except (NotFoundError, GoneError, LogError) as error:
                if not connection.lost:
                    await self._break_off(error)
                return True
            if batch is WAITS:
                return False
            if connection.lost:
                return True
            if batch is None:
                await self._finish()
                return True
            if batch.records:
                if body is not None and batch.records[-1].startswith(ENDINGS, CHECK):
                    body.hold()
                work += len(batch.records)
                if batch.first <= self._skip:  # these are read and decoded, and nothing is sent
                    work += sum(map(len, batch.records)) >> 10
                for data in self._encode.pieces(batch):
                    await out.send(data)
                    if connection.lost:
                        return True
                    work += len(data) >> 10
                    if work >= TURN:
                        work = 0
                        await asyncio.sleep(0)
                if self._keeper is not None and follower.after <= self._skip:
                    self._keeper.skipped(batch, self._encode)
                if work >= TURN:  # neither the store nor the socket may have made it wait
                    work = 0
                    await asyncio.sleep(0)
            if encoder.ended:
                # This wire's answer is over, though the run may go on (it waits for a person).
                await self._finish()
                return True
            if connection.leaving is not None:
                if await self._leave(connection.leaving):
                    return True
                continue
            now = loop.time()
            if now - connection.written_at(now) >= connections.heartbeat:
                await out.send(encoder.heartbeat())

    async def _leave(self, reason: str) -> bool:
        """End the stream for the ``reason``; False where it stays."""
        farewell = self._farewell(reason)
        if farewell is None:
            # To clients of this wire an orderly end would be the end of the answer. They may stay
            # beyond their age; when the server stops, the stream breaks off.
            if reason == "max_age":
                self.connection.leaving, self.connection.expires = None, float("inf")
                return False
            self.why = reason
            self._transport.break_off()
            return True
        await self._out.send(farewell, last=True)
        self.why = {"max_age": "age"}.get(reason, reason)
        return True

    async def _break_off(self, error: TokenwireError) -> None:
        """The log cannot be read any more: the run was erased under its reader, or the store
        failed. A wire with a farewell ends with it (whoever reconnects hears why); to clients of
        any other an orderly end would be the end of the answer, so the stream breaks off."""
        self.why = "gone" if isinstance(error, NotFoundError | GoneError) else "store"
        _log.info("a reader of run %s leaves: %s", self.run, error)
        farewell = self._farewell(self.why)
        if farewell is not None:
            await self._out.send(farewell, last=True)
        else:
            self._transport.break_off()

    async def _finish(self) -> None:
        end = self.encoder.finish()
        if self._when_ended is not None:
            end += self._when_ended()
        await self._out.send(end, last=True)
        self.why = "end"

    def _farewell(self, reason: str) -> bytes | None:
        return self.encoder.farewell(Reconnect(after_ms=self.connections.retry_ms, reason=reason))
