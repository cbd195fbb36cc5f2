"""Making a log in Redis: its places in the indexes first, the log itself, its idempotency key.

Always true: a creation that dies between two steps leaves entries that count for nothing; of
several processes with one key at once, one makes the log and the others learn its name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from tokenwire.errors import ConflictError, KeyReusedError
from tokenwire.log.base import LogInfo
from tokenwire.log.redis.appending.owned import Owned, clock
from tokenwire.log.redis.described import info_of, key_of
from tokenwire.log.redis.index import Index

__all__ = ["Creations", "Own"]


class Own(Protocol):
    """An operation of owner.lua on one log; its answer, the first part as text."""

    async def __call__(self, log: str, operation: str, *values: Any, wait: bool = False) -> Any: ...


class Creations:
    """Creates logs. ``delete`` erases one that another process's key won over; ``keep`` keeps a
    conversation alive, in a while."""

    def __init__(
        self,
        index: Index,
        own: Own,
        owned: dict[str, Owned],
        delete: Callable[[str], Awaitable[bool]],
        keep: Callable[[str], None],
    ) -> None:
        self._index = index
        self._own = own
        self._owned = owned
        self._delete = delete
        self._keep = keep

    async def create(self, log: str, owned: Owned, key_hash: str, shared: bool) -> LogInfo:
        value = f"{log}\n{owned.nonce}\n{key_hash}".encode()
        if owned.key is not None:
            other = await self._held(owned.key, value)
            if other is not None:
                return other
            owned.key_value = value
        await self._index.first_lease(log, owned.lease)
        if owned.thread is not None:
            await self._index.use(owned.thread)
            if await self._index.join(owned.thread, log):
                self._keep(owned.thread)
        info = await self.put(log, owned)
        if info is None:
            # The key stays where another process has made the very same log, which it names.
            if owned.key is not None and not await self._is_of_key(log, owned.key):
                await self._index.drop_key(owned.key, value)
            await self._uncreated(log, owned.thread)
            raise ConflictError("a log of this name exists")
        if owned.key is not None:
            other = await self._confirmed(log, owned.key, value)
            if other is not None:
                return other
        if not shared:
            owned.created = info.created
            self._owned[log] = owned
        return info

    async def _uncreated(self, log: str, thread: str | None) -> None:
        """Take back what the index was told of a log whose name was taken already."""
        answer = await self._own(log, "describe")
        info = info_of(log, answer) if answer[0] == "ok" else None
        if answer[0] == "gone" or (info is not None and info.closed is not None):
            await self._index.unlease(log)  # neither can come to life again
        if thread is not None and (answer[0] == "gone" or (info and info.thread != thread)):
            await self._index.leave(thread, log)

    async def _confirmed(self, log: str, key: str, value: bytes) -> LogInfo | None:
        """The log that has won ``key`` since, in whose favour ours is erased; None where the key
        names ours. It is not erased before another one is there: its creator may be gone, and the
        key is ours again."""
        if await self._index.take_key(key, value, value) == value:
            return None
        try:
            other = await self._held(key, value)
        except (ConflictError, KeyReusedError):
            await self._delete(log)
            raise
        if other is None or other.log == log:
            return None
        await self._delete(log)
        return other

    async def _is_of_key(self, log: str, key: str) -> bool:
        """Whether ``log`` exists and was created with ``key``, by whomever."""
        answer = await self._own(log, "describe")
        return answer[0] == "ok" and key_of(answer) == key

    async def put_back(self, log: str, owned: Owned) -> LogInfo | None:
        """Make a log again that was lost, without its records, as of when it was made first, with
        its places in the indexes; None where it is another's by now, or was erased since."""
        thread, key = owned.thread, owned.key
        if thread is not None:
            await self._index.use(thread)
            await self._index.join(thread, log)
        if key is not None and owned.key_value:
            await self._index.take_key(key, owned.key_value, b"")
        info = await self.put(log, owned, round(owned.created * 1e6), owned.commands.last)
        if info is None and (await self._own(log, "describe"))[0] != "ok":
            if key is not None:
                await self._index.drop_key(key, owned.key_value)
            if thread is not None:
                await self._index.leave(thread, log)
        return info

    async def put(self, log: str, owned: Owned, *of_lost: int) -> LogInfo | None:
        """Make a log; None where its name is taken. ``of_lost``: when it was made first, in
        microseconds, and the number of its last command, of one that was lost."""
        values = (owned.owner, owned.meta, owned.thread or "", owned.key or "", owned.nonce)
        lease, start = int(owned.lease * 1000), clock()
        more = (lease, owned.epoch, *of_lost)
        answer = await self._own(log, "create", *values, *more, wait=True)
        if answer[0] != "ok":
            return None
        owned.lease_start = start
        return info_of(log, answer)

    async def _held(self, key: str, value: bytes) -> LogInfo | None:
        """The log that holds ``key``, or None when the key is ours now."""
        expected = b""
        for attempt in range(20):
            holder = await self._index.take_key(key, value, expected)
            if holder == value:
                return None
            if holder is None:
                expected = b""  # it was let go since
                continue
            name, _, known_hash = holder.decode().rsplit("\n", 2)
            if known_hash.encode() != value.rsplit(b"\n", 2)[2]:
                raise KeyReusedError("this idempotency key belongs to a different request")
            answer = await self._own(name, "describe")
            if answer[0] == "ok":
                return info_of(name, answer)
            if answer[0] != "none" or attempt >= 10:
                expected = holder  # its creator died before it made the log
            else:
                await asyncio.sleep(0.05)
        raise ConflictError("another request is using this idempotency key; retry")
