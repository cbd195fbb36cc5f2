"""All connections of a process: their count by address, their clocks, what waits in them.

Always true: a connection above a limit is counted all the same, so that its end is, too; keeping
watch costs no timer a connection.
"""

from __future__ import annotations

import select
from asyncio import Transport
from collections import Counter
from typing import Protocol

from tokenwire.server.budget import Budget, Holding
from tokenwire.server.edge.connections import Connections
from tokenwire.server.edge.limits import network_of
from tokenwire.server.settings import Settings, is_loopback

__all__ = ["Early", "Progress", "Watch", "Watched", "has_left"]

#: The peer's end of a connection, which systems other than Linux tell with the last byte alone.
_PEER_END = getattr(select, "POLLRDHUP", 0)
#: Seconds between two looks at what waits in all buffers.
_SWEEP_SECONDS = 0.5


class Watched(Holding, Protocol):
    """A connection, as the watch sees it."""

    def check(self, now: float) -> None:
        """Close it if it is late."""
        ...


class Early(Protocol):
    """Answers requests that need no application."""

    def __call__(
        self, method: bytes, url: bytes, headers: list[tuple[bytes, bytes]], body: bytes
    ) -> bytes | None:
        """The whole answer, behind which the connection closes; None for all others."""
        ...


class Watch:
    """All HTTP connections of a process: their count by address, their clocks. ``early``: who
    answers while the server is overloaded, before the application does."""

    def __init__(
        self,
        settings: Settings,
        connections: Connections,
        budget: Budget | None = None,
        early: Early | None = None,
    ) -> None:
        self.settings = settings
        self.early = early
        self.connections = connections
        self.budget = budget or Budget(settings)
        self._swept_at = 0.0
        self.open: set[Watched] = set()
        self._by_address: Counter[str] = Counter()
        connections.sweep_with(self.sweep)

    def enter(self, protocol: Watched, address: str) -> bool:
        """Count a connection; False when there are too many (it is counted all the same)."""
        self.open.add(protocol)
        network = network_of(address)
        self._by_address[network] += 1
        self.connections.wake()
        if len(self.open) > self.settings.connections:
            return False
        if is_loopback(address) or address in self.settings.trust_proxy:
            return True
        return self._by_address[network] <= self.settings.connections_per_ip

    def leave(self, protocol: Watched, address: str) -> None:
        """It has ended."""
        if protocol in self.open:
            self.open.discard(protocol)
            network = network_of(address)
            self._by_address[network] -= 1
            if not self._by_address[network]:
                del self._by_address[network]

    def sweep(self, now: float) -> bool:
        """Look at every clock once."""
        for protocol in list(self.open):
            protocol.check(now)
        if now >= self._swept_at + _SWEEP_SECONDS:
            self._swept_at = now
            self.budget.sweep(list(self.open))
        return bool(self.open)


class Progress:
    """Whether what was written goes out: the bytes not yet sent must shrink."""

    __slots__ = ("_since", "_unsent")

    def __init__(self, now: float) -> None:
        self._unsent, self._since = 0, now

    def stuck(self, unsent: int, now: float) -> float:
        """For how many seconds nothing has gone out; 0 when nothing waits."""
        if unsent == 0 or unsent < self._unsent:
            self._since = now
        self._unsent = unsent
        return now - self._since


def has_left(transport: Transport) -> bool:
    """Whether the peer has closed, behind bytes that are not read yet as well."""
    sock = transport.get_extra_info("socket")
    if sock is None or sock.fileno() < 0:
        return False
    poll = select.poll()
    poll.register(sock.fileno(), _PEER_END)
    return bool(poll.poll(0))
