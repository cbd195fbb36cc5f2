"""Appends to Redis: all of one turn of the loop in one write, a log's words encoded once.

Always true: an append whose answer was lost is sent again and comes out as what it was; one that
finds its log or claim lost by a failover puts these back and says from where to send.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from tokenwire.errors import GoneError, NotFoundError, StoreFullError, TokenwireError
from tokenwire.log.base import Appended, Then
from tokenwire.log.redis.link import Link, Script
from tokenwire.log.redis.turns import Turns
from tokenwire.log.tail import Tails

__all__ = ["APPEND", "END", "Appends", "Owned", "missing"]

APPEND = Script("append.lua")
#: The same, where Redis has no memory left: without its end, readers of a log wait for ever.
END = Script("append.lua", flags="allow-oom")

#: Bytes with which a log may be ended in a full store.
CLOSING_BYTES = 64 << 10

#: Appends of one script call: it blocks the server for some 5 us each.
MOST_APPENDS = 256
#: Appends that share one confirmation by replicas or disk.
MOST_CONFIRMED = 8192
#: Records, and their first offset, of an append in a short form.
MOST_RECORDS = 4000
MOST_OFFSET = 999_999_999

#: What is added to the answer to an append of which readers in other processes were told.
PUBLISHED = 1 << 40
#: Where no reader in another process is known, readers are told nothing but at an append so many
#: seconds after the last one of which they were: those of the release before do not say that they
#: are there.
PUBLISH_SECONDS = 1.0
#: Bytes of a log that Redis has not noted, at most (`read.lua` knows the number): so many are
#: missing to a process that takes it over.
NOTED_BYTES = 4096

_log = logging.getLogger("tokenwire.log")


class Owned:
    """A log that this process created or claimed: enough to append to it, and to put it back after
    a failover."""

    __slots__ = (
        *(
            "bytes",
            "epoch",
            "has_readers",
            "announced_at",
            "key",
            "lease",
            "meta",
            "nonce",
            "noted",
        ),
        *("owner", "refreshed", "thread", "published_at", "published_bytes", "words"),
    )

    def __init__(
        self,
        owner: str,
        nonce: str,
        lease: float,
        meta: bytes = b"",
        thread: str | None = None,
        key: str | None = None,
        epoch: int = 1,
        size: int = 0,
    ) -> None:
        self.owner = owner
        self.nonce = nonce
        self.lease = lease
        self.meta = meta
        self.thread = thread
        self.key = key
        self.epoch = epoch
        #: The bytes of its records, and how many of them Redis has noted (or is about to).
        self.bytes = self.noted = size
        #: Whether readers in other processes may listen; loop times at which such a reader last
        #: said so, and at which readers were last told of an append.
        self.has_readers = True
        self.announced_at = self.published_at = 0.0
        #: The bytes of the log when they were.
        self.published_bytes = size
        #: When its idempotency key and its documents were kept alive last; monotonic seconds.
        self.refreshed = time.monotonic()
        #: The log's words in an append, encoded: its keys; its nonce; its channel; and its first
        #: key as text.
        self.words: Words | None = None


def missing(state: str) -> TokenwireError:
    """The error for a log that is not there."""
    if state == "gone":
        return GoneError("the log has expired; its records are no longer stored")
    return NotFoundError("no log has this name", what="log")


def _word(text: str) -> bytes:
    data = text.encode()
    return b"$%d\r\n%b\r\n" % (len(data), data)


#: Milliseconds that a log lives after a sign of life, and that a name is remembered; the command
#: that publishes; and milliseconds that a log is stored after its end, alone or in a conversation.
Head = tuple[int, int, str, int, int]

#: See `Owned.words`.
Words = tuple[bytes, bytes, bytes, str]


class Item(NamedTuple):
    """One append. ``owned`` is None where somebody else owns the log. One of ``then`` and
    ``future`` hears of the outcome."""

    log: str
    owned: Owned | None
    epoch: int
    first: int
    records: list[bytes]
    close: str | None
    then: Then | None
    future: asyncio.Future[Appended] | None

    def fail(self, error: BaseException) -> None:
        """It could not be done."""
        if self.then is not None:
            _call(self.then, error)
        elif self.future is not None and not self.future.done():
            self.future.set_exception(error)

    def settle(self, outcome: Appended) -> None:
        """It was done, or refused."""
        if self.then is not None:
            _call(self.then, None if outcome.status in ("ok", "duplicate") else outcome)
        elif self.future is not None and not self.future.done():
            self.future.set_result(outcome)


_new = tuple.__new__


def _call(then: Then, problem: Appended | BaseException | None) -> None:
    try:
        then(problem)
    except Exception:  # others' answers come after it
        _log.exception("the callback of an append failed")


class Appends:
    """Groups appends, in turns for each server, and judges the answers.

    ``restore(log)`` is awaited for a log that a failover lost; what it returns is the
    append's outcome.
    """

    def __init__(
        self,
        link: Link,
        key: Callable[[str, str], str],
        owned: dict[str, Owned],
        tails: Tails,
        head: Head,
        restore: Callable[[str], Awaitable[Appended | TokenwireError]],
    ) -> None:
        self._link = link
        self._key = key
        self._owned = owned
        self._tails = tails
        self._restore = restore
        self._turns: dict[Any, Turns] = {}
        self._cluster = link.settings.kind == "cluster"
        self.set_head(head)

    def set_head(self, head: Head) -> None:
        """What every call begins with."""
        self._head_words = [_word(str(word)) for word in head]
        self._head = b"".join(self._head_words)

    def give(
        self,
        log: str,
        epoch: int,
        first: int,
        records: list[bytes],
        close: str | None,
        then: Then | None = None,
        future: asyncio.Future[Appended] | None = None,
    ) -> None:
        """Append with the others of this turn of the loop. Appends to one log keep their order."""
        owned = self._owned.get(log)
        if owned is not None and owned.epoch != epoch:
            owned = None
        turns = self._turns.get(None)
        if turns is None or self._cluster:
            turns = self._turns_of(log, owned)
        item = (log, owned, epoch, first, records, close, then, future)
        turns.give(_new(Item, item))

    def _turns_of(self, log: str, owned: Owned | None) -> Turns:
        place = self._link.place(self._words(log, owned)[3]) if self._cluster else None
        turns = self._turns.get(place)
        if turns is None:
            most = MOST_APPENDS if self._link.confirm is None else MOST_CONFIRMED
            turns = self._turns[place] = Turns(self._carry_out, most)
        return turns

    async def end(
        self, log: str, epoch: int, first: int, records: list[bytes], close: str
    ) -> Appended:
        """An append that ends a log, in a store that has no room. Raises `StoreFullError`, when it
        is too large for that, too."""
        if sum(map(len, records)) > CLOSING_BYTES:
            raise StoreFullError("Redis has no space left for new records")
        owned = self._owned.get(log)
        if owned is not None and owned.epoch != epoch:
            owned = None
        future: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()
        await self._carry_out([Item(log, owned, epoch, first, records, close, None, future)], END)
        return await future

    async def drain(self) -> None:
        for turns in self._turns.values():
            await turns.drain()

    # Encoding. A number has a fixed width, so that the word's length is known.

    def _words(self, log: str, owned: Owned | None) -> Words:
        if owned is not None and owned.words is not None:
            return owned.words
        meta = self._key(log, "meta")
        names = _word(meta) + _word(self._key(log, "log"))
        words = (names, _word(owned.nonce if owned else ""), _word(self._key(log, "live")), meta)
        if owned is not None:
            owned.words = words
        return words

    def _call_of(
        self, items: list[Item], script: Script = APPEND, *, plainly: bool = True
    ) -> bytes:
        """One call with all of ``items``; ``plainly``: in the short forms, where they may be."""
        keys: list[bytes] = []
        values: list[bytes] = []
        size, now = 0, time.monotonic()
        for item in items:
            log, owned, _, first, records, close, _, _ = item
            count = len(records)
            if (
                owned is None
                or close is not None
                or not plainly
                or not 0 < count <= MOST_RECORDS
                or first > MOST_OFFSET
            ):
                words = self._words(log, owned)
                values.append(self._in_full(item, words))
                size += 8 + count
            else:
                words = owned.words or self._words(log, owned)
                record = records[0]
                if (
                    count > 1
                    or owned.has_readers
                    or now - owned.published_at > PUBLISH_SECONDS
                    or owned.bytes + len(record) - owned.noted > NOTED_BYTES
                ):
                    values.append(self._in_part(owned, words, first, records, now))
                    size += 5 + count
                else:
                    values.append(
                        b"$9\r\n%09d\r\n%b$%d\r\n%b\r\n" % (first, words[1], len(record), record)
                    )
                    size += 3
            keys.append(words[0])
        number = len(items)
        size += 3 + 2 * number + len(self._head_words)
        call = b"$7\r\nEVALSHA\r\n$40\r\n%b\r\n" % script.sha
        start = b"*%d\r\n%b" % (size, call) + _word(str(2 * number))
        return b"".join([start, *keys, self._head, *values])

    def _in_part(
        self, owned: Owned, words: Words, first: int, records: list[bytes], now: float
    ) -> bytes:
        """An append that also tells readers in other processes, and notes the log's bytes."""
        noted, size = b"$0\r\n\r\n", owned.bytes + sum(map(len, records))
        if size - owned.noted > NOTED_BYTES:
            owned.noted = size
            noted = b"$15\r\n%015d\r\n" % owned.noted
        owned.published_at, owned.published_bytes = now, size
        begin = b"$10\r\n-%09d\r\n%b%b%b$9\r\n%09d\r\n" % (
            *(first, words[1], noted, words[2], len(records)),
        )
        return begin + b"".join([b"$%d\r\n%b\r\n" % (len(record), record) for record in records])

    def _in_full(self, item: Item, words: Words) -> bytes:
        _, owned, epoch, first, records, close, _, _ = item
        begin = b"$1\r\n0\r\n%b%b$15\r\n%015d\r\n$15\r\n%015d\r\n%b%b$9\r\n%09d\r\n" % (
            *(words[2], words[1], epoch, first, _word(close or "")),
            *(_word("" if owned is None else str(owned.bytes)), len(records)),
        )
        return begin + b"".join([b"$%d\r\n%b\r\n" % (len(record), record) for record in records])

    # Carrying out.

    async def _carry_out(self, items: list[Item], script: Script = APPEND) -> None:
        """Send ``items`` and settle them."""
        try:
            start = time.monotonic()
            answers, is_repeat = await self._send(items, script, plainly=True)
            items, answers = self._settle(items, answers, start)
            if 0 in answers:
                # Why is what the long form says; what has one already comes out as what it is.
                answers, is_second = await self._send(items, script, plainly=False)
                is_repeat = is_repeat or is_second
            while items:
                await self._judge(items[0], answers[0], is_repeat=is_repeat)
                items, answers = items[1:], answers[1:]
        except Exception as error:
            for item in items:
                item.fail(error)

    async def _send(
        self, items: list[Item], script: Script, *, plainly: bool
    ) -> tuple[list[Any], bool]:
        link = self._link
        if self._cluster:  # a call may touch one slot only
            keys = [self._words(item[0], item[1])[3] for item in items]
            commands = [self._call_of([item], script, plainly=plainly) for item in items]
        else:
            starts = range(0, len(items), MOST_APPENDS)
            groups = [items[start : start + MOST_APPENDS] for start in starts]
            commands = [self._call_of(group, script, plainly=plainly) for group in groups]
            keys = [self._words(items[0][0], items[0][1])[3]] * len(commands)
        if len(commands) == 1:
            return await link.send(keys[0], commands[0], wait=True)
        answers, is_repeat = await link.send_all(keys, commands, wait=True)
        return [answer for one in answers for answer in one], is_repeat

    def _settle(
        self, items: list[Item], answers: list[Any], start: float
    ) -> tuple[list[Item], list[Any]]:
        """Settle what was plainly accepted. Returns the rest, with its answers."""
        rest: list[Item] = []
        their_answers: list[Any] = []
        tails = self._tails
        for item, answer in zip(items, answers, strict=True):
            if type(answer) is not int or answer == 0:
                rest.append(item)
                their_answers.append(answer)
                continue
            tail = answer
            log, owned, epoch, _, records, _, then, _ = item
            if owned is not None:
                owned.bytes += len(records[0]) if len(records) == 1 else sum(map(len, records))
                if answer < 0:
                    tail = -answer
                    # A reader that came since has said so, where this process hears it.
                    if owned.announced_at < start and not self._cluster and log in tails:
                        owned.has_readers = False
                elif answer > PUBLISHED:
                    tail, owned.has_readers = answer - PUBLISHED, True
            try:
                if then is not None and len(records) == 1:
                    tails.came_delta(log, records[0], tail)
                else:
                    tails.came(log, records, tail, None)
            except Exception:  # they are in the log all the same
                _log.exception("the wake-up of a reader failed")
            if then is not None:
                _call(then, None)
            else:
                item.settle(Appended("ok", tail, epoch))
        return rest, their_answers

    async def _judge(self, item: Item, answer: list[Any], *, is_repeat: bool) -> None:
        """Settle an append by the answer to its long form."""
        log, owned, epoch, first, records, close, _, _ = item
        status, tail, newest, noted = answer
        last = first + len(records) - 1
        # Sent twice by us after a lost answer, it is no duplicate for the caller.
        is_ours = status == b"duplicate" and is_repeat and bool(records) and tail == last
        if status != b"ok" and not is_ours:
            outcome = await self._refused(log, status.decode(), tail, newest)
            if isinstance(outcome, BaseException):
                item.fail(outcome)
            else:
                item.settle(outcome)
            return
        if owned is not None:
            owned.bytes = owned.bytes + sum(map(len, records)) if is_ours else noted
            owned.noted = owned.published_bytes = noted
        self._tails.came(log, records, tail, close)
        if close is not None:
            self._owned.pop(log, None)
        item.settle(Appended("ok", tail, epoch))

    async def _refused(
        self, log: str, status: str, tail: int, epoch: int
    ) -> Appended | TokenwireError:
        if status in ("none", "behind"):
            # A failover lost what we hold; put it back and let the caller send from there.
            try:
                return await self._restore(log)
            except TokenwireError as error:
                return error  # of this log only
        if status in ("gone", "deleted"):
            return missing(status)
        self._tails.forget(log)
        if status == "fenced":
            self._owned.pop(log, None)
        return Appended(status, tail, epoch)  # type: ignore[arg-type]
