"""Calls that append: of append.lua, each append in the shortest form that is right for it, and
plain pushes in front.

Always true: an append leaves as a plain push only under a permit: Redis has seen its owner within
the last seconds, on this connection, and no log was taken from any owner since (it holds that
against its own clock and the fence, in the step that pushes: `Watch`).
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tokenwire.log.base import Appended, Then
from tokenwire.log.redis.appending import packing
from tokenwire.log.redis.appending.owned import Owned, Words
from tokenwire.log.redis.appending.spools import Group, Part
from tokenwire.log.redis.appending.watch import EXEC, MULTI, Watch
from tokenwire.log.redis.connection import Connection
from tokenwire.log.redis.link import Script
from tokenwire.log.spool import Item as SpoolItem

__all__ = [
    "APPEND",
    "END",
    "Call",
    "Calls",
    "Head",
    "Item",
    "item_of",
    "items_of",
    "settle_by",
]

APPEND = Script("append.lua")
#: The same, where Redis has no memory left: without its end, readers of a log wait for ever.
END = Script("append.lua", flags="allow-oom")

#: Records of an append in a short form.
MOST_RECORDS = 4000
#: Seconds after which no append is sent under a permit; less than it lasts.
PERMIT_SECONDS = 3.0

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


def item_of(group: Group, item: SpoolItem, owned_of: dict[str, Owned]) -> Item:
    """One append of a group by itself."""
    spool, start, end = item
    owned = owned_of.get(spool.log)
    if owned is not None and owned.epoch != spool.epoch:
        owned = None
    records = spool.records[start:end]
    return Item(spool.log, owned, spool.epoch, start + 1, records, None, None, group)


def items_of(entries: Sequence[Item | Part], owned_of: dict[str, Owned]) -> list[Item]:
    """Each append by itself."""
    items: list[Item] = []
    for entry in entries:
        if isinstance(entry, Item):
            items.append(entry)
        else:
            items += [item_of(entry.group, item, owned_of) for item in entry.items]
    return items


def settle_by(then: Then, problem: Appended | BaseException | None) -> None:
    """Call ``then``; what it raises is no concern of other appends."""
    try:
        then(problem)
    except Exception:
        _log.exception("the callback of an append failed")


class Call(NamedTuple):
    """Encoded commands: pushes of what is under a permit, in one transaction of so many; the script
    with the others; and what watches for the next one. ``answers``: of all of them."""

    data: bytes
    permitted: list[Item | Part]
    pushes: int
    others: list[Item]
    answers: int

    def tails(self) -> list[int]:
        """What the pushes answer when all is as it was."""
        tails: list[int] = []
        for entry in self.permitted:
            if isinstance(entry, Part):
                tails += [end for _, _, end in entry.items]
            else:
                tails.append(entry.first + len(entry.records) - 1)
        return tails


def word(text: str) -> bytes:
    """A word of a command."""
    data = text.encode()
    return b"$%d\r\n%b\r\n" % (len(data), data)


_log = logging.getLogger("tokenwire.log")

_EMPTY = b"$0\r\n\r\n"


class Calls:
    """Encodes appends. ``fence``: the key that changes when a log is taken from its owner, where
    permits are of use."""

    def __init__(
        self,
        key: Callable[[str, str], str],
        head: Head,
        fence: str | None,
        owned: dict[str, Owned],
    ) -> None:
        self._key, self._owned = key, owned
        self._fence_key, seed = word(fence) if fence is not None else None, secrets.token_hex(8)
        self._seed = word(seed)
        #: None where permits are of no use.
        self.watch = Watch(fence, seed) if fence is not None else None
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
        """The server's fence was ``fence`` during the last call; b"" where that is not known."""
        if fence and fence != self._fence:
            self._fence = fence
            self.round += 1

    def permit(self, owned: Owned, until: int, start: float) -> None:
        """The last call, begun at ``start``, gave ``owned`` a permit, if ``until`` says so."""
        owned.permit, owned.permit_round = until, self.round
        owned.permit_end = start + PERMIT_SECONDS if until else 0.0

    # Encoding. A number has a fixed width, so that the word's length is known.

    def call(
        self,
        entries: Sequence[Item | Part],
        script: Script = APPEND,
        *,
        plainly: bool = True,
        wire: Connection | None = None,
    ) -> Call:
        """Commands for all of ``entries``; ``plainly``: in the short forms, where they may be;
        ``wire``: over which they go, where permits are to be asked for and used."""
        watch, now = self.watch if wire is not None else None, time.monotonic()
        if watch is not None and wire is not self._wire:
            self._wire = wire
            self.round += 1
        call = _Encoding(self, now, self.round if watch is not None else -1, plainly=plainly)
        if watch is not None and wire is not None and watch.is_held(wire, now):
            call.lapse = watch.lapse
        for entry in entries:
            if isinstance(entry, Item):
                call.add(entry)
            else:
                call.add_part(entry, self._owned)
        parts: list[bytes] = []
        answers = 0
        if call.permitted:
            parts += (MULTI, *call.commands, EXEC)
            answers += 2 + call.pushes
        if call.others:
            self._add_script(parts, call, script, is_fenced=watch is not None)
            answers += 1
        if watch is not None and wire is not None:
            look, count = watch.commands(wire, now)
            parts.append(look)
            answers += count
        return Call(b"".join(parts), call.permitted, call.pushes, call.others, answers)

    def _add_script(
        self, parts: list[bytes], call: _Encoding, script: Script, *, is_fenced: bool
    ) -> None:
        fence = [self._fence_key] if is_fenced and self._fence_key is not None else []
        number = len(fence) + 2 * len(call.others)
        size = call.size + 3 + number + self._head_size + 1
        parts.append(b"*%d\r\n$7\r\nEVALSHA\r\n$40\r\n%b\r\n" % (size, script.sha))
        parts += (word(str(number)), *fence, *call.keys, self._head)
        parts += (self._seed if is_fenced else _EMPTY, *call.values)


