"""One turn at a time: queue, head and policies, on every store, with workers that die."""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from support.conversation import THREAD, Device, HeldModel, device, text_of, until
from support.redis import redis_server
from support.spine import run_async
from tokenwire.errors import (
    ConflictError,
    KeyReusedError,
    LimitError,
    NotFoundError,
)
from tokenwire.events.message import FilePart, Message, user
from tokenwire.log.base import Store
from tokenwire.log.memory import MemoryStore
from tokenwire.log.open import open_store
from tokenwire.relay.conversation.admission import Content
from tokenwire.relay.conversation.errors import HistoryConflictError, ThreadBusyError
from tokenwire.relay.conversation.queue import MOST_QUEUED, Entry, Queue
from tokenwire.relay.conversation.turns import Turns
from tokenwire.tools.registry import tool

SCOPE = f"\x1f{THREAD}"

#: Opens one more connection to the store of a test.
Opener = Callable[[], Store]


@pytest.fixture(scope="module")
def redis() -> Iterator[str]:
    with redis_server() as server:
        yield server.url


@pytest.fixture(params=["sqlite", "redis"])
def opener(request: pytest.FixtureRequest, tmp_path: Any) -> Opener:
    if request.param == "sqlite":
        return lambda: open_store(f"sqlite:{tmp_path}/log.db")
    url = request.getfixturevalue("redis")
    prefix = f"q{secrets.token_hex(5)}"
    return lambda: open_store(f"{url}?prefix={prefix}")


def asked(name: str, text: str) -> Message:
    return Message(role="user", content=text, id=name)


@asynccontextmanager
async def devices(opener: Opener, model: HeldModel, count: int) -> AsyncIterator[list[Device]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(device(opener(), model)) for _ in range(count)]


async def branch(here: Device) -> list[str]:
    """The questions of the conversation's branch, in their order."""
    head = (await here.conversations.queue("", THREAD)).head
    turns = await Turns(here.runs.store, SCOPE).branch(head)
    return [turn.messages[0].text for turn in turns]


async def is_quiet(here: Device) -> bool:
    return not (await here.conversations.queue("", THREAD)).is_busy


def test_what_waits_begins_in_its_order_when_the_turn_before_has_ended(opener: Opener) -> None:
    async def main() -> None:
        model = HeldModel()
        async with devices(opener, model, 2) as (one, two):
            held = await one.ask("hold it", while_busy="queue")
            assert held.info is not None
            second = await two.ask("second", while_busy="queue")
            third = await one.ask("third", while_busy="queue")
            assert (second.info, second.position) == (None, 1)
            assert (third.info, third.position) == (None, 2)
            for here in (one, two):  # every device sees the same
                queue = await here.conversations.queue("", THREAD)
                assert [entry.text for entry in queue.waiting] == ["second", "third"]
                assert queue.head == held.run
            model.release("hold it")
            await one.done(third)
            assert model.most_under_way == 1
            assert await branch(two) == ["hold it", "second", "third"]
            # Each was given all before it, and has the id that was promised.
            assert [text_of(m) for m in model.requests[-1]][-2:] == ["re: second", "third"]
            assert (await two.runs.info(second.run)).thread == THREAD

    run_async(main())


def test_two_devices_that_send_at_once_get_two_turns_in_one_order(opener: Opener) -> None:
    async def main() -> None:
        model = HeldModel()
        async with devices(opener, model, 2) as both:
            questions = [f"question {number}" for number in range(10)]
            await asyncio.gather(
                *(
                    both[number % 2].ask(question, while_busy="queue")
                    for number, question in enumerate(questions)
                )
            )
            await until(lambda: is_quiet(both[0]))
            assert sorted(await branch(both[0])) == sorted(questions)
            assert sorted(model.questions) == sorted(questions)
            assert model.most_under_way == 1
            assert await branch(both[0]) == await branch(both[1])
            # A turn was given exactly the turns before it.
            assert [len(messages) for messages in model.requests] == list(range(1, 20, 2))

    run_async(main())


