"""What an artifact of a remote task holds: texts and files in order, and data beside them.

Always true: pure; texts that follow each other are one, as a stream brings them in pieces; adding a
piece costs what the piece is long.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from tokenwire.agents.a2a.failures import protocol_error

__all__ = ["Artifact", "Slot", "data_id", "file_key", "slots_of"]

#: Artifacts of a task, and characters of all of them.
MOST_ARTIFACTS, MOST_TEXT = 10_000, 64 << 20


class Slot(msgspec.Struct):
    """A text, or a file as ``key`` says. ``part``: the number of our part that holds it, or its
    end; ``is_open``: more may be added to that part; ``step``: which of our steps it is in."""

    kind: str
    key: str = ""
    content: dict[str, Any] = {}
    part: int = -1
    is_open: bool = False
    step: int = 0
    size: int = 0
    _pieces: list[str] = []

    @property
    def text(self) -> str:
        """The whole text."""
        if len(self._pieces) > 1:
            self._pieces = ["".join(self._pieces)]
        return self._pieces[0] if self._pieces else ""

    def add(self, text: str) -> None:
        """More of the text."""
        self._pieces.append(text)
        self.size += len(text)


class Artifact(msgspec.Struct):
    """``data``: values by their id; ``is_last``: the agent said that it is whole."""

    id: str
    name: str = ""
    slots: list[Slot] = []
    data: dict[str, Any] = {}
    is_last: bool = False

    def add(self, parts: Any) -> list[Slot | str]:
        """Take in more parts of the protocol; what is new: slots, and texts that go on the last
        one. Raises `ProtocolError`."""
        additions: list[Slot | str] = []
        for part in slots_of(parts):
            if part.kind == "data":
                name = data_id(self.id, len(self.data))
                self.data[name] = part.content["data"]
            elif part.kind == "text" and self.slots and self.slots[-1].kind == "text":
                self.slots[-1].add(part.text)
                additions.append(part.text)
            else:
                self.slots.append(part)
                additions.append(part)
        return additions

    @property
    def size(self) -> int:
        """Characters of its texts."""
        return sum(slot.size for slot in self.slots)

    @property
    def text(self) -> str:
        """All of its text."""
        return "".join(slot.text for slot in self.slots if slot.kind == "text")


def data_id(artifact: str, index: int) -> str:
    """The id under which a value of an artifact is sent to readers."""
    return artifact if index == 0 else f"{artifact}-{index + 1}"


def file_key(content: dict[str, Any]) -> str:
    """What two equal files have in common."""
    text = content.get("url") or content.get("raw") or ""
    digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
    return f"{content.get('mediaType') or ''}\0{content.get('filename') or ''}\0{digest}"


def slots_of(parts: Any) -> list[Slot]:
    """Parts of the protocol, of which one that is unknown is left out. Raises `ProtocolError`."""
    if not isinstance(parts, list):
        raise protocol_error("the remote agent sent 'parts' that are no list")
    slots: list[Slot] = []
    for part in parts:
        if not isinstance(part, dict):
            raise protocol_error("the remote agent sent a part that is no object")
        if isinstance(part.get("text"), str):
            if not slots or slots[-1].kind != "text":
                slots.append(Slot("text"))
            slots[-1].add(part["text"])
        elif isinstance(part.get("url"), str) or isinstance(part.get("raw"), str):
            names = ("url", "raw", "mediaType", "filename")
            content = {n: part[n] for n in names if isinstance(part.get(n), str) and part[n]}
            slots.append(Slot("file", key=file_key(content), content=content))
        elif "data" in part:
            slots.append(Slot("data", content={"data": part["data"]}))
    return slots
