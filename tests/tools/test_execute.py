"""Running tools: outcomes, limits, and tools that misbehave in every way we could think of."""

from __future__ import annotations

import asyncio
import functools
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from tokenwire.errors import ToolError as RaisedToolError
from tokenwire.events.model import (
    Event,
    ToolError,
    ToolOutput,
    ToolProgress,
    ToolResult,
    ToolStart,
)
from tokenwire.tools import Progress, Tool, ToolCall, ToolContext, ToolSet, execute, tool


def run(
    function: Callable[..., Any] | Tool,
    arguments: dict[str, Any] | None = None,
    **options: Any,
) -> tuple[ToolResult | ToolError, list[Event]]:
    """One call of one tool: its outcome, and all its events."""
    options.setdefault("timeout", 20)
    found = function if isinstance(function, Tool) else Tool.of(function, name="f", **options)
    call = ToolCall(call_id="c1", name=found.name, part=0, step=2, arguments=arguments or {})
    events: list[Event] = []

    async def main() -> ToolResult | ToolError:
        return await execute(ToolSet([found]), call, emit=events.append)

    outcome = asyncio.run(main())
    assert events[-1] is outcome
    return outcome, events


def value(function: Callable[..., Any], **arguments: Any) -> Any:
    outcome, _ = run(function, arguments)
    assert isinstance(outcome, ToolResult), outcome
    return outcome.content


def error(function: Callable[..., Any], **options: Any) -> ToolError:
    outcome, _ = run(function, None, **options)
    assert isinstance(outcome, ToolError), outcome
    return outcome


# --- shapes of functions ---------------------------------------------------------------------


def add(a: int, b: int = 2) -> int:
    return a + b


async def add_later(a: int, b: int = 2) -> int:
    await asyncio.sleep(0)
    return a + b


class Adder:
    async def __call__(self, a: int) -> int:
        return a + 2


def test_functions_of_every_colour() -> None:
    assert value(add, a=1) == 3
    assert value(add_later, a=1, b=5) == 6
    assert value(Adder(), a=1) == 3
    assert value(functools.partial(add, b=10), a=1) == 11
    assert value(lambda: add_later(1)) == 3


def test_a_blocking_function_has_its_own_thread_and_the_callers_context() -> None:
    seen: list[str] = []

    def where() -> str:
        seen.append(threading.current_thread().name)
        return "ok"

    assert value(where) == "ok"
    assert seen == ["tokenwire-tool"]


def test_a_generator_reports_streams_and_ends_in_a_value() -> None:
    def pages() -> Iterator[Any]:
        yield Progress(0.5, "half")
        yield "one "
        yield "two"
        yield {"pages": 2}

    outcome, events = run(pages)
    assert isinstance(outcome, ToolResult)
    assert outcome.content == {"pages": 2}
    assert [e.type for e in events] == [
        "tool-start",
        "tool-progress",
        *["tool-output"] * len([e for e in events if isinstance(e, ToolOutput)]),
        "tool-result",
    ]
    assert isinstance(events[0], ToolStart)
    assert events[0].step == 2
    assert "".join(e.text for e in events if isinstance(e, ToolOutput)) == "one two"


def test_pieces_alone_are_the_result_and_a_returned_value_wins() -> None:
    async def pieces() -> AsyncIterator[str]:
        yield "a"
        yield "b"

    def returning() -> Iterator[Any]:
        yield "a"
        return 7

    assert value(pieces) == "ab"
    assert value(returning) == 7


def test_a_context_argument_reports_from_a_thread() -> None:
    def work(times: int, context: ToolContext) -> str:
        for number in range(times):
            context.progress((number + 1) / times, f"page {number + 1}")
        return context.call_id

    outcome, events = run(work, {"times": 3})
    assert isinstance(outcome, ToolResult)
    assert outcome.content == "c1"
    reports = [e for e in events if isinstance(e, ToolProgress)]
    assert [r.fraction for r in reports] == [pytest.approx(1 / 3), pytest.approx(2 / 3), 1.0]


