"""``GET /v1/probe``: a stream of known bytes at known times, and what arrived of the request.

Always true: it starts no run and calls no model; it ends by itself after the seconds that were
asked for, counts as a reader, and sends at most `MOST_BURST` events at once; it repeats no
credential, only whether one came.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import Receive, Scope, Send

from tokenwire.errors import InputError
from tokenwire.server.edge.connections import Connection, Connections, SlowReader
from tokenwire.server.edge.disconnect import watch_disconnect
from tokenwire.server.edge.guard import RequestInfo
from tokenwire.server.edge.request_info import identity_of
from tokenwire.server.edge.respond import STREAM_HEADERS
from tokenwire.server.edge.transport import Transport, transport_of
from tokenwire.server.routes.support import route
from tokenwire.server.state import State

__all__ = ["FILLER", "MOST_BURST", "MOST_SECONDS", "ProbeQuery", "routes"]

MOST_SECONDS, MOST_BURST = 300.0, 2000
#: What makes an event of a burst as long as some tokens.
FILLER = "x" * 400
#: Events of a burst that go out in one write.
_PIECE = 20
#: Seconds between two looks whether the reader must leave.
_LOOK = 1.0
_FORWARDED = (b"forwarded", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"via")


class ProbeQuery(msgspec.Struct, frozen=True):
    """``seconds``: how long the stream is; ``interval``: between two events; ``silent``: comments
    in place of events; ``burst``: so many events at once before them."""

    seconds: float = 1.0
    interval: float = 0.25
    silent: bool = False
    burst: int = 0


def routes(state: State) -> list[BaseRoute]:
    """The one route."""
    return [route(state, "/v1/probe", probe, "GET")]


async def probe(state: State, request: Request, info: RequestInfo) -> Response:
    """The stream. Raises `InputError`."""
    query = _query(dict(request.query_params))
    release = state.limits.attach(f"probe:{info.id}", info.principal)
    return ProbeResponse(state.connections, query, _arrival(state, request, info), release)


def _query(params: dict[str, str]) -> ProbeQuery:
    unknown = set(params) - set(ProbeQuery.__struct_fields__)
    if unknown:
        raise InputError(f"unknown parameter '{min(unknown)[:80]}'", field=min(unknown)[:80])
    try:
        query = msgspec.convert(params, ProbeQuery, strict=False)
    except msgspec.ValidationError as error:
        raise InputError(f"a parameter is of the wrong type: {error}") from error
    if not 0 < query.seconds <= MOST_SECONDS:
        raise InputError(f"'seconds' must be above 0 and at most {MOST_SECONDS:g}", field="seconds")
    if not 0.05 <= query.interval <= MOST_SECONDS:
        raise InputError(
            f"'interval' must be from 0.05 to {MOST_SECONDS:g} seconds", field="interval"
        )
    if not 0 <= query.burst <= MOST_BURST:
        raise InputError(f"'burst' must be from 0 to {MOST_BURST}", field="burst")
    return query


def _arrival(state: State, request: Request, info: RequestInfo) -> dict[str, Any]:
    """The request as it arrived here."""
    headers = info.headers
    return {
        "type": "seen",
        "http_version": request.scope.get("http_version", ""),
        "host": request.headers.get("host", "")[:200],
        "client": info.client,
        "secure": info.secure,
        "authorization": b"authorization" in headers,
        "last_event_id": request.headers.get("last-event-id", "")[:200],
        "accept_encoding": request.headers.get("accept-encoding", "")[:200],
        "forwarded": [name.decode() for name in _FORWARDED if name in headers],
        "trusts_proxy": bool(state.settings.trust_proxy),
        "heartbeat": state.settings.heartbeat,
        "max_age": state.settings.max_age,
    }


class ProbeResponse(Response):
    """The stream of one request. ``release``: gives its place as a reader back."""

    def __init__(
        self,
        connections: Connections,
        query: ProbeQuery,
        arrival: dict[str, Any],
        release: Callable[[], None],
    ) -> None:
        super().__init__(headers={"content-type": "text/event-stream", **STREAM_HEADERS})
        del self.headers["content-length"]
        self._connections, self._query, self._arrival = connections, query, arrival
        self._release = release
        self._loop = asyncio.get_running_loop()
        self._begin = self._loop.time()
        self._poked = asyncio.Event()

    def poke(self) -> None:
        """The connection has news: its reader has gone, or must leave."""
        self._poked.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the time is over or the reader has gone."""
        transport = transport_of(scope)
        connection = self._connections.open(self, identity_of(scope))
        connection.unsent = transport.unsent
        watch = watch_disconnect(receive, connection.gone)
        try:
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
            )
            if scope.get("method") != "HEAD":
                await self._stream(connection, transport, transport.send or send)
            await send({"type": "http.response.body", "body": b""})
        except SlowReader:
            await transport.drop()
        finally:
            watch.cancel()
            self._connections.close(connection)
            self._release()

    async def _stream(self, connection: Connection, transport: Transport, send: Send) -> None:
        query, number, comments = self._query, 0, 0

        async def write(data: bytes) -> None:
            await connection.write(
                send, {"type": "http.response.body", "body": data, "more_body": True}
            )

        await write(self._event(self._arrival))
        if query.burst:
            await self._burst(write)
        while not (connection.lost or connection.leaving):
            rest = self._begin + query.seconds - self._loop.time()
            if rest <= 0:
                break
            await self._wait(connection, min(query.interval, rest))
            if connection.lost or connection.leaving or rest <= query.interval:
                continue
            if query.silent:
                comments += 1
                await write(b": heartbeat\n\n")
            else:
                number += 1
                await write(self._event({"type": "tick", "n": number}))
        if not connection.lost:
            end = {"type": "end", "ticks": number, "comments": comments}
            await write(self._event({**end, "left": connection.leaving}))

    async def _burst(self, write: Callable[[bytes], Any]) -> None:
        digest = hashlib.sha256()
        for first in range(0, self._query.burst, _PIECE):
            piece = b""
            for number in range(first, min(first + _PIECE, self._query.burst)):
                event = msgspec.json.encode({"type": "burst", "n": number, "filler": FILLER})
                digest.update(event)
                piece += b"data: " + event + b"\n\n"
            await write(piece)
            await asyncio.sleep(0)  # others have their turn
        await write(self._event({"type": "burst-end", "sha256": digest.hexdigest()}))

    async def _wait(self, connection: Connection, seconds: float) -> None:
        until = self._loop.time() + seconds
        while (rest := until - self._loop.time()) > 0 and not (
            connection.lost or connection.leaving
        ):
            self._poked.clear()
            try:
                async with asyncio.timeout(min(rest, _LOOK)):
                    await self._poked.wait()
            except TimeoutError:
                continue

    def _event(self, value: dict[str, Any]) -> bytes:
        """``at``: seconds since the request reached the server's routes."""
        at = round(self._loop.time() - self._begin, 4)
        return b"data: " + msgspec.json.encode({**value, "at": at}) + b"\n\n"
