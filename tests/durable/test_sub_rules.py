"""The rules of subscriptions: globs, configurations, and who may ack what."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenwire.durable.subscriptions import rules
from tokenwire.durable.subscriptions.config import Config, Problem, matches, parse_config
from tokenwire.durable.subscriptions.rules import Subscription
from tokenwire.wire.durable import offset_text

# --- globs -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "path", "wanted"),
    [
        ("events/*", "events/a", True),
        ("events/*", "events", False),
        ("events/*", "events/a/b", False),
        ("events/*", "other/a", False),
        ("events/**", "events", True),
        ("events/**", "events/a/b", True),
        ("**", "a/b/c", True),
        ("**/log", "log", True),
        ("**/log", "a/b/log", True),
        ("**/log", "a/b/log/c", False),
        ("a/**/b/**/c", "a/b/c", True),
        ("a/**/b/**/c", "a/x/y/b/z/c", True),
        ("a/**/b/**/c", "a/x/y/c", False),
        ("user-*/in*x", "user-7/inbox", True),
        ("user-*/in*x", "user-7/inbo", False),
        ("a*b*c", "abbc", True),
        ("*", "a.b+c", True),
        ("a.c", "abc", False),
        ("[ab]", "a", False),
        ("a?c", "abc", False),
    ],
)
def test_a_glob_matches_by_segments(pattern: str, path: str, wanted: bool) -> None:
    assert matches(pattern, path) is wanted


def as_regex(pattern: str) -> re.Pattern[str]:
    """The same, said another way."""
    parts = ""
    for segment in pattern.split("/"):
        if segment == "**":
            parts += "(?:/[^/]*)*"
        else:
            parts += "/" + "".join("[^/]*" if c == "*" else re.escape(c) for c in segment)
    return re.compile(parts)


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.sampled_from(["**", "*", "a", "a*", "*b", "a*b*", "c"]), min_size=1, max_size=5),
    st.lists(st.sampled_from(["a", "b", "ab", "aab", "c", "abcb"]), min_size=1, max_size=6),
)
def test_a_glob_is_what_it_says(pattern: list[str], path: list[str]) -> None:
    wanted = as_regex("/".join(pattern)).fullmatch("/" + "/".join(path)) is not None
    assert matches("/".join(pattern), "/".join(path)) is wanted


def test_a_glob_of_nothing_but_stars_takes_no_time_to_fail() -> None:
    assert not matches("*a" * 500, "a" * 499)
    assert not matches("/".join(["**", "a"] * 200), "/".join(["a"] * 199))


# --- configurations ----------------------------------------------------------------------------

PULL = {"type": "pull-wake", "pattern": "events/*", "wake_stream": "wake"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"type": "push"}, "'type'"),
        ({"pattern": None}, "'pattern' or 'streams'"),
        ({"pattern": 7}, "'pattern'"),
        ({"pattern": "a\nb"}, "'pattern'"),
        ({"pattern": "x" * 2000}, "'pattern'"),
        ({"pattern": "__ds/x"}, "'pattern'"),
        ({"streams": "a"}, "'streams'"),
        ({"streams": [1]}, "'streams'"),
        ({"streams": ["runs/x"]}, "'streams'"),
        ({"streams": ["wake"]}, "'wake_stream'"),
        ({"streams": ["a"] * 10_001}, "'streams'"),
        ({"wake_stream": None}, "'wake_stream'"),
        ({"wake_stream": "__ds/x"}, "'wake_stream'"),
        ({"lease_ttl_ms": 999}, "'lease_ttl_ms'"),
        ({"lease_ttl_ms": 600_001}, "'lease_ttl_ms'"),
        ({"lease_ttl_ms": 1000.5}, "'lease_ttl_ms'"),
        ({"lease_ttl_ms": True}, "'lease_ttl_ms'"),
        ({"description": 5}, "'description'"),
        ({"filter": {"language": "cel"}}, "'filter'"),
        ({"type": "webhook"}, "'webhook.url'"),
        ({"type": "webhook", "webhook": {"url": ""}}, "'webhook.url'"),
        ({"type": "webhook", "webhook": "https://x.example"}, "'webhook.url'"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(change: dict[str, Any], said: str) -> None:
    with pytest.raises(Problem) as caught:
        parse_config({**PULL, **change})
    assert (caught.value.http_status, caught.value.code) == (400, "INVALID_REQUEST")
    assert said in caught.value.message


def test_the_same_configuration_is_the_same_in_any_order() -> None:
    one = parse_config({**PULL, "streams": ["/b/", "a", "a"]})
    other = parse_config({**PULL, "streams": ["a", "b"], "lease_ttl_ms": 30_000})
    assert one.digest == other.digest
    assert one.digest != parse_config({**PULL, "streams": ["a"]}).digest
    assert one.digest != parse_config({**PULL, "streams": ["a", "b"], "description": ""}).digest


# --- wakes -------------------------------------------------------------------------------------


def made(kind: str = "pull-wake") -> Subscription:
    config = Config(
        type="webhook" if kind == "webhook" else "pull-wake",
        pattern="s/*",
        url="https://worker.example/" if kind == "webhook" else None,
        wake_stream="wake" if kind != "webhook" else None,
        lease_ms=10_000,
    )
    return Subscription(
        id="sub", owner="me", config=config, birth="b", created=0.0, base="http://h/root"
    )


def woken(known: Subscription, seen: dict[str, Any], now: float) -> None:
    """An append was seen, and the wake that it made was told."""
    for path, stream in seen.items():
        rules.add_link(known, path, None, explicit=False)
        rules.mark(known, path, stream)
    assert rules.begin_wake(known, seen, now)
    assert rules.begin_delivery(known, seen, now, 40.0)
    assert known.wake is not None
    rules.record_delivery(known, known.wake.id, now)


def body_of(known: Subscription, **more: Any) -> dict[str, Any]:
    assert known.wake is not None
    return {"generation": known.generation, "wake_id": known.wake.id, **more}


def test_a_lease_that_is_not_kept_up_ends_and_fences_its_worker() -> None:
    known, seen = made(), {"s/a": ("1", 10)}
    woken(known, seen, 0.0)
    rules.claim(known, "w1", 1.0)
    first = body_of(known)
    with pytest.raises(Problem) as busy:
        rules.claim(known, "w2", 1.0)
    assert (busy.value.code, busy.value.more["current_holder"]) == ("ALREADY_CLAIMED", "w1")
    assert rules.next_due(known) == 11.0
    rules.acknowledge(known, {}, {}, 8.0)  # a sign of life
    assert not rules.expire(known, 17.9)
    assert rules.expire(known, 18.0)
    assert rules.begin_wake(known, seen, 18.0)
    assert known.generation == 2
    with pytest.raises(Problem) as fenced:
        rules.fence(known, 1, first)
    assert fenced.value.code == "FENCED"
    with pytest.raises(Problem):
        rules.fence(known, 1, body_of(known))  # this wake, but the token of the one before
    with pytest.raises(Problem):
        rules.fence(known, 2, {**body_of(known), "wake_id": first["wake_id"]})
    rules.fence(known, 2, body_of(known))


def test_cursors_go_forward_within_their_stream_all_or_none() -> None:
    known, seen = made(), {"s/a": ("1", 30), "s/b": ("2", 30)}
    woken(known, seen, 0.0)
    rules.acknowledge(known, {"s/a": 20}, seen, 0.0)
    for acks in ({"s/a": 19}, {"s/a": 31}, {"s/c": 1}, {"s/b": 30, "s/a": 19}):
        with pytest.raises(Problem) as caught:
            rules.acknowledge(known, acks, {**seen, "s/c": None}, 0.0)
        assert caught.value.code == "INVALID_OFFSET"
    assert (known.links["s/a"].acked, known.links["s/b"].acked) == (20, 0)
    rules.acknowledge(known, {"s/a": 20, "s/b": 30}, seen, 0.0)
    assert list(known.pending) == ["s/a"]
    # The same path, but a stream that was made anew: its own beginning counts.
    again = {"s/b": ("3", 10)}
    rules.mark(known, "s/b", again["s/b"])
    assert list(known.pending) == ["s/a", "s/b"]
    rules.acknowledge(known, {"s/b": 10}, again, 0.0)
    assert known.links["s/b"].acked == 10


def test_deleted_streams_are_not_waited_for() -> None:
    known = made()
    rules.add_link(known, "s/a", None, explicit=False)
    rules.add_link(known, "named", ("2", 5), explicit=True)
    rules.mark(known, "s/a", ("1", 10))
    rules.mark(known, "named", ("2", 10))
    rules.mark(known, "s/a", None)
    rules.mark(known, "named", None)
    assert list(known.links) == ["named"]
    assert not rules.begin_wake(known, {}, 0.0)
    rules.mark(known, "named", ("9", 1))
    assert list(known.pending) == ["named"], "from its beginning, when it comes again"


def test_a_webhook_is_called_ever_more_rarely_and_not_for_ever() -> None:
    known, seen = made("webhook"), {"s/a": ("1", 10)}
    rules.add_link(known, "s/a", None, explicit=False)
    rules.mark(known, "s/a", seen["s/a"])
    now, waits = 0.0, []
    rules.begin_wake(known, seen, now)
    while known.wake is not None:
        due = rules.next_due(known)
        assert due is not None
        waits.append(due - now)
        now = due
        assert rules.begin_delivery(known, seen, now, 40.0)
        assert not rules.begin_delivery(known, seen, now, 40.0), "one at a time"
        rules.attempt_failed(known, known.wake.id, "the webhook answered 500", now)
    assert len(waits) == rules.MOST_ATTEMPTS
    assert 0.8 <= waits[1] <= 1.2
    assert all(48 <= wait <= 72 for wait in waits[8:])
    assert rules.next_due(known) is None
    assert not rules.begin_wake(known, seen, now)
    assert rules.serialize(known, None)["status"] == "failed"
    rules.wake_up(known)  # an append
    assert rules.begin_wake(known, seen, now)
    assert rules.next_due(known) == now


def test_a_webhook_that_answers_but_never_acks_counts_as_failing() -> None:
    known, seen = made("webhook"), {"s/a": ("1", 10)}
    woken(known, seen, 0.0)
    assert rules.next_due(known) == 10.0
    assert rules.expire(known, 10.0)
    assert rules.begin_wake(known, seen, 10.0)
    due = rules.next_due(known)
    assert due is not None
    assert 10.8 <= due <= 11.2
    assert rules.serialize(known, None)["status"] == "failed"
    rules.acknowledge(known, {"s/a": 10}, seen, 11.0)
    assert (known.failures, rules.serialize(known, None)["status"]) == (0, "active")


def test_a_wake_that_nobody_claims_is_told_again() -> None:
    known, seen = made(), {"s/a": ("1", 10)}
    woken(known, seen, 0.0)
    waits, now = [], 0.0
    for _ in range(9):
        due = rules.next_due(known)
        assert due is not None
        waits.append(due - now)
        now = due
        assert rules.begin_delivery(known, seen, now, 40.0)
        assert known.wake is not None
        rules.record_delivery(known, known.wake.id, now)
    assert waits[:3] == [60.0, 120.0, 240.0]
    assert waits[-1] == 3600.0
    assert known.generation == 1
    rules.claim(known, "late", now)
    assert rules.next_due(known) == now + 10.0


def test_what_a_wake_lists() -> None:
    known = made()
    rules.add_link(known, "named", ("2", 5), explicit=True)
    woken(known, {"s/a": ("1", 10)}, 0.0)
    infos = {info["path"]: info for info in rules.stream_infos(known)}
    assert infos["s/a"] == {
        "path": "s/a",
        "link_type": "glob",
        "acked_offset": offset_text(0),
        "tail_offset": offset_text(10),
        "has_pending": True,
    }
    assert infos["named"]["has_pending"] is False
    assert infos["named"]["link_type"] == "explicit"


# --- any order of things -----------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "append",
                "append",
                "remake",
                "delete",
                "tend",
                "claim",
                "ack",
                "done",
                "release",
                "stale",
            ]
        ),
        st.sampled_from(["s/a", "s/b"]),
        st.integers(0, 12),
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(STEPS, st.sampled_from(["pull-wake", "webhook"]))
def test_nothing_is_lost_and_nobody_acks_for_another(
    steps: list[tuple[str, str, int]], kind: str
) -> None:
    known, now, births = made(kind), 0.0, 0
    streams: dict[str, Any] = {}
    tokens: list[tuple[int, dict[str, Any]]] = []
    generation = 0
    for step, path, number in steps:
        now += number
        held = known.wake
        cursors = {p: (k.stream, k.acked) for p, k in known.links.items()}
        rules.expire(known, now)
        if step == "append":
            if path not in streams:
                births += 1
            stream, tail = streams.get(path, (str(births), 0))
            streams[path] = (stream, tail + 6)
            if path not in known.links:
                rules.add_link(known, path, None, explicit=False)
            rules.mark(known, path, streams[path])
            rules.wake_up(known)
        elif step == "remake":
            births += 1
            streams[path] = (str(births), 6)
            if path not in known.links:
                rules.add_link(known, path, None, explicit=False)
            rules.mark(known, path, streams[path])
        elif step == "delete":
            streams.pop(path, None)
        elif step == "stale" and tokens:
            old, body = tokens[number % len(tokens)]
            if known.wake is None or old != known.generation:
                with pytest.raises(Problem):
                    rules.fence(known, old, body)
        elif known.wake is not None and step in ("claim", "ack", "done", "release"):
            if step == "claim" and known.wake.holder is None:
                rules.claim(known, "w", now)
            if step in ("ack", "done"):
                acks = {p: s[1] for p, s in streams.items() if p in known.links}
                rules.acknowledge(known, acks, streams, now)
            if step in ("done", "release"):
                known.wake = None
        seen = {p: streams.get(p) for p in known.pending}
        rules.begin_wake(known, seen, now)
        if rules.begin_delivery(known, seen, now, 5.0) and known.wake is not None:
            if number % 3:
                rules.record_delivery(known, known.wake.id, now)
            else:
                rules.attempt_failed(known, known.wake.id, "no", now)
        assert known.generation >= generation
        generation = known.generation
        if known.wake is not None and known.wake is not held:
            tokens.append((known.generation, body_of(known)))
        for p, (stream, acked) in cursors.items():
            link = known.links.get(p)
            if link is not None and link.stream == stream:
                assert link.acked >= acked, "a cursor never goes back"
        for p, stream in streams.items():
            link = known.links.get(p)
            if link is not None and stream[1] > link.cursor(stream):
                assert p in known.pending, "what is behind a cursor is pending"
        if known.pending and not known.resting:
            assert known.wake is not None, "and somebody is woken for it"
            assert rules.next_due(known) is not None