class _Encoding:
    """The parts of one call. ``this_round``: that of permits which count; -1 where none does."""

    __slots__ = (
        *("_calls", "_logs", "_now", "_plainly", "_round", "commands", "keys", "lapse", "others"),
        *("permitted", "pushes", "size", "values"),
    )

    def __init__(self, calls: Calls, now: float, this_round: int, *, plainly: bool) -> None:
        self._calls, self._round, self._plainly = calls, this_round, plainly
        self._now = now
        self._logs: set[str] = set()  # whose order must be kept
        #: The server's time until which permits must hold, in milliseconds; None where nothing is
        #: watched, so that none is of use.
        self.lapse: int | None = None
        self.permitted: list[Item | Part] = []
        self.commands: list[bytes] = []
        self.pushes = 0
        self.others: list[Item] = []
        self.keys: list[bytes] = []
        self.values: list[bytes] = []
        self.size = 0

    def add_part(self, part: Part, owned_of: dict[str, Owned]) -> None:
        items = part.items
        if self.lapse is not None:
            package = packing.pack(items, owned_of, self._logs, self._round, self._now)
            if package.items and package.until < self.lapse:
                packing.unpack_items(package.items, owned_of)
            elif package.items:
                self.permitted.append(Part(part.group, package.items))
                self.commands.append(package.commands)
                self.pushes += len(package.items)
                items = package.rest
        for item in items:
            self.add(item_of(part.group, item, owned_of))

    def add(self, item: Item) -> None:
        log, owned, _, first, records, close, _, _ = item
        count, now, is_fenced = len(records), self._now, self._round >= 0
        words = self._calls.words(log, owned)
        if (
            owned is None
            or close is not None
            or not self._plainly
            or not 0 < count <= MOST_RECORDS
            or first > packing.MOST_OFFSET
        ):
            if owned is not None and close is not None:
                owned.permit_end = 0.0  # what is given while this is under way is looked at
            self.values.append(_in_full(item, words))
            self.size += 8 + count
        elif (
            count > 1
            or owned.has_readers
            or now - owned.published_at > packing.PUBLISH_SECONDS
            or owned.bytes + len(records[0]) - owned.noted > packing.NOTED_BYTES
        ):
            _tell(owned, records, now)
            permit = is_fenced and not owned.has_readers
            self.values.append(_in_part(owned, words, first, records, words[2], permit))
            self.size += 5 + count
        elif self._may_push(log, owned):
            self.permitted.append(item)
            self.commands.append(packing.push(words[4], records))
            self.pushes += 1
            return
        elif is_fenced:
            self.values.append(_in_part(owned, words, first, records, _EMPTY, permit=True))
            self.size += 6
        else:
            self.values.append(b"$9\r\n%09d\r\n%b%b" % (first, words[1], _record(records[0])))
            self.size += 3
        self.keys.append(words[0])
        self.others.append(item)
        self._logs.add(log)

    def _may_push(self, log: str, owned: Owned) -> bool:
        is_valid = owned.permit_round == self._round and self._now < owned.permit_end
        holds = self.lapse is not None and owned.permit >= self.lapse
        return is_valid and holds and log not in self._logs


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
    if size - owned.noted > packing.NOTED_BYTES:
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
