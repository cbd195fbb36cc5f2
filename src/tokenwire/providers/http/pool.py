"""Connections to providers: new ones, and idle ones that are used again.

Always true: a connection is used again only on the route that it was made for, and within
`KEEP_IDLE` seconds; an idle one costs a place in a table, and is closed when its time is over,
whether or not another request comes; a request that a peer may have read is not sent again here,
unless its method is idempotent (RFC 9110, 9.2.2).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import SplitResult, urlsplit

from tokenwire.errors import NetworkError, ProtocolError
from tokenwire.providers.http.connect import open_socket, open_tunnel
from tokenwire.providers.http.connection import Connection, Route
from tokenwire.providers.http.proxy import Proxies
from tokenwire.providers.http.response import Response
from tokenwire.providers.http.sessions import Sessions

__all__ = ["KEEP_IDLE", "Pool"]

#: Seconds that an idle connection is kept. Providers' load balancers close at 60 or later.
KEEP_IDLE = 30.0
#: Methods whose requests may be sent twice.
_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})


class Pool:
    """Connections by route. ``proxies``: none by default."""

    def __init__(
        self, context: ssl.SSLContext | None = None, *, proxies: Proxies | None = None
    ) -> None:
        self._context = context
        self._proxies = proxies
        self._sessions = Sessions()
        # In the order in which they became idle: the last is used first, the first ends first.
        self._idle: dict[Route, dict[Connection, None]] = {}
        self._all: set[Connection] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        *,
        connect_timeout: float = 5.0,
    ) -> Response:
        """Send a request on an idle or a new connection; the answer's head has been read.

        A kept connection whose end has arrived is replaced before anything is sent on it. One that
        closes after the request was sent raises `NetworkError`: the peer may have read the request,
        so that whoever pays for it decides about another attempt. Raises `TimeoutError` and
        `OSError` while connecting, then `NetworkError` and `ProtocolError`.
        """
        parts = urlsplit(url)
        host, port, tls = _place(parts)
        proxy = self._proxies.of(host, port, tls=tls) if self._proxies is not None else None
        route = _route(host, port, tls, proxy)
        data = _head_bytes(method, parts, _over_proxy(route, headers), body, route)
        while (idle := self._take(route)) is not None:
            try:
                return await idle.ask(data)
            except NetworkError:
                if method not in _IDEMPOTENT:
                    raise
        # Not `wait_for`: before Python 3.12 it loses a cancel that comes as the socket connects.
        async with asyncio.timeout(connect_timeout):
            connection = await self._connect(route)
        try:
            response = await connection.ask(data)
        except NetworkError:
            self._sessions.forget(route)  # with TLS 1.3 a server may refuse a session this late
            raise
        if connection.tls is not None:
            self._sessions.keep(route, self._tls_context(), connection.tls)
        return response

    def keep(self, route: Route, connection: Connection) -> None:
        """It is idle, and may be used again."""
        connection.idle_since = connection.loop.time()
        self._idle.setdefault(route, {})[connection] = None
        if self._timer is None:
            self._timer = connection.loop.call_later(KEEP_IDLE, self._prune)

    def forget(self, route: Route, connection: Connection) -> None:
        """It is closed."""
        self._all.discard(connection)
        idle = self._idle.get(route)
        if idle is not None and idle.pop(connection, self) is None and not idle:
            del self._idle[route]

    def close(self) -> None:
        """Close every connection."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._idle.clear()
        for connection in list(self._all):
            connection.abort()
        self._all.clear()

    def __len__(self) -> int:
        return len(self._all)

    def _prune(self) -> None:
        """Close what was idle for too long; come again while something is."""
        self._timer = None
        loop = asyncio.get_running_loop()
        now, remaining = loop.time(), KEEP_IDLE
        for route, idle in list(self._idle.items()):
            for connection in list(idle):
                seconds = connection.idle_since + KEEP_IDLE - now
                if seconds > 0:  # those after it became idle later
                    remaining = min(remaining, seconds)
                    break
                del idle[connection]
                connection.abort()
            if not idle:
                del self._idle[route]
        if self._idle:
            self._timer = loop.call_later(remaining, self._prune)

    def _take(self, route: Route) -> Connection | None:
        idle = self._idle.get(route)
        while idle:
            connection, _ = idle.popitem()
            if not idle:
                del self._idle[route]
            if connection.usable and connection.loop.time() - connection.idle_since < KEEP_IDLE:
                return connection
            connection.abort()
        return None

    async def _connect(self, route: Route) -> Connection:
        context = self._tls_context() if route.tls else None
        resuming = self._sessions.offer(route, context) if context is not None else None
        if resuming is not None:
            try:
                return await self._connect_with(route, resuming)
            except (ssl.SSLError, ConnectionError):
                # Perhaps for the session, and nothing was sent: once more, with a full handshake.
                self._sessions.forget(route)
        return await self._connect_with(route, context)

    async def _connect_with(self, route: Route, context: ssl.SSLContext | None) -> Connection:
        loop = asyncio.get_running_loop()
        proxy, host, tls = route.proxy, route.host, route.tls
        if proxy is None:
            sock = await open_socket(host, route.port)
        else:
            sock = await open_tunnel(proxy, host, route.port, tunnel=tls)
        try:
            _, connection = await loop.create_connection(
                lambda: Connection(self, route),
                sock=sock,
                ssl=context,
                server_hostname=host if tls else None,
            )
        except BaseException:
            sock.close()
            raise
        self._all.add(connection)
        return connection

    def _tls_context(self) -> ssl.SSLContext:
        return self._context or _default_context()


@lru_cache(maxsize=256)
def _place(parts: SplitResult) -> tuple[str, int, bool]:
    tls = parts.scheme == "https"
    return parts.hostname or "", parts.port or (443 if tls else 80), tls


#: Connections of one route share it, as there may be thousands.
_route = lru_cache(maxsize=256)(Route)

_contexts: list[ssl.SSLContext] = []


def _default_context() -> ssl.SSLContext:
    if not _contexts:
        _contexts.append(ssl.create_default_context())
    return _contexts[0]


def _over_proxy(route: Route, headers: Mapping[str, str]) -> Mapping[str, str]:
    """The headers of a request that a proxy forwards; over a tunnel it sees none."""
    proxy = route.proxy
    if proxy is None or route.tls or not proxy.authorization:
        return headers
    return {**headers, "proxy-authorization": proxy.authorization}


def _head_bytes(
    method: str, parts: SplitResult, headers: Mapping[str, str], body: bytes, route: Route
) -> bytes:
    target = parts.path or "/"
    if parts.query:
        target += f"?{parts.query}"
    host = parts.netloc.rpartition("@")[2]
    if route.proxy is not None and not route.tls:
        target = f"http://{host}{target}"
    lines = [f"{method} {target} HTTP/1.1", f"host: {host}"]
    for name, value in headers.items():
        if "\r" in name + value or "\n" in name + value:
            raise ProtocolError(f"the header '{name[:40]}' contains a line break")
        lines.append(f"{name}: {value}")
    if body or method not in ("GET", "HEAD", "DELETE"):
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body
