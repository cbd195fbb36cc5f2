"""Where a reader left off inside a run, as the ids of frames say it.

Always true: the last frame of an event carries the event's cursor, the ones before it ``cursor.k``:
``k`` frames of that event were received.
"""

from __future__ import annotations

import re

import msgspec

__all__ = ["Place", "split_cursor"]

#: A place inside of an event has the event's check: whoever has it got it from us.
_FRAME_ID = re.compile(r"\A([0-9]{1,19})(?:(-[0-9a-f]{1,64})(?:\.([0-9]{1,9}))?)?\Z")


class Place(msgspec.Struct, frozen=True):
    """Where a reader left off. ``cursor`` is what the relay understands; of the event at
    ``offset`` only ``frames`` frames were received, when ``frames`` is not None."""

    cursor: str
    offset: int
    frames: int | None = None

    @property
    def after(self) -> str:
        """The cursor that the log is followed after."""
        return self.cursor if self.frames is None else str(self.offset - 1)


def split_cursor(text: str) -> Place | None:
    """A frame's ``id`` as the relay's cursor and the place inside its event; None if it has another
    form."""
    match = _FRAME_ID.match(text)
    if match is None:
        return None
    frames = int(match[3]) if match[3] is not None else None
    return Place(cursor=match[1] + (match[2] or ""), offset=int(match[1]), frames=frames)
