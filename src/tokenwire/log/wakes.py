"""Who waits for which log in this process.

Always true: a call is made once per subscription and event, in the order of the subscriptions; one
that ends a subscription, its own or another's, disturbs nobody else.
"""

from __future__ import annotations

from collections.abc import Callable, KeysView, Set

from tokenwire.log.base import Take, Wake

__all__ = ["Subscription", "Wakes"]

#: A subscription to appends.
Growth = tuple[Wake, Take | None]


class Subscription:
    """Who waits for a log. Called, it ends, and says whether it was the log's last. There are two
    for each open stream: so it is its own entry in the lists, and no function with what it refers
    to, which would take three times as much."""

    __slots__ = ("appends", "log", "take", "wake", "wakes")

    def __init__(
        self, wakes: Wakes, log: str, wake: Wake, take: Take | None, *, appends: bool
    ) -> None:
        self.wakes, self.log, self.wake, self.take = wakes, log, wake, take
        #: Whether it hears of appends of this process.
        self.appends = appends

    def __call__(self) -> bool:
        return self.wakes.unsubscribe(self)


#: Of a log that nobody waits for.
_NOBODY: list[Subscription] = []


class Wakes:
    """Subscriptions: to all that happens to a log, or to all but the appends made here.
    ``changed``: told the log when one begins or ends."""

    #: Told the log after a subscription has ended, and whether that was its last. (Of all of them,
    #: as a function around each end would take 250 bytes of it.)
    ended: Callable[[str, bool], None] | None = None

    def __init__(self, changed: Callable[[str], None] | None = None) -> None:
        self._changed = changed
        self._all: dict[str, list[Subscription]] = {}
        #: Those of `_all` who want to hear of our own appends: at every token, so kept apart.
        self._growth: dict[str, list[Subscription]] = {}
        #: The logs of `_all` by `_hash`; None until somebody asks for some by their hashes.
        self._named: dict[int, set[str]] | None = None
        self._hash: Callable[[str], int] = hash

    def __len__(self) -> int:
        return len(self._all)

    def __contains__(self, log: str) -> bool:
        return log in self._all

    def logs(self) -> list[str]:
        """The logs that somebody waits for."""
        return list(self._all)

    def logs_of(self, hashes: Set[int], hash_of: Callable[[str], int]) -> list[str]:
        """Those of `logs` whose ``hash_of``, always the same function, is one of ``hashes``. (To
        look at 20,000 for each of another process's commits took 3.4 ms.)"""
        if self._named is None:
            self._named, self._hash = {}, hash_of
            for log in self._all:
                self._named.setdefault(hash_of(log), set()).add(log)
        named = self._named
        return [log for number in hashes for log in named.get(number, ())]

    def awaited(self) -> KeysView[str]:
        """The same, at any time, for another thread."""
        return self._all.keys()

    def subscribe(
        self, log: str, wake: Wake, *, appends: bool = True, take: Take | None = None
    ) -> Callable[[], bool]:
        """Add a subscription; the returned call ends it and says whether it was the last."""
        subscription = Subscription(self, log, wake, take, appends=appends)
        if self._named is not None:
            self._named.setdefault(self._hash(log), set()).add(log)
        self._all.setdefault(log, []).append(subscription)
        if appends:
            self._growth.setdefault(log, []).append(subscription)
        if self._changed is not None:
            self._changed(log)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> bool:
        """End a subscription; whether it was the log's last."""
        log = subscription.log
        was_there = log in self._all
        for kind in (self._all, self._growth):
            subscriptions = kind.get(log, _NOBODY)
            if subscription in subscriptions:
                subscriptions.remove(subscription)
                if not subscriptions:
                    del kind[log]
        if self._changed is not None:
            self._changed(log)
        is_last = was_there and log not in self._all
        if is_last and self._named is not None:
            number = self._hash(log)
            names = self._named[number]
            names.discard(log)
            if not names:
                del self._named[number]
        if self.ended is not None:
            self.ended(log, is_last)
        return is_last

    def growth(self, log: str) -> tuple[Growth, ...]:
        """The subscriptions to appends of this process."""
        return tuple((one.wake, one.take) for one in self._growth.get(log, _NOBODY))

    def grown(self, log: str) -> None:
        """An append of this process was accepted."""
        for one in tuple(self._growth.get(log, _NOBODY)):
            one.wake()

    def grown_by(self, log: str, offset: int, record: bytes) -> None:
        """The same, by one record."""
        for one in tuple(self._growth.get(log, _NOBODY)):
            take = one.take
            if take is None or not take(offset, record):
                one.wake()

    def grown_elsewhere(self, log: str) -> None:
        """Another process appended to the log: for those who do not hear of appends made here."""
        for one in tuple(self._all.get(log, _NOBODY)):
            if not one.appends:
                one.wake()

    def wake(self, log: str) -> None:
        """Something happened to the log that everybody should look at."""
        for one in tuple(self._all.get(log, _NOBODY)):
            one.wake()