def test_one_message_sent_by_two_devices_at_once_is_one_turn(opener: Opener) -> None:
    async def main() -> None:
        model = HeldModel()
        async with devices(opener, model, 2) as both:
            message = [Message(role="user", content="hello", id="m1")]
            replies = await asyncio.gather(
                *(here.ask(message, while_busy="queue") for here in both for _ in range(3))
            )
            assert len({reply.run for reply in replies}) == 1
            await both[0].done(replies[0])
            assert model.questions == ["hello"]
            other = [Message(role="user", content="something else", id="m1")]
            with pytest.raises(HistoryConflictError):
                await both[1].ask(other, while_busy="queue")

    run_async(main())


def test_the_worker_dies_between_two_turns_and_another_starts_the_next(opener: Opener) -> None:
    async def main() -> None:
        model = HeldModel()
        async with AsyncExitStack() as stack:
            two = await stack.enter_async_context(device(opener(), model))
            async with device(opener(), model) as one:
                held = await one.ask("hold it", while_busy="queue")
                await one.ask("next", while_busy="queue")
                # It lives to see the end of its run, and starts nothing any more.
                await one.conversations.aclose()
                model.release("hold it")
                await one.done(held)
            await until(lambda: is_quiet(two))
            assert await branch(two) == ["hold it", "next"]
            assert model.questions == ["hold it", "next"]

    run_async(main())


def test_the_worker_dies_in_the_middle_of_a_turn_and_nothing_of_the_queue_is_lost(
    opener: Opener,
) -> None:
    async def main() -> None:
        model = HeldModel()
        async with devices(opener, model, 2) as (one, two):
            await one.ask("hold it", while_busy="queue")
            await two.ask("second", while_busy="queue")
            await two.ask("third", while_busy="queue")
            await until(lambda: model.requests)
            await kill(one)
            model.release("hold it")
            await until(lambda: is_quiet(two))
            assert await branch(two) == ["hold it", "second", "third"]
            # The lost answer was asked for again; every other question once.
            assert sorted(set(model.questions)) == ["hold it", "second", "third"]
            assert model.questions.count("second") == model.questions.count("third") == 1

    run_async(main())


async def kill(here: Device) -> None:
    """Stop a process as a kill would: nothing is written any more. Its leases end as those of a
    dead process of this machine do, whatever the clock of the test does."""
    tasks = [here.runs._tender, here.conversations._promoter._task]
    owned_runs = list(here.runs.owned.values())
    for task in [*tasks, *(owned.task for owned in owned_runs)]:
        if task is not None:
            task.cancel()
    for owned in owned_runs:
        await asyncio.wait([owned.task])
        await here.runs.store.release(owned.run, epoch=owned.producer.epoch)


def test_a_process_that_dies_before_it_creates_a_run_leaves_that_to_others(opener: Opener) -> None:
    async def main() -> None:
        model = HeldModel()
        async with devices(opener, model, 1) as (here,):
            admission, run = here.conversations.admission, "run-of-a-dead-process"
            entry = Entry(run=run, content=f"{run}.0", since=time.time(), text="still asked")
            meta = here.meta()
            meta.request.messages = [user("still asked")]
            await admission.keep(SCOPE, entry.content, Content(meta=meta))
            await here.runs.store.set_document("conversation-pending", SCOPE, b"1")
            await here.runs.store.set_document(
                "conversation", SCOPE, Queue(starting=entry).encoded()
            )
            await here.done(run)
            assert model.questions == ["still asked"]
            assert await branch(here) == ["still asked"]
            assert await here.runs.store.documents(f"conversation-content:{SCOPE}") == {}

    run_async(main())


def test_a_turn_of_a_process_that_dies_once_it_is_in_the_queue_is_not_lost(opener: Opener) -> None:
    """Its note, that there is something to start, was there before the turn was; another process
    looked in between, and there was nothing."""

    async def main() -> None:
        model = HeldModel()
        async with devices(opener, model, 2) as (one, two):
            await two.conversations._promoter.aclose()  # it looks when it is told to
            await one.ask("hold one", while_busy="queue")
            await until(lambda: model.questions)
            swap, promote = one.runs.store.swap_document, two.conversations.admission.promote

            async def dying(kind: str, name: str, old: bytes | None, new: bytes | None) -> bool:
                if kind == "conversation" and new and b"and then" in new:
                    await promote(SCOPE)
                    assert await swap(kind, name, old, new)
                    is_dead.set()
                    await asyncio.Event().wait()
                return await swap(kind, name, old, new)

            is_dead = asyncio.Event()
            one.runs.store.swap_document = dying  # type: ignore[method-assign]
            asking = asyncio.create_task(one.ask("and then", while_busy="queue"))
            await is_dead.wait()
            two.conversations.open()
            model.release("hold one")
            await until(lambda: len(model.questions) == 2)
            asking.cancel()
            assert model.questions == ["hold one", "and then"]

    run_async(main())


