"""Who waits for which stream in this process.

Always true: a call is made once per subscription and event, in the order of the subscriptions; one
that ends a subscription, its own or another's, disturbs nobody else.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

from tokenwire.log.base import Wake

__all__ = ["Wakes"]


class Wakes:
    """Subscriptions: to all that happens to a stream, or to all but the appends made here."""

    def __init__(self) -> None:
        self._all: dict[str, dict[int, Wake]] = {}
        #: Those of `_all` who want to hear of our own appends: at every token, so kept apart.
        self._growth: dict[str, dict[int, Wake]] = {}
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return len(self._all)

    def __contains__(self, stream: str) -> bool:
        return stream in self._all

    def streams(self) -> list[str]:
        """The streams that somebody waits for."""
        return list(self._all)

    def subscribe(self, stream: str, wake: Wake, *, appends: bool = True) -> Callable[[], bool]:
        """Add a subscription; the returned call ends it and says whether it was the last."""
        number = next(self._numbers)
        kinds = (self._all, self._growth) if appends else (self._all,)
        for kind in kinds:
            kind.setdefault(stream, {})[number] = wake

        def unsubscribe() -> bool:
            was_there = stream in self._all
            for kind in kinds:
                wakes = kind.get(stream)
                if wakes is not None and wakes.pop(number, None) is not None and not wakes:
                    del kind[stream]
            return was_there and stream not in self._all

        return unsubscribe

    def grown(self, stream: str) -> None:
        """An append of this process was accepted."""
        wakes = self._growth.get(stream)
        if wakes:
            for wake in tuple(wakes.values()):
                wake()

    def wake(self, stream: str) -> None:
        """Something happened to the stream that everybody should look at."""
        wakes = self._all.get(stream)
        if wakes:
            for wake in tuple(wakes.values()):
                wake()
