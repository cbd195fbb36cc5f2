"""Remote A2A agents as agents of ours: the a2a-sdk's server on both bindings, over cuts and a
takeover, with questions, and every end told as it was."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tokenwire
from support.a2a_peer import WORDS, Door, Executor, sdk_peer
from support.agents import asked, crash, events_of, worker
from tokenwire.agents.a2a.agent import remote_agent
from tokenwire.events import model as m
from tokenwire.events.fold import Fold, fold

TEXT = "".join(WORDS)


@pytest.fixture(scope="module")
def rpc() -> Iterator[tuple[Door, Executor]]:
    with sdk_peer() as peer:
        yield peer


@pytest.fixture(scope="module")
def rest() -> Iterator[tuple[Door, Executor]]:
    with sdk_peer(bindings=("HTTP+JSON",)) as peer:
        yield peer


@pytest.fixture(scope="module")
def polled() -> Iterator[tuple[Door, Executor]]:
    with sdk_peer(streaming=False) as peer:
        yield peer


@pytest.fixture(params=["rpc", "rest", "polled"])
def peer(request: pytest.FixtureRequest) -> tuple[Door, Executor]:
    return request.getfixturevalue(request.param)


async def run_of(door: Door, prompt: str, **more: Any) -> tuple[Fold, list[Any]]:
    """A run without a log, and its events."""
    agent = remote_agent(f"a2a:{door.url}", "peer", env=more)
    events: list[Any] = []
    async with tokenwire.stream(prompt, model=agent) as run:
        async for event in run:
            events.append(event)
    return fold(events), events


async def test_words_of_the_sdks_agent(peer: tuple[Door, Executor]) -> None:
    state, events = await run_of(peer[0], "words", A2A_PEER_API_KEY="k1")
    assert (state.text, state.outcome) == (TEXT, "complete")
    assert "".join(e.text for e in events if isinstance(e, m.TextDelta)) == TEXT
    assert peer[0].headers[-1]["authorization"] == "Bearer k1"
    assert peer[0].headers[-1]["a2a-version"] == "1.0"


@pytest.mark.parametrize(
    ("word", "outcome", "text", "code"),
    [
        ("last", "complete", "the last words", None),
        ("message", "complete", "just words", None),
        ("fail", "error", "half", "out of paper"),
        ("reject", "complete", "", None),
    ],
)
async def test_every_end_is_told_as_it_was(
    peer: tuple[Door, Executor], word: str, outcome: str, text: str, code: str | None
) -> None:
    state, events = await run_of(peer[0], word)
    assert (state.outcome, state.text) == (outcome, text)
    errors = [e.message for e in events if isinstance(e, m.Error)]
    assert errors == ([code] if code else [])
    refused = "".join(e.text for e in events if isinstance(e, m.RefusalDelta))
    assert refused == ("I will not." if word == "reject" else "")
    assert state.finish_reason == {"reject": "refusal", "fail": "error"}.get(word, "stop")


async def test_data_and_files(peer: tuple[Door, Executor]) -> None:
    state, events = await run_of(peer[0], "things")
    (data,) = [e for e in events if isinstance(e, m.Data)]
    assert (data.name, data.payload, data.id) == ("order", {"n": 7.0}, "d")
    (file,) = [e for e in events if isinstance(e, m.FileStart)]
    assert (file.media, file.media_type, file.name) == ("image", "image/png", "a.png")
    assert [e.text for e in events if isinstance(e, m.FileDelta)] == ["aGVsbG8="]
    assert (state.text, state.outcome) == ("look: ", "complete")
    assert [e.message for e in events if isinstance(e, m.RunProgress)] in (["at work"], [])


@pytest.mark.parametrize("kind", ["rpc", "rest"])
async def test_a_stream_cut_anywhere_is_resumed_without_a_word_twice(
    kind: str, request: pytest.FixtureRequest
) -> None:
    """The SDK's agent has no replay: the task that comes first on a subscription, and the whole
    task at the end, make up for what was missed."""
    door, executor = request.getfixturevalue(kind)
    executor.texts.clear()
    cuts = list(range(0, 16, 1 if kind == "rpc" else 4))
    for cut in cuts:
        door.cuts = [cut, 1]
        state, events = await run_of(door, f"words {cut}")
        assert (state.text, state.outcome) == (TEXT, "complete"), cut
        assert "".join(e.text for e in events if isinstance(e, m.TextDelta)) == TEXT
    door.cuts = []
    assert executor.texts == [f"words {cut}" for cut in cuts]  # each message once


@pytest.mark.parametrize("method", ["SendStreamingMessage", "SendMessage"])
async def test_a_message_without_an_answer_is_looked_for_and_not_sent_again(
    method: str, rpc: tuple[Door, Executor], polled: tuple[Door, Executor]
) -> None:
    door, executor = rpc if method == "SendStreamingMessage" else polled
    executor.texts.clear()
    door.asked.clear()
    door.mute = [method]
    state, _ = await run_of(door, "words muted")
    assert (state.text, state.outcome) == (TEXT, "complete")
    assert (executor.texts, door.asked[method]) == (["words muted"], 1)


async def test_a_message_that_nobody_can_find_is_in_doubt(rpc: tuple[Door, Executor]) -> None:
    door, executor = rpc
    executor.texts.clear()
    door.mute = ["SendStreamingMessage"]
    state, events = await run_of(door, "message")  # the SDK keeps no task of it
    assert (state.outcome, state.end_reason) == ("interrupted", "message_in_doubt")
    assert executor.texts == ["message"]
    assert [e.code for e in events if isinstance(e, m.Error)] == ["message_in_doubt"]


async def waiting(runs: Any, text: str) -> tuple[str, str]:
    """A run that waits for a person: its id, and the approval's."""
    info = await runs.start(asked(text), model="peer")
    events = await events_of(runs, info.id, lambda e: isinstance(e, m.RunWait))
    return info.id, events[-1].pending[0]


