"""Neighbouring deltas of one part become one, and one that is too long becomes several.

Always true: the text of every part is the same before and after; only deltas of the same part that
stand next to each other are merged, never across another event; nothing is delayed: only deltas
of one read are joined (`run.call.pacing` makes fast streams arrive together); no delta of the
result has more than `MOST_TEXT` characters.
"""

from __future__ import annotations

import msgspec

from tokenwire.events.fold import Fold
from tokenwire.events.model import Event, PartDelta, RunBudget, RunStart, StepEnd, Usage
from tokenwire.tools.calls.assemble import calls_of

__all__ = ["MOST_TEXT", "is_followed", "merge"]

#: Characters of one delta: at six bytes each it is a line that every reader takes (1 MiB), also
#: when a model sends a picture in one piece. A multiple of four: base64 is cut at its joints.
MOST_TEXT = 128 << 10


def merge(events: list[Event]) -> list[Event]:
    """``events`` with neighbouring deltas of the same part joined, as far as one may be long;
    linear in their text."""
    if len(events) < 2 and not (events and _too_long(events[0])):
        return events
    merged: list[Event] = []
    pieces: list[str] = []
    last: PartDelta | None = None
    size = 0
    for event in events:
        if isinstance(event, PartDelta):
            size += len(event.text)
            alike = last is not None and type(event) is type(last) and event.part == last.part
            if alike and size <= MOST_TEXT:
                pieces.append(event.text)
                continue
            _join(last, pieces)
            *whole, last = _cut(event)
            merged += [*whole, last]
            pieces, size = [last.text], len(last.text)
        else:
            _join(last, pieces)
            last = None
            merged.append(event)
    _join(last, pieces)
    return merged


def _join(delta: PartDelta | None, pieces: list[str]) -> None:
    if delta is not None and len(pieces) > 1:
        delta.text = "".join(pieces)


def _too_long(event: Event) -> bool:
    return isinstance(event, PartDelta) and len(event.text) > MOST_TEXT


def _cut(delta: PartDelta) -> list[PartDelta]:
    text = delta.text
    if len(text) <= MOST_TEXT:
        return [delta]
    starts = range(0, len(text), MOST_TEXT)
    return [msgspec.structs.replace(delta, text=text[at : at + MOST_TEXT]) for at in starts]


def is_followed(batch: list[Event], fold: Fold) -> bool:
    """Whether the next batch follows without a wait for others than a budget: a run's start is
    followed by a step's, and the end of a step without calls (or of none, where a budget allowed
    none) by the next one's, or by the run's own. ``fold``: the run with the batch."""
    last = type(batch[-1]) if batch else None
    if last is RunStart:
        return True
    if last is StepEnd or last is Usage or last is RunBudget:
        step = fold.steps[-1] if fold.steps else None
        return step is None or (step.status != "open" and not calls_of(fold, step))
    return False
