"""``GET /v1/waiting/events``: the inbox as it is, and what comes and goes.

Always true: a stream begins with all that waits, so that a reader who comes back has missed
nothing; after it each entry that appears or goes is sent once; what is read between is the index
alone, and the runs only when it has changed, or was not checked for a while.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import Receive, Scope, Send

from tokenwire.errors import InputError, LogError
from tokenwire.framing.sse import encode_frame
from tokenwire.relay.waiting.inbox import Waiting
from tokenwire.server.edge.connections import Connection, SlowReader
from tokenwire.server.edge.disconnect import watch_disconnect
from tokenwire.server.edge.request_info import RequestInfo
from tokenwire.server.edge.respond import STREAM_HEADERS
from tokenwire.server.edge.transport import transport_of
from tokenwire.server.routes.support import route
from tokenwire.server.state import State

__all__ = ["routes"]

#: Seconds between two looks at the index: changes of other processes are seen within them.
_LOOK_SECONDS = 1.0
#: Seconds after which runs are checked though the index is the same: a time may be over.
_CHECK_SECONDS = 10.0

_Key = tuple[str, str]


def routes(state: State) -> list[BaseRoute]:
    """``/v1/waiting/events``."""
    return [route(state, "/v1/waiting/events", events, "GET")]


async def events(state: State, request: Request, info: RequestInfo) -> Response:
    """``GET /v1/waiting/events``: first ``snapshot`` with all that waits, then ``waiting-added``
    and ``waiting-removed``; with ``live=no`` the snapshot alone. A reader that comes back gets a
    snapshot again."""
    query = request.query_params
    if unknown := set(query) - {"thread", "tool", "live"}:
        raise InputError(f"unknown parameter '{min(unknown)}'", field=min(unknown))
    if (live := query.get("live", "sse")) not in ("sse", "no"):
        raise InputError("'live' must be sse or no", field="live")
    release = state.limits.attach(f"waiting of {info.principal}", info.principal)
    stream = _Live(state, info, query.get("thread"), query.get("tool"), release)
    stream.is_live = live == "sse" and request.method != "HEAD"
    return stream


class _Live(Response):
    def __init__(
        self,
        state: State,
        info: RequestInfo,
        thread: str | None,
        tool: str | None,
        release: Callable[[], None],
    ) -> None:
        super().__init__(headers={"content-type": "text/event-stream", **STREAM_HEADERS})
        del self.headers["content-length"]
        self._state, self._info, self._release = state, info, release
        self._thread, self._tool = thread, tool
        self.is_live = True
        self._woken = asyncio.Event()
        self._last: dict[_Key, Waiting] = {}
        self._names: list[str] | None = None
        self._checked_at = 0.0

    def poke(self) -> None:
        """Look now."""
        self._woken.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        connections, index = self._state.connections, self._state.runs.worker.waiting
        connection = connections.open(self, self._info.identity)
        watch = watch_disconnect(receive, connection.gone)
        index.changed.append(self.poke)
        try:
            first = await self._first()
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await connection.write(send, _body(first, last=not self.is_live))
            if self.is_live:
                await self._follow(connection, send)
        except SlowReader:
            await transport_of(scope).drop()
        finally:
            self._release()
            index.changed.remove(self.poke)
            watch.cancel()
            connections.close(connection)

    async def _first(self) -> bytes:
        items = await self._items()
        self._last = {_key(item): item for item in items}
        retry = b"retry: %d\n\n" % self._state.connections.retry_ms
        return retry + _event("snapshot", {"waiting": items})

    async def _follow(self, connection: Connection, send: Send) -> None:
        loop, heartbeat = asyncio.get_running_loop(), self._state.connections.heartbeat
        while not connection.lost:
            if connection.leaving is not None:
                farewell = _event("reconnect", {"reason": connection.leaving})
                await connection.write(send, _body(farewell, last=True))
                return
            self._woken.clear()
            try:
                data = await self._news()
            except LogError:
                data = b""  # the next look tries again
            if not data and loop.time() - connection.last_write >= heartbeat:
                data = b":\n\n"
            if data:
                await connection.write(send, _body(data))
            try:
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._woken.wait()
            except TimeoutError:
                pass

    async def _news(self) -> bytes:
        """What came and went since the last look."""
        names = await self._state.inbox.names(self._info.principal, self._thread)
        now = asyncio.get_running_loop().time()
        if names == self._names and now < self._checked_at + _CHECK_SECONDS:
            return b""
        items = {_key(item): item for item in await self._items()}
        self._names, self._checked_at = names, now
        before, self._last = self._last, items
        gone = [_event("waiting-removed", _ids(before[key])) for key in before if key not in items]
        new = [_event("waiting-added", items[key]) for key in items if key not in before]
        return b"".join(gone + new)

    async def _items(self) -> list[Waiting]:
        return await self._state.inbox.all(
            self._info.principal, thread=self._thread, tool=self._tool
        )


def _key(item: Waiting) -> _Key:
    return item.run, item.approval


def _ids(item: Waiting) -> dict[str, str]:
    return {"run": item.run, "approval": item.approval, "call": item.call}


def _event(name: str, data: Any) -> bytes:
    return encode_frame(msgspec.json.encode(data).decode(), event=name)


def _body(data: bytes, *, last: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": not last}
