"""A script played over one wire: steps become timed chunks of that wire's bytes.

Always true: a chunk holds whole frames of its wire; the last chunk of a script that ends is its
terminal marker, alone (an empty one where the wire has none).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import msgspec

from tokenwire.simulator.pace import Schedule
from tokenwire.simulator.script import (
    Ask,
    Call,
    Cut,
    Fail,
    Reason,
    Refuse,
    Say,
    Script,
    Stall,
    Step,
    grouped,
    pieces,
)

__all__ = ["Chunk", "Identity", "Usage", "Wire", "Writer", "play", "step_pieces", "trim"]


class Usage(msgspec.Struct):
    """Token counts of an answer, as they grow."""

    input: int
    output: int = 0
    reasoning: int = 0


class Chunk(msgspec.Struct):
    """Bytes, and how long after the chunk before they are due.

    ``kind``: ``start``, ``frame`` (opens or closes a part), ``delta``, ``error``, ``finish``,
    ``terminal``, ``stall`` (silence) or ``cut`` (close here).
    """

    delay: float
    data: bytes
    kind: str = "delta"


class Writer(Protocol):
    """One answer on one wire."""

    #: Calls travel in one piece (Gemini, Ollama).
    whole_calls: bool

    def start(self) -> bytes: ...
    def begin(self, step: Reason | Say | Refuse | Call) -> bytes: ...
    def piece(self, text: str) -> bytes: ...
    def end(self) -> bytes: ...
    def fail(self, step: Fail) -> bytes: ...
    def finish(self, reason: str, usage: Usage) -> bytes: ...
    def terminal(self) -> bytes: ...


class Wire(Protocol):
    """One provider's HTTP interface: requests read, answers and errors written."""

    name: str
    stream_type: str

    def read(self, body: dict[str, Any], path: str, query: Mapping[str, str]) -> Ask: ...
    def writer(self, ask: Ask, identity: Identity) -> Writer: ...
    def complete(self, ask: Ask, script: Script, usage: Usage, identity: Identity) -> Any: ...
    def error(self, status: int, message: str, code: str) -> Any: ...


class Identity(msgspec.Struct, frozen=True):
    """What makes one answer this answer: a seed for its ids, its number, the time."""

    seed: int
    number: int
    created: int


def trim(script: Script, ask: Ask) -> Script:
    """The script with the caller's limits applied: ``max_tokens`` and ``stop``."""
    steps: list[Step] = []
    budget = -1 if ask.max_tokens is None or script.whole else ask.max_tokens
    for original in script.steps:
        cut = _stopped(original.text, ask.stop) if isinstance(original, Say) else None
        step = original if cut is None else Say(cut)
        if budget >= 0 and not isinstance(step, Fail | Stall | Cut):
            parts = step_pieces(step)
            if len(parts) > budget and not isinstance(step, Call):
                if budget:
                    steps.append(_shortened(step, tuple(parts[:budget])))
                return msgspec.structs.replace(script, steps=steps, finish="length")
            budget = max(0, budget - len(parts))
        steps.append(step)
        if cut is not None:
            return msgspec.structs.replace(script, steps=steps, finish="stop")
    return msgspec.structs.replace(script, steps=steps)


def _shortened(step: Say | Reason | Refuse, parts: tuple[str, ...]) -> Step:
    text = "".join(parts)
    return Say(text, parts) if isinstance(step, Say) else type(step)(text)


def _stopped(text: str, stops: list[str]) -> str | None:
    ends = [at for stop in stops if stop and (at := text.find(stop)) >= 0]
    return text[: min(ends)] if ends else None


def step_pieces(step: Step) -> list[str] | tuple[str, ...]:
    """The token-like pieces of a step."""
    if isinstance(step, Say) and step.parts is not None:
        return step.parts
    if isinstance(step, Fail | Stall | Cut):
        return ()
    return pieces(step.text)


def play(writer: Writer, script: Script, schedule: Schedule, usage: Usage) -> Iterator[Chunk]:
    """Timed chunks of the whole answer; made as they are asked for."""
    size = schedule.pace.tokens_per_chunk
    following = [*script.steps[1:], None]
    yield Chunk(schedule.first(), writer.start(), "start")
    for step, then in zip(script.steps, following, strict=False):
        if isinstance(step, Stall):
            yield Chunk(0.0, b"", "stall")
            return
        if isinstance(step, Cut):
            yield Chunk(0.0, b"", "cut")
            return
        if isinstance(step, Fail):
            yield Chunk(schedule.gap(1), writer.fail(step), "error")
            return
        yield Chunk(0.0, writer.begin(step), "frame")
        parts = step_pieces(step)
        if isinstance(step, Call) and writer.whole_calls:
            usage.output += len(parts)
            yield Chunk(schedule.gap(len(parts)), writer.piece(step.text), "delta")
        else:
            for text, tokens in grouped(parts, size):
                usage.output += tokens
                if isinstance(step, Reason):
                    usage.reasoning += tokens
                yield Chunk(schedule.gap(tokens), writer.piece(text), "delta")
        if not isinstance(then, Cut | Stall | Fail):  # those break a part in its middle
            yield Chunk(0.0, writer.end(), "frame")
    yield Chunk(0.0, writer.finish(script.finish, usage), "finish")
    yield Chunk(0.0, writer.terminal(), "terminal")
