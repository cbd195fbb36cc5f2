"""Members of a conversation, on every store: roles, invitations, and readers that end with them."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.conversation import Device, HeldModel, device, until
from support.redis import redis_server
from support.spine import run_async
from tokenwire import Principal
from tokenwire.errors import (
    ConflictError,
    ForbiddenError,
    InputError,
    LimitError,
    NotFoundError,
    RoleError,
    TokenwireError,
)
from tokenwire.events.message import user
from tokenwire.events.model import Control, Data
from tokenwire.events.request import Request
from tokenwire.log.base import Store
from tokenwire.log.memory import MemoryStore
from tokenwire.log.open import open_store
from tokenwire.relay.conversation.scope import scope_of
from tokenwire.relay.description import RunMeta
from tokenwire.relay.members.access import Access
from tokenwire.relay.members.members import Members
from tokenwire.relay.members.roster import (
    MEMBER_ROLES,
    MOST_INVITES,
    MOST_MEMBERS,
    Invite,
    Roster,
)
from tokenwire.relay.record import Chain
from tokenwire.relay.runs import Runs
from tokenwire.relay.threads import Threads
from tokenwire.server.routes.conversation.events import open_thread
from tokenwire.tools.registry import tool

Opener = Callable[[], Store]


@pytest.fixture(scope="module")
def redis() -> Iterator[str]:
    with redis_server() as server:
        yield server.url


@pytest.fixture(params=["memory", "sqlite", "redis"])
def opener(request: pytest.FixtureRequest, tmp_path: Any) -> Opener:
    """Opens one more connection to the store of a test; memory has one only."""
    if request.param == "memory":
        store = MemoryStore()
        return lambda: store
    if request.param == "sqlite":
        return lambda: open_store(f"sqlite:{tmp_path}/log.db")
    url = request.getfixturevalue("redis")
    prefix = f"m{secrets.token_hex(5)}"
    return lambda: open_store(f"{url}?prefix={prefix}")


@asynccontextmanager
async def opened(opener: Opener) -> AsyncIterator[Members]:
    store = opener()
    await store.start()
    try:
        yield Members(store)
    finally:
        await store.close()


async def shared(members: Members, **roles: Any) -> tuple[Access, str]:
    """A conversation of ann with these members: her access, and its id."""
    access = await members.enter("ann", "trip")
    roster = None
    for name, role in (roles or {"ann": "own"}).items():
        roster = await members.put(access, name, role)
    assert roster is not None
    return access, roster.id


# --- who may do what -----------------------------------------------------------------------------


def test_a_name_is_ones_own_and_an_id_is_that_of_a_conversation(opener: Opener) -> None:
    async def main() -> None:
        async with opened(opener) as members:
            _, shared_id = await shared(members, bob="write")
            bobs = await members.enter("bob", "trip", "own")  # his own, of the same name
            assert (bobs.scope, bobs.role, bobs.id) == (scope_of("bob", "trip"), "own", None)
            joined = await members.enter("bob", shared_id)
            assert (joined.scope, joined.thread) == (scope_of("ann", "trip"), shared_id)
            anns = await members.enter("ann", shared_id, "own")  # the owner's name for it
            assert (anns.thread, anns.names) == ("trip", ("trip", shared_id))
            assert [access.thread for access in await members.joined("bob")] == [shared_id]
            assert await members.joined("ann") == []
            assert await members.joined("eve") == []

    run_async(main())


def test_each_role_permits_those_before_it_and_no_other(opener: Opener) -> None:
    async def main() -> None:
        async with opened(opener) as members:
            roles = {f"p-{role}": role for role in MEMBER_ROLES}
            _, shared_id = await shared(members, **roles)
            for name, role in roles.items():
                for needed in MEMBER_ROLES:
                    if MEMBER_ROLES.index(needed) <= MEMBER_ROLES.index(role):
                        assert (await members.enter(name, shared_id, needed)).role == role
                        continue
                    with pytest.raises(RoleError) as refused:
                        await members.enter(name, shared_id, needed)
                    assert refused.value.details["role"] == needed

    run_async(main())


LOOKALIKES = ["Bob", "BOB", "b\u043eb", "bo\u0301b", "bob/", "/bob", "team/bob", "bob\u200b", ""]


def test_strangers_get_the_answer_for_what_never_was(opener: Opener) -> None:
    async def main() -> None:
        async with opened(opener) as members:
            _, shared_id = await shared(members, bob="own")
            strangers = [*LOOKALIKES, "x" * 200, Principal("bob", "acme").name]
            for stranger in [name for name in strangers if name]:
                errors = []
                for name in (shared_id, "thr_" + "a" * 25):
                    with pytest.raises(NotFoundError) as refused:
                        await members.enter(stranger, name)
                    errors.append((refused.value.message, refused.value.details))
                assert errors[0] == errors[1]
                own = await members.enter(stranger, "trip")  # their own name
                assert own.scope == scope_of(stranger, "trip")

    run_async(main())


def test_only_owners_change_it_and_the_last_one_stays(opener: Opener) -> None:
    async def main() -> None:
        async with opened(opener) as members:
            ann, shared_id = await shared(members, bob="approve", carl="read")
            for name in ("bob", "carl"):
                access = await members.enter(name, shared_id)
                for act in (
                    members.put(access, name, "own"),  # one's own role, raised
                    members.put(access, "eve", "read"),
                    members.remove(access, "ann"),
                    members.invite(access, "own", ttl=60, uses=1),
                ):
                    with pytest.raises(RoleError):
                        await act
            # What somebody was when they asked does not count, but what they are.
            stale = msgspec.structs.replace(await members.enter("bob", shared_id), role="own")
            with pytest.raises(RoleError):
                await members.put(stale, "bob", "own")
            for act in (members.remove(ann, "ann"), members.put(ann, "ann", "write")):
                with pytest.raises(ConflictError) as last:
                    await act
                assert last.value.details["reason"] == "last_owner"
            await members.put(ann, "bob", "own")
            await members.remove(ann, "ann")  # given to bob
            with pytest.raises(NotFoundError):
                await members.enter("ann", "trip")
            with pytest.raises(NotFoundError):
                await members.put(ann, "ann", "own")
            bob = await members.enter("bob", shared_id, "own")
            await members.put(bob, "ann", "read")
            assert (await members.enter("ann", "trip")).role == "read"

    run_async(main())


def test_what_changes_at_once_changes_one_after_the_other(opener: Opener) -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            both = [await stack.enter_async_context(opened(opener))]
            is_shared = not isinstance(opener(), MemoryStore)
            both += [await stack.enter_async_context(opened(opener))] if is_shared else both
            ann, shared_id = await shared(both[0], bob="own")
            bob = await both[1].enter("bob", shared_id)
            names = [f"p{number}" for number in range(8)]
            await asyncio.gather(
                *(both[n % 2].put(ann, name, "read") for n, name in enumerate(names))
            )
            # Two owners who remove each other, and who leave at once: one stays.
            outcomes = await asyncio.gather(
                both[0].remove(ann, "ann"), both[1].remove(bob, "bob"), return_exceptions=True
            )
            assert sum(isinstance(one, TokenwireError) for one in outcomes) == 1, outcomes
            roster = await both[0].roster(ann.scope)
            assert roster is not None
            owners = [n for n, m in roster.members.items() if m.role == "own"]
            assert len(owners) == 1
            assert set(names) <= set(roster.members)

    run_async(main())


def test_the_first_two_who_share_a_conversation_make_one_id(opener: Opener) -> None:
    async def main() -> None:
        async with opened(opener) as members:
            ann = await members.enter("ann", "trip")
            rosters = await asyncio.gather(
                *(members.put(ann, f"p{number}", "read") for number in range(6))
            )
            assert len({roster.id for roster in rosters}) == 1
            assert await members.scope("p1", rosters[0].id) == scope_of("ann", "trip")
            roster = await members.roster(ann.scope)
            assert roster is not None
            assert len(roster.members) == 7

    run_async(main())


def test_nobody_shares_where_nobody_has_a_name(opener: Opener) -> None:
    async def main() -> None:
        async with opened(opener) as members:
            everybody = await members.enter("", "trip", "own")
            assert everybody.scope == scope_of("", "trip")
            for act in (
                members.put(everybody, "bob", "read"),
                members.invite(everybody, "read", ttl=60, uses=1),
            ):
                with pytest.raises(ForbiddenError):
                    await act
            assert await members.accept("thr_" + "a" * 25, "x", "") is None

    run_async(main())


def test_a_conversation_is_forgotten_with_its_members(opener: Opener) -> None:
    async def main() -> None:
        async with opened(opener) as members:
            ann, shared_id = await shared(members, bob="own")
            _, invite = await members.invite(ann, "write", ttl=60, uses=5)
            await members.forget(ann.scope)
            with pytest.raises(NotFoundError):
                await members.enter("bob", shared_id)
            assert await members.joined("bob") == []
            assert await members.accept(shared_id, invite, "carl") is None
            # Another one of that name has nothing to do with it.
            _, other = await shared(members, dora="read")
            assert other != shared_id
            assert await members.accept(other, invite, "carl") is None
            with pytest.raises(NotFoundError):
                await members.enter("bob", other)

    run_async(main())


# --- invitations ---------------------------------------------------------------------------------


def test_an_invitation_is_used_as_often_as_it_says(opener: Opener) -> None:
    async def main() -> None:
        async with opened(opener) as members:
            ann, _ = await shared(members)
            thread, once = await members.invite(ann, "write", ttl=60, uses=1)
            people = [f"p{number}" for number in range(5)]
            joined = await asyncio.gather(*(members.accept(thread, once, p) for p in people))
            assert sum(access is not None for access in joined) == 1
            (winner,) = [access for access in joined if access is not None]
            assert winner.role == "write"
            # Who is a member already uses nothing up, and rises by nothing.
            _, other = await members.invite(ann, "approve", ttl=60, uses=1)
            again = await members.accept(thread, other, winner.principal)
            assert again is not None
            assert again.role == "write"
            owner = await members.accept(thread, other, "ann")
            assert owner is not None
            assert owner.role == "own"
            assert await members.accept(thread, other, "late") is not None
            assert await members.accept(thread, other, "later") is None

    run_async(main())


def test_who_was_removed_does_not_come_back_by_an_old_invitation(opener: Opener) -> None:
    async def main() -> None:
        async with opened(opener) as members:
            ann, _ = await shared(members)
            thread, old = await members.invite(ann, "write", ttl=60, uses=50)
            assert await members.accept(thread, old, "bob") is not None
            await members.remove(ann, "bob")
            assert await members.accept(thread, old, "bob") is None
            assert await members.accept(thread, old, "carl") is not None  # others do
            _, new = await members.invite(ann, "read", ttl=60, uses=1)
            back = await members.accept(thread, new, "bob")
            assert back is not None
            assert back.role == "read"
            await members.remove(back, "bob")  # who leaves is free to come back
            assert await members.accept(thread, old, "bob") is not None

    run_async(main())


def test_an_invitation_rests_on_the_right_of_who_invited(opener: Opener) -> None:
    async def main() -> None:
        async with opened(opener) as members:
            ann, shared_id = await shared(members, bob="own")
            bob = await members.enter("bob", shared_id)
            _, by_bob = await members.invite(bob, "write", ttl=60, uses=5)
            await members.put(ann, "bob", "write")  # an owner no more
            assert await members.accept(shared_id, by_bob, "carl") is None
            await members.put(ann, "bob", "own")
            assert await members.accept(shared_id, by_bob, "carl") is not None
            await members.remove(ann, "bob")
            await members.put(ann, "bob", "own")  # another membership: its invitations are gone
            assert await members.accept(shared_id, by_bob, "dora") is None
            _, revoked = await members.invite(ann, "write", ttl=60, uses=5)
            await members.uninvite(ann, revoked)
            assert await members.accept(shared_id, revoked, "dora") is None
            with pytest.raises(NotFoundError):
                await members.uninvite(ann, revoked)

    run_async(main())


def test_other_tenants_cannot_accept(opener: Opener) -> None:
    async def main() -> None:
        async with opened(opener) as members:
            ann = await members.enter(Principal("ann", "acme").name, "trip")
            thread, invite = await members.invite(ann, "write", ttl=60, uses=5)
            for stranger in ("bob", Principal("bob", "globex").name, "acme/bob"):
                assert await members.accept(thread, invite, stranger) is None
            assert await members.accept(thread, invite, Principal("bob", "acme").name) is not None

    run_async(main())


def test_members_and_invitations_are_bounded_and_end() -> None:
    now = 1000.0
    roster = Roster(id="thr_x", members={}).put("ann", "own", now)
    for number in range(MOST_MEMBERS - 1):
        roster = roster.put(f"p{number}", "read", now)
    with pytest.raises(LimitError):
        roster.put("one-more", "read", now)
    assert roster.put("p1", "write", now).members["p1"].role == "write"
    for number in range(MOST_INVITES):
        roster = roster.invite(f"i{number}", Invite("read", now + 10, 5, "ann"), now)
    with pytest.raises(LimitError):
        roster.invite("one-more", Invite("read", now + 10, 5, "ann"), now)
    roster = roster.invite("later", Invite("read", now + 99, 5, "ann"), now + 10)  # those are over
    assert set(roster.invites) == {"later"}
    with pytest.raises(LimitError):
        roster.accept("later", "one-more", now + 20)
    with pytest.raises(NotFoundError):
        roster.accept("later", "one-more", now + 99)


# --- runs of a shared conversation ---------------------------------------------------------------


def test_a_members_run_is_the_conversations(opener: Opener) -> None:
    async def main() -> None:
        model = HeldModel()
        async with device(opener(), model) as here:
            members = here.runs.members
            first = await here.done(await here.ask("of ann", thread="trip", principal="ann"))
            ann, shared_id = await shared(members, bob="write", carl="read")
            second = await here.ask("of bob", thread=shared_id, principal="bob")
            await here.done(second)
            assert [m["content"] for m in model.requests[-1]] == ["of ann", "re: of ann", "of bob"]
            for name, thread in (("ann", "trip"), ("bob", shared_id), ("carl", shared_id)):
                page, _ = await here.conversations.page(name, thread, most=10)
                assert [(turn.run, turn.by) for turn in page] == [
                    (first.run, "ann"),
                    (second.run, "bob"),
                ]
                infos = await here.runs.thread(thread, principal=name)
                assert [info.id for info in infos] == [second.run, first.run]
                assert {info.thread for info in infos} == {thread}
                snapshot = await here.runs.snapshot(second.run, principal=name)
                assert (snapshot.principal, snapshot.thread) == ("bob", thread)
                assert [m.text for m in snapshot.input] == ["of ann", "re: of ann", "of bob"]
            with pytest.raises(RoleError):
                await here.ask("of carl", thread=shared_id, principal="carl")
            with pytest.raises(RoleError):
                await here.runs.cancel(second.run, principal="carl")
            # Who started a run and was removed reads it no more; the others do.
            await members.remove(ann, "bob")
            for read in (here.runs.info, here.runs.snapshot, here.runs.follow, here.runs.replay):
                with pytest.raises(NotFoundError) as refused:
                    await read(second.run, principal="bob")
                assert refused.value.message == "no such run"
            assert (await here.runs.info(second.run, principal="ann")).principal == "bob"

    run_async(main())


def test_two_members_keys_are_two(opener: Opener) -> None:
    async def main() -> None:
        async with device(opener(), HeldModel()) as here:
            _, shared_id = await shared(here.runs.members, bob="write")
            asked = {"while_busy": "queue", "key": "same-key"}
            one = await here.ask("hold ann", thread="trip", principal="ann", **asked)
            two = await here.ask("of bob", thread=shared_id, principal="bob", **asked)
            again = await here.ask("of bob", thread=shared_id, principal="bob", **asked)
            assert one.run != two.run == again.run
            assert again.is_repeated
            assert two.position == 1

    run_async(main())


def test_a_waiting_turn_is_its_authors_and_the_owners(opener: Opener) -> None:
    async def main() -> None:
        model = HeldModel()
        async with device(opener(), model) as here:
            ann, shared_id = await shared(here.runs.members, bob="write", carl="approve")
            talk = here.conversations
            held = await here.ask("hold it", thread="trip", principal="ann", while_busy="queue")
            waits = await here.ask("of bob", thread=shared_id, principal="bob", while_busy="queue")
            for act in (
                talk.edit("carl", shared_id, waits.run, [user("of carl")]),
                talk.withdraw("carl", shared_id, waits.run),
                talk.send_now("carl", shared_id, waits.run),
            ):
                with pytest.raises(RoleError) as refused:
                    await act
                assert refused.value.details["role"] == "own"
            await talk.edit("bob", shared_id, waits.run, [user("of bob, again")])
            queue = await talk.edit("ann", "trip", waits.run, [user("of bob, by ann")])
            assert [(entry.text, entry.by) for entry in queue.waiting] == [
                ("of bob, by ann", "bob")
            ]
            # A turn of somebody who was removed while it waited is not answered.
            more = await here.ask("of carl", thread=shared_id, principal="carl", while_busy="queue")
            await here.runs.members.remove(ann, "bob")
            model.release("hold it")
            await here.done(held)
            await here.done(more)
            assert model.questions == ["hold it", "of carl"]
            assert not (await talk.queue("ann", "trip")).waiting

    run_async(main())


@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_a_waiting_turn_of_who_was_removed_is_dropped_for_good(opener: Opener, where: str) -> None:
    async def main() -> None:
        model = HeldModel()
        async with device(opener(), model) as here:
            ann, shared_id = await shared(here.runs.members, bob="own", carl="write")
            talk = here.conversations
            held = await here.ask("hold it", thread="trip", principal="ann", while_busy="queue")
            asked: dict[str, Any] = {"thread": shared_id, "while_busy": "queue"}
            await here.ask("of bob", principal="bob", key="b", **asked)
            more = await here.ask("of carl", principal="carl", **asked)
            last = await here.ask("more of bob", principal="bob", **asked)
            told: list[str] = []
            here.runs.worker.feeds.announce_queue = told.append  # type: ignore[method-assign]
            # Elsewhere: a process that dies before it has looked at the queue.
            members = here.runs.members if where == "here" else Members(here.runs.store)
            await members.put(ann, "carl", "approve")  # another role is the same membership
            await members.remove(ann, "bob")
            if where == "here":
                queue = await talk.queue("ann", "trip")
                assert [entry.text for entry in queue.waiting] == ["of carl"]
                assert ann.scope in told
            await members.put(ann, "bob", "own")
            with pytest.raises(NotFoundError) if where == "here" else nullcontext():
                await talk.edit("ann", "trip", last.run, [user("of bob, by ann")])
            model.release("hold it")
            await here.done(held)
            await here.done(more)
            new = await here.ask("bob again", principal="bob", **asked)
            await here.done(new)
            assert model.questions == ["hold it", "of carl", "bob again"]
            with pytest.raises(ConflictError) as refused:  # sent again, it is what it was
                await here.ask("of bob", principal="bob", key="b", **asked)
            assert refused.value.details["reason"] == "withdrawn"
            assert ann.scope in told

    run_async(main())


def test_a_turn_that_was_stored_before_turns_named_a_membership_is_answered(
    opener: Opener,
) -> None:
    async def main() -> None:
        model = HeldModel()
        async with device(opener(), model) as here:
            ann, shared_id = await shared(here.runs.members, bob="write")
            held = await here.ask("hold it", thread="trip", principal="ann", while_busy="queue")
            old = await here.ask("of bob", thread=shared_id, principal="bob", while_busy="queue")
            admission = here.conversations.admission
            (entry,) = (await here.conversations.queue("ann", "trip")).waiting
            content = await admission.content(ann.scope, entry)
            assert content is not None
            assert content.member
            content.member = None
            await admission.keep(ann.scope, entry.content, content)
            model.release("hold it")
            await here.done(held)
            await here.done(old)
            assert model.questions == ["hold it", "of bob"]

    run_async(main())


def test_an_interruption_by_a_writer_denies_what_waits_for_approval(opener: Opener) -> None:
    @tool(needs_approval=True)
    def delete_file(path: str) -> str:
        """Delete it."""
        raise AssertionError("nobody approved it")

    class Calls(HeldModel):
        async def open(self, call: Any, *, connect_timeout: float = 5.0) -> Any:
            stream = await super().open(call, connect_timeout=connect_timeout)
            if self.questions[-1] == "delete":
                stream.call({"name": "delete_file", "arguments": '{"path": "x"}'})
            return stream

    async def main() -> None:
        model = Calls()
        async with device(opener(), model, tools=[delete_file]) as here:
            _, shared_id = await shared(here.runs.members, bob="write", carl="approve")
            asked = await here.ask("delete", thread="trip", principal="ann")

            async def waits() -> bool:
                return (await here.runs.info(asked.run, principal="ann")).state == "waiting"

            await until(waits)
            fold = await here.runs.fold(asked.run, principal="bob")
            approval = next(tool.approval_id for tool in fold.tools.values())
            assert approval is not None
            with pytest.raises(RoleError):
                await here.runs.approve(asked.run, approval, approved=True, principal="bob")
            instead = await here.ask(
                "instead", thread=shared_id, principal="bob", while_busy="interrupt"
            )
            await here.done(instead)
            fold = await here.runs.fold(asked.run, principal="ann")
            assert fold.outcome == "cancelled"
            replay = await here.runs.replay(asked.run, principal="ann")
            controls = [event for event in replay.events() if isinstance(event, Control)]
            assert [(event.command, event.by) for event in controls] == [("cancel", "bob")]

    run_async(main())


def test_erasing_is_the_owners_whoever_began_it(opener: Opener) -> None:
    async def main() -> None:
        async with device(opener(), HeldModel()) as here:
            threads = Threads(here.runs)
            for thread in ("trip", "other"):
                await here.done(await here.ask("of ann", thread=thread, principal="ann"))
            ann, shared_id = await shared(here.runs.members, bob="own", carl="approve")
            run = (await here.done(await here.ask("x", thread=shared_id, principal="bob"))).run
            for act in (threads.erase(shared_id, "carl"), threads.erase_run(run, "carl")):
                with pytest.raises(RoleError):
                    await act
            await here.runs.members.remove(ann, "ann")
            assert [t.thread for t in (await threads.page("bob")).threads] == [shared_id]
            await threads.erase(shared_id, "bob")
            assert await here.runs.store.thread(scope_of("ann", "trip")) == []
            assert (await threads.page("bob")).threads == []
            # The name is free again, for whoever began it.
            assert await here.runs.thread("trip", principal="ann") == []
            assert len(await here.runs.thread("other", principal="ann")) == 1

    run_async(main())


def test_a_run_of_an_old_store_is_its_principals(opener: Opener) -> None:
    """What was stored before there were members: no scope, no roster, no author of a turn."""

    async def main() -> None:
        async with device(opener(), HeldModel()) as here:
            for name in ("ann", "bob"):
                await here.done(await here.ask(f"of {name}", thread="trip", principal=name))
            for name, other in (("ann", "bob"), ("bob", "ann")):
                (info,) = await here.runs.thread("trip", principal=name)
                with pytest.raises(NotFoundError):
                    await here.runs.info(info.id, principal=other)
                kind = f"turns:{scope_of(name, 'trip')}"
                data = msgspec.json.encode({"run": info.id, "outcome": "complete"})
                await here.runs.store.set_document(kind, info.id, data)
                page, _ = await here.conversations.page(name, "trip", most=5)
                assert [turn.by for turn in page] == [name]
            old = "thr_" + "b" * 25  # a name that looks like an id, from before there were ids
            scope = scope_of("ann", old)
            await here.runs.store.set_document("thread", scope, b'{"updated":1.0}')
            assert (await here.runs.members.enter("ann", old, "own")).scope == scope
            with pytest.raises(NotFoundError):
                await here.ask("new", thread="thr_" + "c" * 25, principal="ann")

    run_async(main())


# --- readers -------------------------------------------------------------------------------------


async def _read_to_the_end(here: Device, run: str, principal: str) -> list[str]:
    """What a reader gets, until the run or the reading ends: types, and the error's last."""
    follower = await here.runs.follow(run, principal=principal)
    seen: list[str] = []
    try:
        while (batch := await follower.next()) is not None:
            seen += [event.type for _, event in batch.events()]
    except NotFoundError as error:
        seen.append(error.message)
    finally:
        follower.close()
    return seen


