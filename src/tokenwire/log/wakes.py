"""Who waits for which log in this process.

Always true: a call is made once per subscription and event, in the order of the subscriptions; one
that ends a subscription, its own or another's, disturbs nobody else.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

from tokenwire.log.base import Wake

__all__ = ["Wakes"]


class Wakes:
    """Subscriptions: to all that happens to a log, or to all but the appends made here."""

    def __init__(self) -> None:
        self._all: dict[str, dict[int, Wake]] = {}
        #: Those of `_all` who want to hear of our own appends: at every token, so kept apart.
        self._growth: dict[str, dict[int, Wake]] = {}
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return len(self._all)

    def __contains__(self, log: str) -> bool:
        return log in self._all

    def logs(self) -> list[str]:
        """The logs that somebody waits for."""
        return list(self._all)

    def subscribe(self, log: str, wake: Wake, *, appends: bool = True) -> Callable[[], bool]:
        """Add a subscription; the returned call ends it and says whether it was the last."""
        number = next(self._numbers)
        kinds = (self._all, self._growth) if appends else (self._all,)
        for kind in kinds:
            kind.setdefault(log, {})[number] = wake

        def unsubscribe() -> bool:
            was_there = log in self._all
            for kind in kinds:
                wakes = kind.get(log)
                if wakes is not None and wakes.pop(number, None) is not None and not wakes:
                    del kind[log]
            return was_there and log not in self._all

        return unsubscribe

    def grown(self, log: str) -> None:
        """An append of this process was accepted."""
        wakes = self._growth.get(log)
        if wakes:
            for wake in tuple(wakes.values()):
                wake()

    def wake(self, log: str) -> None:
        """Something happened to the log that everybody should look at."""
        wakes = self._all.get(log)
        if wakes:
            for wake in tuple(wakes.values()):
                wake()
