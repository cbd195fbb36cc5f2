"""The index of what waits for a person: small documents beside the logs.

Always true: an entry is in the store before the question is in the log, so that none is missing,
whatever dies between; it is taken out after the decision is in the log, so that one too many is
possible, and whoever reads checks it against the log (`tokenwire.relay.waiting.inbox`). What is
read costs what it holds, however many runs there are.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import msgspec

from tokenwire.errors import GoneError, LogError, NotFoundError
from tokenwire.events.fold import Fold
from tokenwire.log.base import Store
from tokenwire.relay.description import RunMeta, meta_of, scope_of_run
from tokenwire.relay.waiting.deciders import Source, places_of
from tokenwire.relay.waiting.entry import Entry, entries_of

__all__ = ["RunWaits", "WaitingIndex"]

_log = logging.getLogger("tokenwire.relay")


class WaitingIndex:
    """The entries in a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        #: Called, in this process, after an entry came or went.
        self.changed: list[Callable[[], None]] = []

    async def put(self, entry: Entry) -> None:
        """Add an entry; once more changes nothing. Raises `LogError`."""
        data = msgspec.json.encode(entry)
        await asyncio.gather(
            *(
                self._store.set_document(place.kind, place.prefix + entry.name, data)
                for place in places_of(entry)
            )
        )
        self._tell()

    async def remove(self, entry: Entry) -> None:
        """Take an entry out. Raises `LogError`."""
        await asyncio.gather(
            *(
                self._store.set_document(place.kind, place.prefix + entry.name, None)
                for place in places_of(entry)
            )
        )
        self._tell()

    async def forget(self, run: str, meta: RunMeta, fold: Fold) -> None:
        """Take out what is listed of a run that is about to be erased. Raises `LogError`."""
        for entry, is_open in entries_of(run, meta, scope_of_run(meta), fold):
            if is_open:
                await self.remove(entry)

    async def page(self, source: Source, after: str, most: int) -> dict[str, Entry]:
        """Entries of a source by name, in the order of time, after the name ``after``. Raises
        `LogError`."""
        documents = await self._store.documents(
            source.kind, prefix=source.prefix, most=most, after=source.prefix + after
        )
        return {
            name[len(source.prefix) :]: msgspec.json.decode(data, type=Entry)
            for name, data in documents.items()
        }

    def _tell(self) -> None:
        for tell in self.changed:
            tell()


class RunWaits:
    """The entries of one ``run``, written by whoever writes its log. ``is_new``: no other process
    has listed any of it."""

    def __init__(self, index: WaitingIndex, store: Store, run: str, *, is_new: bool) -> None:
        self._index, self._store, self._run = index, store, run
        self._meta: RunMeta | None = None
        #: `Fold.approval_changes` of which the index has what is new, and all.
        self._announced = self._settled = 0
        #: Names that are in the index; None: those of an earlier owner may be.
        self._listed: set[str] | None = set() if is_new else None

    def is_behind(self, fold: Fold) -> bool:
        """Whether the index is to be changed."""
        return fold.approval_changes != self._settled

    async def announce(self, fold: Fold) -> None:
        """Add what is new, before it is in the log. Never fails: what could not be written is
        written by `settle`."""
        changes = fold.approval_changes
        if changes != self._announced and await self._write(fold, drops=False):
            self._announced = changes

    async def settle(self, fold: Fold) -> None:
        """Take out what is decided, after it is in the log, and add what is missing. Never fails:
        it is called again while `is_behind`, and who reads the index checks it."""
        changes = fold.approval_changes
        if changes != self._settled and await self._write(fold, drops=True):
            self._announced = self._settled = changes

    async def _write(self, fold: Fold, *, drops: bool) -> bool:
        try:
            if self._meta is None:
                self._meta = meta_of(await self._store.describe(self._run))
            entries = entries_of(self._run, self._meta, scope_of_run(self._meta), fold)
            for entry, is_open in entries:
                is_listed = self._listed is not None and entry.name in self._listed
                if is_open and not is_listed:
                    await self._index.put(entry)
                    if self._listed is not None:
                        self._listed.add(entry.name)
                elif drops and not is_open and (is_listed or self._listed is None):
                    await self._index.remove(entry)
            if drops:
                self._listed = {entry.name for entry, is_open in entries if is_open}
        except (NotFoundError, GoneError):
            return True  # it was erased: what is listed of it goes when somebody reads it
        except LogError as error:
            _log.warning("what run %s waits for could not be listed: %s", self._run, error)
            return False
        return True