def test_progress_is_bounded_and_silly_fractions_are_tamed() -> None:
    def chatter() -> Iterator[Any]:
        yield Progress(float("nan"))
        yield Progress(7.0)
        for _ in range(5000):
            yield Progress(0.1)

    _, events = run(chatter)
    reports = [e for e in events if isinstance(e, ToolProgress)]
    assert [r.fraction for r in reports[:2]] == [None, 1.0]
    assert len(reports) == 500


def test_a_bar_reaches_its_end_however_often_it_is_told_of() -> None:
    def work(context: ToolContext) -> str:
        for number in range(20_000):
            context.progress((number + 1) / 20_000, f"row {number + 1}")
        return "done"

    _, events = run(work)
    reports = [e.fraction for e in events if isinstance(e, ToolProgress)]
    assert reports == sorted(reports)
    assert reports[-1] > 0.99
    assert len(reports) <= 1100


def test_little_pieces_are_told_together() -> None:
    """256 KiB, a character at a time, would fill the log of a run by themselves."""

    def letters() -> Iterator[str]:
        for _ in range(200_000):
            yield "x"

    async def later() -> AsyncIterator[str]:
        for _ in range(200_000):
            yield "x"

    for function in (letters, later):
        outcome, events = run(function, timeout=60)
        assert isinstance(outcome, ToolResult)
        pieces = [e.text for e in events if isinstance(e, ToolOutput)]
        assert "".join(pieces) == outcome.content == "x" * 200_000
        assert len(pieces) < 100_000


# --- results ---------------------------------------------------------------------------------


class Place(BaseModel):
    name: str


def test_results_become_plain_json() -> None:
    assert value(lambda: Place(name="x")) == {"name": "x"}
    assert value(lambda: [Place(name="x")]) == [{"name": "x"}]
    assert value(lambda: {"when": __import__("datetime").date(2030, 1, 2)}) == {
        "when": "2030-01-02"
    }
    assert value(lambda: None) is None
    assert value(lambda: float("nan")) is None
    assert value(lambda: "half \ud800") == "half ?"


def cyclic() -> Any:
    found: list[Any] = []
    found.append(found)
    return found


def deep() -> Any:
    found: Any = 1
    for _ in range(100_000):
        found = [found]
    return found


class Hostile:
    def __str__(self) -> str:
        raise RuntimeError("no")

    def model_dump(self, **_: Any) -> Any:
        raise KeyError("no")


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (cyclic, "bad_result"),
        (deep, "bad_result"),
        (lambda: object(), "bad_result"),
        (lambda: {1: {2: object()}}, "bad_result"),
        (lambda: Hostile(), "bad_result"),
        (lambda: "x" * 50_000_000, "oversize"),
        (lambda: ["x" * 1000] * 50_000, "oversize"),
        (lambda: list(range(1_000_000)), "oversize"),
    ],
)
def test_results_that_no_model_can_read_are_errors(make: Callable[[], Any], code: str) -> None:
    assert error(make).code == code


def test_the_output_cap_is_exact() -> None:
    assert isinstance(run(lambda: "x" * 100, output_cap=100)[0], ToolResult)
    assert error(lambda: "x" * 101, output_cap=100).code == "oversize"
    assert error(lambda: "é" * 51, output_cap=100).code == "oversize"


def test_a_flood_of_pieces_stops_at_the_cap() -> None:
    def flood() -> Iterator[str]:
        while True:
            yield "x" * 1000

    async def flood_later() -> AsyncIterator[str]:
        while True:
            yield "x" * 1000

    assert error(flood).code == "oversize"
    assert error(flood_later).code == "oversize"


# --- misbehaviour ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit, BaseException, MemoryError]
)
def test_whatever_a_tool_raises_is_a_result_for_the_model(kind: type[BaseException]) -> None:
    def blocking() -> None:
        raise kind("out of paper")

    async def coroutine() -> None:
        raise kind("out of paper")

    for function in (blocking, coroutine):
        found = error(function)
        assert (found.code, found.message) == ("exception", f"{kind.__name__}: out of paper")


