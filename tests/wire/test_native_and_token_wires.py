"""The native wire and the plain token wire: resumed at any cursor, they say the same once."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.event_strategies import runs
from tokenwire.events import model as m
from tokenwire.events.codec import decode, encode
from tokenwire.framing.sse import Frame, SSEDecoder
from tokenwire.wire.native import NativeEncoder
from tokenwire.wire.token_sse import TokenEncoder

RUN = "run-1234567890abcdef"
relaxed = settings(max_examples=150, suppress_health_check=list(HealthCheck), derandomize=True)


def cursor_of(event: m.Event) -> str:
    return f"{event.seq}-{event.seq:016x}"


def frames_of(data: bytes) -> list[Frame]:
    decoder = SSEDecoder()
    return decoder.feed(data) + decoder.finish()


@relaxed
@given(events=runs())
def test_native_frames_are_the_events(events: list[m.Event]) -> None:
    encoder = NativeEncoder()
    data = b"".join(encoder.encode(e, cursor_of(e)) for e in events) + encoder.finish()
    frames = frames_of(data)
    assert [decode(f.data) for f in frames] == events
    assert [f.id for f in frames] == [cursor_of(e) for e in events]
    assert {f.event for f in frames} == {"message"}
    assert b"\r" not in data
    raw = b"".join(encoder.encode_json(encode(e), cursor_of(e).encode()) for e in events)
    assert raw == data


def test_what_is_told_beside_the_log_moves_no_cursor() -> None:
    encoder = NativeEncoder()
    told = encoder.farewell(m.Reconnect(reason="drain"))
    decoder = SSEDecoder()
    decoder.feed(encoder.encode(m.TextDelta(part=0, text="x", seq=5), "5-aa"))
    (frame,) = decoder.feed(told)
    assert json.loads(frame.data) == {"type": "reconnect", "reason": "drain"}
    assert decoder.last_event_id == "5-aa"
    assert decoder.feed(encoder.heartbeat()) == []


def tokens(events: list[m.Event], after: int = 0) -> list[Frame]:
    encoder = TokenEncoder(RUN)
    for event in events[:after]:
        encoder.skip(event)
    pieces = [encoder.encode(e, cursor_of(e)) for e in events[after:]]
    return frames_of(encoder.reopen() + b"".join(pieces) + encoder.finish())


@relaxed
@given(data=st.data(), events=runs())
def test_tokens_resume_at_every_event(data: Any, events: list[m.Event]) -> None:
    whole = tokens(events)
    assert [f.event for f in whole if f.event != "token"][:1] in (["done"], ["error"])
    assert whole[-1].event in ("done", "error")
    assert sum(f.event != "token" for f in whole) == 1
    cut = data.draw(st.integers(0, len(events)))
    seen = [f for f in whole if int(f.id.partition(":")[2].partition("-")[0]) <= cut]
    assert seen + tokens(events, cut) == whole


def lines_joined(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


@relaxed
@given(events=runs())
def test_tokens_join_to_the_text_unless_a_restart_differs(events: list[m.Event]) -> None:
    frames = tokens(events)
    shown = [lines_joined(f.text) for f in frames if f.event == "token"]
    restarted = any(isinstance(e, m.StepReset) for e in events)
    if not restarted:
        subagents = {
            e.part for e in events if isinstance(e, m.PartStart) and e.agent and e.agent.parent
        }
        said = [
            e.text
            for e in events
            if isinstance(e, m.TextDelta | m.RefusalDelta) and e.part not in subagents
        ]
        assert shown == [lines_joined(text) for text in said]
    if frames[-1].event == "error" and b"restarted" in frames[-1].data:
        assert restarted


def story(*events: m.Event) -> list[m.Event]:
    for seq, event in enumerate(events, 1):
        event.seq = seq
    return list(events)


def text(value: str) -> m.TextDelta:
    return m.TextDelta(part=0, text=value)


def test_a_restart_that_says_the_same_shows_it_once() -> None:
    events = story(
        m.StepStart(step=1),
        text("Hel"),
        text("lo wor"),
        m.StepReset(step=1, attempt=2),
        m.StepStart(step=1, attempt=2),
        text("Hello"),
        text(" world"),
        m.StepReset(step=1, attempt=3),
        text("Hello world"),
        text("!"),
        m.Finish(reason="stop"),
        m.RunEnd(outcome="complete"),
    )
    frames = tokens(events)
    assert [f.text for f in frames] == ["Hel", "lo wor", "ld", "!", ""]
    for cut in range(len(events) + 1):
        seen = [f for f in frames if int(f.id.partition(":")[2].partition("-")[0]) <= cut]
        assert seen + tokens(events, cut) == frames


def test_a_restart_that_differs_ends_in_an_error_and_shows_nothing_twice() -> None:
    events = story(
        m.StepStart(step=1),
        text("Hello"),
        m.StepReset(step=1, attempt=2),
        text("Hi"),
        text(" there"),
        m.RunEnd(outcome="complete"),
    )
    frames = tokens(events)
    assert [f.event for f in frames] == ["token", "error"]
    assert json.loads(frames[-1].data)["code"] == "restarted"


def test_a_restart_that_stops_short_is_no_whole_answer() -> None:
    events = story(
        m.StepStart(step=1), text("Hello"), m.StepReset(step=1, attempt=2), text("Hel"),
        m.RunEnd(outcome="complete"),
    )  # fmt: skip
    assert tokens(events)[-1].event == "error"


@pytest.mark.parametrize(
    ("events", "name", "data"),
    [
        ([m.Finish(reason="stop"), m.RunEnd(outcome="complete")], "done", ""),
        (
            [m.Finish(reason="length"), m.RunEnd(outcome="incomplete")],
            "done",
            '{"finish_reason":"length"}',
        ),
        (
            [m.Finish(reason="content_filter"), m.RunEnd(outcome="incomplete")],
            "done",
            '{"finish_reason":"content_filter"}',
        ),
        ([m.RunEnd(outcome="cancelled")], "done", '{"finish_reason":"cancelled"}'),
        ([m.RunEnd(outcome="incomplete", reason="truncated")], "error", "truncated"),
        ([m.RunEnd(outcome="interrupted")], "error", "interrupted"),
        (
            [
                m.Error(scope="provider", code="overloaded", message="try later"),
                m.RunEnd(outcome="error"),
            ],
            "error",
            "try later",
        ),
    ],
)
def test_how_each_end_is_said(events: list[m.Event], name: str, data: str) -> None:
    frames = tokens(story(*events))
    assert [f.event for f in frames] == [name]
    assert frames[0].text == data if name == "done" else data in frames[0].text


def test_a_cursor_or_run_with_a_line_end_is_refused() -> None:
    with pytest.raises(ValueError, match="line break"):
        TokenEncoder("x\nevent: done").encode(text("a"), "1")