def test_a_removal_ends_readers_of_every_process(opener: Opener) -> None:
    async def main() -> None:
        model = HeldModel()
        async with AsyncExitStack() as stack:
            one = await stack.enter_async_context(device(opener(), model))
            two = one
            if one.runs.store.shared:
                two = await stack.enter_async_context(device(opener(), model))
            ann, _ = await shared(one.runs.members, bob="read", carl="read")
            asked = await one.ask("hold it", thread="trip", principal="ann")
            readers = {
                (name, number): asyncio.create_task(_read_to_the_end(here, asked.run, name))
                for number, here in enumerate((one, two))
                for name in ("bob", "carl", "ann")
            }
            for here in (one, two):
                await until(lambda here=here: here.runs.members.watch._readers)
            await one.runs.members.remove(ann, "bob")
            for number in (0, 1):  # while the run goes on
                seen = await asyncio.wait_for(readers.pop(("bob", number)), 45)
                assert seen[-1] == "no such run"
                assert "run-end" not in seen
            model.release("hold it")
            for reader in readers.values():
                assert (await asyncio.wait_for(reader, 45))[-1] == "run-end"

    run_async(main())


def test_a_change_that_nobody_noted_is_noticed_all_the_same(
    opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process that removed somebody died before it could say so."""
    monkeypatch.setattr("tokenwire.relay.members.watch.PERIOD", 0.02)
    monkeypatch.setattr("tokenwire.relay.members.watch.BACKSTOP", 3)

    async def main() -> None:
        model = HeldModel()
        async with device(opener(), model) as here:
            ann, _ = await shared(here.runs.members, bob="read")
            asked = await here.ask("hold it", thread="trip", principal="ann")
            reader = asyncio.create_task(_read_to_the_end(here, asked.run, "bob"))
            await until(lambda: here.runs.members.watch._readers)
            roster = await here.runs.members.roster(ann.scope)
            assert roster is not None
            gone = roster.remove("bob", bars=True).encoded()
            await here.runs.store.set_document("thread-members", ann.scope, gone)
            if not here.runs.store.shared:  # there is no other process
                await here.runs.members.watch.check(ann.scope)
            assert (await asyncio.wait_for(reader, 45))[-1] == "no such run"
            model.release("hold it")
            await here.done(asked)

    run_async(main())


NAMES = ["bob", "carl"]
Step = tuple[str, str]
STEPS = st.lists(
    st.tuples(st.sampled_from(["join", "leave", "open", "append", "read"]), st.sampled_from(NAMES)),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_nobody_reads_what_was_appended_after_their_removal(steps: list[Step]) -> None:
    """In the process that removes them not one record; elsewhere within the time of a look."""

    async def main() -> None:
        store = MemoryStore()
        await store.start()
        runs = Runs(store, registry=HeldModel(), http=HeldModel())  # type: ignore[arg-type]
        members, run = runs.members, "a-run-of-this-conversation"
        ann, _ = await shared(members)
        meta = RunMeta(model="held", request=Request(messages=[]), principal="ann", thread="trip")
        await store.create(
            run, owner="test", meta=msgspec.json.encode(meta), thread=ann.scope, lease=1e6
        )
        chain, tail = Chain(run), 0
        inside: set[str] = set()
        #: Reader -> whose it is, and the newest record that they may have: None while a member.
        readers: list[tuple[Any, str]] = []
        most: dict[int, int] = {}
        for act, name in steps:
            if act == "join":
                await members.put(ann, name, "read")
                inside.add(name)
            elif act == "leave" and name in inside:
                await members.remove(ann, name)
                inside.discard(name)
                for number, (_, whose) in enumerate(readers):
                    if whose == name:
                        most.setdefault(number, tail)
            elif act == "open":
                try:
                    follower = await runs.follow(run, principal=name)
                except NotFoundError:
                    assert name not in inside
                    continue
                assert name in inside
                readers.append((follower, name))
            elif act == "append":
                record = chain.seal(Data(name="n", payload=tail))
                await store.append(run, epoch=1, first=tail + 1, records=[record])
                tail += 1
            elif act == "read":
                for number, (follower, whose) in enumerate(readers):
                    if whose != name:
                        continue
                    follower.poke()
                    try:
                        while (batch := await follower.next()) is not None and batch.records:
                            pass
                        while follower.after < tail and number not in most:
                            await follower.next()
                    except NotFoundError:
                        assert number in most
                    assert follower.after <= most.get(number, tail)
        for number, (follower, _) in enumerate(readers):
            if number in most:
                with pytest.raises(NotFoundError):
                    await _drained(follower)
                assert follower.after <= most[number]
            follower.close()
        await runs.worker.feeds.aclose()
        await runs.worker.lists.aclose()
        await store.close()

    run_async(main())


def test_what_is_being_read_at_the_moment_of_the_removal_is_not_handed_out(
    opener: Opener,
) -> None:
    async def main() -> None:
        model = HeldModel()
        async with device(opener(), model) as here:
            ann, _ = await shared(here.runs.members, bob="read")
            asked = await here.done(await here.ask("of ann", thread="trip", principal="ann"))
            follower = await here.runs.follow(asked.run, principal="bob")
            reading = asyncio.Event()
            log, read = here.runs.store, here.runs.store.read

            async def slow(*of: Any, **how: Any) -> Any:
                page = await read(*of, **how)
                reading.set()
                await here.runs.members.remove(ann, "bob")
                return page

            log.read = slow  # type: ignore[method-assign]
            for _ in range(2):
                with pytest.raises(NotFoundError):
                    await follower.next()
            log.read = read  # type: ignore[method-assign]
            assert reading.is_set()
            assert follower.after == 0
            follower.close()

    run_async(main())


def test_who_comes_while_they_are_removed_reads_nothing_after_it(opener: Opener) -> None:
    """Their right was looked up before, and the reading begins after the removal was answered."""

    async def main() -> None:
        async with device(opener(), HeldModel()) as here:
            members = here.runs.members
            ann, shared_id = await shared(members, bob="read")
            asked = await here.done(await here.ask("of ann", thread="trip", principal="ann"))
            enter, in_scope = members.enter, members.in_scope

            async def late(access: Any) -> Any:
                members.enter, members.in_scope = enter, in_scope  # type: ignore[method-assign]
                await members.remove(ann, "bob")
                return access

            async def entered(*of: Any) -> Any:
                return await late(await enter(*of))

            async def found(*of: Any) -> Any:
                return await late(await in_scope(*of))

            members.in_scope = found  # type: ignore[method-assign]
            follower = await here.runs.follow(asked.run, principal="bob")
            with pytest.raises(NotFoundError):
                await follower.next()
            follower.close()

            await members.put(ann, "bob", "read")
            members.enter = entered  # type: ignore[method-assign]
            info: Any = SimpleNamespace(principal="bob", by="bob")
            state: Any = SimpleNamespace(
                runs=here.runs, store=here.runs.store, threads=Threads(here.runs)
            )
            stream = await open_thread(state, info, shared_id, None, whole=True)
            with pytest.raises(NotFoundError):
                await stream.next()
            stream.close()
            assert not members.watch._readers

    run_async(main())


async def _drained(follower: Any) -> None:
    follower.poke()
    while (batch := await follower.next()) is not None and batch.records:
        pass
    raise InputError("it may still read")
