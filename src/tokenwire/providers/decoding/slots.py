"""Which tool call a delta belongs to, whatever a compatible server makes of index, id and name.

Always true: one call is one part; a call's id is told once; an id that the provider did not give is
made here and marked ``synthetic``; the work is linear in the pieces.

The rules, in order: another non-empty id than the slot's opens a new slot; without an index the id
decides, then whether a name is given (a new slot), then the last slot; a name counts again only
while no arguments have come.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from tokenwire.events.model import ToolCallStart
from tokenwire.providers.decoding.parts import OpenPart, Parts, load

__all__ = ["Slot", "Slots"]

#: How often one call's text is parsed to see whether a repeated name begins another call.
_MOST_LOOKS = 8


class Slot:
    """One tool call while it is assembled."""

    __slots__ = ("id", "looks", "name", "part", "synthetic")

    def __init__(self, part: OpenPart, name: str, call_id: str) -> None:
        self.part = part
        self.name = name
        self.id = call_id  # as the provider gave it; empty when it has not
        self.synthetic = not call_id
        self.looks = 0


class Slots:
    """The tool calls of one choice. ``opens`` is called before the part of a call begins."""

    def __init__(
        self, parts: Parts, choice: int, *, opens: Callable[[], None] | None = None
    ) -> None:
        self._parts = parts
        self._opens = opens
        self._choice = choice
        self._by_index: dict[int, Slot] = {}
        self._by_id: dict[str, Slot] = {}
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
        else:
            if call_id and not slot.id:
                slot.id = call_id
                self._by_id[call_id] = slot
                slot.part.attr("call_id", call_id)
            if name and name != slot.name and not slot.part.size:
                slot.name += name
                slot.part.attr("tool_name", slot.name)
        if arguments:
            slot.part.delta(arguments)
        return slot

    def known(self, index: int | None) -> Slot | None:
        """The slot of an index, when it is open."""
        return self._by_index.get(index) if index is not None else None

    def _find(
        self, index: int | None, call_id: str | None, name: str | None, arguments: str | None
    ) -> Slot | None:
        if index is not None:
            slot = self._by_index.get(index)
            if slot is None:
                return None
            if call_id and slot.id and call_id != slot.id:
                return self._by_id.get(call_id)
        else:
            if call_id:
                same_id = self._by_id.get(call_id)
                if same_id is not None or name or not self.all:
                    return same_id
            elif name or not self.all:
                return None
            slot = self.all[-1]
            if call_id and slot.id:
                return None
        if name and not call_id and slot.part.size and self._begins_another(slot, name, arguments):
            return None
        return slot

    def _begins_another(self, slot: Slot, name: str, arguments: str | None) -> bool:
        """Without ids, a name that comes again after whole arguments begins another call."""
        if name != slot.name:
            return True
        if not arguments or slot.looks >= _MOST_LOOKS:
            return False
        slot.looks += 1
        try:
            return isinstance(load(slot.part.text), dict)
        except ValueError:
            return False

    def _open(
        self, name: str, call_id: str, form: Literal["json", "text"], meta: dict[str, Any] | None
    ) -> Slot:
        if self._opens is not None:
            self._opens()
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
