"""TLS sessions of providers, so that a further connection needs no full handshake.

Always true: a session is offered only on the route and with the context that it was made with; one
hour after a certificate was last verified for a route, the next connection verifies it again; a
server that does not know a session makes a full handshake of it.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from typing import Any, NamedTuple, cast

from tokenwire.providers.http.connection import Route

__all__ = ["Sessions"]

#: Seconds after a verified certificate in which sessions that go back to it are offered.
_MOST_AGE = 3600.0
#: Routes whose session is kept.
_MOST_ROUTES = 256


class _Kept(NamedTuple):
    context: ssl.SSLContext
    session: ssl.SSLSession
    #: When the certificate was verified; monotonic seconds.
    since: float


class _Offering:
    """What a transport uses of a context, with a session for the connection that it makes: asyncio
    and uvloop have no argument for one."""

    def __init__(self, context: ssl.SSLContext, session: ssl.SSLSession) -> None:
        self._context, self._session = context, session

    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:
        return self._context.wrap_bio(*args, **options, session=self._session)


class Sessions:
    """The newest session of each route. ``clock``: monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: dict[Route, _Kept] = {}

    def offer(self, route: Route, context: ssl.SSLContext) -> ssl.SSLContext | None:
        """``context`` for one connection that offers the route's session; None without one."""
        entry = self._kept.get(route)
        if entry is None or entry.context is not context:
            return None
        if self._clock() - entry.since > _MOST_AGE:
            del self._kept[route]
            return None
        return cast(ssl.SSLContext, _Offering(context, entry.session))

    def keep(self, route: Route, context: ssl.SSLContext, connection: ssl.SSLObject) -> None:
        """The session of a connection on which something was read: TLS 1.3 sends it only then."""
        session = connection.session
        if session is None or not session.has_ticket:
            return
        before = self._kept.pop(route, None)
        since = self._clock()
        if connection.session_reused:
            if before is None or before.context is not context:
                return  # forgotten meanwhile; how old its certificate is, nobody knows
            since = before.since
        while len(self._kept) >= _MOST_ROUTES:
            del self._kept[next(iter(self._kept))]
        self._kept[route] = _Kept(context, session, since)

    def forget(self, route: Route) -> None:
        """A connection that offered it failed."""
        self._kept.pop(route, None)
