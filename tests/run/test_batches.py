"""What of a run's events comes in one batch, and so in one write to the store."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pytest

from support.spine import QUICK, run_async
from tokenwire.errors import InputError
from tokenwire.events import model as m
from tokenwire.events.message import user
from tokenwire.events.request import Request
from tokenwire.run.inbox import Inbox
from tokenwire.run.loop import Loop
from tokenwire.run.plan import Plan
from tokenwire.testing.scripted import ScriptedModel, call
from tokenwire.tools.registry import ToolSet, tool

TEXT = "The answer is no longer than this."


class Open:
    """An allowance that allows everything, and notes when it was asked."""

    left, is_due = 1 << 40, False

    def __init__(self, batches: list[list[str]]) -> None:
        self._batches = batches
        #: How many batches there were at each question.
        self.seen: list[int] = []

    def said(self, quarters: int) -> None:
        pass

    def apply(self, event: m.Event) -> None:
        pass

    async def begin(self, request: Request | None, target: Any) -> None:
        self.seen.append(len(self._batches))

    async def more(self) -> None:
        raise AssertionError("it is never due")

    def estimate(self) -> None:
        return None

    def close(self) -> None:
        pass


def loop_of(model: ScriptedModel, **more: Any) -> Loop:
    request = Request(messages=[user("Hello")])
    candidates = [model.resolve("m")]
    plan = Plan(
        run="r" * 22, request=request, candidates=candidates, model="m", retry=QUICK, **more
    )
    return Loop(plan, model, Inbox())  # type: ignore[arg-type]


async def batches_of(loop: Loop, batches: list[list[str]] | None = None) -> list[list[str]]:
    """The types of all events, by batch. Their numbers are checked."""
    found = batches if batches is not None else []
    number = 0
    async for batch in loop.batches():
        assert batch
        assert [event.seq for event in batch] == [number + n + 1 for n in range(len(batch))]
        number += len(batch)
        found.append([event.type for event in batch])
    return found


def test_a_start_is_one_batch_and_an_end_is_one() -> None:
    async def main() -> None:
        batches = await batches_of(loop_of(ScriptedModel([TEXT])))
        assert batches[0] == ["run-start", "step-start"]
        assert batches[-1][-3:] == ["text-end", "step-end", "run-end"]

    run_async(main())


def test_the_end_of_a_step_with_calls_waits_for_nothing() -> None:
    """Readers see it before the tools run, which may take long."""
    batches: list[list[str]] = []
    seen: list[list[str]] = []

    @tool
    def look(city: str) -> str:
        """The weather of a city."""
        seen.extend(batches)
        return "clear"

    async def main() -> None:
        model = ScriptedModel([call("look", {"city": "Paris"})], [TEXT])
        await batches_of(loop_of(model, tools=ToolSet([look])), batches)
        kinds = [kind for batch in seen for kind in batch]
        assert kinds[-1] == "tool-start"
        assert "step-end" in kinds
        starts = [batch for batch in batches if "step-start" in batch]
        assert starts == [["run-start", "step-start"], ["step-start"]]
        assert batches[-1][-2:] == ["step-end", "run-end"]

    run_async(main())


@pytest.mark.parametrize("error", [InputError("too much", field="x"), RuntimeError("a fault")])
def test_what_fails_between_start_and_step_loses_no_event(error: Exception) -> None:
    async def main() -> None:
        loop = loop_of(ScriptedModel([TEXT]))
        with patch.object(Loop, "_request", side_effect=error):
            batches = await batches_of(loop)
        assert batches == [["run-start", "error", "run-end"]]
        assert loop.fold.outcome == "error"

    run_async(main())


def test_what_fails_after_a_step_loses_no_event() -> None:
    async def main() -> None:
        loop = loop_of(ScriptedModel([TEXT]))
        with patch.object(Loop, "_steers", side_effect=RuntimeError("a fault")):
            batches = await batches_of(loop)
        assert batches[-1][-3:] == ["step-end", "error", "run-end"]

    run_async(main())


def test_with_a_budget_the_start_is_in_the_log_before_it_is_asked() -> None:
    """That takes as long as the store does."""

    async def main() -> None:
        batches: list[list[str]] = []
        allowance = Open(batches)
        await batches_of(loop_of(ScriptedModel([TEXT]), allowance=allowance), batches)
        assert batches[0] == ["run-start"]
        assert allowance.seen == [1]
        assert batches[-1] == ["run-end"]

    run_async(main())
