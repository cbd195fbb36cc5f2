"""Part bookkeeping that every decoder shares: open, fill and end parts; end the step.

A call without arguments looks the same when it is whole and when it was cut before them, so its
end waits for that of the step, and only a good finish reason makes it complete.

Always true: a part has one start and one end; parts are numbered from ``first_part`` in the order
in which they open; pieces are joined once, when the part ends; a tool call's arguments are parsed
when it ends and only a JSON object makes it ``complete``; without its terminal marker a step
leaves its open parts ``truncated``.
"""

from __future__ import annotations

import re
from typing import Any, Protocol

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
from tokenwire.events.reasons import INCOMPLETE_REASONS
from tokenwire.providers.decoding.arguments import ArgumentText
from tokenwire.providers.decoding.values import clean, split_tail

__all__ = ["OpenPart", "Parts"]

_NONE_SEEN: frozenset[str] = frozenset()

#: Finish reasons with which a call without arguments is a whole one.
_CALLED = frozenset({"stop", "tool_calls"})
#: What servers write for no arguments; a longer text has some.
_NOTHING = re.compile(r'\s*+(?:|null|""|"?\{\s*+\}"?|\[\s*+\])\s*+\Z')
_MOST_NOTHING = 16

_KINDS: dict[type[PartStart], tuple[type[PartDelta] | None, type[PartEnd]]] = {
    TextStart: (TextDelta, TextEnd),
    ReasoningStart: (ReasoningDelta, ReasoningEnd),
    RefusalStart: (RefusalDelta, RefusalEnd),
    ToolCallStart: (ToolCallDelta, ToolCallEnd),
    ProviderResultStart: (ProviderResultDelta, ProviderResultEnd),
    FileStart: (FileDelta, FileEnd),
    OpaqueStart: (None, OpaqueEnd),
}


class Counting(Protocol):
    """Who counts the payloads of a response."""

    payloads: int


