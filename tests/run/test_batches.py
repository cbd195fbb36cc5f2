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

    remaining, is_due = 1 << 40, False

    def __init__(self, batches: list[list[str]]) -> None:
        self._batches = batches
        #: How many batches there were at each question.
        self.seen: list[int] = []

    def count_text(self, quarters: int) -> None:
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


def test_with_a_budget_a_start_and_an_end_are_as_without() -> None:
    async def main() -> None:
        allowance = Open([])
        with_budget = await batches_of(loop_of(ScriptedModel([TEXT]), allowance=allowance))
        assert allowance.seen == [0]
        assert with_budget[0] == ["run-start", "step-start"]
        assert with_budget[-1][-3:] == ["text-end", "step-end", "run-end"]
        assert with_budget == await batches_of(loop_of(ScriptedModel([TEXT])))

    run_async(main())


def test_with_a_budget_calls_of_tools_wait_for_nothing() -> None:
    @tool
    def look(city: str) -> str:
        """The weather of a city."""
        return "clear"

    def model() -> ScriptedModel:
        return ScriptedModel([call("look", {"city": "Paris"})], [TEXT])

    async def main() -> None:
        tools = ToolSet([look])
        without = await batches_of(loop_of(model(), tools=tools))
        assert without == await batches_of(loop_of(model(), tools=tools, allowance=Open([])))

    run_async(main())


def budget(left: int) -> m.RunBudget:
    return m.RunBudget(name="run", unit="tokens", left=left, most=100)


class Refusing(Open):
    """An allowance that allows no model call."""

    async def begin(self, request: Request | None, target: Any) -> m.RunBudget:
        return budget(0)


def test_a_run_that_its_budget_refuses_is_one_batch() -> None:
    async def main() -> None:
        batches = await batches_of(loop_of(ScriptedModel([TEXT]), allowance=Refusing([])))
        assert batches == [["run-start", "budget", "run-end"]]

    run_async(main())


class Estimating(Open):
    """An allowance whose provider reports no tokens."""

    def estimate(self) -> m.Usage:
        return m.Usage(input_tokens=1, output_tokens=2, source="estimated")


def test_an_estimate_of_the_answer_is_part_of_its_end() -> None:
    async def main() -> None:
        batches = await batches_of(loop_of(ScriptedModel([TEXT]), allowance=Estimating([])))
        assert batches[-1][-3:] == ["step-end", "usage", "run-end"]

    run_async(main())


class AtOnce(ScriptedModel):
    """A model whose answer is one read."""

    async def open(self, call: Any, *, connect_timeout: float = 5.0) -> Any:
        stream = await super().open(call, connect_timeout=connect_timeout)
        whole = b"".join(data for data, _ in stream._chunks if data is not None)
        stream._chunks = [(whole, TEXT)]
        return stream


def test_an_answer_of_one_read_ends_in_the_batch_of_its_words() -> None:
    async def main() -> None:
        without = await batches_of(loop_of(AtOnce([TEXT])))
        assert len(without) == 2
        assert without == await batches_of(loop_of(AtOnce([TEXT]), allowance=Open([])))

    run_async(main())


class Due(Open):
    """An allowance that is asked for more at the end of the first step, and answers late."""

    def apply(self, event: m.Event) -> None:
        self.is_due = self.is_due or isinstance(event, m.StepEnd)

    async def more(self) -> m.RunBudget:
        self.seen.append(len(self._batches))
        assert any("text-delta" in batch for batch in self._batches)
        self.is_due = False
        return budget(10)


def test_no_word_waits_for_a_budget_that_is_due() -> None:
    """What is asked then takes as long as the store of the budgets does."""

    async def main() -> None:
        batches: list[list[str]] = []
        allowance = Due(batches)
        await batches_of(loop_of(AtOnce([TEXT]), allowance=allowance), batches)
        assert len(allowance.seen) == 2
        assert batches[-1] == ["budget", "run-end"]
        assert "text-delta" in batches[-2]

    run_async(main())


class Steered(Open):
    """An allowance of a run to which a person says something while its first answer comes."""

    inbox: Inbox

    def apply(self, event: m.Event) -> None:
        if isinstance(event, m.StepEnd) and event.step == 1:
            self.inbox.put(m.Control(command="steer", text="And then?", id="s1"))

    async def begin(self, request: Request | None, target: Any) -> None:
        await super().begin(request, target)
        if len(self.seen) > 1:
            assert any("text-delta" in batch for batch in self._batches)


def test_no_word_waits_until_a_further_step_is_allowed() -> None:
    async def main() -> None:
        batches: list[list[str]] = []
        allowance = Steered(batches)
        loop = loop_of(AtOnce([TEXT], [TEXT]), allowance=allowance)
        allowance.inbox = loop.inbox
        await batches_of(loop, batches)
        assert len(allowance.seen) == 2
        assert loop.fold.outcome == "complete"

    run_async(main())
