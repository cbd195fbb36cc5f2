"""Two devices and one conversation, in any order of what they may do, against a simple model."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import tempfile
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from support.conversation import THREAD, Device, HeldModel, device, until
from support.redis import redis_server
from tokenwire.errors import ConflictError, NotFoundError
from tokenwire.events.message import user
from tokenwire.log.base import Store
from tokenwire.log.memory import MemoryStore
from tokenwire.log.open import open_store
from tokenwire.relay.conversation.errors import ThreadBusyError

DEVICES = st.integers(0, 1)
PLACES = st.integers(0, 5)


@pytest.fixture(scope="module")
def redis() -> Iterator[str]:
    with redis_server() as server:
        yield server.url


@dataclass
class Conversation:
    """As plainly as it can be said. ``parents``: run -> the run that it continues; ``texts``: run
    -> what it asks; ``open``, ``waiting``: in their order."""

    parents: dict[str, str | None] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    head: str | None = None
    open: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)

    def start(self, run: str) -> None:
        self.parents[run] = self.head
        self.head = run
        self.open.append(run)

    def end(self, run: str) -> None:
        self.open.remove(run)
        if not self.open and self.waiting:
            self.start(self.waiting.pop(0))

    def branch(self) -> list[str]:
        runs: list[str] = []
        run = self.head
        while run is not None:
            runs.append(self.texts[run])
            run = self.parents[run]
        return runs[::-1]


class ConversationMachine(RuleBasedStateMachine):
    """Does the same to both, and compares what each device sees."""

    url: ClassVar[str] = "memory:"

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.mkdtemp(prefix="conversation-")
        self.held, self.plain, self.number = HeldModel(), Conversation(), 0
        self.stack = AsyncExitStack()
        self.devices: list[Device] = []
        self.do(self.open())

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(work, 60))

    async def open(self) -> None:
        memory, prefix = MemoryStore(), f"s{secrets.token_hex(8)}"
        for _ in range(2):
            store: Store = memory
            if self.url.startswith("sqlite"):
                store = open_store(f"sqlite:{self.folder}/log.db")
            elif self.url.startswith("redis"):
                store = open_store(f"{self.url}?prefix={prefix}")
            if store is memory and self.devices:
                self.devices.append(self.devices[0])  # no other process has it
                continue
            self.devices.append(await self.stack.enter_async_context(device(store, self.held)))

    def teardown(self) -> None:
        self.do(self.stack.aclose())
        self.loop.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    async def compare(self) -> None:
        plain = self.plain
        for here in self.devices:

            async def is_same(here: Device = here) -> bool:
                queue = await here.conversations.queue("", THREAD)
                runs = [entry.run for entry in queue.waiting]
                is_open = sorted(queue.open) == sorted(plain.open)
                return (queue.head, runs, is_open) == (plain.head, plain.waiting, True)

            await until(is_same)
            page, _ = await here.conversations.page("", THREAD, most=100)
            assert [turn.messages[0].text for turn in page] == plain.branch()

    def pick(self, runs: list[str], place: int) -> str:
        return runs[place % len(runs)]

    # --- what devices do -----------------------------------------------------------------------

    @rule(at=DEVICES, while_busy=st.sampled_from(["queue", "queue", "parallel", "reject"]))
    def ask(self, at: int, while_busy: Any) -> None:
        async def work() -> None:
            plain, self.number = self.plain, self.number + 1
            text = f"hold {self.number}"
            is_busy = bool(plain.open or plain.waiting)
            try:
                reply = await self.devices[at].ask(text, while_busy=while_busy)
            except ThreadBusyError:
                assert while_busy == "reject"
                assert is_busy
                return
            plain.texts[reply.run] = text
            if is_busy and while_busy == "queue":
                assert reply.info is None
                plain.waiting.append(reply.run)
                assert reply.position == len(plain.waiting)
            else:
                assert reply.info is not None
                assert while_busy != "reject" or not is_busy
                plain.start(reply.run)
            await self.compare()

        self.do(work())

    @precondition(lambda self: self.plain.open)
    @rule(place=PLACES)
    def answered(self, place: int) -> None:
        async def work() -> None:
            run = self.pick(self.plain.open, place)
            self.held.release(self.plain.texts[run])
            await self.devices[0].done(run)
            self.plain.end(run)
            await self.compare()

        self.do(work())

    @precondition(lambda self: self.plain.open)
    @rule(at=DEVICES)
    def interrupted(self, at: int) -> None:
        async def work() -> None:
            plain, self.number = self.plain, self.number + 1
            text = f"hold {self.number}"
            reply = await self.devices[at].ask(text, while_busy="interrupt")
            plain.texts[reply.run], plain.open = text, []
            plain.start(reply.run)
            await self.compare()

        self.do(work())

    @precondition(lambda self: self.plain.waiting)
    @rule(at=DEVICES, place=PLACES, how=st.sampled_from(["edit", "withdraw", "now"]))
    def changed(self, at: int, place: int, how: str) -> None:
        async def work() -> None:
            plain, conversations = self.plain, self.devices[at].conversations
            run = self.pick(plain.waiting, place)
            if how == "edit":
                self.number += 1
                plain.texts[run] = f"hold {self.number}"
                await conversations.edit("", THREAD, run, [user(plain.texts[run])])
            elif how == "withdraw":
                await conversations.withdraw("", THREAD, run)
                plain.waiting.remove(run)
                with pytest.raises(NotFoundError):
                    await conversations.withdraw("", THREAD, run)
            else:
                await conversations.send_now("", THREAD, run)
                plain.waiting.remove(run)
                plain.open = []
                plain.start(run)
                with pytest.raises(ConflictError):
                    await conversations.withdraw("", THREAD, run)
            await self.compare()

        self.do(work())

    @precondition(lambda self: self.plain.parents)
    @rule(at=DEVICES, place=PLACES)
    def branched(self, at: int, place: int) -> None:
        async def work() -> None:
            run = self.pick(list(self.plain.parents), place)
            await self.devices[at].conversations.set_head("", THREAD, run)
            self.plain.head = run
            await self.compare()

        self.do(work())


@pytest.mark.parametrize("store", ["memory", "sqlite", "redis"])
def test_a_conversation_is_what_a_simple_model_is(
    store: str, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue("redis") if store == "redis" else f"{store}:"
    machine = type("Machine", (ConversationMachine,), {"url": url})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=12 if store == "memory" else 5,
            stateful_step_count=14,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.explicit, Phase.generate],
        ),
    )
