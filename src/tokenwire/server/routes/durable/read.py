"""Reading a Durable Stream over HTTP: catch-up, long-poll, SSE, HEAD.

Always true: data and the control event that belongs to it go out in one write; ``Stream-Closed``
and ``streamClosed`` are said only when everything before was said; a long-poll ends in time.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tokenwire.durable.sources import RunSource, Source, StreamPage
from tokenwire.errors import GoneError, InputError, LogError, NotFoundError
from tokenwire.relay.members.access import Access
from tokenwire.relay.members.checked import unknown_run
from tokenwire.server.edge.connections import Connection, SlowReader
from tokenwire.server.edge.disconnect import watch_disconnect
from tokenwire.server.edge.request_info import identity_of
from tokenwire.server.edge.transport import transport_of
from tokenwire.server.state import State
from tokenwire.wire.durable import (
    BEGIN,
    control_frame,
    cursor_at,
    data_frame,
    media_type,
    offset_text,
    position_of,
)

__all__ = ["ReadingRight", "head", "read_counted"]

NOW = "now"
#: Under our own origin stands what a caller has written. A browser that opens it runs nothing.
_SANDBOX = "sandbox; default-src 'none'; frame-ancestors 'none'"
#: What a browser may show; all else it stores.
_HARMLESS = frozenset(
    "application/json application/x-ndjson application/ndjson application/jsonl "
    "application/octet-stream text/plain text/event-stream image/png image/jpeg image/gif "
    "image/webp image/avif".split()
)
_HARMLESS_FAMILIES = ("audio/", "video/")


async def head(source: Source, extra: dict[str, str]) -> Response:
    """``HEAD``: what it is and where it ends."""
    tail, closed = await source.tail()
    headers = {"stream-next-offset": offset_text(tail), "cache-control": "no-store", **extra}
    if closed:
        headers["stream-closed"] = "true"
    return _response(source, b"", headers)


class ReadingRight(NamedTuple):
    """What the reading of a run rests on: the ``access`` to its conversation, None without one,
    which was looked up when members had changed ``change_count`` times."""

    access: Access | None = None
    change_count: int = 0


async def read_counted(
    state: State,
    request: Request,
    source: Source,
    name: str,
    principal: str,
    right: ReadingRight | None = None,
) -> Response:
    """``GET``, counted as a reader of ``name`` for as long as it reads, and for as long as it has
    the ``right`` to."""
    release = state.limits.attach(name, principal)
    try:
        response = await _read(state, request, source, name, right or ReadingRight())
    except BaseException:
        release()
        raise
    if isinstance(response, SSEResponse):
        response.release = release
    else:
        release()
    return response  # type: ignore[return-value]


async def _read(
    state: State, request: Request, source: Source, name: str, right: ReadingRight
) -> Response | SSEResponse:
    """``GET`` in the mode that ``live`` asks for."""
    offset, live, cursor = _read_query(request)
    if live == "sse":
        # Our addition: a browser's own EventSource comes back with the id of the last control.
        last_event_id = request.headers.get("last-event-id")
        if last_event_id:
            position_of(last_event_id)
            offset = last_event_id
        response = SSEResponse(state, source, offset, cursor, name, right)
        await response.prepare()
        return response
    if live == "long-poll":
        return await _LongPoll(state, source, name, request).answer(offset, cursor, right)
    if offset == NOW:
        tail, closed = await source.tail()
        body = b"[]" if source.kind == "json" else b""
        headers = _headers(StreamPage([], tail, tail, closed))
        return _response(source, body, headers)
    page = await source.read(_position(offset))
    return _catch_up(request, source, _position(offset), page)


def _read_query(request: Request) -> tuple[str, str | None, str | None]:
    query = request.query_params
    offsets = query.getlist("offset")
    if len(offsets) > 1:
        raise InputError("'offset' is given more than once", field="offset")
    live = query.get("live")
    if live not in (None, "sse", "long-poll"):
        raise InputError("'live' must be sse or long-poll", field="live")
    if not offsets:
        if live is not None:
            raise InputError("'live' needs an 'offset'", field="offset")
        return BEGIN, None, None
    offset = offsets[0]
    if offset not in (BEGIN, NOW):
        position_of(offset)
    return offset, live, query.get("cursor")


def _position(offset: str) -> int:
    return 0 if offset == BEGIN else position_of(offset)


async def _start(source: Source, offset: str) -> int:
    return (await source.tail())[0] if offset == NOW else _position(offset)


def _headers(page: StreamPage) -> dict[str, str]:
    headers = {"stream-next-offset": offset_text(page.next)}
    if page.up_to_date:
        headers["stream-up-to-date"] = "true"
        if page.closed:
            headers["stream-closed"] = "true"
            if page.reason is not None:
                headers["stream-end-reason"] = page.reason
    return headers


def _response(source: Source, body: bytes, headers: dict[str, str]) -> Response:
    # The type as it was given: the framework would add a charset of its own.
    own = {"content-type": source.content_type, "content-security-policy": _SANDBOX}
    kind = media_type(source.content_type)
    if not kind.startswith(_HARMLESS_FAMILIES) and kind not in _HARMLESS:
        own["content-disposition"] = "attachment"
    return Response(body, 200, headers={**headers, **own})


def _body(source: Source, page: StreamPage) -> bytes:
    parts = [part for piece in page.pieces for part in piece.parts]
    return b"[%b]" % b",".join(parts) if source.kind == "json" else b"".join(parts)


def _catch_up(request: Request, source: Source, position: int, page: StreamPage) -> Response:
    closed = ":c" if page.closed and page.up_to_date else ""
    tag = f'"{source.id}:{position}:{page.next}{closed}"'
    headers = {**_headers(page), "etag": tag, "cache-control": "private, no-cache"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return _response(source, _body(source, page), headers)


class _RunReader:
    """A reader of a run's stream, who counts for the run's ``on_disconnect``, and hears of a
    failure that its log cannot tell. Streams of one's own have neither."""

    error: Exception | None = None

    def __init__(self, state: State, source: Source, name: str, news: asyncio.Event) -> None:
        self._news, self._name = news, name
        self._unwatch: Callable[[], None] = lambda: None
        self._readers = state.runs.worker.readers if isinstance(source, RunSource) else None
        if self._readers is not None:
            self._deafen = self._readers.listen(name, self._hear)
            self._readers.join(name)
            self._readers.stay(name)

    async def watch(self, state: State, right: ReadingRight) -> None:
        """Hear of the end of the right to read. Raises `LogError`."""
        self._unwatch = await state.runs.members.watch.reader(
            right.access, lambda: self._hear(unknown_run()), right.change_count
        )

    def check(self) -> None:
        """Raise `NotFoundError` where the reader may not read any more, also what it has read."""
        if isinstance(self.error, NotFoundError):
            raise self.error

    def _hear(self, error: Exception) -> None:
        self.error = error
        self._news.set()

    def leave(self, *, returning: bool) -> None:
        """The reading is over; ``returning``: the reader is about to come back."""
        self._unwatch()
        if self._readers is not None:
            self._deafen()
            self._readers.leave(self._name, returning=returning)


