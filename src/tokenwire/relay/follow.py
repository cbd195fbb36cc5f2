"""Reading a run from any offset: what is there, then what comes.

Always true: records come once, in order, without gap, from the one after the cursor; a follower
costs nothing while it waits but its place in the log's list; a cursor of another run or of a lost
branch is refused before anything is read after it, and so is a log that a failover rewound under
a reader.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from tokenwire.errors import CursorError, NotFoundError, TokenwireError
from tokenwire.events.codec import AnyEvent, decode
from tokenwire.express import NO, SETTLE, YES, Port, Reader, Taken
from tokenwire.log.base import Page, Records
from tokenwire.relay.record import (
    CHECK,
    Chain,
    cursor_bytes,
    cursor_of,
    follows,
    json_of,
    parse_cursor,
)

__all__ = ["WAITS", "Batch", "Follower", "Sleeper", "open_follower"]


#: Called once when a follower is closed; True when its reader is about to come back.
Closed = Callable[[bool], None]


class Batch:
    """Records ``first`` ... of a run; empty after a poke."""

    __slots__ = ("first", "records")

    def __init__(self, first: int, records: list[bytes]) -> None:
        self.first, self.records = first, records

    def items(self) -> list[tuple[str, bytes]]:
        """``[(cursor, event JSON), ...]``"""
        first = self.first
        return [(cursor_of(first + n, r), json_of(r)) for n, r in enumerate(self.records)]

    def raw(self) -> list[tuple[bytes, bytes]]:
        """``[(event JSON, cursor in ASCII), ...]``"""
        records, first = self.records, self.first
        return [(r[CHECK:], cursor_bytes(first + n, r)) for n, r in enumerate(records)]

    def raw_one(self) -> tuple[bytes, bytes]:
        """`raw` of a batch of one."""
        record = self.records[0]
        return record[CHECK:], b"%d-%b" % (self.first, record[:CHECK])

    def events(self) -> list[tuple[str, AnyEvent]]:
        """``[(cursor, event), ...]``"""
        return [(cursor, decode(data)) for cursor, data in self.items()]


#: What `Follower.next` returns in place of waiting.
WAITS = Batch(0, [])


class Sleeper(Protocol):
    """Who waits for a follower without a task; a future is one, too."""

    def done(self) -> bool:
        """Whether it was woken."""
        ...

    def set_result(self, result: None, /) -> None:
        """Wake it."""
        ...


class Follower(Reader):
    """One reader of one run. Take batches with `next` until None; `close` it on every path."""

    __slots__ = (
        "_barred",
        "_closed",
        "_dirty",
        "_ended",
        "_failure",
        "_log",
        "_loop",
        "_most",
        "_most_bytes",
        "_poked",
        "_port",
        "_take",
        "_take_one",
        "_unsubscribe",
        "_waiter",
        "_watch",
        "run",
    )

    def __init__(
        self,
        log: Records,
        run: str,
        *,
        after: int = 0,
        check: bytes | None = None,
        most: int = 512,
        most_bytes: int = 1 << 20,
        closed: Closed | None = None,
    ) -> None:
        self._log, self.run = log, run
        #: The offset of the last record that was handed out.
        self.after = after
        self.port: Port | None = None
        self._port: Port | None = None
        #: The check of that record, where the log may lose its tail while we read. (Whoever gives
        #: a record to `port` has compared it with the one before, and puts the new one here.)
        self.check = check if log.rewinds else None
        self._most, self._most_bytes = most, most_bytes
        self._dirty = True
        self._poked = False
        self._ended = False
        self._waiter: Sleeper | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._unsubscribe: Callable[[], None] | None = log.subscribe(run, self._wake, take=self)
        self._closed = closed
        self._take: Callable[[Batch], Taken] | None = None
        self._take_one: Callable[[int, bytes], Taken] | None = None
        # What `_take` raised: how far it came is unknown, so it is not called again for the same.
        self._failure: Exception | None = None
        self._barred: Exception | None = None
        self._watch: Callable[[], None] | None = None

    def watch(self, wake: Callable[[], None]) -> None:
        """For who waits for several: ``wake`` is called when `pull` may have something, and `next`
        is not used."""
        self._watch = wake

    async def pull(self) -> Batch | None:
        """The records that are there now, of one page; None where there are none. `has_ended` says
        whether any will come."""
        if self._failure is not None:
            failure, self._failure = self._failure, self._barred
            raise failure
        if not self._dirty or self._unsubscribe is None:
            return None
        self._dirty = False
        page = await self._log.read(
            self.run, after=self.after, most=self._most, most_bytes=self._most_bytes
        )
        if self._barred is not None:
            raise self._barred
        self._ended = page.closed is not None
        if not page.records:
            return None
        if self.check is not None:
            self._verify(page.records[0])
        batch = Batch(self.after + 1, page.records)
        self.advance(page)
        return batch

    @property
    def has_ended(self) -> bool:
        """Whether all that there will be was handed out."""
        return self._ended

    @property
    def may_have_more(self) -> bool:
        """Whether `pull` is to be called again."""
        return self._dirty or self._failure is not None

    def express(
        self,
        take: Callable[[Batch], Taken],
        one: Callable[[int, bytes], Taken] | None = None,
        port: Port | None = None,
    ) -> None:
        """While `next` waits, give batches to ``take`` in the turn that brought them, where the
        store has them at hand; see `tokenwire.express`. ``SETTLE`` makes `next` return an empty
        batch; `next` raises what ``take`` raises. ``take`` must be quick: others wait for it.
        ``one``: the same for a batch of one record, by its offset. ``port``: where the store may
        put one record by hand, instead of a call of ``one``."""
        self._take, self._take_one = take, one
        self._port = port

    def sleep(self, sleeper: Sleeper) -> bool:
        """Wake ``sleeper`` once, when `next` has something to return; the express way goes on
        meanwhile. False where it has something now."""
        if self._has_news():
            return False
        self._wait_by(sleeper)
        return True

    def _has_news(self) -> bool:
        is_closed = self._ended or self._unsubscribe is None
        return self._failure is not None or self._poked or self._dirty or is_closed

    def _wait_by(self, waiter: Sleeper) -> None:
        self._waiter, self.port = waiter, self._port
        if self._port is not None:
            self._port.fd = -1  # the task may have written in this turn

    async def next(self, *, waits: bool = True) -> Batch | None:
        """The next records; waits for them, or returns `WAITS`; None after the last record of an
        ended run. An empty batch means a `poke`, or a ``SETTLE`` of the express way."""
        self._waiter = self.port = None
        while True:
            if self._failure is not None:
                failure, self._failure = self._failure, self._barred
                raise failure
            if self._poked:
                self._poked = False
                return Batch(self.after + 1, [])
            if self._ended or self._unsubscribe is None:
                return None
            if self._dirty:
                self._dirty = False
                try:
                    page = await self._log.read(
                        self.run, after=self.after, most=self._most, most_bytes=self._most_bytes
                    )
                except NotFoundError:  # erased meanwhile: as for who comes later
                    raise NotFoundError("no such run", what="run") from None
                if self._barred is not None:
                    continue  # what was being read may have come after
                self._ended = page.closed is not None
                if page.records:
                    if self.check is not None:
                        self._verify(page.records[0])
                    batch = Batch(self.after + 1, page.records)
                    self.advance(page)
                    return batch
                continue
            if not waits:
                return WAITS
            if self._loop is None:
                self._loop = asyncio.get_running_loop()  # a system call, so once
            waiter = self._loop.create_future()
            self._wait_by(waiter)
            try:
                await waiter
            finally:
                self._waiter = self.port = None

    def _verify(self, record: bytes) -> None:
        if self.check is not None and not follows(self.check, record):
            raise CursorError(
                "the store lost records that this reader has, and others took their place; "
                "read again from the start",
                reason="other_branch",
                tail=self.after,
            )

    def advance(self, page: Page) -> None:
        """The reader has the page's records (at least one), on both ways."""
        records = page.records
        self.after += len(records)
        if self.check is not None:
            self.check = records[-1][:CHECK]
        if self.after < page.tail:  # a wake-up during the read must not be lost: never cleared here
            self._dirty = True

    def rewind(self) -> None:
        """Before the first `next`: begin with the first record, for a reader whose encoder must
        see what came before its place."""
        self.after = 0
        if self.check is not None:
            self.check = Chain(self.run).last

    async def rewind_to(self, offset: int, check: bytes) -> bool:
        """The same, to begin behind the record at ``offset``; False, and nothing is done, where the
        log has another one there than that with this check."""
        page = await self._log.read(self.run, after=offset - 1, most=1)
        if not page.records or page.records[0][:CHECK] != check:
            return False
        self.after = offset
        if self.check is not None:
            self.check = check
        return True

    async def is_read(self) -> bool:
        """Whether the run has ended, and no record comes after `after`."""
        page = await self._log.read(self.run, after=self.after, most=1)
        return page.closed is not None and not page.records

    def poke(self) -> None:
        """Make a waiting `next` return an empty batch (heartbeat, drain)."""
        self._poked = True
        self._resume()

    def fail(self, error: Exception) -> None:
        """Make `next` raise ``error``: what would come cannot reach the log."""
        self._failure = error
        self._resume()

    def bar(self, error: Exception) -> None:
        """Make this and every further `next` raise ``error``: the reader may read no more, not even
        what is being read now."""
        self._barred = error
        self.fail(error)

    def close(self, *, returning: bool = False) -> None:
        """Stop following; a waiting `next` returns None. ``returning``: the reader is about to come
        back, so nobody left."""
        self._take = self._take_one = self._port = None
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
            if self._closed is not None:
                self._closed(returning)
        self._resume()

    def _wake(self) -> None:
        self._dirty = True
        waiter = self._waiter
        if waiter is None or waiter.done():
            if self._watch is not None:
                self._watch()
            return
        if self._take is not None and self._pass_on(self._take) is YES:
            return
        self.port = None
        waiter.set_result(None)

    def __call__(self, offset: int, record: bytes) -> bool:
        """The store has one more record: take it at once, where nothing else is to be done."""
        waiter, take, check = self._waiter, self._take_one, self.check
        if (
            waiter is None
            or take is None
            or self.after + 1 != offset
            or self._dirty
            or self._poked
            or waiter.done()
            or (check is not None and not follows(check, record))  # the task's read meets it
        ):
            return False
        try:
            outcome = take(offset, record)
        except Exception as error:
            self._failure, self._dirty, self.port = error, True, None
            waiter.set_result(None)
            return True
        if outcome is NO:
            return False
        self.after = offset
        if check is not None:
            self.check = record[:CHECK]
        if outcome is SETTLE:
            self._poked, self.port = True, None
            waiter.set_result(None)
        return True

    def _pass_on(self, take: Callable[[Batch], Taken]) -> Taken:
        """Give what is there to ``take``; ``YES`` when that is all, and the task may sleep on."""
        try:
            page = self._log.read_now(
                self.run, after=self.after, most=self._most, most_bytes=self._most_bytes
            )
            if page is None or page.closed is not None:
                return NO
            records = page.records
            if not records:
                self._dirty = self.after < page.tail
                return SETTLE if self._dirty else YES
            if self.check is not None:
                self._verify(records[0])
        except TokenwireError:
            return NO  # the task's own read meets the same
        try:
            outcome = take(Batch(self.after + 1, records))
        except Exception as error:
            self._failure = error
            return SETTLE
        if outcome is NO:
            return NO
        self._dirty = False
        self.advance(page)
        if outcome is SETTLE:
            self._poked = True
        return SETTLE if self._dirty else outcome

    def _resume(self) -> None:
        waiter, self.port = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
        elif self._watch is not None:
            self._watch()


async def _page_of(log: Records, run: str, offset: int) -> Page:
    """The record at ``offset``. Raises `CursorError` when the run has none."""
    try:
        page = await log.read(run, after=offset - 1, most=1)
        tail = page.tail
    except CursorError as error:
        page, tail = None, error.details.get("tail")
    if page is None or not page.records:
        raise CursorError(
            f"the cursor is beyond the end of this run (its tail is {tail}); "
            "read again from the start",
            reason="beyond_tail",
            tail=tail,
        )
    return page


async def open_follower(
    log: Records, run: str, cursor: str | int | None, *, closed: Closed | None = None
) -> Follower:
    """A follower after ``cursor``. Raises `CursorError` when the log does not hold that very
    record: another run's cursor, one beyond the tail, or one of a branch that a failover lost."""
    after, check = parse_cursor(cursor)
    last = Chain(run).last
    if after > 0:
        page = await _page_of(log, run, after)
        if check is not None and page.records[0][:CHECK] != check:
            raise CursorError(
                "the cursor belongs to another run or to a lost branch of this one; "
                "read again from the start",
                reason="other_branch",
                tail=page.tail,
            )
        last = page.records[0][:CHECK]
    return Follower(log, run, after=after, check=last, closed=closed)
