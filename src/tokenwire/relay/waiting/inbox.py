"""The inbox: what waits for one principal, read from the index and checked against the logs.

Always true: what is shown waits at that moment: its run is open, its question is in the log, no
answer is in its mailbox, its time is not over, and the reader may decide; an entry that a crash
left too many is taken out by whoever finds it.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from typing import Any

import msgspec

from tokenwire.errors import GoneError, InputError, NotFoundError, StoreDamagedError
from tokenwire.events.codec import decode
from tokenwire.events.model import ApprovalAnswer, ApprovalRequest
from tokenwire.events.principal import parts_of
from tokenwire.log.base import LogInfo
from tokenwire.relay.commands import Command, counting, is_stop
from tokenwire.relay.record import json_of
from tokenwire.relay.runs import Runs
from tokenwire.relay.waiting.deciders import BY_OWNER, BY_SCOPE, Deciders, Reach, Source
from tokenwire.relay.waiting.entry import Entry, is_open

__all__ = ["MOST_PAGE", "Inbox", "Waiting", "WaitingPage"]

#: Entries of one page, at most.
MOST_PAGE = 200
#: Entries that one page looks at, where filters or leftovers of crashes leave most of them out.
_MOST_SEEN = 2000
#: Entries of a list that is shown whole.
_MOST_LISTED = 1000
#: Seconds between two looks at all that is listed.
_SWEEP_SECONDS = 3600.0
#: Runs that are checked at the same time.
_AT_ONCE = 16


class Waiting(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What waits for a person. ``run``, ``approval``, ``call``: the ids by which it is decided;
    ``tool``, ``arguments``: what would be called; ``reason``: why it is asked, if the run says;
    ``since`` and ``expires``: Unix seconds; ``deciders``: the ids of those who may decide;
    ``principal``: who started the run; ``model``: what asks."""

    run: str
    approval: str
    call: str
    tool: str
    arguments: Any = None
    reason: str | None = None
    thread: str | None = None
    model: str
    principal: str | None = None
    since: float
    expires: float | None = None
    deciders: list[str] = []


class WaitingPage(msgspec.Struct, kw_only=True):
    """Some of what waits, what waits longest first. ``next``: pass it as ``after`` for what
    follows; None at the end."""

    waiting: list[Waiting]
    next: str | None


