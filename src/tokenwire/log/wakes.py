"""Who waits for which log in this process.

Always true: a call is made once per subscription and event, in the order of the subscriptions; one
that ends a subscription, its own or another's, disturbs nobody else.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from tokenwire.log.base import Take, Wake

__all__ = ["Wakes"]

#: A subscription to appends.
Growth = tuple[Wake, Take | None]


class _Subscription:
    """The call that ends a subscription: there are two for each open stream, and a function with
    what it refers to takes three times as much."""

    __slots__ = ("_log", "_number", "_wakes")

    def __init__(self, wakes: Wakes, log: str, number: int) -> None:
        self._wakes, self._log, self._number = wakes, log, number

    def __call__(self) -> bool:
        return self._wakes.unsubscribe(self._log, self._number)


class Wakes:
    """Subscriptions: to all that happens to a log, or to all but the appends made here.
    ``changed``: told the log when one begins or ends."""

    def __init__(self, changed: Callable[[str], None] | None = None) -> None:
        self._changed = changed
        self._all: dict[str, dict[int, Wake]] = {}
        #: Those of `_all` who want to hear of our own appends: at every token, so kept apart.
        self._growth: dict[str, dict[int, Growth]] = {}
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return len(self._all)

    def __contains__(self, log: str) -> bool:
        return log in self._all

    def logs(self) -> list[str]:
        """The logs that somebody waits for."""
        return list(self._all)

    def subscribe(
        self, log: str, wake: Wake, *, appends: bool = True, take: Take | None = None
    ) -> Callable[[], bool]:
        """Add a subscription; the returned call ends it and says whether it was the last."""
        number = next(self._numbers)
        self._all.setdefault(log, {})[number] = wake
        if appends:
            self._growth.setdefault(log, {})[number] = wake, take
        if self._changed is not None:
            self._changed(log)

        return _Subscription(self, log, number)

    def unsubscribe(self, log: str, number: int) -> bool:
        """End a subscription; whether it was the log's last."""
        was_there = log in self._all
        kinds: tuple[dict[str, dict[int, Any]], ...] = (self._all, self._growth)
        for kind in kinds:
            wakes = kind.get(log)
            if wakes is not None and wakes.pop(number, None) is not None and not wakes:
                del kind[log]
        if self._changed is not None:
            self._changed(log)
        return was_there and log not in self._all

    def growth(self, log: str) -> tuple[Growth, ...]:
        """The subscriptions to appends of this process."""
        wakes = self._growth.get(log)
        return tuple(wakes.values()) if wakes else ()

    def grown(self, log: str) -> None:
        """An append of this process was accepted."""
        wakes = self._growth.get(log)
        if wakes:
            for wake, _ in tuple(wakes.values()):
                wake()

    def grown_by(self, log: str, offset: int, record: bytes) -> None:
        """The same, by one record."""
        wakes = self._growth.get(log)
        if wakes:
            for wake, take in tuple(wakes.values()):
                if take is None or not take(offset, record):
                    wake()

    def grown_elsewhere(self, log: str) -> None:
        """Another process appended to the log: for those who do not hear of appends made here."""
        growth = self._growth.get(log, {})
        for number, wake in tuple(self._all.get(log, {}).items()):
            if number not in growth:
                wake()

    def wake(self, log: str) -> None:
        """Something happened to the log that everybody should look at."""
        wakes = self._all.get(log)
        if wakes:
            for wake in tuple(wakes.values()):
                wake()