class _LongPoll:
    """A page as soon as there is one; nothing when the time is up."""

    def __init__(self, state: State, source: Source, name: str, request: Request) -> None:
        self._state, self._source, self._name = state, source, name
        self._identity = identity_of(request.scope)
        self._news = asyncio.Event()

    def poke(self) -> None:
        """The key no longer counts, or the ticker's other reasons."""
        self._news.set()

    async def answer(self, offset: str, cursor: str | None, right: ReadingRight) -> Response:
        """The page. Raises `NotFoundError` where the stream is gone, and `NotAuthenticatedError`
        when its reader's key counts no more."""
        state, source = self._state, self._source
        position = await _start(source, offset)
        stop = source.subscribe(self._news.set)
        reader = _RunReader(state, source, self._name, self._news)
        state.on_drain.append(self._news.set)
        connection = state.connections.open(self, self._identity)
        connection.last_write = math.inf  # nothing keeps it alive: it is over in time
        try:
            await reader.watch(state, right)
            page = await self._page(position, reader, connection)
        finally:
            stop()
            reader.leave(returning=True)
            state.on_drain.remove(self._news.set)
            state.connections.close(connection)
        headers = {**_headers(page), "cache-control": "no-store"}
        if not page.closed:
            headers["stream-cursor"] = cursor_at(time.time(), cursor)
        if not any(p.parts for p in page.pieces):
            return Response(status_code=204, headers=headers)
        return _response(source, _body(source, page), headers)

    async def _page(self, position: int, reader: _RunReader, connection: Connection) -> StreamPage:
        loop = asyncio.get_running_loop()
        until = loop.time() + self._state.settings.long_poll_timeout
        while True:
            self._news.clear()
            page = await self._source.read(position)
            reader.check()
            connection.check()
            if self._source.gone:
                raise NotFoundError("this stream was deleted", what="stream")
            remaining, has_data = until - loop.time(), any(p.parts for p in page.pieces)
            if has_data or page.closed or remaining <= 0 or self._state.draining:
                return page
            if reader.error is not None:
                raise reader.error
            position = page.next
            try:
                async with asyncio.timeout(remaining):
                    await self._news.wait()
            except TimeoutError:
                pass  # one more look, then the empty answer


