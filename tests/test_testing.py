"""The scripted model for users' tests, and the blocking facade, which it makes quick to test."""

from __future__ import annotations

import asyncio
import threading

import pytest

import tokenwire
from tokenwire import sync
from tokenwire.errors import ConflictError, NetworkError, ProviderError, TruncatedError
from tokenwire.testing import ScriptedModel, call, cut, error


def test_it_says_its_scripts_in_turn_and_keeps_what_it_was_asked():
    @tokenwire.tool
    def clock(zone: str) -> str:
        """The time."""
        return f"12:00 {zone}"

    model = ScriptedModel([call("clock", {"zone": "UTC"})], ["It is ", "noon."])

    async def main():
        async with tokenwire.stream("When?", model=model, tools=[clock]) as run:
            return await run.result()

    result = asyncio.run(main())
    assert result.text == "It is noon."
    assert len(model.requests) == 2
    assert model.requests[1]["messages"][-1]["content"] == "12:00 UTC"


@pytest.mark.parametrize(("piece", "kind"), [(error(), ProviderError), (cut(), NetworkError)])
def test_what_breaks_is_raised_after_the_text(piece, kind):
    model = ScriptedModel(["some ", piece])
    with sync.stream("Hi", model=model) as run:
        pieces = []
        with pytest.raises(kind):
            for text in run.text():
                pieces.append(text)
    assert pieces == ["some "]


def test_blocking_gives_the_same_events_in_the_same_order():
    model = ScriptedModel(["a", "b", "c"])

    async def main():
        async with tokenwire.stream("Hi", model=model) as run:
            return [(e.type, getattr(e, "text", None)) async for e in run]

    with sync.stream("Hi", model=model) as run:
        blocking = [(e.type, getattr(e, "text", None)) for e in run]
    expected = asyncio.run(main())
    assert "".join(t or "" for _, t in blocking) == "".join(t or "" for _, t in expected) == "abc"
    assert next(k for k, _ in blocking) == "run-start"
    assert [k for k, _ in blocking][-1] == "run-end"


def test_leaving_the_block_ends_its_thread():
    before = {*threading.enumerate()}
    model = ScriptedModel(["a"] * 1000)
    with sync.stream("Hi", model=model) as run:
        next(iter(run.text()))
    with pytest.raises(ZeroDivisionError), sync.stream("Hi", model=model) as run:
        raise ZeroDivisionError
    assert {*threading.enumerate()} <= before, "those of other tests may end meanwhile"


def test_blocking_cancel_and_misuse():
    model = ScriptedModel(["a"] * 1000)
    run = sync.stream("Hi", model=model)
    with pytest.raises(ConflictError):
        run.result()
    with run:
        run.cancel("enough")
        for _ in run:
            pass
        assert run.state.outcome in ("cancelled", "complete")


def test_structured_output_is_validated():
    from pydantic import BaseModel

    class City(BaseModel):
        name: str
        people: int

    model = ScriptedModel(['{"name":"Par', 'is","people":2100000}'])
    with sync.stream("A city", model=model, output=City) as run:
        assert run.result().output == City(name="Paris", people=2100000)
    model = ScriptedModel(['{"name":"Paris"}'])
    with sync.stream("A city", model=model, output=City) as run:
        with pytest.raises(ProviderError, match="people"):
            run.result()


def test_blocking_results_can_be_read_after_the_block():
    model = ScriptedModel(["a", "b"])
    with sync.stream("Hi", model=model) as run:
        list(run)
    assert run.result().text == "ab"
    assert list(run.text()) == []
    run.cancel()  # nobody is there to hear it


def test_a_blocking_run_that_was_left_early_is_not_taken_for_whole():
    model = ScriptedModel(["a"] * 1000)
    with sync.stream("Hi", model=model) as run:
        next(iter(run))
    with pytest.raises(TruncatedError):
        run.result()
