"""LangGraph's own JavaScript clients: the React hook `useStream`, and the client cut anywhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.node import HERE, need_node, run_alone, serving
from tokenwire.events.codec import from_fields
from tokenwire.wire.langgraph.encoder import LangGraphEncoder
from tokenwire.wire.place import split_cursor

pytestmark = pytest.mark.node
APPROVE = {"decisions": [{"type": "approve"}]}
REJECT = {"decisions": [{"type": "reject", "message": "not this one"}]}
CASES = [
    ("plain", "scenario:tools?rate=300"),
    ("reload", "scenario:text?rate=100"),
    ("second_tab", "scenario:text?rate=100"),
    ("stop", "scenario:text?rate=30"),
    ("failing", "scenario:error"),
    ("branch", "scenario:text?rate=300"),
    ("interrupt", "scenario:approval?rate=300", APPROVE),
    ("interrupt", "scenario:approval?rate=300", REJECT),
]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    need_node()
    with serving() as server:
        yield server.url


@pytest.fixture(scope="module")
def hook(url: str) -> list[Any]:
    return run_alone("use_stream.mjs", url, json.dumps(CASES))


def of(hook: list[Any], number: int) -> Any:
    assert "failed" not in hook[number], hook[number]["failed"]
    return hook[number]


def test_a_conversation_of_two_turns(hook: list[Any]) -> None:
    told = of(hook, 0)
    assert told["errors"] == []
    assert told["messages"] == told["stored"]
    kinds = [kind for kind, _ in told["messages"]]
    assert kinds == ["human", "ai", "tool", "tool", "ai", "human", "ai"]
    assert ["calculator", {"expression": "2+3*4"}] in told["calls"]
    assert len(set(told["ids"])) == len(told["ids"])


@pytest.mark.parametrize("number", [1, 2], ids=["reload", "second tab"])
def test_a_reader_that_joins_has_the_whole_answer(hook: list[Any], number: int) -> None:
    told = of(hook, number)
    assert told["errors"] == []
    assert [kind for kind, _ in told["messages"]] == ["human", "ai"]
    assert told["messages"][1][1].startswith("# A simulated answer")
    assert told.get("stored", told["messages"]) == told["messages"]
    assert told.get("same", True)


def test_stop_cancels_and_keeps_the_words(hook: list[Any]) -> None:
    told = of(hook, 3)
    assert told["status"] == "interrupted"
    assert told["words"]
    assert told["errors"] == []


def test_a_failure_is_an_error(hook: list[Any]) -> None:
    told = of(hook, 4)
    assert "overloaded" in told["error"]
    assert told["errors"]


def test_an_answer_is_made_again_and_a_question_is_edited(hook: list[Any]) -> None:
    told = of(hook, 5)
    assert told["again"] == [2, 2]
    assert [kind for kind, _ in told["messages"]] == ["human", "ai"]
    assert told["messages"][0][1].endswith("edited")
    assert told["errors"] == []


def test_an_interrupt_is_answered(hook: list[Any]) -> None:
    yes, no = of(hook, 6), of(hook, 7)
    for told in (yes, no):
        assert told["errors"] == []
        (action,) = told["interrupt"]["value"]["action_requests"]
        assert (action["name"], action["args"]) == ("delete_file", {"path": "report.txt"})
        assert [kind for kind, _ in told["messages"]] == ["human", "ai", "tool", "ai"]
    assert '"deleted":"report.txt"' in yes["messages"][2][1]
    assert "not this one" in no["messages"][2][1]


def test_the_client_cut_at_every_byte_and_over_a_bad_line(url: str, tmp_path: Path) -> None:
    case = HERE.parents[1] / "conformance" / "wire" / "reset.json"
    events = [
        from_fields({**fields, "seq": n})
        for n, fields in enumerate(json.loads(case.read_text())["events"], 1)
    ]

    def sent(last_id: str | None) -> bytes:
        place = split_cursor(last_id) if last_id else None
        modes = ("values", "messages-tuple")
        encoder = LangGraphEncoder(modes=modes, history=[], goes_on=True, place=place)
        after = int(place.after.partition("-")[0]) if place is not None else 0
        for event in events[:after]:
            encoder.skip(event)
        frames = [encoder.encode(e, f"{e.seq}-{e.seq:016x}") for e in events[after:]]
        return b": ok\nretry: 1000\n\n" + encoder.reopen() + b"".join(frames)

    whole = sent(None)
    ids = [line[4:].decode() for line in whole.split(b"\n") if line.startswith(b"id: ")]
    rest = {count: sent(name).decode() for count, name in enumerate(ids, 1)}
    path = tmp_path / "bytes.json"
    path.write_text(json.dumps({"whole": whole.decode(), "rest": rest}))
    told = run_alone("langgraph_client.mjs", url, str(path))
    assert told["wrong"] == []
    assert (told["counts"], told["frames"]) == (len(ids), len(ids))  # the last one never
    assert (told["cuts"], told["resumed"], told["last"]) == (5, True, "end")
    assert told["text"] == told["stored"]
