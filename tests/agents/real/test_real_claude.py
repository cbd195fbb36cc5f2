"""The Claude Agent SDK itself, whose process asks the simulator."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("claude_agent_sdk")
sys.path.insert(0, str(Path(__file__).parent))

from claude_agent_sdk import ClaudeAgentOptions, create_sdk_mcp_server, tool
from claude_agent_sdk.types import StreamEvent
from common import (
    approve,
    check_instructed,
    check_refused,
    check_sent,
    events_of,
    kinds,
    simulator,
    state_of,
)

import tokenwire
from tokenwire.agents.frameworks.claude import ClaudeEvents
from tokenwire.agents.load import agent_of
from tokenwire.errors import ConfigError
from tokenwire.events import model as m
from tokenwire.events.message import FilePart

cities: list[str] = []


@tool("get_weather", "The weather", {"city": str})
async def get_weather(args: dict[str, Any]) -> dict[str, Any]:
    cities.append(args["city"])
    return {"content": [{"type": "text", "text": f"sunny in {args['city']}"}]}


@asynccontextmanager
async def agent_at(home: Path, **more: Any) -> AsyncIterator[Any]:
    cities.clear()
    env = {
        "ANTHROPIC_API_KEY": "x",
        "HOME": str(home),
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "CLAUDE_CODE_MAX_RETRIES": "0",
    }
    async with simulator() as url:
        yield ClaudeAgentOptions(
            model="m",
            system_prompt="x",
            setting_sources=[],
            tools=[],
            mcp_servers={"weather": create_sdk_mcp_server("weather", "1", [get_weather])},
            env={**env, "ANTHROPIC_BASE_URL": url.removesuffix("/v1")},
            cwd=str(home),
            **more,
        )


async def test_text_and_usage(tmp_path: Path) -> None:
    async with agent_at(tmp_path) as agent:
        events = await events_of(agent, "scenario:slow?rate=200")
    shown = [k for k in kinds(events) if k not in ("usage", "finish", "response-start")]
    assert shown == [
        "run-start",
        *("step-start", "text-start", "text-end", "step-end"),
        "run-end",
    ]
    text = "".join(e.text for e in events if isinstance(e, m.TextDelta))
    assert text == "".join(f"{n} " for n in range(1, 91))
    assert events[-1].outcome == "complete"
    assert events[-1].usage["output_tokens"] > 0


async def test_an_unknown_tool_is_a_result_that_failed(tmp_path: Path) -> None:
    async with agent_at(tmp_path) as agent:  # the simulator does not know the server's prefix
        events = await events_of(agent, "scenario:tool")
    assert [e.code for e in events if isinstance(e, m.ToolError)] == ["exception"]
    assert next(e for e in events if isinstance(e, m.ToolCallEnd)).arguments == {"city": "Paris"}
    assert events[-1].outcome == "complete"


@pytest.mark.parametrize("scenario", ["cut", "error"])
async def test_what_is_not_whole_is_not_told_as_whole(tmp_path: Path, scenario: str) -> None:
    async with agent_at(tmp_path) as agent:
        state = await state_of(agent, f"scenario:{scenario}")
    assert state.outcome == "error"
    assert state.text


async def test_stop_reaches_the_model(tmp_path: Path) -> None:
    async with agent_at(tmp_path) as agent:
        async with tokenwire.stream("scenario:slow", model=agent) as run:
            async for event in run:
                if isinstance(event, m.TextDelta):
                    run.cancel()
            assert run.state.outcome == "cancelled"


def test_options_of_one_conversation_are_refused() -> None:
    with pytest.raises(ConfigError, match="one conversation"):
        agent_of(ClaudeAgentOptions(resume="x"))


def raw(*events: dict[str, Any]) -> list[Any]:
    return [
        StreamEvent(uuid="u", session_id="s", event=event, parent_tool_use_id=None)
        for event in events
    ]


def test_an_answer_that_broke_off_is_reset_when_it_is_asked_for_again() -> None:
    reading = ClaudeEvents(m.Agent(id="claude"))
    text = {"type": "text", "text": ""}
    begin = [
        {"type": "message_start", "message": {"id": "a", "model": "m", "usage": {}}},
        {"type": "content_block_start", "index": 0, "content_block": text},
    ]
    broken = {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "text_delta", "text": "Hel"},
    }
    stop = [{"type": "content_block_stop", "index": 0}, {"type": "message_stop"}]
    whole = {**broken, "delta": {"type": "text_delta", "text": "Hello"}}
    reason = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}
    messages = raw(*begin, broken, *stop, *begin, whole, stop[0], reason, stop[1])
    events = [e for x in messages for e in reading.read(x)] + reading.end()
    steps = [e for e in events if isinstance(e, m.StepStart | m.StepReset | m.StepEnd)]
    assert [(e.type, e.step) for e in steps] == [
        ("step-start", 1),
        ("step-reset", 1),
        ("step-start", 1),
        ("step-end", 1),
    ]
    assert steps[1].discard_parts == [e.part for e in events if isinstance(e, m.TextStart)][:1]
    assert [e.text for e in events if isinstance(e, m.TextDelta)] == ["Hel", "Hello"]


@pytest.mark.parametrize(
    ("approved", "arguments"), [(True, None), (True, {"city": "Rome"}), (False, None)]
)
async def test_permissions_are_approvals(tmp_path: Path, approved: bool, arguments: Any) -> None:
    async with agent_at(tmp_path) as agent:
        prompt = "Call mcp__weather__get_weather, please"
        events = await events_of(agent, prompt, approve(approved, arguments))
    (call,) = [e for e in events if isinstance(e, m.ToolCallEnd)]
    asked = (arguments or call.arguments)["city"]
    assert cities == ([asked] if approved else [])
    results = [e.content for e in events if isinstance(e, m.ToolResult)]
    assert results == ([f"sunny in {asked}"] if approved else [])
    assert events[-1].outcome == "complete"


def options_at(home: Path) -> Any:
    env = {
        "ANTHROPIC_API_KEY": "x",
        "HOME": str(home),
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "CLAUDE_CODE_MAX_RETRIES": "0",
    }

    def make(url: str) -> Any:
        return ClaudeAgentOptions(
            model="m",
            system_prompt="x",
            setting_sources=[],
            tools=[],
            env={**env, "ANTHROPIC_BASE_URL": url.removesuffix("/v1")},
            cwd=str(home),
        )

    return make


async def test_it_gets_files_and_earlier_calls(tmp_path: Path) -> None:
    await check_sent(options_at(tmp_path), "application/pdf", "image/png")


async def test_what_it_cannot_take_is_refused(tmp_path: Path) -> None:
    part = FilePart(media_type="audio/wav", data="aGk=")
    await check_refused(options_at(tmp_path), part, "takes no audio/wav")


async def test_every_turn_has_its_instructions(tmp_path: Path) -> None:
    make = options_at(tmp_path)
    await check_instructed(lambda url: replace(make(url), system_prompt="Speak as a pirate."))
