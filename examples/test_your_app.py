"""Your tests need no network and no waiting: a model that says what you wrote down."""

import asyncio
from typing import Any

import pytest

import tokenwire
from tokenwire.testing import ScriptedModel, call, cut


async def assistant(prompt: str, model: Any = "openai:gpt-5") -> str:
    """The code that you want to test."""

    def add(a: int, b: int) -> int:
        return a + b

    async with tokenwire.stream(prompt, model=model, tools=[add]) as run:
        return (await run.result()).text


def test_it_calls_the_tool_and_answers() -> None:
    model = ScriptedModel([call("add", {"a": 1, "b": 2})], ["It is ", "3."])
    assert asyncio.run(assistant("1 + 2?", model)) == "It is 3."
    assert model.requests[1]["messages"][-1]["content"] == "3"


def test_a_cut_answer_is_an_error() -> None:
    model = ScriptedModel(["It is ", cut()])
    with pytest.raises(tokenwire.TokenwireError, match="lost"):
        asyncio.run(assistant("1 + 2?", model))


if __name__ == "__main__":
    test_it_calls_the_tool_and_answers()
    test_a_cut_answer_is_an_error()
    print("ok")
