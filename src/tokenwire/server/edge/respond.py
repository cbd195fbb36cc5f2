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

from tokenwire.relay.follow import Batch
from tokenwire.relay.record import parse_cursor
from tokenwire.server.edge.connections import Connection, Connections
from tokenwire.server.edge.encoding.states import Keeper
from tokenwire.server.edge.request_info import identity_of
from tokenwire.server.edge.streaming.stream import Stream
from tokenwire.server.edge.transport import transport_of
from tokenwire.wire.own import AnyEncoder

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
        #: The offset up to which the log is not read at all.
        self.first = follower.after

    def discard(self) -> None:
        """Another answer is given instead of this one."""
        self.follower.close(returning=True)
        if self.release is not None:
            self.release()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until the run has ended, the reader has gone, or the server asks it to leave.
        Under our own server this returns before that, and the stream goes on (`Transport.rest`)."""
        transport = transport_of(scope)
        stream = Stream(
            self.connections,
            self.follower,
            self.encoder,
            transport,
            run=self.run_id,
            skip=self.skip,
            when_ended=self.when_ended,
            release=self.release,
            keeper=self.keeper,
        )
        try:
            await self._stream(stream, scope, receive, send)
        except Exception as error:
            if not await stream.dealt_with(error):
                raise
        finally:
            if transport.rest is None:
                stream.close()

    async def _stream(self, stream: Stream, scope: Scope, receive: Receive, send: Send) -> None:
        transport = transport_of(scope)
        stream.open(identity_of(scope), receive)
        connection = stream.connection
        batches = await self._hold(connection, self.head) if self.head is not None else []
        if connection.lost:
            return
        if transport.body is not None:
            transport.body.hold()  # head, preamble and the run's first events leave together
        await send(self._start())
        if scope.get("method") == "HEAD":
            await send({"type": "http.response.body", "body": b""})
            stream.why = "end"
            return
        # The guard's wrapper only looks at the start; the rest goes out without it.
        if not await stream.begin(transport.send or send, self.preamble, batches):
            transport.rest = stream

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

    def _start(self) -> Message:
        start = "http.response.start"
        return {"type": start, "status": self.status_code, "headers": self.raw_headers}
