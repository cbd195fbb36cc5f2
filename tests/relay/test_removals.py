"""Members who are removed while something of theirs is under way, on every store.

Always true: what the removal's answer came before does not begin; what had begun is there by then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from support.conversation import Device, HeldModel, device, until
from support.spine import run_async
from tokenwire.errors import LogError, NotFoundError, RoleError
from tokenwire.events.message import Message, user
from tokenwire.events.request import Request
from tokenwire.log.base import LogInfo, Store
from tokenwire.relay.conversation.conversations import Conversations
from tokenwire.relay.members.access import Access
from tokenwire.relay.members.members import Members
from tokenwire.relay.runs import Runs

NewLog = Callable[[], Store]


async def let_in(members: Members, who: str = "bob") -> tuple[Access, str]:
    """A conversation of ann with a writer: her access, and its id."""
    access = await members.enter("ann", "trip")
    return access, (await members.put(access, who, "write")).id


@pytest.mark.parametrize("rejoins", [False, True])
def test_a_turn_of_who_is_removed_before_it_starts_is_refused(
    every_log: NewLog, rejoins: bool
) -> None:
    """Between the look at the membership and the swap by which the turn is starting."""

    async def main() -> None:
        model = HeldModel()
        async with device(every_log(), model) as here:
            members, swap = here.runs.members, here.runs.store.swap_document
            ann, shared_id = await let_in(members)
            changes: list[str] = []

            async def starting(kind: str, name: str, old: bytes | None, new: bytes | None) -> bool:
                if kind == "conversation" and new and b'"starting"' in new and not changes:
                    changes.append("removed")
                    await members.remove(ann, "bob")
                    if rejoins:
                        await members.put(ann, "bob", "write")
                return await swap(kind, name, old, new)

            here.runs.store.swap_document = starting  # type: ignore[method-assign]
            asked: dict[str, Any] = {"thread": shared_id, "principal": "bob"}
            if rejoins:  # its turn is dropped; the conversation is theirs to speak in again
                assert (await here.ask("of bob", **asked)).info is None
            else:
                with pytest.raises(NotFoundError):
                    await here.ask("of bob", **asked)
            assert changes == ["removed"]
            assert await here.runs.store.thread(ann.scope) == []
            assert not (await here.conversations.queue("ann", "trip")).is_busy
            await here.done(await here.ask("of ann", thread="trip", principal="ann"))
            assert model.questions == ["of ann"]

    run_async(main())


@pytest.mark.parametrize("role", [None, "read"])
def test_a_run_beside_the_queue_is_taken_back_when_its_starter_was_removed(
    every_log: NewLog, role: Any
) -> None:
    """Between the look at the membership and the creation of the run."""

    async def main() -> None:
        model = HeldModel()
        async with device(every_log(), model) as here:
            members, create = here.runs.members, here.runs.store.create
            ann, shared_id = await let_in(members)
            created: list[str] = []

            async def creating(run: str, **fields: Any) -> LogInfo:
                if not created:
                    if role is None:
                        await members.remove(ann, "bob")
                    else:
                        await members.put(ann, "bob", role)
                created.append(run)
                return await create(run, **fields)

            here.runs.store.create = creating  # type: ignore[method-assign]
            said = Request(messages=[user("of bob")])
            with pytest.raises(NotFoundError if role is None else RoleError):
                await here.runs.start(
                    said, model="held", principal="bob", thread=shared_id, key="once"
                )
            assert len(created) == 1
            assert await here.runs.store.thread(ann.scope) == []
            assert not here.runs.owned
            # Once they are back the same request starts.
            await members.put(ann, "bob", "write")
            info = await here.runs.start(
                said, model="held", principal="bob", thread=shared_id, key="once"
            )
            assert await here.runs.store.thread(ann.scope) == [info.id]
            await here.runs.cancel(info.id, principal="bob")

    run_async(main())


def test_a_removal_waits_for_a_turn_that_is_starting(every_log: NewLog) -> None:
    async def main() -> None:
        model = HeldModel()
        async with device(every_log(), model) as here:
            members = here.runs.members
            ann, shared_id = await let_in(members)
            order: list[str] = []
            tasks: list[asyncio.Task[None]] = []

            async def remove() -> None:
                await members.remove(ann, "bob")
                order.append("removed")

            async def is_out() -> bool:
                return await members.in_scope(ann.scope, "bob") is None

            create = here.runs.store.create

            async def creating(log: str, **more: Any) -> Any:
                tasks.append(asyncio.create_task(remove()))
                await until(is_out)
                info = await create(log, **more)
                order.append("created")
                return info

            here.runs.store.create = creating  # type: ignore[method-assign]
            with pytest.raises(NotFoundError):
                await here.ask("of bob", thread=shared_id, principal="bob")
            await tasks[0]
            assert order == ["created", "removed"]
            (run,) = await here.runs.store.thread(ann.scope)
            await here.done(run)
            assert model.questions == ["of bob"]

    run_async(main())


def test_a_removal_that_was_interrupted_is_whole_once_it_is_sent_again(every_log: NewLog) -> None:
    """The process died between the change and what follows it; the second is answered that there
    is no such member, and nothing of one is left."""

    async def main() -> None:
        model = HeldModel()
        async with device(every_log(), model) as here:
            members = here.runs.members
            ann, shared_id = await let_in(members)
            held = await here.ask("hold it", thread="trip", principal="ann", while_busy="queue")
            await here.ask("of bob", thread=shared_id, principal="bob", while_busy="queue")
            follower = await here.runs.follow(held.run, principal="bob")

            class Dying(Members):
                async def changed(self, scope: str) -> None:
                    raise LogError("the process is gone")

            dying = Dying(here.runs.store)
            dying.watch.changed = dying.changed  # type: ignore[method-assign]
            with pytest.raises(LogError, match="gone"):
                await dying.remove(ann, "bob")
            changes = await here.runs.store.document("thread-members-changes", "all")
            with pytest.raises(NotFoundError, match="no such member"):
                await members.remove(ann, "bob")
            assert await here.runs.store.documents("thread-joined") == {}
            if here.runs.store.shared:  # other processes hear of it
                now = await here.runs.store.document("thread-members-changes", "all")
                assert now != changes
            with pytest.raises(NotFoundError):
                while await follower.next() is not None:
                    pass
            follower.close()
            assert (await here.conversations.queue("ann", "trip")).waiting == []
            model.release("hold it")
            await here.done(held)
            assert model.questions == ["hold it"]

    run_async(main())


class Summary:
    """A `summarise` that takes its time."""

    def __init__(self) -> None:
        self.is_asked, self.go = asyncio.Event(), asyncio.Event()
        self.count = 0

    async def __call__(self, before: str | None, messages: list[Message]) -> str:
        self.count += 1
        self.is_asked.set()
        await self.go.wait()
        return "before"


@pytest.mark.parametrize("rejoins", [False, True])
@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_a_removal_does_not_wait_for_a_summary(
    every_log: NewLog, where: str, rejoins: bool
) -> None:
    """It is answered while the turn of who is removed is being prepared, which then is none."""

    async def main() -> None:
        model, summary, store = HeldModel(), Summary(), every_log()
        how: dict[str, Any] = {"policy": "tokens:1", "while_busy": "queue"}
        async with device(store, model, summarise=summary) as here:
            other = Runs(store)
            there = Device(other, Conversations(other, summarise=summary))
            members = (here if where == "here" else there).runs.members
            ann, shared_id = await let_in(members)
            for question in ("one", "two"):
                await here.done(await here.ask(question, thread="trip", principal="ann", **how))
            said = {"thread": shared_id, "principal": "bob", **how}
            asking = asyncio.create_task(here.ask("of bob", **said))
            await summary.is_asked.wait()
            queue = await there.conversations.queue("ann", "trip", waits=False)
            assert queue.starting is not None
            await members.remove(ann, "bob")
            assert not summary.go.is_set()
            if rejoins:
                await members.put(ann, "bob", "write")
            summary.go.set()
            if rejoins:
                assert (await asking).info is None
            else:
                with pytest.raises(NotFoundError):
                    await asking
            assert not (await there.conversations.queue("ann", "trip")).is_busy
            await here.done(await here.ask("three", thread="trip", principal="ann", **how))
            assert model.questions == ["one", "two", "three"]
            assert summary.count == 2
            await other.worker.feeds.aclose()
            await other.worker.lists.aclose()

    run_async(main())


def test_a_summary_delays_no_other_conversation(new_log: NewLog) -> None:
    async def main() -> None:
        model, summary = HeldModel(), Summary()
        how: dict[str, Any] = {"policy": "tokens:1", "while_busy": "queue"}
        async with device(new_log(), model, summarise=summary) as here:
            for question in ("one", "two", "hold it"):
                first = await here.ask(question, thread="slow", **how)
                if question == "two":
                    summary.go.set()
                if question != "hold it":
                    await here.done(first)
            summary.go.clear()
            summary.is_asked.clear()
            slow = await here.ask("after it", thread="slow", **how)
            other = await here.ask("hold another", thread="other", **how)
            quick = await here.ask("after another", thread="other", **how)
            model.release("hold it")
            await summary.is_asked.wait()
            model.release("hold another")
            await here.done(other)
            await here.done(quick)
            assert model.questions[-1] == "after another"
            summary.go.set()
            await here.done(slow)
            assert model.questions[-1] == "after it"

    run_async(main())
