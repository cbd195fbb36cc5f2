"""A forced call by a schema: what is asked for, and its text read back as a call."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.corpus import cut_every, decode, merged
from tokenwire.errors import InputError
from tokenwire.events.message import user
from tokenwire.events.model import Finish, PartDelta, TextDelta, ToolCallEnd, ToolCallStart
from tokenwire.events.request import OutputSchema, Request, ToolSpec
from tokenwire.framing.sse import encode_frame
from tokenwire.providers.base import Target
from tokenwire.providers.openai.chat import DIALECT
from tokenwire.providers.openai.schema_call import READING, CallText, call_schema, forced
from tokenwire.tools.calls.assemble import Assembler, ToolCall
from tokenwire.tools.json_schema import problem

WHITE = st.text(" \n\t", max_size=3)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@st.composite
def written(draw: Any) -> tuple[str, dict[str, Any], str]:
    """(name, arguments, the text of a model that a grammar holds)."""
    name = draw(st.text(min_size=1, max_size=20))
    arguments = draw(st.dictionaries(st.text(max_size=6), VALUES, max_size=4))
    ascii_only = draw(st.booleans())
    inner = json.dumps(arguments, indent=draw(st.sampled_from([None, 1])), ensure_ascii=ascii_only)
    words = ["{", '"name"', ":", json.dumps(name), ",", '"arguments"', ":", inner, "}"]
    text = "".join(draw(WHITE) + word for word in words) + draw(WHITE)
    return name, arguments, f"```json{text}```" if draw(st.booleans()) else text


def read(pieces: list[str]) -> tuple[list[Any], CallText]:
    reader = CallText()
    found = [piece for text in pieces for piece in reader.feed(text)]
    return [*found, *reader.finish()], reader


def joined(found: list[Any], kind: str) -> str:
    return "".join(text for k, text in found if k == kind)


@given(written(), st.data())
def test_any_cut_gives_the_same_call(call: tuple[str, dict[str, Any], str], data: Any) -> None:
    name, arguments, text = call
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    for pieces in (
        [text],
        list(text),
        [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True) if a < b],
    ):
        found, reader = read(pieces)
        assert [k for k, _ in found].count("name") == 1
        assert found[0] == ("name", name)
        assert json.loads(joined(found, "arguments")) == arguments
        assert not joined(found, "text")
        assert reader.problem is None


@given(written(), st.data())
def test_a_call_that_is_cut_never_looks_whole(
    call: tuple[str, dict[str, Any], str], data: Any
) -> None:
    name, arguments, text = call
    cut = text[: data.draw(st.integers(0, len(text)))]
    found, reader = read(list(cut))
    if ("name", name) not in found:
        assert joined(found, "text") == cut
    elif reader.problem is None:
        assert json.loads(joined(found, "arguments")) == arguments
    else:
        assert reader.problem[0] == "truncated"


@given(st.text())
def test_any_text_is_a_call_or_is_given_out_whole(text: str) -> None:
    for pieces in ([text], list(text)):
        found, _ = read(pieces)
        if not any(kind == "name" for kind, _ in found):
            assert joined(found, "text") == text


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "f"}',
        '{"name": "f"{"a": 1}',
        '{"name": "f", "arguments": 3}',
        '{"name": "f", "arguments": "{}"}',
        '{"name": "f", "args": {}}',
        '{"name": "f"} {}',
    ],
)
def test_a_call_that_goes_wrong_after_its_name_is_invalid(text: str) -> None:
    for pieces in ([text], list(text)):
        _, reader = read(pieces)
        assert reader.problem is not None
        assert reader.problem[0] == "invalid"


@pytest.mark.parametrize("text", ["", "Hello", "{}", '{"a": 1}', '{"name": 3}', '{"name": "\\x"}'])
def test_what_is_no_call_is_text(text: str) -> None:
    assert joined(read(list(text))[0], "text") == text


def test_a_head_without_end_is_text_soon_and_long_arguments_are_linear() -> None:
    reader = CallText()
    assert joined([p for _ in range(5000) for p in reader.feed(" ")], "text").isspace()
    reader = CallText()
    reader.feed('{"name": "f", "arguments": {"a": "')
    for _ in range(200_000):
        reader.feed("x")
    reader.feed('"}}')
    assert reader.problem is None


# --- through the decoder -------------------------------------------------------------------------


def answer(text: str, *, finish: str = "stop", size: int = 3) -> bytes:
    def chunk(delta: dict[str, Any], reason: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return encode_frame(json.dumps({"id": "r", "model": "m", "choices": [choice]})).decode()

    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    chunks = [chunk({"role": "assistant", "content": None})]
    chunks += [chunk({"content": piece}) for piece in pieces]
    chunks += [chunk({}, finish), encode_frame("[DONE]").decode()]
    return "".join(chunks).encode()


def events_of(data: bytes, cut: int | None = None) -> list[Any]:
    decoder = DIALECT.decoder(quirks=frozenset({READING}))
    return decode(decoder, cut_every(cut)(data) if cut else [data])


def calls_of(events: list[Any]) -> list[ToolCall]:
    assembler = Assembler()
    for event in events:
        assembler.push(event)
    return assembler.calls


def test_the_decoder_streams_a_call_of_its_own_and_any_cut_of_the_bytes_is_the_same() -> None:
    data = answer('{"name": "paint", "arguments": {"colour": "r\\u00e9d"}}')
    events = events_of(data)
    start = next(e for e in events if isinstance(e, ToolCallStart))
    assert (start.name, start.id_source) == ("paint", "synthetic")
    assert len([e for e in events if isinstance(e, PartDelta)]) > 3  # as it came, not at the end
    assert not [e for e in events if isinstance(e, TextDelta)]
    assert [e.reason for e in events if isinstance(e, Finish)] == ["tool_calls"]
    (call,) = calls_of(events)
    assert call.runnable
    assert call.arguments == {"colour": "réd"}
    for cut in (1, 2, 7, 64):
        assert merged(events_of(data, cut)) == merged(events)


@pytest.mark.parametrize(
    ("text", "finish", "status"),
    [
        ('{"name": "paint", "arguments": {"colour"', "length", "truncated"),
        ('{"name": "paint", "arguments": {"colour"', "stop", "truncated"),
        ('{"name": "paint"', "stop", "truncated"),
        ('{"name": "paint"}', "stop", "invalid"),
        ('{"name": "paint", "arguments": {} ', "length", "truncated"),
    ],
)
def test_a_call_that_is_not_whole_never_runs(text: str, finish: str, status: str) -> None:
    (call,) = calls_of(events_of(answer(text, finish=finish)))
    assert (call.status, call.runnable) == (status, False)
    assert call.error


def test_an_answer_that_is_no_call_stays_text() -> None:
    events = events_of(answer("I would rather not."))
    said = "".join(e.text for e in events if isinstance(e, TextDelta))
    assert said == "I would rather not."
    assert not [e for e in events if isinstance(e, ToolCallEnd)]
    assert [e.reason for e in events if isinstance(e, Finish)] == ["stop"]


# --- the request ---------------------------------------------------------------------------------

TOOLS = [
    ToolSpec(
        name="paint",
        description="Paint it.",
        parameters={
            "type": "object",
            "properties": {"colour": {"$ref": "#/$defs/Colour"}},
            "required": ["colour"],
            "$defs": {"Colour": {"enum": ["red", "blue", {"$ref": "#/$defs/none"}]}},
        },
    ),
    ToolSpec(name="stop"),
]


def body(choice: str | None, *quirks: str, **more: Any) -> tuple[dict[str, Any], frozenset[str]]:
    target = Target(
        provider="local",
        dialect="openai-chat",
        model="m",
        base_url="http://127.0.0.1/v1",
        quirks=frozenset({"call_by_schema", *quirks}),
    )
    request = Request(messages=[user("Hi")], tools=TOOLS, tool_choice=choice, **more)
    call = DIALECT.build(request, target)
    return json.loads(call.body), call.reading


def test_a_forced_call_is_asked_for_by_its_schema() -> None:
    found, reading = body("required", output=OutputSchema(schema={"type": "object"}))
    assert reading == {READING}
    assert "tool_choice" not in found
    assert [t["function"]["name"] for t in found["tools"]] == ["paint", "stop"]
    schema = found["response_format"]["json_schema"]["schema"]
    assert problem({"name": "paint", "arguments": {"colour": "red"}}, schema) is None
    assert problem({"name": "stop", "arguments": {}}, schema) is None
    for bad in (
        {"name": "other", "arguments": {}},
        {"name": "paint", "arguments": {"colour": "green"}},
        {"name": "paint", "arguments": {}},
        {"name": "paint"},
    ):
        assert problem(bad, schema) is not None
    kept = schema["$defs"]["tool0"]["$defs"]["Colour"]["enum"][2]
    assert kept == {"$ref": "#/$defs/none"}  # a value, not a reference


def test_a_named_tool_is_the_only_one_that_fits() -> None:
    schema = body("stop")[0]["response_format"]["json_schema"]["schema"]
    assert problem({"name": "stop", "arguments": {}}, schema) is None
    assert problem({"name": "paint", "arguments": {"colour": "red"}}, schema) is not None
    with pytest.raises(InputError, match="no tool has that name"):
        body("fly")


@pytest.mark.parametrize("choice", [None, "auto", "none"])
def test_a_model_that_may_choose_is_asked_as_ever(choice: str | None) -> None:
    found, reading = body(choice)
    assert found.get("tool_choice") == choice
    assert "response_format" not in found
    assert reading == frozenset()


def test_a_model_whose_template_knows_no_tools_is_told_of_them() -> None:
    found, _ = body("required", "tools_in_prompt")
    assert found["messages"][0]["role"] == "system"
    assert "Paint it." in found["messages"][0]["content"]
    found, _ = body("stop", "tools_in_prompt", system="Be kind.")
    assert found["messages"][0]["content"].startswith("Be kind.\n\n")
    assert "Paint it." not in found["messages"][0]["content"]
    assert [m["role"] for m in found["messages"]] == ["system", "user"]
    assert body("auto", "tools_in_prompt")[0]["messages"][0]["role"] == "user"


def test_tools_that_the_provider_runs_cannot_be_forced_so() -> None:
    native = ToolSpec(name="search", native={"type": "web_search"})
    assert forced(Request(messages=[], tools=[native], tool_choice="required")) == []
    assert call_schema([TOOLS[1]])["anyOf"][0]["properties"]["name"] == {"const": "stop"}
