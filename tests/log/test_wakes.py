"""Subscriptions to logs: who is woken, in which order, and what ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tokenwire.log.base import Take, Wake
from tokenwire.log.sqlite.store import SQLiteStore
from tokenwire.log.tail import Tails
from tokenwire.log.wakes import Wakes

ACTS = st.lists(
    st.tuples(
        st.sampled_from(
            ["begin", "begin", "silent", "end", "grow", "grow-by", "elsewhere", "wake"]
        ),
        st.sampled_from(["a", "b"]),
        st.integers(0, 7),
    ),
    max_size=40,
)


@given(ACTS)
def test_whoever_is_subscribed_is_woken_once_and_in_order(acts: list[tuple[str, str, int]]) -> None:
    wakes, calls = Wakes(), list[int]()
    #: By number: the log, whether it hears of appends, and the call that ends it.
    subscriptions: dict[int, tuple[str, bool, object]] = {}
    ended: list[tuple[str, object]] = []

    def wake_of(number: int) -> Wake:
        return lambda: calls.append(number)

    def take_of(number: int) -> Take | None:
        return (lambda _, __: number % 2 == 0) if number % 3 else None

    for place, (act, log, which) in enumerate(acts):
        here = {n: s for n, s in subscriptions.items() if s[0] == log}
        expected: list[int] = []
        if act in ("begin", "silent"):
            end = wakes.subscribe(log, wake_of(place), appends=act == "begin", take=take_of(place))
            subscriptions[place] = log, act == "begin", end
        elif act == "end" and subscriptions:
            number = sorted(subscriptions)[which % len(subscriptions)]
            of, _, end = subscriptions.pop(number)
            is_last = all(log != of for log, _, _ in subscriptions.values())
            assert end() is is_last  # type: ignore[operator]
            ended.append((of, end))
        elif act == "grow":
            wakes.grown(log)
            expected = [n for n, (_, appends, _) in here.items() if appends]
        elif act == "grow-by":
            wakes.grown_by(log, 1, b"")
            takes = {n: take_of(n) for n, (_, appends, _) in here.items() if appends}
            expected = [n for n, take in takes.items() if take is None or not take(1, b"")]
        elif act == "elsewhere":
            wakes.grown_elsewhere(log)
            expected = [n for n, (_, appends, _) in here.items() if not appends]
        elif act == "wake":
            wakes.wake(log)
            expected = list(here)
        assert calls == expected
        calls.clear()
        for _, end in ended:  # a second end is none
            assert end() is False  # type: ignore[operator]
        assert set(wakes.logs()) == {log for log, _, _ in subscriptions.values()}
        assert len(wakes.growth(log)) == sum(
            appends for of, appends, _ in subscriptions.values() if of == log
        )


def test_one_that_ends_others_within_a_call_disturbs_nobody() -> None:
    wakes, calls = Wakes(), list[str]()

    def first() -> None:
        calls.append("first")
        ends["first"]()
        ends["third"]()

    ends = {"first": wakes.subscribe("log", first)}
    for name in ("second", "third"):
        ends[name] = wakes.subscribe("log", lambda name=name: calls.append(name))
    wakes.grown("log")
    assert calls == ["first", "second", "third"]
    wakes.grown("log")
    assert calls == ["first", "second", "third", "second"]


def test_a_tail_is_kept_until_the_last_subscription_ends() -> None:
    tails = Tails()
    one, other = (tails.subscribe("log", lambda: None) for _ in range(2))
    tails.accepted("log", [b"record"], 1, None)
    assert one() is False
    assert tails.page("log", 0, 10, 1000) is not None
    assert other() is True
    assert tails.page("log", 0, 10, 1000) is None


def test_who_is_told_of_ends_hears_which_was_the_last_of_its_log() -> None:
    wakes, heard = Tails(), list[tuple[str, bool]]()
    wakes.ended = lambda log, is_last: heard.append((log, is_last))
    ends = [wakes.subscribe(log, lambda: None) for log in ("a", "b", "a")]
    for end in (*ends, ends[0]):
        end()
    assert heard == [("a", False), ("b", True), ("a", True), ("a", False)]


def test_sqlite_is_looked_at_for_as_long_as_somebody_waits(tmp_path: Path) -> None:
    async def main() -> None:
        store = SQLiteStore(tmp_path / "logs.db")
        await store.start()
        ends = [store.subscribe(log, lambda: None) for log in ("a", "a", "b")]
        polls: list[bool] = []
        assert store._reads is not None
        store._reads.set_polling = polls.append  # type: ignore[method-assign]
        for end in ends:
            end()
        assert polls == [False]
        await store.close()

    asyncio.run(main())


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=60),
    st.integers(0, 30),
    st.sets(st.integers(0, 5)),
)
def test_logs_are_found_by_their_hashes(
    acts: list[tuple[bool, int]], first_look: int, hashes: set[int]
) -> None:
    """Two names may have one hash, and the first look may come at any time."""
    wakes, ends = Wakes(), list[tuple[str, Callable[[], bool]]]()

    def hash_of(log: str) -> int:
        return int(log) % 4

    for number, (begins, name) in enumerate(acts):
        if begins or not ends:
            log = str(name)
            ends.append((log, wakes.subscribe(log, lambda: None, appends=name % 2 == 0)))
        else:
            _, end = ends.pop(name % len(ends))
            end()
            end()  # once more is nothing
        if number >= first_look:
            expected = {log for log, _ in ends if hash_of(log) in hashes}
            found = wakes.logs_of(hashes, hash_of)
            assert set(found) == expected
            assert len(found) == len(expected)
    for _, end in ends:
        end()
    assert wakes.logs_of(hashes, hash_of) == []
    assert not wakes._named, "nothing is kept of what nobody waits for"
