"""Text files reach every model: as the provider's own kind of file, or as words that name them."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from pydantic import TypeAdapter

from tokenwire.errors import InputError
from tokenwire.events.message import FilePart, Message, TextPart
from tokenwire.events.request import Request
from tokenwire.providers.base import Target
from tokenwire.providers.registry import Registry
from tokenwire.simulator.script import Ask, SentFile
from tokenwire.simulator.wires.anthropic import Anthropic
from tokenwire.simulator.wires.gemini import Gemini
from tokenwire.simulator.wires.ollama import Ollama
from tokenwire.simulator.wires.openai_chat import OpenAIChat
from tokenwire.simulator.wires.openai_responses import OpenAIResponses

REGISTRY = Registry(env={})
TEXT = 'a,b\n1,"zwei"\n'
NOTES = FilePart(
    media_type="text/csv", data=base64.b64encode(TEXT.encode()).decode(), name='n"o.csv'
)
PICTURE = FilePart(media_type="image/png", data="aGk=", name="a.png")
DOCUMENT = FilePart(media_type="application/pdf", data="aGVsbG8=", name="a.pdf")
WORDS = '<file name="n\'o.csv" type="text/csv">\n' + TEXT + "\n</file>\n\n"

WIRES: dict[str, Any] = {
    "openai-chat": OpenAIChat(),
    "openai-responses": OpenAIResponses(),
    "anthropic": Anthropic(),
    "gemini": Gemini(),
    "ollama": Ollama(),
}


def body(dialect: str, *parts: FilePart) -> dict[str, Any]:
    asked = Message(role="user", content=[*parts, TextPart(text="And this?")])
    target = Target(provider="p", dialect=dialect, model="m", base_url="http://h/v1")
    return json.loads(REGISTRY.dialect(dialect).build(Request(messages=[asked]), target).body)


def read(dialect: str, *parts: FilePart) -> Ask:
    """What the simulator sees of it."""
    path = "/v1beta/models/m:streamGenerateContent" if dialect == "gemini" else "/"
    return WIRES[dialect].read(body(dialect, *parts), path, {})


@pytest.mark.parametrize("dialect", ["openai-chat", "openai-responses", "ollama", "cohere"])
def test_where_providers_take_none_it_is_told_in_words(dialect: str) -> None:
    found = body(dialect, NOTES)
    (message,) = found.get("messages") or found["input"]
    content = message["content"]
    if isinstance(content, list):
        content = "".join(part["text"] for part in content)
    assert content == WORDS + "And this?"


def test_anthropic_takes_it_as_a_text_document() -> None:
    types = pytest.importorskip("anthropic.types")
    block = body("anthropic", NOTES)["messages"][0]["content"][0]
    assert block["source"] == {"type": "text", "media_type": "text/plain", "data": TEXT}
    assert block["title"] == NOTES.name
    TypeAdapter(types.ContentBlockParam).validate_python(block)


@pytest.mark.parametrize("data", ["/w==", "no base64!", "aGk"])
def test_what_is_no_text_is_refused_with_its_name(data: str) -> None:
    broken = FilePart(media_type="text/plain", data=data, name="broken.txt")
    with pytest.raises(InputError, match=r"broken\.txt"):
        body("openai-chat", broken)


@pytest.mark.parametrize("dialect", sorted(WIRES))
def test_the_simulator_sees_what_was_sent(dialect: str) -> None:
    parts = [PICTURE, NOTES] if dialect == "ollama" else [PICTURE, DOCUMENT, NOTES]
    ask = read(dialect, *parts)
    assert ask.prompt == "And this?"
    picture = SentFile("", "image" if dialect == "ollama" else "image/png", 2)
    # Not every wire carries names.
    named = {"anthropic": NOTES.name, "gemini": ""}.get(dialect, "n'o.csv")
    form = "text/plain" if dialect == "anthropic" else "text/csv"
    document = SentFile("" if dialect == "gemini" else "a.pdf", "application/pdf", 5)
    wanted = [picture, document, SentFile(str(named), form, len(TEXT))]
    if dialect == "ollama":
        wanted.remove(document)
    assert sorted(map(repr, ask.files)) == sorted(map(repr, wanted))