@pytest.mark.parametrize("arguments", [{"question": "Which one?", "answer": "the red"}, None])
@pytest.mark.parametrize("is_lost", [False, True])
async def test_a_question_is_answered_in_the_same_task(
    peer: tuple[Door, Executor], tmp_path: Path, is_lost: bool, arguments: Any
) -> None:
    door, executor = peer
    executor.texts.clear()
    agent = remote_agent(f"a2a:{door.url}", "peer")
    async with worker(tmp_path, agent) as first:
        run, approval = await waiting(first, "ask")
        state = await first.fold(run)
        assert state.approvals[approval].reason == "Which one?"
        assert state.tools[approval.removeprefix("ap_")].name == "input"
        runs = first
        if is_lost:
            crash(first)
        async with worker(tmp_path, agent) as second:
            runs = second if is_lost else first
            await runs.approve(run, approval, approved=True, arguments=arguments)
            state = fold(await events_of(runs, run))
    answer = "the red" if arguments else "yes"
    assert (state.text, state.outcome) == (f"before answered {answer}", "complete")
    assert executor.texts == ["ask", answer]


async def test_an_authorisation_is_waited_for_or_refused(
    rpc: tuple[Door, Executor], tmp_path: Path
) -> None:
    door, executor = rpc
    agent = remote_agent(f"a2a:{door.url}", "peer")
    async with worker(tmp_path, agent) as runs:
        run, approval = await waiting(runs, "auth")
        executor.go.set()  # it is authorised elsewhere; nobody says so here
        state = fold(await events_of(runs, run))
        executor.go.clear()
        assert state.outcome == "complete"
        assert state.approvals[approval].reason == "Sign in at the bank."
        cancelled = executor.cancelled
        run, approval = await waiting(runs, "auth again")
        await runs.approve(run, approval, approved=False)
        events = await events_of(runs, run)
    assert fold(events).outcome == "error"
    assert [e.code for e in events if isinstance(e, m.Error)] == ["remote_unauthorised"]
    assert executor.cancelled == cancelled + 1


async def test_a_cancel_reaches_the_remote_task(
    peer: tuple[Door, Executor], tmp_path: Path
) -> None:
    door, executor = peer
    agent, cancelled = remote_agent(f"a2a:{door.url}", "peer"), executor.cancelled
    async with worker(tmp_path, agent) as runs:
        info = await runs.start(asked("hang"), model="peer")
        await events_of(runs, info.id, lambda e: isinstance(e, m.TextDelta))
        await runs.cancel(info.id)
        state = fold(await events_of(runs, info.id))
    assert state.outcome == "cancelled"
    assert TEXT.startswith(state.text)
    assert executor.cancelled == cancelled + 1


