"""The bookkeeping of parts, and the lenient reading of other people's JSON."""

from __future__ import annotations

import pytest

from support.order import in_order
from tokenwire.events.model import Error, Finish, TextStart, ToolCallEnd, ToolCallStart
from tokenwire.providers.decoding.parts import Parts
from tokenwire.providers.decoding.values import load, number, parse_arguments


def ended(text: str, status: str = "complete", **fields: object) -> ToolCallEnd:
    parts = Parts()
    part = parts.open(ToolCallStart, name="f", call_id="c", **fields)
    part.delta(text)
    part.end(status)  # type: ignore[arg-type]
    event = parts.take()[-1]
    assert isinstance(event, ToolCallEnd)
    return event


@pytest.mark.parametrize(
    ("text", "status", "arguments"),
    [
        ('{"a":1}', "complete", {"a": 1}),
        ("", "complete", {}),
        ("null", "complete", {}),
        ('{"a":', "invalid", None),
        ("[1]", "invalid", None),
        ('"x"', "invalid", None),
        ("[" * 5000, "invalid", None),
    ],
)
def test_only_an_object_is_a_call(text: str, status: str, arguments: object) -> None:
    end = ended(text)
    assert (end.status, end.arguments) == (status, arguments)
    assert (end.error is None) is (status == "complete")


def test_free_text_is_no_json() -> None:
    assert ended("SELECT 1", format="text").arguments == "SELECT 1"
    assert ended('{"a":1}', "truncated").arguments is None


def test_parts_are_numbered_sized_and_ended_once() -> None:
    parts = Parts(step=1, first_part=4)
    first, second = parts.open(TextStart), parts.open(TextStart, choice=1)
    first.delta("ä")
    first.delta("")
    first.end()
    first.end()
    first.delta("late")
    first.attr("signature", "late")
    second.delta("b")
    parts.end_step(terminal_seen=False, reason=None, error=None, failed=False)
    events = parts.take()
    assert [e.type for e in events] == [
        *("text-start", "text-start", "text-delta", "text-end"),
        *("text-delta", "text-end", "step-end"),
    ]
    assert (events[3].part, events[3].size, events[3].status) == (4, 2, "complete")
    assert events[5].status == "truncated"
    assert events[6].status == "incomplete"
    in_order(events)


def test_an_error_after_output_says_so() -> None:
    parts = Parts()
    parts.open(TextStart)
    error = Error(scope="transport", code="network", message="x")
    parts.end_step(terminal_seen=False, reason=None, error=error, failed=False)
    events = parts.take()
    assert events[-2].after_output
    assert events[-1].status == "error"


def test_a_finish_is_told_once() -> None:
    parts = Parts()
    for reason in ("stop", "stop", "length"):
        parts.finish(Finish(reason=reason, raw=reason))
    parts.finish(Finish(reason="stop"))
    assert [e.reason for e in parts.take()] == ["stop", "length", "stop"]


def test_json_is_read_leniently_and_fails_in_one_way() -> None:
    assert load(b'"\\ud83d"') == "\ufffd"
    assert load(b'"a\x01b"') == "a\x01b"
    assert load(b'"\xff"') == "\ufffd"
    assert load(b'"\\ud83d\\ude00"') == "\U0001f600"
    assert load(b"[NaN, -Infinity, 1e999, 1.5]") == [None, None, None, 1.5]
    for bad in (b"", b"{", b"nan", b"1e", b"[" * 100_000, b"[" * 500 + b"]" * 500):
        with pytest.raises(ValueError):  # noqa: PT011 - any words, one class
            load(bad)


def test_numbers_are_counts() -> None:
    assert [number(v) for v in (3, 3.9, True, None, "3", 10**30)] == [3, 3, None, None, None, None]


def test_arguments_say_what_is_wrong() -> None:
    assert "JSON" in (parse_arguments("{")[1] or "")
    assert "object" in (parse_arguments("3")[1] or "")
