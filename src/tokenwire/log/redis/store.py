"""The log in Redis or Valkey (7.0 and newer): for many processes on many machines.

Always true: what one log needs to be right (records, epoch, owner, end) lies in one slot and
changes in one script; indexes (threads, keys, leases) lie elsewhere, are written first, and count
only as hints to what the log itself says. Pub/sub wakes readers; the truth is read.
"""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import Callable, Mapping, Set
from typing import Any, cast

import msgspec

from tokenwire.errors import LogError, StoreFullError
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
from tokenwire.log.expiry import expire
from tokenwire.log.recent import Recent
from tokenwire.log.redis.appending.append import Appends
from tokenwire.log.redis.appending.calls import APPEND, END, Head
from tokenwire.log.redis.appending.owned import Owned
from tokenwire.log.redis.appending.spools import RedisSpools
from tokenwire.log.redis.check import REHEARSER, check_store, rehearse
from tokenwire.log.redis.claims import claim
from tokenwire.log.redis.create import Creations
from tokenwire.log.redis.described import info_of, key_of, thread_of
from tokenwire.log.redis.index import INDEX, Index
from tokenwire.log.redis.link import Link
from tokenwire.log.redis.owner import OWNER, Owner
from tokenwire.log.redis.presence import FOLLOW, Presence
from tokenwire.log.redis.read import READ, Reads
from tokenwire.log.redis.upkeep.counts import counts_of
from tokenwire.log.redis.upkeep.expiry import AT_ONCE, KEEP_NAMES_MS, Expiry, gather
from tokenwire.log.redis.upkeep.losses import Losses
from tokenwire.log.redis.upkeep.mailbox import Mailboxes
from tokenwire.log.redis.upkeep.parts import Parts
from tokenwire.log.redis.upkeep.quiet import QuietLogs
from tokenwire.log.redis.upkeep.renewal import Renewals
from tokenwire.log.redis.url import parse_url
from tokenwire.log.redis.wake import WakeRouter
from tokenwire.log.spool import Spool

