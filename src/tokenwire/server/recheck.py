"""Asks again about the keys and tokens of open connections, and ends those refused.

Always true: a key is asked about once for all of its connections, at most once a minute, and a
connection whose key is refused, or cannot be checked, is asked to leave, at the next look where it
left the key file; no check delays the ticker, another key, or what a connection sends.
"""

from __future__ import annotations

import asyncio
import time

from starlette.exceptions import HTTPException

from tokenwire.errors import TokenwireError
from tokenwire.server.edge.auth import RECHECK_SECONDS, Identity
from tokenwire.server.edge.connections import REVOKED, Connection, Connections
from tokenwire.server.edge.identify import Identify

__all__ = ["Recheck"]

#: Checks under way at a time, so that many keys do not ask the application all at once.
_MOST_CHECKS = 32
#: Seconds after which a check that has not answered counts as one that failed.
_CHECK_SECONDS = 30.0


class Recheck:
    """Of one server. ``every``: how many seconds pass between two looks at what is open."""

    def __init__(
        self, connections: Connections, identify: Identify, *, every: float = RECHECK_SECONDS / 12
    ) -> None:
        self._connections, self._identify, self._every = connections, identify, every
        self._next_look = 0.0
        #: When a key's connections were first seen, or its check was last begun.
        self._since: dict[Identity, float] = {}
        self._checks: dict[Identity, asyncio.Task[None]] = {}
        self._room = asyncio.Semaphore(_MOST_CHECKS)

    def sweep(self, now: float) -> bool:
        """The ticker's: begin the checks that are due. Watches nothing by itself."""
        if now < self._next_look:
            return False
        self._next_look = now + self._every
        if not self._identify.auth.asks and not any(map(_is_watched, self._connections)):
            return False
        self._since = {name: self._since.get(name, now) for name in self._open()}
        for identity, since in self._since.items():
            due = self._identify.auth.recheck_at(identity, since)
            if time.monotonic() >= due and identity not in self._checks:
                self._since[identity] = now
                self._begin(identity)
        return False

    async def aclose(self) -> None:
        """Stop the checks that are under way."""
        checks = list(self._checks.values())
        for check in checks:
            check.cancel()
        await asyncio.gather(*checks, return_exceptions=True)

    def _open(self) -> dict[Identity, list[Connection]]:
        open_now: dict[Identity, list[Connection]] = {}
        for connection in self._connections:
            identity = connection.identity
            if identity is None or connection.leaving == REVOKED:
                continue
            if self._identify.auth.may_change(identity) or _is_watched(connection):
                open_now.setdefault(identity, []).append(connection)
        return open_now

    def _begin(self, identity: Identity) -> None:
        check = asyncio.get_running_loop().create_task(self._check(identity))
        self._checks[identity] = check
        check.add_done_callback(lambda _: self._checks.pop(identity, None))

    async def _check(self, identity: Identity) -> None:
        try:
            async with self._room, asyncio.timeout(_CHECK_SECONDS):
                await self._identify.confirm(identity)
        except (TokenwireError, HTTPException, TimeoutError):
            for connection in self._open().get(identity, ()):
                connection.revoke()


def _is_watched(connection: Connection) -> bool:
    """Whether a token or a session of ours, or a credential that the application checked, is behind
    it."""
    identity = connection.identity
    if identity is None:
        return False
    return identity.grant is not None or identity.vouched is not None or bool(identity.session)
