"""The one budget of bytes that wait: of answers not sent yet and of requests not read yet.

Always true: what is counted is given back on every path; a client (a principal, or without keys an
address) has no more waiting than its budget, unless a single answer or body alone is larger; the
buffers of a connection, headers and frames included, hold no more than theirs; nothing here waits.
"""

from __future__ import annotations

from collections import Counter
from typing import Protocol

from tokenwire.errors import BusyError
from tokenwire.server.settings import Settings

__all__ = ["Account", "Budget", "Holding"]


#: Where the settings do not say: a principal is one user, an address may be many.
_PER_PRINCIPAL, _PER_ADDRESS = 64 << 20, 128 << 20


class Holding(Protocol):
    """A connection, as the sweep sees it."""

    #: The client's name in the budget.
    account: str

    def held(self) -> int:
        """Bytes that wait in its buffers."""
        ...

    def drop(self) -> None:
        """Close it at once."""
        ...


class Budget:
    """The bytes that wait in one process, by client."""

    def __init__(self, settings: Settings, *, keys_on: bool = True) -> None:
        self.per_connection = settings.buffer_per_connection
        per_client = settings.buffer_per_client
        self.per_client = per_client or (_PER_PRINCIPAL if keys_on else _PER_ADDRESS)
        self.dropped = 0
        self._waiting: Counter[str] = Counter()

    def waiting(self, name: str) -> int:
        """Bytes of a client that wait in handlers."""
        return self._waiting[name]

    def account(self, name: str) -> Account:
        """The account of one request or WebSocket of a client."""
        return Account(self, name)

    def sweep(self, connections: list[Holding]) -> None:
        """Close connections whose buffers, with what waits in handlers, exceed the budget: of a
        client the fullest ones first, until the others fit."""
        by_client: dict[str, list[tuple[int, Holding]]] = {}
        for connection in connections:
            unread = connection.held()
            if unread > self.per_connection:
                self._drop(connection)
            elif unread:
                by_client.setdefault(connection.account, []).append((unread, connection))
        for name, holdings in by_client.items():
            total = self._waiting[name] + sum(unread for unread, _ in holdings)
            if total <= self.per_client:
                continue
            for unread, connection in sorted(holdings, key=lambda item: item[0], reverse=True):
                if total <= self.per_client:
                    break
                total -= unread
                self._drop(connection)

    def _drop(self, connection: Holding) -> None:
        self.dropped += 1
        connection.drop()


class Account:
    """What one request or WebSocket has waiting."""

    __slots__ = ("_budget", "name", "waiting")

    def __init__(self, budget: Budget, name: str) -> None:
        self._budget, self.name = budget, name
        #: Bytes that wait.
        self.waiting = 0

    def take(self, size: int) -> None:
        """Count ``size`` bytes more. Raises `BusyError` when the budget has no room for them."""
        budget = self._budget
        total = budget._waiting[self.name]
        if total > self.waiting and total + size > budget.per_client:
            budget.dropped += 1
            raise BusyError(
                "too many bytes wait to be read by this client; read the open answers first",
                limit="buffer_per_client",
                retry_after=2,
            )
        self.waiting += size
        budget._waiting[self.name] += size

    def give(self, size: int) -> None:
        """``size`` bytes wait no longer."""
        size = min(size, self.waiting)
        self.waiting -= size
        waiting = self._budget._waiting
        waiting[self.name] -= size
        if waiting[self.name] <= 0:
            del waiting[self.name]

    def close(self) -> None:
        """Nothing waits any more."""
        self.give(self.waiting)

    def rename(self, name: str) -> None:
        """The client has a name by now: a principal in place of an address."""
        size = self.waiting
        self.close()
        self.name = name
        self.waiting = size
        if size:
            self._budget._waiting[name] += size
