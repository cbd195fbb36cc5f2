"""Tools in a run: parallel, approved, refused, cancelled."""

from __future__ import annotations

import asyncio

from support.spine import ask, run_async, simulator
from tokenwire.events import model as m
from tokenwire.events.request import ToolSpec
from tokenwire.run.plan import LoopLimits
from tokenwire.tools.registry import tool


def collect(run, hook=None):
    async def main():
        events = []
        async for event in run:
            events.append(event)
            if hook is not None:
                hook(event)
        return events

    return main()


def test_a_call_runs_and_its_result_goes_back_to_the_model():
    seen = []

    @tool
    def get_weather(city: str) -> dict:
        """The weather of a city."""
        seen.append(city)
        return {"sky": "clear"}

    async def main():
        async with simulator() as server:
            async with ask("scenario:tool", server.url, tools=[get_weather]) as run:
                events = await collect(run)
            types = [e.type for e in events]
            assert seen == ["Paris"]
            assert types.index("tool-call-end") < types.index("tool-start")
            assert types.index("tool-start") < types.index("tool-result")
            assert len(server.requests) == 2
            assert "clear" in run.state.text
            assert [message.role for message in run.state.history()] == [
                "assistant",
                "tool",
                "assistant",
            ]

    run_async(main())


def test_an_unknown_tool_is_an_error_that_the_model_sees():
    @tool
    def other() -> str:
        """Something else."""
        return ""

    async def main():
        async with simulator() as server:
            async with ask("scenario:tool", server.url, tools=[other]) as run:
                events = await collect(run)
            error = next(e for e in events if isinstance(e, m.ToolError))
            assert error.code == "unknown_tool"
            assert events[-1].outcome == "complete"
            assert len(server.requests) == 2

    run_async(main())


def test_without_tools_of_ours_the_call_is_left_to_the_caller():
    spec = ToolSpec(name="get_weather", parameters={"type": "object"})

    async def main():
        async with simulator() as server:
            async with ask("scenario:tool", server.url, request={"tools": [spec]}) as run:
                events = await collect(run)
            assert run.state.finish_reason == "tool_calls"
            assert not any(isinstance(e, m.ToolStart) for e in events)
            assert len(server.requests) == 1

    run_async(main())


def deleting():
    deleted = []

    @tool(needs_approval=True)
    def delete_file(path: str) -> str:
        """Delete a file."""
        deleted.append(path)
        return "gone"

    return delete_file, deleted


def test_an_approved_call_runs_with_exactly_what_was_shown():
    delete_file, deleted = deleting()

    async def main():
        async with simulator() as server:
            async with ask("scenario:approval", server.url, tools=[delete_file]) as run:

                def hook(event):
                    if isinstance(event, m.RunWait):
                        assert run.state.status == "waiting"
                        assert deleted == []
                        run.approve(event.pending[0], True, by="ann")
                        run.approve(event.pending[0], False, by="bob")

                events = await collect(run, hook)
            request = next(e for e in events if isinstance(e, m.ApprovalRequest))
            assert request.arguments == {"path": "report.txt"}
            answers = [e for e in events if isinstance(e, m.ApprovalAnswer)]
            assert [(a.approved, a.by) for a in answers] == [(True, "ann")]
            assert deleted == ["report.txt"]

    run_async(main())


def test_a_denied_call_never_runs_and_the_model_hears_why():
    delete_file, deleted = deleting()

    async def main():
        async with simulator() as server:
            async with ask("scenario:approval", server.url, tools=[delete_file]) as run:

                def hook(event):
                    if isinstance(event, m.RunWait):
                        run.approve(event.pending[0], False, reason="it is needed")

                events = await collect(run, hook)
            assert deleted == []
            error = next(e for e in events if isinstance(e, m.ToolError))
            assert error.code == "denied"
            assert "it is needed" in error.message
            assert events[-1].outcome == "complete"

    run_async(main())


def test_edited_arguments_are_what_runs():
    delete_file, deleted = deleting()

    async def main():
        async with simulator() as server:
            async with ask("scenario:approval", server.url, tools=[delete_file]) as run:

                def hook(event):
                    if isinstance(event, m.RunWait):
                        run.approve(event.pending[0], True, arguments={"path": "other.txt"})

                await collect(run, hook)
            assert deleted == ["other.txt"]

    run_async(main())


def test_cancel_reaches_a_running_tool():
    ended = []

    @tool
    async def get_weather(city: str) -> str:
        """Never answers."""
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.append(city)
        return ""

    async def main():
        async with simulator() as server:
            async with ask("scenario:tool", server.url, tools=[get_weather]) as run:

                def hook(event):
                    if isinstance(event, m.ToolStart):
                        run.cancel()

                events = await collect(run, hook)
            assert ended == ["Paris"]
            assert events[-1].outcome == "cancelled"
            assert [e.code for e in events if isinstance(e, m.ToolError)] == ["cancelled"]

    run_async(main())


def test_cancel_while_an_approval_is_waited_for():
    delete_file, deleted = deleting()

    async def main():
        async with simulator() as server:
            async with ask("scenario:approval", server.url, tools=[delete_file]) as run:

                def hook(event):
                    if isinstance(event, m.RunWait):
                        run.cancel()

                events = await collect(run, hook)
            assert events[-1].outcome == "cancelled"
            assert deleted == []

    run_async(main())


def test_the_step_limit_forces_an_answer():
    @tool
    def get_weather(city: str) -> str:
        """The weather."""
        return "again"

    async def main():
        async with simulator() as server:
            run = ask("scenario:tool", server.url, tools=[get_weather])
            run._plan.limits = LoopLimits(steps=1)
            async with run:
                events = await collect(run)
            assert len([e for e in events if isinstance(e, m.StepStart)]) <= 2
            assert events[-1].type == "run-end"

    run_async(main())


def test_the_call_limit_refuses_and_says_so():
    ran = []

    @tool
    def get_weather(city: str) -> str:
        """The weather."""
        ran.append(city)
        return ""

    async def main():
        async with simulator() as server:
            run = ask("scenario:tool", server.url, tools=[get_weather])
            run._plan.limits = LoopLimits(calls=0)
            async with run:
                events = await collect(run)
            assert ran == []
            assert [e.code for e in events if isinstance(e, m.ToolError)] == ["too_many"]

    run_async(main())