@pytest.mark.parametrize(
    ("word", "how"),
    [
        *((word, how) for word in ("hang", "ask") for how in ("lost", "taken over", "erased")),
        ("ask", "expired"),
    ],
)
async def test_the_remote_task_ends_with_a_run_that_nobody_works_at(
    rpc: tuple[Door, Executor], tmp_path: Path, word: str, how: str
) -> None:
    """Cancelled while its worker is lost, or when another one has it; erased; or waited too
    long."""
    door, executor = rpc
    agent, cancelled = remote_agent(f"a2a:{door.url}", "peer"), door.asked["CancelTask"]
    executor.go.clear()

    def is_begun(event: m.Event) -> bool:
        return isinstance(event, m.RunWait if word == "ask" else m.TextDelta)

    async def hears() -> None:
        async with asyncio.timeout(45):
            while door.asked["CancelTask"] == cancelled:
                await asyncio.sleep(0.01)

    async with worker(tmp_path, agent, wait_timeout=0.2 if how == "expired" else 60.0) as first:
        info = await first.start(asked(word), model="peer")
        await events_of(first, info.id, is_begun)
        if how == "expired":
            assert fold(await events_of(first, info.id)).outcome == "incomplete"
        elif how == "erased":
            await first.delete(info.id)
        else:
            crash(first)
            if how == "lost":
                await first.cancel(info.id)
            async with worker(tmp_path, agent) as second:
                await events_of(second, info.id, lambda e: isinstance(e, m.RunClaim | m.RunEnd))
                if how != "lost":
                    await second.cancel(info.id)
                assert fold(await events_of(second, info.id)).outcome == "cancelled"
                await hears()
        await hears()


async def test_a_remote_agent_that_is_away_delays_no_end(
    rpc: tuple[Door, Executor], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    door, executor = rpc
    executor.go.clear()
    agent = remote_agent(f"a2a:{door.url}", "peer")
    async with worker(tmp_path, agent) as first:
        info = await first.start(asked("hang"), model="peer")
        await events_of(first, info.id, lambda e: isinstance(e, m.TextDelta))
        crash(first)
        await first.cancel(info.id)
        away = remote_agent("a2a:http://127.0.0.1:9", "peer")
        async with worker(tmp_path, away) as second:
            assert fold(await events_of(second, info.id)).outcome == "cancelled"
            async with asyncio.timeout(45):
                while "is not cancelled" not in caplog.text:
                    await asyncio.sleep(0.01)
    executor.go.set()


async def test_another_worker_goes_on_with_the_same_task(
    peer: tuple[Door, Executor], tmp_path: Path
) -> None:
    door, executor = peer
    executor.texts.clear()
    executor.go.clear()
    agent = remote_agent(f"a2a:{door.url}", "peer")
    async with worker(tmp_path, agent) as first:
        info = await first.start(asked("hang"), model="peer")
        await events_of(first, info.id, lambda e: isinstance(e, m.TextDelta))
        crash(first)
        async with worker(tmp_path, agent) as second:
            await events_of(second, info.id, lambda e: isinstance(e, m.RunClaim))
            executor.go.set()
            events = await events_of(second, info.id)
    executor.go.clear()
    state = fold(events)
    assert (state.text, state.outcome) == (TEXT, "complete")
    assert "".join(e.text for e in events if isinstance(e, m.TextDelta)) == TEXT
    assert executor.texts == ["hang"]
    assert not [e for e in events if isinstance(e, m.StepReset)]


async def test_a_worker_lost_before_the_answer_sends_nothing_again(
    rpc: tuple[Door, Executor], tmp_path: Path
) -> None:
    """The message is on its way when its worker is lost: another one finds its task."""
    door, executor = rpc
    executor.texts.clear()
    agent = remote_agent(f"a2a:{door.url}", "peer")
    async with worker(tmp_path, agent) as first:
        door.hold.clear()
        info = await first.start(asked("words held"), model="peer")
        while "words held" not in executor.texts:
            await asyncio.sleep(0.01)
        crash(first)
        door.hold.set()
        async with worker(tmp_path, agent) as second:
            state = fold(await events_of(second, info.id))
    assert (state.text, state.outcome) == (TEXT, "complete")
    assert executor.texts == ["words held"]
