"""The calls of append.lua: each append in the shortest form that is right for it.

Always true: an append leaves without a look at its owner only under a permit: Redis has seen the
owner within the last seconds, on this connection, and no log was taken from any owner since (it
holds the permit against its own clock and fence, in the step that appends).
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import sys
import time
from array import array
from collections.abc import Callable
from typing import NamedTuple

from tokenwire.log.base import Appended, Then
from tokenwire.log.redis.appending.owned import Owned, Words
from tokenwire.log.redis.appending.spools import Group
from tokenwire.log.redis.connection import Connection
from tokenwire.log.redis.link import Script

__all__ = ["APPEND", "END", "Call", "Calls", "Head", "Item", "settle_by"]

APPEND = Script("append.lua")
#: The same, where Redis has no memory left: without its end, readers of a log wait for ever.
END = Script("append.lua", flags="allow-oom")

#: Records, and their first offset, of an append in a short form.
MOST_RECORDS = 4000
MOST_OFFSET = 999_999_999

#: Where no reader in another process is known, readers are told nothing but at an append so many
#: seconds after the last one of which they were: those of the release before do not say that they
#: are there.
PUBLISH_SECONDS = 1.0
#: Bytes of a log that Redis has not noted, at most (`read.lua` knows the number): so many are
#: missing to a process that takes it over.
NOTED_BYTES = 4096
#: Seconds after which no append is sent under a permit; less than it lasts.
PERMIT_SECONDS = 2.0

#: Milliseconds that a log lives after a sign of life, and that a name is remembered; the command
#: that publishes; and milliseconds that a log is stored after its end, alone or in a conversation.
Head = tuple[int, int, str, int, int]


class Item(NamedTuple):
    """One append. ``owned`` is None where somebody else owns the log. One of ``then`` and
    ``future`` hears of the outcome; a `Group` of that of several."""

    log: str
    owned: Owned | None
    epoch: int
    first: int
    records: list[bytes]
    close: str | None
    then: Then | None
    future: asyncio.Future[Appended] | Group | None

    def fail(self, error: BaseException) -> None:
        """It could not be done."""
        if isinstance(self.future, Group):
            self.future.refuse(self.log, self.first, error)
        elif self.then is not None:
            settle_by(self.then, error)
        elif self.future is not None and not self.future.done():
            self.future.set_exception(error)

    def settle(self, outcome: Appended) -> None:
        """It was done, or refused."""
        if isinstance(self.future, Group):
            if outcome.status == "ok":
                self.future.accept()
            else:
                self.future.refuse(self.log, self.first, outcome)
        elif self.then is not None:
            settle_by(self.then, None if outcome.status in ("ok", "duplicate") else outcome)
        elif self.future is not None and not self.future.done():
            self.future.set_result(outcome)


def settle_by(then: Then, problem: Appended | BaseException | None) -> None:
    """Call ``then``; what it raises is no concern of other appends."""
    try:
        then(problem)
    except Exception:
        _log.exception("the callback of an append failed")


class Call(NamedTuple):
    """One encoded call: the appends under a permit come first, and then the others."""

    data: bytes
    permitted: list[Item]
    others: list[Item]


def word(text: str) -> bytes:
    """A word of a command."""
    data = text.encode()
    return b"$%d\r\n%b\r\n" % (len(data), data)


_log = logging.getLogger("tokenwire.log")

_EMPTY = b"$0\r\n\r\n"
#: In the place of appends under a permit.
_NO_PERMITS = b"$1\r\n0\r\n" + 3 * _EMPTY


class Calls:
    """Encodes appends. ``fence``: the key that changes when a log is taken from its owner, where
    permits are of use."""

    def __init__(self, key: Callable[[str, str], str], head: Head, fence: str | None) -> None:
        self._key = key
        self._fence_key = word(fence) if fence is not None else None
        self._seed = word(secrets.token_hex(8))
        self.set_head(head)
        #: Permits of an earlier round are void: the connection was another one then, or the fence.
        self.round = 1
        self._wire: Connection | None = None
        self._fence = b""

    def set_head(self, head: Head) -> None:
        """What every call begins with."""
        self._head = b"".join([word(str(value)) for value in head])
        self._head_size = len(head)

    def words(self, log: str, owned: Owned | None) -> Words:
        """The words of ``log``."""
        if owned is not None and owned.words is not None:
            return owned.words
        meta, records = self._key(log, "meta"), word(self._key(log, "log"))
        nonce = word(owned.nonce if owned else "")
        words = (word(meta) + records, nonce, word(self._key(log, "live")), meta, records)
        if owned is not None:
            owned.words = words
        return words

    # Permits.

    def learn(self, fence: bytes) -> None:
        """The server's fence was ``fence`` during the last call."""
        if fence != self._fence:
            self._fence = fence
            self.round += 1

    def permit(self, owned: Owned, until: int, start: float) -> None:
        """The last call, begun at ``start``, gave ``owned`` a permit, if ``until`` says so."""
        owned.permit, owned.permit_round = until, self.round
        owned.permit_end = start + PERMIT_SECONDS if until else 0.0

    # Encoding. A number has a fixed width, so that the word's length is known.

    def call(
        self,
        items: list[Item],
        script: Script = APPEND,
        *,
        plainly: bool = True,
        wire: Connection | None = None,
    ) -> Call:
        """One call with all of ``items``; ``plainly``: in the short forms, where they may be;
        ``wire``: over which it goes, where permits are to be asked for and used."""
        is_fenced = wire is not None and self._fence_key is not None
        if is_fenced and wire is not self._wire:
            self._wire = wire
            self.round += 1
        permitted: list[Item] = []
        others: list[Item] = []
        keys: list[bytes] = []
        values: list[bytes] = []
        logs: set[str] = set()  # whose order must be kept
        size, now, this_round = 0, time.monotonic(), self.round if is_fenced else -1
        for item in items:
            log, owned, _, first, records, close, _, _ = item
            count = len(records)
            words = self.words(log, owned) if owned is None or owned.words is None else owned.words
            if (
                owned is None
                or close is not None
                or not plainly
                or not 0 < count <= MOST_RECORDS
                or first > MOST_OFFSET
            ):
                if owned is not None and close is not None:
                    owned.permit_end = 0.0  # what is given while this is under way is looked at
                values.append(_in_full(item, words))
                size += 8 + count
            elif (
                count > 1
                or owned.has_readers
                or now - owned.published_at > PUBLISH_SECONDS
                or owned.bytes + len(records[0]) - owned.noted > NOTED_BYTES
            ):
                _tell(owned, records, now)
                permit = is_fenced and not owned.has_readers
                values.append(_in_part(owned, words, first, records, words[2], permit))
                size += 5 + count
            elif owned.permit_round == this_round and now < owned.permit_end and log not in logs:
                permitted.append(item)
                continue
            elif is_fenced:
                values.append(_in_part(owned, words, first, records, _EMPTY, permit=True))
                size += 6
            else:
                values.append(b"$9\r\n%09d\r\n%b%b" % (first, words[1], _record(records[0])))
                size += 3
            keys.append(words[0])
            others.append(item)
            logs.add(log)
        permits, permitted_keys, count = self._permits(permitted, is_fenced)
        number = is_fenced + len(permitted) + 2 * len(keys)
        size += 3 + number + self._head_size + count
        call = b"*%d\r\n$7\r\nEVALSHA\r\n$40\r\n%b\r\n" % (size, script.sha)
        begin = (call, word(str(number)), *permitted_keys, *keys, self._head, permits)
        return Call(b"".join((*begin, *values)), permitted, others)

    def _permits(self, permitted: list[Item], is_fenced: bool) -> tuple[bytes, list[bytes], int]:
        """The words of appends under a permit, how many they are, and their keys, after the
        fence."""
        keys = [self._fence_key] if is_fenced and self._fence_key is not None else []
        seed = self._seed if keys else _EMPTY
        if not permitted:
            return seed + _NO_PERMITS, keys, 5
        until, firsts, records = 1 << 53, array("I"), []
        for _, owned, _, first, [record], *_ in permitted:
            assert owned is not None
            assert owned.words is not None
            until = min(until, owned.permit)
            firsts.append(first)
            keys.append(owned.words[4])
            records.append(b"$%d\r\n%b\r\n" % (len(record), record))
        fence = b"$9\r\n%09d\r\n$%d\r\n%b\r\n$15\r\n%015d\r\n$%d\r\n%b\r\n" % (
            *(len(permitted), len(self._fence), self._fence, until),
            *(4 * len(firsts), _little_endian(firsts)),
        )
        return b"".join((seed, fence, *records)), keys, 5 + len(permitted)


