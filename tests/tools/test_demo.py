"""The demo tools do what they say, and nothing else."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tokenwire.events.model import Event, ToolError, ToolProgress, ToolResult
from tokenwire.tools import ToolCall
from tokenwire.tools.calls import execute
from tokenwire.tools.demo import demo_tools


def call(name: str, **arguments: Any) -> tuple[Any, list[Event]]:
    events: list[Event] = []

    async def main() -> Any:
        asked = ToolCall(call_id="c", name=name, part=0, arguments=arguments)
        return await execute(demo_tools(), asked, emit=events.append)

    outcome = asyncio.run(main())
    return (outcome.content if isinstance(outcome, ToolResult) else outcome), events


def test_the_weather_is_the_same_for_the_same_city() -> None:
    first, _ = call("get_weather", city="Paris")
    assert first["city"] == "Paris"
    assert first == call("get_weather", city="Paris")[0]


def test_the_clock_knows_time_zones_and_says_when_it_does_not() -> None:
    assert call("clock")[0]["time"].endswith("+00:00")
    for bad in ("Mars/Base", "../../etc/passwd", "", "\x00"):
        outcome, _ = call("clock", timezone=bad)
        assert isinstance(outcome, ToolError)


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ("(3 + 4) * 2 ** 5", 224),
        ("-7 // 2", -4),
        ("sqrt(16) + abs(-1)", 5),
        ("max(1, 2, min(9, 3))", 3),
        ("round(2.567, 1)", 2.6),
        ("cos(0) * pi", 3.141592653589793),
        (" 1 ", 1),
    ],
)
def test_sums(expression: str, result: float) -> None:
    assert call("calculator", expression=expression)[0] == result


@pytest.mark.parametrize(
    "expression",
    [
        "1/0",
        "9**9**9**9",
        "10**1000",
        "(-8) ** 0.5",
        "__import__('os').system('true')",
        "().__class__",
        "'a' * 9",
        "True",
        "x",
        "open('/etc/passwd')",
        "lambda: 1",
        "[1, 2]",
        "1 +",
        "(" * 99 + "1" + ")" * 99 + "+",
        "-" * 150 + "1e400",
        "max()",
        "sqrt(-1)",
        "exp(1000)",
        "1 if 1 else 2",
        "round(number=1)",
    ],
)
def test_what_is_no_sum_is_refused(expression: str) -> None:
    outcome, _ = call("calculator", expression=expression)
    assert isinstance(outcome, ToolError), outcome
    assert outcome.code == "exception", outcome


def test_the_slow_task_reports() -> None:
    result, events = call("slow_task", steps=3, seconds=0)
    assert result == {"steps": 3, "finished": True}
    fractions = [e.fraction for e in events if isinstance(e, ToolProgress)]
    assert fractions == [0.0, pytest.approx(1 / 3), pytest.approx(2 / 3), 1.0]


def test_deleting_asks_first_and_deletes_nothing(tmp_path: Any) -> None:
    file = tmp_path / "kept.txt"
    file.write_text("here")
    found = demo_tools().get("delete_file")
    assert found is not None
    assert found.asks({"path": str(file)})
    assert call("delete_file", path=str(file))[0]["deleted"] == str(file)
    assert file.read_text() == "here"
