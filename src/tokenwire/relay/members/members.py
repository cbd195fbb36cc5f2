"""Who may do what in a conversation: the one place that answers it, for every door.

Always true: a principal's own names are its own, whatever others call theirs; a conversation that
is shared has an id besides, unlike any other in the store, by which its members reach it; whoever
is no member gets the answer for a conversation that never was; nothing is remembered, so that a
right ends with its membership.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol

import msgspec

from tokenwire.errors import ForbiddenError, NotFoundError
from tokenwire.events.principal import parts_of
from tokenwire.log.base import Store
from tokenwire.relay.conversation.scope import principal_of, scope_of, thread_of
from tokenwire.relay.members.access import Access
from tokenwire.relay.members.roster import Invite, Member, MemberRole, Roster
from tokenwire.relay.members.watch import Watch

__all__ = ["Members", "is_shared_id"]

#: The documents of conversations: who belongs to one; the conversation of an id; and, by principal
#: and id, the conversations that somebody has joined.
_ROSTER, _ID, _JOINED = "thread-members", "thread-id", "thread-joined"
#: Where an entry of a conversation of this name would be (`tokenwire.relay.threads`).
_ENTRY = "thread"
#: The id of a shared conversation: made by a server, 125 random bits.
_SHARED_ID = re.compile(r"\Athr_[a-z2-7]{25}\Z")
_LETTERS = "abcdefghijklmnopqrstuvwxyz234567"
#: Conversations that one principal has joined, and that a list shows.
_MOST_JOINED = 10_000

Change = Callable[[Roster], Roster | None]
#: Told of a conversation's name in the store and of a principal who was removed from it.
Removed = Callable[[str, str], Awaitable[None]]


def is_shared_id(thread: str) -> bool:
    """Whether ``thread`` looks like the id of a shared conversation."""
    return _SHARED_ID.match(thread) is not None


class News(Protocol):
    """Who publishes what has changed (`tokenwire.relay.conversation.feed.Feeds`)."""

    def announce_members(
        self, scope: str, changes: list[dict[str, Any]], removed: dict[str, str]
    ) -> None:
        """``changes``: the events of the feed; ``removed``: the principals who belong to the
        conversation no more, with what they called it."""
        ...


class Members:
    """The members of the conversations of a store. ``news``: publishes what has changed;
    ``on_removed``: takes what a removed member has waiting away. Methods raise
    `LogError`."""

    def __init__(self, store: Store, news: News | None = None) -> None:
        self._store, self._news = store, news
        self.on_removed: Removed | None = None
        self.watch = Watch(store, self._may_read)

    # --- reading -------------------------------------------------------------------------------

    async def enter(self, principal: str, thread: str, role: MemberRole = "read") -> Access:
        """What ``principal`` may do in the conversation that it calls ``thread``. Raises
        `NotFoundError` where it is no member, `RoleError` where its role is less than ``role``."""
        access = await self.in_scope(await self.scope(principal, thread), principal)
        if access is None or (is_shared_id(thread) and not await self._is_there(access, thread)):
            raise NotFoundError("no such conversation", what="thread")
        access.require(role)
        return access

    async def scope(self, principal: str, thread: str) -> str:
        """The name in the store of what ``principal`` calls ``thread``, whether it may enter or
        not."""
        if principal and is_shared_id(thread):
            scope = await self._store.document(_ID, thread)
            if scope is not None:
                return scope.decode()
        return scope_of(principal, thread)

    async def in_scope(self, scope: str, principal: str) -> Access | None:
        """What ``principal`` may do in the conversation ``scope``; None where it is no member."""
        is_own = principal_of(scope) == principal
        thread = thread_of(scope)
        if not principal:
            return Access(scope, principal, thread) if is_own else None
        roster = await self.roster(scope)
        if roster is None:
            return Access(scope, principal, thread) if is_own else None
        member = roster.members.get(principal)
        if member is None:
            return None
        name = thread if is_own else roster.id
        return Access(scope, principal, name, member.role, roster.id, member.id)

    async def roster(self, scope: str) -> Roster | None:
        """Who belongs to a conversation; None where it is not shared."""
        data = await self._store.document(_ROSTER, scope)
        return None if data is None else msgspec.json.decode(data, type=Roster)

    async def joined(self, principal: str) -> list[Access]:
        """The conversations of others that ``principal`` has joined."""
        if not principal:
            return []
        prefix = scope_of(principal, "")
        names = await self._store.documents(_JOINED, prefix=prefix, most=_MOST_JOINED)
        ids = [thread_of(name) for name in names]
        accesses = await asyncio.gather(*(self._joined(principal, one) for one in ids))
        return [access for access in accesses if access is not None]

    async def rosters(self, principal: str) -> dict[str, Roster]:
        """Of the conversations that ``principal`` began those that are shared, by their names in
        the store."""
        prefix = scope_of(principal, "")
        rosters = await self._store.documents(_ROSTER, prefix=prefix, most=_MOST_JOINED)
        return {name: msgspec.json.decode(data, type=Roster) for name, data in rosters.items()}

    # --- changing ------------------------------------------------------------------------------

    async def put(self, access: Access, principal: str, role: MemberRole) -> Roster:
        """Give ``principal`` a role; a conversation of one person becomes a shared one. Raises
        `RoleError` unless ``access`` is an owner's, `LimitError`, and `ConflictError` for the last
        owner."""
        access.require("own")
        roster = await self._shared(access)
        await self._join(principal, roster.id)
        try:
            return await self._change(access, lambda one: one.put(principal, role, time.time()))
        finally:
            await self._check_hint(access.scope, principal, roster.id)

    async def remove(self, access: Access, principal: str) -> Roster:
        """End a membership: of another by an owner, or one's own. Its readers end with it. Raises
        `RoleError`, `ConflictError` for the last owner, and `NotFoundError` for who is no member,
        of whom nothing is left then, should a removal have been interrupted."""
        is_self = principal == access.principal
        if is_self:
            await self._shared(access)
        else:
            access.require("own")
        try:
            changed = await self._change(
                access,
                lambda one: one.remove(principal, bars=not is_self),
                role="read" if is_self else "own",
            )
        except NotFoundError as error:
            roster = await self.roster(access.scope)
            if error.details.get("what") == "member" and roster is not None:
                await self.watch.changed(access.scope)
                await self._clear(access.scope, principal, roster.id)
            raise
        await self._clear(access.scope, principal, changed.id)
        return changed

    async def invite(
        self, access: Access, role: MemberRole, *, ttl: float, uses: int
    ) -> tuple[str, str]:
        """A new invitation: the conversation's id, and the name of the invitation in it. ``ttl``:
        seconds for which it is open; ``uses``: how many people may accept it. Raises `RoleError`,
        `LimitError`."""
        access.require("own")
        thread = (await self._shared(access)).id
        name, now = secrets.token_hex(16), time.time()
        invite = Invite(role, now + ttl, uses, access.principal)
        await self._change(access, lambda one: one.invite(name, invite, now))
        return thread, name

    async def uninvite(self, access: Access, name: str) -> None:
        """Revoke an invitation. Raises `RoleError`, `NotFoundError`."""
        await self._change(access, lambda one: one.uninvite(name))

    async def accept(self, thread: str, name: str, principal: str) -> Access | None:
        """``principal`` accepts the invitation ``name`` to the conversation with the id ``thread``;
        None where it does not count, or is another tenant's. Raises `LimitError`."""
        data = await self._store.document(_ID, thread)
        if data is None or not principal:
            return None
        scope = data.decode()
        if parts_of(principal_of(scope))[1] != parts_of(principal)[1]:
            return None
        try:
            await self._swap(
                scope, thread, lambda one: one.accept(name, principal, time.time()), principal
            )
        except NotFoundError:
            return None
        await self._join(principal, thread)
        return await self.in_scope(scope, principal)

    async def forget(self, scope: str) -> None:
        """Erase who belongs to a conversation that is erased; readers of it end."""
        while True:
            data = await self._store.document(_ROSTER, scope)
            if data is None:
                return
            roster = msgspec.json.decode(data, type=Roster)
            if await self._store.swap_document(_ROSTER, scope, data, None):
                break
        await self._store.set_document(_ID, roster.id, None)
        for name in roster.members:
            await self._store.set_document(_JOINED, scope_of(name, roster.id), None)
        if self._news is not None:
            self._news.announce_members(scope, [], _names(scope, roster, roster.members))
        await self.watch.changed(scope)

    # --- inside --------------------------------------------------------------------------------

    async def _shared(self, access: Access) -> Roster:
        """The roster of a conversation, begun where it has none. Raises `RoleError`."""
        if not access.principal:
            raise ForbiddenError(
                "this server knows no principals who could share a conversation; it needs keys, "
                "an issuer of tokens or a 'user'"
            )
        roster = await self.roster(access.scope)
        if roster is not None:
            return roster
        access.require("own")
        owner = principal_of(access.scope)
        name = "thr_" + "".join(secrets.choice(_LETTERS) for _ in range(25))
        new = Roster(id=name, members={owner: Member("own", time.time())})
        await self._store.set_document(_ID, name, access.scope.encode())
        if await self._store.swap_document(_ROSTER, access.scope, None, new.encoded()):
            return new
        await self._store.set_document(_ID, name, None)
        return await self._shared(access)

    async def _change(self, access: Access, change: Change, role: MemberRole = "own") -> Roster:
        """Change the roster, for as long as ``access`` has ``role`` in it, and end readers who may
        read no more."""
        access.require(role)

        def checked(roster: Roster) -> Roster | None:
            member = roster.members.get(access.principal)
            if member is None:
                raise NotFoundError("no such conversation", what="thread")
            msgspec.structs.replace(access, role=member.role).require(role)
            return change(roster)

        return await self._swap(access.scope, None, checked, access.principal)

    async def _swap(self, scope: str, thread: str | None, change: Change, by: str) -> Roster:
        while True:
            data = await self._store.document(_ROSTER, scope)
            if data is None:
                raise NotFoundError("no such conversation", what="thread")
            roster = msgspec.json.decode(data, type=Roster)
            if thread is not None and roster.id != thread:
                raise NotFoundError("no such conversation", what="thread")
            changed = change(roster)
            if changed is None:
                return roster
            if await self._store.swap_document(_ROSTER, scope, data, changed.encoded()):
                if self._news is not None:
                    removed = roster.members.keys() - changed.members.keys()
                    names = _names(scope, roster, removed)
                    self._news.announce_members(scope, roster.events(changed, by), names)
                if not roster.members.keys() <= changed.members.keys():
                    await self.watch.changed(scope)
                return changed

    async def _join(self, principal: str, thread: str) -> None:
        """A hint for the list of ``principal``; the roster decides."""
        await self._store.set_document(_JOINED, scope_of(principal, thread), b"1")

    async def _joined(self, principal: str, thread: str) -> Access | None:
        scope = await self._store.document(_ID, thread)
        access = None if scope is None else await self.in_scope(scope.decode(), principal)
        return None if access is None or principal_of(access.scope) == principal else access

    async def _is_there(self, access: Access, thread: str) -> bool:
        """Whether something of one's own that looks like an id was there before ids were: nobody
        begins a conversation by a name that only a server gives."""
        if access.id == thread or not access.principal:
            return True
        store = self._store
        if await store.document(_ENTRY, access.scope) is not None:
            return True
        return bool(await store.thread(access.scope, most=1))

    async def _clear(self, scope: str, principal: str, thread: str) -> None:
        """Take away what was there for a member."""
        await self._check_hint(scope, principal, thread)
        if self.on_removed is not None:
            await self.on_removed(scope, principal)

    async def _check_hint(self, scope: str, principal: str, thread: str) -> None:
        """Take the hint of who is no member away."""
        if await self._may_read(scope, principal):
            return
        await self._store.set_document(_JOINED, scope_of(principal, thread), None)
        if await self._may_read(scope, principal):  # they joined again meanwhile
            await self._join(principal, thread)

    async def _may_read(self, scope: str, principal: str) -> bool:
        return await self.in_scope(scope, principal) is not None


def _names(scope: str, roster: Roster, principals: Iterable[str]) -> dict[str, str]:
    """What each of ``principals`` calls the conversation."""
    own = principal_of(scope)
    return {name: thread_of(scope) if name == own else roster.id for name in principals}
