"""Part bookkeeping that every decoder shares: open, fill and end parts; end the step.

Always true: a part has one start and one end; parts are numbered from ``first_part`` in the order
in which they open; pieces are joined once, when the part ends; a tool call's arguments are parsed
when it ends and only a JSON object makes it ``complete``; without its terminal marker a step
leaves its open parts ``truncated``.
"""

from __future__ import annotations

import json
from typing import Any, cast

import msgspec

from tokenwire.events.model import (
    Error,
    Event,
    FileDelta,
    FileEnd,
    FileStart,
    Finish,
    OpaqueEnd,
    OpaqueStart,
    PartAttr,
    PartDelta,
    PartEnd,
    PartPatch,
    PartStart,
    PartStatus,
    ProviderResultDelta,
    ProviderResultEnd,
    ProviderResultStart,
    ReasoningDelta,
    ReasoningEnd,
    ReasoningStart,
    RefusalDelta,
    RefusalEnd,
    RefusalStart,
    StepEnd,
    StepStatus,
    TextDelta,
    TextEnd,
    TextStart,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
)

__all__ = [
    "INCOMPLETE_REASONS",
    "OpenPart",
    "Parts",
    "citation",
    "dump",
    "items",
    "load",
    "number",
    "obj",
    "parse_arguments",
    "text_of",
]

#: Finish reasons after which an answer is not whole, although its wire ended in good order.
INCOMPLETE_REASONS = frozenset(
    {"length", "content_filter", "context_overflow", "malformed_tool_call"}
)

_KINDS: dict[type[PartStart], tuple[type[PartDelta] | None, type[PartEnd]]] = {
    TextStart: (TextDelta, TextEnd),
    ReasoningStart: (ReasoningDelta, ReasoningEnd),
    RefusalStart: (RefusalDelta, RefusalEnd),
    ToolCallStart: (ToolCallDelta, ToolCallEnd),
    ProviderResultStart: (ProviderResultDelta, ProviderResultEnd),
    FileStart: (FileDelta, FileEnd),
    OpaqueStart: (None, OpaqueEnd),
}


class OpenPart:
    """One part between its start and its end. Made by `Parts.open`."""

    __slots__ = (
        "_delta",
        "_end",
        "_owner",
        "attrs_seen",
        "format",
        "meta",
        "number",
        "open",
        "patched",
        "pieces",
        "size",
        "start",
    )

    def __init__(self, owner: Parts, start: PartStart) -> None:
        self._owner = owner
        self._delta, self._end = _KINDS[type(start)]
        self.start = start
        self.number = start.part
        self.open = True
        self.size = 0
        #: Text of a tool call, kept because its end needs the whole; others keep none.
        self.pieces: list[str] | None = [] if type(start) is ToolCallStart else None
        self.format = start.format if isinstance(start, ToolCallStart) else "text"
        self.meta = start.meta
        #: The arguments as the provider's own object, where patches built them.
        self.patched: Any = None
        self.attrs_seen: set[str] = set()

    @property
    def text(self) -> str:
        """The text so far, of a part that keeps its pieces (tool calls, or after `keep`)."""
        return "".join(self.pieces or ())

    def keep(self) -> OpenPart:
        """Keep the pieces of this part, to compare them with a final text."""
        if self.pieces is None:
            self.pieces = []
        return self

    def delta(self, text: str) -> None:
        """Add the next piece; an empty one makes no event."""
        if not text or self._delta is None or not self.open:
            return
        self._owner.out.append(self._delta(part=self.number, text=text))
        self.size += len(text) if text.isascii() else len(text.encode())
        if self.pieces is not None:
            self.pieces.append(text)

    def attr(self, name: str, value: Any) -> None:
        """Something that decorates the part."""
        if self.open:
            self.attrs_seen.add(name)
            self._owner.out.append(PartAttr(part=self.number, name=name, value=value))

    def patch(self, path: str, value: Any, *, more: bool = False) -> None:
        """A value set at ``path`` of the arguments."""
        if self.open:
            self._owner.out.append(PartPatch(part=self.number, path=path, value=value, open=more))

    def end(self, status: PartStatus = "complete", **fields: Any) -> None:
        """The end; a second one is ignored. A tool call is parsed here: arguments that are no
        JSON object make it ``invalid`` unless it is ``truncated`` anyway."""
        if not self.open:
            return
        self.open = False
        if self._end is ToolCallEnd and "arguments" not in fields:
            status = self._arguments(status, fields)
        self._owner.closed(self)
        self._owner.out.append(self._end(part=self.number, status=status, size=self.size, **fields))
        self.pieces = None

    def _arguments(self, status: PartStatus, fields: dict[str, Any]) -> PartStatus:
        text = cast(str, fields.get("text") or self.text)
        if self.format == "text":
            if status == "complete":
                fields["arguments"] = text
            return status
        if self.patched is not None and not text:
            if status == "complete":
                fields["arguments"] = self.patched
            return status
        if status != "complete":
            return status
        value, error = parse_arguments(text)
        if error is None:
            fields["arguments"] = value
            return status
        fields["error"] = error
        return "invalid"


