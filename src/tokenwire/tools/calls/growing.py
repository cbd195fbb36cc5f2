"""Tool calls while the model writes them: name and partial arguments, for display.

Always true: pure; each look parses a call's text at most once and only when it has grown; all
parsing together is linear in the text; the values are prefixes of the final ones, not validated.
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
    __slots__ = ("call_id", "dirty", "last_value", "name", "partial", "patched", "status", "whole")

    def __init__(self, start: ToolCallStart) -> None:
        self.name, self.call_id = start.name, start.call_id
        self.partial = PartialValue()
        self.patched: Any = None
        self.whole: Any = None
        self.status = "open"
        self.last_value: Any = None
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
        """Add the next events; those of other kinds are ignored."""
        for event in events:
            if isinstance(event, ToolCallStart):
                self._calls[event.part] = _Open(event)
            elif isinstance(event, StepReset):
                for part in event.discard_parts:
                    self._calls.pop(part, None)
            elif isinstance(event, ToolCallDelta | ToolCallEnd | PartAttr | PartPatch):
                call = self._calls.get(event.part)
                if call is not None:
                    _grow(call, event)

    def changed(self) -> list[GrowingCall]:
        """The calls that changed since the last call of this, in the model's order."""
        changes: list[GrowingCall] = []
        for part, call in self._calls.items():
            value = call.value()
            if not call.dirty and (value is call.last_value or value == call.last_value):
                continue
            call.dirty, call.last_value = False, value
            changes.append(
                GrowingCall(
                    part=part,
                    call_id=call.call_id,
                    name=call.name,
                    arguments=value,
                    status=call.status,
                )
            )
        return changes


def _grow(call: _Open, event: ToolCallDelta | ToolCallEnd | PartAttr | PartPatch) -> None:
    if isinstance(event, ToolCallDelta):
        call.partial.push(event.text)
    elif isinstance(event, PartPatch):
        call.patched = apply_patch(call.patched, event.path, event.value)
        call.dirty = True
    elif isinstance(event, ToolCallEnd):
        arguments = event.arguments if event.arguments is not None else call.value()
        call.whole, call.status, call.dirty = arguments, event.status, True
    elif event.name in ("tool_name", "call_id") and isinstance(event.value, str):
        if event.name == "tool_name":
            call.name = event.value
        else:
            call.call_id = event.value
        call.dirty = True
