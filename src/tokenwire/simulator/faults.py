"""Faults on purpose: what goes wrong with an answer, read from a short text such as
``cut-rst@512,crlf``, and the answer going wrong that way.

Always true: the same plan, chunks and seed give the same bytes and the same breaks; a plan
without faults changes nothing.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator

import msgspec

from tokenwire.simulator.play import Chunk
from tokenwire.simulator.playback import Action, Close, Send, Silence

__all__ = ["FAULTS", "Fault", "FaultPlan", "break_bytes", "break_chunks"]

#: Every fault, with one line for people. ``N`` is a number; without it the seed draws one.
FAULTS: dict[str, str] = {
    "slow-start": "slow-start@SECONDS: not even the status line before then (default 5).",
    "status": "status@CODE: this HTTP status and an error body (default 500).",
    "rate-limit": "rate-limit@K:SECONDS: 429 with Retry-After for the first K requests.",
    "overloaded": "overloaded@K:SECONDS: 503 (Anthropic: 529) for the first K requests.",
    "html": "html: status 200 and an HTML page, as a captive portal sends.",
    "error-200": "error-200: status 200 and a JSON error body instead of an answer.",
    "error": "error@N: an error of the provider in the stream after N deltas.",
    "no-terminal": "no-terminal: everything but the terminal marker, then a clean end.",
    "no-finish": "no-finish: neither finish reason nor terminal marker, then a clean end.",
    "duplicate": "duplicate@N: chunk N is sent twice.",
    "reorder": "reorder@N: chunks N and N+1 change places.",
    "garbage": "garbage@N: a frame that is not JSON before chunk N.",
    "corrupt": "corrupt@N: byte N becomes 0xFF.",
    "comments": "comments@N: a keep-alive comment before every Nth chunk (default 1).",
    "bom": "bom: a byte-order mark first.",
    "crlf": "crlf: lines end with CR LF.",
    "cr": "cr: lines end with CR alone.",
    "no-space": "no-space: no space after the colon of a field.",
    "no-last-newline": "no-last-newline: the last blank line is missing.",
    "split": "split@N: pieces of N bytes, also inside characters (default: drawn, 1 to 7).",
    "stall": "stall@N: silence after N bytes; the connection stays open.",
    "cut-end": "cut-end@N: the body ends after N bytes as if it were whole.",
    "cut-fin": "cut-fin@N: the connection is closed after N bytes.",
    "cut-rst": "cut-rst@N: the connection is reset after N bytes.",
    "seed": "seed@N: draw positions from this seed.",
}

_FAULT = re.compile(r"([a-z0-9-]+)(?:@(\d+(?:\.\d+)?))?(?::(\d+(?:\.\d+)?))?")
_BREAKS = ("stall", "cut-end", "cut-fin", "cut-rst")


class Fault(msgspec.Struct, frozen=True):
    """One fault; what the numbers mean is said in `FAULTS`."""

    kind: str
    at: float | None = None
    more: float | None = None


class FaultPlan(msgspec.Struct, frozen=True):
    """The faults of one answer."""

    faults: tuple[Fault, ...] = ()
    text: str = ""

    @classmethod
    def parse(cls, text: str) -> FaultPlan:
        """Read ``kind@number:number,kind,...``; raises ValueError that lists the known faults."""
        faults: list[Fault] = []
        for part in filter(None, (part.strip() for part in text.split(","))):
            match = _FAULT.fullmatch(part)
            if match is None and part.partition("@")[0] in FAULTS:
                raise ValueError(f"{part!r}: after '@' come numbers: kind@number:number")
            if match is None or match[1] not in FAULTS:
                names = ", ".join(FAULTS)
                raise ValueError(f"unknown fault {part!r}; known faults: {names}")
            kind, at, more = match.groups()
            numbers = [None if number is None else float(number) for number in (at, more)]
            faults.append(Fault(kind, *numbers))
        return cls(tuple(faults), text)

    def __bool__(self) -> bool:
        return bool(self.faults)

    def get(self, kind: str) -> Fault | None:
        """The fault of this kind, if the plan has one."""
        return next((fault for fault in self.faults if fault.kind == kind), None)

    def draw(self, seed: int) -> random.Random:
        """The source of positions that are not given."""
        own = self.get("seed")
        return random.Random(own.at if own is not None and own.at is not None else seed)


def _place(fault: Fault, draw: random.Random, low: int, high: int) -> int:
    return draw.randint(low, high) if fault.at is None else int(fault.at)


def break_chunks(
    plan: FaultPlan,
    chunks: Iterator[Chunk],
    draw: random.Random,
    *,
    sse: bool,
    error: Callable[[], bytes],
) -> Iterator[Chunk]:
    """Faults that act on whole frames: missing, doubled, swapped, foreign ones, line ends."""
    chunks = _without_empty(chunks)
    if plan.get("no-finish"):
        chunks = (chunk for chunk in chunks if chunk.kind not in ("finish", "terminal"))
    elif plan.get("no-terminal"):
        chunks = (chunk for chunk in chunks if chunk.kind != "terminal")
    if fault := plan.get("error"):
        chunks = _failing(chunks, _place(fault, draw, 1, 12), error)
    if fault := plan.get("reorder"):
        chunks = _reordered(chunks, _place(fault, draw, 1, 12))
    if fault := plan.get("duplicate"):
        chunks = _duplicated(chunks, _place(fault, draw, 1, 12))
    if fault := plan.get("garbage"):
        rubbish = b"data: {not json at all\x00\n\n" if sse else b"{not json at all\x00\n"
        chunks = _inserted(chunks, rubbish, _place(fault, draw, 1, 12), every=False)
    if fault := plan.get("comments"):
        comment = b": keep-alive\n\n" if sse else b"\n"
        chunks = _inserted(chunks, comment, int(fault.at or 1), every=True)
    if plan.get("no-last-newline"):
        chunks = _stripped(chunks)
    if ends := [kind for kind in ("crlf", "cr") if plan.get(kind)]:
        chunks = _line_ends(chunks, b"\r\n" if ends[0] == "crlf" else b"\r")
    if sse and plan.get("no-space"):
        chunks = _mapped(chunks, _no_space)
    if plan.get("bom"):
        chunks = _marked(chunks)
    return chunks


def _without_empty(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    delay = 0.0
    for chunk in chunks:
        if not chunk.data and chunk.kind not in ("stall", "cut"):
            delay += chunk.delay
            continue
        chunk.delay += delay
        delay = 0.0
        yield chunk


def _failing(chunks: Iterator[Chunk], at: int, error: Callable[[], bytes]) -> Iterator[Chunk]:
    deltas = 0
    for chunk in chunks:
        if chunk.kind == "delta":
            deltas += 1
        if deltas > at or chunk.kind in ("finish", "terminal"):
            yield Chunk(chunk.delay, error(), "error")
            return
        yield chunk


def _reordered(chunks: Iterator[Chunk], at: int) -> Iterator[Chunk]:
    for number, chunk in enumerate(chunks):
        if number == at and (following := next(chunks, None)) is not None:
            yield following
        yield chunk


def _duplicated(chunks: Iterator[Chunk], at: int) -> Iterator[Chunk]:
    for number, chunk in enumerate(chunks):
        yield chunk
        if number == at:
            yield Chunk(0.0, chunk.data, chunk.kind)


def _inserted(chunks: Iterator[Chunk], data: bytes, at: int, *, every: bool) -> Iterator[Chunk]:
    for number, chunk in enumerate(chunks):
        if number == at or (every and number % max(1, at) == 0):
            yield Chunk(chunk.delay, data, "noise")
            chunk.delay = 0.0
        yield chunk


def _stripped(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    previous: Chunk | None = None
    for chunk in chunks:
        if previous is not None:
            yield previous
        previous = chunk
    if previous is not None:
        yield Chunk(previous.delay, previous.data.rstrip(b"\r\n"), previous.kind)


def _line_ends(chunks: Iterator[Chunk], end: bytes) -> Iterator[Chunk]:
    return _mapped(chunks, lambda data: data.replace(b"\r\n", b"\n").replace(b"\n", end))


def _no_space(data: bytes) -> bytes:
    return re.sub(rb"(?m)^(data|event|id): ", rb"\1:", data)


def _mapped(chunks: Iterator[Chunk], change: Callable[[bytes], bytes]) -> Iterator[Chunk]:
    for chunk in chunks:
        yield Chunk(chunk.delay, change(chunk.data), chunk.kind)


def _marked(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    for number, chunk in enumerate(chunks):
        if number == 0:
            chunk.data = b"\xef\xbb\xbf" + chunk.data
        yield chunk


def break_bytes(
    plan: FaultPlan, actions: Iterator[Action], draw: random.Random
) -> Iterator[Action]:
    """Faults that act on the bytes of the body: cut, silence, pieces, a wrong byte."""
    if fault := plan.get("corrupt"):
        actions = _corrupted(actions, _place(fault, draw, 100, 1000))
    for kind in _BREAKS:
        if fault := plan.get(kind):
            last = Silence() if kind == "stall" else Close(kind.removeprefix("cut-"), early=True)
            actions = _broken(actions, _place(fault, draw, 100, 2000), last)
    if fault := plan.get("split"):
        size = None if fault.at is None else max(1, int(fault.at))
        actions = _split(actions, size, draw)
    return actions


def _corrupted(actions: Iterator[Action], at: int) -> Iterator[Action]:
    offset = 0
    for action in actions:
        if isinstance(action, Send):
            place = at - offset
            offset += len(action.data)
            if 0 <= place < len(action.data):
                action.data = action.data[:place] + b"\xff" + action.data[place + 1 :]
        yield action


def _broken(actions: Iterator[Action], limit: int, last: Action) -> Iterator[Action]:
    offset = 0
    for action in actions:
        if isinstance(action, Send) and offset + len(action.data) >= limit:
            yield Send(action.delay, action.data[: limit - offset], action.alone)
            yield last
            return
        if isinstance(action, Send):
            offset += len(action.data)
        yield action


def _split(actions: Iterator[Action], size: int | None, draw: random.Random) -> Iterator[Action]:
    for action in actions:
        if not isinstance(action, Send):
            yield action
            continue
        at, delay = 0, action.delay
        while at < len(action.data):
            end = at + (draw.randint(1, 7) if size is None else size)
            yield Send(delay, action.data[at:end], alone=True)
            at, delay = end, 0.0
