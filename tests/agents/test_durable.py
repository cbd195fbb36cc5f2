"""Agents on a store: what another worker gives from the record, does again, or refuses to do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tokenwire
from support.agents import LEASE, asked, crash, events_of, worker
from tokenwire import RunContext, agent, tool
from tokenwire.errors import ConflictError, InputError, NotFoundError, StepError, UnknownModelError
from tokenwire.events import model as m
from tokenwire.events.codec import decode
from tokenwire.events.fold import Fold, fold
from tokenwire.log.base import private_kind
from tokenwire.run.call.recover import RetryPolicy
from tokenwire.testing import ScriptedModel, call, cut


def task_ended(name: str, times: int = 1) -> Callable[[m.Event], bool]:
    """True at the end of the how-many-th task of this name."""
    steps: list[int] = []
    seen = 0

    def check(event: m.Event) -> bool:
        nonlocal seen
        if isinstance(event, m.StepStart) and event.name == name:
            steps.append(event.step)
        if isinstance(event, m.StepEnd) and event.step in steps:
            seen += 1
        return seen >= times

    return check


async def taken_over(
    path: Path,
    make: Callable[[], Any],
    until: Callable[[m.Event], bool],
    ready: Callable[[], bool] = lambda: True,
    **more: Any,
) -> tuple[Fold, list[Any]]:
    """Start with one worker, let it die, and read what another makes of it."""
    async with worker(path, make()) as first:
        info = await first.start(asked(), model="job")
        await events_of(first, info.id, until)
        while not ready():
            await asyncio.sleep(0.01)
        crash(first)
        async with worker(path, make(), **more) as second:
            events = await events_of(second, info.id)
            return fold(events), events


async def test_a_finished_step_is_not_done_again_and_its_text_is_not_said_twice(
    tmp_path: Path,
) -> None:
    calls: list[str] = []
    hang = asyncio.Event()

    def work(name: str) -> dict[str, Any]:
        calls.append(name)
        return {"name": name, "n": [1, (2, 3)]}

    def make() -> Any:
        @agent
        async def job(ctx: RunContext):
            yield "One. "
            value = await ctx.step("a", work, "a")
            ctx.data("note", value)
            yield f"Two {value['n']}. "
            value = await ctx.step("b", work, "b")
            if not hang.is_set():
                hang.set()
                await asyncio.sleep(60)
            yield "Three."

        return job

    state, events = await taken_over(tmp_path, make, task_ended("b"))
    assert calls == ["a", "b"]
    assert state.text == "One. Two [1, [2, 3]]. Three."
    assert state.outcome == "complete"
    assert len([e for e in events if isinstance(e, m.Data)]) == 1


async def test_text_after_the_last_step_is_taken_back_and_said_again(tmp_path: Path) -> None:
    tries: list[int] = []

    def make() -> Any:
        @agent
        async def job(ctx: RunContext):
            await ctx.step("a", lambda: 1)
            ctx.data("n", 1)
            ctx.state({"stage": "writing"})
            tries.append(1)
            yield "Half a sent"
            if len(tries) == 1:
                await asyncio.sleep(60)
            yield "ence."

        return job

    state, events = await taken_over(tmp_path, make, lambda e: isinstance(e, m.TextDelta))
    assert state.text == "Half a sentence."
    assert [e.reason for e in events if isinstance(e, m.StepReset)] == ["restart"]
    assert len([e for e in events if isinstance(e, m.Data)]) == 1
    assert len([e for e in events if isinstance(e, m.SharedState)]) == 1


@pytest.mark.parametrize("idempotent", [True, False])
async def test_an_open_step_is_done_again_only_if_it_may_be(
    tmp_path: Path, idempotent: bool
) -> None:
    calls: list[int] = []

    async def work() -> str:
        calls.append(1)
        if len(calls) == 1:
            await asyncio.sleep(60)
        return "done"

    def make() -> Any:
        @agent
        async def job(ctx: RunContext):
            try:
                yield await ctx.step("open", work, idempotent=idempotent)
            except Exception:
                yield "swallowed"

        return job

    def began(event: m.Event) -> bool:
        return isinstance(event, m.StepStart)

    state, _ = await taken_over(tmp_path, make, began, ready=lambda: bool(calls))
    if idempotent:
        assert (state.outcome, state.text, len(calls)) == ("complete", "done", 2)
    else:
        assert (state.outcome, state.end_reason) == ("interrupted", "step_in_doubt")
        assert (state.text, len(calls)) == ("", 1)


async def test_a_failed_step_fails_in_the_same_way_again(tmp_path: Path) -> None:
    calls: list[int] = []

    def work() -> None:
        calls.append(1)
        raise ValueError("no luck")

    def make() -> Any:
        @agent
        async def job(ctx: RunContext):
            try:
                await ctx.step("fails", work)
            except StepError as error:
                text = f"{error}; "
            yield text
            await ctx.step("next", lambda: 1)
            if len(calls) == 1:
                calls.append(2)
                await asyncio.sleep(60)
            yield "end"

        return job

    state, _ = await taken_over(tmp_path, make, task_ended("next"))
    assert (state.text, calls) == ("no luck; end", [1, 2])


async def test_steps_at_once_are_told_apart(tmp_path: Path) -> None:
    calls: list[str] = []

    async def work(name: str) -> str:
        calls.append(name)
        await asyncio.sleep(0.01 * (3 - len(name)))
        return name.upper()

    def make() -> Any:
        @agent
        async def job(ctx: RunContext):
            async def branch(name: str) -> str:
                first = await ctx.step("work", work, name)
                return await ctx.step("more", work, first)

            texts = await asyncio.gather(branch("a"), branch("bb"))
            if len(calls) == 4:
                calls.append("x")
                await asyncio.sleep(60)
            yield " ".join(texts)

        return job

    state, _ = await taken_over(tmp_path, make, task_ended("more", 2))
    assert state.text == "A BB"
    assert sorted(calls) == sorted(["a", "bb", "A", "BB", "x"])


async def test_a_finished_answer_is_given_and_an_open_one_is_made_again(tmp_path: Path) -> None:
    hidden, shown = ScriptedModel(["route 7"]), ScriptedModel(["Fine ", "words. "])
    tries: list[int] = []

    def make() -> Any:
        @agent
        async def job(ctx: RunContext):
            async with ctx.stream("which?", model=hidden, visible=False) as answer:
                route = (await answer.result()).text
            async with ctx.stream("write", model=shown) as answer:
                result = await answer.result()
                text = result.text
            await ctx.step("after", lambda: 1)
            tries.append(1)
            if len(tries) == 1:
                await asyncio.sleep(60)
            yield f"({route}, {text})"

        return job

    state, events = await taken_over(tmp_path, make, task_ended("after"))
    assert state.text == "Fine words. (route 7, Fine words. )"
    assert (len(hidden.requests), len(shown.requests)) == (1, 1)
    assert state.outcome == "complete"
    assert "route 7" not in str([e for e in events if not isinstance(e, m.TextDelta)])


async def test_an_answer_that_was_cut_by_the_crash_starts_again(tmp_path: Path) -> None:
    tries: list[int] = []

    def make() -> Any:
        tries.append(1)

        @agent
        async def job(ctx: RunContext):
            yield "First: "
            async with ctx.stream("count", model="demo") as answer:
                async for event in answer:
                    if len(tries) == 1 and isinstance(event, m.TextDelta):
                        await asyncio.sleep(60)
                text = answer.state.text
            yield f" [{len(text)}]"

        return job

    state, events = await taken_over(
        tmp_path, make, lambda e: isinstance(e, m.TextDelta) and e.part == 1
    )
    assert state.outcome == "complete"
    resets = [e for e in events if isinstance(e, m.StepReset)]
    assert [r.attempt for r in resets] == [2]
    assert state.text.startswith("First: ")
    answer = state.text.removeprefix("First: ").rpartition(" [")[0]
    assert state.text.endswith(f" [{len(answer)}]")


class Silent(ScriptedModel):
    """It answers every request but the first."""

    async def open(self, call: Any, *, connect_timeout: float) -> Any:
        if not self.requests:
            self.requests.append({})
            await asyncio.Event().wait()
        return await super().open(call, connect_timeout=connect_timeout)


@pytest.mark.parametrize("visible", [True, False])
async def test_an_answer_that_a_second_model_began_is_made_again(
    tmp_path: Path, visible: bool
) -> None:
    cuts, silent = ScriptedModel([cut()]), Silent(["route 7"])
    retry = RetryPolicy(retries=0)

    def make() -> Any:
        @agent
        async def job(ctx: RunContext):
            models = [cuts, silent]
            async with ctx.stream("?", model=models, visible=visible, retry=retry) as answer:
                route = (await answer.result()).text
            yield f"({route})"

        return job

    def fell_back(event: m.Event) -> bool:
        return isinstance(event, m.StepStart) and event.attempt == 2

    state, events = await taken_over(tmp_path, make, fell_back, ready=lambda: bool(silent.requests))
    assert state.outcome == "complete"
    assert state.text.endswith("(route 7)")
    resets = [(e.attempt, e.reason) for e in events if isinstance(e, m.StepReset)]
    assert resets == [(2, "fallback"), (3, "restart"), (4, "fallback")]


async def test_another_path_than_before_ends_the_run(tmp_path: Path) -> None:
    calls: list[str] = []
    versions: list[int] = []

    def make() -> Any:
        versions.append(1)
        number = len(versions)

        @agent
        async def job(ctx: RunContext):
            await ctx.step("a" if number == 1 else "b", calls.append, str(number))
            await asyncio.sleep(60 if number == 1 else 0)
            yield "never"

        return job

    state, _ = await taken_over(tmp_path, make, task_ended("a"))
    assert (state.outcome, state.end_reason) == ("interrupted", "replay_diverged")
    assert calls == ["1"]


async def test_another_version_leaves_the_run_and_then_ends_it(tmp_path: Path) -> None:
    versions: list[str] = []

    def make() -> Any:
        versions.append(str(len(versions) + 1))

        @agent("job", version=versions[-1])
        async def job(ctx: RunContext):
            await ctx.step("a", lambda: 1)
            await asyncio.sleep(60)
            yield "never"

        return job

    state, _ = await taken_over(tmp_path, make, task_ended("a"))
    assert (state.outcome, state.end_reason) == ("interrupted", "agent_changed")


async def test_one_that_is_not_to_be_restarted_is_not(tmp_path: Path) -> None:
    runs: list[int] = []

    def make() -> Any:
        @agent("job", restart=False)
        async def job(ctx: RunContext):
            runs.append(1)
            yield "Words. "
            await asyncio.sleep(60)

        return job

    state, _ = await taken_over(tmp_path, make, lambda e: isinstance(e, m.TextDelta))
    assert (state.outcome, state.end_reason, state.text) == (
        "interrupted",
        "worker_lost",
        "Words. ",
    )
    assert len(runs) == 1


async def test_an_approval_is_answered_after_the_restart(tmp_path: Path) -> None:
    runs: list[int] = []

    def make() -> Any:
        @agent
        async def job(ctx: RunContext):
            runs.append(1)
            yield "May I? "
            answer = await ctx.request_approval("send", {"to": "all"})
            yield f"{bool(answer)} {answer.arguments} {answer.by}"

        return job

    async with worker(tmp_path, make()) as first:
        info = await first.start(asked(), model="job")
        events = await events_of(first, info.id, lambda e: isinstance(e, m.RunWait))
        approval = events[-1].pending[0]
        crash(first)
        async with worker(tmp_path, make()) as second:
            await asyncio.sleep(3 * LEASE + 1)
            assert runs == [1], "it was run again while it waits"
            assert (await second.info(info.id)).state == "waiting"
            await second.approve(
                info.id, approval, approved=True, by="eve", arguments={"to": "none"}
            )
            state = fold(await events_of(second, info.id))
    assert state.text == "May I? True {'to': 'none'} eve"
    assert runs == [1, 1]


@pytest.mark.parametrize("bad", [[1], "x", {"a": "\ud800"}, {"a": object()}])
async def test_edited_arguments_that_are_none_leave_the_question_open(
    bad: Any, tmp_path: Path
) -> None:
    @agent
    async def job(ctx: RunContext):
        answer = await ctx.request_approval("send", {"to": "all"})
        yield str(answer.arguments)

    async with worker(tmp_path, job) as runs:
        info = await runs.start(asked(), model="job")
        waits = await events_of(runs, info.id, lambda e: isinstance(e, m.RunWait))
        approval = waits[-1].pending[0]
        with pytest.raises(InputError):
            await runs.approve(info.id, approval, approved=True, arguments=bad)
        await runs.approve(info.id, approval, approved=True, arguments={"to": "none"})
        assert fold(await events_of(runs, info.id)).text == "{'to': 'none'}"


async def test_private_values_are_in_no_snapshot_and_go_with_the_run(tmp_path: Path) -> None:
    @agent
    async def job(ctx: RunContext):
        await ctx.step("secret", lambda: "s3cret-value")
        yield "ok"

    async with worker(tmp_path, job) as runs:
        info = await runs.start(asked(), model="job")
        events = await events_of(runs, info.id)
        kind = private_kind(info.id)
        assert b"s3cret-value" in b"".join((await runs.store.documents(kind)).values())
        assert "s3cret-value" not in str(events)
        assert "s3cret-value" not in str(await runs.snapshot(info.id))
        await runs.delete(info.id)
        assert await runs.store.documents(kind) == {}
        with pytest.raises(NotFoundError):
            await runs.info(info.id)


async def test_who_may_start_an_agent(tmp_path: Path) -> None:
    @agent("job", allow=["eve"])
    async def job(ctx: RunContext):
        yield ctx.principal

    async with worker(tmp_path, job) as runs:
        info = await runs.start(asked(), model="job", principal="eve")
        follower = await runs.follow(info.id, principal="eve")
        follower.close()
        with pytest.raises(UnknownModelError):
            await runs.start(asked(), model="job", principal="bob")


async def test_cancel_of_a_run_on_a_store(tmp_path: Path) -> None:
    @agent
    async def job(ctx: RunContext):
        yield "a"
        await asyncio.sleep(60)

    async with worker(tmp_path, job) as runs:
        info = await runs.start(asked(), model="job")
        await events_of(runs, info.id, lambda e: isinstance(e, m.TextDelta))
        await runs.cancel(info.id)
        state = fold(await events_of(runs, info.id))
    assert (state.outcome, state.text) == ("cancelled", "a")


def waits_at_most(seconds: float, runs: list[int] | None = None) -> Any:
    @agent
    async def job(ctx: RunContext):
        if runs is not None:
            runs.append(1)
        answer = await ctx.request_approval("send", {"to": "all"}, timeout=seconds)
        yield f"{bool(answer)} {answer.reason} {answer.arguments}"

    return job


@pytest.mark.parametrize("is_logged", [True, False])
async def test_an_approval_expires(is_logged: bool, tmp_path: Path) -> None:
    if is_logged:
        async with worker(tmp_path, waits_at_most(0.2)) as runs:
            info = await runs.start(asked(), model="job")
            state = fold(await events_of(runs, info.id))
            approval = next(iter(state.tools.values())).approval_id
            assert approval is not None
            with pytest.raises(ConflictError):
                await runs.approve(info.id, approval, approved=True)
    else:
        async with tokenwire.stream("Hello", model=waits_at_most(0.2)) as run:
            await run.result()
            state = run.state
    assert (state.outcome, state.text) == ("complete", "False expired {'to': 'all'}")
    (tool,) = state.tools.values()
    assert (tool.done, tool.error, tool.content) == (
        True,
        "denied",
        "nobody decided on this in time",
    )


async def test_a_decision_in_time_wins(tmp_path: Path) -> None:
    async with worker(tmp_path, waits_at_most(30)) as runs:
        info = await runs.start(asked(), model="job")
        events = await events_of(runs, info.id, lambda e: isinstance(e, m.RunWait))
        await runs.approve(info.id, events[-1].pending[0], approved=True, reason="why")
        state = fold(await events_of(runs, info.id))
    assert state.text == "True why {'to': 'all'}"


async def test_an_approval_expires_at_its_time_over_a_restart(tmp_path: Path) -> None:
    runs: list[int] = []
    async with worker(tmp_path, waits_at_most(3, runs)) as first:
        info = await first.start(asked(), model="job")
        await events_of(first, info.id, lambda e: isinstance(e, m.RunWait))
        crash(first)
        async with worker(tmp_path, waits_at_most(60, runs)) as second:  # the recorded time holds
            await asyncio.sleep(3 * LEASE + 0.5)
            assert runs == [1], "it was run again before the time"
            state = fold(await events_of(second, info.id))
    assert (state.text, runs) == ("False expired {'to': 'all'}", [1, 1])


@pytest.mark.parametrize("bad", [0, -1, float("nan")])
async def test_a_timeout_that_is_none(bad: float) -> None:
    with pytest.raises(InputError):
        async with tokenwire.stream("Hello", model=waits_at_most(bad)) as run:
            await run.result()


async def test_a_tools_approval_inside_of_an_answer_survives_a_restart(tmp_path: Path) -> None:
    sent: list[str] = []

    @tool(needs_approval=True)
    async def send(to: str) -> str:
        """Send."""
        sent.append(to)
        return "sent"

    model = ScriptedModel(["I send. ", call("send", {"to": "all"})], ["Sent."])

    def make() -> Any:
        @agent
        async def job(ctx: RunContext):
            async with ctx.stream("send", model=model, tools=[send]) as answer:
                await answer.result()
            yield " Done."

        return job

    async with worker(tmp_path, make()) as first:
        info = await first.start(asked(), model="job")
        events = await events_of(first, info.id, lambda e: isinstance(e, m.RunWait))
        crash(first)
        async with worker(tmp_path, make()) as second:
            await asyncio.sleep(3 * LEASE + 0.5)
            await second.approve(info.id, events[-1].pending[0], approved=True)
            state = fold(await events_of(second, info.id))
    assert (state.outcome, state.text, sent) == ("complete", "I send. Sent. Done.", ["all"])


@pytest.mark.parametrize("until", [m.StepStart, m.ToolCallStart, m.ToolCallDelta, m.ToolCallEnd])
async def test_a_question_that_was_lost_before_it_was_whole_is_asked_again(
    tmp_path: Path, until: type[m.Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker is lost right after one record of the question."""

    @agent
    async def job(ctx: RunContext):
        yield "May I? "
        answer = await ctx.request_approval("tidy", {"path": "a"})
        yield "yes" if answer else "no"

    async with worker(tmp_path, job) as first:
        append, lost = first.store.append, asyncio.Event()

        async def cut(stream: str, *, first: int, records: list[bytes], **more: Any) -> Any:
            for number, record in enumerate(records):
                done = await append(stream, first=first + number, records=[record], **more)
                event = decode(record[16:])
                own = isinstance(event, m.StepStart) and event.operation is None
                if isinstance(event, until) and not own:
                    lost.set()
                    await asyncio.sleep(60)
            return done

        monkeypatch.setattr(first.store, "append", cut)
        info = await first.start(asked(), model="job")
        async with asyncio.timeout(60):
            await lost.wait()
        crash(first)
        async with worker(tmp_path, job) as second:
            seen = await events_of(second, info.id, lambda e: isinstance(e, m.RunWait))
            [question] = [e for e in seen if isinstance(e, m.ApprovalRequest)]
            await second.approve(info.id, question.approval_id, approved=True)
            events = await events_of(second, info.id)
    state = fold(events)
    assert (state.outcome, state.text) == ("complete", "May I? yes")
    assert not state.usage_unknown
    assert sum(isinstance(e, m.ApprovalRequest) for e in events) == 1
    assert {e.call_id for e in events if isinstance(e, m.ToolCallStart)} == {question.call_id}
