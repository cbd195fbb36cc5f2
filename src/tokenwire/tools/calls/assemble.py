"""Events of one step to complete tool calls.

Always true: pure; any order and split of deltas of different parts gives the same calls, in the
order in which their parts started; only a complete call of a complete step is ``runnable``; every
other call has an ``error``. The decoder's status of a call's arguments is checked again here, from
their text: this is the last place before something runs.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

from tokenwire.events.model import (
    Event,
    Finish,
    PartAttr,
    PartPatch,
    StepEnd,
    StepReset,
    StepStart,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
)
from tokenwire.tools.calls.arguments import MAX_ARGUMENT_BYTES, InvalidJSON, parse_json
from tokenwire.tools.calls.partial import apply_patch

__all__ = ["Assembler", "ToolCall"]

#: The model was cut off, so that even a call that looks complete may not be what it meant.
_CUT: Final = frozenset({"length", "content_filter", "context_overflow", "error", "cancelled"})


class ToolCall(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """One call as the model asked for it.

    ``arguments``: the parsed JSON object (the text itself for ``format="text"``); None unless
    ``status`` is ``complete``. ``error`` says why a call may not run.
    """

    call_id: str
    name: str
    part: int
    step: int = 0
    arguments_text: str = ""
    arguments: Any = None
    status: Literal["complete", "truncated", "invalid", "discarded"] = "complete"
    error: str | None = None
    executor: Literal["server", "client", "provider"] = "server"
    format: Literal["json", "text"] = "json"

    @property
    def runnable(self) -> bool:
        """May it run: whole, valid, and ours (not the provider's)?"""
        return self.status == "complete" and self.executor != "provider"


class _Open:
    """A call that is still being written."""

    __slots__ = ("call_id", "end", "name", "patched", "pieces", "size", "start")

    def __init__(self, start: ToolCallStart) -> None:
        self.start = start
        self.name = start.name
        self.call_id = start.call_id
        self.pieces: list[str] = []
        self.size = 0
        self.patched: Any = None
        self.end: ToolCallEnd | None = None


class Assembler:
    """Collects the tool calls of one step; use a new one for each step.

    Push every event (others than those of tool calls are ignored); after ``step-end`` read
    `calls`.
    """

    def __init__(self, *, most: int = MAX_ARGUMENT_BYTES) -> None:
        self._most = most
        self._open: dict[int, _Open] = {}
        self._finish: str | None = None
        self._end: StepEnd | None = None

    def push(self, event: Event) -> None:
        """Add the next event of the step."""
        kind = type(event)
        if kind is ToolCallDelta:
            self._delta(event)  # type: ignore[arg-type]
        elif kind is ToolCallStart:
            self._open[event.part] = _Open(event)  # type: ignore[union-attr, arg-type]
        elif kind is ToolCallEnd:
            call = self._open.get(event.part)  # type: ignore[union-attr]
            if call is not None:
                call.end = event  # type: ignore[assignment]
        elif isinstance(event, PartAttr | PartPatch):
            self._decorate(event)
        elif isinstance(event, Finish):
            if event.choice == 0:
                self._finish = event.reason
        elif isinstance(event, StepEnd):
            self._end = event
        elif isinstance(event, StepReset | StepStart):
            self._again(event)

    @property
    def names(self) -> dict[int, str]:
        """Part -> tool name of every call so far, to show a call before it is complete."""
        return {part: call.name for part, call in self._open.items()}

    @property
    def calls(self) -> list[ToolCall]:
        """The calls of the step in the model's order, complete or not (choice 0 only)."""
        return [self._call(part, c) for part, c in self._open.items() if c.start.choice == 0]

    def _delta(self, event: ToolCallDelta) -> None:
        call = self._open.get(event.part)
        if call is None:
            return
        if call.size <= self._most:  # beyond it the call is refused; keep no more of it
            call.pieces.append(event.text)
        call.size += len(event.text)

    def _decorate(self, event: PartAttr | PartPatch) -> None:
        call = self._open.get(event.part)
        if call is None:
            return
        if isinstance(event, PartPatch):
            call.patched = apply_patch(call.patched, event.path, event.value)
        elif event.name == "tool_name" and isinstance(event.value, str):
            call.name = event.value
        elif event.name == "call_id" and isinstance(event.value, str):
            call.call_id = event.value

    def _again(self, event: StepReset | StepStart) -> None:
        if isinstance(event, StepReset):
            for part in event.discard_parts:
                self._open.pop(part, None)
        self._finish = None
        self._end = None

    def _call(self, part: int, call: _Open) -> ToolCall:
        text, patched = "".join(call.pieces), call.patched
        end = call.end
        if end is not None and end.text is not None:
            text = end.text
        elif not text and end is not None and patched is None and end.arguments:
            patched = end.arguments  # a wire that gives the value and no text
        if not text and patched is not None:
            text = msgspec.json.encode(patched).decode()
        status, reason, value = self._judge(call, text)
        return ToolCall(
            call_id=call.call_id,
            name=call.name,
            part=part,
            step=call.start.step,
            arguments_text=text,
            arguments=value,
            status=status,
            error=reason,
            executor=call.start.executor,
            format=call.start.format,
        )

    def _judge(self, call: _Open, text: str) -> tuple[Any, str | None, Any]:
        """(status, why not, arguments)"""
        end = call.end
        if end is None or end.status == "truncated":
            return "truncated", "the call was cut off before its arguments were complete", None
        if end.status == "discarded":
            return "discarded", "the call belongs to an abandoned attempt", None
        if self._end is None or self._end.status != "complete" or not self._end.terminal_seen:
            return "truncated", "the answer was cut off before its end", None
        if self._finish in _CUT:
            return "truncated", f"the model was stopped ({self._finish}) while it was calling", None
        if max(call.size, len(text)) > self._most:
            return "invalid", f"the arguments are longer than {self._most} bytes", None
        if not call.name:
            return "invalid", "the call has no name", None
        if call.start.format == "text":
            return "complete", None, text
        return _read(text, end)


def _read(text: str, end: ToolCallEnd) -> tuple[Any, str | None, Any]:
    if not text.strip():
        return "complete", None, {}
    try:
        value = parse_json(text)
    except InvalidJSON as error:
        return "invalid", f"the arguments are {_article(str(error))}", None
    if not isinstance(value, dict):
        return "invalid", "the arguments are not a JSON object", None
    if end.status == "invalid":
        return "invalid", end.error or "the provider reported these arguments as invalid", None
    return "complete", None, value


def _article(reason: str) -> str:
    return reason if reason.startswith(("not ", "longer", "nested")) else f"not usable: {reason}"
