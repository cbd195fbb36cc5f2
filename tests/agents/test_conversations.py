"""A conversation with files and tool calls, as frameworks take it."""

from __future__ import annotations

import pytest

from tokenwire.agents.frameworks.langgraph import langchain_messages
from tokenwire.agents.frameworks.openai_agents import openai_items
from tokenwire.errors import InputError
from tokenwire.events.message import (
    FilePart,
    Message,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    assistant,
    system,
    user,
)

CALL = ToolCallPart(call_id="c1", name="weigh", arguments='{"what": "a cat"}')


def test_langchain_gets_text_as_text() -> None:
    assert langchain_messages([system("Be brief."), user("Hi"), assistant("Hello")]) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
    ]


def test_langchain_gets_files() -> None:
    parts = [
        TextPart(text="What is it?"),
        FilePart(media_type="image/png", data="aGk="),
        FilePart(media_type="image/png", url="https://files.example/a.png"),
        FilePart(media_type="application/pdf", data="aGk=", name="a.pdf"),
    ]
    pdf = {"base64": "aGk=", "mime_type": "application/pdf", "filename": "a.pdf"}
    assert langchain_messages([Message(role="user", content=[*parts])]) == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is it?"},
                {"type": "image", "base64": "aGk=", "mime_type": "image/png"},
                {
                    "type": "image",
                    "url": "https://files.example/a.png",
                    "mime_type": "image/png",
                },
                {"type": "file", **pdf},
            ],
        }
    ]


def test_langchain_gets_calls_with_their_results() -> None:
    result = ToolResultPart(call_id="c1", name="weigh", content={"kg": 3}, is_error=True)
    call, answer, last = langchain_messages(
        [
            Message(role="assistant", content=[CALL]),
            Message(role="tool", content=[result]),
            user("And?"),
        ]
    )
    assert call["tool_calls"] == [{"id": "c1", "name": "weigh", "args": {"what": "a cat"}}]
    assert (answer["role"], answer["tool_call_id"], answer["name"]) == ("tool", "c1", "weigh")
    assert (answer["status"], answer["content"]) == ("error", '{"kg":3}')
    assert last == {"role": "user", "content": "And?"}


def test_a_call_without_a_result_gets_one_that_says_so() -> None:
    entries = langchain_messages([Message(role="assistant", content=[CALL]), user("And?")])
    assert [e["role"] for e in entries] == ["assistant", "tool", "user"]
    assert entries[1]["status"] == "error"


def test_openai_agents_get_files_and_calls() -> None:
    parts = [
        TextPart(text="What is it?"),
        FilePart(media_type="image/png", data="aGk="),
        FilePart(media_type="application/pdf", url="https://files.example/a.pdf"),
        FilePart(media_type="application/pdf", data="aGk=", name="a.pdf"),
    ]
    result = ToolResultPart(call_id="c1", content={"kg": 3})
    pdf = "data:application/pdf;base64,aGk="
    assert openai_items(
        [
            Message(role="user", content=[*parts]),
            Message(role="assistant", content=[TextPart(text="I see."), CALL]),
            Message(role="tool", content=[result]),
        ]
    ) == [
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "What is it?"},
                {
                    "type": "input_image",
                    "image_url": "data:image/png;base64,aGk=",
                    "detail": "auto",
                },
                {"type": "input_file", "file_url": "https://files.example/a.pdf"},
                {"type": "input_file", "file_data": pdf, "filename": "a.pdf"},
            ],
        },
        {"role": "assistant", "content": "I see."},
        {
            "type": "function_call",
            "call_id": "c1",
            "name": "weigh",
            "arguments": '{"what": "a cat"}',
        },
        {"type": "function_call_output", "call_id": "c1", "output": '{"kg":3}'},
    ]


def test_openai_agents_refuse_sound() -> None:
    sound = Message(role="user", content=[FilePart(media_type="audio/wav", data="aGk=")])
    with pytest.raises(InputError, match="takes no audio"):
        openai_items([sound])