class Parts:
    """The parts of one response, and their events (`out`)."""

    __slots__ = (
        "finish_reasons",
        "next_part",
        "open_parts",
        "out",
        "shown",
        "step",
    )

    def __init__(self, *, step: int = 1, first_part: int = 0) -> None:
        self.step = step
        self.next_part = first_part
        self.out: list[Event] = []
        self.open_parts: dict[int, OpenPart] = {}
        #: Whether anything that a person can see was emitted.
        self.shown = False
        self.finish_reasons: dict[int, str] = {}

    def take(self) -> list[Event]:
        """The events since the last call."""
        out, self.out = self.out, []
        return out

    def open(self, kind: type[PartStart], *, choice: int = 0, **fields: Any) -> OpenPart:
        """A new part."""
        start = kind(part=self.next_part, step=self.step, choice=choice, **fields)
        self.next_part += 1
        part = OpenPart(self, start)
        self.open_parts[part.number] = part
        self.out.append(start)
        self.shown = True
        return part

    def whole(
        self, kind: type[PartStart], text: str = "", *, choice: int = 0, **fields: Any
    ) -> None:
        """A part that came in one piece: start, delta, end."""
        part = self.open(kind, choice=choice, **fields)
        part.delta(text)
        part.end()

    def closed(self, part: OpenPart) -> None:
        """Called by the part itself when it ends."""
        self.open_parts.pop(part.number, None)

    def finish(self, event: Finish) -> None:
        """Emit why a choice stopped; the same reason is emitted once."""
        word = event.raw or event.reason
        if self.finish_reasons.get(event.choice) == word:
            return
        self.finish_reasons[event.choice] = word
        self.out.append(event)

    def end_step(
        self, *, terminal_seen: bool, reason: str | None, error: Error | None, failed: bool
    ) -> None:
        """Ends for what is open, the error when given, and the step's end."""
        status: PartStatus = "complete" if terminal_seen and not failed else "truncated"
        for part in list(self.open_parts.values()):
            part.end("truncated" if reason == "length" and part.pieces else status)
        if error is not None:
            if self.shown and not error.after_output:
                error.after_output = True
            self.out.append(error)
        step: StepStatus = "complete"
        if error is not None and error.code == "cancelled":
            step = "cancelled"
        elif error is not None or failed:
            step = "error"
        elif not terminal_seen or reason in INCOMPLETE_REASONS:
            step = "incomplete"
        self.out.append(StepEnd(step=self.step, status=step, terminal_seen=terminal_seen))


# --- lenient reading of other people's JSON -----------------------------------------------------

_decode = msgspec.json.Decoder().decode
_EMPTY: dict[str, Any] = {}
_MOST_DEPTH = 200  # real payloads stay under 20; schemas in them under 60


def load(data: bytes | str) -> Any:
    """JSON to values. Lone surrogates become U+FFFD. Raises `ValueError` and nothing else."""
    try:
        value = _decode(data)
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        value = _lenient(data)
    if len(data) > 2 * _MOST_DEPTH:
        _check_depth(data, value)
    return value


def _lenient(data: bytes | str) -> Any:
    """What the strict reader refuses but others send: lone surrogates, raw control characters."""
    try:
        text = data.decode("utf-8", "replace") if isinstance(data, bytes) else data
        return _without_surrogates(json.loads(text, parse_constant=_refuse, strict=False))
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None


def _check_depth(data: bytes | str, value: Any) -> None:
    """Whoever encodes the value again must not run out of stack."""
    brackets = (
        data.count(b"[") + data.count(b"{")
        if isinstance(data, bytes)
        else data.count("[") + data.count("{")
    )
    if brackets <= _MOST_DEPTH:
        return
    level: list[Any] = [value]
    for _ in range(_MOST_DEPTH):
        below: list[Any] = []
        for inner in level:
            if isinstance(inner, dict):
                below.extend(cast(dict[str, Any], inner).values())
            elif isinstance(inner, list):
                below.extend(cast(list[Any], inner))
        level = [v for v in below if isinstance(v, dict | list)]
        if not level:
            return
    raise ValueError("the JSON is nested too deeply")


def _refuse(word: str) -> Any:
    raise ValueError(f"{word} is not JSON")


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        if value.isascii():
            return value
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, list):
        return [_without_surrogates(v) for v in cast(list[Any], value)]
    if isinstance(value, dict):
        pairs = cast(dict[str, Any], value).items()
        return {_without_surrogates(k): _without_surrogates(v) for k, v in pairs}
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        raise ValueError("a number is out of range")
    return value


def dump(value: Any) -> str:
    """Values to compact JSON text."""
    return msgspec.json.encode(value).decode()


def parse_arguments(text: str) -> tuple[Any, str | None]:
    """Arguments as a JSON object, or why they are none. Empty text and ``null`` mean ``{}``."""
    if not text.strip():
        return {}, None
    try:
        value = load(text)
    except ValueError as error:
        return None, f"the arguments are not valid JSON: {error}"
    if value is None:
        return {}, None
    if not isinstance(value, dict):
        return None, "the arguments are not a JSON object"
    return cast(dict[str, Any], value), None


def obj(value: Any) -> dict[str, Any]:
    """The value if it is an object, else an empty one (absent, null or of another type)."""
    return cast(dict[str, Any], value) if isinstance(value, dict) else _EMPTY


def items(value: Any) -> list[Any]:
    """The value if it is a list, else an empty one."""
    return cast(list[Any], value) if isinstance(value, list) else []


def text_of(value: Any) -> str:
    """The value if it is a text, else an empty one."""
    return value if isinstance(value, str) else ""


def number(value: Any) -> int | None:
    """The value as a count, if it is one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if abs(value) < 2**63 else None


def citation(raw: Any, **fields: Any) -> dict[str, Any]:
    """One form for every provider's citations: ``url``, ``title``, ``text`` (what is cited),
    ``start``/``end`` with ``unit``, ``source`` where known; the provider's object is ``raw``."""
    return {**{k: v for k, v in fields.items() if v is not None and v != ""}, "raw": raw}
