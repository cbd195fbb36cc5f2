"""A run's events to one HTTP response: follow, encode, send, in one loop per reader.

Always true: a reader gets every record after its cursor once and in order; whoever comes back with
a cursor hears only what it misses (the encoder skips what it saw and re-opens what was open); the
loop takes all that is there and sends it in one piece; a reader that stops reading delays nobody.

For a route of another wire::

    response = await run_response(state, run_id, encoder=MyEncoder(), after=cursor, principal=p)
    return response          # an ASGI application, which Starlette routes accept as a response
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from tokenwire.errors import BusyError, GoneError, LogError, NotFoundError, TokenwireError
from tokenwire.events.model import Reconnect
from tokenwire.express import NO, SETTLE, YES, Taken
from tokenwire.observe.facts import FollowerGone, FollowerOpened
from tokenwire.observe.hooks import report
from tokenwire.relay.follow import Batch
from tokenwire.relay.record import CHECK, parse_cursor
from tokenwire.server.budget import Account
from tokenwire.server.edge.connections import Connection, Connections, SlowReader
from tokenwire.server.edge.disconnect import watch_disconnect
from tokenwire.server.edge.encoding.batches import BatchEncoder
from tokenwire.server.edge.encoding.states import Keeper
from tokenwire.server.edge.request_info import identity_of
from tokenwire.server.edge.transport import ResponseBody, Transport, transport_of
from tokenwire.wire.own import AnyEncoder, EncoderError, OwnEncoder

if TYPE_CHECKING:
    from tokenwire.relay.follow import Follower
    from tokenwire.server.state import State

__all__ = ["STREAM_HEADERS", "Head", "RunResponse", "offset_of", "run_response"]

_log = logging.getLogger("tokenwire.server")

#: What keeps proxies and browsers from storing, changing, or holding back a stream.
STREAM_HEADERS: dict[str, str] = {
    "cache-control": "no-cache, no-store, no-transform",
    "x-accel-buffering": "no",
    "vary": "Origin, Accept",
}
#: The most that goes into one send, so that a slow reader's socket is asked again in between.
_PIECE = 64 << 10
#: Records, and KiB, after which a reader that catches up leaves the loop to others: some 5 ms.
_TURN = 1024


#: Records after which a run has little more to say, and says most of it at once: the rest of the
#: answer, the ends of its step and of the run.
_ENDINGS = tuple(
    b'{"type":"%b"' % kind.encode()
    for kind in ("finish", "usage", "text-end", "reasoning-end", "step-end", "run-end")
)


class Head(Protocol):
    """Decides when the head of a response may go out, so that its status can be true."""

    #: For how long the head waits at most.
    seconds: float

    def begins(self, batch: Batch) -> bool:
        """Whether the response begins with ``batch``, the next one of the run. Raises the error to
        answer with instead."""
        ...


def offset_of(cursor: str | None) -> int:
    """The offset in a cursor; 0 for none. Raises `CursorError`."""
    return parse_cursor(cursor)[0]


async def run_response(
    state: State,
    run_id: str,
    *,
    encoder: AnyEncoder,
    after: str | None = None,
    principal: str = "",
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    preamble: bytes | None = None,
    when_ended: Callable[[], bytes] | None = None,
    head: Head | None = None,
) -> RunResponse:
    """A response that follows ``run_id`` after the cursor ``after`` in the encoder's wire.

    Errors (unknown run, bad cursor, too many readers) are raised here, before a byte is sent.
    A ``stateless`` encoder starts at the cursor; any other reads from the beginning, or from a
    state that was kept (`encoding.states`), and skips.
    """
    release = state.limits.attach(run_id, principal)
    try:
        follower = await state.runs.follow(run_id, after=after or None, principal=principal)
        skip, keeper = 0, None
        if follower.after and not encoder.stateless:
            skip = follower.after  # the cursor was checked; now the same from the beginning
            keeper = await state.encoder_states.begin(encoder, follower)
    except BaseException:
        release()
        raise
    return RunResponse(
        state.connections,
        follower,
        encoder,
        run_id=run_id,
        skip=skip,
        status=status,
        headers=headers,
        preamble=preamble,
        when_ended=when_ended,
        release=release,
        head=head,
        keeper=keeper,
    )


class RunResponse(Response):
    """A response that streams a follower's records. ``skip``: the offset up to which the
    client has seen the run. ``preamble``: first bytes, sent with the headers. ``when_ended``: more
    bytes after the encoder's own end. ``head``: what the headers wait for. ``keeper``: keeps the
    encoder's states while it skips."""

    def __init__(
        self,
        connections: Connections,
        follower: Follower,
        encoder: AnyEncoder,
        *,
        run_id: str = "",
        skip: int = 0,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        preamble: bytes | None = None,
        when_ended: Callable[[], bytes] | None = None,
        release: Callable[[], None] | None = None,
        head: Head | None = None,
        keeper: Keeper | None = None,
    ) -> None:
        all_headers = {**STREAM_HEADERS, **encoder.headers, **(headers or {})}
        super().__init__(
            status_code=status, headers={"content-type": encoder.content_type, **all_headers}
        )
        del self.headers["content-length"]
        self.connections = connections
        self.follower = follower
        self.encoder = encoder
        self.run_id = run_id
        self.skip = skip
        if preamble is None:
            preamble = b": ok\nretry: %d\n\n" % connections.retry_ms
        self.preamble = preamble
        self.when_ended = when_ended
        self.release = release
        self.head = head
        self.keeper = keeper
        self.wire = encoder.name
        self._is_own = isinstance(encoder, OwnEncoder)
        self._arrival = 0.0
        #: The offset up to which the log is not read at all.
        self.first = follower.after
        #: Why the stream ended: ``closed``, unless something else is known.
        self._why = "closed"

    def discard(self) -> None:
        """Another answer is given instead of this one."""
        self.follower.close(returning=True)
        if self.release is not None:
            self.release()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until the run has ended, the reader has gone, or the server asks it to leave."""
        transport = transport_of(scope)
        connection: Connection | None = None
        watch: asyncio.Task[None] | None = None
        wire = self.wire if self.encoder.stateless else None
        self._arrival = asyncio.get_running_loop().time()
        resumed = self.skip > 0 or self.first > 0
        report(FollowerOpened(self.run_id, self.wire, resumed))
        # Another's encoder may call itself as one of ours does.
        is_shared = wire is not None and bool(self.run_id) and not self._is_own
        shared = self.connections.share(self.run_id, wire) if wire and is_shared else None
        try:
            connection = self.connections.open(self.follower, identity_of(scope))
            connection.unsent = transport.unsent
            watch = watch_disconnect(receive, connection.gone)
            batch = await self._hold(connection, self.head) if self.head is not None else []
            if connection.lost:
                return
            if transport.body is not None:
                transport.body.hold()  # head, preamble and the run's first events leave together
            await send(self._start())
            if scope.get("method") == "HEAD":
                await send({"type": "http.response.body", "body": b""})
                self._why = "end"
                return
            # The guard's wrapper only looks at the start; the rest goes out without it.
            send = transport.send or send
            encoder = BatchEncoder(self.encoder, self.skip, shared)
            out = _Out(connection, send, transport.account)
            await out.send(self.preamble + b"".join(map(encoder.encode, batch)))
            if transport.body is not None:
                express = _Express(self.encoder, encoder, connection, transport.body)
                self.follower.express(express.take, express.one, transport.body.port)
            await self._pump(connection, out, encoder, transport.body)
        except OSError:  # how other ASGI servers report that the peer is gone
            if connection is not None:
                connection.lost = True
            raise
        except SlowReader:
            self._why = "slow"
            await transport.drop()
        except EncoderError as error:
            # To the reader, what was sent must not look like a whole answer.
            self._why = "wire"
            _log.error("%s at run %s", error.message, self.run_id, exc_info=error.__cause__)
            await transport.drop()
        finally:
            # Whoever did not close the connection has not left: it was asked to reconnect, or the
            # server stops.
            is_gone = connection is not None and connection.lost and connection.leaving is None
            self.follower.close(returning=not is_gone)
            self._left(transport)
            if watch is not None:
                watch.cancel()
            if connection is not None:
                self.connections.close(connection)
            if shared is not None and wire:
                self.connections.unshare(self.run_id, wire)
            if self.release is not None:
                self.release()

    async def _hold(self, connection: Connection, head: Head) -> list[Batch]:
        """The batches that came before the head may go out. Raises what ``head`` raises."""
        batches: list[Batch] = []
        is_late = False

        def give_up() -> None:
            nonlocal is_late
            is_late = True
            self.follower.poke()

        timer = asyncio.get_running_loop().call_later(head.seconds, give_up)
        try:
            while not (is_late or connection.lost or connection.leaving is not None):
                batch = await self.follower.next()
                if batch is None:
                    break
                if batch.records:
                    batches.append(batch)
                    if head.begins(batch):
                        break
        finally:
            timer.cancel()
        return batches

    def _left(self, transport: Transport) -> None:
        why = "slow" if transport.is_slow and self._why == "closed" else self._why
        seconds = asyncio.get_running_loop().time() - self._arrival
        records = max(0, self.follower.after - max(self.skip, self.first))
        report(FollowerGone(self.run_id, self.wire, why, records, seconds))

    def _start(self) -> Message:
        start = "http.response.start"
        return {"type": start, "status": self.status_code, "headers": self.raw_headers}

    async def _pump(
        self, connection: Connection, out: _Out, encode: BatchEncoder, body: ResponseBody | None
    ) -> None:
        loop = asyncio.get_running_loop()
        follower, encoder, connections = self.follower, self.encoder, self.connections
        work = 0
        while True:
            try:
                batch = await follower.next()
            except (NotFoundError, GoneError, LogError) as error:
                if not connection.lost:
                    await self._break_off(out, error)
                return
            if connection.lost:
                return
            if batch is None:
                await self._finish(out)
                return
            if batch.records:
                if body is not None and batch.records[-1].startswith(_ENDINGS, CHECK):
                    body.hold()
                work += len(batch.records)
                if batch.first <= self.skip:  # these are read and decoded, and nothing is sent
                    work += sum(map(len, batch.records)) >> 10
                for data in encode.pieces(batch):
                    await out.send(data)
                    if connection.lost:
                        return
                    work += len(data) >> 10
                    if work >= _TURN:
                        work = 0
                        await asyncio.sleep(0)
                if self.keeper is not None and follower.after <= self.skip:
                    self.keeper.skipped(batch, encode)
                if work >= _TURN:  # neither the store nor the socket may have made it wait
                    work = 0
                    await asyncio.sleep(0)
            if encoder.ended:
                # This wire's answer is over, though the run may go on (it waits for a person).
                await self._finish(out)
                return
            if connection.leaving is not None:
                farewell = self._farewell(connection.leaving)
                if farewell is None:
                    # To clients of this wire an orderly end would be the end of the answer. They
                    # may stay beyond their age; when the server stops, the stream breaks off.
                    if connection.leaving == "max_age":
                        connection.leaving, connection.expires = None, float("inf")
                        continue
                    self._why = connection.leaving
                    return
                await out.send(farewell, last=True)
                self._why = {"max_age": "age"}.get(connection.leaving, connection.leaving)
                return
            now = loop.time()
            if now - connection.written_at(now) >= connections.heartbeat:
                await out.send(encoder.heartbeat())

    async def _break_off(self, out: _Out, error: TokenwireError) -> None:
        """The log cannot be read any more: the run was erased under its reader, or the store
        failed. A wire with a farewell ends with it (whoever reconnects hears why); to clients of
        any other an orderly end would be the end of the answer, so the stream breaks off."""
        self._why = "gone" if isinstance(error, NotFoundError | GoneError) else "store"
        _log.info("a reader of run %s leaves: %s", self.run_id, error)
        farewell = self._farewell(self._why)
        if farewell is not None:
            await out.send(farewell, last=True)

    async def _finish(self, out: _Out) -> None:
        end = self.encoder.finish()
        if self.when_ended is not None:
            end += self.when_ended()
        await out.send(end, last=True)
        self._why = "end"

    def _farewell(self, reason: str) -> bytes | None:
        return self.encoder.farewell(Reconnect(after_ms=self.connections.retry_ms, reason=reason))


class _Express:
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
        if batch.records[-1].startswith(_ENDINGS, CHECK):
            self._body.hold()
        return self._write_out(self._batches.encode(batch))

    def one(self, offset: int, record: bytes) -> Taken:
        """The same for one record."""
        connection, body = self._connection, self._body
        if connection.lost or connection.leaving is not None or not body.ready():
            return NO
        if record.startswith(_ENDINGS, CHECK):
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


class _Out:
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
                if work >= _TURN:
                    work = 0
                    await asyncio.sleep(0)
                if account is not None:
                    account.give(len(piece))
                    waiting -= len(piece)
        finally:
            if account is not None:
                account.give(waiting)
        return bytes(view)
