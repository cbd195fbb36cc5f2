"""A turn that waits for a person, and those who want to speak meanwhile: on every store, from the
device that owns it and from another one, for models with tools and for agents.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from support.conversation import THREAD, Device, HeldModel, device, until
from support.redis import redis_server
from support.spine import run_async
from support.waiting import unread_mailboxes
from tokenwire import RunContext, agent
from tokenwire.agents.load import agents_of
from tokenwire.errors import ConflictError
from tokenwire.events.model import ApprovalAnswer
from tokenwire.log.base import Store
from tokenwire.log.memory import MemoryStore
from tokenwire.log.open import open_store
from tokenwire.relay.conversation.errors import ThreadBusyError
from tokenwire.relay.waiting.links import Links
from tokenwire.tools.registry import tool


@pytest.fixture(scope="module")
def redis() -> Iterator[str]:
    with redis_server() as server:
        yield server.url


@pytest.fixture(params=["memory", "sqlite", "redis"])
def opener(request: pytest.FixtureRequest, tmp_path: Any) -> Callable[[], Store]:
    if request.param == "memory":
        store = MemoryStore()
        return lambda: store
    if request.param == "sqlite":
        return lambda: open_store(f"sqlite:{tmp_path}/log.db")
    url = request.getfixturevalue("redis")
    prefix = f"w{secrets.token_hex(5)}"
    return lambda: open_store(f"{url}?prefix={prefix}")


class CallingModel(HeldModel):
    """Calls ``delete_file`` when it is asked to."""

    async def open(self, call: Any, *, connect_timeout: float = 5.0) -> Any:
        stream = await super().open(call, connect_timeout=connect_timeout)
        if self.questions[-1] == "delete it" and self.requests[-1][-1]["role"] == "user":
            stream.call({"name": "delete_file", "arguments": '{"path": "a.txt"}'})
        return stream


class Deeds:
    """What was done that needed a yes; tools and agents that do it."""

    def __init__(self) -> None:
        self.done: list[str] = []

        @tool(needs_approval=True)
        async def delete_file(path: str) -> str:
            """Deletes."""
            self.done.append(path)
            return "gone"

        @agent("cleaner")
        async def cleaner(ctx: RunContext) -> AsyncIterator[str]:
            yield "May I? "
            if await ctx.request_approval("delete_file", {"path": "a.txt"}):
                self.done.append("a.txt")
            yield "Done."

        self.tools, self.agents = [delete_file], agents_of([cleaner])


async def both(stack: AsyncExitStack, opener: Callable[[], Store], deeds: Deeds) -> list[Device]:
    """Two devices; with a memory store the same one twice, as no other process has it."""
    model = CallingModel()
    options = {"tools": deeds.tools, "agents": deeds.agents}
    one = await stack.enter_async_context(device(opener(), model, **options))
    if isinstance(one.runs.store, MemoryStore):
        return [one, one]
    return [one, await stack.enter_async_context(device(opener(), model, **options))]


async def asking(here: Device, model: str) -> str:
    reply = await here.ask("delete it", model=model)

    async def is_waiting() -> bool:
        return (await here.runs.fold(reply.run)).status == "waiting"

    await until(is_waiting)
    return reply.run


@pytest.mark.parametrize("model", ["held", "cleaner"])
def test_interrupt_denies_what_it_waits_for(opener: Callable[[], Store], model: str) -> None:
    async def main() -> None:
        deeds = Deeds()
        async with AsyncExitStack() as stack:
            one, two = await both(stack, opener, deeds)
            run = await asking(one, model)
            later = await two.ask("later", while_busy="queue")
            assert later.info is None  # a run that waits is busy
            await two.done(await two.ask("never mind", while_busy="interrupt"))
            replay = await two.runs.replay(run)
            assert replay.fold.outcome == "cancelled"
            (approval,) = [t.approval_id for t in replay.fold.tools.values()]
            for here in (one, two):
                with pytest.raises(ConflictError):
                    await here.runs.approve(run, approval or "", approved=True)
            answers = [e for e in replay.events() if isinstance(e, ApprovalAnswer)]
            assert not any(answer.approved for answer in answers)
            await two.done(later)
            turns, _ = await two.conversations.page("", THREAD, most=9)
            assert [t.messages[0].text for t in turns] == ["delete it", "never mind", "later"]
            assert deeds.done == []

    run_async(main())


@pytest.mark.parametrize("model", ["held", "cleaner"])
def test_steer_is_refused_and_nothing_of_it_is_left(
    opener: Callable[[], Store], model: str
) -> None:
    async def main() -> None:
        deeds = Deeds()
        async with AsyncExitStack() as stack:
            one, two = await both(stack, opener, deeds)
            run = await asking(one, model)
            for here in (one, two):
                with pytest.raises(ThreadBusyError) as caught:
                    await here.ask("and that", while_busy="steer", key="k")
                assert caught.value.details["reason"] == "cannot_steer"
                with pytest.raises(ThreadBusyError):
                    await here.ask("and that", while_busy="reject")
            assert not (await two.conversations.queue("", THREAD)).waiting
            fold = await two.runs.fold(run)
            (approval,) = [t.approval_id for t in fold.tools.values()]
            await two.runs.approve(run, approval or "", approved=True)
            await one.done(run)
            assert deeds.done == ["a.txt"]
            assert not (await two.runs.fold(run)).steers
            # Who was refused may say it now.
            await two.done(await two.ask("and that", while_busy="steer", key="k"))

    run_async(main())


@pytest.mark.parametrize("model", ["held", "cleaner"])
def test_an_approval_after_a_cancel_is_none(opener: Callable[[], Store], model: str) -> None:
    """The owner has not looked at its mailbox yet: whoever approves then is not told success."""

    async def main() -> None:
        deeds = Deeds()
        async with AsyncExitStack() as stack:
            one, two = await both(stack, opener, deeds)
            run = await asking(one, model)
            fold = await two.runs.fold(run)
            (approval,) = [t.approval_id for t in fold.tools.values()]
            links = Links(two.runs)
            link = await links.make(run, approval or "", principal="")
            with unread_mailboxes():
                await two.runs.cancel(run)
                with pytest.raises(ConflictError):
                    await two.runs.approve(run, approval or "", approved=True)
                view = await links.decide(link, "approve")
                assert (view.state, view.decision) == ("gone", None)
            await one.runs.owned[run].check_commands()
            await two.done(run)
            replay = await two.runs.replay(run)
            assert replay.fold.outcome == "cancelled"
            answers = [e for e in replay.events() if isinstance(e, ApprovalAnswer)]
            assert not any(answer.approved for answer in answers)
            assert (await links.look(link)).state == "gone"
            assert deeds.done == []

    run_async(main())
