"""The generator of plain dictionaries: text, calls, and the answer that goes on after them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import tokenwire
from tokenwire.errors import InputError, TokenwireError
from tokenwire.testing import ScriptedModel, call, error

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def collect(*args: Any, **options: Any) -> list[dict[str, Any]]:
    async def main() -> list[dict[str, Any]]:
        return [item async for item in tokenwire.stream_with_tools(*args, **options)]

    return asyncio.run(main())


def weather(city: str) -> str:
    return f"sunny in {city}"


def scripted(*scripts: Any) -> tuple[ScriptedModel, dict[str, Any]]:
    model = ScriptedModel(*scripts)
    return model, {"model": model}


def text(items: list[dict[str, Any]]) -> str:
    return "".join(item["data"] for item in items if item["type"] == "content")


def test_functions_are_run_and_the_answer_goes_on() -> None:
    calls = [call("weather", {"city": "Rome"}), call("weather", {"city": "Oslo"})]
    model, options = scripted(["Let me look. ", *calls], ["Sunny in ", "both."])
    found = collect("How is it?", [weather], **options)
    assert [item["type"] for item in found] == ["content", "tool_calls", "content", "content"]
    assert text(found) == "Let me look. Sunny in both."
    data = found[1]["data"]
    assert [c["function"] for c in data] == [
        {"name": "weather", "arguments": '{"city":"Rome"}'},
        {"name": "weather", "arguments": '{"city":"Oslo"}'},
    ]
    assert all(c["id"] for c in data)
    sent = str(model.requests[1])
    assert "sunny in Rome" in sent
    assert "sunny in Oslo" in sent


def test_declared_tools_are_the_callers_and_their_results_come_back_as_messages() -> None:
    _, options = scripted([call("weather", {"city": "Rome"}, call_id="c1")], ["never asked"])
    (item,) = collect([{"role": "user", "content": "Rome?"}], [WEATHER], **options)
    assert item == {
        "type": "tool_calls",
        "data": [{"id": "c1", "function": {"name": "weather", "arguments": '{"city":"Rome"}'}}],
    }
    model, options = scripted(["Sunny."])
    messages = [
        {"role": "user", "content": "Rome?"},
        {"role": "assistant", "content": None, "tool_calls": item["data"]},
        {"role": "tool", "tool_call_id": "c1", "content": "sun"},
    ]
    assert text(collect(messages, [WEATHER], **options)) == "Sunny."
    assert [m["role"] for m in model.requests[0]["messages"]] == ["user", "assistant", "tool"]


def test_what_functions_gave_beside_the_callers_calls_is_told() -> None:
    def clock() -> dict[str, int]:
        return {"hour": 12}

    calls = [call("weather", {"city": "Rome"}, call_id="c1"), call("clock", call_id="c2")]
    _, options = scripted(calls, ["never asked"])
    found = collect("Rome?", [WEATHER, clock], **options)
    assert [item["type"] for item in found] == ["tool_calls", "tool_results"]
    assert [c["id"] for c in found[0]["data"]] == ["c1", "c2"]
    assert found[1]["data"] == [{"tool_call_id": "c2", "content": '{"hour":12}'}]
    model, options = scripted(["Sunny."])
    messages = [
        {"role": "user", "content": "Rome?"},
        {"role": "assistant", "content": None, "tool_calls": found[0]["data"]},
        *[{"role": "tool", **result} for result in found[1]["data"]],
        {"role": "tool", "tool_call_id": "c1", "content": "sun"},
    ]
    assert text(collect(messages, [WEATHER, clock], **options)) == "Sunny."
    sent = model.requests[0]["messages"]
    assert [m.get("tool_call_id") for m in sent[2:]] == ["c1", "c2"]


def test_an_answer_that_breaks_off_raises_after_what_was_shown() -> None:
    _, options = scripted(["half ", error()])
    shown: list[str] = []

    async def main() -> None:
        async for item in tokenwire.stream_with_tools("Hi", **options):
            shown.append(item["data"])

    with pytest.raises(TokenwireError):
        asyncio.run(main())
    assert shown == ["half "]


def test_calls_that_need_a_yes_ask_and_without_anybody_the_answer_is_no() -> None:
    ran: list[str] = []

    @tokenwire.tool(needs_approval=True)
    def delete(path: str) -> str:
        ran.append(path)
        return "gone"

    _, options = scripted([call("delete", {"path": "a"})], ["Done."])
    assert text(collect("Delete", [delete], **options)) == "Done."
    assert ran == []
    _, options = scripted([call("delete", {"path": "a"})], ["Done."])
    asked: list[Any] = []

    async def approve(request: Any) -> bool:
        asked.append(request.arguments)
        return True

    assert text(collect("Delete", [delete], approve=approve, **options)) == "Done."
    assert (asked, ran) == ([{"path": "a"}], ["a"])


@pytest.mark.parametrize("bad", [{}, {"function": {}}, {"function": 3}])
def test_what_is_no_tool_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        collect("Hi", [bad])


def test_what_is_no_message_is_refused() -> None:
    with pytest.raises(InputError):
        collect([{"role": "assistant", "tool_calls": [{"id": 1}]}])
