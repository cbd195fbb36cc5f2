"""Public types as a user's type checker sees them; checked by `make lint`, never executed."""

from __future__ import annotations

from typing import assert_type

import tokenwire
from tokenwire import sync
from tokenwire.events import Event, PartDelta, TextDelta
from tokenwire.events.message import Message
from tokenwire.relay.follow import Batch
from tokenwire.relay.runs import Follower, RunInfo, Runs
from tokenwire.run.stream import Result, Run, Timings
from tokenwire.testing import ScriptedModel


async def library() -> None:
    run = tokenwire.stream("Hello", model="demo", temperature=0.2, stop=["\n"])
    assert_type(run, Run)
    async with run as entered:
        assert_type(entered, Run)
        async for event in run:
            assert_type(event, Event)
            if isinstance(event, TextDelta):
                assert_type(event.text, str)
            elif isinstance(event, PartDelta):
                assert_type(event.part, int)
        async for text in run.text():
            assert_type(text, str)
        result = await run.result()
        assert_type(result, Result)
        assert_type(result.message, Message)
        assert_type(result.timings, Timings)
        assert_type(result.finish_reason, str | None)


def blocking() -> None:
    with sync.stream("Hello", model="demo") as run:
        for text in run.text():
            assert_type(text, str)
        for event in run:
            assert_type(event, Event)
        assert_type(run.result(), Result)
    assert_type(sync.stream("Hello", model=["demo", ScriptedModel()], seed=1), sync.Run)
    sync.stream("Hello", model="demo", sead=1)  # type: ignore[call-arg]
    sync.stream("Hello", model=5)  # type: ignore[arg-type]


async def relay(runs: Runs) -> None:
    request = tokenwire.Request(messages=[tokenwire.user("Hello")])
    info = await runs.start(request, model="demo", thread="t")
    assert_type(info, RunInfo)
    follower = await runs.follow(info.id)
    assert_type(follower, Follower)
    assert_type(await follower.next(), Batch | None)


@tokenwire.tool
def plain(city: str) -> str:
    """A tool."""
    return city


assert_type(plain, tokenwire.Tool)
