"""What an encoder must keep, checked on runs made for it: for authors of wires, and at the start.

Always true: the runs hold text, reasoning, a tool's call and result, a step that starts again, and
every outcome; each check names the run, the event and what differs. Pure: no clock, no socket.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tokenwire.events.codec import AnyEvent, from_fields
from tokenwire.events.model import PartEnd, Reconnect
from tokenwire.framing.sse import SSEDecoder
from tokenwire.wire.base import Encoder
from tokenwire.wire.own import OwnEncoder

__all__ = ["RUNS", "faults", "first_fault"]

_OPEN: list[dict[str, Any]] = [
    {"type": "run-start", "run": "r" * 22, "time": 1, "model": "demo"},
    {"type": "step-start", "step": 1, "provider": "demo", "model": "demo"},
    {"type": "reasoning-start", "part": 0, "step": 1},
    {"type": "reasoning-delta", "part": 0, "text": "Let me see."},
    {"type": "reasoning-end", "part": 0, "size": 11},
    {"type": "text-start", "part": 1, "step": 1},
    {"type": "text-delta", "part": 1, "text": "Grüße,\n\ndata: 🙂"},
    {"type": "text-delta", "part": 1, "text": "\r\nid: 7"},
]
_CALL: list[dict[str, Any]] = [
    {"type": "text-end", "part": 1, "size": 20},
    {"type": "tool-call-start", "part": 2, "step": 1, "call_id": "c1", "name": "clock"},
    {"type": "tool-call-delta", "part": 2, "text": "{}"},
    {"type": "tool-call-end", "part": 2, "size": 2, "arguments": {}},
    {"type": "finish", "reason": "tool_calls"},
    {"type": "usage", "input_tokens": 3, "output_tokens": 5},
    {"type": "step-end", "step": 1, "status": "complete", "terminal_seen": True},
    {"type": "tool-start", "call_id": "c1", "name": "clock"},
    {"type": "tool-result", "call_id": "c1", "content": {"time": "12:00"}},
    {"type": "step-start", "step": 2, "provider": "demo", "model": "demo"},
    {"type": "text-start", "part": 3, "step": 2},
    {"type": "text-delta", "part": 3, "text": "Noon"},
    {"type": "text-delta", "part": 3, "text": "."},
]
_RESET: list[dict[str, Any]] = [
    {"type": "step-reset", "step": 1, "attempt": 2, "discard_parts": [0, 1]},
    {"type": "step-start", "step": 1, "attempt": 2, "provider": "demo", "model": "demo"},
    {"type": "text-start", "part": 2, "step": 1},
    {"type": "text-delta", "part": 2, "text": "Again."},
]


def _ended(
    events: list[dict[str, Any]], part: int, step: int, outcome: str, *last: dict[str, Any]
) -> list[dict[str, Any]]:
    is_cut = outcome in ("error", "interrupted", "cancelled")
    status = "error" if outcome == "interrupted" else outcome
    text = {"type": "text-end", "part": part, "size": 5}
    return [
        *events,
        {**text, "status": "truncated"} if is_cut else text,
        *last,
        {"type": "step-end", "step": step, "status": status, "terminal_seen": not is_cut},
        {"type": "run-end", "outcome": outcome},
    ]


_USAGE = {"type": "usage", "input_tokens": 3, "output_tokens": 5}
_ERROR = {"type": "error", "scope": "provider", "code": "provider_error", "message": "tired"}
_CANCEL = {"type": "control", "command": "cancel"}


def _finish(reason: str) -> dict[str, Any]:
    return {"type": "finish", "reason": reason}


#: Runs by their name; the first five are alike but for how they end.
_FIELDS: dict[str, list[dict[str, Any]]] = {
    "complete": _ended(_OPEN, 1, 1, "complete", _finish("stop"), _USAGE),
    "incomplete": _ended(_OPEN, 1, 1, "incomplete", _finish("length"), _USAGE),
    "cancelled": _ended([*_OPEN, _CANCEL], 1, 1, "cancelled"),
    "error": _ended(_OPEN, 1, 1, "error", _ERROR),
    "interrupted": _ended(_OPEN, 1, 1, "interrupted"),
    "tools": _ended([*_OPEN, *_CALL], 3, 2, "complete", _finish("stop"), _USAGE),
    "restarted": _ended([*_OPEN, *_RESET], 2, 1, "complete", _finish("stop"), _USAGE),
}


def _run(fields: list[dict[str, Any]]) -> list[tuple[str, AnyEvent]]:
    """Events with their cursors."""
    return [
        (f"{seq}-{seq:016x}", from_fields({**event, "seq": seq, "t": seq}))
        for seq, event in enumerate(fields, 1)
    ]


#: The runs, as ``(cursor, event)``.
RUNS: dict[str, list[tuple[str, AnyEvent]]] = {name: _run(f) for name, f in _FIELDS.items()}

Make = Callable[[], Encoder]


def first_fault(make: Make, name: str) -> str | None:
    """Whether the encoder gets through every run, with bytes: what fails at first, or None."""
    return next(_broken(make, name), None)


def faults(make: Make) -> list[str]:
    """Everything that is wrong with the encoders that ``make`` gives; empty for none."""
    failures = list(_broken(make, "own"))
    if failures:
        return failures
    return [*_unequal(make), *_badly_resumed(make), *_cut_anywhere(make), *_unsaid(make)]


def _broken(make: Make, name: str) -> Iterator[str]:
    for run, events in RUNS.items():
        encoder = OwnEncoder(make(), name)
        for cursor, event in events:
            encoder.encode(event, cursor)
            if encoder.failure is not None:
                yield f"{run}: encode() of event {cursor}: {_said(encoder.failure)}"
                break
        else:
            yield from _broken_rest(encoder, run)
        skipper = OwnEncoder(make(), name)
        for _, event in events:
            skipper.skip(event)
        if skipper.failure is None:
            skipper.reopen()
        if skipper.failure is not None:
            yield f"{run}: skip() and reopen(): {_said(skipper.failure)}"


def _broken_rest(encoder: OwnEncoder, run: str) -> Iterator[str]:
    encoder.heartbeat()
    encoder.farewell(Reconnect(after_ms=1000, reason="max_age"))
    if encoder.failure is None:
        encoder._bytes("finish")
    if encoder.failure is not None:
        yield f"{run}: {_said(encoder.failure)}"


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:200]}"


class _Reading:
    """What a reader gets of ``events`` after event ``after``: ``reopening``, then the bytes of each
    event and of the end. A stateless encoder starts at its place."""

    def __init__(self, make: Make, events: list[tuple[str, AnyEvent]], after: int = 0) -> None:
        encoder = make()
        self.reopening = b""
        if after and not encoder.stateless:
            for _, event in events[:after]:
                encoder.skip(event)
            self.reopening = encoder.reopen()
        self.pieces: list[bytes] = []
        #: After how many events the wire ended by itself.
        self.ended_at = len(events)
        for number, (cursor, event) in enumerate(events[after:], after + 1):
            self.pieces.append(encoder.encode(event, cursor))
            if encoder.ended:
                self.ended_at = number
                break
        self.pieces += [b""] * (len(events) - after - len(self.pieces))
        self.pieces.append(encoder.finish())

    @property
    def rest(self) -> bytes:
        """All but what was opened again."""
        return b"".join(self.pieces)


def _unequal(make: Make) -> Iterator[str]:
    for run, events in RUNS.items():
        if _Reading(make, events).pieces != _Reading(make, events).pieces:
            yield f"{run}: two readers get different bytes; an encoder depends on events alone"


def _badly_resumed(make: Make) -> Iterator[str]:
    """Resumed between two events, the rest must be what it was. Where parts are opened again, a
    wire may give them other names."""
    for run, events in RUNS.items():
        whole = _Reading(make, events)
        for after in range(1, whole.ended_at):
            reader = _Reading(make, events, after)
            for number, (here, there) in enumerate(
                zip(reader.pieces, whole.pieces[after:], strict=True), after + 1
            ):
                is_same = bool(here) == bool(there) if reader.reopening else here == there
                if not is_same:
                    yield (
                        f"{run}: resumed after event {after}, a reader gets {here[:60]!r} for "
                        f"event {number} in place of {there[:60]!r}"
                    )
                    break
            else:
                continue
            break


def _cut_anywhere(make: Make) -> Iterator[str]:
    """Cut at any byte, and so behind any whole frame, a reader that comes back with its last id
    must get each frame once."""
    if not make().content_type.startswith("text/event-stream"):
        return
    for run, events in RUNS.items():
        whole = _Reading(make, events)
        frames = _frames(whole.rest)
        places = {cursor: number for number, (cursor, _) in enumerate(events, 1)}
        if not any(_cursor(last) in places for _, _, last in frames):
            yield f"{run}: no frame has an event's cursor as its id, so that nobody can resume"
            continue
        for count in range(len(frames)):
            last = frames[count - 1][2] if count else ""
            after = places.get(_cursor(last), -1) if last else 0
            if not 0 <= after < whole.ended_at:
                continue  # an id of its own inside of an event, or all of it
            reader = _Reading(make, events, after)
            if any(last for _, _, last in _frames(reader.reopening)):
                yield f"{run}: what reopen() sends after event {after} must have no id"
                break
            if len(frames) != count + len(_frames(reader.rest)):
                yield (
                    f"{run}: cut behind frame {count}, a reader resumes after event {after} and "
                    "gets frames twice or never; make one frame of each event"
                )
                break


def _cursor(place: str) -> str:
    """The cursor in an id, which may name its run in front of a colon."""
    return place.rpartition(":")[2]


def _frames(data: bytes) -> list[tuple[str, bytes, str]]:
    """``(event, data, last id)`` of the whole frames."""
    return [(frame.event, frame.data, frame.id) for frame in SSEDecoder().feed(data)]


def _unsaid(make: Make) -> Iterator[str]:
    """Each end is told, and none that is no success looks like one."""
    endings = {run: _ending(make, run) for run in RUNS}
    for run, data in endings.items():
        if not data:
            yield f"{run}: nothing is sent for the end, so that a reader cannot tell it from a cut"
    for run in ("incomplete", "cancelled", "error", "interrupted"):
        if endings[run] == endings["complete"]:
            yield f"{run}: looks the same as a complete answer"
    if make().content_type.startswith("text/event-stream"):
        heartbeat = make().heartbeat()
        if any(last for _, _, last in _frames(heartbeat)):
            yield "heartbeat() sends an id; send a comment, such as b': keep-alive\\n\\n'"


def _ending(make: Make, run: str) -> bytes:
    """What is sent from the end of the run's text on, whatever the ids; all of it, where the wire
    ends before."""
    encoder = make()
    events = [event for _, event in RUNS[run]]
    first = max(n for n, event in enumerate(events) if isinstance(event, PartEnd))
    pieces: list[bytes] = []
    for number, event in enumerate(events):
        data = encoder.encode(event, "1-0")
        if number >= first or encoder.ended:
            pieces.append(data)
        if encoder.ended:
            break
    return b"".join([*pieces, encoder.finish()])
