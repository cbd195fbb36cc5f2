"""Appends to Redis: all of one turn of the loop in one write, and what becomes of each.

Always true: an append whose answer was lost is sent again and comes out as what it was (pushes
whose answer was lost cannot happen any more by then: the fence is changed first); one that finds
its log or claim lost by a failover puts these back and says from where to send.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from tokenwire.errors import StoreFullError, TokenwireError
from tokenwire.log.base import Appended, Then
from tokenwire.log.redis.appending.calls import (
    APPEND,
    END,
    Call,
    Calls,
    Head,
    Item,
    items_of,
    settle_by,
)
from tokenwire.log.redis.appending.owned import Owned, missing
from tokenwire.log.redis.appending.packing import unpack_items
from tokenwire.log.redis.appending.spools import Group, Part, RedisSpools
from tokenwire.log.redis.appending.turns import Turns
from tokenwire.log.redis.connection import ReplyError
from tokenwire.log.redis.link import Link, Script
from tokenwire.log.redis.owner import Owner
from tokenwire.log.spool import Batch

__all__ = ["Appends"]

#: Bytes with which a log may be ended in a full store.
CLOSING_BYTES = 64 << 10

#: Appends of one script call: it blocks the server for some 5 us each.
MOST_APPENDS = 256
#: Appends of a call from which on permits are worth what the fence costs.
FEWEST_FENCED = 6
#: Appends that share one confirmation by replicas or disk.
MOST_CONFIRMED = 8192

#: What is added to the answer to an append of which readers in other processes were told.
PUBLISHED = 1 << 40

_log = logging.getLogger("tokenwire.log")

_new = tuple.__new__


def _size_of(entry: Item | Part) -> int:
    """How many appends it is."""
    return 1 if isinstance(entry, Item) else len(entry.items)


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
        spools: RedisSpools,
        head: Head,
        restore: Callable[[str], Awaitable[Appended | TokenwireError]],
        owner: Owner,
    ) -> None:
        self._link, self._owner = link, owner
        self._owned = owned
        self._tails = self._spools = spools
        spools.carry_by(self.carry)
        self._restore = restore
        self._turns: dict[Any, Turns] = {}
        self._cluster = link.settings.kind == "cluster"
        self._fence = owner.fence[0] if owner.fence else None
        self._calls = Calls(key, head, self._fence, owned)
        self.set_head = self._calls.set_head
        #: Pushes may still happen that were sent over a connection which is lost.
        self._is_in_doubt = False
        #: Whether Redis takes plain pushes; not where this user lacks a right that they need.
        self._can_push = self._fence is not None

    def give(
        self,
        log: str,
        epoch: int,
        first: int,
        records: list[bytes],
        close: str | None,
        then: Then | None = None,
        future: asyncio.Future[Appended] | Group | None = None,
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

    def carry(self, batch: Batch) -> None:
        """Append what was appended by hand."""
        if not batch.items:
            asyncio.get_running_loop().call_soon(self._spools.land, batch, None)
        group, items = Group(self._spools, batch), batch.items
        if self._cluster:
            for spool, start, end in items:
                records = spool.records[start:end]
                self.give(spool.log, spool.epoch, start + 1, records, None, None, group)
            return
        turns = self._turns.get(None) or self._turns_of("", None)
        for start in range(0, len(items), MOST_APPENDS):
            turns.give(Part(group, items[start : start + MOST_APPENDS]))

    def _turns_of(self, log: str, owned: Owned | None) -> Turns:
        place = self._link.place(self._calls.words(log, owned)[3]) if self._cluster else None
        turns = self._turns.get(place)
        if turns is None:
            most = MOST_APPENDS if self._link.confirm is None else MOST_CONFIRMED
            turns = self._turns[place] = Turns(self._carry_out, most, _size_of)
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

    # Carrying out.

    async def _carry_out(self, entries: list[Item | Part], script: Script = APPEND) -> None:
        """Send ``entries`` and settle them."""
        items: list[Item] | None = None
        try:
            await self._end_doubt()
            start = time.monotonic()
            items, answers, is_repeat = await self._send_first(entries, script, start)
            if 0 in answers:
                await self._end_doubt()
                answers, is_second = await self._ask_why(items, answers, script)
                is_repeat = is_repeat or is_second
            while items:
                await self._judge(items[0], answers[0], is_repeat=is_repeat)
                items, answers = items[1:], answers[1:]
        except Exception as error:
            for item in items_of(entries, self._owned) if items is None else items:
                item.fail(error)

    async def _ask_why(
        self, items: list[Item], answers: list[Any], script: Script
    ) -> tuple[list[Any], bool]:
        """The answers, those of the long form where they are 0; whether that was sent twice.

        An append that is in its log stays what it was: sent again it would be a duplicate, and its
        readers would not hear of it. What was refused may have been so for one that is sent again
        in front of it.
        """
        must_ask = [not (type(answer) is list and answer[0] == b"ok") for answer in answers]
        refusals = [item for item, is_again in zip(items, must_ask, strict=True) if is_again]
        newest, is_second = await self._send(refusals, script, plainly=False)
        others = iter(newest)
        pairs = zip(answers, must_ask, strict=True)
        return [next(others) if is_again else answer for answer, is_again in pairs], is_second

    async def _end_doubt(self) -> None:
        """See to it that no push happens any more whose answer was lost."""
        if self._is_in_doubt and self._fence is not None:
            await self._link.command(self._fence, "DEL", self._fence)
            self._is_in_doubt = False

    async def _send_first(
        self, entries: list[Item | Part], script: Script, start: float
    ) -> tuple[list[Item], list[Any], bool]:
        """Send ``entries`` in the shortest forms, and settle what was accepted. Returns the rest,
        with answers (0: of the long form there is none yet); whether it was sent twice."""
        link, place, key = self._link, None, self._key_of(entries[0])
        count = sum(map(_size_of, entries))
        if script is APPEND and self._can_push and FEWEST_FENCED <= count <= MOST_APPENDS:
            place = await link.apart(key) if link.confirm is None else None
        if place is None:
            items = items_of(entries, self._owned)
            answers, is_repeat = await self._send(items, script, plainly=True)
            items, answers = self._settle(items, answers, start)
            return items, answers, is_repeat
        call, replies = self._calls.call(entries, wire=place[1]), None
        try:
            replies = await link.exchange(*place, call.data, call.answers)
        finally:
            if replies is None:
                self._is_in_doubt = self._is_in_doubt or bool(call.permitted)
                self._unpack(call)
        if replies is None:
            items = items_of(entries, self._owned)
            return items, [0] * len(items), True
        return await self._settle_call(call, replies, start)

    def _key_of(self, entry: Item | Part) -> str:
        """A key that says to which server ``entry`` goes."""
        log = entry.log if isinstance(entry, Item) else entry.items[0][0].log
        return self._calls.words(log, self._owned.get(log))[3]

    def _unpack(self, call: Call) -> None:
        """What was sent under permits is not known to be stored."""
        for entry in call.permitted:
            if isinstance(entry, Part):
                unpack_items(entry.items, self._owned)

    async def _settle_call(
        self, call: Call, replies: list[Any], start: float
    ) -> tuple[list[Item], list[Any], bool]:
        """Settle what of ``call`` was accepted. Returns the rest, with answers; and whether some
        of it may be in its log."""
        at, rest, is_repeat = 0, list[Item](), False
        if call.permitted:
            at = call.pushes + 2
            if replies[0] != b"OK":  # without a transaction nothing held the pushes
                self._can_push, self._is_in_doubt, is_repeat = False, True, True
            elif isinstance(replies[at - 1], ReplyError):
                self._look_at_refusals(replies[1:at])
            rest = await self._settle_pushes(call, replies[at - 1])
        answers: list[Any] = [0] * len(rest)
        if call.others:
            reply = replies[at]
            at += 1
            if not isinstance(reply, list):  # an error, or a transaction that did not end
                others, their_answers, is_repeat = call.others, [0] * len(call.others), True
            else:
                self._calls.learn(reply[-1])
                others, their_answers = self._settle(call.others, reply[:-1], start)
            rest, answers = rest + others, answers + their_answers
        self._look_at_refusals(replies[at:])
        if self._calls.watch is not None:
            self._calls.learn(self._calls.watch.see(replies[at:]))
        return rest, answers, is_repeat

    def _look_at_refusals(self, replies: list[Any]) -> None:
        """Send no pushes any more where this user may not do what they need."""
        for reply in replies:
            if isinstance(reply, ReplyError) and (
                reply.code in ("NOPERM", "ERR") or "NOPERM" in str(reply)  # without `EXEC`
            ):
                self._can_push = False
                _log.warning("appends cost Redis more, as it refuses pushes: %s", str(reply)[:120])
                return

    async def _settle_pushes(self, call: Call, reply: Any) -> list[Item]:
        """Settle what was pushed, by the answer to its transaction. Returns the rest."""
        tails = call.tails()
        if reply == tails:
            for entry in call.permitted:
                if isinstance(entry, Part):
                    entry.group.accept(len(entry.items))
                else:
                    self._accept(entry, entry.first)
            return []
        self._unpack(call)  # each is counted by itself
        rest: list[Item] = []
        pushed = reply if isinstance(reply, list) else [0] * len(tails)
        items = items_of(call.permitted, self._owned)
        for item, tail, expected in zip(items, pushed, tails, strict=True):
            if tail == expected:
                self._accept(item, item.first)
                continue
            if item.owned is not None:
                item.owned.permit_end = 0.0
            if type(tail) is int and tail > 0:  # whoever changed the log has not changed the fence
                await self._owner(item.log, "take back", tail, len(item.records), wait=True)
            rest.append(item)
        return rest

    async def _send(
        self, items: list[Item], script: Script, *, plainly: bool
    ) -> tuple[list[Any], bool]:
        link = self._link
        if self._cluster:  # a call may touch one slot only
            keys = [self._calls.words(item[0], item[1])[3] for item in items]
            commands = [self._calls.call([item], script, plainly=plainly).data for item in items]
        else:
            starts = range(0, len(items), MOST_APPENDS)
            groups = [items[start : start + MOST_APPENDS] for start in starts]
            commands = [self._calls.call(group, script, plainly=plainly).data for group in groups]
            keys = [self._calls.words(items[0][0], items[0][1])[3]] * len(commands)
        if len(commands) == 1:
            answer, is_repeat = await link.send(keys[0], commands[0], wait=True)
            return answer[:-1], is_repeat
        answers, is_repeat = await link.send_all(keys, commands, wait=True)
        return [answer for one in answers for answer in one[:-1]], is_repeat

    def _settle(
        self, items: list[Item], answers: list[Any], start: float
    ) -> tuple[list[Item], list[Any]]:
        """Settle what was plainly accepted. Returns the rest, with its answers."""
        rest: list[Item] = []
        their_answers: list[Any] = []
        for item, answer in zip(items, answers, strict=True):
            owned, tail = item.owned, answer
            if type(tail) is list and type(tail[0]) is int:
                tail, until = tail
                if owned is not None:
                    self._calls.permit(owned, until, start)
            if type(tail) is not int or tail == 0:
                rest.append(item)
                their_answers.append(answer)
                continue
            if tail < 0:
                tail = -tail
                # A reader that came since has said so, where this process hears it.
                if owned is not None and self._is_alone(item.log, owned, start):
                    owned.has_readers = False
            elif tail > PUBLISHED:
                tail -= PUBLISHED
                if owned is not None:
                    owned.has_readers = True
            self._accept(item, tail)
        return rest, their_answers

    def _is_alone(self, log: str, owned: Owned, start: float) -> bool:
        """Whether a log of whose append nobody was told has no reader in another process."""
        return owned.announced_at < start and not self._cluster and log in self._tails

    def _accept(self, item: Item, tail: int) -> None:
        """An append is in the log, which ends at ``tail``."""
        log, owned, epoch, _, records, _, then, future = item
        count = len(records)
        if owned is not None:
            owned.bytes += len(records[0]) if count == 1 else sum(map(len, records))
        if type(future) is Group:
            future.accept()
            return
        try:
            if then is not None and count == 1:
                self._tails.came_delta(log, records[0], tail)
            else:
                self._tails.came(log, records, tail, None)
        except Exception:  # they are in the log all the same
            _log.exception("the wake-up of a reader failed")
        if then is not None:
            settle_by(then, None)
        else:
            item.settle(Appended("ok", tail, epoch))

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
        if type(item.future) is not Group:
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
