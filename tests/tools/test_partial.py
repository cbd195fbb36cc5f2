"""Growing values: arguments and answers while they are being written."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

import tokenwire
from tokenwire.errors import ConfigError, ProtocolError
from tokenwire.events.message import user
from tokenwire.events.model import (
    Event,
    StepReset,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
)
from tokenwire.events.request import Request
from tokenwire.testing import ScriptedModel, call
from tokenwire.tools import Tool
from tokenwire.tools.calls import partial as partial_module
from tokenwire.tools.calls.partial import PartialValue, apply_patch
from tokenwire.tools.structured import OUTPUT_TOOL, partial_values, structured

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text('aé😀 \\"\n', max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text("ab", max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
)


def is_prefix(shown: Any, whole: Any) -> bool:
    if isinstance(shown, dict):
        return isinstance(whole, dict) and all(
            k in whole and is_prefix(v, whole[k]) for k, v in shown.items()
        )
    if isinstance(shown, list):
        return isinstance(whole, list) and all(
            is_prefix(a, b) for a, b in zip(shown, whole, strict=False)
        )
    if isinstance(shown, str):
        return isinstance(whole, str) and whole.startswith(shown)
    return shown == whole


@given(st.dictionaries(st.text("ab", max_size=3), JSON, max_size=4), st.booleans())
def test_every_look_shows_a_prefix_and_the_last_shows_all(whole: Any, ascii_only: bool) -> None:
    partial = PartialValue()
    for character in json.dumps(whole, ensure_ascii=ascii_only):
        partial.push(character)
        shown = partial.value
        assert shown is None or is_prefix(shown, whole)
    assert partial.finish() == whole


def test_parsing_is_linear_overall(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = 0
    parse = partial_module.jiter.from_json

    def counted(data: bytes, **options: Any) -> Any:
        nonlocal parsed
        parsed += len(data)
        return parse(data, **options)

    monkeypatch.setattr(partial_module.jiter, "from_json", counted)
    partial = PartialValue()
    partial.push('{"a":"')
    size = 100_000
    for _ in range(size):
        partial.push("x")
        _ = partial.value
    partial.push('"}')
    assert partial.finish() == {"a": "x" * size}
    assert parsed < 30 * size + 4096**2


def test_text_that_is_no_json_keeps_what_was_shown() -> None:
    partial = PartialValue()
    partial.push('{"a":1,')
    assert partial.value == {"a": 1}
    partial.push("}}}}")
    assert partial.value == {"a": 1}
    deep = PartialValue()
    deep.push("[" * 100_000)
    assert deep.finish() is None


@pytest.mark.parametrize(
    ("path", "result"),
    [
        ("$", 9),
        ("$.a", {"a": 9}),
        ("$['a b'].c", {"a b": {"c": 9}}),
        ("$.l[1]", {"l": [None, 9]}),
        ("$[0].x", [{"x": 9}]),
        ("a", None),
        ("$..a", None),
        ("$.l[99999999]", {"l": []}),
    ],
)
def test_patches(path: str, result: Any) -> None:
    assert apply_patch(None, path, 9) == result


def test_patches_that_do_not_fit_change_nothing_they_should_not() -> None:
    assert apply_patch({"a": 1}, "$.a.b", 2) == {"a": 1}
    assert apply_patch({"a": [1]}, "$.a.b", 2) == {"a": [1]}
    assert apply_patch({"a": "x"}, "$.a", "y") == {"a": "xy"}


# --- structured output -----------------------------------------------------------------------


class City(BaseModel):
    name: str
    people: int | None = None


async def give(*events: Event) -> AsyncIterator[Event]:
    for event in events:
        yield event


def partials(*events: Event) -> list[Any]:
    async def main() -> list[Any]:
        return [value async for value in partial_values(give(*events))]

    return asyncio.run(main())


def test_a_value_grows_from_text_and_begins_anew_after_a_reset() -> None:
    found = partials(
        TextDelta(part=0, text='{"name":"Pa'),
        TextDelta(part=0, text='ris"'),
        StepReset(step=1, attempt=2),
        TextDelta(part=1, text='{"name":"Rome"}'),
    )
    assert found == [{"name": "Pa"}, {"name": "Paris"}, {"name": "Rome"}]


def test_a_value_grows_from_the_answer_tool() -> None:
    found = partials(
        TextDelta(part=0, text="Let me think. "),
        ToolCallStart(part=1, name=OUTPUT_TOOL, call_id="c"),
        ToolCallDelta(part=1, text='{"name":"Pa'),
        TextDelta(part=2, text="ignored"),
        ToolCallDelta(part=1, text='ris"}'),
    )
    assert found == [{"name": "Pa"}, {"name": "Paris"}]


def test_a_model_is_asked_for_in_strict_form_and_read_back() -> None:
    shape = structured(City)
    assert shape.output.name == "City"
    assert shape.output.schema["required"] == ["name", "people"]
    assert shape.output.schema["additionalProperties"] is False
    assert shape.read('{"name":"Paris","people":3}') == City(name="Paris", people=3)
    assert shape.read('```json\n{"name":"Paris"}\n```') == City(name="Paris")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"name":', "not the requested JSON"),
        ('{"name":1}', "name"),
        ("{}", "name"),
        ('{"name":"a","name":"b"}', "twice"),
        ("sorry", "not the requested JSON"),
        ("", "not the requested JSON"),
    ],
)
def test_answers_that_do_not_fit_say_where(text: str, words: str) -> None:
    with pytest.raises(ProtocolError, match=words):
        structured(City).read(text)


def test_shapes_that_are_no_objects_are_wrapped() -> None:
    shape = structured(list[City])
    assert shape.output.schema["type"] == "object"
    assert shape.read('{"value":[{"name":"Rome"}]}') == [City(name="Rome")]
    with pytest.raises(ProtocolError, match="value"):
        shape.read("[]")
    with pytest.raises(ConfigError):
        structured(object())


def test_a_raw_schema_is_checked() -> None:
    shape = structured(
        {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    )
    assert shape.read('{"n":1}') == {"n": 1}
    with pytest.raises(ProtocolError, match="n: must be integer"):
        shape.read('{"n":"1"}')


def test_the_request_asks_by_mechanism_or_by_tool() -> None:
    request = Request(messages=[user("Where?")])
    shape = structured(City)
    assert shape.request(request).output == shape.output
    by_tool = shape.request(request, by_tool=True)
    assert by_tool.output is None
    assert by_tool.tool_choice == OUTPUT_TOOL
    assert by_tool.tools is not None
    assert by_tool.tools[0].parameters == shape.output.schema


@pytest.mark.parametrize("tools", [None, [lambda: "noon"]])
def test_a_run_gives_a_checked_value_by_the_answer_tool(tools: Any) -> None:
    answer = call(OUTPUT_TOOL, {"name": "Rome", "people": 3})
    first = [] if tools is None else [["Let me look.", call("clock")]]
    model = ScriptedModel(*first, [answer])
    named = None if tools is None else [Tool.of(tools[0], name="clock")]

    async def main() -> Any:
        options: Any = {"output": City, "output_by": "tool", "tools": named}
        async with tokenwire.stream("Where?", model=model, **options) as run:
            return await run.result()

    result = asyncio.run(main())
    assert result.output == City(name="Rome", people=3)
    assert result.outcome == "complete"
    assert "response_format" not in model.requests[0]
    choice = model.requests[0]["tool_choice"]
    forced = {"type": "function", "function": {"name": OUTPUT_TOOL}}
    assert choice == (forced if tools is None else "required")


def test_a_run_with_tools_reads_the_last_steps_text() -> None:
    model = ScriptedModel(["Let me look.", call("clock")], ['{"name":', '"Rome"}'])

    async def main() -> Any:
        named = [Tool.of(lambda: "noon", name="clock")]
        async with tokenwire.stream("Where?", model=model, output=City, tools=named) as run:
            return await run.result()

    assert asyncio.run(main()).output == City(name="Rome")
    assert model.requests[0]["response_format"]["json_schema"]["name"] == "City"


def test_an_answer_of_another_shape_raises_at_the_end() -> None:
    model = ScriptedModel(['{"name":', "7}"])

    async def main() -> Any:
        async with tokenwire.stream("Where?", model=model, output=City) as run:
            return await run.result()

    with pytest.raises(ProtocolError, match="name"):
        asyncio.run(main())


# --- a value among other text --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('\ufeff{"a": 1}', {"a": 1}),
        ('Sure! Here it is:\n```json\n{"a": [1, 2]}\n```\nHope {this} helps [1].', {"a": [1, 2]}),
        ('As said in [1]: {"a": 2}', {"a": 2}),
        ('See {x} and [note] {"a": "}"} [4]', {"a": "}"}),
        ('I think {"a": "q\\"}"} is it', {"a": 'q"}'}),
        ('\ufeff \n[{"a": 1}] and so on', [{"a": 1}]),
        ('"abc"', "abc"),
        ("12", 12),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_a_growing_value_among_other_text(text: str, value: Any, size: int) -> None:
    async def give() -> AsyncIterator[Event]:
        for start in range(0, len(text), size):
            yield TextDelta(part=0, text=text[start : start + size])

    async def look() -> list[Any]:
        return [v async for v in partial_values(give())]

    assert asyncio.run(look())[-1] == value


def test_prose_alone_is_no_value() -> None:
    async def give() -> AsyncIterator[Event]:
        yield TextDelta(part=0, text="there is {no value} in [this ")

    async def look() -> list[Any]:
        return [v async for v in partial_values(give())]

    assert asyncio.run(look()) == []
