"""Events as records, chained: how a cursor can prove which log it belongs to.

Always true: a record is 16 hex characters of check and the event's canonical JSON; the check covers
the run's id and every record before, so two logs that differ anywhere differ in every later check;
a cursor is ``{offset}-{check}``, and is honoured only where the log has that check at that offset
(a plain ``{offset}`` is trusted).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import blake2b

from tokenwire.errors import CursorError, StoreDamagedError
from tokenwire.events.codec import AnyEvent, encode
from tokenwire.express import follows

__all__ = [
    "CHECK",
    "Chain",
    "cursor_bytes",
    "cursor_of",
    "follows",
    "json_of",
    "parse_cursor",
    "verify",
]

#: Characters of the check at the head of a record.
CHECK = 16

_CURSOR = re.compile(r"([0-9]{1,15})(?:-([0-9a-f]{16}))?")


class Chain:
    """The running check of one run's log."""

    __slots__ = ("_last",)

    def __init__(self, run: str, last: bytes | None = None) -> None:
        self._last = last or blake2b(run.encode(), digest_size=8).hexdigest().encode()

    @property
    def last(self) -> bytes:
        """The check of the newest record."""
        return self._last

    def go_on(self, last: bytes) -> None:
        """Others sealed further records; the newest has the check ``last``."""
        self._last = last

    def seal(self, event: AnyEvent) -> bytes:
        """An event as the next record."""
        return self.seal_all((event,))[0]

    def seal_json(self, data: bytes) -> bytes:
        """An event as the next record, from its canonical JSON."""
        self._last = last = blake2b(self._last + data, digest_size=8).hexdigest().encode()
        return last + data

    def seal_all(self, events: Iterable[AnyEvent]) -> list[bytes]:
        """Events as the next records; after an error the chain is where it was."""
        last, records = self._last, []
        for event in events:
            data = encode(event)
            last = blake2b(last + data, digest_size=8).hexdigest().encode()
            records.append(last + data)
        self._last = last
        return records


def verify(run: str, records: list[bytes]) -> Chain:
    """The chain after all of a run's ``records``. Raises `StoreDamagedError` at the first whose
    check does not fit."""
    last = Chain(run).last
    for number, record in enumerate(records, 1):
        last = blake2b(last + record[CHECK:], digest_size=8).hexdigest().encode()
        if record[:CHECK] != last:
            raise StoreDamagedError(f"record {number} of run {run} fails its check", offset=number)
    return Chain(run, last)


def json_of(record: bytes) -> bytes:
    """The event's JSON bytes."""
    return record[CHECK:]


def cursor_of(offset: int, record: bytes) -> str:
    """The cursor of a record at ``offset``."""
    return f"{offset}-{record[:CHECK].decode('ascii')}"


def cursor_bytes(offset: int, record: bytes) -> bytes:
    """The same as ASCII bytes, for those who write it as it is."""
    return b"%d-%b" % (offset, record[:CHECK])


def parse_cursor(cursor: str | int | None) -> tuple[int, bytes | None]:
    """(offset, check or None). Raises `CursorError` for anything else."""
    if cursor is None or cursor == "":
        return 0, None
    if isinstance(cursor, int):
        cursor = str(cursor)
    if cursor == "-1":
        return 0, None
    match = _CURSOR.fullmatch(cursor)
    if match is None:
        raise CursorError("invalid cursor; send the id of the last event received, or omit it")
    check = match.group(2)
    return int(match.group(1)), check.encode() if check else None