class Inbox:
    """What waits in the store of ``runs``. Methods raise `LogError`."""

    def __init__(self, runs: Runs) -> None:
        self._runs, self._store = runs, runs.store
        self._index = runs.worker.waiting
        self.deciders = Deciders(runs.members)
        self._next_sweep = 0.0

    async def page(
        self,
        principal: str,
        *,
        limit: int = 50,
        after: str = "",
        thread: str | None = None,
        tool: str | None = None,
    ) -> WaitingPage:
        """At most ``limit`` of what waits for ``principal``, after the ``next`` of another page;
        ``thread``, ``tool``: only of these. Raises `InputError`."""
        if not 1 <= limit <= MOST_PAGE:
            raise InputError(f"'limit' must be 1 to {MOST_PAGE}", field="limit", most=MOST_PAGE)
        sources = await self.deciders.sources(principal, thread)
        items: list[Waiting] = []
        cursor, count = after, 0
        while len(items) < limit and count < _MOST_SEEN:
            most = limit - len(items)
            entries = await self._entries(sources, cursor, most)
            for name, waiting in await self._checked(entries, principal, tool):
                cursor = name
                if waiting is not None:
                    items.append(waiting)
            count += len(entries)
            if len(entries) < most:
                return WaitingPage(waiting=items, next=None)
        return WaitingPage(waiting=items, next=cursor)

    async def all(
        self, principal: str, *, thread: str | None = None, tool: str | None = None
    ) -> list[Waiting]:
        """All that waits for ``principal``, up to some thousands."""
        items: list[Waiting] = []
        after: str | None = ""
        while after is not None and len(items) < _MOST_LISTED:
            page = await self.page(
                principal, limit=MOST_PAGE, after=after, thread=thread, tool=tool
            )
            items += page.waiting
            after = page.next
        return items

    async def names(self, principal: str, thread: str | None = None) -> list[str]:
        """The names of the entries that may wait for ``principal``, unchecked: while they are the
        same, nothing came."""
        sources = await self.deciders.sources(principal, thread)
        return list(await self._entries(sources, "", _MOST_LISTED))

    async def sweep(self) -> None:
        """Take out what a crash left of runs that have ended or are gone; once an hour."""
        if time.monotonic() < self._next_sweep:
            return
        self._next_sweep = time.monotonic() + _SWEEP_SECONDS
        for kind in (BY_OWNER, BY_SCOPE):
            source, after = Source(kind, ""), ""
            while entries := await self._index.page(source, after, MOST_PAGE):
                await asyncio.gather(*(self._described(one) for one in entries.values()))
                after = list(entries)[-1]

    # --- inside ----------------------------------------------------------------------------------

    async def _entries(self, sources: list[Source], after: str, most: int) -> dict[str, Entry]:
        """The first ``most`` entries of all sources together, in the order of time."""
        pages = await asyncio.gather(*(self._index.page(s, after, most) for s in sources))
        merged: dict[str, Entry] = {}
        for page in pages:
            merged |= page
        return dict(heapq.nsmallest(most, merged.items(), key=lambda pair: pair[0]))

    async def _checked(
        self, entries: dict[str, Entry], principal: str, tool: str | None
    ) -> list[tuple[str, Waiting | None]]:
        gate = asyncio.Semaphore(_AT_ONCE)

        async def check(entry: Entry) -> Waiting | None:
            if tool is not None and entry.tool != tool:
                return None
            async with gate:
                return await self._waiting(entry, principal)

        items = await asyncio.gather(*(check(entry) for entry in entries.values()))
        return list(zip(entries, items, strict=True))

    async def _waiting(self, entry: Entry, principal: str) -> Waiting | None:
        info = await self._described(entry)
        if info is None or not await self._is_open(entry, info):
            return None
        if entry.expires is not None and time.time() * 1000 >= entry.expires:
            return None  # whoever owns the run is about to say so
        reach = await self.deciders.reach(info, principal)
        return None if reach is None else self._shown(entry, reach)

    def _shown(self, entry: Entry, reach: Reach) -> Waiting:
        return Waiting(
            run=entry.run,
            approval=entry.approval,
            call=entry.call,
            tool=entry.tool,
            arguments=entry.arguments,
            reason=entry.reason,
            thread=reach.thread,
            model=entry.model,
            principal=parts_of(entry.principal)[0] or None,
            since=entry.since / 1000,
            expires=None if entry.expires is None else entry.expires / 1000,
            deciders=reach.deciders,
        )

    async def _described(self, entry: Entry) -> LogInfo | None:
        """The entry's run, if it is open; the entry of another goes."""
        try:
            info = await self._store.describe(entry.run)
        except (NotFoundError, GoneError):
            await self._index.remove(entry)
            return None
        if info.closed is not None:
            await self._index.remove(entry)
            return None
        return info

    async def _is_open(self, entry: Entry, info: LogInfo) -> bool:
        """Whether the question is in the log and has no answer."""
        owned = self._runs.owned.get(entry.run)
        if owned is not None:
            fold = owned.loop.fold
            tool = fold.tools.get(entry.call)
            state = fold.approvals.get(entry.approval)
            is_same = state is not None and state.seq == entry.seq
            if not is_same or tool is None or not is_open(fold, tool):
                return False
        elif info.tail < entry.seq:
            return False  # the question is on its way, or was lost with its worker
        elif not await self._is_logged(entry):
            await self._index.remove(entry)
            return False
        commands = await self._store.commands(entry.run)
        return not any(_settles(command, entry) for command in counting(commands))

    async def _is_logged(self, entry: Entry) -> bool:
        page = await self._store.read(entry.run, after=entry.seq - 1, most=1)
        if not page.records:
            return False
        try:
            event = decode(json_of(page.records[0]))
        except (msgspec.MsgspecError, StoreDamagedError):
            return False
        return isinstance(event, ApprovalRequest) and event.approval_id == entry.approval


def _settles(command: Command, entry: Entry) -> bool:
    if is_stop(command):
        return True
    return isinstance(command, ApprovalAnswer) and command.approval_id == entry.approval
