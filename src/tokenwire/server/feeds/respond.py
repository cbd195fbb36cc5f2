"""A conversation's stream as a response: server-sent events, or one JSON page.

Always true: what `tokenwire.server.edge.respond` promises of a run's stream holds for this one, as
it is sent by the same code: heartbeat, age, bytes that wait, a peer that does not read; an event
that only passes has no id, so that it moves no cursor.
"""

from __future__ import annotations

from typing import ClassVar, Protocol, cast

import msgspec
from starlette.responses import Response
from starlette.types import Receive

from tokenwire.errors import GoneError, InputError
from tokenwire.events.codec import encode
from tokenwire.events.model import Reconnect
from tokenwire.relay.feed.live import StreamBatch
from tokenwire.relay.follow import Follower
from tokenwire.server.edge.disconnect import watch_disconnect
from tokenwire.server.edge.guard import RequestInfo
from tokenwire.server.edge.respond import RunResponse
from tokenwire.server.state import State
from tokenwire.wire.own import AnyEncoder

__all__ = ["LIVE", "FeedEncoder", "Live", "live_of", "page", "stream_response"]

#: How a stream is read: ``?live=``.
LIVE = ("sse", "long-poll", "no")


class Live(Protocol):
    """A stream of batches, as `tokenwire.relay.feed.stream.ThreadStream` is one."""

    @property
    def cursor(self) -> str:
        """Where the reader is."""
        ...

    async def next(self) -> StreamBatch | None:
        """The next events; waits for them."""
        ...

    async def ready(self) -> StreamBatch:
        """The events that are there now."""
        ...

    def poke(self) -> None:
        """Make a waiting `next` return an empty batch."""
        ...

    def close(self, *, returning: bool = False) -> None:
        """Stop."""
        ...


class FeedEncoder:
    """Events of a feed to SSE blocks."""

    name: ClassVar[str] = "thread"
    content_type: ClassVar[str] = "text/event-stream"
    headers: ClassVar[dict[str, str]] = {}
    stateless: ClassVar[bool] = True
    encode_json: ClassVar[None] = None
    ended: bool = False

    def encode(self, event: bytes, cursor: str | None) -> bytes:
        """One block."""
        head = b"id: %b\n" % cursor.encode("ascii") if cursor is not None else b""
        return b"%bdata: %b\n\n" % (head, event)

    def farewell(self, event: Reconnect) -> bytes | None:
        """A block without an id."""
        return b"data: %b\n\n" % encode(event)

    def skip(self, event: bytes) -> None:
        """No state to update."""

    def reopen(self) -> bytes:
        """Nothing to open again."""
        return b""

    def finish(self) -> bytes:
        """A feed has no end."""
        return b""

    def heartbeat(self) -> bytes:
        """An SSE comment."""
        return b": keep-alive\n\n"


def live_of(live: str) -> str:
    """How the client reads. Raises `InputError`."""
    if live not in LIVE:
        raise InputError(f"'live' must be {', '.join(LIVE[:-1])} or {LIVE[-1]}", field="live")
    return live


def stream_response(state: State, stream: Live, info: RequestInfo, subject: str) -> RunResponse:
    """``stream`` as server-sent events; ``subject``: what is read, for the counts of readers.
    Raises `BusyError`, and the stream is closed then."""
    try:
        release = state.limits.attach(subject, info.principal)
    except BaseException:
        stream.close()
        raise
    # What the response needs of a follower and its encoder a stream and its encoder have, with
    # JSON where those have events; the response looks into neither.
    return RunResponse(
        state.connections,
        cast("Follower", stream),
        cast("AnyEncoder", FeedEncoder()),
        release=release,
    )


async def page(
    state: State, stream: Live, info: RequestInfo, subject: str, receive: Receive | None
) -> Response:
    """What is there now as one JSON page; with ``receive``, as soon as there is something, or the
    time is up. The next page begins after ``next``; ``reader`` stands for the principal."""
    release, is_gone = None, False
    try:
        release = state.limits.attach(subject, info.principal)
        batch = await stream.ready()
        if receive is not None and not batch.parts():
            connection = state.connections.open(stream, info.identity)
            connection.expires = connection.last_write + state.settings.long_poll_timeout
            watch = watch_disconnect(receive, connection.gone)
            try:
                while not batch.parts():
                    following = await stream.next()
                    connection.check()
                    if following is None or connection.leaving is not None or connection.lost:
                        break
                    batch = following
            finally:
                watch.cancel()
                is_gone = connection.lost
                state.connections.close(connection)
    except GoneError:
        batch = StreamBatch([])
    finally:
        stream.close(returning=not is_gone)
        if release is not None:
            release()
    body = _page_of(batch, stream.cursor, info.reader)
    return Response(body, media_type="application/json")


def _page_of(batch: StreamBatch, following: str, reader: str) -> bytes:
    events: list[bytes] = []
    for cursor, data in batch.parts():
        if cursor is None:
            events.append(b'{"event":%b}' % data)
        else:
            events.append(b'{"cursor":"%b","event":%b}' % (cursor.encode("ascii"), data))
    parts = (b",".join(events), msgspec.json.encode(following), reader.encode())
    return b'{"events":[%b],"next":%b,"reader":"%b"}' % parts
