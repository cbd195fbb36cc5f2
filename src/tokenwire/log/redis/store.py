"""The log in Redis or Valkey (7.0 and newer): for many processes on many machines.

Always true: what one log needs to be right (records, epoch, owner, end) lies in one slot and
changes in one script; indexes (threads, keys, leases) lie elsewhere, are written first, and count
only as hints to what the log itself says. Pub/sub wakes readers; the truth is read.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import Any

from tokenwire.errors import StoreFullError, TokenwireError
from tokenwire.log.base import (
    Appended,
    Claim,
    Durability,
    LogInfo,
    Page,
    Then,
    Wake,
    private_kind,
)
from tokenwire.log.completion import Callback
from tokenwire.log.recent import Recent
from tokenwire.log.redis.append import APPEND, END, Appends, Owned, missing
from tokenwire.log.redis.check import check_store
from tokenwire.log.redis.create import Creations
from tokenwire.log.redis.described import info_of
from tokenwire.log.redis.index import INDEX, Index
from tokenwire.log.redis.link import Link, Script
from tokenwire.log.redis.quiet import QuietLogs
from tokenwire.log.redis.read import READ, Reads
from tokenwire.log.redis.rehearse import rehearse
from tokenwire.log.redis.url import parse_url
from tokenwire.log.redis.wake import WakeRouter
from tokenwire.log.tail import Tails

__all__ = ["RedisStore"]

OWNER = Script("owner.lua")

#: How long names of expired logs answer "gone" instead of "never was".
KEEP_NAMES_MS = 30 * 86_400_000


#: Seconds that a log is stored beyond the retention, should no server erase it.
RETENTION_SLACK = 600.0

#: Erasures in one sweep: for how long, and how many at a time.
EXPIRE_SECONDS = 20.0
AT_ONCE = 32

#: Logs that are looked at for ``stats()["records"]`` and ``["bytes"]``.
MOST_COUNTED = 200


class RedisStore:
    """A `Store` in Redis; options in the URL are described in `tokenwire.log.redis.url`."""

    shared = True
    rewinds = True
    durability: Durability = "memory"

    def __init__(self, url: str) -> None:
        self._settings = parse_url(url)
        self._prefix = self._settings.prefix
        self._ttl = int(self._settings.ttl * 1000)
        self._publish = "SPUBLISH"
        self._link = Link(self._settings, (APPEND, END, READ, OWNER, INDEX))
        self._index = Index(self._link, self._prefix, self._ttl)
        self._tails = Tails()
        self._reads = Reads(self._link, self._key)
        self._probe = Recent(self._try_to_write)
        self._quiet: QuietLogs | None = None
        self._owned: dict[str, Owned] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        head = (self._ttl, KEEP_NAMES_MS, self._publish, self._ttl)
        self._appends = Appends(
            self._link, self._key, self._owned, self._tails, head, self._restore
        )
        self._creations = Creations(self._index, self._owner, self._owned, self._delete)
        self._router = WakeRouter(self._link, self._key, touched=self._touched)

    def retain(self, seconds: float) -> None:
        self._index.ended_ttl = int((seconds + RETENTION_SLACK) * 1000)
        head = (self._ttl, KEEP_NAMES_MS, self._publish, self._index.ended_ttl)
        self._appends.set_head(head)

    async def start(self) -> None:
        """Connect; refuse a store that evicts, that keeps less than the URL asks for, or where
        this user may not do what is needed."""
        await self._link.connect(check_store)
        self.durability = self._link.durability
        name = f"start-{secrets.token_hex(8)}"
        key = self._key(name, "meta")
        try:
            await rehearse(self, name)
            await self._link.command(key, "DEL", key)
        except BaseException:
            await self._router.close()
            await self._link.close()
            raise
        self._link.started = True
        self._quiet = QuietLogs(
            self._link,
            lambda log: self._key(log, "meta"),
            names=self._tails.logs,
            on_lost=lambda log: self._touched(log, b"erase"),
        )

    async def close(self) -> None:
        """Finish what was given and disconnect. Logs stay."""
        await self._appends.drain()
        await self._reads.drain()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._quiet is not None:
            await self._quiet.close()
        await self._router.close()
        await self._link.close()

    # Names. The braces put all keys of a log into one slot.

    def _key(self, log: str, what: str) -> str:
        name = log.replace("%", "%25").replace("{", "%7B").replace("}", "%7D")
        return f"{self._prefix}:{{{name}}}:{what}"

    async def _apart(self, work: Any) -> Any:
        """Run ``work`` in a task of its own: a cancelled caller must not break a connection."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    async def _owner(self, log: str, operation: str, *values: Any, wait: bool = False) -> Any:
        names = ("meta", "log") if operation == "describe" else ("meta", "log", "commands")
        keys = [self._key(log, name) for name in names]
        channels = [self._key(log, name) for name in ("live", "control")]
        head = [operation, self._ttl, KEEP_NAMES_MS, self._publish, *channels]
        answer, _ = await self._link.run(OWNER, keys, [*head, *values], wait=wait)
        return [part.decode() if index == 0 else part for index, part in enumerate(answer)]

    # Creating.

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
        owned = Owned(owner, secrets.token_hex(8), lease, meta, thread, key)
        return await self._apart(self._creations.create(log, owned, key_hash, shared))

    async def describe(self, log: str) -> LogInfo:
        return info_of(log, await self._apart(self._owner(log, "describe")))

    # Appending: everything that was given in one turn of the loop goes in one script call.

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
        owned = self._owned.get(log)
        item = (log, epoch, first, records, close)
        try:
            outcome = await self._appends.lane(log).ask(item)
        except StoreFullError:
            if close is None:
                raise
            outcome = await self._appends.end(item)
        if close is not None and outcome.status == "ok":
            key = owned.key if owned is not None else None
            await self._apart(self._index.closed(log, key))
        return outcome

    def append_soon(
        self, log: str, *, epoch: int, first: int, records: list[bytes], then: Then
    ) -> bool:
        """Send an append with the others of this turn; ``then`` hears of its answer."""
        item = (log, epoch, first, records, None)
        self._appends.lane(log).submit(item, Callback(then))
        return True

    async def _restore(self, log: str) -> Appended | TokenwireError:
        owned = self._owned.get(log)
        if owned is not None:
            lease = int(owned.lease * 1000)
            values = (owned.owner, owned.nonce, lease, owned.epoch)
            answer = await self._owner(log, "reclaim", *values, wait=True)
            if answer[0] != "ok":
                answer = await self._creations.put(log, owned)
            if answer[0] == "ok":
                await self._index.lease(log, owned.lease)
        answer = await self._owner(log, "describe")
        if answer[0] != "ok":
            return missing(answer[0])
        state = info_of(log, answer)
        ours = owned is not None and state.epoch == owned.epoch and state.owner == owned.owner
        return Appended("gap" if ours else "fenced", state.tail, state.epoch)

    # Reading.

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
        return await self._reads.page(log, after, most, most_bytes)

    # Waking. The owner's own appends wake directly; it only listens for commands and claims.

    def subscribe(self, log: str, wake: Wake, *, appends: bool = True) -> Callable[[], None]:
        new = log not in self._tails
        end = self._tails.subscribe(log, wake, appends=appends)
        if new:
            self._router.listen(log, "control" if log in self._owned else "live")

        def unsubscribe() -> None:
            if end():
                self._router.unlisten(log)

        return unsubscribe

    def _touched(self, log: str, message: bytes) -> None:
        kind, _, nonce = message.decode().partition(" ")
        owned = self._owned.get(log)
        if owned is not None and (kind == "erase" or (kind == "claim" and nonce != owned.nonce)):
            del self._owned[log]
            self._router.unlisten(log)
            self._router.listen(log, "live")
        self._tails.forget(log)
        self._tails.wake(log)

    # Owners.

    async def claim(self, log: str, *, owner: str, lease: float = 15.0) -> Claim | None:
        return await self._apart(self._claim(log, owner, lease))

    async def _claim(self, log: str, owner: str, lease: float) -> Claim | None:
        nonce = secrets.token_hex(8)
        answer = await self._owner(log, "claim", owner, nonce, int(lease * 1000), wait=True)
        if answer[0] != "ok":
            return None
        await self._index.lease(log, lease)
        state = info_of(log, await self._owner(log, "describe"))
        self._owned[log] = Owned(owner, nonce, lease, state.meta, state.thread, None, answer[1])
        self._tails.forget(log)
        return Claim(log, answer[1], answer[2], handed_over=answer[3] == b"1")

    async def renew(self, logs: dict[str, int], *, owner: str, lease: float = 15.0) -> set[str]:
        async def one(log: str, epoch: int) -> str | None:
            answer = await self._owner(log, "renew", epoch, owner, int(lease * 1000))
            if answer[0] != "ok":
                self._owned.pop(log, None)
                return log
            await self._index.lease(log, lease)
            return None

        async def all_of_them() -> set[str]:
            losses: set[str | None] = set()
            names = list(logs.items())
            for start in range(0, len(names), AT_ONCE):
                part = names[start : start + AT_ONCE]
                losses.update(await asyncio.gather(*(one(name, epoch) for name, epoch in part)))
            return {name for name in losses if name is not None}

        return await self._apart(all_of_them())

    async def release(self, log: str, *, epoch: int, handed_over: bool = False) -> None:
        async def work() -> None:
            await self._owner(log, "release", epoch, int(handed_over))
            await self._index.release(log)

        await self._apart(work())

    async def leases(self, *, most: int = 1000) -> list[tuple[str, int, str]]:
        return []  # owners may be on any machine: only their leases tell

    async def orphans(self, *, most: int = 100) -> list[str]:
        async def work() -> list[str]:
            names: list[str] = []
            for log in await self._index.overdue(most * 2):
                answer = await self._owner(log, "describe")
                if answer[0] == "ok" and not answer[4]:
                    remaining = (int(answer[8]) - int(answer[11])) / 1000  # by the server's clock
                    if remaining <= 0:
                        names.append(log)
                    else:
                        await self._index.lease(log, remaining)
                else:
                    await self._index.settle(log, ended=answer[0] == "ok")
                if len(names) >= most:
                    break
            return names

        return await self._apart(work())

    async def command(self, log: str, data: bytes) -> None:
        nonce = secrets.token_hex(8)
        answer = await self._apart(self._owner(log, "command", nonce, data, wait=True))
        if answer[0] != "ok":
            raise missing(answer[0])

    async def commands(self, log: str, *, after: int = 0) -> list[tuple[int, bytes]]:
        answer = await self._apart(self._owner(log, "commands", after))
        if answer[0] != "ok":
            raise missing(answer[0])
        return list(enumerate(answer[1], after + 1))

    # Indexes, documents, ends.

    async def named(self, key: str) -> str | None:
        return await self._apart(self._index.named(key))

    async def thread(self, thread: str, *, most: int = 100, before: str = "") -> list[str]:
        async def work() -> list[str]:
            names: list[str] = []
            for log in await self._index.members(thread, before):
                answer = await self._owner(log, "describe")
                if answer[0] == "ok" and answer[9].decode() == thread:
                    names.append(log)
                if len(names) >= most:
                    break
            return names

        return await self._apart(work())

    async def set_document(self, kind: str, name: str, data: bytes | None) -> None:
        await self._apart(self._index.set_document(kind, name, data))

    async def swap_document(
        self, kind: str, name: str, old: bytes | None, new: bytes | None
    ) -> bool:
        return await self._apart(self._index.swap_document(kind, name, old, new))

    async def document(self, kind: str, name: str) -> bytes | None:
        return await self._apart(self._index.document(kind, name))

    async def count_documents(self, kind: str, *, prefix: str = "") -> int:
        return await self._apart(self._index.count_documents(kind, prefix))

    async def documents(self, kind: str, *, prefix: str = "", most: int = 1000) -> dict[str, bytes]:
        return await self._apart(self._index.documents(kind, prefix, most))

    async def _delete(self, log: str, mark: str = "deleted") -> bool:
        answer = await self._owner(log, "erase", mark, wait=True)
        self._owned.pop(log, None)
        await self._index.forget(log)
        await self._index.drop_documents(private_kind(log))
        if answer[0] != "ok":
            return False
        _, thread, key = (part.decode() if isinstance(part, bytes) else part for part in answer)
        if thread:
            await self._index.leave(thread, log)
        if key:
            await self._index.drop_key_of(key, log)
        return True

    async def delete(self, log: str) -> None:
        await self._apart(self._delete(log))
        self._tails.forget(log)
        self._tails.wake(log)

    async def expire(self, *, retention: float) -> int:
        """Erase what is due, for up to `EXPIRE_SECONDS`: the next call goes on with the rest."""

        async def work() -> int:
            loop = asyncio.get_running_loop()
            end = loop.time() + EXPIRE_SECONDS
            count = 0
            while old := await self._index.ended(retention):
                for start in range(0, len(old), AT_ONCE):
                    part = old[start : start + AT_ONCE]
                    count += sum(await asyncio.gather(*(self._delete(n, "gone") for n in part)))
                if loop.time() > end:
                    break
            return count

        return await self._apart(work())

    async def probe(self) -> None:
        await self._probe.get()

    async def _try_to_write(self) -> None:
        await self._link.command(self._index.probe, "SET", self._index.probe, "1", "PX", 60_000)

    async def stats(self) -> dict[str, Any]:
        counts = await self._apart(self._counts())
        return {
            "store": "redis",
            "durability": self.durability,
            **counts,
            "repeated": self._link.repeated,
            "notes": list(self._link.notes),
        }

    async def _counts(self) -> dict[str, Any]:
        still_open, ended = await self._index.counts()
        counts = {"streams": still_open + ended, "open": still_open, "records": 0, "bytes": 0}
        logs = await self._index.some(MOST_COUNTED)
        answers = await asyncio.gather(*(self._owner(log, "describe") for log in logs))
        for answer in answers:
            if answer[0] == "ok":
                counts["records"] += answer[3]
                counts["bytes"] += int(answer[7])
        return counts
