"""Attempts that were billed before their first word: what their providers told is counted, whoever
answers in the end. Over real sockets."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.billing import FAILURES, WIRES, Act, BillingPeer, Script, billing_peer
from support.spine import QUICK, request_of, run_async
from tokenwire.errors import CancelledRunError, ProviderError
from tokenwire.events import model as m
from tokenwire.events.fold import fold
from tokenwire.events.order import Order
from tokenwire.providers.http.client import HttpClient
from tokenwire.relay.spending.meter import Meter
from tokenwire.run.call.reading import Reading
from tokenwire.run.plan import Plan
from tokenwire.run.stream import Run, new_run_id


def run_of(*peers: BillingPeer) -> Run:
    """A run whose models are the peers ``a``, ``b``, ..."""
    plan = Plan(
        run=new_run_id(),
        request=request_of("Hello"),
        candidates=[peer.candidate(name) for peer, name in zip(peers, "abc", strict=False)],
        model="a",
        retry=QUICK,
    )
    return Run(plan, http=HttpClient)


async def events_of(run: Run) -> list[m.Event]:
    """All events of a run, in an order that holds."""
    events: list[m.Event] = []
    try:
        async for batch in run.batches():
            events += batch
    except (ProviderError, CancelledRunError):
        pass
    order = Order()
    for event in events:
        order.check(event)
    return events


def calls_of(events: list[m.Event]) -> list[Any]:
    meter = Meter()
    for event in events:
        meter.apply(event)
    return meter.calls()


def check(events: list[m.Event], scripts: list[Script], peers: list[BillingPeer]) -> None:
    """What the log says is what the peers did, to the token, by peer."""
    told: Counter[tuple[str, int, int]] = Counter()
    unreported: Counter[str] = Counter()
    for call in calls_of(events):
        if call.counts is None:
            unreported[call.provider] += 1
        else:
            told[call.provider, call.counts.input_tokens, call.counts.output_tokens] += 1
    acts = [
        (name, act)
        for name, script, peer in zip("ab", scripts, peers, strict=True)
        for act, _, _ in script[: peer.requests]
    ]
    billed = [(name, *bill) for name, peer in zip("ab", peers, strict=True) for bill in peer.billed]
    assert told == Counter(billed)
    assert unreported == Counter(name for name, act in acts if act in ("silent", "begin"))
    end = events[-1]
    assert isinstance(end, m.RunEnd)
    usage = end.usage or {}
    assert usage.get("input_tokens", 0) == sum(enter for _, enter, _ in billed)
    assert usage.get("output_tokens", 0) == sum(leave for *_, leave in billed)
    assert usage == fold(events).usage
    is_whole = end.outcome == "complete"
    assert is_whole is any(act == "answer" for _, act in acts)
    if is_whole:
        assert end.usage_unknown is any(act in ("silent", "begin") for _, act in acts)
        assert fold(events).text == "words"
        names = [event.provider for event in events if isinstance(event, m.StepStart)]
        assert names[-1] == acts[-1][0]
    # Readers hear of no attempt that was not billed, but of the model that answers.
    billed_failures = sum(act not in ("refuse", "answer") for _, act in acts)
    resets = [event for event in events if isinstance(event, m.StepReset)]
    fell_back = any(name == "b" for name, _ in acts)
    assert len(resets) <= billed_failures + fell_back
    assert not any(event.discard_parts for event in resets)


def acts_of(wire: str) -> list[Act]:
    """How a wire's peers fail: Responses counts at its end alone, unless with an error."""
    return [act for act in FAILURES if (wire, act) != ("openai-responses", "count")]


def scripts_of(wire: str) -> st.SearchStrategy[Script]:
    act = st.sampled_from([*acts_of(wire), "answer"])
    return st.lists(
        st.tuples(act, st.integers(1, 10**6), st.integers(0, 10**6)), min_size=3, max_size=3
    )


