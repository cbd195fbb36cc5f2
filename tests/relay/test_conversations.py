"""Conversations on the server: what a turn is given, and where it stands in the tree."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from support.conversation import THREAD, Device, HeldModel, device, text_of
from support.spine import run_async
from tokenwire.errors import InputError, NotFoundError
from tokenwire.events.message import Message, TextPart, assistant, user
from tokenwire.events.model import RunStart
from tokenwire.events.request import Request
from tokenwire.log.base import Store
from tokenwire.log.memory import MemoryStore
from tokenwire.log.open import open_store
from tokenwire.relay.conversation.errors import HistoryConflictError
from tokenwire.relay.conversation.history import Turn, policy_of, selection
from tokenwire.relay.conversation.posted import continuation
from tokenwire.relay.conversation.turns import Turns
from tokenwire.relay.threads import Threads


def texts(messages: list[dict[str, Any]]) -> list[str]:
    return [text_of(message) for message in messages]


def asked(name: str, text: str) -> Message:
    return Message(role="user", content=text, id=name)


async def say(here: Device, *questions: str) -> list[str]:
    return [(await here.done(await here.ask(question))).run for question in questions]


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Any) -> Store:
    return MemoryStore() if request.param == "memory" else open_store(f"sqlite:{tmp_path}/log.db")


def test_a_turn_is_given_all_that_came_before(store: Store) -> None:
    async def main() -> None:
        model = HeldModel()
        async with device(store, model) as here:
            runs = await say(here, "one", "two", "three")
            assert texts(model.requests[2]) == ["one", "re: one", "two", "re: two", "three"]
            info = await here.runs.info(runs[2])
            assert info.history is not None
            assert (info.history.parent, info.history.turns) == (runs[1], runs[:2])
            assert info.history.policy == "all"
            snapshot = await here.runs.snapshot(runs[2])
            given = ["one", "re: one", "two", "re: two", "three"]
            assert [message.text for message in snapshot.input] == given
            assert snapshot.input == await here.runs.model_input(runs[2])

    run_async(main())


def test_two_principals_and_two_threads_are_apart() -> None:
    async def main() -> None:
        model = HeldModel()
        async with device(MemoryStore(), model) as here:
            first = await here.done(await here.ask("mine", principal="a"))
            await here.done(await here.ask("yours", principal="b"))
            await here.done(await here.ask("elsewhere", thread="other", principal="a"))
            assert [texts(request) for request in model.requests] == [
                ["mine"],
                ["yours"],
                ["elsewhere"],
            ]
            for principal, thread in (("b", THREAD), ("a", "other")):
                with pytest.raises(NotFoundError):
                    await here.conversations.behind(principal, thread, first.run, [user("more")])
                with pytest.raises(NotFoundError):
                    await here.conversations.instead(principal, thread, first.run, None)
                with pytest.raises(NotFoundError):
                    await here.conversations.set_head(principal, thread, first.run)

    run_async(main())


def test_an_edit_and_a_regeneration_are_branches_that_every_device_sees(store: Store) -> None:
    async def main() -> None:
        model = HeldModel()
        async with device(store, model) as here:
            conversations = here.conversations
            one, two = await say(here, "one", "two")
            edit = await conversations.instead("", THREAD, two, [user("two, but better")])
            edited = await here.done(await here.ask("", following=edit))
            assert texts(model.requests[-1]) == ["one", "re: one", "two, but better"]
            again = await conversations.instead("", THREAD, two, None)
            second = await here.done(await here.ask("", following=again))
            assert texts(model.requests[-1]) == ["one", "re: one", "two"]
            assert (await conversations.queue("", THREAD)).head == second.run
            page, _ = await conversations.page("", THREAD, most=10)
            assert [turn.run for turn in page] == [one, second.run]
            await conversations.set_head("", THREAD, edited.run)
            await say(here, "three")
            assert texts(model.requests[-1])[2:] == [
                "two, but better",
                "re: two, but better",
                "three",
            ]
            # From the beginning again: a branch of its own.
            fresh = await conversations.instead("", THREAD, one, [user("another one")])
            await here.done(await here.ask("", following=fresh))
            assert texts(model.requests[-1]) == ["another one"]

    run_async(main())


def test_a_thread_is_read_in_pages(store: Store) -> None:
    async def main() -> None:
        async with device(store, HeldModel()) as here:
            runs = await say(here, *(f"question {number}" for number in range(7)))
            pages, before = [], None
            while True:
                page, before = await here.conversations.page("", THREAD, most=3, before=before)
                pages.append([turn.run for turn in page])
                if before is None:
                    break
            assert pages == [runs[4:], runs[1:4], runs[:1]]
            with pytest.raises(NotFoundError):
                await here.conversations.page("", THREAD, most=3, before="run_of_nobody_at_all")

    run_async(main())


def test_the_newest_turns_only(store: Store) -> None:
    async def main() -> None:
        model = HeldModel()
        async with device(store, model, policy="last:2") as here:
            runs = await say(here, "one", "two", "three", "four")
            given = ["two", "re: two", "three", "re: three", "four"]
            assert texts(model.requests[-1]) == given
            info = await here.runs.info(runs[-1])
            assert info.history is not None
            assert (info.history.turns, info.history.omitted) == (runs[1:3], 1)
            await here.done(await here.ask("five", policy="all"))
            assert len(texts(model.requests[-1])) == 9

    run_async(main())


def test_a_budget_of_tokens_drops_the_oldest_and_summarises_them_once() -> None:
    async def main() -> None:
        calls: list[tuple[str | None, list[str]]] = []

        def summarise(before: str | None, messages: list[Message]) -> str:
            calls.append((before, [message.text for message in messages]))
            return f"summary {len(calls)}"

        model = HeldModel()
        async with device(MemoryStore(), model, policy="tokens:200", summarise=summarise) as here:
            questions = [f"{number} " + "word " * 20 for number in range(9)]
            runs = await say(here, *questions)
            assert len(calls) == 2
            assert calls[0][0] is None
            assert calls[1][0] == "summary 1"
            left_out = calls[0][1] + calls[1][1]
            newest = await here.runs.info(runs[-1])
            assert newest.history is not None
            assert newest.history.summary == "summary 2"
            # What was left out, and what was given, is the whole conversation.
            given = texts(model.requests[-1])
            assert given[0].endswith("summary 2")
            whole = [text for q in questions for text in (q, f"re: {q}")][:-1]
            assert left_out + given[1:] == whole
            assert newest.history.omitted == len(left_out) // 2

    run_async(main())


async def _raises(before: str | None, messages: list[Message]) -> str:
    raise RuntimeError("no model for summaries")


def _exits(before: str | None, messages: list[Message]) -> str:
    raise SystemExit(3)


async def _times_out(before: str | None, messages: list[Message]) -> str:
    raise TimeoutError


async def _is_cancelled(before: str | None, messages: list[Message]) -> str:
    raise asyncio.CancelledError


def _says_nothing(before: str | None, messages: list[Message]) -> Any:
    return None


@pytest.mark.parametrize(
    ("summarise", "reason"),
    [
        (_raises, "'summarise' raised RuntimeError"),
        (_exits, "'summarise' raised SystemExit"),
        (_times_out, "'summarise' raised TimeoutError"),
        (_is_cancelled, "'summarise' raised CancelledError"),
        (_says_nothing, "'summarise' raised TypeError"),
    ],
)
def test_a_summary_that_fails_leaves_the_turns_out_and_the_run_says_so(
    summarise: Any, reason: str
) -> None:
    async def main() -> None:
        model = HeldModel()
        async with device(MemoryStore(), model, policy="tokens:60", summarise=summarise) as here:
            runs = await say(here, *(f"{number} " + "word " * 20 for number in range(4)))
            assert len(model.requests[-1]) == 3
            info = await here.runs.info(runs[-1])
            assert info.history is not None
            assert (info.history.summary, info.history.summary_error) == (None, reason)
            start = (await here.runs.replay(runs[-1])).events()[0]
            assert isinstance(start, RunStart)
            assert start.history is not None
            assert start.history.summary_error == reason
            assert (start.history.turns, start.history.omitted) == (1, 2)

    run_async(main())


def test_a_summary_that_takes_too_long_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokenwire.relay.conversation.summary.SUMMARY_SECONDS", 0.05)

    async def never(before: str | None, messages: list[Message]) -> str:
        await asyncio.Event().wait()
        raise AssertionError

    async def main() -> None:
        model = HeldModel()
        async with device(MemoryStore(), model, policy="tokens:60", summarise=never) as here:
            runs = await say(here, *(f"{number} " + "word " * 20 for number in range(4)))
            info = await here.runs.info(runs[-1])
            assert info.history is not None
            assert info.history.summary_error == "'summarise' took longer than 0.05 s"

    run_async(main())


@pytest.mark.parametrize("policy", ["all", "last:2", "tokens:60"])
def test_the_first_event_of_a_run_says_what_its_model_was_given(policy: str) -> None:
    async def main() -> None:
        model = HeldModel()
        async with device(MemoryStore(), model, policy=policy) as here:
            runs = await say(here, *(f"{number} " + "word " * 20 for number in range(4)))
            start = (await here.runs.replay(runs[-1])).events()[0]
            assert isinstance(start, RunStart)
            assert start.history is not None
            assert (start.history.parent, start.history.policy) == (runs[-2], policy)
            given = (len(model.requests[-1]) - 1) // 2
            assert (start.history.turns, start.history.omitted) == (given, 3 - given)
            alone = await here.runs.start(Request(messages=[user("x")]), model="m")
            await here.done(alone.id)
            first = (await here.runs.replay(alone.id)).events()[0]
            assert isinstance(first, RunStart)
            assert first.history is None

    run_async(main())


def test_the_hundredth_turn_reads_the_log_of_one() -> None:
    """What a turn reads grows with what the model is given, not with logs that were read before."""

    class Counted(MemoryStore):
        reads: set[str] = set()

        async def read(self, log: str, **more: Any) -> Any:
            self.reads.add(log)
            return await super().read(log, **more)

    async def main() -> None:
        store, model = Counted(), HeldModel()
        async with device(store, model) as here:
            runs = await say(here, *(f"question {number}" for number in range(30)))
            store.reads = set()
            await say(here, "and now?")
            assert len(model.requests[-1]) == 61
            assert store.reads & set(runs) == {runs[-1]}
            # Nor is the conversation stored again with each turn.
            sizes = [len((await store.describe(run)).meta) for run in (runs[1], runs[-1])]
            assert sizes[1] - sizes[0] < 30 * 40

    run_async(main())


def test_what_an_interrupted_answer_leaves_is_given_as_it_stands() -> None:
    async def main() -> None:
        model = HeldModel()
        async with device(MemoryStore(), model) as here:
            held = await here.ask("hold on")
            await here.runs.cancel(held.run)
            await here.done(held)
            await say(here, "two")
            assert texts(model.requests[-1]) == ["hold on", "two"]

    run_async(main())


def test_an_answer_that_is_under_way_is_not_given() -> None:
    async def main() -> None:
        model = HeldModel()
        async with device(MemoryStore(), model) as here:
            held = await here.ask("hold on")
            second = await here.done(await here.ask("beside it"))
            assert texts(model.requests[-1]) == ["hold on", "beside it"]
            model.release("hold on")
            await here.done(held)
            await say(here, "three")
            assert texts(model.requests[-1]) == [
                "hold on",
                "re: hold on",
                "beside it",
                "re: beside it",
                "three",
            ]
            # What the second was given does not change with the end of the first.
            snapshot = await here.runs.snapshot(second.run)
            assert [message.text for message in snapshot.input] == ["hold on", "beside it"]

    run_async(main())


def test_a_run_that_brought_the_whole_conversation_is_continued() -> None:
    async def main() -> None:
        model = HeldModel()
        async with device(MemoryStore(), model) as here:
            await say(here, "forgotten")
            whole = [user("one"), assistant("an answer"), user("two")]
            info = await here.runs.start(Request(messages=whole), model="held", thread=THREAD)
            await here.done(info.id)
            await say(here, "three")
            assert texts(model.requests[-1]) == ["one", "an answer", "two", "re: two", "three"]

    run_async(main())


def test_an_erased_run_leaves_its_place_and_nothing_else(store: Store) -> None:
    async def main() -> None:
        model = HeldModel()
        async with device(store, model) as here:
            threads = Threads(here.runs)
            _, two, _ = await say(here, "one", "two", "three")
            await threads.erase_run(two, "")
            await say(here, "four")
            assert texts(model.requests[-1]) == ["one", "re: one", "three", "re: three", "four"]
            await threads.erase(THREAD, "")
            for kind in ("turns:", "conversation-content:"):
                assert await here.runs.store.documents(f"{kind}\x1f{THREAD}") == {}
            for kind in ("conversation", "conversation-pending"):
                assert await here.runs.store.documents(kind) == {}
            await say(here, "anew")
            assert texts(model.requests[-1]) == ["anew"]

    run_async(main())


def test_a_copy_of_a_turn_is_never_written_after_its_run_was_erased() -> None:
    async def main() -> None:
        model, store = HeldModel(), MemoryStore()
        async with device(store, model) as here:
            (one,) = await say(here, "one")
            scope = f"\x1f{THREAD}"
            turns = Turns(store, scope)
            turn = await turns.get(one)
            assert turn is not None
            await store.set_document(f"turns:{scope}", one, None)
            await here.runs.delete(one)
            await turns._copy(turn)
            assert await store.documents(f"turns:{scope}") == {}

    run_async(main())


# --- transcripts that clients post ----------------------------------------------------------------


def tree(*turns: tuple[str, str | None, str]) -> dict[str, Turn]:
    """Turns of ``(run, parent, question)``; the question's id is ``q-QUESTION``."""
    return {
        run: Turn(
            run=run,
            parent=parent,
            messages=[asked(f"q-{question}", question)],
            answer=[Message(role="assistant", content=[TextPart(text=f"re {question}")], id=run)],
            outcome="complete",
            created=float(number),
        )
        for number, (run, parent, question) in enumerate(turns)
    }


