"""What `tokenwire.stream` refuses at once, before anything is asked, and in which words."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

import tokenwire
from tokenwire import sync
from tokenwire.errors import InputError, UnknownModelError

BAD_MODELS: list[Any] = [None, 5, b"demo", "", [], ["demo", None], "nope", "x.gguf", "http://h/v1"]


@pytest.mark.parametrize("model", BAD_MODELS, ids=repr)
def test_a_bad_model_is_named(model: Any) -> None:
    with pytest.raises(UnknownModelError, match=r"model|file"):
        tokenwire.stream(model, "Hello")
    with pytest.raises(UnknownModelError, match=r"model|file"):
        sync.stream(model, "Hello")


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        (None, "a text, a message or a list of messages, not None"),
        (5, "not 5"),
        (b"Hello", "not b'Hello'"),
        ("", "the prompt is empty"),
        ([], "at least one message"),
        ([{"role": "user"}], "the prompt is empty"),
        (["Hello"], r"'messages\[0\]' must be an object, not a text"),
        ([{"role": "wizard", "content": "x"}], r"'messages\[0\].role' cannot be 'wizard'"),
        ([{"role": "user", "content": 5}], r"'messages\[0\].content' must be"),
        ([{"role": "user", "content": "x", "foo": 1}], r"unknown field 'messages\[0\].foo'"),
        ("half \ud83d", "lone surrogate"),
    ],
    ids=repr,
)
def test_a_bad_prompt_is_named(prompt: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        tokenwire.stream("demo", prompt)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"temperature": 5}, "'temperature' must be at most 2"),
        ({"temperature": float("nan")}, "'temperature'"),
        ({"temperature": "hot"}, "'temperature' must be a number, not a text"),
        ({"top_p": -1}, "'top_p' must be at least 0"),
        ({"max_tokens": 0}, "'max_tokens' must be at least 1"),
        ({"max_tokens": 5.5}, "'max_tokens' must be a whole number"),
        ({"stop": [5]}, r"'stop\[0\]' must be a text"),
        ({"stop": 5}, "'stop' must be a list"),
        ({"seed": "x"}, "'seed' must be a whole number"),
        ({"system": 5}, "'system' must be a text"),
        ({"extra": 5}, "'extra' must be an object"),
        ({"extra": {"x": Decimal}}, "cannot be encoded as JSON"),
        ({"buffer_events": 0}, "at least 1 event"),
    ],
    ids=repr,
)
def test_a_bad_option_is_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        tokenwire.stream("demo", "Hello", **options)


def test_one_message_may_be_given_as_its_json_object() -> None:
    with sync.stream("demo", {"role": "user", "content": "scenario:empty"}) as run:
        assert run.result().text == ""
