"""The JSON value among what else a model writes: a byte-order mark, prose, fences, a tail."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from tokenwire.errors import ProtocolError
from tokenwire.tools.calls.embedded import ValueText
from tokenwire.tools.structured import structured


class City(BaseModel):
    name: str
    people: int = 0


PARIS = '{"name": "Paris", "people": 2}'


@pytest.mark.parametrize(
    "text",
    [
        PARIS,
        "\ufeff" + PARIS,
        "  \n\ufeff " + PARIS + "\n\n",
        "Here is the answer:\n" + PARIS,
        PARIS + "\nI hope that this helps!",
        f"Sure! {PARIS} Let me know if you need more [details].",
        f"```json\n{PARIS}\n```",
        f"```\n{PARIS}\n```",
        f"Here you are:\n```json\n{PARIS}\n```\nAnything else?",
        f"```{PARIS}```",
        f"```json {PARIS}```",
        f"\ufeff```JSON\r\n{PARIS}\r\n```",
        f"It follows {{name}} and [1]. {PARIS}",
        f"```python\nprint(1)\n```\n```json\n{PARIS}\n```",
        f"```json\n{PARIS}",
        f'<think>{{"name": "Rome", "people": 5}}</think>{PARIS}',
        f'\ufeff <think>Is it ["Rome"]?\n```json\n{{"name": "Rome"}}\n```\n</think>\n\n{PARIS}',
        'Look: {"name": "Paris", "people": 2, "note": "a } and \\" in it"} there.',
    ],
)
def test_the_value_is_found(text: str) -> None:
    assert structured(City).read(text) == City(name="Paris", people=2)


def test_fences_and_brackets_inside_texts_stay() -> None:
    text = '{"name": "```json\\n{}\\n```"}'
    assert structured(City).read(text).name == "```json\n{}\n```"
    assert structured(City).read(f"```json\n{text}\n```").name == "```json\n{}\n```"


def test_lists_and_plain_values() -> None:
    assert structured(list[City]).read('As asked: {"value": [{"name": "Rome"}]}') == [
        City(name="Rome")
    ]
    schema: dict[str, Any] = {"type": "array", "items": {"type": "integer"}}
    assert structured(schema).read("The list is [1, 2, 3].") == [1, 2, 3]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I cannot do that.",
        '{"name": "Par',
        'Here: {"cities": [{"name": "Paris"}, {"name": "Ro',
        'Here: [{"name": "Paris"}, {"name": "Ro',
        '```json\n{"cities": [{"name": "Paris"}, {"na\n```',
        "{" * 2000,
        "[" * 100_000,
        "``` " * 50_000,
        f"<think>{PARIS}",
        f"<think>{PARIS}</think>",
        f"<think>{PARIS}</think> I cannot do that.",
    ],
)
def test_what_was_cut_is_never_taken_for_the_answer(text: str) -> None:
    with pytest.raises(ProtocolError):
        structured(City).read(text)


def test_the_error_is_that_of_the_answer_itself() -> None:
    with pytest.raises(ProtocolError, match="does not fit"):
        structured(City).read('{"people": "many"}')


@pytest.mark.parametrize("start", ["", "\ufeff ", "<th", "<think", "Well: "])
def test_a_thought_is_left_out_however_it_is_cut(start: str) -> None:
    thought = '<think>Is it {"name": "Rome"}? ["a"</think>\n'
    text = f"{start}{PARIS}" if start else f"{thought}{PARIS}"
    for first in range(len(text)):
        for second in range(first, min(len(text), first + 9)):
            value = ValueText()
            pieces = (text[:first], text[first:second], text[second:])
            assert "".join(map(value.feed, pieces)) == PARIS
