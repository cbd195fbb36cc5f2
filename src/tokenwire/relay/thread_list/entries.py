"""What a list shows of one conversation: its documents, and what is under way in it.

Always true: a run writes the conversation's entry and a person its title, each a document of its
own, so neither undoes the other; whether something is under way the runs say, and an entry only
that nothing is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from hashlib import blake2b
from typing import Literal, NamedTuple

import msgspec

from tokenwire.errors import GoneError, LogError, NotFoundError
from tokenwire.log.base import LogInfo, Store
from tokenwire.relay.conversation.queue import Queue
from tokenwire.relay.conversation.scope import principal_of, thread_of
from tokenwire.relay.members.roster import MemberRole, Roster

__all__ = [
    "ENTRY",
    "TITLE",
    "Activity",
    "Entry",
    "Facts",
    "ThreadInfo",
    "Waits",
    "activity",
    "encoded",
    "entry_of",
    "title_of",
]

#: The documents with the entry and the title of a conversation.
ENTRY, TITLE = "thread", "thread-title"

Activity = Literal["running", "waiting"]
#: Whether an open run waits for a person or a client.
Waits = Callable[[LogInfo], Awaitable[bool]]


class ThreadInfo(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A conversation in a list. ``thread``: what its reader calls it; ``updated``: Unix seconds of
    its newest run; ``state``: what it does, None for nothing; ``queue``: how many turns wait in it.
    Of a shared one ``id``: by which all of its members reach it; ``role``: of its reader;
    ``members``: how many it has."""

    thread: str
    title: str | None = None
    updated: float
    state: Activity | None = None
    queue: int = 0
    id: str | None = None
    role: MemberRole | None = None
    members: int | None = None


class Entry(msgspec.Struct, omit_defaults=True):
    """What a run leaves of its conversation. ``updated``: Unix seconds; ``first``: what the first
    question was about, and ``run`` which run asked it; ``newest``: the newest run, and ``is_over``:
    that it is known to have ended."""

    updated: float = 0.0
    first: str | None = None
    run: str | None = None
    newest: str | None = None
    is_over: bool = False


class Facts(NamedTuple):
    """All that lists show of the conversation ``scope``. ``entry``: None where it is not there."""

    scope: str
    entry: Entry | None
    title: str | None
    roster: Roster | None
    state: Activity | None = None
    queue: int = 0

    def principals(self) -> set[str]:
        """In whose lists it stands."""
        if self.roster is not None:
            return set(self.roster.members)
        return {principal_of(self.scope)} if self.entry is not None else set()

    def info(self, principal: str) -> ThreadInfo | None:
        """How it stands in the list of ``principal``; None where it does not."""
        roster, entry = self.roster, self.entry
        is_own = principal_of(self.scope) == principal
        member = roster.members.get(principal) if roster is not None else None
        if member is None and (roster is not None or not is_own):
            return None
        if entry is None and is_own:
            return None
        entry = entry or Entry()
        name = thread_of(self.scope) if is_own or roster is None else roster.id
        info = ThreadInfo(
            thread=name,
            title=self.title or entry.first,
            updated=entry.updated,
            state=self.state,
            queue=self.queue,
        )
        if roster is not None and member is not None:
            info.id, info.role, info.members = roster.id, member.role, len(roster.members)
        return info

    def mark(self, principal: str) -> str:
        """What tells one state of it in the list of ``principal`` from another, and does not tell
        what it is; empty where it does not stand there, and with `BUSY` at the end while something
        is under way."""
        info = self.info(principal)
        if info is None:
            return ""
        # An older server writes the time of its newest run, and not which one that is.
        newest = (self.entry.newest, self.entry.updated) if self.entry is not None else None
        names = sorted(self.roster.members) if self.roster is not None else []
        data = msgspec.json.encode([self.scope, info.title, info.role, names, newest, info.id])
        data += msgspec.json.encode([info.state, info.queue])
        mark = blake2b(data, digest_size=5).hexdigest()
        return mark + BUSY if info.state is not None or info.queue else mark


#: At the end of the mark of a conversation in which something is under way.
BUSY = "+"


async def title_of(store: Store, scope: str) -> str | None:
    """The title that a person gave, else what the first question was about."""
    title = await store.document(TITLE, scope)
    if title:
        return title.decode()
    data = await store.document(ENTRY, scope)
    return entry_of(data).first if data is not None else None


async def activity(
    store: Store, waits: Waits, scope: str, data: bytes | None, queue: bytes | None
) -> tuple[Activity | None, int]:
    """What a conversation does, and how many turns wait in it; ``data``: its entry, ``queue``: its
    head and queue, as they are stored."""
    entry = entry_of(data) if data is not None else Entry()
    turns = msgspec.json.decode(queue, type=Queue) if queue is not None else Queue()
    newest = None if entry.is_over else entry.newest
    runs = list(turns.open)
    if newest is not None and newest not in runs:
        runs.append(newest)
    states = await asyncio.gather(*(_state(store, waits, run) for run in runs))
    ended = [run for run, state in zip(runs, states, strict=True) if state == "ended"]
    if data is not None and newest in ended:
        # So that the next one who reads the list need not look. A run that was started meanwhile
        # has another entry.
        entry.is_over = True
        with suppress(LogError):
            await store.swap_document(ENTRY, scope, data, encoded(entry))
    if "running" in states:
        return "running", len(turns.waiting)
    return ("waiting" if "waiting" in states else None), len(turns.waiting)


async def _state(
    store: Store, waits: Waits, run: str
) -> Literal["running", "waiting", "ended"] | None:
    """None: it is not there, or not yet."""
    try:
        info = await store.describe(run)
        if info.closed is not None:
            return "ended"
        return "waiting" if await waits(info) else "running"
    except (NotFoundError, GoneError):
        return None


def entry_of(data: bytes) -> Entry:
    """The value of an entry's document."""
    return msgspec.json.decode(data, type=Entry)


def encoded(entry: Entry) -> bytes:
    """An entry as it is stored."""
    return msgspec.json.encode(entry)
