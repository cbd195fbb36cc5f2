"""A conversation with files and tool calls, as frameworks take it."""

from __future__ import annotations

from typing import Any

import pytest

from tokenwire.agents.frameworks.claude import claude_content
from tokenwire.agents.frameworks.conversation import entries_of
from tokenwire.agents.frameworks.langgraph import langchain_messages
from tokenwire.agents.frameworks.openai_agents import openai_items
from tokenwire.agents.frameworks.strands import strands_messages
from tokenwire.errors import InputError
from tokenwire.events.message import (
    FilePart,
    Message,
    ReasoningPart,
    RefusalPart,
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


def long_one() -> list[Message]:
    picture = FilePart(media_type="image/png", data="aGk=", name="a.png")
    return [
        system("Be brief."),
        Message(role="user", content=[TextPart(text="What is it?"), picture]),
        Message(role="assistant", content=[TextPart(text="I see."), CALL]),
        Message(role="tool", content=[ToolResultPart(call_id="c1", content={"kg": 3})]),
        Message(role="user", content=[TextPart(text="And this?"), picture]),
    ]


def test_entries_hold_all_but_what_a_provider_keeps_for_itself() -> None:
    parts = [
        ReasoningPart(text="Hm."),
        RefusalPart(text="No."),
        ToolCallPart(call_id="p1", name="web_search", executor="provider"),
        CALL,
        ToolResultPart(call_id="c1", content="3 kg"),
    ]
    entries = entries_of(
        [Message(role="developer", content="x"), Message(role="assistant", content=[*parts])]
    )
    assert [entry.role for entry in entries] == ["system", "assistant", "tool"]
    assert [type(part).__name__ for part in entries[1].parts] == ["TextPart", "ToolCallPart"]
    [result] = entries[2].parts
    assert isinstance(result, ToolResultPart)
    assert (result.name, result.content) == ("weigh", "3 kg")


def test_strands_gets_files_and_calls_in_turns() -> None:
    history, question = strands_messages(long_one())
    image = {"image": {"format": "png", "source": {"bytes": b"hi"}}}
    use = {"toolUseId": "c1", "name": "weigh", "input": {"what": "a cat"}}
    result = {"toolUseId": "c1", "status": "success", "content": [{"json": {"kg": 3}}]}
    assert history == [
        {
            "role": "user",
            "content": [{"text": "<system>\nBe brief.\n</system>"}, {"text": "What is it?"}, image],
        },
        {"role": "assistant", "content": [{"text": "I see."}, {"toolUse": use}]},
        # Strands takes turns of the two sides alone: the question is with the result.
        {"role": "user", "content": [{"toolResult": result}, {"text": "And this?"}, image]},
    ]
    assert question is None
    assert strands_messages([user("Hi")]) == ([], "Hi")
    history, question = strands_messages(long_one()[:-1])
    assert (history[-1]["role"], question) == ("user", None)


@pytest.mark.parametrize(
    ("media_type", "block"),
    [
        ("audio/mpeg", {"audio": {"format": "mpeg", "source": {"bytes": b"hi"}}}),
        ("video/quicktime", {"video": {"format": "mov", "source": {"bytes": b"hi"}}}),
        (
            "text/plain; charset=utf-8",
            {"document": {"format": "txt", "name": "a-b-c", "source": {"bytes": b"hi"}}},
        ),
    ],
)
def test_strands_names_kinds_of_files_in_its_words(media_type: str, block: Any) -> None:
    part = FilePart(media_type=media_type, data="aGk=", name="a_b.c")
    _, question = strands_messages([Message(role="user", content=[part])])
    assert question == [block]


def test_claude_gets_one_message_with_what_was_before() -> None:
    blocks = claude_content(long_one())
    image = {
        "type": "image",
        "source": {"type": "base64", "media_type": "image/png", "data": "aGk="},
    }
    before = "<conversation>\nsystem: Be brief.\n\nuser: What is it?\n\nuser sent the file a.png:\n"
    after = (
        '\n\nassistant: I see.\n\nassistant called weigh({"what": "a cat"})\n\n'
        'result of weigh: {"kg":3}\n\n</conversation>\n\nAnd this?'
    )
    assert blocks == [
        {"type": "text", "text": before},
        image,
        {"type": "text", "text": after},
        image,
    ]
    assert claude_content([user("Hi")]) == "Hi"


def test_claude_gets_documents() -> None:
    parts = [
        FilePart(media_type="application/pdf", url="https://files.example/a.pdf"),
        FilePart(media_type="text/csv", data="YSxi", name="a.csv"),
    ]
    link, table = claude_content([Message(role="user", content=[*parts])])
    assert link == {
        "type": "document",
        "source": {"type": "url", "url": "https://files.example/a.pdf"},
    }
    source = {"type": "text", "media_type": "text/plain", "data": "a,b"}
    assert table == {"type": "document", "source": source, "title": "a.csv"}


@pytest.mark.parametrize(
    "part",
    [
        FilePart(media_type="audio/wav", data="aGk="),
        FilePart(media_type="application/zip", data="aGk="),
        FilePart(media_type="image/png", data="?"),
    ],
)
@pytest.mark.parametrize("convert", [claude_content, strands_messages])
@pytest.mark.parametrize("is_earlier", [False, True])
def test_what_cannot_be_taken_is_refused(convert: Any, part: FilePart, is_earlier: bool) -> None:
    if (convert, part.media_type) == (strands_messages, "audio/wav"):
        return  # which Strands takes
    more = [assistant("I see."), user("And?")] if is_earlier else []
    with pytest.raises(InputError):
        convert([Message(role="user", content=[part]), *more])


def test_a_conversation_that_ends_with_a_result_needs_a_question_for_claude() -> None:
    with pytest.raises(InputError, match="needs a message of the user"):
        claude_content(long_one()[:-1])