__all__ = ["RedisStore"]


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
        self._tails = RedisSpools()
        self._tails.ended = self._unsubscribed
        self._probe = Recent(self._try_to_write)
        self._quiet: QuietLogs | None = None
        self._owned: dict[str, Owned] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        # In a cluster a call may touch one slot only, so every append looks at its owner.
        is_cluster = self._settings.kind == "cluster"
        fence = None if is_cluster else f"{self._prefix}:{{fence}}:index"
        self._owner = Owner(self._link, self._key, self._ttl, self._publish, fence)
        self._expiry = Expiry(self._index, self._owner, self._owned)
        self._creations = Creations(
            self._index, self._owner, self._owned, self._expiry.erase, self._keep_soon
        )
        parts = self._link, self._key, self._owner, self._index, self._expiry, self._owned
        self._parts = Parts(*parts)
        self._mailboxes = Mailboxes(self._parts)
        self._losses = Losses(self._parts, self._creations, self._tails)
        self._reads = Reads(self._link, self._key, self._losses)
        self._appends = Appends(
            *(self._link, self._key, self._owned, self._tails, self._head()),
            *(self._losses.restore, self._owner),
        )
        self._renewals = Renewals(self._parts, self._losses)
        self._presence = Presence(self._link, self._key, self._owned, self._publish)
        self._router = WakeRouter(self._link, self._key, touched=self._touched)

    def _head(self) -> Head:
        index = self._index
        return (self._ttl, KEEP_NAMES_MS, self._publish, index.ended_ttl, index.kept_ttl)

    def retain(self, seconds: float) -> None:
        self._expiry.retain(seconds)
        self._appends.set_head(self._head())

    async def start(self) -> None:
        """Connect; refuse a store that keeps less than it should, or where a right is lacking."""
        if self._quiet is not None:
            return
        await self._link.connect(check_store)
        self.durability = self._link.durability
        name = f"start-{secrets.token_hex(8)}"
        key = self._key(name, "meta")
        try:
            await rehearse(self, name)
            await self._link.command(key, "DEL", key)
            await self._index.disremember(name)
            await self._index.forget_owner(REHEARSER)
        except BaseException:
            await self._router.close()
            await self._link.close()
            raise
        self._link.started = True
        await self._losses.note()
        self._quiet = QuietLogs(
            self._link,
            lambda log: self._key(log, "meta"),
            names=self._tails.logs,
            on_lost=self._lost,
        )

    async def close(self) -> None:
        """Finish what was given and disconnect. Logs stay."""
        self._tails.close()
        await self._appends.drain()
        await self._reads.drain()
        if self._tasks:
            await asyncio.wait(self._tasks)
        quiet, self._quiet = self._quiet, None
        if quiet is not None:
            await quiet.close()
        await self._router.close()
        await self._presence.close()
        await self._link.close()

    # Names. The braces put all keys of a log into one slot.

    def _key(self, log: str, what: str) -> str:
        name = log.replace("%", "%25").replace("{", "%7B").replace("}", "%7D")
        return f"{self._prefix}:{{{name}}}:{what}"

    async def _apart(self, work: Any) -> Any:
        """Run ``work`` in a task of its own: a cancelled caller must not break a connection."""
        return await asyncio.shield(self._spawn(work))

    def _keep_soon(self, thread: str) -> None:
        """Keep a conversation alive, beside what is under way."""
        self._spawn(self._keep(thread))

    def _spawn(self, work: Any) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _keep(self, thread: str) -> None:
        try:
            await self._expiry.keep(thread)
        except LogError:
            self._index.missed += 1  # the next use of it tries again

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

        async def work() -> LogInfo:
            await self._index.note_owner(owner)
            return await self._creations.create(log, owned, key_hash, shared)

        return await self._apart(work())

    async def describe(self, log: str) -> LogInfo:
        answer = await self._apart(self._owner(log, "describe"))
        if answer[0] != "ok":
            raise await self._losses.error(log, answer[0])
        info = info_of(log, answer)
        return msgspec.structs.replace(info, bytes=self._bytes(log, info.bytes))

    def _bytes(self, log: str, noted: int) -> int:
        """The bytes of a log, of which ``noted`` are noted in Redis."""
        owned = self._owned.get(log)
        return noted if owned is None else max(noted, owned.bytes)

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
        self._tails.retire(log)
        owned = self._owned.get(log)
        future: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()
        self._appends.give(log, epoch, first, records, close, future=future)
        try:
            outcome = await future
        except StoreFullError:
            if close is None:
                raise
            outcome = await self._appends.end(log, epoch, first, records, close)
        if close is not None and outcome.status == "ok":
            await self._apart(self._closed(log, owned))
        return outcome

    async def _closed(self, log: str, owned: Owned | None) -> None:
        if owned is not None:
            await self._index.closed(log, owned.key, owned.thread)
            return
        answer = await self._owner(log, "describe")
        if answer[0] == "ok":
            await self._index.closed(log, key_of(answer), thread_of(answer))

    def append_soon(
        self, log: str, *, epoch: int, first: int, records: list[bytes], then: Then
    ) -> bool:
        """Send an append with the others of this turn; ``then`` hears of its answer."""
        if first > 0 and records and self._tails.append(log, epoch, first, records, then):
            return True
        self._tails.retire(log)
        self._appends.give(log, epoch, first, records, None, then)
        return True

    def tape(self, log: str) -> Spool | None:
        """See `Taped`. Who makes `append_soon` another function is called for every append."""
        is_ours = self.append_soon == _append_soon.__get__(self)
        return self._tails.spool(log) if is_ours else None

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

    def subscribe(
        self, log: str, wake: Wake, *, appends: bool = True, take: Take | None = None
    ) -> Callable[[], None]:
        new = log not in self._tails
        end = self._tails.subscribe(log, wake, appends=appends, take=take)
        if new:
            self._router.listen(log, "control" if log in self._owned else "live")
        return cast("Callable[[], None]", end)

    def _unsubscribed(self, log: str, is_last: bool) -> None:
        if is_last:
            self._router.unlisten(log)

    def _touched(self, log: str, message: bytes) -> None:
        word, _, rest = message.partition(b" ")
        if rest and word.isdigit():  # another process appended this record, at this offset
            self._tails.hear([(log, int(word) - 1, [rest])])
            return
        if word == FOLLOW:
            self._presence.add_reader(log)
            return
        if not message:
            self._presence.begin(log)
        kind, nonce = word.decode(), rest.decode()
        owned = self._owned.get(log)
        if owned is not None and (kind == "erase" or (kind == "claim" and nonce != owned.nonce)):
            del self._owned[log]
            self._router.unlisten(log)
            self._router.listen(log, "live")
        self._tails.forget(log)
        self._tails.wake(log)

    def _lost(self, log: str) -> None:
        """Redis has no such log any more, and nobody erased it."""
        if log in self._owned:
            self._spawn(self._losses.settle(log, self._touched))
        else:
            self._touched(log, b"erase")

    def when_put_back(self, call: Callable[[str], None]) -> None:
        self._losses.listeners.append(call)

    # Owners.

    async def claim(self, log: str, *, owner: str, lease: float = 15.0) -> Claim | None:
        result: Claim | None = await self._apart(claim(self._parts, log, owner, lease))
        if result is not None:
            self._tails.forget(log)
        return result

    async def renew(self, logs: dict[str, int], *, owner: str, lease: float = 15.0) -> set[str]:
        work = self._renewals.renew(logs, owner, lease, self._ttl, self._publish)
        losses: set[str] = await self._apart(work)
        for log in losses:
            self._tails.retire(log)
        return losses

    async def release(self, log: str, *, epoch: int, handed_over: bool = False) -> None:
        self._tails.retire(log)

        async def work() -> None:
            owned = self._owned.get(log)
            if owned is not None and owned.epoch == epoch:
                owned.lease_start = -math.inf
            await self._owner(log, "release", epoch, int(handed_over))
            await self._index.release(log)

        await self._apart(work())

    async def owners(self) -> set[str]:
        return await self._apart(self._index.owners())

    async def leases(self, owners: Set[str], *, most: int = 1000) -> list[tuple[str, int]]:
        async def work() -> list[tuple[str, int]]:
            held: list[tuple[str, int]] = []
            async for logs in self._index.leased(AT_ONCE):
                answers = await gather(self._owner(log, "describe") for log in logs)
                for log, answer in zip(logs, answers, strict=True):
                    if answer[0] != "ok" or answer[4] or int(answer[8]) <= int(answer[11]):
                        continue  # gone, closed, or run out by the server's clock
                    if answer[2].decode() in owners:
                        held.append((log, int(answer[1])))
                if len(held) >= most:
                    break
            return held[:most]

        return await self._apart(work())

    async def orphans(self, *, most: int = 100, lease: float = 15.0) -> list[str]:
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
                elif answer[0] == "ok":  # its end was not noted
                    await self._index.closed(log, key_of(answer), thread_of(answer))
                else:
                    await self._index.unmade(log)
                if len(names) >= most:
                    break
            return names

        return await self._apart(work())

    async def command(self, log: str, data: bytes) -> None:
        nonce = secrets.token_hex(8)
        answer = await self._apart(self._owner(log, "command", nonce, data, wait=True))
        if answer[0] != "ok":
            raise await self._losses.error(log, answer[0])

    async def commands(self, log: str, *, after: int = 0) -> list[tuple[int, bytes]]:
        status, commands = await self._apart(self._mailboxes.read(log, after))
        if status != "ok":
            raise await self._losses.error(log, status)
        return cast("list[tuple[int, bytes]]", commands)

    async def mailboxes(self, places: Mapping[str, int]) -> dict[str, list[tuple[int, bytes]]]:
        async def work() -> dict[str, list[tuple[int, bytes]]]:
            calls = (self._mailboxes.read(log, after) for log, after in places.items())
            answers = zip(places, await gather(calls), strict=True)
            return {log: commands for log, (_, commands) in answers if commands}

        return await self._apart(work())

    # Indexes, documents, ends.

    async def named(self, key: str) -> str | None:
        return await self._apart(self._index.named(key))

    async def thread(self, thread: str, *, most: int = 100, before: str = "") -> list[str]:
        async def work() -> list[str]:
            names: list[str] = []
            members = await self._index.members(thread, before)
            for start in range(0, len(members), AT_ONCE):
                part = members[start : start + AT_ONCE]
                answers = await gather(self._owner(log, "describe") for log in part)
                for log, answer in zip(part, answers, strict=True):
                    if answer[0] == "ok" and answer[9].decode() == thread:
                        names.append(log)
                if len(names) >= most:
                    break
            return names[:most]

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

    async def documents(
        self, kind: str, *, prefix: str = "", most: int = 1000, after: str | None = None
    ) -> dict[str, bytes]:
        return await self._apart(self._index.documents(kind, prefix, most, after))

    async def delete(self, log: str) -> None:
        self._tails.retire(log)
        await self._apart(self._expiry.erase(log))
        self._tails.forget(log)
        self._tails.wake(log)

    async def expire(self, *, retention: float, sweeper: Sweeper | None = None) -> int:
        count = await expire(self, retention, sweeper)
        await self._apart(self._expiry.forget_names())
        return count

    async def due(self, retention: float, most: int) -> list[Due]:
        return await self._apart(self._expiry.due(retention, most))

    async def erase_due(self, due: list[Due], retention: float) -> list[Due]:
        return await self._apart(self._expiry.erase_due(due, retention))

    async def postpone(self, due: list[Due], retention: float, seconds: float) -> None:
        await self._apart(self._expiry.postpone(due, retention, seconds))

    async def probe(self) -> None:
        await self._probe.get()

    async def _try_to_write(self) -> None:
        await self._link.command(self._index.probe, "SET", self._index.probe, "1", "PX", 60_000)

    async def stats(self) -> dict[str, Any]:
        counts = await self._apart(counts_of(self._index, self._owner, self._bytes))
        return {
            "store": "redis",
            "durability": self.durability,
            **counts,
            "repeated": self._link.repeated,
            "notes": list(self._link.notes),
        }


_append_soon = RedisStore.append_soon