@st.composite
def pairs(draw: Any) -> tuple[list[str], list[Script]]:
    wires = draw(st.lists(st.sampled_from(WIRES), min_size=2, max_size=2))
    return wires, [draw(scripts_of(wire)) for wire in wires]


async def play(wires: list[str], scripts: list[Script]) -> None:
    async with billing_peer(wires[0]) as one, billing_peer(wires[1]) as two:
        one.script, two.script = scripts
        async with run_of(one, two) as run:
            events = await events_of(run)
        check(events, scripts, [one, two])


@settings(max_examples=25, deadline=None)
@given(pairs())
def test_what_providers_billed_is_the_runs_usage(pair: tuple[list[str], list[Script]]) -> None:
    run_async(play(*pair))


@pytest.mark.parametrize(("wire", "act"), [(wire, act) for wire in WIRES for act in acts_of(wire)])
def test_each_failure_on_each_wire(wire: str, act: Act) -> None:
    answer: tuple[Act, int, int] = ("answer", 30, 4)
    run_async(play([wire, "anthropic"], [[(act, 20, 1), answer, answer], [answer] * 3]))
    run_async(play([wire, "anthropic"], [[(act, 20, 1)] * 3, [answer] * 3]))
    run_async(play([wire, wire], [[(act, 20, 1)] * 3, [(act, 40, 2)] * 3]))


def test_what_readers_hear() -> None:
    async def main() -> None:
        async with billing_peer("anthropic") as one, billing_peer("openai-chat") as two:
            one.script = [("count", 25, 1), ("refuse", 0, 0), ("refuse", 0, 0)]
            two.script = [("refuse", 0, 0), ("answer", 7, 3)]
            async with run_of(one, two) as run:
                events = await events_of(run)
        steps = [e for e in events if isinstance(e, m.StepStart | m.StepReset | m.Usage)]
        assert [type(event) for event in steps] == [
            m.StepStart,
            m.Usage,
            m.StepReset,
            m.StepStart,
            m.StepReset,
            m.StepStart,
            m.Usage,
        ]
        resets = [event for event in steps if isinstance(event, m.StepReset)]
        assert [(e.attempt, e.reason) for e in resets] == [(2, "retry"), (3, "refused")]
        starts = [event for event in steps if isinstance(event, m.StepStart)]
        assert [(e.attempt, e.provider, e.dialect) for e in starts] == [
            (1, "a", "anthropic"),
            (2, "a", "anthropic"),
            (3, "b", "openai-chat"),
        ]
        assert events[-1].usage["input_tokens"] == 32  # type: ignore[attr-defined]
        assert not events[-1].usage_unknown  # type: ignore[attr-defined]

    run_async(main())


def test_a_cancel_between_two_attempts_keeps_what_was_billed() -> None:
    async def main() -> None:
        async with billing_peer("anthropic") as one:
            one.script = [("count", 25, 1), ("answer", 30, 4)]

            async with run_of(one) as run:
                one.before = lambda number: run.cancel() if number == 1 else None
                events = await events_of(run)
        end = events[-1]
        assert isinstance(end, m.RunEnd)
        assert end.outcome == "cancelled"
        assert end.usage is not None
        assert end.usage["input_tokens"] == 25
        assert sum(isinstance(event, m.StepEnd) for event in events) == 1

    run_async(main())


def test_a_cancel_of_a_call_that_has_told_its_input_keeps_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        read = asyncio.Event()
        feed = Reading._feed

        def fed(reading: Reading, data: bytes) -> list[m.Event]:
            read.set()
            return feed(reading, data)

        monkeypatch.setattr(Reading, "_feed", fed)
        async with billing_peer("anthropic") as one:
            one.script = [("hold", 25, 1)]
            async with run_of(one) as run:
                reading = asyncio.ensure_future(events_of(run))
                await read.wait()
                run.cancel()
                events = await reading
        end = events[-1]
        assert isinstance(end, m.RunEnd)
        assert (end.outcome, (end.usage or {}).get("input_tokens")) == ("cancelled", 25)

    run_async(main())
