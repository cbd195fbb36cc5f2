"""The log in one SQLite file: kept over restarts, shared by the processes of one machine.

Always true: an append returns after the commit that holds it; with ``synchronous=full`` (the
default) that commit is on the disk. The event loop never waits for the disk: one thread writes
whatever many logs appended meanwhile in one transaction, another thread reads.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, Literal, cast

from tokenwire.errors import ConfigError, LogError, StoreUnavailableError
from tokenwire.log.base import (
    Appended,
    Claim,
    Due,
    Durability,
    LogInfo,
    Page,
    Sweeper,
    Take,
    Then,
    Wake,
)
from tokenwire.log.completion import Callback, Landing
from tokenwire.log.expiry import expire
from tokenwire.log.recent import Recent
from tokenwire.log.spool import Batch, Spool, Spools
from tokenwire.log.sqlite.heads import name_hash
from tokenwire.log.sqlite.journal import Hearing
from tokenwire.log.sqlite.reader import Reader
from tokenwire.log.sqlite.schema import connect, explain, prepare
from tokenwire.log.sqlite.thread import DEADLINE, Job, JobThread
from tokenwire.log.sqlite.upgrade import migrate
from tokenwire.log.sqlite.watch import Watch
from tokenwire.log.sqlite.writer import AppendJob, BatchJob, Maintenance, Writer
from tokenwire.log.tail import Heard

__all__ = ["SQLiteStore"]

_log = logging.getLogger("tokenwire.log")

#: Seconds after an erasure until the write-ahead log is emptied, and until that is tried again.
WAL_SECONDS = 20.0
WAL_PAUSE = 5.0

#: How often, and for how long, free pages are given back in one sweep.
VACUUMS = 50
VACUUM_SECONDS = 0.02

#: How often a process with readers looks for the commits of other processes.
POLL_SECONDS = 0.010

#: Leases that are watched at a time.
WATCHED = 1000

#: How long names of expired logs answer "gone" instead of "never was".
KEEP_NAMES_SECONDS = 30 * 86400.0


class SQLiteStore:
    """A `Store` in the file ``path``. ``busy``: seconds to wait for another process's lock;
    ``deadline``: seconds after which an operation fails; ``upgrade``: whether a file of an older
    version is brought to this one's format, or refused."""

    shared = True
    rewinds = False

    def __init__(
        self,
        path: str,
        *,
        synchronous: Literal["full", "normal"] = "full",
        busy: float = 5.0,
        deadline: float = DEADLINE,
        clock: Callable[[], float] = time.time,
        upgrade: bool = True,
    ) -> None:
        self.path = os.path.expanduser(path)
        self.durability: Durability = "disk" if synchronous == "full" else "process"
        self._synchronous: Literal["full", "normal"] = synchronous
        self._busy = busy
        self._clock = clock
        self._upgrade = upgrade
        self._watch = Watch()
        self._tails = Spools(self._carry)
        self._tails.ended = self._unsubscribed
        self._foreign_before = 0
        self._writer: Writer | None = None
        self._reader: Reader | None = None
        self._writes: JobThread | None = None
        self._reads: JobThread | None = None
        self._deadline = deadline
        self._probe = Recent(self._try_to_write)
        #: Since when the write-ahead log holds something that was erased; Unix seconds.
        self._wal_since: float | None = None
        self._wal_timer: asyncio.TimerHandle | None = None
        self._wal_task: asyncio.Future[None] | None = None

    def retain(self, seconds: float) -> None:
        """Nothing ends here by itself; `expire` erases."""

    async def start(self) -> None:
        """Open the file and its two threads; refuses a file that is not ours or is damaged."""
        if self._writer is not None and self._reader is not None:
            return
        has_wal = await asyncio.to_thread(self._open)
        writer, reader = cast(Writer, self._writer), cast(Reader, self._reader)
        self._writes = JobThread(
            "tokenwire-write",
            writer.work,
            on_done=self._committed,
            rest=writer.rest,
            deadline=self._deadline,
        )
        self._reads = JobThread(
            "tokenwire-read",
            reader.work,
            poll=reader.poll,
            idle=POLL_SECONDS,
            deadline=self._deadline,
        )
        self._reads.set_polling(bool(self._tails))
        # A process beside others may have been killed before it emptied what it had erased. (Of
        # the only one nothing is left there: the first connection was closed.)
        if has_wal:
            self._empty_wal_soon()
        self._tails.intake.open()

    def _connect(self, writer: bool) -> sqlite3.Connection:
        return connect(self.path, writer=writer, synchronous=self._synchronous, busy=self._busy)

    def _open(self) -> bool:
        """Open the file; whether its write-ahead log has anything."""
        prepare(self.path)
        try:
            connection = self._connect(True)
            try:
                migrate(connection, self.path, upgrade=self._upgrade)
            finally:
                connection.close()
            hearing = Hearing(self._tails.awaited(), self._foreign)
            self._writer = Writer(
                lambda: self._connect(True),
                self.path,
                synchronous=self._synchronous,
                busy=self._busy,
                clock=self._clock,
                hearing=hearing,
            )
            self._reader = Reader(
                lambda: self._connect(False), self.path, hearing=hearing, writer=self._writer
            )
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_CANTOPEN:
                raise ConfigError(f"cannot open the store file {self.path}") from error
            raise explain(error, self.path) from error
        wal = Path(f"{self.path}-wal")
        return wal.exists() and wal.stat().st_size > 0

    async def close(self) -> None:
        """Commit what was given, close the file. Logs stay."""
        if self._wal_timer is not None:
            self._wal_timer.cancel()
        if self._wal_task is not None:
            await asyncio.wait([self._wal_task])
            if self._wal_timer is not None:
                self._wal_timer.cancel()
        if self._reads is not None:
            await self._reads.close()
        if self._writes is not None:
            self._tails.close()
            await self._writes.close()
        reader, self._reader = self._reader, None
        writer, self._writer = self._writer, None
        if reader is not None:
            await asyncio.to_thread(reader.close)
        if writer is not None:
            try:
                await asyncio.to_thread(writer.close)
            except (sqlite3.Error, LogError) as error:
                raise StoreUnavailableError("the store could not be closed cleanly") from error

    # Wake-ups: directly after our own commits, within one poll after those of others.

    def _committed(self, jobs: list[Job], results: Sequence[Any]) -> None:
        tails = self._tails
        if not tails:
            return
        called: dict[str, tuple[int, list[bytes]]] = {}
        awaited: dict[str, tuple[int, list[bytes]]] = {}
        for job, result in zip(jobs, results, strict=True):
            if type(job) is BatchJob and type(job.future) is Landing and job.future.is_late:
                job.future.set_result(result)
            if type(job) is not AppendJob or job.log not in tails:
                continue
            if isinstance(result, Appended) and result.status == "ok":
                tails.accepted(job.log, job.records, result.tail, job.close)
                touched = called if type(job.future) is Callback else awaited
                is_plain = job.close is None and job.log not in touched
                touched[job.log] = result.tail, job.records if is_plain else []
            else:
                tails.forget(job.log)
        self._wake_readers(called)
        if awaited:
            # In the turn in which the tasks that append go on, and not one before: else the token
            # after this one finds its task asleep, and goes a longer way.
            asyncio.get_running_loop().call_soon(self._wake_readers, awaited)

    def _wake_readers(self, touched: dict[str, tuple[int, list[bytes]]]) -> None:
        for log, (tail, records) in touched.items():
            if len(records) == 1:
                self._tails.grown_by(log, tail, records[0])
            else:
                self._tails.grown(log)

    def _foreign(self, touched: set[int] | None, appends: list[Heard]) -> None:
        if self._reads is not None:
            self._reads.tell(self._wake_foreign, touched, appends)

    def _wake_foreign(self, touched: set[int] | None, appends: list[Heard]) -> None:
        tails = self._tails
        tails.hear(appends)
        for log in tails.logs() if touched is None else tails.logs_of(touched, name_hash):
            tails.forget(log)
            tails.wake(log)

    def subscribe(
        self, log: str, wake: Wake, *, appends: bool = True, take: Take | None = None
    ) -> Callable[[], None]:
        if self._reads is not None:
            self._reads.set_polling(True)
        return cast(
            "Callable[[], None]", self._tails.subscribe(log, wake, appends=appends, take=take)
        )

    def _unsubscribed(self, log: str, is_last: bool) -> None:
        if not self._tails and self._reads is not None:
            self._reads.set_polling(False)

    # Jobs for the two threads.

    async def _write(self, act: Callable[[Writer], Any], log: str | None = None) -> Any:
        if self._writes is None:
            raise StoreUnavailableError("the store has not been started")
        self._tails.hand_over()
        result = await self._writes.ask(Job(lambda _: act(cast(Writer, self._writer))))
        if log is not None:
            self._tails.forget(log)
            self._tails.wake(log)
        return result

    async def _read(self, act: Callable[[Reader], Any]) -> Any:
        if self._reads is None:
            raise StoreUnavailableError("the store has not been started")
        return await self._reads.ask(Job(act))

    async def create(
        self,
        log: str,
        *,
        owner: str,
        meta: bytes = b"",
        thread: str | None = None,
        key: str | None = None,
        key_hash: str = "",
        lease: float = 15.0,
        shared: bool = False,
    ) -> LogInfo:
        return await self._write(lambda w: w.create(log, owner, meta, thread, key, key_hash, lease))

    async def append(
        self,
        log: str,
        *,
        epoch: int,
        first: int,
        records: list[bytes],
        close: str | None = None,
        durable: bool = False,
    ) -> Appended:
        if first < 1:
            raise ValueError("offsets start at 1")
        if self._writes is None:
            raise StoreUnavailableError("the store has not been started")
        self._tails.retire(log)
        return await self._writes.ask(AppendJob(log, epoch, first, records, close, durable))

    def append_soon(
        self, log: str, *, epoch: int, first: int, records: list[bytes], then: Then
    ) -> bool:
        """Hand an append to the writer thread; ``then`` is called after the commit that holds it,
        with None, or with what stood in the way."""
        if self._writes is None:
            return False
        if first > 0 and records and self._tails.append(log, epoch, first, records, then):
            return True
        self._tails.retire(log)
        self._writes.submit(AppendJob(log, epoch, first, records, None, False), Callback(then))
        return True

    def tape(self, log: str) -> Spool | None:
        """See `Taped`. Who makes `append_soon` another function is called for every append."""
        is_ours = self.append_soon == _append_soon.__get__(self)
        return self._tails.spool(log) if is_ours else None

    def _carry(self, batch: Batch) -> None:
        """Give a group of what was appended by hand to the writer thread."""
        writer, tails = self._writer, self._tails
        if self._writes is None or writer is None:
            raise StoreUnavailableError("the store has not been started")
        beside, self._foreign_before = writer.foreign - self._foreign_before, writer.foreign
        tails.beside = (tails.beside + beside) / 2 if beside or tails.beside > 1 else 0.0
        self._writes.submit(BatchJob(batch.items), Landing(tails, batch))

    def read_now(
        self, log: str, *, after: int = 0, most: int = 512, most_bytes: int = 1 << 20
    ) -> Page | None:
        """The page where it is at hand; None: ask `read`."""
        return self._tails.page(log, after, most, most_bytes)

    async def read(
        self,
        log: str,
        *,
        after: int = 0,
        most: int = 512,
        most_bytes: int = 1 << 20,
        fresh: bool = False,
    ) -> Page:
        page = None if fresh else self._tails.page(log, after, most, most_bytes)
        if page is not None:
            return page
        return await self._read(lambda r: r.read(log, after, most, most_bytes))

    async def describe(self, log: str) -> LogInfo:
        return await self._read(lambda r: r.describe(log))

    async def claim(self, log: str, *, owner: str, lease: float = 15.0) -> Claim | None:
        stale = self._watch.stale.get(log)
        return await self._write(lambda w: w.claim(log, owner, lease, stale), log)

    async def renew(self, logs: dict[str, int], *, owner: str, lease: float = 15.0) -> set[str]:
        leases = dict(logs)
        losses: set[str] = await self._write(lambda w: w.renew(leases, owner, lease))
        for log in losses:
            self._tails.retire(log)
        return losses

    async def release(self, log: str, *, epoch: int, handed_over: bool = False) -> None:
        self._tails.retire(log)
        await self._write(lambda w: w.release(log, epoch, handed_over))

    async def orphans(self, *, most: int = 100, lease: float = 15.0) -> list[str]:
        now = self._clock()
        orphans = await self._read(lambda r: r.orphans(now, most))
        distant = await self._read(lambda r: r.leases_beyond(now + lease, WATCHED))
        return [*orphans, *self._watch.look(distant, lease)][:most]

    async def owners(self) -> set[str]:
        return await self._read(lambda r: r.owners(self._clock()))

    async def leases(self, owners: Set[str], *, most: int = 1000) -> list[tuple[str, int]]:
        return await self._read(lambda r: r.leases(owners, self._clock(), most))

    async def command(self, log: str, data: bytes) -> None:
        await self._write(lambda w: w.command(log, data), log)

    async def commands(self, log: str, *, after: int = 0) -> list[tuple[int, bytes]]:
        return await self._read(lambda r: r.commands(log, after))

    async def mailboxes(self, places: Mapping[str, int]) -> dict[str, list[tuple[int, bytes]]]:
        return await self._read(lambda r: r.mailboxes(places))

    async def named(self, key: str) -> str | None:
        return await self._read(lambda r: r.named(key))

    async def thread(self, thread: str, *, most: int = 100, before: str = "") -> list[str]:
        return await self._read(lambda r: r.thread(thread, most, before))

    async def set_document(self, kind: str, name: str, data: bytes | None) -> None:
        await self._write(lambda w: w.set_document(kind, name, data))
        if data is None:
            self._empty_wal_soon()

    async def swap_document(
        self, kind: str, name: str, old: bytes | None, new: bytes | None
    ) -> bool:
        is_new = await self._write(lambda w: w.swap_document(kind, name, old, new))
        if is_new and old is not None:
            self._empty_wal_soon()
        return is_new

    async def document(self, kind: str, name: str) -> bytes | None:
        return await self._read(lambda r: r.document(kind, name))

    async def count_documents(self, kind: str, *, prefix: str = "") -> int:
        return await self._read(lambda r: r.count_documents(kind, prefix))

    async def documents(
        self, kind: str, *, prefix: str = "", most: int = 1000, after: str | None = None
    ) -> dict[str, bytes]:
        return await self._read(lambda r: r.documents(kind, prefix, most, after))

    async def delete(self, log: str) -> None:
        self._tails.retire(log)
        await self._write(lambda w: w.delete(log), log)
        self._empty_wal_soon()

    async def expire(self, *, retention: float, sweeper: Sweeper | None = None) -> int:
        count = await expire(self, retention, sweeper)
        await self._write(lambda w: w.forget_names(self._clock() - KEEP_NAMES_SECONDS))
        await self._give_back()
        return count

    async def due(self, retention: float, most: int) -> list[Due]:
        return await self._read(lambda r: r.due(self._clock() - retention, most))

    async def erase_due(self, due: list[Due], retention: float) -> list[Due]:
        erased = await self._write(lambda w: w.erase_due(due, self._clock() - retention))
        if erased:  # here, as what follows it may fail
            self._empty_wal_soon()
        for one in erased:
            for log in one.logs:
                self._tails.forget(log)
                self._tails.wake(log)
        return erased

    async def postpone(self, due: list[Due], retention: float, seconds: float) -> None:
        await self._write(lambda w: w.postpone(due, self._clock() - retention + seconds))

    async def _give_back(self) -> None:
        """Give free pages back to the file system, a little at a time, for about a second."""
        for _ in range(VACUUMS):
            if not await self._maintain(lambda w: w.vacuum(VACUUM_SECONDS)):
                return

    async def _maintain(self, act: Callable[[Writer], Any]) -> Any:
        if self._writes is None:
            raise StoreUnavailableError("the store has not been started")
        cast(Writer, self._writer).has_maintenance = True
        return await self._writes.ask(Maintenance(lambda _: act(cast(Writer, self._writer))))

    def _empty_wal_soon(self, seconds: float | None = None) -> None:
        if self._wal_since is None:
            self._wal_since = self._clock()
        if self._wal_timer is None and self._writes is not None:
            loop = asyncio.get_running_loop()
            seconds = WAL_SECONDS if seconds is None else seconds
            self._wal_timer = loop.call_later(seconds, self._start_emptying)

    def _start_emptying(self) -> None:
        self._wal_timer = None
        self._wal_task = asyncio.ensure_future(self._empty_wal())

    async def _empty_wal(self) -> None:
        since = self._wal_since
        try:
            emptied = await self._maintain(lambda w: w.empty_wal())
        except LogError as error:
            _log.warning("the write-ahead log could not be emptied: %s", error)
            emptied = False
        if emptied and self._wal_since == since:
            self._wal_since = None
        elif self._wal_since is not None:
            self._empty_wal_soon(WAL_PAUSE)

    async def probe(self) -> None:
        await self._probe.get()

    async def _try_to_write(self) -> None:
        try:
            await self._write(lambda w: w.probe())
        except OSError as error:  # pragma: no cover - the thread answers with errors of ours
            raise StoreUnavailableError("the store does not take a write") from error

    async def stats(self) -> dict[str, Any]:
        counts = await self._read(lambda r: r.stats())
        notes = []
        if self.durability == "process":
            notes.append("synchronous=normal: a power cut may lose the last second of tokens.")
        waiting = 0.0 if self._wal_since is None else self._clock() - self._wal_since
        return {
            "store": "sqlite",
            "durability": self.durability,
            **counts,
            "erased_in_wal_seconds": max(0.0, waiting),
            "notes": notes,
        }


_append_soon = SQLiteStore.append_soon