class SSEResponse:
    """An ASGI application: the stream as server-sent events until it is closed, or the connection
    has reached its age."""

    background: None = None

    def __init__(
        self,
        state: State,
        source: Source,
        offset: str,
        cursor: str | None,
        name: str,
        right: ReadingRight,
    ) -> None:
        self._state, self._source, self._name = state, source, name
        self._right = right
        self._offset, self._cursor = offset, cursor
        self._position = 0
        self._news = asyncio.Event()
        self._first: StreamPage | None = None
        self._gone = False
        #: Gives the reader's place back.
        self.release: Callable[[], None] = lambda: None

    async def prepare(self) -> None:
        """Errors come before the first byte."""
        self._position = await _start(self._source, self._offset)
        self._first = await self._source.read(self._position)

    def poke(self) -> None:
        """The ticker: time for a keep-alive, or to leave."""
        self._news.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream."""
        headers = [
            (b"content-type", b"text/event-stream"),
            (b"cache-control", b"no-cache, no-store, no-transform"),
            (b"x-accel-buffering", b"no"),
            (b"content-security-policy", _SANDBOX.encode()),
        ]
        if self._source.kind == "binary":
            headers.append((b"stream-sse-data-encoding", b"base64"))
        stop = self._source.subscribe(self._news.set)
        reader = _RunReader(self._state, self._source, self._name, self._news)
        transport = transport_of(scope)
        connection = self._state.connections.open(self, identity_of(scope))
        connection.unsent = transport.unsent
        watch = watch_disconnect(receive, connection.gone)
        try:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await self._pump(connection, send, reader)
        except SlowReader:
            await transport.drop()
        finally:
            stop()
            is_gone = connection.lost and connection.leaving is None
            reader.leave(returning=not is_gone)
            watch.cancel()
            self._state.connections.close(connection)
            self.release()

    async def _pump(self, connection: Connection, send: Send, reader: _RunReader) -> None:
        loop = asyncio.get_running_loop()
        has_sent = is_watched = False
        while not connection.lost:
            self._news.clear()
            # What `prepare` found is from before the subscription, so there is a second look.
            first, self._first = self._first, None
            try:
                if not is_watched:
                    await reader.watch(self._state, self._right)
                    is_watched = True
                page = first or await self._source.read(self._position)
                reader.check()
            except (NotFoundError, GoneError, LogError):
                self._gone = True  # or out of reach: whoever comes again hears why
                page = StreamPage([], self._position, self._position, False)
            idle = loop.time() - connection.last_write >= self._state.settings.heartbeat
            is_over = page.closed and page.up_to_date
            if page.pieces or is_over or not has_sent or idle:
                has_sent = True
                self._position = page.next
                await self._send(connection, send, self._frames(page), last=is_over)
            if is_over:
                return
            has_failed = reader.error is not None and page.up_to_date
            if connection.leaving is not None or self._gone or self._source.gone or has_failed:
                await self._send(connection, send, b"", last=True)
                return
            if page.up_to_date and first is None:
                await self._news.wait()

    def _frames(self, page: StreamPage) -> bytes:
        parts = [part for piece in page.pieces for part in piece.parts]
        data = data_frame(self._source.kind, parts) if parts else b""
        self._cursor = cursor_at(time.time(), self._cursor)
        is_over = page.closed and page.up_to_date
        control = control_frame(
            offset_text(page.next),
            self._cursor,
            up_to_date=page.up_to_date,
            closed=is_over,
            endReason=page.reason if is_over else None,
        )
        return data + control

    async def _send(
        self, connection: Connection, send: Send, data: bytes, *, last: bool = False
    ) -> None:
        body = {"type": "http.response.body", "body": data, "more_body": not last}
        await connection.write(send, body)
