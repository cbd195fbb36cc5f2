"""What runs used: each call counted once, priced once, and each run in each sum once."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC
from importlib.metadata import PackageNotFoundError
from typing import Any, cast
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.arbitrary_runs import arbitrary_run
from support.event_strategies import runs
from support.spine import run_async
from support.unsteady import Unsteady
from tokenwire.errors import ConfigError, NetworkError, StoreUnavailableError
from tokenwire.events import model as m
from tokenwire.events.codec import encode
from tokenwire.events.fold import USAGE_COUNTS, Fold
from tokenwire.events.fold import fold as fold_of
from tokenwire.events.order import Order
from tokenwire.events.request import Request
from tokenwire.log.base import Store
from tokenwire.log.memory import MemoryStore
from tokenwire.relay.description import RunMeta
from tokenwire.relay.record import Chain
from tokenwire.relay.spending import settling as settling_module
from tokenwire.relay.spending.bill import bill_of, costs_by_kind, day_of, zone_of
from tokenwire.relay.spending.counts import MOST_TOKENS, Counts, counts_of, details_of
from tokenwire.relay.spending.ledger import StoredSum, owner_account, thread_account
from tokenwire.relay.spending.meter import Meter, ModelCall, read_calls
from tokenwire.relay.spending.prices import (
    NANOS,
    GenaiPrices,
    NoPrices,
    OwnPrices,
    installed_prices,
    own_prices,
)
from tokenwire.relay.spending.settling import Settling, bill_in
from tokenwire.run.failure import failed_end

DAY = "2026-11-29"
NOON = 1_795_953_600_000  # 2026-11-29 12:00 UTC


@pytest.fixture(scope="module")
def prices() -> GenaiPrices:
    table = GenaiPrices()
    table.load()
    return table


# --- the calls of a run ---------------------------------------------------------------------------


def metered(events: list[Any]) -> Meter:
    meter = Meter()
    for event in events:
        meter.apply(event)
    return meter


def test_the_sum_over_the_calls_is_the_folds() -> None:
    for seed in range(300):
        events, fold = arbitrary_run(seed), Fold()
        for event in events:
            if not isinstance(event, m.PartAttr):
                fold.apply(event)
        reported = {k: v for k, v in metered(events).reported.items() if k in USAGE_COUNTS}
        assert reported == fold.usage, seed


def test_a_run_says_that_something_is_missing_where_its_bill_does() -> None:
    """The end of a run and its bill are made of the same log by two hands: no call that was not
    reported in full is one that is known; and where all are whole and counted, nothing is unknown.
    """
    seen = set[bool]()
    for seed in range(600):
        fold, meter = Fold(), Meter()
        for event in arbitrary_run(seed):
            is_absurd = isinstance(event, m.Usage) and any(
                (getattr(event, name) or 0) > MOST_TOKENS for name in USAGE_COUNTS
            )
            if isinstance(event, m.RunEnd | m.PartAttr) or is_absurd:
                continue
            fold.apply(event)
            meter.apply(event)
        calls, end = meter.calls(), fold.end("complete")
        is_missing = any(call.counts is None or call.estimate is not None for call in calls)
        assert end.usage_unknown or not is_missing, seed
        assert end.usage == (fold.usage or None)
        steps = [step for step in fold.steps if step.kind == "model"]
        is_whole = all(s.usage and s.terminal_seen for s in steps)
        is_whole = is_whole and not any(s.is_estimated for s in fold.steps)
        if is_whole and not fold.spent and not any(s.rereads or s.attempt > 1 for s in steps):
            assert not end.usage_unknown, seed
        seen.add(end.usage_unknown)
    assert seen == {True, False}


_TOKENS = st.integers(0, 300_000)


@given(a=_TOKENS, b=_TOKENS, c=_TOKENS, d=_TOKENS, e=_TOKENS, audio=_TOKENS, data=st.data())
@settings(max_examples=60, deadline=None)
def test_the_costs_of_all_kinds_are_the_cost(
    prices: GenaiPrices, a: int, b: int, c: int, d: int, e: int, audio: int, data: st.DataObject
) -> None:
    """``a`` new, ``b`` cached and ``c`` written tokens in, ``d`` said, ``e`` thought ones out."""
    provider, model = data.draw(
        st.sampled_from(
            [
                ("openai", "gpt-4o"),
                ("anthropic", "claude-sonnet-4-5"),
                ("google", "gemini-2.5-pro"),
                ("openai", "gpt-4o-audio-preview"),
                ("ollama", "llama3"),
                ("nobody", "nothing"),
            ]
        )
    )
    counts = counts_of(
        {
            "input_tokens": a + b + c,
            "cached_input_tokens": b,
            "cache_write_tokens": c,
            "output_tokens": d + e,
            "reasoning_tokens": e,
            "input_audio_tokens": audio,
        }
    )
    call = ModelCall(provider=provider, model=model, time=NOON, counts=counts)
    table = OwnPrices(own_prices(["ollama/llama3=0.05/0.2"]), prices)
    (line,) = bill_of([call, call], table, UTC, principal="p", thread=None).lines
    assert sum(line.costs.values()) == line.sum.cost
    assert all(cost > 0 for cost in line.costs.values())
    there = {"input": a, "cached_input": b, "cache_write": c, "output": d, "reasoning": e}
    assert {kind for kind in line.costs if kind != "unsplit"} <= {k for k, n in there.items() if n}
    if provider == "nobody":
        assert not line.costs


def test_each_kind_costs_what_its_price_says() -> None:
    counts = counts_of({"input_tokens": 4_000_000, "output_tokens": 3_000_000})
    call = ModelCall(provider="a", model="b", counts=counts)
    table = OwnPrices(own_prices(["a/b=2/5"]), NoPrices())
    assert costs_by_kind(call, table, 23 * NANOS) == {"output": 15 * NANOS, "input": 8 * NANOS}
    unsplit = msgspec.structs.replace(call, counts=counts_of({"total_tokens": 1_000_000}))
    assert costs_by_kind(unsplit, table, 5 * NANOS) == {"unsplit": 5 * NANOS}
    only_whole = msgspec.structs.replace(call, counts=counts)

    class Whole(NoPrices):
        """Has a price of that one call, and of no other."""

        def cost(self, call: ModelCall) -> int | None:
            return 7 if call.counts == counts else None

    assert costs_by_kind(only_whole, Whole(), 7) == {"unsplit": 7}


@given(events=runs())
def test_a_run_whose_last_attempt_was_not_counted_says_so(events: list[m.Event]) -> None:
    """The same for runs that make sense, cut anywhere."""
    for length in range(len(events)):
        fold, meter = Fold(), Meter()
        for event in events[:length]:
            fold.apply(event)
            meter.apply(event)
        is_missing = any(c.counts is None or c.estimate is not None for c in meter.calls())
        assert fold.end("error").usage_unknown or not is_missing


@pytest.mark.parametrize("reports", [0, 1])
@pytest.mark.parametrize("is_whole", [False, True])
@pytest.mark.parametrize("is_answered", [False, True])
def test_what_a_last_attempt_did_not_report_is_unknown(
    reports: int, is_whole: bool, is_answered: bool
) -> None:
    start: list[m.Event] = [m.RunStart(run="r"), m.StepStart(step=1, provider="a", model="b")]
    text = [m.ResponseStart(), m.TextStart(part=0), m.TextDelta(part=0, text="word")]
    events = [*start, *(text if is_answered else [])]
    if is_answered:
        events += [m.Usage(input_tokens=3, output_tokens=1)] * reports
    events.append(m.StepEnd(step=1, status="complete", terminal_seen=is_whole))
    state = fold_of(events)
    known = not is_answered or (bool(reports) and is_whole)
    for end in (
        state.end("complete"),
        failed_end(Order(), state, NetworkError("gone"))[-1],
    ):
        assert isinstance(end, m.RunEnd)
        assert end.usage_unknown is not known
        assert fold_of([*events, end]).usage_unknown is not known
    assert fold_of(start).end("error", is_calling=True).usage_unknown
    assert not fold_of(start).end("error").usage_unknown


def call_events(step: int, output: int, *, attempt: int = 1, model: str = "gpt-4o") -> list[Any]:
    return [
        m.StepStart(step=step, attempt=attempt, provider="openai", model=model),
        m.ResponseStart(model=model),
        m.TextStart(part=step * 10 + attempt),
        m.Usage(input_tokens=100, output_tokens=1),
        m.Usage(input_tokens=100, output_tokens=output),
    ]


def test_an_attempt_that_a_takeover_discarded_was_billed() -> None:
    events = [
        m.RunStart(run="r", time=NOON),
        *call_events(1, 20),
        m.RunClaim(epoch=2),
        m.StepReset(step=1, attempt=2),
        *call_events(1, 30, attempt=2),
        m.StepEnd(step=1, status="complete"),
    ]
    counts = [call.counts for call in metered(events).calls()]
    assert [(c.input_tokens, c.output_tokens) for c in counts if c] == [(100, 20), (100, 30)]


def test_a_response_that_is_read_again_is_billed_once() -> None:
    first = call_events(1, 20)
    first[1].resumable = True
    again = call_events(1, 30, attempt=2)
    again[1].resumable = True
    events = [*first, m.StepReset(step=1, attempt=2), *again]
    assert [call.counts.output_tokens for call in metered(events).calls() if call.counts] == [30]


@pytest.mark.parametrize("answers", ["the same", "another", "none", "another, after a loss"])
def test_a_response_that_could_not_be_read_again_was_billed(answers: str) -> None:
    """A worker is lost while its provider keeps the response; the next one reads that again, or
    has another one made, or gets none."""

    def begun(attempt: int, response: str | None, *, kept: bool = True) -> list[Any]:
        start = m.StepStart(step=1, attempt=attempt, provider="openai", model="gpt-4o")
        if response is None:
            return [start]
        return [start, m.ResponseStart(id=response, resumable=kept), m.TextStart(part=attempt)]

    events = [*begun(1, "one"), m.StepReset(step=1, attempt=2)]
    usage = m.Usage(input_tokens=100, output_tokens=30)
    if answers == "the same":
        events += [*begun(2, "one"), usage]
    elif answers == "another":
        events += [*begun(2, "two"), usage]
    elif answers == "none":
        events += [*begun(2, None), m.StepEnd(step=1, status="error")]
    else:
        events += [*begun(2, None), m.StepReset(step=1, attempt=3), *begun(3, "two"), usage]
    meter = metered(events)
    calls = [(call.counts.total if call.counts else None) for call in meter.calls(7)]
    assert calls == {"the same": [130], "none": [None]}.get(answers, [None, 130])
    assert [call.estimate is not None for call in meter.calls(7)] == {
        "the same": [False],
        "none": [True],
    }.get(answers, [True, False])


def test_a_call_without_counts_is_unreported_where_it_was_answered() -> None:
    answered = [m.StepStart(step=1, provider="p", model="m"), m.TextStart(part=1)]
    refused = [m.StepStart(step=2, provider="p", model="m"), m.StepEnd(step=2, status="error")]
    own_words = [m.StepStart(step=3, kind="agent"), m.TextStart(part=2)]
    calls = metered([*answered, *refused, *own_words]).calls()
    assert [(call.model, call.counts) for call in calls] == [("m", None)]
    bill = bill_of(calls, NoPrices(), UTC, principal="", thread=None)
    assert (bill.lines[0].sum.calls, bill.lines[0].sum.unreported_calls) == (1, 1)


def test_details_of_the_providers_own_objects() -> None:
    chat = {"prompt_tokens_details": {"audio_tokens": 7, "cached_tokens": 3}}
    chat["completion_tokens_details"] = {"audio_tokens": 4}
    assert details_of(m.Usage(raw=chat)) == {"input_audio_tokens": 7, "output_audio_tokens": 4}
    image = {"input_tokens_details": {"image_tokens": 5, "text_tokens": 2}}
    assert details_of(m.Usage(raw=image)) == {"input_image_tokens": 5}
    gemini = {"promptTokensDetails": [{"modality": "IMAGE", "tokenCount": 258}, "?", {}]}
    gemini["candidatesTokensDetails"] = [{"modality": "AUDIO", "tokenCount": 9}]
    details = {"input_image_tokens": 258, "output_audio_tokens": 9}
    assert details_of(m.Usage(raw=gemini)) == details
    claude = {"cache_creation": {"ephemeral_1h_input_tokens": 6}}
    assert details_of(m.Usage(raw=claude)) == {"cache_write_1h_tokens": 6}
    hostile = {"prompt_tokens_details": {"audio_tokens": -1, 3: "x"}, "cache_creation": 5}
    assert details_of(m.Usage(raw=cast(Any, hostile))) == {}


def test_a_detail_is_never_more_than_its_whole() -> None:
    counts = counts_of({"input_tokens": 5, "cached_input_tokens": 9, "output_tokens": -3})
    assert (counts.cached_input_tokens, counts.output_tokens, counts.total) == (5, 0, 5)
    assert counts_of({"total_tokens": 12}) == Counts(unsplit_tokens=12)


# --- prices ---------------------------------------------------------------------------------------


def cost(prices: Any, provider: str | None, model: str, **counts: int) -> int | None:
    call = ModelCall(provider=provider, model=model, time=NOON, counts=Counts(**counts))
    return prices.cost(call)


def test_prices_of_each_kind_of_tokens(prices: GenaiPrices) -> None:
    assert prices.table is not None
    assert prices.table.startswith("genai-prices ")
    plain = cost(prices, "openai", "gpt-4o", input_tokens=1000, output_tokens=100)
    assert plain == 3_500_000  # $2.50 and $10 for a million
    cached = {"input_tokens": 1000, "cached_input_tokens": 500, "output_tokens": 100}
    assert cost(prices, "openai", "gpt-4o", **cached) == 2_875_000
    served = ModelCall(
        provider="openai",
        model="my-deployment",
        served="gpt-4o-2024-08-06",
        time=NOON,
        counts=Counts(input_tokens=1000, output_tokens=100),
    )
    assert prices.cost(served) == 3_500_000
    hour = {"input_tokens": 1000, "cache_write_tokens": 100}
    short = cost(prices, "anthropic", "claude-sonnet-4-5-20250929", **hour)
    longer = cost(
        prices, "anthropic", "claude-sonnet-4-5-20250929", **hour, cache_write_1h_tokens=100
    )
    assert short is not None
    assert longer is not None
    assert short < longer


#: Dollars of a million tokens of one kind: by provider and model, as the table has them.
KINDS: list[tuple[str, str, dict[str, int], float | None]] = [
    ("openai", "gpt-4o", {"input": 1, "cached_input": 1}, 1.25),
    ("openai-responses", "gpt-5", {"output": 1, "reasoning": 1}, 10.0),
    ("openai", "gpt-realtime", {"input": 1, "input_audio": 1}, 32.0),
    ("openai", "gpt-realtime", {"output": 1, "output_audio": 1}, 64.0),
    ("openai", "gpt-realtime", {"input": 1, "input_image": 1}, 5.0),
    ("openai", "gpt-image-1", {"output": 1, "output_image": 1}, 40.0),
    # The table has its text alone, and audio costs many times that.
    ("openai", "gpt-4o-audio-preview", {"input": 1, "input_audio": 1}, None),
    ("openai", "gpt-4o-audio-preview", {"output": 1, "output_audio": 1}, None),
    ("openai", "gpt-4o-audio-preview", {"output": 1}, 10.0),
    ("anthropic", "claude-haiku-4-5", {"input": 1, "cached_input": 1}, 0.1),
    ("anthropic", "claude-haiku-4-5", {"input": 1, "cache_write": 1}, 1.25),
    ("anthropic", "claude-haiku-4-5", {"input": 1, "cache_write": 1, "cache_write_1h": 1}, 2.0),
    ("gemini", "gemini-2.5-flash", {"input": 1, "input_audio": 1}, 1.0),
    ("gemini", "gemini-2.5-flash", {"input": 1, "input_image": 1}, 0.3),
    ("gemini", "gemini-2.5-flash", {"output": 1, "reasoning": 1}, 2.5),
    ("gemini", "gemini-2.5-flash-image", {"output": 1, "output_image": 1}, 30.0),
    ("perplexity", "sonar-deep-research", {"output": 1, "reasoning": 1}, 3.0),
    ("xai-responses", "grok-4", {"output": 1}, 15.0),
    ("deepseek", "deepseek-chat", {"input": 1, "cached_input": 1}, 0.07),
]


@pytest.mark.parametrize(("provider", "model", "kinds", "dollars"), KINDS)
def test_each_kind_has_its_own_price_by_provider(
    prices: GenaiPrices, provider: str, model: str, kinds: dict[str, int], dollars: float | None
) -> None:
    counts = {f"{kind}_tokens": count * 1_000_000 for kind, count in kinds.items()}
    amount = cost(prices, provider, model, **counts)
    assert (amount is None) if dollars is None else amount == round(dollars * NANOS)


def test_prices_of_ones_own_come_before_the_table(prices: GenaiPrices) -> None:
    own = OwnPrices(own_prices(["ollama/llama3=0.05/$0.2", "openai/gpt-4o=1/1"]), prices)
    assert own.table == f"{prices.table} and own prices"
    assert cost(own, "ollama", "llama3", input_tokens=2_000_000, output_tokens=5) == 100_001_000
    assert cost(own, "ollama", "llama3", unsplit_tokens=1_000_000) == 200_000_000
    assert cost(own, "openai", "gpt-4o", input_tokens=1_000_000) == 1_000_000_000
    assert cost(own, "ollama", "other", input_tokens=5) is None
    assert OwnPrices(own_prices(["a/b=0/0"]), NoPrices()).table == "own prices"
    for wrong in ("llama3=1/2", "a/b=1", "a/b=-1/2", "a/b=1/x", "a/b=1e3/1", "", "a/b=1/2/3"):
        with pytest.raises(ConfigError, match="a price is written as"):
            own_prices([wrong])


def test_what_has_no_price_costs_an_unknown_amount(prices: GenaiPrices) -> None:
    for provider, model in (("ollama", "llama3"), ("demo", "demo"), ("openai", "no-such-model")):
        assert cost(prices, provider, model, input_tokens=1000) is None
    assert cost(prices, "openai", "gpt-4o", unsplit_tokens=5) is None
    embedding = cost(prices, "openai", "text-embedding-3-small", input_tokens=5, output_tokens=5)
    assert embedding is None  # the table has no price of its output
    assert cost(NoPrices(), "openai", "gpt-4o", input_tokens=1000) is None


class Broken:
    """A table that fails in a way of its own."""

    def calc(self, *_: Any) -> Any:
        raise AttributeError("another version")


def test_a_table_that_fails_leaves_the_cost_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = GenaiPrices()
    broken._snapshot, broken._usage = Broken(), dict
    assert cost(broken, "openai", "gpt-4o", input_tokens=1000) is None

    def fail(*_: Any) -> Any:
        raise AttributeError("another version")

    def absent(*_: Any) -> Any:
        raise PackageNotFoundError("genai-prices")

    async def main() -> None:
        assert (await installed_prices()).table is not None
        monkeypatch.setattr(GenaiPrices, "load", fail)
        assert (await installed_prices()).table is None
        monkeypatch.setattr("tokenwire.relay.spending.prices.version", absent)
        assert (await installed_prices()).table is None

    run_async(main())


def test_a_run_that_is_erased_at_once_is_priced_all_the_same() -> None:
    async def main() -> None:
        store, run = MemoryStore(), names(1)[0]
        await Settling(store, UTC).expect(run)
        await ended_run(store, run)
        settling = Settling(store, UTC)
        settling.open()  # the table is still being read
        await settling.erasing(run)
        assert all(entry.cost > 0 for entry in await sums(store))
        await settling.aclose()

    run_async(main())


def test_a_bill_is_by_model_and_day_of_the_zone(prices: GenaiPrices) -> None:
    late = NOON + 11 * 3_600_000 + 1_800_000  # 23:30 in London, past midnight in Berlin
    calls = [
        ModelCall(provider="openai", model="gpt-4o", time=at, counts=Counts(input_tokens=1000))
        for at in (NOON, late)
    ]
    calls.append(
        ModelCall(provider="demo", model="demo", time=NOON, counts=Counts(output_tokens=3))
    )
    bill = bill_of(calls, prices, ZoneInfo("Europe/Berlin"), principal="a", thread=None)
    lines = {(line.model, line.day): line.sum for line in bill.lines}
    assert (
        lines["openai/gpt-4o", DAY].cost == lines["openai/gpt-4o", "2026-11-30"].cost == 2_500_000
    )
    assert (lines["demo/demo", DAY].cost, lines["demo/demo", DAY].unpriced_tokens) == (0, 3)
    assert bill.table == prices.table
    assert len(bill_of(calls, prices, UTC, principal="a", thread=None).lines) == 2
    assert day_of(late / 1000, UTC) == DAY
    with pytest.raises(ConfigError, match="unknown time zone 'Mars/Phobos'"):
        zone_of("Mars/Phobos")


# --- settling -------------------------------------------------------------------------------------


async def ended_run(store: Store, run: str, *, principal: str = "eve", output: int = 10) -> None:
    """A run with one call, which has ended."""
    chain = Chain(run)
    events = [
        m.RunStart(run=run, time=NOON),
        *call_events(1, output),
        m.TextEnd(part=11),
        m.StepEnd(step=1, status="complete", terminal_seen=True),
        m.RunEnd(outcome="complete"),
    ]
    records = chain.seal_all(events)
    meta = RunMeta(model="gpt-4o", request=Request(messages=[]), principal=principal)
    await store.create(run, owner="w", meta=msgspec.json.encode(meta), thread="talk")
    await store.append(run, epoch=1, first=1, records=records, close="complete")


def names(count: int) -> list[str]:
    return [f"run-{number:016d}" for number in range(count)]


async def sums(store: Store, principal: str = "eve") -> list[StoredSum]:
    ledger = Settling(store, UTC).ledger
    accounts = [
        owner_account("day", DAY, "p", principal),
        owner_account("month", DAY, "p", principal),
    ]
    return [await ledger.read(account) for account in [*accounts, thread_account("talk")]]


async def check(store: Store, runs: int, output: int = 10) -> None:
    for spent in await sums(store):
        assert (spent.runs, spent.calls) == (runs, runs)
        assert spent.counts.output_tokens == runs * output
        assert spent.models["openai/gpt-4o"].counts.input_tokens == runs * 100


def test_settlers_beside_each_other_count_each_run_once() -> None:
    async def main(seed: int) -> None:
        store, runs = MemoryStore(), names(3)
        for run in runs:
            await Settling(store, UTC).expect(run)
            await ended_run(store, run)
        dice = random.Random(seed)
        settlers = [Settling(cast(Store, Unsteady(store, seed + n)), UTC) for n in range(3)]
        await asyncio.gather(
            *(s._look_at_all(dice.sample(runs, dice.randrange(1, 4))) for s in settlers),
            *(settlers[0].erasing(run) for run in dice.sample(runs, 1)),
        )
        await Settling(store, UTC)._look_at_all(runs)
        await check(store, 3)
        assert await store.documents("unsettled") == {}
        # The request that started them comes again, which notes them again.
        for run in runs:
            await settlers[0].expect(run)
        await settlers[0]._look_at_all(runs)
        await check(store, 3)

    for seed in range(200):
        run_async(main(seed))


@pytest.mark.parametrize("does", [True, False])
def test_a_settler_that_dies_anywhere_is_made_up_for(does: bool) -> None:
    async def main(fails_at: int) -> bool:
        store, runs = MemoryStore(), names(2)
        for run in runs:
            await Settling(store, UTC).expect(run)
            await ended_run(store, run)
        dying = Unsteady(store, 0, fails_at, does=does)
        try:
            await Settling(cast(Store, dying), UTC)._look_at_all(runs)
        except StoreUnavailableError:
            pass
        await Settling(store, UTC)._look_at_all(runs)
        await check(store, 2)
        return dying.calls < fails_at

    for fails_at in range(1, 200):
        if run_async(main(fails_at)):
            assert fails_at > 20
            return
    raise AssertionError("the settling never came to its end")


def test_an_erased_run_stays_counted() -> None:
    async def main() -> None:
        store, (run, other) = MemoryStore(), names(2)
        settling = Settling(store, UTC)
        for name in (run, other):
            await settling.expect(name)
            await ended_run(store, name)
        await settling.erasing(run)
        await store.delete(run)
        await settling._look_at_all([run, other])
        await check(store, 2)
        # Nobody else brings its bill back.
        assert await bill_in(store, run) is None
        # A run that was never created is nothing.
        await settling.expect("never-was-0123456789")
        await settling.forget("never-was-0123456789")
        await settling._look_at_all(["never-was-0123456789"])
        await check(store, 2)

    run_async(main())


def test_names_of_settled_runs_leave_the_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        store, runs = MemoryStore(), names(6)
        settling = Settling(store, UTC)
        for run in runs:
            await settling.expect(run)
            await ended_run(store, run)
            await settling._look_at_all([run])
        assert all(len(spent.added) == 1 for spent in await sums(store))
        monkeypatch.setattr("tokenwire.relay.spending.ledger._OLD_NAME", 0.0)
        last = "run-of-another-worker"
        await Settling(store, UTC).expect(last)
        await ended_run(store, last)
        await Settling(store, UTC)._look_at_all([last])
        await check(store, 7)
        assert all(list(spent.added) == [last] for spent in await sums(store))

    run_async(main())


def test_a_run_waits_for_its_settling_and_a_damaged_one_does_not_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        store, (run, broken) = MemoryStore(), names(2)
        settling = Settling(store, UTC)
        for name in (run, broken):
            await settling.expect(name)
        await ended_run(store, run)
        await store.create(broken, owner="w", meta=b"not what a run has")
        await store.append(broken, epoch=1, first=1, records=[b"x" * 20], close="complete")
        assert await settling.undelivered([run, broken]) == {run, broken}
        await settling._look_at_all([run, broken])
        assert await settling.undelivered([run, broken]) == {broken}
        tomorrow = time.time() + 100_000
        monkeypatch.setattr(settling_module.time, "time", lambda: tomorrow)
        await settling._look_at_all([broken])
        assert await settling.undelivered([broken]) == set()
        assert "description" in (await settling.failed())[broken]
        await check(store, 1)

    run_async(main())


def test_every_store_counts_for_several_processes(every_log: Callable[[], Store]) -> None:
    @asynccontextmanager
    async def opened() -> AsyncIterator[Store]:
        store = every_log()
        await store.start()
        try:
            yield store
        finally:
            await store.close()

    async def main() -> None:
        async with opened() as one, opened() as two:
            other = two if one.shared else one
            runs = names(8)
            for run in runs:
                await Settling(one, UTC).expect(run)
                await ended_run(one, run)
            await asyncio.gather(
                Settling(one, UTC)._look_at_all(runs),
                Settling(other, UTC)._look_at_all(reversed(runs)),
            )
            await check(other, 8)
            assert await other.documents("unsettled") == {}
            assert (await read_calls(other, runs[0]))[0].model == "gpt-4o"
            await Settling(one, UTC).forget_expired([], ["talk", "nobodys"])
            assert (await sums(other))[2].runs == 8  # it has runs

    run_async(main())


def test_old_sums_go() -> None:
    async def main() -> None:
        store = MemoryStore()
        ledger = Settling(store, UTC).ledger
        old = owner_account("day", "2020-01-01", "p", "eve")
        old_month = owner_account("month", "2020-01-01", "p", "eve")
        today = day_of(time.time(), UTC)
        new = owner_account("day", today, "p", "eve")
        for account in (old, old_month, new):
            await store.set_document(
                account.kind, account.name, msgspec.msgpack.encode(StoredSum(runs=1))
            )
        await ledger.sweep()
        assert [(await ledger.read(a)).runs for a in (old, old_month, new)] == [0, 0, 1]

    run_async(main())


def test_records_that_matter_are_found_by_their_beginning() -> None:
    """`read_calls` looks at the first bytes of a record; every event that a meter uses has them."""

    async def main() -> None:
        for seed in range(40):
            events = arbitrary_run(seed)
            store, run = MemoryStore(), f"run-{seed:016d}"
            await store.create(run, owner="w")
            records = [b"0" * 16 + encode(event) for event in events]
            await store.append(run, epoch=1, first=1, records=records)
            assert await read_calls(store, run) == metered(events).calls(), seed

    run_async(main())
