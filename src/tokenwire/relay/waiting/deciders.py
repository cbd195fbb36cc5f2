"""Who may decide about what waits in a run: the one place that says it.

Always true: an entry of the index says nothing about rights; they are looked up when it is read and
again when somebody decides. A run of a conversation is decided by the members whose role is
``approve`` or more, any other by its principal.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from tokenwire.events.principal import parts_of
from tokenwire.log.base import LogInfo
from tokenwire.relay.conversation.scope import principal_of
from tokenwire.relay.description import meta_of, scope_of_run
from tokenwire.relay.members.access import Access
from tokenwire.relay.members.members import Members
from tokenwire.relay.waiting.entry import Entry

__all__ = ["BY_OWNER", "BY_SCOPE", "Deciders", "Reach", "Source", "places_of"]

#: Kinds of documents of the index: by the owner of what waits, and by its conversation.
BY_OWNER, BY_SCOPE = "waiting", "waiting-thread"
_BETWEEN = "\x1f"


class Source(NamedTuple):
    """Where entries are that somebody may decide about: documents of ``kind`` that begin with
    ``prefix``."""

    kind: str
    prefix: str


class Reach(NamedTuple):
    """What somebody who may decide about a run calls its ``thread``, and the ids of all who may;
    none where everybody is one principal. ``member``: of which membership the right comes."""

    thread: str | None
    deciders: list[str]
    member: str = ""


def places_of(entry: Entry) -> list[Source]:
    """Where an entry is kept: one place for its owner, one for its conversation."""
    owner = entry.principal if entry.scope is None else principal_of(entry.scope)
    places = [Source(BY_OWNER, owner + _BETWEEN)]
    if entry.scope is not None:
        places.append(Source(BY_SCOPE, entry.scope + _BETWEEN))
    return places


class Deciders:
    """The rights on the runs of a store. Methods raise `LogError`."""

    def __init__(self, members: Members) -> None:
        self._members = members

    async def sources(self, principal: str, thread: str | None = None) -> list[Source]:
        """Where there may be something that ``principal`` may decide about; of one conversation
        with ``thread``."""
        if thread is not None:
            scope = await self._members.scope(principal, thread)
            return [Source(BY_SCOPE, scope + _BETWEEN)]
        joined = await self._members.joined(principal)
        scopes = [access.scope for access in joined if access.permits("approve")]
        shared = [Source(BY_SCOPE, scope + _BETWEEN) for scope in scopes]
        return [Source(BY_OWNER, principal + _BETWEEN), *shared]

    async def reach(self, info: LogInfo, principal: str) -> Reach | None:
        """How ``principal`` may decide about the approvals of a run; None where it may not."""
        meta = meta_of(info)
        scope = scope_of_run(meta)
        if scope is None:
            return Reach(None, _ids([meta.principal])) if meta.principal == principal else None
        access, roster = await asyncio.gather(
            self._members.in_scope(scope, principal), self._members.roster(scope)
        )
        if access is None or not access.permits("approve"):
            return None
        if roster is None:
            return Reach(access.thread, _ids([principal_of(scope)]))
        names = [
            name
            for name, member in roster.members.items()
            if Access(scope, name, "", member.role).permits("approve")
        ]
        return Reach(access.thread, _ids(names), access.member)


def _ids(principals: list[str]) -> list[str]:
    return sorted(user for user, _ in map(parts_of, principals) if user)
