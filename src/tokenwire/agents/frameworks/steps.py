"""A framework's answer as steps and parts: what the readings of all frameworks share.

Always true: pure; a part is opened before its text and closed with its step; the arguments of a
call are the text that came, and count as complete only if that is JSON and the answer was not cut.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import msgspec

from tokenwire.events.model import (
    Event,
    Finish,
    FinishReason,
    PartStatus,
    ReasoningDelta,
    ReasoningEnd,
    ReasoningStart,
    StepEnd,
    StepStart,
    TextDelta,
    TextEnd,
    TextStart,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    Usage,
)

__all__ = ["Steps", "usage_event"]


class _Part(msgspec.Struct):
    number: int
    kind: str
    text: str = ""


class Steps:
    """The steps of one speaker. Every method returns the events that it causes."""

    def __init__(self, *, provider: str | None = None) -> None:
        self._provider = provider
        self._step = self._part = 0
        self._open: dict[Hashable, _Part] = {}
        self.in_step = False

    def start(self, model: str | None = None) -> list[Event]:
        """A model's answer begins, unless one is open."""
        if self.in_step:
            return []
        self._step += 1
        self.in_step = True
        return [StepStart(step=self._step, provider=self._provider, model=model)]

    def text(self, key: Hashable, text: str) -> list[Event]:
        """Text of the part ``key``."""
        events = self._opened(key, "text")
        return [*events, TextDelta(part=self._add(key, text), text=text)] if text else events

    def reasoning(self, key: Hashable, text: str) -> list[Event]:
        """Reasoning of the part ``key``."""
        events = self._opened(key, "reasoning")
        return [*events, ReasoningDelta(part=self._add(key, text), text=text)] if text else events

    def call(self, key: Hashable, call_id: str, name: str, arguments: str = "") -> list[Event]:
        """A call begins; ``arguments``: the JSON text so far."""
        events = self._opened(key, "tool-call", call_id=call_id, name=name)
        return [*events, *self.arguments(key, arguments)]

    def arguments(self, key: Hashable, text: str) -> list[Event]:
        """More of a call's arguments."""
        if not text or key not in self._open:
            return []
        return [ToolCallDelta(part=self._add(key, text), text=text)]

    def end(self, reason: FinishReason = "stop", usage: Usage | None = None) -> list[Event]:
        """The model's answer is whole."""
        if not self.in_step:
            return []
        events: list[Event] = [_end(part, "complete") for part in self._open.values()]
        self._open.clear()
        self.in_step = False
        events.append(Finish(reason=reason))
        if usage is not None:
            events.append(usage)
        return [*events, StepEnd(step=self._step, status="complete", terminal_seen=True)]

    def _opened(self, key: Hashable, kind: str, call_id: str = "", name: str = "") -> list[Event]:
        part = self._open.get(key)
        if part is not None and part.kind == kind:
            return []
        events: list[Event] = self.start()
        if part is not None:  # the framework uses the key for something else now
            events.append(_end(self._open.pop(key), "complete"))
        number, self._part = self._part, self._part + 1
        self._open[key] = _Part(number, kind)
        if kind == "text":
            events.append(TextStart(part=number))
        elif kind == "reasoning":
            events.append(ReasoningStart(part=number))
        else:
            events.append(ToolCallStart(part=number, call_id=call_id, name=name))
        return events

    def _add(self, key: Hashable, text: str) -> int:
        part = self._open[key]
        if part.kind == "tool-call":
            part.text += text
        return part.number


def _end(part: _Part, status: PartStatus) -> Event:
    if part.kind == "text":
        return TextEnd(part=part.number, status=status)
    if part.kind == "reasoning":
        return ReasoningEnd(part=part.number, status=status)
    try:
        arguments: Any = msgspec.json.decode(part.text or "{}")
    except msgspec.DecodeError as error:
        return ToolCallEnd(part=part.number, status="invalid", error=str(error))
    size = len(part.text.encode())
    return ToolCallEnd(part=part.number, status=status, arguments=arguments, size=size)


def usage_event(input_tokens: int | None, output_tokens: int | None) -> Usage | None:
    """Token counts, where the framework has any."""
    if not input_tokens and not output_tokens:
        return None
    return Usage(input_tokens=input_tokens, output_tokens=output_tokens)
