"""Events of one answer to its plain facts: what was said, asked for, counted, and whether it ended.

Always true: only the first choice counts; deltas give the same facts however they were cut; a tool
call's id is None when the provider gave none, its ``arguments`` are None unless they were whole.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tokenwire.events.model import (
    Error,
    Finish,
    PartAttr,
    PartDelta,
    PartEnd,
    PartStart,
    StepEnd,
    ToolCallEnd,
    ToolCallStart,
    Usage,
)

__all__ = ["OBJECT_ARGUMENTS", "facts"]

#: ``meta`` of a tool call whose provider sends arguments as an object, so that there is no text of
#: the model's own to keep: ``tool-call-start`` carries it, and ``arguments_raw`` is None.
OBJECT_ARGUMENTS = {"arguments": "object"}

_COUNTS = (
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
)


def facts(events: Iterable[Any]) -> dict[str, Any]:
    """``text``, ``reasoning``, ``refusal``, ``tool_calls``, ``finish_reason`` (the provider's own
    word), ``usage``, ``error`` and ``complete`` (the stream said itself that it was over)."""
    state = _State()
    for event in events:
        state.see(event)
    return {
        "text": state.joined("text"),
        "reasoning": state.joined("reasoning"),
        "refusal": state.joined("refusal"),
        "tool_calls": state.tool_calls(),
        "finish_reason": state.finish_reason,
        "usage": state.usage,
        "error": state.error,
        "complete": state.complete,
    }


class _State:
    def __init__(self) -> None:
        self.starts: dict[int, PartStart] = {}
        self.texts: dict[int, list[str]] = {}
        self.ends: dict[int, PartEnd] = {}
        self.ids: dict[int, str] = {}
        self.names: dict[int, str] = {}
        self.finish_reason: str | None = None
        self.usage: dict[str, int] | None = None
        self.error: dict[str, Any] | None = None
        self.complete = False

    def see(self, event: Any) -> None:
        if isinstance(event, PartDelta):
            if event.part in self.starts:
                self.texts[event.part].append(event.text)
        elif isinstance(event, PartStart):
            if event.choice == 0:
                self.starts[event.part] = event
                self.texts[event.part] = []
        elif isinstance(event, PartEnd):
            self.ends[event.part] = event
            if event.text is not None and event.part in self.starts:
                self.texts[event.part] = [event.text]
        elif isinstance(event, PartAttr):
            if event.name == "call_id":
                self.ids[event.part] = event.value
            elif event.name == "tool_name":
                self.names[event.part] = event.value
        else:
            self._other(event)

    def _other(self, event: Any) -> None:
        if isinstance(event, Finish):
            if event.choice == 0:
                self.finish_reason = event.raw
        elif isinstance(event, Usage):
            self._count(event)
        elif isinstance(event, Error):
            if self.error is None:
                found = {"scope": event.scope, "code": event.code, "message": event.message}
                self.error = found if event.raw is None else {**found, "raw": event.raw}
        elif isinstance(event, StepEnd):
            self.complete = event.terminal_seen

    def _count(self, event: Usage) -> None:
        usage = self.usage or {}
        for name in _COUNTS:
            value = getattr(event, name)
            if value is not None:
                before = usage.get(name, 0) if event.mode == "increment" else 0
                usage[name] = before + value
        self.usage = usage or None

    def joined(self, kind: str) -> str:
        return "".join(
            "".join(self.texts[part])
            for part, start in self.starts.items()
            if start.kind == kind and (start.meta or {}).get("type") != "tool_plan"
        )

    def tool_calls(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for part, start in self.starts.items():
            if not isinstance(start, ToolCallStart) or start.executor == "provider":
                continue
            if (start.meta or {}).get("native"):  # a hosted tool's own form, not a function
                continue
            end = self.ends.get(part)
            whole = isinstance(end, ToolCallEnd) and end.status == "complete"
            raw = "".join(self.texts[part])
            if raw.strip() == "null":
                whole = False  # we run such a call with {}; what the model wrote is null
            given = start.call_id if start.id_source == "provider" else None
            as_object = (start.meta or {}).get("arguments") == "object"
            found.append(
                {
                    "id": self.ids.get(part, given) or None,
                    "name": self.names.get(part, start.name),
                    "arguments": end.arguments if whole else None,  # type: ignore[union-attr]
                    "arguments_raw": None if as_object else raw,
                }
            )
        return found
