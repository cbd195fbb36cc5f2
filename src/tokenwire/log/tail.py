"""Who waits for which log in this process, and the newest records of those logs.

Always true: a cached record was accepted by the store; an entry is dropped as soon as another
process is known to have touched its log and not by what, so "nothing new" is never older than one
wake-up.
"""

from __future__ import annotations

from tokenwire.express import Reader, Taker, give, offer_newest, offer_several, text_of_delta
from tokenwire.log.base import Page
from tokenwire.log.wakes import Subscription, Wakes

__all__ = ["MOST_PIECES", "Heard", "Tail", "Tails"]

#: Newest records kept per watched log. A live follower reads within milliseconds of a commit;
#: one that lags further reads the store.
MOST_RECORDS = 512
MOST_BYTES = 64 * 1024
#: Records of one log that are given to a reader at once, past its task; of more it reads a page.
MOST_PIECES = 8

#: Characters of the check at the head of a record; see `tokenwire.relay.record`.
_CHECK = 16

_NOBODY: list[Subscription] = []

#: What another process appended: the log, the offset before, and the records; None where they are
#: not what they were.
Heard = tuple[str, int, list[bytes] | None]


class Tail:
    """The newest records of one log: those behind the offset `base`."""

    __slots__ = ("base", "bytes", "closed", "records", "takers")

    def __init__(self, base: int) -> None:
        self.base = base
        self.records: list[bytes] = []
        self.bytes = 0
        self.closed: str | None = None
        #: Who hears of what other processes append; None when it has to be looked up.
        self.takers: tuple[Taker, ...] | None = None


def _taker(one: Subscription) -> Taker:
    take = one.take if one.appends else None
    return one.wake, take, take if isinstance(take, Reader) else None


class Tails(Wakes):
    """Subscriptions and, for logs that are subscribed to here and written here, the tail, which is
    kept while somebody is subscribed."""

    def __init__(self) -> None:
        super().__init__(self._forget_readers)
        self._tails: dict[str, Tail] = {}

    def _forget_readers(self, log: str) -> None:
        """They are others now."""
        tail = self._tails.get(log)
        if tail is not None:
            tail.takers = None

    def unsubscribe(self, subscription: Subscription) -> bool:
        is_last = super().unsubscribe(subscription)
        if is_last:
            self._tails.pop(subscription.log, None)
        return is_last

    def came(self, log: str, records: list[bytes], tail: int, closed: str | None) -> None:
        """`accepted`, and whoever is subscribed hears of it."""
        self.accepted(log, records, tail, closed)
        if closed is None and len(records) == 1:
            self.grown_by(log, tail, records[0])
        else:
            self.grown(log)

    def came_delta(self, log: str, record: bytes, tail: int) -> None:
        """`came` for one record in the middle of a text. By hand, as it happens at every token:
        a `Reader` whose port is open gets it without a call of each layer."""
        if log not in self._all:
            return
        cache, size, check = self._tails.get(log), len(record), None
        if (
            cache is not None
            and cache.base + len(cache.records) + 1 == tail
            and len(cache.records) < MOST_RECORDS
            and cache.bytes + size <= MOST_BYTES
        ):
            records = cache.records
            if records:
                check = records[-1][:_CHECK]
            records.append(record)
            cache.bytes += size
        else:
            self.accepted(log, [record], tail, None)
        json = record[_CHECK:]
        text = text_of_delta(json)
        for subscription in tuple(self._growth.get(log, _NOBODY)):
            take = subscription.take
            reader = take if isinstance(take, Reader) else None
            port = reader.port if reader is not None else None
            if (
                reader is not None
                and port is not None
                and port.is_open
                and port.form is not None
                and reader.after == tail - 1
                and reader.check == check
                and check is not None
                and text
                and give(
                    reader, port, tail, port.form.fill(tail, record[:_CHECK], json, text), text
                )
            ):
                reader.check = record[:_CHECK]
            elif take is None or not take(tail, record):
                subscription.wake()

    def accepted(self, log: str, records: list[bytes], tail: int, closed: str | None) -> None:
        """The store accepted an append of ours that ends at ``tail``."""
        if log not in self:
            return
        cache = self._tails.get(log)
        if cache is None or cache.base + len(cache.records) + len(records) < tail:
            cache = self._tails[log] = Tail(tail - len(records))
        new = tail - cache.base - len(cache.records)
        if new > 0:
            added = records[-new:]
            cache.records += added
            cache.bytes += sum(map(len, added))
        cache.closed = closed or cache.closed
        if len(cache.records) > MOST_RECORDS or cache.bytes > MOST_BYTES:
            dropped = len(cache.records) - len(cache.records) // 2
            cache.base += dropped
            del cache.records[:dropped]
            cache.bytes = sum(map(len, cache.records))

    def hear(self, appends: list[Heard]) -> None:
        """Other processes appended these, and the store told us so with them."""
        for append in appends:
            self._hear(*append)

    def _hear(self, log: str, start: int, records: list[bytes] | None) -> None:
        """By hand, where they follow what is here: it happens at every token."""
        if records is None:  # the store says by name what is wrong
            self.forget(log)
            self.wake(log)
            return
        tail = self._tails.get(log)
        takers = tail.takers if tail is not None else None
        size = sum(map(len, records))
        if (
            tail is None
            or takers is None
            or tail.base + len(tail.records) != start
            or len(tail.records) + len(records) > MOST_RECORDS
            or tail.bytes + size > MOST_BYTES
        ):
            self.heard(log, start, records)
            return
        before = tail.records[-1] if tail.records else None
        tail.records += records
        tail.bytes += size
        self._hand_on(takers, start, records, before)

    def heard(self, log: str, start: int, records: list[bytes]) -> None:
        """Another process appended ``records`` behind the offset ``start``."""
        tail = self._tails.get(log)
        if tail is not None and start < tail.base + len(tail.records):
            self.forget(log)  # the log is shorter than we thought, or was told twice: ask the store
            self.wake(log)
            return
        is_next = tail is not None and start == tail.base + len(tail.records)
        before = tail.records[-1] if tail is not None and is_next and tail.records else None
        self.accepted(log, records, start + len(records), None)
        takers = tuple(map(_taker, self._all.get(log, _NOBODY)))
        tail = self._tails.get(log)
        if tail is not None:
            tail.takers = takers
        self._hand_on(takers, start, records, before)

    def _hand_on(
        self, takers: tuple[Taker, ...], start: int, records: list[bytes], before: bytes | None
    ) -> None:
        """Readers get what another process appended behind the record ``before``, where that is
        known."""
        if len(records) == 1:
            offer_newest(takers, start + 1, records[0])
        elif len(records) <= MOST_PIECES:
            offer_several(takers, start, records, None)
        else:
            for wake, _, _ in takers:
                wake()

    def forget(self, log: str) -> None:
        """Another process touched the log, or its state is in doubt: ask the store."""
        self._tails.pop(log, None)

    def forget_all(self) -> None:
        self._tails.clear()

    def page(self, log: str, after: int, most: int, most_bytes: int) -> Page | None:
        """The page after ``after`` when the tail held here begins there or earlier."""
        cache = self._tails.get(log)
        if cache is None:
            return None
        tail = cache.base + len(cache.records)
        if not cache.base <= after <= tail:
            return None
        start = after - cache.base
        records = cache.records[start : start + most]
        total = 0
        for count, record in enumerate(records):
            total += len(record)
            if total > most_bytes and count:
                del records[count:]
                break
        reached = after + len(records) == tail
        return Page(records, after + 1, tail, cache.closed if reached else None)
