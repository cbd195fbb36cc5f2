"""How the events of a reader that came back differ from those of one that stayed, in words.

Always true: equal events have no difference, and any others have one.
"""

from __future__ import annotations

import json
from typing import Any

from tokenwire.framing.sse import Frame

__all__ = ["difference", "ending_of", "is_end", "short", "without_names"]

_NAMES = frozenset({"done", "end", "error", "run-end"})
_TYPES = frozenset(
    "run-end finish abort error RUN_FINISHED RUN_ERROR message_stop response.completed"
    " response.incomplete response.failed".split()
)
_PART_NAMES = frozenset({"id", "messageId", "parentMessageId", "runId"})
#: The fields of an end that say how it ended; others hold times and ids.
_FIELDS = ("type", "outcome", "reason", "code", "finish_reason", "finishReason")


def difference(events: list[Frame], number: int, rest: list[Frame]) -> str:
    """What is wrong with ``rest``, which should be ``events`` after the first ``number``; empty for
    nothing."""
    expected = events[number:]
    for place, (event, other) in enumerate(zip(expected, rest, strict=False), number + 1):
        if event != other:
            return (
                f"event {place} of {len(events)} is {_kind(events, place - 1, other)}\n"
                f"  expected {short(event)}\n  received {short(other)}"
            )
    if len(rest) < len(expected):
        place = number + len(rest)
        return (
            f"the stream ended after event {place} of {len(events)}; lost, first: "
            f"{short(events[place])}"
        )
    if len(rest) > len(expected):
        extra = rest[len(expected)]
        kind = "come twice" if extra in events else "are not of this run"
        return f"{len(rest) - len(expected)} events too many, which {kind}, first: {short(extra)}"
    return ""


def _kind(events: list[Frame], place: int, event: Frame) -> str:
    if event in events[:place]:
        return f"a repetition of event {events.index(event) + 1}"
    if event in events[place:]:
        last = place + events[place:].index(event)
        gap = f"event {place + 1} is" if last == place + 1 else f"events {place + 1} to {last} are"
        return f"event {last + 1} in its place: {gap} lost"
    if (event.event, event.data) == (events[place].event, events[place].data):
        return "the same with another id"
    return "another one: the end of another stream, or one made anew"


def is_end(name: str, data: str) -> bool:
    """Whether this is the last event of a stream, in one of tokenwire's wires."""
    if name in _NAMES or data == "[DONE]":
        return True
    value = _object(data)
    if "seq" in value:
        return value.get("type") == "run-end"  # its own wire has a finish and errors before that
    return value.get("type") in _TYPES


def ending_of(event: Frame) -> tuple[Any, ...]:
    """How a stream ended, without what differs between two runs that ended alike."""
    value = _object(event.text)
    inner = [value.get("error"), value.get("reason")]
    return (
        event.event,
        "" if value else event.text,
        *(value.get(name) for name in _FIELDS),
        *(each.get("code") for each in inner if isinstance(each, dict)),
    )


def _object(data: str) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def without_names(event: Frame) -> Frame:
    """An event without the names of its parts, which a wire that opens them again may change."""
    value = _object(event.text)
    if not value.keys() & _PART_NAMES:
        return event
    fields = {name: each for name, each in value.items() if name not in _PART_NAMES}
    return Frame(json.dumps(fields).encode(), event.event, event.id)


def short(event: Frame) -> str:
    """An event in one line."""
    text = event.text if len(event.text) <= 160 else f"{event.text[:160]}..."
    name = "" if event.event == "message" else f"{event.event} "
    return f"{name}{text!r} (id {event.id or 'none'})"
