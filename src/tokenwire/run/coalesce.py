"""Neighbouring deltas of one part become one.

Always true: the text of every part is the same before and after; only deltas of the same part that
stand next to each other are merged, never across another event; nothing is held back: only what
came together is joined (fast streams come together by `run.pacing`).
"""

from __future__ import annotations

from tokenwire.events.model import Event, PartDelta

__all__ = ["merge"]


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
