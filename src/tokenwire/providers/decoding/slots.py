"""Which tool call a delta belongs to, whatever a compatible server makes of index, id and name.

Always true: one call is one part; a call's id is told once; an id that the provider did not give is
made here and marked ``synthetic``; the work is linear in the pieces.

The rules, in order: a known id is its slot's; another id with a name opens a new slot once the
slot's arguments are whole, and one without a name continues the slot; without an index the id
decides, then whether a name is given (a new slot), then the last slot; a name counts again only
while no arguments have come, or where there was none.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol
from weakref import ref

from tokenwire.events.model import ToolCallStart
from tokenwire.providers.decoding.parts import OpenPart, Parts

__all__ = ["OpenText", "Slot", "Slots"]


class Slot:
    """One tool call while it is assembled."""

    __slots__ = ("id", "name", "part", "synthetic")

    def __init__(self, part: OpenPart, name: str, call_id: str) -> None:
        self.part = part
        self.name = name
        self.id = call_id  # as the provider gave it; empty when it has not
        self.synthetic = not call_id


class OpenText(Protocol):
    """The text before a call."""

    def end_text(self) -> None:
        """Text is over: something else has begun."""
        ...


class Slots:
    """The tool calls of one choice. ``text``, which ends before the part of a call begins, is the
    object that has these; they do not keep it alive."""

    __slots__ = ("_by_id", "_by_index", "_choice", "_ids_vary", "_parts", "_text", "all")

    def __init__(self, parts: Parts, choice: int, *, text: OpenText | None = None) -> None:
        self._parts = parts
        self._text = None if text is None else ref(text)
        self._choice = choice
        self._by_index: dict[int, Slot] = {}
        self._by_id: dict[str, Slot] = {}
        #: The server gives the pieces of one call different ids.
        self._ids_vary = False
        self.all: list[Slot] = []

    def piece(
        self,
        index: int | None,
        call_id: str | None,
        name: str | None,
        arguments: str | None,
        *,
        form: Literal["json", "text"] = "json",
        meta: dict[str, Any] | None = None,
    ) -> Slot:
        """One delta of one call. Empty strings mean absent."""
        slot = self._find(index, call_id, name, arguments)
        if slot is None:
            slot = self._open(name or "", call_id or "", form, meta)
            if index is not None:
                self._by_index[index] = slot
                slot.part.place = index
        else:
            if call_id and not slot.id:
                slot.id = call_id
                self._by_id[call_id] = slot
                slot.part.attr("call_id", call_id)
            if name and name != slot.name and (not slot.name or not slot.part.size):
                # Some servers send pieces of a name, others the name so far.
                slot.name = name if name.startswith(slot.name) else slot.name + name
                slot.part.attr("tool_name", slot.name)
        if arguments:
            slot.part.delta(arguments)
        return slot

    def known(self, index: int) -> Slot | None:
        """The slot of an index, when its arguments are still being written."""
        slot = self._by_index.get(index)
        if slot is None:
            return None
        arguments = slot.part.arguments
        return slot if arguments is not None and arguments.rest is None else None

    def are_of(self, index: int) -> bool:
        """Whether every call so far is the one of this index."""
        return all(slot is self._by_index.get(index) for slot in self.all)

    def claim(self) -> str | None:
        """At the end: give arguments that no call claims to the only call without any. Returns why
        a call without arguments must not run: they may be others that nobody claims."""
        loose = [s for s in self.all if not s.name and s.part.size]
        bare = [s for s in self.all if s.name and s.part.open and s.part.lacks_arguments]
        if len(loose) == len(bare) == 1 and not loose[0].id:
            bare[0].part.delta(loose[0].part.text)
            loose[0].part.end("discarded")
            return None
        return "its arguments may be those of a call without a name" if loose else None

    def whole(
        self, position: int, call_id: str | None, name: str, arguments: str | None
    ) -> Slot | None:
        """A call as a final snapshot repeats it: the slot that it is, with what was missing; None
        for one that never streamed."""
        slot = self._by_id.get(call_id or "")
        if slot is None:
            like = [s for s in self.all if s.name == name or not s.name]
            at_place = [s for s in self.all[position : position + 1] if s in like]
            same = [s for s in like if s.part.text == arguments]
            slot = next(iter([*same, *at_place, *like]), None)
        if slot is None:
            return None if len(self.all) <= position else self.all[position]
        if name and not slot.name:
            slot.name = name
            slot.part.attr("tool_name", name)
        if call_id and not slot.id:
            slot.id = call_id
            slot.part.attr("call_id", call_id)
        if arguments and slot.part.open:
            slot.part.final = arguments
        return slot

    def _find(
        self, index: int | None, call_id: str | None, name: str | None, arguments: str | None
    ) -> Slot | None:
        same_id = self._by_id.get(call_id) if call_id else None
        if index is not None:
            slot = self._by_index.get(index)
            if slot is None:
                again = same_id is not None and not (name and self._is_whole(same_id))
                return same_id if again else None
        else:
            if same_id is not None or not self.all:
                return same_id
            slot = self.all[-1]
            if name and (call_id or slot.name) and (name != slot.name or not slot.part.size):
                return None
            if ((name and slot.name) or (call_id and slot.id)) and self._is_whole(slot):
                return None
        if call_id and slot.id and call_id != slot.id:
            if same_id is not None or (name and self._is_other_call(slot, name, arguments)):
                return same_id
            self._ids_vary = True
        elif name and not call_id and slot.part.size:
            return None if self._begins_another(slot, name, arguments) else slot
        return slot

    def _is_whole(self, slot: Slot) -> bool:
        arguments = slot.part.arguments
        return arguments is not None and arguments.is_whole()

    def _is_other_call(self, slot: Slot, name: str, arguments: str | None) -> bool:
        """Whether a piece with another id, and a name, is of another call."""
        if not slot.name and not arguments:
            return False  # the name of the arguments before it
        if slot.name and name != slot.name:
            return True
        if self._ids_vary or not slot.part.size:
            return False  # an id alone is not a call: it would run without its arguments
        return self._is_whole(slot)

    def _begins_another(self, slot: Slot, name: str, arguments: str | None) -> bool:
        """Without ids, a name that comes again after whole arguments begins another call; the same
        arguments at the same index are a repetition, and after ``{}`` the real ones follow."""
        if not slot.name:
            return False
        if name != slot.name:
            return True
        if not arguments or not self._is_whole(slot):
            return False
        text = slot.part.text
        return text != arguments and text.strip("{} \t\r\n") != ""

    def _open(
        self, name: str, call_id: str, form: Literal["json", "text"], meta: dict[str, Any] | None
    ) -> Slot:
        text = self._text() if self._text is not None else None
        if text is not None:
            text.end_text()
        part = self._parts.open(
            ToolCallStart,
            choice=self._choice,
            name=name,
            call_id=call_id or f"call_{self._parts.step}_{self._parts.next_part}",
            id_source="provider" if call_id else "synthetic",
            format=form,
            meta=meta,
        )
        slot = Slot(part, name, call_id)
        self.all.append(slot)
        if call_id:
            self._by_id[call_id] = slot
        return slot
