"""Tool calls while the model writes them: name, and arguments as far as they are known, to draw.

Always true: pure; each look parses a call's text at most once and only when it has grown; all
parsing together is linear in the text; what is shown is a prefix of what comes and is not checked.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from tokenwire.events.model import (
    Event,
    PartAttr,
    PartPatch,
    StepReset,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
)
from tokenwire.tools.calls.partial import PartialValue, apply_patch

__all__ = ["GrowingCall", "GrowingCalls"]


class GrowingCall(msgspec.Struct, kw_only=True, frozen=True):
    """A call as it can be drawn now. ``status``: ``open`` while it is written, then that of its
    end; ``arguments``: None before anything is known of them."""

    part: int
    call_id: str
    name: str
    arguments: Any = None
    status: str = "open"


class _Open:
    __slots__ = ("call_id", "dirty", "name", "partial", "patched", "shown", "status", "whole")

    def __init__(self, start: ToolCallStart) -> None:
        self.name, self.call_id = start.name, start.call_id
        self.partial = PartialValue()
        self.patched: Any = None
        self.whole: Any = None
        self.status = "open"
        self.shown: Any = None
        self.dirty = True

    def value(self) -> Any:
        if self.status != "open":
            return self.whole
        return self.patched if self.patched is not None else self.partial.value


class GrowingCalls:
    """Push events as they come, and look whenever you draw::

    calls = GrowingCalls()
    async for batch in run.batches():
        calls.push(batch)
        for call in calls.changed():
            draw(call.call_id, call.name, call.arguments)
    """

    def __init__(self) -> None:
        self._calls: dict[int, _Open] = {}

    def push(self, events: Iterable[Event]) -> None:
        """Take the next events; others than those of tool calls are ignored."""
        for event in events:
            if isinstance(event, ToolCallStart):
                self._calls[event.part] = _Open(event)
            elif isinstance(event, StepReset):
                for part in event.discard_parts:
                    self._calls.pop(part, None)
            elif isinstance(event, ToolCallDelta | ToolCallEnd | PartAttr | PartPatch):
                found = self._calls.get(event.part)
                if found is not None:
                    _grow(found, event)

    def changed(self) -> list[GrowingCall]:
        """The calls that look different from the last time, in the model's order."""
        found: list[GrowingCall] = []
        for part, call in self._calls.items():
            value = call.value()
            if not call.dirty and (value is call.shown or value == call.shown):
                continue
            call.dirty, call.shown = False, value
            found.append(
                GrowingCall(
                    part=part,
                    call_id=call.call_id,
                    name=call.name,
                    arguments=value,
                    status=call.status,
                )
            )
        return found


def _grow(call: _Open, event: ToolCallDelta | ToolCallEnd | PartAttr | PartPatch) -> None:
    if isinstance(event, ToolCallDelta):
        call.partial.push(event.text)
    elif isinstance(event, PartPatch):
        call.patched = apply_patch(call.patched, event.path, event.value)
        call.dirty = True
    elif isinstance(event, ToolCallEnd):
        known = event.arguments if event.arguments is not None else call.value()
        call.whole, call.status, call.dirty = known, event.status, True
    elif event.name in ("tool_name", "call_id") and isinstance(event.value, str):
        if event.name == "tool_name":
            call.name = event.value
        else:
            call.call_id = event.value
        call.dirty = True