def _little_endian(numbers: array[int]) -> bytes:
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()


def _record(record: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(record), record)


def _tell(owned: Owned, records: list[bytes], now: float) -> None:
    """Readers in other processes are about to hear of ``records``."""
    owned.published_at = now
    owned.published_bytes = owned.bytes + sum(map(len, records))


def _in_part(
    owned: Owned, words: Words, first: int, records: list[bytes], channel: bytes, permit: bool
) -> bytes:
    """An append that also notes the log's bytes, if it is time, tells readers in other processes on
    ``channel``, or asks for a permit."""
    noted, size = _EMPTY, owned.bytes + sum(map(len, records))
    if size - owned.noted > NOTED_BYTES:
        owned.noted = size
        noted = b"$15\r\n%015d\r\n" % owned.noted
    begin = b"$10\r\n-%09d\r\n%b%b%b$9\r\n%09d\r\n" % (
        *(first, words[1], noted, channel),
        -len(records) if permit else len(records),
    )
    return begin + b"".join(map(_record, records))


def _in_full(item: Item, words: Words) -> bytes:
    _, owned, epoch, first, records, close, _, _ = item
    begin = b"$1\r\n0\r\n%b%b$15\r\n%015d\r\n$15\r\n%015d\r\n%b%b$9\r\n%09d\r\n" % (
        *(words[2], words[1], epoch, first, word(close or "")),
        *(word("" if owned is None else str(owned.bytes)), len(records)),
    )
    return begin + b"".join(map(_record, records))
