"""What is appended to logs in Redis by hand: its spools, and the groups that go there.

Always true: a reader gets a record past its task only behind the one that it has, by the check of
both, since a failover may have lost what the reader was given.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NamedTuple

from tokenwire.errors import StoreUnavailableError
from tokenwire.express import Taker, follows, give, offer_several, text_of_delta
from tokenwire.log.base import Appended
from tokenwire.log.spool import Batch, Item, Outcome, Spools

__all__ = ["Group", "Part", "RedisSpools"]

_log = logging.getLogger("tokenwire.log")

#: Characters of the check at the head of a record; see `tokenwire.relay.record`.
_CHECK = 16


def _lose(_: Batch) -> None:
    raise StoreUnavailableError("the store was not started")


class RedisSpools(Spools):
    """The spools of a store that may lose what it has."""

    keeps = True
    #: A busy Redis is asked more rarely, as each call costs it some 30 us beside its records.
    paces = ((48, 0.005), (16, 0.003), (4, 0.001))

    def __init__(self) -> None:
        super().__init__(_lose)

    def carry_by(self, carry: Callable[[Batch], None]) -> None:
        """From here on ``carry`` gives groups to Redis."""
        self._carry = carry

    def _offer(self, readers: tuple[Taker, ...], end: int, records: list[bytes]) -> None:
        before = records[end - 2][:_CHECK] if end > 1 else b""
        _offer_behind(readers, end, records[end - 1], before)

    def _hand_on(
        self, takers: tuple[Taker, ...], start: int, records: list[bytes], before: bytes | None
    ) -> None:
        last = before[:_CHECK] if before is not None else b""
        checks = [last, *(record[:_CHECK] for record in records[:-1])]
        is_next = all(follows(check, record) for check, record in zip(checks, records, strict=True))
        if not is_next:  # a message was lost: each reader looks
            last = b""
        if len(records) == 1:
            _offer_behind(takers, start + 1, records[0], last)
        else:
            offer_several(takers, start, records, last)


def _offer_behind(takers: tuple[Taker, ...], end: int, record: bytes, before: bytes) -> None:
    """Offer the record at ``end``, behind the one with the check ``before``; empty where that is
    not known."""
    check, json = record[:_CHECK], record[_CHECK:]
    form, chunk, text = None, b"", text_of_delta(json)
    for wake, take, reader in takers:
        port = reader.port if reader is not None else None
        if (
            reader is not None
            and port is not None
            and port.is_open
            and reader.after == end - 1
            and reader.check == before
            and before
            and text
        ):
            if port.form is not form:  # of further readers of this wire it is the same one
                form = port.form
                chunk = b"" if form is None else form.fill(end, check, json, text)
            if give(reader, port, end, chunk, text):
                reader.check = check
                continue
        if take is None or not take(end, record):
            wake()


class Group:
    """Hears what became of each append of a batch, and tells the spools when it is of all."""

    __slots__ = ("_batch", "_numbers", "_outcomes", "_remaining", "_spools")

    def __init__(self, spools: Spools, batch: Batch) -> None:
        self._spools, self._batch = spools, batch
        self._remaining = len(batch.items)
        self._outcomes: list[Outcome] | None = None
        #: Where the append to a log is in the batch, which has one of each.
        self._numbers: dict[str, int] = {}

    def accept(self, count: int = 1) -> None:
        """So many are in the log."""
        self._remaining -= count
        if not self._remaining:
            self._end()

    def refuse(self, log: str, first: int, outcome: Appended | BaseException) -> None:
        """That to ``log`` from the offset ``first`` on is not."""
        items = self._batch.items
        if self._outcomes is None:
            self._outcomes = [None for _ in items]
            self._numbers = {spool.log: number for number, (spool, _, _) in enumerate(items)}
        number = self._numbers[log]
        assert items[number][1] + 1 == first
        self._outcomes[number] = outcome
        self.accept()

    def _end(self) -> None:
        try:
            self._spools.land(self._batch, self._outcomes)
        except Exception:  # others' answers come after it
            _log.exception("the report of accepted appends failed")


class Part(NamedTuple):
    """Appends of a batch that leave in one call, and who hears of them."""

    group: Group
    items: list[Item]
