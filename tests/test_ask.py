"""What `tokenwire.stream` refuses at once, before anything is asked, and in which words."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest

import tokenwire
from tokenwire import sync
from tokenwire.errors import InputError, UnknownModelError
from tokenwire.run.buffer import BufferLimits
from tokenwire.testing import ScriptedModel, error

BAD_MODELS: list[Any] = [None, 5, b"demo", "", [], ["demo", None], "nope", "x.gguf", "http://h/v1"]


@pytest.mark.parametrize("model", BAD_MODELS, ids=repr)
def test_a_bad_model_is_named(model: Any) -> None:
    with pytest.raises(UnknownModelError, match=r"model|file"):
        tokenwire.stream("Hello", model=model)
    with pytest.raises(UnknownModelError, match=r"model|file"):
        sync.stream("Hello", model=model)


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
        tokenwire.stream(prompt, model="demo")


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
        ({"buffer": BufferLimits(events=0)}, "at least 1 event"),
        ({"buffer": BufferLimits(policy="drop")}, "'wait' or 'merge'"),
    ],
    ids=repr,
)
def test_a_bad_option_is_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        tokenwire.stream("Hello", model="demo", **options)


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        (("demo", "Hello"), {}, r"stream\(prompt, model=...\)"),
        (("Hello",), {"model": "demo", "buffer_events": 5}, r"buffer=BufferLimits\(events=...\)"),
        (("Hello",), {"model": "demo", "buffer_bytes": 5}, r"buffer=BufferLimits\(bytes=...\)"),
        (("Hello",), {"model": "demo", "buffer_policy": "wait"}, r"BufferLimits\(policy=...\)"),
    ],
)
@pytest.mark.parametrize("function", [tokenwire.stream, sync.stream])
def test_a_call_of_the_past_names_the_present_form(
    function: Any, arguments: Any, options: Any, words: str
) -> None:
    with pytest.raises(TypeError, match=words):
        function(*arguments, **options)


def test_the_registry_of_the_caller_is_never_changed() -> None:
    """Runs one after the other and at once on one registry: each has its own demo model."""
    registry = tokenwire.Registry(env={})

    async def answer() -> str:
        run = tokenwire.stream("scenario:empty", model="demo", registry=registry)
        async with run:
            return (await run.result()).outcome

    async def overlapping() -> list[str]:
        first = tokenwire.stream("scenario:slow", model="demo", registry=registry)
        async with first:
            texts = first.text()
            await anext(texts)
            outcomes = [await answer()]
        second = tokenwire.stream("scenario:empty", model=["demo", "demo"], registry=registry)
        async with second:
            first.cancel()
            outcomes.append((await second.result()).outcome)
        return outcomes

    assert asyncio.run(answer()) == "complete"
    assert asyncio.run(overlapping()) == ["complete", "complete"]
    assert not registry.has_demo


def test_model_objects_and_names_may_be_mixed() -> None:
    broken, scripted = ScriptedModel([error(code="bad_key")]), ScriptedModel(["of the script"])
    for models, text in (
        ([broken, scripted], "of the script"),
        ([scripted, "demo"], "of the script"),
        ([broken, "demo"], ""),
    ):
        with sync.stream("scenario:empty", model=models) as run:
            assert run.result().text == text
    assert [len(broken.requests), len(scripted.requests)] == [2, 2]


def test_one_message_may_be_given_as_its_json_object() -> None:
    with sync.stream({"role": "user", "content": "scenario:empty"}, model="demo") as run:
        assert run.result().text == ""
