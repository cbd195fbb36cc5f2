"""A cancel that comes while a lost worker's step is about to start again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from support.spine import QUICK, OneModel, request_of, run_async, simulator
from tokenwire.events import model as m
from tokenwire.events.fold import Fold
from tokenwire.events.order import Order
from tokenwire.providers.http.client import HttpClient
from tokenwire.run.inbox import Inbox
from tokenwire.run.loop import Loop
from tokenwire.run.plan import Plan


def cancel() -> m.Control:
    return m.Control(command="cancel", by="somebody")


def lost() -> list[m.Event]:
    """The log of a run whose worker died within its first step, taken over."""
    return [
        m.RunStart(run="r" * 22, time=1),
        m.StepStart(step=1, provider="demo", dialect="openai-chat", model="demo"),
        m.TextStart(part=0, step=1),
        m.TextDelta(part=0, text="So far"),
        m.RunClaim(epoch=2, owner="me"),
    ]


@asynccontextmanager
async def taken_over(inbox: Inbox) -> AsyncIterator[tuple[Loop, list[m.Event]]]:
    order, fold, events = Order(), Fold(), lost()
    for event in events:
        order.check(event)
        fold.apply(event)
    async with simulator() as server:
        candidate = OneModel(server.url).resolve("m0")
        plan = Plan(
            run="r" * 22,
            request=request_of("scenario:text"),
            candidates=[candidate],
            model="m0",
            retry=QUICK,
        )
        http = HttpClient()
        try:
            yield Loop(plan, http, inbox, order=order, fold=fold), events
        finally:
            await http.aclose()
        assert not server.requests


def test_before_it_starts_the_open_step_is_closed_and_the_run_is_cancelled() -> None:
    async def main() -> None:
        inbox = Inbox()
        async with taken_over(inbox) as (loop, events):
            inbox.put(cancel())
            rest = [event async for batch in loop.batches() for event in batch]
        assert [e.type for e in rest] == ["control", "text-end", "step-end", "run-end"]
        assert [e.seq for e in rest] == [n + len(events) for n in range(1, 5)]
        assert (rest[1].status, rest[2].status) == ("truncated", "cancelled")  # type: ignore[attr-defined]
        assert rest[3].outcome == "cancelled"  # type: ignore[attr-defined]

    run_async(main())


def test_no_cancel_comes_between_the_reset_and_the_start_of_a_step() -> None:
    async def main() -> None:
        inbox = Inbox()
        async with taken_over(inbox) as (loop, _):
            rest: list[m.Event] = []
            async for batch in loop.batches():
                rest += batch
                inbox.put(cancel())  # while the batch is on its way into the log
        types = [e.type for e in rest]
        assert types[:3] == ["step-reset", "step-start", "control"]
        assert types[3:] == ["step-end", "run-end"]
        assert rest[-1].outcome == "cancelled"  # type: ignore[attr-defined]

    run_async(main())