def test_a_process_that_dies_after_it_created_a_run_has_started_it_once(opener: Opener) -> None:
    async def main() -> None:
        model = HeldModel()
        async with devices(opener, model, 2) as (one, two):
            swap = one.runs.store.swap_document

            async def lost(kind: str, name: str, old: bytes | None, new: bytes | None) -> bool:
                if kind == "conversation" and new and b'"starting"' not in new:
                    await asyncio.Event().wait()  # the process is gone before it could say so
                return await swap(kind, name, old, new)

            one.runs.store.swap_document = lost  # type: ignore[method-assign]
            asking = asyncio.create_task(one.ask("only once", while_busy="queue"))
            await until(lambda: model.questions)
            reply = await two.ask("and then", while_busy="queue")
            await two.done(reply)
            asking.cancel()
            assert model.questions == ["only once", "and then"]
            assert await branch(two) == ["only once", "and then"]

    run_async(main())


@pytest.mark.parametrize("seed", [1, 2])
def test_no_turn_is_lost_or_doubled_whatever_dies(opener: Opener, seed: int) -> None:
    """Three processes, one of them killed at some moment; turns are queued, edited, withdrawn."""

    async def main() -> None:
        rng, model = random.Random(seed), HeldModel()
        async with devices(opener, model, 3) as all_devices:
            accepted: list[str] = []
            withdrawn: set[str] = set()

            async def ask(number: int) -> None:
                await asyncio.sleep(rng.random() * 0.2)
                here = rng.choice(all_devices[1:])
                question = f"q{number}"
                reply = await here.ask(question, while_busy="queue")
                accepted.append(question)
                if rng.random() < 0.2:
                    try:
                        await here.conversations.withdraw("", THREAD, reply.run)
                    except ConflictError:
                        return  # it has begun
                    withdrawn.add(question)

            async def die() -> None:
                await asyncio.sleep(rng.random() * 0.2)
                await kill(all_devices[0])

            first = await all_devices[0].ask("q-first", while_busy="queue")
            assert first.run
            await asyncio.gather(die(), *(ask(number) for number in range(12)))
            await until(lambda: is_quiet(all_devices[1]))
            wanted = {"q-first", *accepted} - withdrawn
            line = await branch(all_devices[1])
            assert sorted(line) == sorted(wanted)
            assert len(await all_devices[1].runs.thread(THREAD)) == len(wanted)
            asked = [question for question in model.questions if question != "q-first"]
            assert len(set(asked)) == len(wanted) - 1
            assert not withdrawn & set(model.questions)

    run_async(main())


# --- policies -------------------------------------------------------------------------------------


def test_reject_says_so_and_leaves_nothing() -> None:
    async def main() -> None:
        model, store = HeldModel(), MemoryStore()
        async with device(store, model) as here:
            held = await here.ask("hold it")
            with pytest.raises(ThreadBusyError) as caught:
                await here.ask("me too", while_busy="reject")
            assert (caught.value.code, caught.value.http_status) == ("thread_busy", 409)
            assert await store.documents(f"conversation-content:{SCOPE}") == {}
            model.release("hold it")
            await here.done(held)
            await here.done(await here.ask("me too", while_busy="reject"))
            assert await branch(here) == ["hold it", "me too"]

    run_async(main())


def test_interrupt_stops_the_answer_and_comes_before_what_waits() -> None:
    async def main() -> None:
        model = HeldModel()
        async with device(MemoryStore(), model) as here:
            held = await here.ask("hold it")
            await here.ask("waits", while_busy="queue")
            urgent = await here.ask("urgent", while_busy="interrupt")
            assert urgent.info is not None
            assert (await here.runs.info(held.run)).state == "cancelled"
            await until(lambda: is_quiet(here))
            assert await branch(here) == ["hold it", "urgent", "waits"]

    run_async(main())