class OpenPart:
    """One part between its start and its end. Made by `Parts.open`."""

    __slots__ = (
        "_careful",
        "_delta",
        "_end",
        "_owner",
        "_tail",
        "arguments",
        "attrs_seen",
        "call_id",
        "final",
        "format",
        "meta",
        "name",
        "number",
        "open",
        "patched",
        "pieces",
        "place",
        "recount",
        "size",
        "start",
        "turn",
    )

    def __init__(self, owner: Parts, start: PartStart) -> None:
        self._owner = owner
        self._delta, self._end = _KINDS[type(start)]
        self.start = start
        self.number = start.part
        self.open = True
        #: Bytes so far; of a text that is kept, once it has ended.
        self.size = 0
        self.format = "text"
        self.name = self.call_id = ""
        #: The text of a tool call, kept because its end needs the whole.
        self.arguments: ArgumentText | None = None
        if isinstance(start, ToolCallStart):
            self.format, self.name, self.call_id = start.format, start.name, start.call_id
            self.arguments = ArgumentText()
        #: The text, of a part that keeps it (tool calls, or after `keep`).
        self.pieces: list[str] | None = self.arguments.pieces if self.arguments else None
        self.meta = start.meta
        #: `size` is that of the pieces, and counted at the end.
        self.recount = False
        #: The arguments as the provider's own object, where patches built them.
        self.patched: Any = None
        #: The whole text of a tool call as the provider repeats it at the end.
        self.final: str | None = None
        #: (A set of its own would take 200 bytes of each open part.)
        self.attrs_seen: frozenset[str] = _NONE_SEEN
        #: Half of a character, at the end of what came.
        self._tail = ""
        #: Of a call without an id: where it stands among the others, if its wire says so, and the
        #: payload with which it began.
        self.place: Any = None
        counting = owner.counting if self.arguments is not None else None
        self.turn = 0 if counting is None else counting.payloads
        self._careful = self.format == "json" or owner.loose

    @property
    def text(self) -> str:
        """The text so far, of a part that keeps its pieces (tool calls, or after `keep`)."""
        return "".join(self.pieces or ())

    @property
    def is_whole(self) -> bool:
        """Whether the arguments of a tool call are one whole object so far."""
        return self.arguments is not None and self.arguments.is_whole()

    @property
    def lacks_arguments(self) -> bool:
        """Whether no arguments came for a tool call."""
        return self.arguments is not None and not self.size and not self.final

    @property
    def is_bare(self) -> bool:
        """Whether this is a call for the caller to run of which no arguments came so far, or only
        empty ones."""
        if self.arguments is None or self.size > _MOST_NOTHING or self.patched:
            return False
        start = self.start
        if isinstance(start, ToolCallStart) and start.executor == "provider":
            return False
        return _NOTHING.match(self.final or self.text) is not None

    def keep(self) -> OpenPart:
        """Keep the pieces of this part, to compare them with a final text; its size is theirs."""
        if self.pieces is None:
            self.pieces = []
            self.recount = True
        return self

    def delta(self, text: str) -> None:
        """Add the next piece; an empty one makes no event."""
        if not text or self._delta is None or not self.open:
            return
        if self._careful:
            text = self._checked(text)
            if not text:
                return
        self._owner.out.append(self._delta(part=self.number, text=text))
        if self.pieces is not None:
            self.pieces.append(text)
            if self.recount:
                return
        self.size += len(text) if text.isascii() else len(text.encode())

    def plain(self, text: str) -> PartDelta | None:
        """The delta that a piece would give, of a part that takes every piece as it comes; of a
        call's arguments, every one that does not begin with a brace."""
        if self._delta is None or not self.open or self._owner.loose:
            return None
        if self._careful and (self.arguments is None or self.is_repeating or text[:1] == "{"):
            return None
        return self._delta(part=self.number, text=text)

    def _checked(self, text: str) -> str:
        """The piece with whole characters only, and without arguments that came before."""
        if self._owner.loose:
            text, self._tail = split_tail(self._tail + text)
            text = clean(text)
        if text and self.arguments is not None and self.format == "json":
            return self.arguments.new_text(text)
        return text

    def be_careful(self) -> None:
        """From now on texts may end in half a character."""
        self._careful = True

    @property
    def is_repeating(self) -> bool:
        """Whether what comes now is held back: the call's arguments were whole before."""
        return self.arguments is not None and self.arguments.rest is not None

    def attr(self, name: str, value: Any) -> None:
        """Something that decorates the part."""
        if self.open:
            self.attrs_seen |= {name}
            if name == "call_id":
                self.call_id = value
            elif name == "tool_name":
                self.name = value
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
        if self._tail:
            tail, self._tail = clean(self._tail), ""
            self.delta(tail)
        if status == "complete" and not fields and self._owner.waits_for_end(self):
            return
        self.open = False
        if self.arguments is not None:
            status = self._end_call(self.arguments, status, fields)
        self._owner.closed(self)
        if self.recount:
            self.size = len(self.text.encode("utf-8", "surrogatepass"))
        self._owner.out.append(self._end(part=self.number, status=status, size=self.size, **fields))
        self.pieces = self.arguments = None

    def _end_call(
        self, arguments: ArgumentText, status: PartStatus, fields: dict[str, Any]
    ) -> PartStatus:
        if "arguments" not in fields:
            status = self._resolve(arguments, status, fields)
        if status == "complete" and self._owner.is_repeated(self, fields.get("arguments")):
            return "discarded"
        return status

    def _resolve(
        self, arguments: ArgumentText, status: PartStatus, fields: dict[str, Any]
    ) -> PartStatus:
        final = fields.pop("text", None) or self.final
        if self.format == "text":
            if final is not None:
                fields["text"] = final
            if status == "complete":
                fields["arguments"] = arguments.text if final is None else final
            return status
        if status != "complete":
            if final is not None:
                fields["text"] = final
            return status
        if self.patched is not None and not self.size and final is None:
            fields["arguments"] = self.patched
            return status
        value, error, right = arguments.resolve(final)
        if right is not None:
            fields["text"] = right
        if error is None:
            fields["arguments"] = value
            return status
        fields["error"] = error
        return "invalid"


