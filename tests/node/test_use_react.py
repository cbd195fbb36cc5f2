"""The hook `useStream` of @langchain/react, which speaks the Agent Streaming Protocol."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from support.node import need_node, run_alone, serving

pytestmark = pytest.mark.node
APPROVE = {"decisions": [{"type": "approve"}]}
REJECT = {"decisions": [{"type": "reject", "message": "not this one"}]}
EDIT = {"name": "delete_file", "args": {"path": "other.txt"}}
EDITED = {"decisions": [{"type": "edit", "edited_action": EDIT}]}
ASKS = "scenario:approval?rate=1000"
#: Which way to a tab is the first to bring what it has: one of its two connections, or the reply
#: to its answer. With `sdk_`, the tab is of a newer SDK, which knows the answers of others.
ORDERS: list[tuple[Any, ...]] = [
    ("orders", ASKS, APPROVE, ["watcher", "reply", "content"]),
    ("orders", ASKS, REJECT, ["content", "reply", "watcher"]),
    ("orders", ASKS, EDITED, ["reply", "watcher", "content"]),
    ("sdk_orders", ASKS, APPROVE, ["watcher", "reply", "content"]),
    ("sdk_orders", ASKS, APPROVE, ["content", "watcher", "reply"]),
    ("sdk_others", ASKS, APPROVE, ["watcher", "content"]),
    ("sdk_others", ASKS, REJECT, ["content", "watcher"]),
    ("sdk_unanswered", ASKS),
]
CASES = [
    ("turns", "scenario:tools?rate=300"),
    ("reload", "scenario:text?rate=100"),
    ("second_tab", "scenario:text?rate=100"),
    ("stop", "scenario:text?rate=30"),
    ("failing", "scenario:error"),
    ("interrupt", "scenario:approval?rate=300", APPROVE),
    ("interrupt", "scenario:approval?rate=300", REJECT),
    ("cut", "scenario:tools?rate=1000"),
    *ORDERS,
]
TOOLS = ["human", "ai", "tool", "tool", "ai"]


@pytest.fixture(scope="module")
def hook() -> Iterator[list[Any]]:
    need_node()
    with serving() as server:
        yield run_alone("use_react.mjs", server.url, json.dumps(CASES))


def of(hook: list[Any], number: int) -> Any:
    assert "failed" not in hook[number], hook[number]["failed"]
    assert hook[number].get("errors", []) == []
    return hook[number]


def kinds(told: Any) -> list[str]:
    return [kind for kind, _ in told["messages"]]


def test_turns_and_a_page_that_comes_back(hook: list[Any]) -> None:
    told = of(hook, 0)
    assert kinds(told) == [*TOOLS, "human", "ai"]
    assert len(set(told["ids"])) == len(told["ids"])
    assert ["calculator", {"expression": "2+3*4"}] in told["calls"]
    assert told["grew"] > 5
    assert told["later"] == [*kinds(told), "human", "ai"]


@pytest.mark.parametrize("number", [1, 2], ids=["reload", "second tab"])
def test_a_reader_that_comes_has_the_whole_answer(hook: list[Any], number: int) -> None:
    told = of(hook, number)
    assert kinds(told) == ["human", "ai"]
    assert told["messages"][1][1].startswith("# A simulated answer")
    assert told.get("grew", 6) > 5  # word after word, also after a reload
    assert told.get("later", ["human", "ai"] * 2) == ["human", "ai"] * 2


def test_stop_cancels_and_keeps_the_words(hook: list[Any]) -> None:
    told = of(hook, 3)
    assert told["status"] == "interrupted"
    assert told["messages"][1][1]


def test_a_failure_is_an_error(hook: list[Any]) -> None:
    assert "overloaded" in of(hook, 4)["error"]


def test_an_interrupt_is_answered_in_another_tab(hook: list[Any]) -> None:
    yes, no = of(hook, 5), of(hook, 6)
    for told in (yes, no):
        (action,) = told["interrupt"]["value"]["action_requests"]
        assert (action["name"], action["args"]) == ("delete_file", {"path": "report.txt"})
        assert kinds(told) == ["human", "ai", "tool", "ai"]
    assert '"deleted":"report.txt"' in yes["messages"][2][1]
    assert "not this one" in no["messages"][2][1]


def test_cut_after_every_event(hook: list[Any]) -> None:
    told = of(hook, 7)
    assert kinds(told) == TOOLS
    assert told["cuts"] > 20


@pytest.mark.parametrize(
    "number",
    range(len(ORDERS)),
    ids=lambda n: "-".join((ORDERS[n][0], *(ORDERS[n][3:] or [[]])[0])),
)
def test_an_answered_interrupt_does_not_come_back(hook: list[Any], number: int) -> None:
    told = of(hook, len(CASES) - len(ORDERS) + number)
    assert kinds(told)[:3] == ["human", "ai", "tool"]
    assert kinds(told)[-1] == "ai"
    if EDITED in ORDERS[number]:
        assert '"deleted":"other.txt"' in told["messages"][2][1]