def test_a_run_that_waits_for_a_yes_is_busy_and_interrupt_takes_the_question_back() -> None:
    deleted: list[str] = []

    @tool(needs_approval=True)
    async def delete_file(path: str) -> str:
        """Deletes."""
        deleted.append(path)
        return "gone"

    async def main() -> None:
        model = CallingModel()
        async with device(MemoryStore(), model, tools=[delete_file]) as here:
            asking = await here.ask("call delete_file")
            await until(lambda: _waits(here, asking.run))
            waiting = await here.ask("later", while_busy="queue")
            assert waiting.info is None
            await here.done(await here.ask("never mind", while_busy="interrupt"))
            fold = await here.runs.fold(asking.run)
            assert fold.outcome == "cancelled"
            (approval,) = [t.approval_id for t in fold.tools.values()]
            with pytest.raises(ConflictError):
                await here.runs.approve(asking.run, approval or "", approved=True)
            await here.done(waiting)
            assert deleted == []

    run_async(main())


async def _waits(here: Device, run: str) -> bool:
    return (await here.runs.info(run)).state == "waiting"


class CallingModel(HeldModel):
    """Calls the tool that a question names with ``call``."""

    async def open(self, call: Any, *, connect_timeout: float = 5.0) -> Any:
        stream = await super().open(call, connect_timeout=connect_timeout)
        if self.questions[-1].startswith("call ") and self.requests[-1][-1]["role"] == "user":
            function = {"name": self.questions[-1][5:], "arguments": '{"path": "a.txt"}'}
            stream.call(function)
        return stream


def test_parallel_runs_beside_and_the_next_turn_waits_for_both() -> None:
    async def main() -> None:
        model = HeldModel()
        async with device(MemoryStore(), model) as here:
            await here.ask("hold one")
            second = await here.ask("hold two", while_busy="parallel")
            assert second.info is not None
            third = await here.ask("third", while_busy="queue")
            model.release("hold two")
            await here.done(second)
            assert (await here.conversations.queue("", THREAD)).waiting
            model.release("hold one")
            await here.done(third)
            assert await branch(here) == ["hold one", "hold two", "third"]

    run_async(main())


# --- what waits -----------------------------------------------------------------------------------


def test_what_waits_is_edited_withdrawn_and_sent_now(opener: Opener) -> None:
    async def main() -> None:
        model = HeldModel()
        async with devices(opener, model, 2) as (one, two):
            held = await one.ask("hold it")
            replies = [await one.ask(f"turn {n}", while_busy="queue") for n in range(3)]
            queue = await two.conversations.edit("", THREAD, replies[0].run, [user("better")])
            assert [entry.text for entry in queue.waiting] == ["better", "turn 1", "turn 2"]
            await two.conversations.withdraw("", THREAD, replies[1].run)
            now = await two.conversations.send_now("", THREAD, replies[2].run)
            assert now.run == replies[2].run
            await until(lambda: is_quiet(one))
            assert await branch(one) == ["hold it", "turn 2", "better"]
            assert (await one.runs.info(held.run)).state == "cancelled"
            conversations = one.conversations
            for begun in (conversations.withdraw, conversations.send_now):
                with pytest.raises(ConflictError):
                    await begun("", THREAD, replies[2].run)
            with pytest.raises(ConflictError):
                await conversations.edit("", THREAD, replies[2].run, [user("too late")])
            with pytest.raises(NotFoundError):
                await conversations.withdraw("", THREAD, "no-such-turn-at-all")
            with pytest.raises(NotFoundError):
                await conversations.withdraw("somebody", THREAD, replies[0].run)
            kind = f"conversation-content:{SCOPE}"
            assert await one.runs.store.documents(kind) == {}

    run_async(main())


def test_an_edit_that_meets_the_start_is_the_question_or_is_refused() -> None:
    async def main() -> None:
        for delay in range(12):
            model = HeldModel()
            async with device(MemoryStore(), model) as here:
                held = await here.ask("hold it")
                waiting = await here.ask("before", while_busy="queue")

                async def edit(run: str = waiting.run, here: Device = here) -> bool:
                    try:
                        await here.conversations.edit("", THREAD, run, [user("after")])
                    except ConflictError:
                        return False
                    return True

                model.release("hold it")
                for _ in range(delay):
                    await asyncio.sleep(0)
                was_edited = await edit()
                await here.done(held)
                await here.done(waiting)
                assert model.questions[-1] == ("after" if was_edited else "before")

    run_async(main())


