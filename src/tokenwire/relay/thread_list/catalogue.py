"""The conversations of a principal, newest first, as one list.

Always true: what stands in it is what the principal may read: what it began and has not given away,
and what it has joined; what a page costs beyond the list is what is on the page.
"""

from __future__ import annotations

import asyncio

import msgspec

from tokenwire.log.base import Store
from tokenwire.relay.conversation.queue import STATE
from tokenwire.relay.conversation.scope import scope_of
from tokenwire.relay.members.access import Access
from tokenwire.relay.members.members import Members
from tokenwire.relay.thread_list.entries import (
    ENTRY,
    TITLE,
    Facts,
    ThreadInfo,
    Waits,
    activity,
    entry_of,
)

__all__ = ["Catalogue", "ThreadPage"]

#: Conversations of one principal that a list reads.
_MOST = 100_000
#: Conversations that are read at the same time.
_AT_ONCE = 32


class ThreadPage(msgspec.Struct):
    """Some conversations. ``next``: pass it as ``before`` for older ones, where there are any;
    ``facts``: what they are made of, in their order."""

    threads: list[ThreadInfo]
    facts: list[Facts]
    next: str | None = None


class _Listed(msgspec.Struct, frozen=True):
    facts: Facts
    info: ThreadInfo
    entry: bytes | None


class Catalogue:
    """The conversations of a store. ``waits``: whether an open run waits. Methods raise
    `LogError`."""

    def __init__(self, store: Store, members: Members, waits: Waits) -> None:
        self._store, self._members, self._waits = store, members, waits

    async def page(self, principal: str, limit: int, before: str | None = None) -> ThreadPage:
        """The newest ``limit`` conversations of ``principal``, of those after the thread
        ``before``; none where that is not among them."""
        listed = await self._list(principal)
        if before is not None:
            names = [one.info.thread for one in listed]
            listed = listed[names.index(before) + 1 :] if before in names else []
        rest, listed = listed[limit:], listed[:limit]
        queues = await self._store.documents(STATE, prefix=scope_of(principal, ""), most=_MOST)
        gate = asyncio.Semaphore(_AT_ONCE)

        async def whole(one: _Listed) -> Facts:
            scope = one.facts.scope
            async with gate:
                queue = queues.get(scope) or await self._foreign_queue(principal, scope)
                state, waiting = await activity(self._store, self._waits, scope, one.entry, queue)
            return one.facts._replace(state=state, queue=waiting)

        facts = await asyncio.gather(*(whole(one) for one in listed))
        for one, fact in zip(listed, facts, strict=True):
            one.info.state, one.info.queue = fact.state, fact.queue
        threads = [one.info for one in listed]
        return ThreadPage(threads, list(facts), threads[-1].thread if rest else None)

    async def names(self, principal: str) -> set[str]:
        """What ``principal`` calls its conversations."""
        return {one.info.thread for one in await self._list(principal)}

    async def facts(self, scope: str) -> Facts:
        """What lists show of one conversation."""
        store = self._store
        data, title, queue = await asyncio.gather(
            store.document(ENTRY, scope),
            store.document(TITLE, scope),
            store.document(STATE, scope),
        )
        roster = await self._members.roster(scope)
        state, waiting = await activity(store, self._waits, scope, data, queue)
        entry = entry_of(data) if data is not None else None
        return Facts(scope, entry, title.decode() if title else None, roster, state, waiting)

    # --- inside --------------------------------------------------------------------------------

    async def _list(self, principal: str) -> list[_Listed]:
        store, members = self._store, self._members
        prefix = scope_of(principal, "")
        entries = await store.documents(ENTRY, prefix=prefix, most=_MOST)
        titles = await store.documents(TITLE, prefix=prefix, most=_MOST)
        rosters = await members.rosters(principal) if principal else {}
        listed: list[_Listed] = []
        for scope, data in entries.items():
            title = titles[scope].decode() if scope in titles else None
            facts = Facts(scope, entry_of(data), title, rosters.get(scope))
            info = facts.info(principal)
            if info is not None:  # else they gave it to others, and left
                listed.append(_Listed(facts, info, data))
        joined = await members.joined(principal)
        foreign = await asyncio.gather(*(self._joined(access) for access in joined))
        listed += [one for one in foreign if one is not None]
        listed.sort(key=lambda one: (-one.info.updated, one.info.thread))
        return listed

    async def _joined(self, access: Access) -> _Listed | None:
        store, scope = self._store, access.scope
        title, data = await store.document(TITLE, scope), await store.document(ENTRY, scope)
        roster = await self._members.roster(scope)
        entry = entry_of(data) if data is not None else None
        facts = Facts(scope, entry, title.decode() if title else None, roster)
        info = facts.info(access.principal)
        return _Listed(facts, info, data) if info is not None else None

    async def _foreign_queue(self, principal: str, scope: str) -> bytes | None:
        """Head and queue of a conversation that somebody else began."""
        if scope.startswith(scope_of(principal, "")):
            return None
        return await self._store.document(STATE, scope)
