"""Conversations: their entries in a person's list, their titles, and their erasure.

Always true: a thread's name is its principal's own, and who else is in it its roster says; a run
writes the thread's entry and a person its title, each a document of its own, so neither undoes the
other; erasing a thread erases its runs, and what is kept of a thread, its members included, goes
when its last run has gone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from tokenwire.errors import NotFoundError
from tokenwire.events.message import FilePart, Message
from tokenwire.relay.conversation.admission import forget_conversation
from tokenwire.relay.conversation.feed import Feeds
from tokenwire.relay.conversation.queue import WhileBusy
from tokenwire.relay.conversation.rules import ThreadRules, change_rules
from tokenwire.relay.conversation.scope import parts_of_scope
from tokenwire.relay.conversation.turns import Turns
from tokenwire.relay.description import RunInfo
from tokenwire.relay.documents.names import forget_names, forget_stale_names
from tokenwire.relay.thread_list.catalogue import Catalogue, ThreadPage
from tokenwire.relay.thread_list.entries import (
    ENTRY,
    TITLE,
    Entry,
    ThreadInfo,
    encoded,
    entry_of,
    title_of,
)
from tokenwire.relay.waiting.links import forget_links

if TYPE_CHECKING:
    from tokenwire.relay.runs import Runs

__all__ = ["MOST_THREADS", "MOST_TITLE", "Threads"]

#: Characters of a title.
MOST_TITLE = 200
#: Threads of one page of a list.
MOST_THREADS = 1000
#: Characters of the first question that name a thread until a person does.
_MOST_FIRST = 80
#: Threads that one sweep looks at, of all principals.
_MOST_SWEPT = 100_000

#: Conversations that were named before their first run.
_UNUSED = "thread-unused"
#: When everything that is kept of conversations was looked at last, in Unix seconds; and how often
#: that is done.
_LAST_LOOK = ("upkeep", "threads")
_LOOK_SECONDS = 86_400.0


class Threads:
    """The conversations of the store of ``runs``. Every method raises `LogError` when the store
    does not answer."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs
        self._store = runs.store
        self._catalogue = Catalogue(runs.store, runs.members, runs.worker.waits)

    # --- reading -------------------------------------------------------------------------------

    async def page(
        self, principal: str, limit: int = MOST_THREADS, before: str | None = None
    ) -> ThreadPage:
        """This principal's conversations, and those that it has joined, newest first: ``limit`` of
        them, of those after the thread ``before``."""
        return await self._catalogue.page(principal, limit, before)

    async def title(self, principal: str, thread: str) -> str | None:
        """The title that a person gave, else what the first question was about. Raises
        `NotFoundError` for a conversation of others."""
        return await self.title_of((await self._runs.members.enter(principal, thread)).scope)

    async def title_of(self, name: str) -> str | None:
        """The same of a conversation by its name in the store."""
        return await title_of(self._store, name)

    # --- writing -------------------------------------------------------------------------------

    async def touch(self, principal: str, thread: str, messages: list[Message], run: str) -> None:
        """``run`` was started in ``thread``: it goes to the top of the list, named by what was
        asked first."""
        name = await self._runs.members.scope(principal, thread)

        def change(entry: Entry | None) -> Entry:
            if entry is None or not entry.first:
                entry = Entry(first=_subject(messages), run=run)
            entry.updated, entry.newest, entry.is_over = time.time(), run, False
            return entry

        entry = await self._change(name, change)
        if entry is not None and entry.run == run:
            self._feeds.announce_title(name)
        else:
            self._feeds.announce_lists(name)

    async def rename(self, principal: str, thread: str, title: str) -> ThreadInfo:
        """Set the title; an empty one restores the name that the thread had by itself. Raises
        `NotFoundError`, and `RoleError` for a member who may not write."""
        access = await self._runs.members.enter(principal, thread, "write")
        name = access.scope
        entry = await self.note(name)
        await self._store.set_document(TITLE, name, title.encode() or None)
        self._feeds.announce_title(name)
        return ThreadInfo(thread=thread, title=title or entry.first, updated=entry.updated)

    async def set_rules(
        self,
        principal: str,
        thread: str,
        *,
        history: str | msgspec.UnsetType | None = msgspec.UNSET,
        while_busy: WhileBusy | msgspec.UnsetType | None = msgspec.UNSET,
    ) -> ThreadRules:
        """Set how the conversation goes on (`change_rules`), also before its first run. Raises
        `InputError`, `NotFoundError`, and `RoleError` for a member who may not write."""
        name = (await self._runs.members.enter(principal, thread, "write")).scope
        rules = await change_rules(self._store, name, history=history, while_busy=while_busy)
        await self.note(name)
        return rules

    async def info(self, principal: str, thread: str) -> ThreadInfo:
        """The conversation as in a list. Raises `NotFoundError`."""
        name = (await self._runs.members.enter(principal, thread)).scope
        entry = await self.note(name)
        title = await self._store.document(TITLE, name)
        title_text = title.decode() if title else entry.first
        return ThreadInfo(thread=thread, title=title_text, updated=entry.updated)

    async def note(self, name: str) -> Entry:
        """The entry of the conversation of this name in the store, made where it has none: one that
        was named or shared before its first run."""
        entry = await self._entry(name)
        if entry is None:
            await self._store.set_document(_UNUSED, name, b"1")
            new = Entry(updated=time.time())
            entry = await self._change(name, lambda entry: entry or new)
            self._feeds.announce_lists(name)
        return entry or Entry()

    async def check_owner(self, info: RunInfo, principal: str) -> None:
        """Raise `RoleError` unless ``principal``, who sees the run, may erase it."""
        if info.thread is not None:
            await self._runs.members.enter(principal, info.thread, "own")

    async def erase_run(self, run: str, principal: str) -> None:
        """Erase a run and what is left of it elsewhere: its question, where that names the thread,
        and the names that clients have for it. Raises `NotFoundError`, and `RoleError` for who is
        no owner of its conversation."""
        info = await self._runs.info(run, principal=principal)
        name = None
        if info.thread is not None:
            name = (await self._runs.members.enter(principal, info.thread, "own")).scope
            parent = info.history.parent if info.history is not None else None
            await Turns(self._store, name).erase(run, parent)
        await self._runs.delete(run, principal=principal)
        await forget_names(self._store, run)
        await forget_links(self._store, run)
        if name is None:
            return
        if not await self._store.thread(name, most=1):
            await self._forget(name)
            return

        def change(entry: Entry | None) -> Entry | None:
            if entry is None or entry.run not in (None, run):
                return None
            entry.first = entry.run = None
            return entry

        if await self._change(name, change) is not None:
            self._feeds.announce_title(name)

    async def erase(self, thread: str, principal: str) -> None:
        """Erase the conversation, what waits in it, and all of its runs. Raises `NotFoundError`,
        and `RoleError` for who is no owner."""
        name = (await self._runs.members.enter(principal, thread, "own")).scope
        await forget_conversation(self._store, name)
        while infos := await self._still_there(thread, principal):
            for info in infos:
                try:
                    await self.erase_run(info.id, principal)
                except NotFoundError:
                    continue  # somebody else erased it meanwhile
        await self._forget(name)

    async def _still_there(self, thread: str, principal: str) -> list[RunInfo]:
        """The next runs of a conversation that is being erased: with the last one its members go,
        and with them the right of an owner who did not begin it."""
        try:
            return await self._runs.thread(thread, principal=principal)
        except NotFoundError:
            return []

    # --- upkeep --------------------------------------------------------------------------------

    async def forget_expired(self, runs: list[str], threads: list[str]) -> None:
        """Erase what is left of runs that went by the retention, and of conversations (by their
        names in the store) of which nothing is left."""
        await asyncio.gather(*(forget_names(self._store, run) for run in runs))
        await asyncio.gather(*(forget_links(self._store, run) for run in runs))
        await asyncio.gather(*(self._forget_unless_used(thread) for thread in threads))

    async def forget_unused(self, retention: float) -> None:
        """Erase titles of conversations that never had a run, ``retention`` seconds after they
        were given; and once a day look at everything that is kept of conversations and runs, should
        a crash, or the end of a key in the store, have left some of it."""
        store, now = self._store, time.time()
        for name in await store.documents(_UNUSED, most=_MOST_SWEPT):
            entry = await self._entry(name)
            if entry is None or entry.updated <= now - retention:
                await self._forget_unless_used(name)
                await store.set_document(_UNUSED, name, None)
        last = await store.document(*_LAST_LOOK)
        if last is not None and 0 <= now - float(last) < _LOOK_SECONDS:
            return
        if await store.swap_document(*_LAST_LOOK, last, str(now).encode()):
            for name, data in (await store.documents(ENTRY, most=_MOST_SWEPT)).items():
                if entry_of(data).updated <= now - retention:
                    await self._forget_unless_used(name)
            await forget_stale_names(store)

    async def _forget_unless_used(self, name: str) -> None:
        """Who starts a run in the conversation meanwhile creates it first, and then the entry."""
        store = self._store
        entry = await store.document(ENTRY, name)
        if await store.thread(name, most=1):
            return
        await self._forget_shared(name)
        if entry is None or await store.swap_document(ENTRY, name, entry, None):
            await store.set_document(TITLE, name, None)
        self._announce_removal(name)

    async def _forget(self, name: str) -> None:
        await self._forget_shared(name)
        for kind in (TITLE, ENTRY, _UNUSED):
            await self._store.set_document(kind, name, None)
        self._announce_removal(name)

    def _announce_removal(self, name: str) -> None:
        """The list of whoever began it; those of members hear of the end of their memberships."""
        principal, thread = parts_of_scope(name)
        self._feeds.announce_lists(name, {principal: thread})

    @property
    def _feeds(self) -> Feeds:
        return self._runs.worker.feeds

    async def _forget_shared(self, name: str) -> None:
        await forget_conversation(self._store, name)
        await self._runs.members.forget(name)

    async def _entry(self, name: str) -> Entry | None:
        data = await self._store.document(ENTRY, name)
        return None if data is None else entry_of(data)

    async def _change(
        self, name: str, change: Callable[[Entry | None], Entry | None]
    ) -> Entry | None:
        """Change the entry, which others do as well: ``change`` is asked again where somebody was
        quicker. It returns the entry as it is to be, or None to leave it; so does this."""
        while True:
            data = await self._store.document(ENTRY, name)
            entry = change(None if data is None else entry_of(data))
            if entry is None or await self._store.swap_document(ENTRY, name, data, encoded(entry)):
                return entry


def _subject(messages: list[Message]) -> str | None:
    """The first line that a person asked, or the name of the file that came without words."""
    question = next((m for m in messages if m.role == "user"), None)
    if question is None:
        return None
    text = question.text.strip() or next(
        (part.name for part in question.parts if isinstance(part, FilePart) and part.name), ""
    )
    line = " ".join(text.partition("\n")[0].split())
    return (line if len(line) <= _MOST_FIRST else line[: _MOST_FIRST - 1].rstrip() + "…") or None
