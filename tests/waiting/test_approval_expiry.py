"""Approvals that nobody decides in time: denied once, by nobody, in whichever process."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import tokenwire
from support.agents import asked, crash, events_of, worker
from support.waiting import Mail, begin, process, until
from tokenwire import LoopLimits, RunContext, agent
from tokenwire.errors import ConfigError, ConflictError, InputError
from tokenwire.events import model as m
from tokenwire.events.fold import Fold, fold
from tokenwire.run import expiry
from tokenwire.run.expiry import Expiry, expires_at
from tokenwire.server.hooks import hooks_of
from tokenwire.server.settings import Settings
from tokenwire.testing import call
from tokenwire.tools.registry import ToolSet


def check_expired(events: list[Any], mail: Mail) -> None:
    """The approval ended by itself, once, and nothing ran."""
    answers = [e for e in events if isinstance(e, m.ApprovalAnswer)]
    assert [(a.approved, a.reason, a.by) for a in answers] == [(False, "expired", None)]
    state = fold(events)
    (tool,) = state.tools.values()
    assert (tool.error, tool.content) == ("denied", "nobody decided on this in time")
    assert (state.outcome, state.text, mail.sent) == ("complete", "I ask. Done.", [])


@pytest.mark.parametrize("where", ["tool", "server", "run", "request"])
async def test_an_approval_expires_by_the_time_of_its_tool_its_server_or_its_run(
    where: str,
) -> None:
    mail = Mail(timeout=0.2 if where == "tool" else 50)
    limits = LoopLimits(approval_timeout=0.2 if where == "server" else 40)
    how: dict[str, Any] = {"request": {"approval_timeout": 0.2}}.get(where, {})

    def before_start(start: Any) -> None:
        if where == "run":
            start.limits = LoopLimits(steps=3, approval_timeout=0.2)

    hooks = hooks_of(Settings(), before_start=before_start, before_tool=None, after_tool=None)
    async with process("memory:", mail, limits=limits, hooks=hooks) as runs:
        info = await runs.start(asked(), model="scripted", **how)
        events = await events_of(runs, info.id)
        check_expired(events, mail)
        (request,) = [e for e in events if isinstance(e, m.ApprovalRequest)]
        with pytest.raises(ConflictError):
            await runs.approve(info.id, request.approval_id, approved=True)


async def test_a_run_without_a_log_ends_its_approvals_as_well() -> None:
    mail = Mail(timeout=0.1)
    async with tokenwire.stream("send", model=mail.model, tools=mail.tools) as run:
        events = [event async for event in run]
    check_expired(events, mail)


async def test_a_decision_in_time_wins() -> None:
    mail = Mail(timeout=600)
    async with process("memory:", mail) as runs:
        info, approval = await begin(runs)
        await runs.approve(info.id, approval, approved=True, by="ann")
        state = fold(await events_of(runs, info.id))
    assert (mail.sent, state.approvals[approval].by) == (["all"], "ann")


async def test_it_expires_where_no_process_was_there_at_the_time(shared: str) -> None:
    mail = Mail(timeout=1.0)
    async with process(shared, mail) as first:
        info, approval = await begin(first)
        crash(first)
        expires = (await first.fold(info.id)).approvals[approval].expires
        assert expires is not None
        await until(lambda: time.time() * 1000 > expires)
        # Before any process has recorded it: too late for an approval all the same.
        with pytest.raises(ConflictError) as late:
            await first.approve(info.id, approval, approved=True, by="late")
        assert late.value.details["reason"] == "expired"
        async with process(shared, mail) as second:
            check_expired(await events_of(second, info.id), mail)


async def test_it_expires_once_in_the_process_that_took_it_over(shared: str) -> None:
    mail = Mail(timeout=2.5)
    async with process(shared, mail) as first:
        info, _ = await begin(first)
        crash(first)
        later = Mail(timeout=3600)
        later.model = mail.model
        async with process(shared, later) as second:  # the recorded time holds
            await until(lambda: info.id in second.owned)
            check_expired(await events_of(second, info.id), mail)


async def test_an_approval_that_came_in_time_counts_after_its_time(
    shared: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker dies with the decision in the mailbox, and the next one comes after the time."""
    mail = Mail(timeout=3600)
    async with process(shared, mail) as first:
        info, approval = await begin(first)
        expires = (await first.fold(info.id)).approvals[approval].expires
        assert expires is not None
        crash(first)
        await first.approve(info.id, approval, approved=True, by="ann")
        later = SimpleNamespace(time=lambda: time.time() + 7200, monotonic=time.monotonic)
        monkeypatch.setattr(expiry, "time", later)
        assert expiry.time.time() * 1000 > expires
        async with process(shared, mail) as second:
            state = fold(await events_of(second, info.id))
    assert (mail.sent, state.outcome) == (["all"], "complete")