def posted(*names: str) -> list[Message]:
    """``q-x`` is the question x; a run ``r:x`` the answer to x."""
    messages: list[Message] = []
    for name in names:
        if name.startswith("q-"):
            messages.append(asked(name, name[2:]))
        else:
            run, _, question = name.partition(":")
            messages.append(Message(role="assistant", content=f"re {question}", id=run))
    return messages


LINE = tree(("r1", None, "a"), ("r2", "r1", "b"))


def test_only_unknown_messages_are_appended() -> None:
    whole = posted("q-a", "r1:a", "q-b", "r2:b", "q-c")
    for part in (whole, whole[2:], whole[3:], whole[4:]):
        found = continuation(LINE, part, head="r2")
        assert [message.id for message in found.messages] == ["q-c"]
        assert found.follows_head


def test_a_device_that_is_behind_appends_to_what_it_has_not_seen() -> None:
    found = continuation(LINE, posted("q-a", "r1:a", "q-c"), head="r2")
    assert found.follows_head
    assert [message.id for message in found.messages] == ["q-c"]


def test_a_question_that_comes_again_is_the_turn_that_it_has() -> None:
    assert continuation(LINE, posted("q-a", "r1:a", "q-b"), head="r2").repeats == "r2"
    assert continuation(LINE, posted("q-b"), head="r2").repeats == "r2"
    with pytest.raises(InputError):
        continuation(LINE, posted("q-a", "r1:a", "q-b", "r2:b"), head="r2")


