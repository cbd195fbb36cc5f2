"""The log in Redis or Valkey (7.0 and newer): for many processes on many machines.

Always true: what one stream needs to be right (records, epoch, owner, end) lies in one slot and
changes in one script; indexes (threads, keys, leases) lie elsewhere, are written first, and count
only as hints to what the stream itself says. Pub/sub wakes readers; the truth is read.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from typing import Any

from tokenwire.errors import ConflictError, KeyReusedError, TokenwireError
from tokenwire.log.base import Appended, Claim, Durability, Page, StreamInfo, Then, Wake
from tokenwire.log.completion import Told
from tokenwire.log.redis.append import APPEND, Appends, Owned, missing
from tokenwire.log.redis.check import check_store
from tokenwire.log.redis.index import INDEX, Index
from tokenwire.log.redis.link import Link, Script
from tokenwire.log.redis.read import READ, Reads
from tokenwire.log.redis.url import parse_url
from tokenwire.log.redis.wake import WakeRouter
from tokenwire.log.tail import Tails

__all__ = ["RedisLog"]

OWNER = Script("owner.lua")

#: How long names of expired streams answer "gone" instead of "never was".
KEEP_NAMES_MS = 30 * 86_400_000


#: Streams that are looked at for ``stats()["records"]`` and ``["bytes"]``.
MOST_COUNTED = 1000


class RedisLog:
    """A `Log` in Redis; options in the URL are described in `tokenwire.log.redis.url`."""

    shared = True
    rewinds = True
    durability: Durability = "memory"

    def __init__(self, url: str) -> None:
        self._settings = parse_url(url)
        self._prefix = self._settings.prefix
        self._ttl = int(self._settings.ttl * 1000)
        self._publish = "SPUBLISH"
        self._link = Link(self._settings, (APPEND, READ, OWNER, INDEX))
        self._index = Index(self._link, self._prefix, self._ttl)
        self._tails = Tails()
        self._reads = Reads(self._link, self._key)
        self._owned: dict[str, Owned] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        head = (self._ttl, KEEP_NAMES_MS, self._publish)
        self._appends = Appends(
            self._link, self._key, self._owned, self._tails, head, self._restore
        )
        self._router = WakeRouter(self._link, self._key, touched=self._touched)

    async def start(self) -> None:
        """Connect; refuse a store that evicts, or that keeps less than the URL asks for."""
        await self._link.connect(check_store)
        self.durability = self._link.durability

    async def close(self) -> None:
        """Finish what was given and disconnect. Streams stay."""
        await self._appends.drain()
        await self._reads.drain()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._router.close()
        await self._link.close()

    # Names. The braces put all keys of a stream into one slot.

    def _key(self, stream: str, what: str) -> str:
        name = stream.replace("%", "%25").replace("{", "%7B").replace("}", "%7D")
        return f"{self._prefix}:{{{name}}}:{what}"

    async def _apart(self, work: Any) -> Any:
        """Run ``work`` in a task of its own: a cancelled caller must not break a connection."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    async def _owner(self, stream: str, operation: str, *values: Any, wait: bool = False) -> Any:
        names = ("meta", "log") if operation == "describe" else ("meta", "log", "commands")
        keys = [self._key(stream, name) for name in names]
        channels = [self._key(stream, name) for name in ("live", "control")]
        head = [operation, self._ttl, KEEP_NAMES_MS, self._publish, *channels]
        answer, _ = await self._link.run(OWNER, keys, [*head, *values], wait=wait)
        return [part.decode() if index == 0 else part for index, part in enumerate(answer)]

    # Creating.

    async def create(
        self,
        stream: str,
        *,
        owner: str,
        meta: bytes = b"",
        thread: str | None = None,
        key: str | None = None,
        key_hash: str = "",
        lease: float = 15.0,
        shared: bool = False,
    ) -> StreamInfo:
        made = Owned(owner, secrets.token_hex(8), lease, meta, thread, key)
        return await self._apart(self._create(stream, made, key_hash, shared))

    async def _create(self, stream: str, made: Owned, key_hash: str, shared: bool) -> StreamInfo:
        value = f"{stream}\n{made.nonce}\n{key_hash}".encode()
        if made.key is not None:
            other = await self._held(made.key, value)
            if other is not None:
                return other
        await self._index.first_lease(stream, time.time() + made.lease)
        if made.thread is not None:
            await self._index.join(made.thread, stream)
        answer = await self._put(stream, made)
        if answer[0] != "ok":
            if made.key is not None:
                await self._index.drop_key(made.key, value)
            await self._uncreated(stream, made.thread)
            raise ConflictError("A stream of this name exists.")
        if made.key is not None:
            holder = await self._index.take_key(made.key, value, value)
            if holder != value:
                await self._delete(stream)
                found = await self._held(made.key, value)
                if found is not None:
                    return found
        if not shared:
            self._owned[stream] = made
        return self._info(stream, answer)

    async def _uncreated(self, stream: str, thread: str | None) -> None:
        """Take back what the index was told of a stream whose name was taken already."""
        answer = await self._owner(stream, "describe")
        info = self._info(stream, answer) if answer[0] == "ok" else None
        if answer[0] == "gone" or (info is not None and info.closed is not None):
            await self._index.unlease(stream)  # neither can come to life again
        if thread is not None and (answer[0] == "gone" or (info and info.thread != thread)):
            await self._index.leave(thread, stream)

    async def _put(self, stream: str, made: Owned) -> Any:
        values = (made.owner, made.meta, made.thread or "", made.key or "", made.nonce)
        lease = int(made.lease * 1000)
        return await self._owner(stream, "create", *values, lease, made.epoch, wait=True)

    async def _held(self, key: str, value: bytes) -> StreamInfo | None:
        """The stream that holds ``key``, or None when the key is ours now."""
        expected = b""
        for attempt in range(20):
            holder = await self._index.take_key(key, value, expected)
            if holder == value:
                return None
            name, _, known_hash = holder.decode().rsplit("\n", 2)
            if known_hash.encode() != value.rsplit(b"\n", 2)[2]:
                raise KeyReusedError("This idempotency key was used for another request.")
            answer = await self._owner(name, "describe")
            if answer[0] == "ok":
                return self._info(name, answer)
            if answer[0] != "none" or attempt >= 10:
                expected = holder  # its creator died before it made the stream
            else:
                await asyncio.sleep(0.05)
        raise ConflictError("The idempotency key is being taken by others; try again.")

    def _info(self, stream: str, answer: Any) -> StreamInfo:
        if answer[0] != "ok":
            raise missing(answer[0])
        _, epoch, owner, tail, closed, meta, created, size, lease, thread, _ = answer
        return StreamInfo(
            stream=stream,
            epoch=int(epoch),
            owner=owner.decode(),
            tail=tail,
            closed=closed.decode() or None,
            meta=meta,
            created=int(created) / 1e6,
            bytes=int(size),
            lease_until=int(lease) / 1000,
            thread=thread.decode() or None,
        )

    async def describe(self, stream: str) -> StreamInfo:
        return self._info(stream, await self._apart(self._owner(stream, "describe")))

    # Appending: everything that was given in one turn of the loop goes in one script call.

    async def append(
        self,
        stream: str,
        *,
        epoch: int,
        first: int,
        records: list[bytes],
        close: str | None = None,
        durable: bool = False,
    ) -> Appended:
        if first < 1:
            raise ValueError("offsets begin at 1")
        done = await self._appends.lane(stream).ask((stream, epoch, first, records, close))
        if close is not None and done.status == "ok":
            await self._apart(self._index.closed(stream))
        return done

    def append_soon(
        self, stream: str, *, epoch: int, first: int, records: list[bytes], then: Then
    ) -> bool:
        """Send an append with the others of this turn; ``then`` hears of its answer."""
        item = (stream, epoch, first, records, None)
        self._appends.lane(stream).submit(item, Told(then))
        return True

    async def _restore(self, stream: str) -> Appended | TokenwireError:
        owned = self._owned.get(stream)
        if owned is not None:
            lease = int(owned.lease * 1000)
            values = (owned.owner, owned.nonce, lease, owned.epoch)
            answer = await self._owner(stream, "reclaim", *values, wait=True)
            if answer[0] != "ok":
                answer = await self._put(stream, owned)
            if answer[0] == "ok":
                await self._index.lease(stream, time.time() + owned.lease)
        answer = await self._owner(stream, "describe")
        if answer[0] != "ok":
            return missing(answer[0])
        state = self._info(stream, answer)
        ours = owned is not None and state.epoch == owned.epoch and state.owner == owned.owner
        return Appended("gap" if ours else "fenced", state.tail, state.epoch)

    # Reading.

    def read_now(
        self, stream: str, *, after: int = 0, most: int = 512, most_bytes: int = 1 << 20
    ) -> Page | None:
        """The page where it is at hand; None: ask `read`."""
        return self._tails.page(stream, after, most, most_bytes)

    async def read(
        self,
        stream: str,
        *,
        after: int = 0,
        most: int = 512,
        most_bytes: int = 1 << 20,
        fresh: bool = False,
    ) -> Page:
        page = None if fresh else self._tails.page(stream, after, most, most_bytes)
        if page is not None:
            return page
        return await self._reads.page(stream, after, most, most_bytes)

    # Waking. The owner's own appends wake directly; it only listens for commands and claims.

    def subscribe(self, stream: str, wake: Wake, *, appends: bool = True) -> Callable[[], None]:
        new = stream not in self._tails
        end = self._tails.subscribe(stream, wake, appends=appends)
        if new:
            self._router.listen(stream, "control" if stream in self._owned else "live")

        def unsubscribe() -> None:
            if end():
                self._router.unlisten(stream)

        return unsubscribe

    def _touched(self, stream: str, message: bytes) -> None:
        kind, _, nonce = message.decode().partition(" ")
        owned = self._owned.get(stream)
        if owned is not None and (kind == "erase" or (kind == "claim" and nonce != owned.nonce)):
            del self._owned[stream]
            self._router.unlisten(stream)
            self._router.listen(stream, "live")
        self._tails.forget(stream)
        self._tails.wake(stream)

    # Owners.

    async def claim(self, stream: str, *, owner: str, lease: float = 15.0) -> Claim | None:
        return await self._apart(self._claim(stream, owner, lease))

    async def _claim(self, stream: str, owner: str, lease: float) -> Claim | None:
        nonce = secrets.token_hex(8)
        answer = await self._owner(stream, "claim", owner, nonce, int(lease * 1000), wait=True)
        if answer[0] != "ok":
            return None
        await self._index.lease(stream, time.time() + lease)
        state = self._info(stream, await self._owner(stream, "describe"))
        self._owned[stream] = Owned(owner, nonce, lease, state.meta, state.thread, None, answer[1])
        self._tails.forget(stream)
        return Claim(stream, answer[1], answer[2])

    async def renew(self, streams: dict[str, int], *, owner: str, lease: float = 15.0) -> set[str]:
        async def one(stream: str, epoch: int) -> str | None:
            answer = await self._owner(stream, "renew", epoch, owner, int(lease * 1000))
            if answer[0] != "ok":
                self._owned.pop(stream, None)
                return stream
            await self._index.lease(stream, time.time() + lease)
            return None

        async def all_of_them() -> set[str]:
            lost: set[str | None] = set()
            names = list(streams.items())
            for start in range(0, len(names), 32):  # connections of the pool used at a time
                part = names[start : start + 32]
                lost.update(await asyncio.gather(*(one(name, epoch) for name, epoch in part)))
            return {name for name in lost if name is not None}

        return await self._apart(all_of_them())

    async def release(self, stream: str, *, epoch: int) -> None:
        async def work() -> None:
            await self._owner(stream, "release", epoch)
            await self._index.release(stream)

        await self._apart(work())

    async def held(self, *, most: int = 1000) -> list[tuple[str, int, str]]:
        return []  # owners may be on any machine: only their leases tell

    async def orphans(self, *, most: int = 100) -> list[str]:
        async def work() -> list[str]:
            found: list[str] = []
            for stream in await self._index.overdue(most * 2):
                answer = await self._owner(stream, "describe")
                if answer[0] == "ok" and not answer[4]:
                    info = self._info(stream, answer)
                    if info.lease_until <= time.time():
                        found.append(stream)
                    else:
                        await self._index.lease(stream, info.lease_until)
                else:
                    await self._index.settle(stream, ended=answer[0] == "ok")
                if len(found) >= most:
                    break
            return found

        return await self._apart(work())

    async def command(self, stream: str, data: bytes) -> None:
        nonce = secrets.token_hex(8)
        answer = await self._apart(self._owner(stream, "command", nonce, data, wait=True))
        if answer[0] != "ok":
            raise missing(answer[0])

    async def commands(self, stream: str, *, after: int = 0) -> list[tuple[int, bytes]]:
        answer = await self._apart(self._owner(stream, "commands", after))
        if answer[0] != "ok":
            raise missing(answer[0])
        return list(enumerate(answer[1], after + 1))

    # Indexes, documents, ends.

    async def thread(self, thread: str, *, most: int = 100) -> list[str]:
        async def work() -> list[str]:
            found: list[str] = []
            for stream in await self._index.members(thread):
                answer = await self._owner(stream, "describe")
                if answer[0] == "ok" and answer[9].decode() == thread:
                    found.append(stream)
                if len(found) >= most:
                    break
            return found

        return await self._apart(work())

    async def set_document(self, kind: str, name: str, data: bytes | None) -> None:
        await self._apart(self._index.set_document(kind, name, data))

    async def swap_document(
        self, kind: str, name: str, old: bytes | None, new: bytes | None
    ) -> bool:
        return await self._apart(self._index.swap_document(kind, name, old, new))

    async def document(self, kind: str, name: str) -> bytes | None:
        return await self._apart(self._index.document(kind, name))

    async def documents(self, kind: str, *, prefix: str = "", most: int = 1000) -> dict[str, bytes]:
        return await self._apart(self._index.documents(kind, prefix, most))

    async def _delete(self, stream: str, mark: str = "deleted") -> bool:
        answer = await self._owner(stream, "erase", mark, wait=True)
        self._owned.pop(stream, None)
        await self._index.forget(stream)
        if answer[0] != "ok":
            return False
        _, thread, key = (part.decode() if isinstance(part, bytes) else part for part in answer)
        if thread:
            await self._index.leave(thread, stream)
        if key:
            await self._index.drop_key_of(key, stream)
        return True

    async def delete(self, stream: str) -> None:
        await self._apart(self._delete(stream))
        self._tails.forget(stream)
        self._tails.wake(stream)

    async def expire(self, *, retention: float) -> int:
        async def work() -> int:
            old = await self._index.ended(time.time() - retention)
            return sum([await self._delete(stream, "gone") for stream in old])

        return await self._apart(work())

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
        for stream in await self._index.some(MOST_COUNTED):
            answer = await self._owner(stream, "describe")
            if answer[0] == "ok":
                counts["records"] += answer[3]
                counts["bytes"] += int(answer[7])
        return counts
