"""The open readers of one process whose right rests on a membership, and their end when it ends.

Always true: a change made in this process ends its readers before the change is answered, and who
came while it was made reads nothing before it was looked at again; that of another process is
noticed within `PERIOD` seconds and the time of two reads of the store, by one small document
whatever the number of readers; where a process died between a change and its note, within
`BACKSTOP` looks; nothing runs while nobody reads.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
from collections.abc import Awaitable, Callable

import msgspec

from tokenwire.errors import LogError, TokenwireError
from tokenwire.log.base import Store
from tokenwire.relay.members.access import Access

__all__ = ["BACKSTOP", "PERIOD", "Watch"]

_log = logging.getLogger("tokenwire.relay")

#: Seconds between two looks at what other processes have changed.
PERIOD = 0.5
#: Looks after which everybody is checked, whatever was noted.
BACKSTOP = 60
#: The one document that says which conversations' members were changed last, and how many it names.
_CHANGES = ("thread-members-changes", "all")
_MOST_RECENT = 64

#: Whether a principal may still read a conversation.
MayRead = Callable[[str, str], Awaitable[bool]]
#: Ends a reader.
End = Callable[[], None]
#: The reader is gone; nobody is told of anything more.
Leave = Callable[[], None]


class _Changes(msgspec.Struct, array_like=True):
    """``count``: of all changes so far; ``recent``: the conversations of the newest ones."""

    count: int
    recent: list[str]
    nonce: str = ""


class _Reader(msgspec.Struct, frozen=True):
    access: Access
    end: End


class Watch:
    """Of one process. ``may_read``: asked about a reader of a conversation that has changed."""

    def __init__(self, store: Store, may_read: MayRead) -> None:
        self._store, self._may_read = store, may_read
        self._readers: dict[str, dict[int, _Reader]] = {}
        self._numbers = itertools.count()
        self._task: asyncio.Task[None] | None = None
        #: How many changes this process has seen, its own included: a reader that was checked
        #: before one and is added after it is checked again.
        self.change_count = 0
        #: The count in the store at the last look; None: everybody is to be checked.
        self._count: int | None = None

    async def reader(self, access: Access | None, end: End, change_count: int) -> Leave:
        """Call ``end`` when the reader with ``access``, which was looked up when this process had
        ``change_count`` changes, may read no more: also before this returns, where members have
        changed since. Returns the call that ends this. Raises `LogError`."""
        if access is None or not access.principal:
            return _nothing
        scope, number = access.scope, next(self._numbers)
        self._readers.setdefault(scope, {})[number] = _Reader(access, end)

        def remove() -> None:
            readers = self._readers.get(scope, {})
            readers.pop(number, None)
            if not readers:
                self._readers.pop(scope, None)

        if self._store.shared and (self._task is None or self._task.done()):
            self._count = None  # nobody has looked for a while
            self._task = asyncio.get_running_loop().create_task(self._watch_forever())
        if change_count != self.change_count:
            try:
                await self.check(scope)
            except BaseException:
                remove()
                raise
        return remove

    async def changed(self, scope: str) -> None:
        """The members of ``scope`` were changed here: readers of this process end now, those of
        others soon. Raises `LogError`."""
        self.change_count += 1
        try:
            await self.check(scope)
        except LogError:
            self._count = None  # whoever is left is found by the next look
            raise
        if not self._store.shared:
            return
        while True:
            data = await self._store.document(*_CHANGES)
            changes = _decoded(data)
            recent = [scope, *(one for one in changes.recent if one != scope)][:_MOST_RECENT]
            new = _Changes(changes.count + 1, recent, secrets.token_hex(4))
            if await self._store.swap_document(*_CHANGES, data, msgspec.msgpack.encode(new)):
                return

    async def check(self, scope: str) -> None:
        """End the readers of ``scope`` who may read it no more."""
        readers = list(self._readers.get(scope, {}).values())
        for principal in {reader.access.principal for reader in readers}:
            if not await self._may_read(scope, principal):
                for reader in readers:
                    if reader.access.principal == principal:
                        reader.end()

    async def aclose(self) -> None:
        """Stop looking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _watch_forever(self) -> None:
        for number in itertools.count(1):
            if not self._readers:
                return
            try:
                await self._look()
                if number % BACKSTOP == 0:
                    for scope in [scope for scope in self._readers if self._is_shared(scope)]:
                        await self.check(scope)
            except LogError as error:
                _log.warning("changes of members could not be read: %s", error)
            except TokenwireError:
                _log.exception("a look at changes of members failed; it goes on")
            await asyncio.sleep(PERIOD)

    async def _look(self) -> None:
        changes = _decoded(await self._store.document(*_CHANGES))
        before = self._count
        if changes.count == before:
            return
        self.change_count += 1
        missed = None if before is None else changes.count - before
        # Each of the newest changes named one conversation, so this many hold all of the missed.
        is_all = missed is None or missed < 0 or missed > len(changes.recent)
        for scope in list(self._readers) if is_all else changes.recent[:missed]:
            await self.check(scope)
        self._count = changes.count

    def _is_shared(self, scope: str) -> bool:
        readers = self._readers.get(scope, {}).values()
        return any(reader.access.id is not None for reader in readers)


def _nothing() -> None:
    pass


def _decoded(data: bytes | None) -> _Changes:
    return _Changes(0, []) if data is None else msgspec.msgpack.decode(data, type=_Changes)
