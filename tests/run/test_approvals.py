"""Approvals and the client's own tools: edited arguments, tools that are both, late and wrong
answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import tokenwire
from support.spine import read_all, relay, request_of, run_async, simulator
from tokenwire import Tool
from tokenwire.errors import InputError, NotFoundError
from tokenwire.events import model as m
from tokenwire.testing import ScriptedModel, call

FILE = {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}


def ask(
    script: list[Any], tools: list[Any], answer: Callable[[Any, Any], None]
) -> tuple[ScriptedModel, list[Any]]:
    """The events of a run; ``answer(run, event)`` sees each."""
    model = ScriptedModel(script, ["Done."])

    async def main() -> list[Any]:
        events = []
        async with tokenwire.stream("Hi", model=model, tools=tools) as run:
            async for event in run:
                events.append(event)
                answer(run, event)
        return events

    return model, asyncio.run(main())


def deleting() -> tuple[Tool, list[str]]:
    deleted: list[str] = []

    def delete_file(path: str) -> str:
        deleted.append(path)
        return "gone"

    return Tool.of(delete_file, needs_approval=True), deleted


def test_edited_arguments_that_do_not_fit_are_refused_and_the_question_stays_open() -> None:
    found, deleted = deleting()

    def answer(run: Any, event: Any) -> None:
        if isinstance(event, m.RunWait):
            for bad in ({"path": 3}, {}, {"path": "a", "other": 1}):
                with pytest.raises(InputError, match="edited arguments do not fit"):
                    run.approve(event.pending[0], True, arguments=bad)
            run.approve(event.pending[0], True, arguments={"path": "b"})

    _, events = ask([call("delete_file", {"path": "a"})], [found], answer)
    assert deleted == ["b"]
    (start,) = [e for e in events if isinstance(e, m.ToolStart)]
    assert start.arguments == {"path": "b"}


def test_an_approval_that_was_not_asked_for_is_told() -> None:
    found, deleted = deleting()

    def answer(run: Any, event: Any) -> None:
        if isinstance(event, m.RunWait):
            with pytest.raises(NotFoundError):
                run.approve("ap_else")
            run.approve(event.pending[0], False)

    ask([call("delete_file", {"path": "a"})], [found], answer)
    assert deleted == []


def test_a_server_refuses_edited_arguments_that_do_not_fit() -> None:
    found, deleted = deleting()

    async def main() -> None:
        async with simulator() as server, relay(server, tools=[found]) as runs:
            info = await runs.start(request_of("scenario:approval"), model="m0")
            follower = await runs.follow(info.id)
            pending: list[str] = []
            while not pending:
                for _, event in (await follower.next()).events():
                    pending = event.pending if isinstance(event, m.RunWait) else pending
            follower.close()
            with pytest.raises(InputError):
                await runs.approve(info.id, pending[0], approved=True, arguments={"path": 3})
            assert (await runs.info(info.id)).state == "waiting"
            await runs.approve(
                info.id, pending[0], approved=True, arguments={"path": "x"}, by="ann"
            )
            events = [event for _, event in await read_all(runs, info.id)]
            (answered,) = [e for e in events if isinstance(e, m.ApprovalAnswer)]
            assert (answered.by, answered.arguments) == ("ann", {"path": "x"})

    run_async(main())
    assert deleted == ["x"]


def test_a_clients_tool_may_need_a_yes_before_the_client_runs_it() -> None:
    found = Tool.from_schema("delete_file", FILE, needs_approval=True)
    waits: list[tuple[str, list[str]]] = []

    def answer(run: Any, event: Any) -> None:
        if isinstance(event, m.RunWait):
            waits.append((event.reason, event.pending))
            if event.reason == "approval":
                run.answer_tool("c1", "too early")
                run.approve(event.pending[0], True, arguments={"path": "b"})
            else:
                run.answer_tool("c1", {"deleted": "b"})

    model, events = ask([call("delete_file", {"path": "a"}, call_id="c1")], [found], answer)
    assert waits == [("approval", ["ap_c1"]), ("client_tool", ["c1"])]
    (result,) = [e for e in events if isinstance(e, m.ToolResult)]
    assert result.content == {"deleted": "b"}
    assert model.requests[1]["messages"][-1]["content"] == '{"deleted":"b"}'


def test_a_clients_tool_that_was_denied_is_not_waited_for() -> None:
    found = Tool.from_schema("delete_file", FILE, needs_approval=True)

    def answer(run: Any, event: Any) -> None:
        if isinstance(event, m.RunWait):
            assert event.reason == "approval"
            run.approve(event.pending[0], False)

    _, events = ask([call("delete_file", {"path": "a"})], [found], answer)
    assert [e.code for e in events if isinstance(e, m.ToolError)] == ["denied"]


@pytest.mark.parametrize(
    ("content", "code"), [("x" * 101, "oversize"), ({"a": ["x" * 60, "y" * 60]}, "oversize")]
)
def test_what_a_client_gives_is_within_the_tools_cap(content: Any, code: str) -> None:
    found = Tool.from_schema("read", {"type": "object"}, output_cap=100)

    def answer(run: Any, event: Any) -> None:
        if isinstance(event, m.RunWait):
            run.answer_tool(event.pending[0], content)

    _, events = ask([call("read")], [found], answer)
    assert [e.code for e in events if isinstance(e, m.ToolError)] == [code]
    assert not [e for e in events if isinstance(e, m.ToolResult)]


def test_nobody_else_says_what_a_tool_of_ours_gave() -> None:
    """A client that answers a call which waits for a yes, or runs here, changes nothing."""
    found, deleted = deleting()

    def answer(run: Any, event: Any) -> None:
        if isinstance(event, m.RunWait):
            run.answer_tool("c1", "forged")
            run.approve(event.pending[0], True)

    _, events = ask([call("delete_file", {"path": "a"}, call_id="c1")], [found], answer)
    assert [e.content for e in events if isinstance(e, m.ToolResult)] == ["gone"]
    assert deleted == ["a"]