def test_a_regeneration_is_a_turn_beside_the_one_it_replaces() -> None:
    found = continuation(LINE, posted("q-a", "r1:a", "q-b"), head="r2", regenerates=True)
    assert (found.parent, found.follows_head) == ("r1", False)
    assert [message.id for message in found.messages] == ["q-b"]
    first = continuation(LINE, posted("q-a"), head="r2", regenerates=True)
    assert (first.parent, first.follows_head) == (None, False)


def test_an_edit_is_a_branch() -> None:
    changed = [*posted("q-a", "r1:a"), asked("q-b", "b, but better")]
    found = continuation(LINE, changed, head="r2", edited="q-b")
    assert (found.parent, found.follows_head) == ("r1", False)
    assert found.messages == [asked("q-b", "b, but better")]


@pytest.mark.parametrize(
    "messages",
    [
        [*posted("q-a", "r1:a"), asked("q-b", "something else")],
        [asked("q-a", "something else"), *posted("r1:a", "q-c")],
        [*posted("q-a"), Message(role="assistant", content="other", id="r1"), *posted("q-c")],
        posted("q-b", "r2:b", "q-a"),
    ],
    ids=["a question", "the first one", "an answer", "another place"],
)
def test_a_known_id_with_other_content_is_a_conflict(messages: list[Message]) -> None:
    with pytest.raises(HistoryConflictError):
        continuation(LINE, messages, head="r2")


def test_a_client_that_left_early_has_the_beginning_of_an_answer() -> None:
    cut = [*posted("q-a"), Message(role="assistant", content="r", id="r1"), *posted("q-c")]
    assert continuation(LINE, cut, head="r2").follows_head


def test_the_branch_that_a_client_shows_is_the_one_that_it_continues() -> None:
    both = LINE | tree(("r3", "r1", "b"))
    both["r3"].created = 9.0
    left = continuation(both, posted("q-a", "r1:a", "q-b", "r2:b", "q-c"), head="r3")
    assert (left.parent, left.follows_head) == ("r2", False)
    right = continuation(both, posted("q-a", "r1:a", "q-b", "r3:b", "q-c"), head="r3")
    assert right.follows_head


# --- policies -------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "last", "last:0", "last:-1", "tokens:x", "ALL", "all:3"])
def test_a_policy_that_is_none(text: str) -> None:
    with pytest.raises(InputError):
        policy_of(text)


def test_the_newest_turn_is_given_even_where_it_exceeds_the_budget() -> None:
    branch = [Turn(run="r1", messages=[user("word " * 1000)])]
    assert selection(branch, policy_of("tokens:10")).turns == branch
