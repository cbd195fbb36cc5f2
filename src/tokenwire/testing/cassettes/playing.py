"""A recorded response as the simulator plays it: in time, with faults.

Always true: without faults the bytes are the recorded ones, in the recorded pieces, and the end is
the recorded end.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

import msgspec

from tokenwire.simulator.answering import Reply, early_reply
from tokenwire.simulator.faults import FaultPlan, break_bytes, break_chunks
from tokenwire.simulator.play import Chunk as Frame
from tokenwire.simulator.play import Identity
from tokenwire.simulator.playback import Action, Close, Send, Silence
from tokenwire.simulator.script import Fail
from tokenwire.simulator.wires.by_path import CHAT, wire_of
from tokenwire.testing.cassettes.file import Body, Exchange

__all__ = ["keeps_all", "played"]

#: Faults after which the client still has the whole response.
_HARMLESS = frozenset("slow-start comments bom crlf cr no-space no-last-newline split seed".split())
_IN_FRAMES = frozenset(
    "error no-terminal no-finish duplicate reorder garbage comments bom crlf cr no-space"
    " no-last-newline".split()
)
_LAST = {"complete": Close("end"), "cut": Close("fin"), "reset": Close("rst"), "open": Silence()}

_TERMINAL = re.compile(
    rb"^data: ?\[DONE\]|\"type\": ?\"(?:message_stop|response\.(?:completed|incomplete|failed))\""
    rb"|\"done\": ?true",
    re.MULTILINE,
)
_FINISH = re.compile(rb"\"(?:finish_reason|finishReason|stop_reason)\": ?\"")
_BLOCK = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_LINE = re.compile(rb"\n")


def keeps_all(plan: FaultPlan) -> bool:
    """Whether a client still gets all of a response with these faults."""
    return all(fault.kind in _HARMLESS for fault in plan.faults)


def played(exchange: Exchange, speed: float, plan: FaultPlan, count: int, path: str) -> Reply:
    """The reply that plays an exchange. ``speed``: a factor of the recorded one, or infinite;
    ``count`` numbers the requests with this plan from 1."""
    wire = wire_of(path) or CHAT
    slow = plan.get("slow-start")
    wait = 0.0 if slow is None else 5.0 if slow.at is None else slow.at
    reply = early_reply(plan, wire, count)
    if reply is None:
        reply = Reply(
            exchange.status,
            dict(exchange.response_headers),
            _actions(exchange, speed, plan, path),
            _scaled(exchange.wait, speed),
        )
    reply.wait += wait
    reply.actions = break_bytes(plan, reply.actions, plan.draw(0))
    return reply


def _scaled(seconds: float, speed: float) -> float:
    return 0.0 if math.isinf(speed) else max(0.0, seconds) / speed


def _actions(exchange: Exchange, speed: float, plan: FaultPlan, path: str) -> Iterator[Action]:
    before = exchange.wait
    pieces: list[Frame] = []
    for at, data in exchange.chunks:
        pieces.append(Frame(_scaled(at - before, speed), data))
        before = max(before, at)
    kind = exchange.response_headers.get("content-type", "")
    is_sse, is_lines = "event-stream" in kind, "ndjson" in kind or "jsonl" in kind
    frames: Iterator[Frame] = iter(pieces)
    if (is_sse or is_lines) and any(plan.get(name) for name in _IN_FRAMES):
        frames = break_chunks(
            plan,
            _frames(pieces, _BLOCK if is_sse else _LINE),
            plan.draw(0),
            sse=is_sse,
            error=lambda: _error(exchange.body, path),
        )
    for frame in frames:
        # At once, the recorded pieces stay pieces: each is a write of its own.
        yield Send(frame.delay, frame.data, alone=True)
    yield _LAST[exchange.end]


def _frames(pieces: list[Frame], end: re.Pattern[bytes]) -> Iterator[Frame]:
    """Whole frames, each due when its last byte is."""
    buffer, delay, finished = b"", 0.0, False
    for piece in pieces:
        buffer += piece.data
        delay += piece.delay
        at = 0
        for match in end.finditer(buffer):
            frame = buffer[at : match.end()]
            at = match.end()
            kind = _kind(frame, finished)
            finished = finished or kind == "finish"
            yield Frame(delay, frame, kind)
            delay = 0.0
        buffer = buffer[at:]
    if buffer:
        yield Frame(delay, buffer, _kind(buffer, finished))


def _kind(frame: bytes, finished: bool) -> str:
    if _TERMINAL.search(frame):
        return "terminal"
    if finished or _FINISH.search(frame):
        return "finish"
    is_named = re.search(rb"^event:|\"type\": ?\"", frame, re.MULTILINE) is not None
    return "frame" if is_named and b"delta" not in frame else "delta"


def _error(body: Body, path: str) -> bytes:
    """An error in the stream, as the provider of this request writes it."""
    wire, fail = wire_of(path), Fail("Simulated error in the stream.")
    request: Any = body.value if body.kind == "json" else {}
    if wire is not None:
        try:
            return wire.writer(wire.read(request, path, {"alt": "sse"}), Identity(0, 1, 0)).fail(
                fail
            )
        except (ValueError, TypeError, KeyError, AttributeError):
            pass  # a request that the simulator does not understand; its error is OpenAI's
    return b"data: " + msgspec.json.encode(CHAT.error(500, fail.message, fail.code)) + b"\n\n"
