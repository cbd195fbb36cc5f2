"""Retries and fallback, against a simulator that misbehaves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.spine import ask, run_async, simulator
from tokenwire.errors import (
    AuthenticationError,
    NetworkError,
    OverloadedError,
    ProviderError,
    RateLimitError,
    TokenwireError,
)
from tokenwire.providers.base import Target
from tokenwire.run.call.recover import (
    LONGEST_RETRY_AFTER,
    RetryBudget,
    RetryBudgets,
    RetryPolicy,
    pause_after,
)

POLICY = RetryPolicy()


@given(st.integers(1, 2), st.floats(0, 1))
def test_pauses_double_and_are_spread(failures, spread):
    pause = pause_after(NetworkError("x"), failures, POLICY, lambda: spread)
    assert 0.75 * 0.5 * 2 ** (failures - 1) <= pause <= 0.5 * 2 ** (failures - 1)


@pytest.mark.parametrize(
    ("error", "pause"),
    [
        (RateLimitError("x", retry_after=3.0), 3.0),
        (RateLimitError("x", retry_after=LONGEST_RETRY_AFTER + 1), None),
        (AuthenticationError("x"), None),
        (AuthenticationError("x", should_retry=True, retry_after=1.0), 1.0),
        (OverloadedError("x", should_retry=False), None),
        (TokenwireError("x"), None),
    ],
)
def test_what_the_provider_says_counts(error, pause):
    assert pause_after(error, 1, POLICY, lambda: 1.0) == pause


def test_retries_end():
    assert pause_after(NetworkError("x"), 3, POLICY, lambda: 1.0) is None


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 0.2)), max_size=300))
def test_the_budget_holds_over_any_history(moves):
    budget, now = RetryBudget(share=0.1, window=10.0, always=5), 0.0
    requests, retries = [], []
    for is_request, gap in moves:
        now += gap
        if is_request:
            budget.request(now)
            requests.append(now)
        elif budget.allow(now):
            retries.append(now)
        recent = [t for t in retries if t > now - 10.0]
        asked = [t for t in requests if t > now - 10.0]
        assert len(recent) <= max(5, int(len(asked) * 0.1), len(recent) - 1 if not asked else 0)


def test_a_failure_before_anything_was_visible_is_tried_again():
    async def main():
        async with simulator(faults="rate-limit@2:0") as server:
            async with ask("scenario:text", server.url) as run:
                result = await run.result()
            assert result.finish_reason == "stop"
            assert [r.status for r in server.requests] == [429, 429, 200]

    run_async(main())


def test_the_next_model_is_asked_when_the_first_one_stays_down():
    async def main():
        async with simulator(faults="status@503") as down, simulator() as up:
            async with ask("Hello", down.url, up.url) as run:
                result = await run.result()
            assert result.text
            assert len(down.requests) == 3
            assert len(up.requests) == 1

    run_async(main())


def test_after_text_was_shown_nothing_is_tried_again():
    async def main():
        async with simulator() as server:
            async with ask("scenario:error", server.url, server.url) as run:
                pieces = []
                with pytest.raises(ProviderError):
                    async for text in run.text():
                        pieces.append(text)
            assert "".join(pieces)
            assert len(server.requests) == 1

    run_async(main())


def test_a_bad_key_is_not_tried_again():
    async def main():
        async with simulator(api_key="right") as server:
            async with ask("Hello", server.url) as run:
                with pytest.raises(AuthenticationError):
                    await run.result()
            assert len(server.requests) <= 1

    run_async(main())


def test_a_failing_provider_does_not_use_up_the_retries_of_another():
    async def main():
        async with simulator(faults="status@503") as down, simulator(faults="rate-limit@1:0") as up:
            for _ in range(4):  # eight retries were due: more than a budget gives
                with pytest.raises(ProviderError):
                    async with ask("scenario:text", down.url) as run:
                        await run.result()
            assert len(down.requests) < 12
            async with ask("scenario:text", up.url) as run:
                await run.result()
            assert [r.status for r in up.requests] == [429, 200]

    run_async(main())


def test_a_budget_is_kept_for_each_provider_at_each_address():
    budgets = RetryBudgets()

    def target(provider, url, model="m"):
        return Target(provider=provider, dialect="openai-chat", model=model, base_url=url)

    one = budgets.of(target("a", "http://127.0.0.1:1"), 0.0)
    assert budgets.of(target("a", "http://127.0.0.1:1", "other"), 0.0) is one
    assert budgets.of(target("b", "http://127.0.0.1:1"), 0.0) is not one
    assert budgets.of(target("a", "http://127.0.0.1:2"), 0.0) is not one
    one.request(0.0)
    for n in range(1000):
        budgets.of(target("a", f"http://127.0.0.1:{n + 10}"), 1.0)
    assert budgets.of(target("a", "http://127.0.0.1:1"), 1.0) is one  # in use: not forgotten
    assert len(budgets) < 300
