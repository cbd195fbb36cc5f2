"""The text of a run while it grows: what a restarted step withdraws is gone from it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tokenwire.client.stream import Follow
from tokenwire.errors import ConflictError
from tokenwire.events import model as m


class Recorded(Follow):
    """A reader of these events."""

    def __init__(self, events: list[Any], cursor: str | None = None) -> None:
        self.cursor = cursor
        self._events = iter(events)

    async def __anext__(self) -> Any:
        try:
            return next(self._events)
        except StopIteration:
            raise StopAsyncIteration from None


START = [m.RunStart(run="r" * 16), m.StepStart(step=1), m.TextStart(part=0)]
AGAIN = [
    m.StepReset(step=1, attempt=2, discard_parts=[0]),
    m.StepStart(step=1, attempt=2),
    m.TextStart(part=1),
]


async def texts(events: list[Any]) -> list[str]:
    return [text async for text in Recorded(events).texts()]


def test_a_restarted_step_begins_anew() -> None:
    events = [*START, m.TextDelta(part=0, text="one "), m.TextDelta(part=0, text="two ")]
    events += [*AGAIN, m.TextDelta(part=1, text="one "), m.TextDelta(part=1, text="2")]
    events += [m.TextEnd(part=1, text="one two")]
    shown = asyncio.run(texts(events))
    assert shown == ["one ", "one two ", "", "one ", "one 2", "one two"]


def test_subagents_are_not_the_text() -> None:
    events = [*START]
    aside = m.TextStart(part=1, agent=m.Agent(id="b", parent="a"))
    events += [aside, m.TextDelta(part=1, text="aside"), m.TextDelta(part=0, text="new")]
    assert asyncio.run(texts(events)) == ["new"]


def test_only_a_whole_run_has_a_text() -> None:
    async def main() -> None:
        async for _ in Recorded([], cursor="3").texts():
            pass

    with pytest.raises(ConflictError):
        asyncio.run(main())
