"""Appends to Redis: all of one turn of the loop in one write, a log's words encoded once.

Always true: an append whose answer was lost is sent again and comes out as what it was; one that
finds its log or claim lost by a failover puts these back and says from where to send.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

from tokenwire.errors import GoneError, NotFoundError, StoreFullError, TokenwireError
from tokenwire.log.base import Appended
from tokenwire.log.lane import Lane
from tokenwire.log.redis.link import Link, Script
from tokenwire.log.tail import Tails

__all__ = ["APPEND", "END", "Appends", "Owned", "missing"]

APPEND = Script("append.lua")
#: The same, where Redis has no memory left: without its end, readers of a log wait for ever.
END = Script("append.lua", flags="allow-oom")

#: Bytes with which a log may be ended in a full store.
CLOSING_BYTES = 64 << 10

#: Appends of one script call: it blocks the server for some 10 us each.
MOST_APPENDS = 256
#: Appends that share one confirmation by replicas or disk.
MOST_CONFIRMED = 8192


class Owned:
    """A log that this process created or claimed: enough to put it back after a failover."""

    __slots__ = ("epoch", "key", "lease", "meta", "nonce", "owner", "refreshed", "thread", "words")

    def __init__(
        self,
        owner: str,
        nonce: str,
        lease: float,
        meta: bytes = b"",
        thread: str | None = None,
        key: str | None = None,
        epoch: int = 1,
    ) -> None:
        self.owner = owner
        self.nonce = nonce
        self.lease = lease
        self.meta = meta
        self.thread = thread
        self.key = key
        self.epoch = epoch
        #: When its idempotency key and its documents were kept alive last; monotonic seconds.
        self.refreshed = time.monotonic()
        #: The log's part of an append, encoded: its keys, and what comes before the numbers;
        #: and its first key as text.
        self.words: tuple[bytes, bytes, str] | None = None


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

#: One append, as it was given.
Item = tuple[str, int, int, list[bytes], str | None]


class Appends:
    """Groups appends, one lane per server, and judges the answers.

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
        self._lanes: dict[Any, Lane] = {}
        self._cluster = link.settings.kind == "cluster"
        self.set_head(head)

    def set_head(self, head: Head) -> None:
        """What every call begins with."""
        self._head_words = [_word(str(word)) for word in head]
        self._head = b"".join(self._head_words)

    async def end(self, item: Item) -> Appended:
        """An append that ends a log, in a store that has no room. Raises `StoreFullError`, when it
        is too large for that, too."""
        if sum(map(len, item[3])) > CLOSING_BYTES:
            raise StoreFullError("Redis has no space left for new records")
        key = self._first_key(item[0])
        answers, is_repeat = await self._link.send(key, self._call_of([item], END), wait=True)
        [result] = await self._judge([item], answers, is_repeat)
        if isinstance(result, BaseException):
            raise result
        return result

    def lane(self, log: str) -> Lane:
        """Where appends to a log are given (an `Item` each); they keep their order."""
        place = self._link.place(self._first_key(log)) if self._cluster else None
        lane = self._lanes.get(place)
        if lane is None:
            most = MOST_APPENDS if self._link.confirm is None else MOST_CONFIRMED
            lane = self._lanes[place] = Lane(self._batch, most)
        return lane

    async def drain(self) -> None:
        for lane in self._lanes.values():
            await lane.drain()

    # Encoding. A number has a fixed width, so that the word's length is known.

    def _first_key(self, log: str) -> str:
        owned = self._owned.get(log)
        return self._key(log, "meta") if owned is None else self._words(log, owned)[2]

    def _words(self, log: str, owned: Owned | None) -> tuple[bytes, bytes, str]:
        if owned is not None and owned.words is not None:
            return owned.words
        meta = self._key(log, "meta")
        begin = _word(self._key(log, "live")) + _word(owned.nonce if owned else "")
        words = (_word(meta) + _word(self._key(log, "log")), begin, meta)
        if owned is not None:
            owned.words = words
        return words

    def _call_of(self, items: list[Item], script: Script = APPEND) -> bytes:
        keys: list[bytes] = []
        values: list[bytes] = []
        extra = 0
        owned_logs = self._owned.get
        for log, epoch, first, records, close in items:
            owned = owned_logs(log)
            if owned is not None and owned.epoch != epoch:
                owned = None  # somebody else's append
            names, begin, _ = (owned and owned.words) or self._words(log, owned)
            keys.append(names)
            ending = _word(close) if close is not None else b"$0\r\n\r\n"
            count = len(records)
            if count == 1:
                record = records[0]
                values.append(
                    b"%b$15\r\n%015d\r\n$15\r\n%015d\r\n%b$9\r\n000000001\r\n$%d\r\n%b\r\n"
                    % (begin, epoch, first, ending, len(record), record)
                )
            else:
                extra += count - 1
                numbers = b"%b$15\r\n%015d\r\n$15\r\n%015d\r\n%b$9\r\n%09d\r\n"
                values.append(numbers % (begin, epoch, first, ending, count))
                values += [b"$%d\r\n%b\r\n" % (len(record), record) for record in records]
        number = len(items)
        size = 3 + 2 * number + len(self._head_words) + 7 * number + extra
        call = b"$7\r\nEVALSHA\r\n$40\r\n%b\r\n" % script.sha
        start = b"*%d\r\n%b" % (size, call) + _word(str(2 * number))
        return b"".join([start, *keys, self._head, *values])

    async def _batch(self, items: list[Item]) -> list[Any]:
        link = self._link
        if self._cluster:  # a call may touch one slot only
            keys = [self._first_key(item[0]) for item in items]
            commands = [self._call_of([item]) for item in items]
            answers, is_repeat = await link.send_all(keys, commands, wait=True)
            answers = [answer for one in answers for answer in one]
        else:
            key = self._first_key(items[0][0])
            starts = range(0, len(items), MOST_APPENDS)
            commands = [self._call_of(items[start : start + MOST_APPENDS]) for start in starts]
            if len(commands) == 1:
                answers, is_repeat = await link.send(key, commands[0], wait=True)
            else:
                many, is_repeat = await link.send_all([key] * len(commands), commands, wait=True)
                answers = [answer for one in many for answer in one]
        return await self._judge(items, answers, is_repeat)

    # Judging.

    async def _judge(self, items: list[Item], answers: list[Any], is_repeat: bool) -> list[Any]:
        tails, results = self._tails, []
        for item, answer in zip(items, answers, strict=True):
            log, epoch, first, records, close = item
            if type(answer) is int:
                reached = answer
            else:
                status, reached, newest = answer
                last = first + len(records) - 1
                # Sent twice by us after a lost answer, it is no duplicate for the caller.
                if not (status == b"duplicate" and is_repeat and records and reached == last):
                    outcome = await self._refused(log, status.decode(), reached, newest)
                    results.append(outcome)
                    continue
            if log in tails:
                tails.came(log, records, reached, close)
            if close is not None:
                self._owned.pop(log, None)
            results.append(Appended("ok", reached, epoch))
        return results

    async def _refused(self, log: str, status: str, tail: int, epoch: int) -> Any:
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