def test_a_key_names_one_turn_whether_it_waits_or_not() -> None:
    async def main() -> None:
        model = HeldModel()
        async with device(MemoryStore(), model) as here:
            await here.ask("hold it")
            first = await here.ask("once", while_busy="queue", key="k")
            again = await here.ask("once", while_busy="queue", key="k")
            assert (again.run, again.is_repeated) == (first.run, True)
            with pytest.raises(KeyReusedError):
                await here.ask("another", while_busy="queue", key="k")
            model.release("hold it")
            await here.done(first)
            later = await here.ask("once", while_busy="queue", key="k")
            assert (later.run, later.is_repeated) == (first.run, True)
            assert model.questions.count("once") == 1

    run_async(main())


def test_a_turn_that_is_sent_again_after_it_was_withdrawn_stays_withdrawn(opener: Opener) -> None:
    """Its sender got no answer, say, and another device has withdrawn it meanwhile."""

    async def main() -> None:
        model = HeldModel()
        async with devices(opener, model, 2) as (one, two):
            await one.ask("hold it")
            first = await one.ask("once", while_busy="queue", key="k")
            named = await one.ask([asked("m1", "named")], while_busy="queue")
            for reply in (first, named):
                await two.conversations.withdraw("", THREAD, reply.run)
            for rule in ("queue", "parallel", "steer"):
                with pytest.raises(ConflictError) as caught:
                    await two.ask("once", while_busy=rule, key="k")
                assert caught.value.details["reason"] == "withdrawn"
                with pytest.raises(ConflictError):
                    await one.ask([asked("m1", "named")], while_busy=rule)
            with pytest.raises(KeyReusedError):
                await one.ask("another", while_busy="queue", key="k")
            model.release("hold it")
            await until(lambda: is_quiet(one))
            assert model.questions == ["hold it"]

    run_async(main())


def test_a_steer_that_is_sent_again_is_said_once(opener: Opener) -> None:
    """Before the answer has taken it, after that, and when the answer is over."""

    async def main() -> None:
        model = HeldModel()
        async with devices(opener, model, 2) as (one, two):
            held = await one.ask("hold it")
            await until(lambda: model.requests)
            replies = [
                await here.ask("and this", while_busy="steer", key="k") for here in (one, two)
            ]
            model.release("hold it")
            await one.done(held)
            await until(lambda: is_quiet(one))
            for rule in ("steer", "queue", "parallel"):
                replies.append(await two.ask("and this", while_busy=rule, key="k"))
            assert {(reply.run, reply.steers) for reply in replies} == {(replies[0].run, held.run)}
            assert [reply.is_repeated for reply in replies] == [False, *[True] * 4]
            with pytest.raises(KeyReusedError):
                await one.ask("another", while_busy="queue", key="k")
            assert model.questions == ["hold it", "and this"]
            assert len(await one.runs.thread(THREAD)) == 1

    run_async(main())


def test_a_queue_has_a_bound() -> None:
    async def main() -> None:
        model, store = HeldModel(), MemoryStore()
        async with device(store, model) as here:
            await here.ask("hold it")
            for number in range(MOST_QUEUED):
                await here.ask(f"turn {number}", while_busy="queue")
            with pytest.raises(LimitError):
                await here.ask("one too many", while_busy="queue")
            contents = await store.documents(f"conversation-content:{SCOPE}")
            assert len(contents) == MOST_QUEUED

    run_async(main())


# --- steering -------------------------------------------------------------------------------------


class LookingModel(HeldModel):
    """Calls ``look`` for ``look``, and answers everything else."""

    async def open(self, call: Any, *, connect_timeout: float = 5.0) -> Any:
        stream = await super().open(call, connect_timeout=connect_timeout)
        if self.questions[-1] == "look" and self.requests[-1][-1]["role"] == "user":
            stream.call({"name": "look", "arguments": "{}"})
        return stream


def _looking(gate: asyncio.Event) -> Any:
    @tool
    async def look() -> str:
        """Looks."""
        await gate.wait()
        return "seen"

    return look


