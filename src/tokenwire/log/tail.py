"""Who waits for which stream in this process, and the newest records of those streams.

Always true: a cached record was accepted by the store; an entry is dropped as soon as another
process is known to have touched its stream, so "nothing new" is never older than one wake-up.
"""

from __future__ import annotations

from collections.abc import Callable

from tokenwire.log.base import Page, Wake
from tokenwire.log.wakes import Wakes

__all__ = ["Tails"]

#: Newest records kept per watched stream. A live follower reads within milliseconds of a commit;
#: one that lags further reads the store.
MOST_RECORDS = 512
MOST_BYTES = 64 * 1024


class _Tail:
    __slots__ = ("base", "bytes", "closed", "records")

    def __init__(self, base: int) -> None:
        self.base = base
        self.records: list[bytes] = []
        self.bytes = 0
        self.closed: str | None = None


class Tails(Wakes):
    """Subscriptions and, for streams that are subscribed to here and written here, the tail."""

    def __init__(self) -> None:
        super().__init__()
        self._tails: dict[str, _Tail] = {}

    def subscribe(self, stream: str, wake: Wake, *, appends: bool = True) -> Callable[[], bool]:
        """`Wakes.subscribe`; the tail is kept while somebody is subscribed."""
        end = super().subscribe(stream, wake, appends=appends)

        def unsubscribe() -> bool:
            last = end()
            if last:
                self._tails.pop(stream, None)
            return last

        return unsubscribe

    def accepted(self, stream: str, records: list[bytes], tail: int, closed: str | None) -> None:
        """The store accepted an append of ours that ends at ``tail``."""
        if stream not in self:
            return
        kept = self._tails.get(stream)
        if kept is None or kept.base + len(kept.records) + len(records) < tail:
            kept = self._tails[stream] = _Tail(tail - len(records))
        new = tail - kept.base - len(kept.records)
        if new > 0:
            added = records[-new:]
            kept.records += added
            kept.bytes += sum(map(len, added))
        kept.closed = closed or kept.closed
        if len(kept.records) > MOST_RECORDS or kept.bytes > MOST_BYTES:
            dropped = len(kept.records) - len(kept.records) // 2
            kept.base += dropped
            del kept.records[:dropped]
            kept.bytes = sum(map(len, kept.records))

    def forget(self, stream: str) -> None:
        """Another process touched the stream, or its state is in doubt: ask the store."""
        self._tails.pop(stream, None)

    def forget_all(self) -> None:
        self._tails.clear()

    def page(self, stream: str, after: int, most: int, most_bytes: int) -> Page | None:
        """The page after ``after`` when the tail held here begins there or earlier."""
        kept = self._tails.get(stream)
        if kept is None:
            return None
        tail = kept.base + len(kept.records)
        if not kept.base <= after <= tail:
            return None
        start = after - kept.base
        records = kept.records[start : start + most]
        total = 0
        for count, record in enumerate(records):
            total += len(record)
            if total > most_bytes and count:
                del records[count:]
                break
        reached = after + len(records) == tail
        return Page(records, after + 1, tail, kept.closed if reached else None)
