"""The state of one step to its tool calls: the one value that checks, approvals and tools take.

Always true: pure; any order and split of deltas of different parts gives the same calls, in the
order in which their parts started; only a complete call of a complete step is ``runnable``; every
other call has an ``error``. The decoder's status of a call's arguments is checked again here, from
their text: this is the last place before something runs.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

from tokenwire.events.fold import Fold, PartState, StepState
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
from tokenwire.events.reasons import FAILURE_REASONS, INCOMPLETE_REASONS
from tokenwire.tools.calls.arguments import MAX_ARGUMENT_BYTES, InvalidJSON, parse_json
from tokenwire.tools.calls.partial import apply_patch

__all__ = ["Assembler", "ToolCall", "calls_of"]

#: The model was cut off, so that even a call that looks complete may not be what it meant.
_CUT: Final = INCOMPLETE_REASONS | FAILURE_REASONS


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


def calls_of(fold: Fold, step: StepState) -> list[ToolCall]:
    """The calls of ``step`` in the model's order, complete or not (choice 0 only), from the state
    of their run."""
    parts = [fold.parts[number] for number in step.parts]
    return [_call(part, step) for part in parts if part.kind == "tool-call" and part.choice == 0]


class Assembler:
    """Collects the tool calls of one step from its events alone, where no fold does; use a new one
    for each step.

    Push every event (others than those of tool calls are ignored); after ``step-end`` read
    `calls`.
    """

    def __init__(self, *, most: int = MAX_ARGUMENT_BYTES) -> None:
        self._most = most
        self._parts: dict[int, PartState] = {}
        #: The characters that came, and the value that was patched, by part.
        self._sizes: dict[int, int] = {}
        self._patched: dict[int, Any] = {}
        self._step = StepState(step=0)

    def push(self, event: Event) -> None:
        """Add the next event of the step."""
        if isinstance(event, ToolCallDelta):
            self._delta(event)
        elif isinstance(event, ToolCallStart):
            self._start(event)
        elif isinstance(event, ToolCallEnd):
            self._ended(event)
        elif isinstance(event, PartAttr | PartPatch):
            self._decorate(event)
        elif isinstance(event, Finish):
            if event.choice == 0:
                self._step.finish = {"reason": event.reason}
        elif isinstance(event, StepEnd):
            self._step.status, self._step.terminal_seen = event.status, event.terminal_seen
        elif isinstance(event, StepReset | StepStart):
            self._again(event)

    @property
    def names(self) -> dict[int, str]:
        """Part -> tool name of every call so far, to show a call before it is complete."""
        return {number: part.attrs["name"] for number, part in self._parts.items()}

    @property
    def calls(self) -> list[ToolCall]:
        """The calls of the step in the model's order, complete or not (choice 0 only)."""
        return [
            _call(part, self._step, self._most, self._sizes[number], self._patched.get(number))
            for number, part in self._parts.items()
            if part.choice == 0
        ]

    def _start(self, event: ToolCallStart) -> None:
        self._sizes[event.part] = 0
        self._parts[event.part] = PartState(
            part=event.part,
            kind=event.kind,
            step=event.step,
            choice=event.choice,
            attrs={
                "name": event.name,
                "call_id": event.call_id,
                "executor": event.executor,
                "format": event.format,
            },
        )

    def _delta(self, event: ToolCallDelta) -> None:
        part = self._parts.get(event.part)
        if part is None:
            return
        if self._sizes[event.part] <= self._most:  # beyond it the call is refused; keep no more
            part.add(event.text)
        self._sizes[event.part] += len(event.text)

    def _ended(self, event: ToolCallEnd) -> None:
        part = self._parts.get(event.part)
        if part is None:
            return
        part.status = event.status
        if event.text is not None:
            part.pieces = [event.text]
        part.attrs |= {"arguments": event.arguments, "error": event.error}

    def _decorate(self, event: PartAttr | PartPatch) -> None:
        part = self._parts.get(event.part)
        if part is None:
            return
        if isinstance(event, PartPatch):
            value = apply_patch(self._patched.get(event.part), event.path, event.value)
            self._patched[event.part] = value
        elif event.name in ("tool_name", "call_id") and isinstance(event.value, str):
            part.attrs["name" if event.name == "tool_name" else "call_id"] = event.value

    def _again(self, event: StepReset | StepStart) -> None:
        if isinstance(event, StepReset):
            for number in event.discard_parts:
                self._parts.pop(number, None)
        self._step = StepState(step=event.step)


def _call(
    part: PartState,
    step: StepState,
    most: int = MAX_ARGUMENT_BYTES,
    size: int = 0,
    patched: Any = None,
) -> ToolCall:
    """The call of a part. ``size``: characters that came, where fewer were kept; ``patched``: the
    arguments of a wire that sends patches and no text."""
    attrs = part.attrs
    text = part.text
    if not text:  # a wire that gives the value and no text
        value = attrs.get("arguments") or None if patched is None else patched
        text = msgspec.json.encode(value).decode() if value is not None else ""
    status, error, arguments = _judge(part, step, text, max(size, len(text)) > most, most)
    return ToolCall(
        call_id=attrs.get("call_id", ""),
        name=attrs.get("name", ""),
        part=part.part,
        step=part.step,
        arguments_text=text,
        arguments=arguments,
        status=status,
        error=error,
        executor=attrs.get("executor", "server"),
        format=attrs.get("format", "json"),
    )


def _judge(
    part: PartState, step: StepState, text: str, is_too_long: bool, most: int
) -> tuple[Any, str | None, Any]:
    """(status, why not, arguments)"""
    finish = step.finish["reason"] if step.finish is not None else None
    if part.status in ("open", "truncated"):
        return "truncated", "the call was cut off before its arguments were complete", None
    if part.status == "discarded":
        return "discarded", "the call belongs to an abandoned attempt", None
    if step.status != "complete" or not step.terminal_seen:
        return "truncated", "the answer was cut off before its end", None
    if finish in _CUT:
        return "truncated", f"the model was stopped ({finish}) while it was calling", None
    if is_too_long:
        return "invalid", f"the arguments are longer than {most} bytes", None
    if not part.attrs.get("name"):
        return "invalid", "the call has no name", None
    if part.attrs.get("format") == "text":
        return "complete", None, text
    return _read(text, part)


def _read(text: str, part: PartState) -> tuple[Any, str | None, Any]:
    if not text.strip():
        return "complete", None, {}
    try:
        value = parse_json(text)
    except InvalidJSON as error:
        return "invalid", f"the arguments are {_article(str(error))}", None
    if not isinstance(value, dict):
        return "invalid", "the arguments are not a JSON object", None
    if part.status == "invalid":
        error = part.attrs.get("error")
        return "invalid", error or "the provider reported these arguments as invalid", None
    return "complete", None, value


def _article(reason: str) -> str:
    return reason if reason.startswith(("not ", "longer", "nested")) else f"not usable: {reason}"
