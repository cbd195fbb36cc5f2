"""Content in spans and events: off, in the conventions' form, bounded, and without secrets."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

import tokenwire
from support.telemetry import Telemetry, watched
from tokenwire.errors import ToolError
from tokenwire.events import message as msg
from tokenwire.events.fold import Fold
from tokenwire.events.request import Request
from tokenwire.observe import redact
from tokenwire.observe.genai import messages as content
from tokenwire.observe.genai.recorder import VARIABLE
from tokenwire.testing import ScriptedModel, call

KEY = "sk-abcdefghijklmnop"


@tokenwire.tool
async def look(what: str, api_key: str = "") -> dict[str, Any]:
    """Look."""
    if what == "nowhere":
        raise ToolError("nothing is there")
    return {"seen": what, "password": "hunter22"}


def answered(monkeypatch: pytest.MonkeyPatch, mode: str | None, what: str = "the sea") -> Telemetry:
    if mode is None:
        monkeypatch.delenv(VARIABLE, raising=False)
    else:
        monkeypatch.setenv(VARIABLE, mode)
    telemetry = Telemetry()

    async def main() -> None:
        model = ScriptedModel([call("look", {"what": what, "api_key": KEY})], ["It is blue."])
        run = tokenwire.stream(
            f"What is there? My key is {KEY}", model=model, system="Be brief.", tools=[look]
        )
        async with run:
            await run.result()

    with watched(telemetry):
        asyncio.run(main())
    return telemetry


def chat_of(telemetry: Telemetry) -> Any:
    return next(s for name, s in telemetry.spans().items() if name.startswith("chat "))


@pytest.mark.parametrize("mode", [None, "", "NO_CONTENT", "true", "yes please"])
def test_no_content_unless_the_environment_names_a_mode(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, mode: str | None
) -> None:
    telemetry = answered(monkeypatch, mode)
    shown = "".join(span.to_json() for span in telemetry.exporter.get_finished_spans())
    assert "execute_tool look" in shown
    for word in ("What is there", "Be brief", "blue", "the sea", "hunter22"):
        assert word not in shown
    assert telemetry.logs.get_finished_logs() == ()
    assert ("must be one of" in caplog.text) == (mode in ("true", "yes please"))


def test_content_on_spans_is_in_the_form_of_the_conventions_without_secrets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    telemetry = answered(monkeypatch, "span_only")  # as the convention reads it: in any case
    chat, tool = chat_of(telemetry).attributes, telemetry.spans()["execute_tool look"].attributes
    assert json.loads(chat["gen_ai.system_instructions"]) == [
        {"type": "text", "content": "Be brief."}
    ]
    (question,) = json.loads(chat["gen_ai.input.messages"])
    assert question == {
        "role": "user",
        "parts": [{"type": "text", "content": "What is there? My key is [redacted]"}],
    }
    (answer,) = json.loads(chat["gen_ai.output.messages"])
    assert (answer["role"], answer["finish_reason"]) == ("assistant", "stop")
    requested, text = answer["parts"]
    assert (requested["type"], requested["name"]) == ("tool_call", "look")
    assert requested["id"] == tool["gen_ai.tool.call.id"]
    assert requested["arguments"] == {"what": "the sea", "api_key": "[redacted]"}
    assert text == {"type": "text", "content": "It is blue."}
    assert json.loads(tool["gen_ai.tool.call.arguments"]) == requested["arguments"]
    assert json.loads(tool["gen_ai.tool.call.result"]) == {
        "seen": "the sea",
        "password": "[redacted]",
    }
    assert "tokenwire.content.is_cut" not in chat
    assert telemetry.logs.get_finished_logs() == ()


def test_content_on_events_only_and_on_both(monkeypatch: pytest.MonkeyPatch) -> None:
    for mode in ("EVENT_ONLY", "SPAN_AND_EVENT"):
        telemetry = answered(monkeypatch, mode)
        chat = chat_of(telemetry)
        assert ("gen_ai.input.messages" in chat.attributes) == (mode == "SPAN_AND_EVENT")
        (log,) = [item.log_record for item in telemetry.logs.get_finished_logs()]
        assert log.event_name == "gen_ai.client.inference.operation.details"
        assert log.span_id == chat.context.span_id
        (question,) = log.attributes["gen_ai.input.messages"]
        assert question["parts"][0]["content"] == "What is there? My key is [redacted]"


def test_what_a_failed_tool_said_is_its_result(monkeypatch: pytest.MonkeyPatch) -> None:
    tool = answered(monkeypatch, "SPAN_ONLY", "nowhere").spans()["execute_tool look"]
    assert "nothing is there" in tool.attributes["gen_ai.tool.call.result"]
    assert not tool.status.is_ok


def test_the_newest_messages_have_room_and_what_is_left_out_is_said() -> None:
    messages = [msg.user(f"{number} " + "word " * 2_000) for number in range(100)]
    made = content.messages_of_answer(Request(messages=messages), Fold())
    assert made.is_cut
    assert len(content.encoded(made.input)) < 1.2 * content.MOST_TOTAL
    assert made.input[-1]["parts"][0]["content"].startswith("99 ")
    assert len(made.input[-1]["parts"][0]["content"]) <= content.MOST_TEXT
    nested: Any = "x"
    for _ in range(5_000):
        nested = [nested]
    value, is_cut = content.value_of({"deep": nested, "wide": list(range(100_000))})
    assert is_cut
    assert len(content.encoded(value)) < 10_000


def test_parts_of_every_kind_have_their_form_and_no_bytes() -> None:
    redact.keep_secret("correct horse")
    try:
        parts: list[msg.Part] = [
            msg.TextPart(text="correct horse battery"),
            msg.ReasoningPart(text="hm", encrypted="blob"),
            msg.ReasoningPart(encrypted="only that"),
            msg.RefusalPart(text="no"),
            msg.ToolCallPart(call_id="1", name="f", arguments="{broken"),
            msg.ToolCallPart(call_id="2", name="web", arguments="{}", executor="provider"),
            msg.ToolResultPart(call_id="1", content=["a", {"b": 1.5}]),
            msg.ProviderResultPart(call_id="2", name="web", content="found"),
            msg.FilePart(media_type="image/png", data="aGVsbG8="),
            msg.FilePart(media_type="application/pdf", url="https://h/x.pdf?sig=s3cret"),
            msg.FilePart(media_type="audio/wav", url="data:audio/wav;base64,aGVsbG8="),
            msg.OpaquePart(name="x", payload={"y": 1}),
        ]
        request = Request(messages=[msg.system("Rule."), msg.Message(role="user", content=parts)])
        made = content.messages_of_answer(request, Fold())
    finally:
        redact.forget_secrets()
    assert made.system == [{"type": "text", "content": "Rule."}]
    (message,) = made.input
    assert [part["type"] for part in message["parts"]] == [
        "text",
        "reasoning",
        "text",
        "tool_call",
        "server_tool_call",
        "tool_call_response",
        "server_tool_call_response",
        "blob",
        "uri",
        "blob",
    ]
    assert message["parts"][3]["arguments"] == "{broken"
    assert message["parts"][8]["uri"] == "https://h/x.pdf"
    shown = content.encoded(made.input)
    for word in ("correct horse", "aGVsbG8", "s3cret", "only that"):
        assert word not in shown
    assert made.is_cut  # the bytes of files