async def test_an_agents_question_and_its_tools_expire_by_the_run_and_say_when(
    tmp_path: Path,
) -> None:
    mail = Mail()

    @agent
    async def job(ctx: RunContext):
        answer = await ctx.request_approval("burn", {"what": "it"}, timeout=3600)
        yield f"{bool(answer)} {answer.reason}. "
        async with ctx.stream("send", model=mail.model, tools=mail.tools) as inner:
            await inner.result()

    limits = LoopLimits(approval_timeout=0.3)
    async with worker(tmp_path, job, limits=limits) as runs:
        info = await runs.start(asked(), model="job")
        events = await events_of(runs, info.id)
    requests = [e for e in events if isinstance(e, m.ApprovalRequest)]
    answers = [e for e in events if isinstance(e, m.ApprovalAnswer)]
    assert len(requests) == len(answers) == 2
    assert all(request.expires is not None for request in requests)
    assert [(a.approved, a.reason) for a in answers] == [(False, "expired")] * 2
    assert (fold(events).text, mail.sent) == ("False expired. I ask. Done.", [])


async def test_two_calls_expire_each_at_its_own_time_and_a_decided_one_does_not() -> None:
    sent: list[str] = []

    @tokenwire.tool(needs_approval=True, approval_timeout=0.3)
    async def short(to: str) -> str:
        """Send."""
        sent.append(to)
        return "sent"

    @tokenwire.tool(needs_approval=True, approval_timeout=3600)
    async def long(to: str) -> str:
        """Send."""
        sent.append(to)
        return "sent"

    mail = Mail()
    mail.tools = ToolSet([short, long])
    mail.scripts = [[call("short", {"to": "a"}), call("long", {"to": "b"})], ["Done."]]
    async with process("memory:", mail) as runs:
        info, _ = await begin(runs)

        async def only_long() -> bool:
            return [n.startswith("ap_") for n in (await runs.fold(info.id)).waiting] == [True]

        await until(only_long)
        (left,) = (await runs.fold(info.id)).waiting
        await runs.approve(info.id, left, approved=True)
        state = fold(await events_of(runs, info.id))
    assert sent == ["b"]
    assert sorted(str(t.error) for t in state.tools.values()) == ["None", "denied"]


async def test_the_reason_of_an_expiry_is_nobodys_else() -> None:
    mail = Mail()
    async with process("memory:", mail) as runs:
        info, approval = await begin(runs)
        with pytest.raises(InputError):
            await runs.approve(info.id, approval, approved=False, reason="expired")
        await runs.approve(info.id, approval, approved=False, reason="no")
        state = fold(await events_of(runs, info.id))
    (call_state,) = state.tools.values()
    assert call_state.content == "a person denied this call: no"


@pytest.mark.parametrize("bad", [0, -1.0, float("nan")])
def test_a_time_that_is_none(bad: float) -> None:
    with pytest.raises(ConfigError):
        tokenwire.tool(needs_approval=True, approval_timeout=bad)(lambda: None)


def test_the_shortest_time_counts() -> None:
    assert expires_at(None, None) is None
    now = time.time() * 1000
    at = expires_at(None, 100, 5)
    assert at is not None
    assert now + 4000 < at < time.time() * 1000 + 6000


def test_records_of_before_have_no_time() -> None:
    state = Fold()
    state.apply(m.RunStart(run="r" * 16, time=5))
    state.apply(m.ApprovalRequest(approval_id="ap_c", call_id="c", name="send", t=3))
    assert (state.approvals["ap_c"].requested, state.approvals["ap_c"].expires) == (8, None)
    assert asyncio.run(_seconds(state)) is None


async def _seconds(state: Fold) -> float | None:
    async def send(_: m.ApprovalAnswer) -> None:
        raise AssertionError

    return Expiry("r", state, send).seconds(["c"])
