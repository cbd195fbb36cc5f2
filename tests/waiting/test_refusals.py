"""Why an answer is refused: it was given before, or the question ended without one.

Always true: only what somebody answered is refused without a reason, as a client that lost the
reply to its own answer takes such a refusal for that answer.
"""

from __future__ import annotations

import pytest

from support.agents import events_of
from support.waiting import Errand, Mail, begin, process, unread_mailboxes, until
from tokenwire.errors import ConflictError, TokenwireError
from tokenwire.events import model as m
from tokenwire.events.fold import Fold, fold
from tokenwire.relay import commands
from tokenwire.relay.commands import check_first, check_taken, encode_command, tool_answer
from tokenwire.relay.runs import Runs
from tokenwire.run.expiry import EXPIRED


async def refusal(runs: Runs, run: str, pending: str, way: str) -> object:
    """The reason for which an answer is refused; None without one."""
    with pytest.raises(ConflictError) as refused:
        if way == "result":
            await runs.answer_tool(run, pending, content="seen")
        else:
            await runs.approve(run, pending, approved=True)
    return refused.value.details.get("reason")


@pytest.mark.parametrize("way", ["result", "approve"])
@pytest.mark.parametrize("end", ["cancelled", "answered"])
async def test_only_what_was_answered_is_refused_without_a_reason(way: str, end: str) -> None:
    mail = Errand() if way == "result" else Mail()
    async with process("memory:", mail) as runs:
        info, pending = await begin(runs)
        if end == "cancelled":
            await runs.cancel(info.id)
        elif way == "result":
            assert await runs.answer_tool(info.id, pending, content="first")
        else:
            assert await runs.approve(info.id, pending, approved=False)
        state = fold(await events_of(runs, info.id))
        assert state.outcome == ("cancelled" if end == "cancelled" else "complete")
        assert [tool.done for tool in state.tools.values()] == [True]
        expected = "run_ended" if end == "cancelled" else None
        assert await refusal(runs, info.id, pending, way) == expected


@pytest.mark.parametrize("way", ["result", "approve"])
async def test_a_cancel_that_the_run_has_not_taken_is_a_reason(way: str) -> None:
    mail = Errand() if way == "result" else Mail()
    async with process("memory:", mail) as runs:
        info, pending = await begin(runs)
        cancel = encode_command(m.Control(command="cancel"))
        await runs.store.command(info.id, cancel)
        with unread_mailboxes():
            assert await refusal(runs, info.id, pending, way) == "run_ended"


async def test_an_approval_that_expired_is_refused_as_expired_ever_after() -> None:
    mail = Mail(timeout=0.2)
    async with process("memory:", mail) as runs:
        info, pending = await begin(runs)
        await until(lambda: runs.owned.get(info.id) is None)  # the run went on without the call
        assert fold(await events_of(runs, info.id)).outcome == "complete"
        assert await refusal(runs, info.id, pending, "approve") == EXPIRED


def test_an_expiry_in_the_mailbox_is_a_reason() -> None:
    yes = m.ApprovalAnswer(approval_id="a", call_id="c", approved=True)
    late = m.ApprovalAnswer(approval_id="a", call_id="c", approved=False, reason=EXPIRED)
    with pytest.raises(ConflictError) as refused:
        check_first(yes, [(1, encode_command(late)), (2, encode_command(yes))])
    assert refused.value.details["reason"] == EXPIRED
    check_first(yes, [(1, encode_command(yes)), (2, encode_command(late))])


def state_of(end: m.Event) -> Fold:
    """A run in which the call of a tool ended so."""
    events: list[m.Event] = [
        m.RunStart(run="r" * 20, model="m"),
        m.StepStart(step=1),
        m.ToolCallStart(part=0, step=1, name="look", call_id="c"),
        end,
    ]
    for number, event in enumerate(events, 1):
        event.seq = number
    return fold(events)


ENDS = {
    "result": m.ToolResult(call_id="c", content=1),
    "oversize": m.ToolError(call_id="c", code="oversize", message="too large"),
    "bad_result": m.ToolError(call_id="c", code="bad_result", message="nests too deep"),
    "cancelled": m.ToolError(call_id="c", code="cancelled", message="cancelled"),
    "max_cost": m.ToolError(call_id="c", code="max_cost", message="over"),
}


@pytest.mark.parametrize("name", ENDS)
async def test_a_call_that_the_run_ended_has_taken_no_result(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "_TAKEN_SECONDS", 0.0)
    state, was_sent = state_of(ENDS[name]), name in ("result", "oversize", "bad_result")

    with pytest.raises(TokenwireError) as refused:
        tool_answer(state, None, "c", has_ended=False, content=2, by=None, principal="")
    reason = {"cancelled": "run_ended", "max_cost": "call_ended"}.get(name)
    assert refused.value.details.get("reason") == reason
    async with process("memory:", Mail()) as runs:
        info, _ = await begin(runs)

        async def now() -> Fold:
            return state

        answer = m.ToolResult(call_id="c", content=1)
        await runs.store.command(info.id, commands.encode_command(answer))
        assert await check_taken(answer, runs.store, info.id, now) == was_sent