def test_a_steer_stands_beside_the_results_of_tools_and_the_log_says_so(opener: Opener) -> None:
    async def main() -> None:
        model, gate = LookingModel(), asyncio.Event()
        async with device(opener(), model, tools=[_looking(gate)]) as here:
            asking = await here.ask("look")
            await until(lambda: model.requests)
            async with device(opener(), model) as other:
                steers = [await other.ask(text, while_busy="steer") for text in ("left", "right")]
                assert [reply.steers for reply in steers] == [asking.run] * 2
                with pytest.raises(ConflictError):
                    await other.conversations.withdraw("", THREAD, steers[0].run)
                await until(lambda: len(here.runs.owned[asking.run].inbox.steers or ()) == 2)
            gate.set()
            await here.done(asking)
            await until(lambda: is_quiet(here))
            roles = [(m["role"], text_of(m)) for m in model.requests[-1]]
            assert roles == [
                ("user", "look"),
                ("assistant", ""),
                ("tool", "seen"),
                ("user", "left"),
                ("user", "right"),
            ]
            fold = await here.runs.fold(asking.run)
            assert [(s.id, s.text) for s in fold.steers] == [
                (steers[0].run, "left"),
                (steers[1].run, "right"),
            ]
            assert len(await here.runs.thread(THREAD)) == 1
            # The next turn is given what was said in between.
            await here.done(await here.ask("and?"))
            texts = [text_of(m) for m in model.requests[-1]]
            assert texts == ["look", "", "seen", "left", "right", "re: right", "and?"]

    run_async(main())


def test_a_steer_of_an_answer_without_tools_is_answered_in_the_same_run() -> None:
    async def main() -> None:
        model = HeldModel()
        async with device(MemoryStore(), model) as here:
            held = await here.ask("hold it")
            await until(lambda: model.requests)
            await here.ask("and this", while_busy="steer")
            model.release("hold it")
            await here.done(held)
            await until(lambda: is_quiet(here))
            assert model.questions == ["hold it", "and this"]
            assert len(await here.runs.thread(THREAD)) == 1

    run_async(main())


def test_a_steer_that_came_too_late_is_a_turn_of_its_own() -> None:
    async def main() -> None:
        model = HeldModel()
        async with device(MemoryStore(), model) as here:
            held = await here.ask("hold it")
            await until(lambda: model.requests)
            reply = await here.ask("too late", while_busy="steer")
            await here.ask("then", while_busy="queue")
            await here.runs.cancel(held.run)  # it takes nothing any more
            await here.done(reply.run)
            await until(lambda: is_quiet(here))
            assert await branch(here) == ["hold it", "too late", "then"]

    run_async(main())


def test_a_steer_survives_its_worker_and_is_given_once(opener: Opener) -> None:
    async def main() -> None:
        model = HeldModel()
        async with devices(opener, model, 2) as (one, two):
            held = await one.ask("hold it")
            await until(lambda: model.requests)
            await two.ask("and this", while_busy="steer")
            await kill(one)
            model.release("hold it")
            await two.done(held)
            await until(lambda: is_quiet(two))
            fold = await two.runs.fold(held.run)
            given = [s.text for s in fold.steers]
            turns = await branch(two)
            # In the answer, or a turn of its own: once.
            assert (given, turns) in (
                (["and this"], ["hold it"]),
                ([], ["hold it", "and this"]),
            )

    run_async(main())


def test_what_cannot_be_steered_says_so() -> None:
    @tool(needs_approval=True)
    async def delete_file(path: str) -> str:
        """Deletes."""
        return "gone"

    async def main() -> None:
        model = CallingModel()
        async with device(MemoryStore(), model, tools=[delete_file]) as here:
            asking = await here.ask("call delete_file")
            await until(lambda: _waits(here, asking.run))
            with pytest.raises(ThreadBusyError) as caught:
                await here.ask("no", while_busy="steer")
            assert caught.value.details["reason"] == "cannot_steer"
            file = [Message(role="user", content=[FilePart(data="AAAA")])]
            with pytest.raises(ThreadBusyError):
                await here.ask(file, while_busy="steer")
            assert not (await here.conversations.queue("", THREAD)).waiting
            await here.runs.cancel(asking.run)

    run_async(main())
