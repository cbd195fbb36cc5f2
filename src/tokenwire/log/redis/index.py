"""What lies beside the logs in Redis: leases by time, ends by time, threads, keys, documents.

Always true: an entry here may be stale or too many, and is checked against its log; it is
written before what it points at, so that one that counts is never missing.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import AsyncIterator
from typing import Any

from tokenwire.errors import LogError
from tokenwire.log.base import FOR_GOOD, PRIVATE
from tokenwire.log.redis.connection import Word
from tokenwire.log.redis.link import Link, Script

__all__ = ["INDEX", "Index"]

INDEX = Script("index.lua")

#: Sets of leases and of ends, spread so that a cluster spreads their load.
SHARDS = 16

#: A lease without a log is a creation under way, or one that failed this long ago.
UNMADE_SECONDS = 60.0

#: An owner is noted so often, and counts for so long: longer than any lease.
NOTE_SECONDS, OWNER_SECONDS = 60.0, 3600.0


class Index:
    """Commands on the index keys; all of them may be repeated."""

    def __init__(self, link: Link, prefix: str, ttl: int) -> None:
        self._link = link
        self._prefix = prefix
        self._ttl = ttl
        #: Milliseconds that a log and its key are stored after its end; and those of a
        #: conversation, unless it is kept alive.
        self.ended_ttl = self.kept_ttl = ttl
        #: Milliseconds after which a conversation that is used is kept alive again.
        self.mark_ttl = ttl // 4
        #: Index writes that failed; the time to live of the keys makes up for them.
        self.missed = 0
        self._owners_key = f"{prefix}:{{owners}}:index"
        #: When an owner of this process is to be noted again; monotonic seconds.
        self._owners: dict[str, float] = {}

    @property
    def probe(self) -> str:
        """The key that is written to see whether the store takes writes."""
        return f"{self._prefix}:{{probe}}:probe"

    async def _run(self, command: str, key: str, *words: Word) -> Any:
        return await self._link.command(key, command, key, *words)

    def _shard(self, what: str, number: int) -> str:
        return f"{self._prefix}:{{{what}-{number}}}:index"

    def _of(self, what: str, log: str) -> str:
        return self._shard(what, zlib.crc32(log.encode()) % SHARDS)

    # Leases and ends.

    async def _script(self, operation: str, key: str, *values: Word) -> Any:
        answer, _ = await self._link.run(INDEX, [key], [operation, *values])
        return answer

    async def lease(self, log: str, seconds: float) -> None:
        """The lease of a log ends in so many seconds, by the clock of the server."""
        await self._script("lease", self._of("leases", log), log, seconds, "")

    async def leases(self, logs: list[str], seconds: float) -> None:
        """The same of many logs."""
        shards: dict[str, list[str]] = {}
        for log in logs:
            shards.setdefault(self._of("leases", log), []).append(log)
        calls = [INDEX.call([key], ["leases", seconds, *names]) for key, names in shards.items()]
        if self._link.settings.kind != "cluster":
            await self._link.send_all(list(shards), calls)
            return
        for key, call in zip(shards, calls, strict=True):
            await self._link.send(key, call)

    async def first_lease(self, log: str, seconds: float) -> None:
        """For a log about to be made; one that exists keeps the lease that it has."""
        await self._script("lease", self._of("leases", log), log, seconds, "NX")

    async def unlease(self, log: str) -> None:
        """For a log that nobody owns any more."""
        await self._run("ZREM", self._of("leases", log), log)

    async def release(self, log: str) -> None:
        await self._run("ZADD", self._of("leases", log), "XX", 0, log)

    async def note_owner(self, owner: str) -> None:
        """Note that a process owns logs; never fails it: without the note its leases decide."""
        now = time.monotonic()
        if now < self._owners.get(owner, 0.0):
            return
        try:
            await self._script("use", self._owners_key, owner)
            await self._script("past", self._owners_key, OWNER_SECONDS)
        except LogError:
            self.missed += 1
            return
        self._owners[owner] = now + NOTE_SECONDS

    async def forget_owner(self, owner: str) -> None:
        """For one that owns nothing any more."""
        self._owners.pop(owner, None)
        await self._run("ZREM", self._owners_key, owner)

    async def owners(self) -> set[str]:
        """The processes that may own logs."""
        names = await self._run("ZRANGE", self._owners_key, 0, -1)
        return {name.decode() for name in names}

    async def leased(self, at_once: int) -> AsyncIterator[list[str]]:
        """Logs with a lease that somebody has to renew, whether it has run out or not, so many at
        a time."""
        most = time.time() + FOR_GOOD
        for number in range(SHARDS):
            names = await self._run("ZRANGEBYSCORE", self._shard("leases", number), "-inf", most)
            for start in range(0, len(names), at_once):
                yield [name.decode() for name in names[start : start + at_once]]

    async def closed(self, log: str, key: str | None, thread: str | None) -> None:
        """Note the end of a log, and when its idempotency key ends; never fails it: keys have a
        time to live of their own."""
        try:
            if thread is not None:
                await self.use(thread)
            await self._script("ended", self._of("ended" if thread is None else "kept", log), log)
            await self._run("ZREM", self._of("leases", log), log)
            if key is not None:
                life = self.ended_ttl if thread is None else self.kept_ttl
                await self.keep_key(key, life)
        except LogError:
            self.missed += 1

    async def adopt(self, log: str, at: float) -> None:
        """A log of a conversation, noted as one alone, ended at the server's Unix time ``at``."""
        await self._run("ZADD", self._of("kept", log), f"{at:.6f}", log)
        await self._run("ZREM", self._of("ended", log), log)

    async def unmade(self, log: str) -> None:
        """Put right what a crash left: the log of this lease never was, or is gone."""
        await self._script("drop old", self._of("leases", log), log, UNMADE_SECONDS)

    async def forget(self, log: str) -> None:
        for what in ("leases", "ended", "kept"):
            await self._run("ZREM", self._of(what, log), log)

    async def _due(self, what: str, seconds: float, most: int) -> list[str]:
        names: list[str] = []
        for number in range(SHARDS):
            batch = await self._script("due", self._shard(what, number), seconds, most)
            names += [name.decode() for name in batch]
            if len(names) >= most:
                break
        return names

    async def overdue(self, most: int) -> list[str]:
        return await self._due("leases", 0.0, most)

    async def ended(self, seconds: float, most: int = 1000) -> list[str]:
        """Logs that ended so many seconds ago, or before."""
        return await self._due("ended", seconds, most)

    async def idle(self, seconds: float, most: int) -> list[str]:
        """Conversations that were used so many seconds ago, or before; as hints."""
        return await self._due("threads", seconds, most)

    async def is_idle(self, thread: str, seconds: float) -> bool:
        """Whether a conversation was used so many seconds ago, or before."""
        return bool(await self._script("is old", self._of("threads", thread), thread, seconds))

    async def put_off(self, log: str | None, thread: str | None, seconds: float) -> None:
        """An ended log, or a conversation, counts as of so many seconds ago."""
        key = self._of("threads", thread) if thread is not None else self._of("ended", log or "")
        await self._script("put off", key, thread if thread is not None else log or "", seconds)

    async def counts(self) -> tuple[int, int, int]:
        """How many logs are open, how many have ended, and how many names of erased ones are
        remembered."""
        kinds = ("leases", "ended", "kept", "gone")
        shards = [self._shard(what, n) for what in kinds for n in range(SHARDS)]
        sizes = await asyncio.gather(*(self._run("ZCARD", shard) for shard in shards))
        still_open, alone, members, names = (
            sum(sizes[n * SHARDS : (n + 1) * SHARDS]) for n in range(4)
        )
        return still_open, alone + members, names

    # Names of erased logs: each has a key of its own, with a time to live.

    async def remember(self, log: str) -> None:
        await self._script("ended", self._of("gone", log), log)

    async def disremember(self, log: str) -> None:
        await self._run("ZREM", self._of("gone", log), log)

    async def too_many_names(self, seconds: float, most: int) -> list[str]:
        """Drop entries that are so old; some of the oldest where there are more than ``most``."""
        names: list[bytes] = []
        for number in range(SHARDS):
            shard = self._shard("gone", number)
            await self._script("past", shard, seconds)
            excess = await self._run("ZCARD", shard) - most // SHARDS
            if excess > 0:
                names += await self._run("ZRANGE", shard, 0, min(excess, 1000) - 1)
        return [name.decode() for name in names]

    async def some(self, most: int) -> list[str]:
        """Up to ``most`` logs, for figures."""
        forever = -1e12
        names = await self._due("leases", forever, most)
        for what in ("ended", "kept"):
            names += await self._due(what, forever, max(1, most - len(names)))
        return names

    # Threads.

    def _thread(self, thread: str) -> str:
        return f"{self._prefix}:{{thread:{_safe(thread)}}}:streams"

    def _mark(self, thread: str) -> str:
        return f"{self._prefix}:{{thread:{_safe(thread)}}}:kept"

    async def use(self, thread: str, at: float | None = None) -> None:
        """A conversation is used now, or was at the server's Unix time ``at``."""
        more = () if at is None else (f"{at:.6f}",)
        await self._script("use", self._of("threads", thread), thread, *more)

    async def join(self, thread: str, log: str) -> bool:
        """Whether the other logs of the conversation are to be kept alive now."""
        keys = [self._thread(thread), self._mark(thread)]
        values = ["join", log, max(self._ttl, self.kept_ttl), self.mark_ttl]
        answer, _ = await self._link.run(INDEX, keys, values)
        return bool(answer)

    async def keep_members(self, thread: str) -> None:
        await self._run("PEXPIRE", self._thread(thread), max(self._ttl, self.kept_ttl))

    async def unmark(self, thread: str) -> None:
        await self._run("DEL", self._mark(thread))

    async def leave(self, thread: str, log: str) -> None:
        """Drop a log of a conversation, and with the last one what is noted of that."""
        await self._run("ZREM", self._thread(thread), log)
        if not await self._run("ZCARD", self._thread(thread)):
            await self._run("ZREM", self._of("threads", thread), thread)
            await self.unmark(thread)

    async def end(self, thread: str, seconds: float) -> None:
        """A conversation without logs that was not used since so many seconds ago is over."""
        await self._script("drop old", self._of("threads", thread), thread, seconds)

    async def members(self, thread: str, before: str = "") -> list[str]:
        start = 0
        if before:
            rank = await self._run("ZREVRANK", self._thread(thread), before)
            if rank is None:
                return []
            start = rank + 1
        names = await self._run("ZREVRANGE", self._thread(thread), start, start + 4999)
        return [name.decode() for name in names]

    # Idempotency keys.

    def _key(self, key: str) -> str:
        return f"{self._prefix}:{{key:{_safe(key)}}}:stream"

    async def take_key(self, key: str, value: bytes, expected: bytes) -> bytes | None:
        """Set ``key`` when it holds ``expected`` (b"" is nothing); what it holds now, if
        anything."""
        answer, _ = await self._link.run(
            INDEX, [self._key(key)], ["key", value, expected, self._ttl], wait=True
        )
        return answer

    async def keep_key(self, key: str, milliseconds: int | None = None) -> None:
        life = self._ttl if milliseconds is None else milliseconds
        await self._run("PEXPIRE", self._key(key), life)

    async def drop_key(self, key: str, value: bytes) -> None:
        await self._link.run(INDEX, [self._key(key)], ["drop", value])

    async def named(self, key: str) -> str | None:
        value = await self._run("GET", self._key(key))
        return value.decode().rsplit("\n", 2)[0] if value is not None else None

    async def key_value_of(self, key: str, log: str) -> bytes:
        """What ``key`` holds where it names ``log``, else nothing."""
        value: bytes | None = await self._run("GET", self._key(key))
        is_of_log = value is not None and value.decode().rsplit("\n", 2)[0] == log
        return value if value is not None and is_of_log else b""

    async def drop_key_of(self, key: str, log: str) -> None:
        value = await self.key_value_of(key, log)
        if value:
            await self.drop_key(key, value)

    # Documents.

    def _documents(self, kind: str) -> list[str]:
        return [
            f"{self._prefix}:{{documents:{_safe(kind)}}}:{what}" for what in ("data", "age", "name")
        ]

    async def drop_documents(self, kind: str) -> None:
        """Erase every document of a kind."""
        for key in self._documents(kind):
            await self._run("DEL", key)

    async def keep_documents(self, kind: str) -> None:
        """Documents of a log have a time to live, as its keys have."""
        for key in self._documents(kind):
            await self._run("PEXPIRE", key, self._ttl)

    async def set_document(self, kind: str, name: str, data: bytes | None) -> None:
        values = ["remove", name] if data is None else ["put", name, data]
        await self._link.run(INDEX, self._documents(kind), values, wait=True)
        if kind.startswith(PRIVATE):
            await self.keep_documents(kind)

    async def swap_document(
        self, kind: str, name: str, old: bytes | None, new: bytes | None
    ) -> bool:
        """Put ``new`` where ``old`` is; whether ``new`` is there now."""
        # A leading byte tells a document from none, which may be empty.
        values = [b"" if data is None else b"=" + data for data in (old, new)]
        answer, _ = await self._link.run(
            INDEX, self._documents(kind), ["swap", name, *values], wait=True
        )
        return bool(answer)

    async def document(self, kind: str, name: str) -> bytes | None:
        return await self._run("HGET", self._documents(kind)[0], name)

    async def count_documents(self, kind: str, prefix: str) -> int:
        start = prefix.encode()
        bounds = (b"[" + start, b"(" + start + b"\xff") if start else ("-", "+")
        return await self._run("ZLEXCOUNT", self._documents(kind)[2], *bounds)

    async def documents(
        self, kind: str, prefix: str, most: int, after: str | None = None
    ) -> dict[str, bytes]:
        words: list[Word] = ["list", prefix, most]
        if after is not None:
            start = prefix.encode()
            first = b"[" + start if after < prefix else b"(" + after.encode()
            words = ["page", first, b"(" + start + b"\xff" if start else "+", most]
        answer, _ = await self._link.run(INDEX, self._documents(kind), words)
        names = [name.decode() for name in answer[::2]]
        return dict(zip(names, answer[1::2], strict=True))


def _safe(name: str) -> str:
    return name.replace("%", "%25").replace("{", "%7B").replace("}", "%7D")
