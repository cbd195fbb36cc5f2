"""Clients that people have, as they are, against the server under a prefix of an application."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from support.mounted import HOSTS, everybody, serving
from support.node import need_client, need_node, run_node

pytestmark = pytest.mark.node
NUMBERS = "".join(f"{n} " for n in range(1, 91))
SLOW = "scenario:slow?rate=200"
STALLED = "I say this much, and then nothing more"


@pytest.fixture(scope="module", params=HOSTS)
def place(request: pytest.FixtureRequest) -> Iterator[str]:
    need_node()
    make, prefix = HOSTS[request.param]
    with serving(make(everybody)) as url:
        yield url + prefix


@pytest.mark.parametrize("version", ["6", "7"])
def test_the_ai_sdk_reads_stops_and_reloads(place: str, version: str) -> None:
    told = run_node("ai_chat.mjs", version, place, "plain", SLOW)
    assert (told["status"], told["errors"], told["text"]) == ("ready", [], NUMBERS)
    told = run_node("ai_chat.mjs", version, place, "reload", "scenario:stall")
    assert (told["status"], told["errors"], told["stop"]) == ("ready", [], 202)
    assert told["text"] == STALLED
    told = run_node("ai_chat.mjs", version, place, "approval", "scenario:approval")
    assert (told["status"], told["errors"]) == ("ready", [])


@pytest.mark.parametrize("version", ["6", "7"])
def test_our_transport_of_the_ai_sdk_reads_across_cuts(place: str, version: str) -> None:
    need_client()
    told = run_node("ai_chat.mjs", version, place, "our_transport", SLOW)
    assert (told["status"], told["errors"], told["text"]) == ("ready", [], NUMBERS)


def test_the_ai_sdk_over_durable_streams(place: str) -> None:
    told = run_node("ai_chat.mjs", "6", place, "durable", "scenario:stall")
    assert (told["status"], told["errors"]) == ("ready", [])
    assert told["text"] == told["first"] == "I say this much, and then nothing more"


def test_ag_ui_asks_twice_and_is_asked(place: str) -> None:
    told = run_node("ag_ui.mjs", place, "two_turns", SLOW)
    assert told["errors"] == []
    assert told["messages"][1]["content"] == NUMBERS
    told = run_node("ag_ui.mjs", place, "approval", "scenario:approval")
    assert told["errors"] == []
    assert told["messages"][-1]["role"] == "assistant"


@pytest.mark.parametrize("connection", ["sse", "lines", "socket"])
def test_tanstack_reads_across_a_cut(place: str, connection: str) -> None:
    told = run_node("tanstack.mjs", place, "cut", SLOW, CONNECTION=connection)
    assert (told["errors"], told["text"]) == ([], NUMBERS)


def test_tanstack_finds_its_conversation_again(place: str) -> None:
    told = run_node("tanstack.mjs", place, "reload", SLOW)
    assert (told["errors"], told["text"]) == ([], NUMBERS)


def test_openai(place: str) -> None:
    told = run_node("openai.mjs", place, "background", SLOW)
    assert told["text"] == told["output"] == NUMBERS
    told = run_node("openai.mjs", place, "models", "x")
    assert "demo" in str(told)
    told = run_node("openai.mjs", place, "chat", SLOW)
    assert NUMBERS in text_in(told)


def test_anthropic(place: str) -> None:
    told = run_node("anthropic.mjs", place, "stream", SLOW)
    assert NUMBERS in text_in(told)


def test_our_client_resumes_and_stops(place: str) -> None:
    need_client()
    told = run_node("mounted.mjs", place, "resume")
    assert (told["text"], told["state"]) == (NUMBERS, "complete")
    assert len(told["before"]) < len(NUMBERS)
    assert run_node("mounted.mjs", place, "stop")["state"] == "cancelled"


def test_our_client_goes_over_to_the_socket(place: str) -> None:
    need_client()
    told = run_node("mounted.mjs", place, "socket")
    assert told["text"] == NUMBERS
    assert told["sockets"] == [place.replace("http", "ws", 1) + "/ws"]


def test_an_event_source_reads_to_the_end_and_gives_up(place: str) -> None:
    need_client()
    told = run_node("mounted.mjs", place, "event_source")
    assert (told["text"], told["state"]) == (NUMBERS, "complete")


def test_durable_streams_clients(place: str) -> None:
    told = run_node("durable.mjs", place, "modes", "scenario:tool")
    assert told["sse"] == told["longPoll"] == told["caughtUp"]
    assert told["ui"][-1]["type"] == "finish"
    assert told["agui"][-1]["type"] == "RUN_FINISHED"


def text_in(value: Any) -> str:
    """All texts of a JSON value."""
    if isinstance(value, dict):
        return "".join(text_in(inner) for inner in value.values())
    if isinstance(value, list):
        return "".join(text_in(inner) for inner in value)
    return value if isinstance(value, str) else ""
