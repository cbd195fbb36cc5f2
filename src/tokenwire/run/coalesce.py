"""Neighbouring deltas of one part become one.

Always true: the text of every part is the same before and after; only deltas of the same part that
stand next to each other are merged, never across another event; the first delta of a run is never
held back; what is due is out by `deadline`.
"""

from __future__ import annotations

from typing import cast

from tokenwire.events.model import Event, PartDelta

__all__ = ["Coalescer", "merge"]


def merge(events: list[Event]) -> list[Event]:
    """``events`` with neighbouring deltas of the same part joined; linear in their text."""
    if len(events) < 2:
        return events
    merged: list[Event] = []
    pieces: list[str] = []
    last: PartDelta | None = None
    for event in events:
        if isinstance(event, PartDelta):
            if last is not None and type(event) is type(last) and event.part == last.part:
                pieces.append(event.text)
                continue
            _join(last, pieces)
            last, pieces = event, [event.text]
        else:
            _join(last, pieces)
            last = None
        merged.append(event)
    _join(last, pieces)
    return merged


def _join(delta: PartDelta | None, pieces: list[str]) -> None:
    if delta is not None and len(pieces) > 1:
        delta.text = "".join(pieces)


class Coalescer:
    """Holds deltas for up to ``window`` seconds so that fast streams become fewer, larger events.

    ``window`` 0 merges only what came together. Time is an argument: seconds of one clock.
    """

    def __init__(self, window: float = 0.0, *, most_bytes: int = 8192) -> None:
        self.window = window
        self._most = most_bytes
        self._held: list[Event] = []
        self._size = 0
        self._due: float | None = None
        self._first = True

    def push(self, events: list[Event], now: float) -> list[Event]:
        """What may go out now, given what came."""
        if not events:
            return self.flush() if self._due is not None and now >= self._due else []
        self._held.extend(events)
        deltas_only = all(isinstance(e, PartDelta) for e in events)
        self._size += sum(len(cast(PartDelta, e).text) for e in events) if deltas_only else 0
        if self._first or not deltas_only or self.window <= 0 or self._size >= self._most:
            if deltas_only:
                self._first = False
            return self.flush()
        if self._due is None:
            self._due = now + self.window
        return self.flush() if now >= self._due else []

    def deadline(self) -> float | None:
        """When `flush` is due, or None while nothing is held."""
        return self._due

    def flush(self) -> list[Event]:
        """Everything held, merged."""
        held, self._held, self._size, self._due = self._held, [], 0, None
        return merge(held)