def test_a_tool_that_exits_its_thread_or_cancels_itself() -> None:
    def leave() -> None:
        import _thread

        _thread.exit()

    async def cancel() -> None:
        raise asyncio.CancelledError

    assert error(leave).code == "exception"
    assert error(cancel).code == "exception"


def test_a_tool_error_says_only_what_was_written_and_secrets_are_hidden() -> None:
    def told() -> None:
        raise RaisedToolError("no such city")

    def leaky() -> None:
        raise ValueError(
            "login failed: password=hunter22 at postgres://joe:secret@db/x " + "y" * 900
        )

    assert error(told).message == "no such city"
    message = error(leaky).message
    assert "hunter22" not in message
    assert "secret@" not in message
    assert len(message) <= 500


def test_a_blocking_tool_that_never_returns_times_out_and_keeps_nobody() -> None:
    program = """
import asyncio, sys, threading, time
from tokenwire.tools import ToolCall, ToolSet, tool
from tokenwire.tools import execute

@tool(timeout=0.05)
def hang():
    threading.Event().wait()

async def main():
    outcome = await execute(
        ToolSet([hang]), ToolCall(call_id="c", name="hang", part=0, arguments={}),
        emit=lambda event: None,
    )
    print(outcome.code)

asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=30,
        env={"PYTHONPATH": "src"},
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("timeout\n", "", 0)


def test_an_async_tool_is_cancelled_at_its_timeout_and_may_clean_up() -> None:
    cleaned: list[bool] = []

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append(True)

    assert error(wait, timeout=0.02).code == "timeout"
    assert cleaned == [True]


def test_an_async_tool_that_refuses_to_be_cancelled_is_left_behind() -> None:
    async def main() -> None:
        release = asyncio.Event()

        async def stubborn() -> None:
            while not release.is_set():
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    continue

        found = Tool.of(stubborn, timeout=0.02)
        call = ToolCall(call_id="c", name="stubborn", part=0, arguments={})
        outcome = await execute(ToolSet([found]), call, emit=lambda event: None)
        assert isinstance(outcome, ToolError)
        assert outcome.code == "timeout"
        release.set()

    asyncio.run(main())


def test_a_blocking_tool_does_not_stall_the_event_loop() -> None:
    async def main() -> None:
        gate = threading.Event()

        @tool
        def blocked() -> str:
            assert gate.wait(20)
            return "done"

        call = ToolCall(call_id="c", name="blocked", part=0, arguments={})
        task = asyncio.create_task(execute(ToolSet([blocked]), call, emit=lambda event: None))
        for _ in range(100):
            await asyncio.sleep(0)  # the loop turns while the tool blocks
        assert not task.done()
        gate.set()
        outcome = await task
        assert isinstance(outcome, ToolResult)

    asyncio.run(main())


def test_cancelling_reaches_the_tool_and_is_told() -> None:
    async def main() -> None:
        started, ended = asyncio.Event(), asyncio.Event()

        @tool
        async def wait() -> None:
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        events: list[Event] = []
        call = ToolCall(call_id="c", name="wait", part=0, arguments={})
        task = asyncio.create_task(execute(ToolSet([wait]), call, emit=events.append))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended.is_set()
        assert isinstance(events[-1], ToolError)
        assert events[-1].code == "cancelled"

    asyncio.run(main())


def test_a_blocking_tool_can_see_that_it_was_cancelled() -> None:
    async def main() -> None:
        started, saw = threading.Event(), threading.Event()

        @tool
        def wait(context: ToolContext) -> None:
            started.set()
            if context.wait_cancelled(20):
                saw.set()

        call = ToolCall(call_id="c", name="wait", part=0, arguments={})
        task = asyncio.create_task(execute(ToolSet([wait]), call, emit=lambda event: None))
        assert await asyncio.to_thread(started.wait, 20)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(saw.wait, 20)

    asyncio.run(main())


def test_nothing_is_told_after_the_outcome() -> None:
    async def main() -> None:
        gate, said = threading.Event(), threading.Event()

        @tool(timeout=0.05)
        def late(context: ToolContext) -> None:
            gate.wait(20)
            context.progress(0.9)
            said.set()

        events: list[Event] = []
        call = ToolCall(call_id="c", name="late", part=0, arguments={})
        outcome = await execute(ToolSet([late]), call, emit=events.append)
        gate.set()
        assert await asyncio.to_thread(said.wait, 20)
        await asyncio.sleep(0)
        assert events[-1] is outcome

    asyncio.run(main())


# --- many ------------------------------------------------------------------------------------


def test_two_hundred_parallel_calls_keep_within_the_tools_concurrency() -> None:
    async def main() -> None:
        now = most = 0

        @tool(concurrency=5)
        async def work(n: int) -> int:
            nonlocal now, most
            now += 1
            most = max(most, now)
            await asyncio.sleep(0)
            now -= 1
            return n

        tools = ToolSet([work])
        outcomes = await asyncio.gather(
            *(
                execute(
                    tools,
                    ToolCall(call_id=f"c{n}", name="work", part=n, arguments={"n": n}),
                    emit=lambda event: None,
                )
                for n in range(200)
            )
        )
        assert [o.content for o in outcomes if isinstance(o, ToolResult)] == list(range(200))
        assert most == 5

    asyncio.run(main())


def test_hanging_calls_fill_the_tools_slots_and_no_more() -> None:
    async def main() -> None:
        gate, running = threading.Event(), []

        @tool(concurrency=2, timeout=0.05)
        def hang() -> None:
            running.append(1)
            gate.wait(20)

        tools = ToolSet([hang])
        outcomes = await asyncio.gather(
            *(
                execute(
                    tools,
                    ToolCall(call_id=f"c{n}", name="hang", part=n, arguments={}),
                    emit=lambda event: None,
                )
                for n in range(6)
            )
        )
        codes = sorted(o.code for o in outcomes if isinstance(o, ToolError))
        assert codes == ["busy"] * 4 + ["timeout"] * 2
        assert len(running) == 2
        gate.set()

    asyncio.run(main())


def test_the_start_is_taken_before_the_tool_runs() -> None:
    async def main() -> None:
        order: list[str] = []

        @tool
        async def work() -> None:
            order.append("ran")

        async def slow_log() -> None:
            for _ in range(5):
                await asyncio.sleep(0)
            order.append("logged")

        def emit(event: Event) -> Any:
            return slow_log() if isinstance(event, ToolStart) else None

        call = ToolCall(call_id="c", name="work", part=0, arguments={})
        await execute(ToolSet([work]), call, emit=emit)
        assert order == ["logged", "ran"]

    asyncio.run(main())


# --- calls that do not run -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "code", "words"),
    [
        (ToolCall(call_id="c", name="nope", part=0, arguments={}), "unknown_tool", "add"),
        (ToolCall(call_id="c", name="secret", part=0, arguments={}), "unknown_tool", "add"),
        (ToolCall(call_id="c", name="add", part=0, arguments={"a": "x"}), "invalid_arguments", "a"),
        (ToolCall(call_id="c", name="add", part=0, arguments={}), "invalid_arguments", "a"),
        (
            ToolCall(call_id="c", name="add", part=0, status="truncated", error="it was cut"),
            "truncated",
            "it was cut",
        ),
        (ToolCall(call_id="c", name="browser", part=0, arguments={}), "unknown_tool", "server"),
    ],
)
def test_calls_that_never_start(call: ToolCall, code: str, words: str) -> None:
    tools = ToolSet(
        [
            add,
            Tool.of(add_later, name="secret", allow={"root"}),
            Tool.from_schema("browser", {"type": "object"}),
        ]
    )
    events: list[Event] = []

    async def main() -> ToolResult | ToolError:
        return await execute(tools, call, emit=events.append, principal="joe")

    outcome = asyncio.run(main())
    assert isinstance(outcome, ToolError)
    assert outcome.code == code
    assert words in outcome.message
    assert "secret" not in outcome.message.split("available")[-1]
    assert events == [outcome]