class Parts:
    """The parts of one response, and their events (`out`)."""

    __slots__ = (
        "_calls",
        "_nameless",
        "_waits",
        "counting",
        "finish_reasons",
        "loose",
        "may_wait",
        "next_part",
        "open_parts",
        "out",
        "shown",
        "step",
        "texts",
    )

    def __init__(self, *, step: int = 1, first_part: int = 0) -> None:
        self.step = step
        self.next_part = first_part
        self.out: list[Event] = []
        self.open_parts: dict[int, OpenPart] = {}
        # What most answers need at their end, or never, is made then: empty, they would be half a
        # kilobyte of each answer that is being written.
        #: Whether anything that a person can see was emitted.
        self.shown = False
        #: Why each choice stopped: the provider's word, and ours.
        self.finish_reasons: dict[int, tuple[str, str]] | None = None
        #: Whether payloads came whose texts may end in half a character.
        self.loose = False
        #: Whether the ends of calls may wait for that of the step; a decoder says so.
        self.may_wait = False
        self._waits = False
        #: How many payloads have been read; a decoder says so.
        self.counting: Counting | None = None
        #: The pieces of each text, where a decoder compares them with a whole answer.
        self.texts: list[list[str]] | None = None
        #: Calls that have ended, by their id; those without one by choice and name.
        self._calls: dict[str, list[tuple[str, Any]]] | None = None
        self._nameless: dict[tuple[int, str], list[tuple[Any, Any, int]]] | None = None

    def be_loose(self) -> None:
        """A payload came that holds half a character."""
        self.loose = True
        for part in self.open_parts.values():
            part.be_careful()

    def hold_calls(self) -> None:
        """From now on every call waits for the end of the step, where the wire tells it again."""
        self._waits = True

    def waits_for_end(self, part: OpenPart) -> bool:
        """Whether a call waits for the end of the step: one without arguments, and those that end
        after it, so that the ends keep their order."""
        if part.arguments is None or not self.may_wait:
            return False
        self._waits = self._waits or part.is_bare
        start = part.start
        return self._waits and not (
            isinstance(start, ToolCallStart) and start.executor == "provider"
        )

    def is_repeated(self, part: OpenPart, arguments: Any) -> bool:
        """Whether a call with this id, name and arguments has ended before; remembers this one.
        Without ids the same call in another payload is a repetition, unless its wire numbers them;
        side by side in one payload they are two."""
        start = part.start
        if not isinstance(start, ToolCallStart) or start.executor == "provider":
            return False
        if start.id_source != "provider" and "call_id" not in part.attrs_seen:
            if self._nameless is None:
                self._nameless = {}
            others = self._nameless.setdefault((start.choice, part.name), [])
            key = (arguments, part.place)
            if any(other[:2] == key and other[2] != part.turn for other in others):
                return True
            others.append((*key, part.turn))
            return False
        if self._calls is None:
            self._calls = {}
        calls = self._calls.setdefault(part.call_id, [])
        if (part.name, arguments) in calls:
            return True
        calls.append((part.name, arguments))
        return False

    @property
    def text(self) -> str:
        """All text so far, of a decoder that keeps it."""
        return "".join(map("".join, self.texts or ()))

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
        if self.texts is not None and kind is TextStart and not choice:
            self.texts.append(part.keep().pieces or [])
            part.pieces = self.texts[-1]
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
        if self.finish_reasons is None:
            self.finish_reasons = {}
        if self.finish_word(event.choice) == word:
            return
        self.finish_reasons[event.choice] = word, event.reason
        self.out.append(event)

    def finish_word(self, choice: int) -> str | None:
        """The provider's word for why a choice stopped, if it has."""
        return (self.finish_reasons or {}).get(choice, (None, ""))[0]

    def end_step(
        self,
        *,
        terminal_seen: bool,
        reason: str | None,
        error: Error | None,
        failed: bool,
        unfinished: bool = False,
    ) -> None:
        """End what is open, emit the error when given, and end the step. ``unfinished``: the
        provider says that the answer is not whole."""
        status: PartStatus = "complete" if terminal_seen and not failed else "truncated"
        self.may_wait = False
        for part in list(self.open_parts.values()):
            cut = reason == "length" and part.pieces
            if not cut and part.is_bare:
                _, word = (self.finish_reasons or {}).get(part.start.choice, (None, None))
                is_said = word is not None or part.lacks_arguments
                cut = unfinished or (is_said and word not in _CALLED)
            part.end("truncated" if cut else status)
        if error is not None:
            if self.shown and not error.after_output:
                error.after_output = True
            self.out.append(error)
        step: StepStatus = "complete"
        if error is not None and error.code == "cancelled":
            step = "cancelled"
        elif error is not None or failed:
            step = "error"
        elif not terminal_seen or unfinished or reason in INCOMPLETE_REASONS:
            step = "incomplete"
        self.out.append(StepEnd(step=self.step, status=step, terminal_seen=terminal_seen))
