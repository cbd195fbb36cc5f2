"""A JSON value while it is still being written, for display.

Always true: pure; the value shown is always a prefix of what will come (nothing invented); all
parsing together is linear in the length of the text, however small its pieces are.
"""

from __future__ import annotations

import itertools
import re
from typing import Any, Final

import jiter

from tokenwire.tools.calls.arguments import MAX_DEPTH, depth_of

__all__ = ["PartialValue", "apply_patch"]

#: Below this size every look parses everything: cheap, and where people watch most closely.
_SMALL: Final = 4096
#: Above it the text must have grown by this fraction before it is parsed again.
_GROWTH: Final = 16
_STEP: Final = re.compile(
    r"\.([^.\[\]]+)|\[(\d+)\]|\['((?:[^'\\]|\\.)*)'\]|\[\"((?:[^\"\\]|\\.)*)\"\]"
)
#: What a number is written with.
_DIGITS: Final = b"0123456789+-.eE"
#: Gemini's paths number list items one by one; a jump beyond this is no such path.
_MAX_INDEX: Final = 10_000


class PartialValue:
    """Push deltas, look at the value when something is drawn.

    `value` parses at most once for each look, and not at all when little has come since: a long
    text is looked at about every sixteenth of its length. `finish` parses everything.
    """

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._text = ""
        self._size = 0
        self._parse_at = 1
        self._value: Any = None

    def push(self, delta: str) -> None:
        """The next piece of the JSON text."""
        self._pieces.append(delta)
        self._size += len(delta)

    @property
    def text(self) -> str:
        """The text so far."""
        if self._pieces:
            self._text = "".join([self._text, *self._pieces])
            self._pieces.clear()
        return self._text

    @property
    def value(self) -> Any:
        """What is known so far: a growing object, list or string; None before anything is."""
        if self._size >= self._parse_at:
            self._parse()
            self._parse_at = self._size + 1 + max(0, self._size - _SMALL) // _GROWTH
        return self._value

    def finish(self) -> Any:
        """The value of all that came, parsed once more."""
        if self._size:
            self._parse(whole=True)
        return self._value

    def _parse(self, *, whole: bool = False) -> None:
        text = self.text
        if depth_of(text) > MAX_DEPTH:
            return
        data = text.encode("utf-8", "replace")
        if whole:
            try:
                self._value = jiter.from_json(data)
                return
            except ValueError:  # cut: as much of it as is certain
                pass
        try:
            # 12 may be the begin of 120: a number is shown when something follows it.
            self._value = jiter.from_json(data.rstrip(_DIGITS), partial_mode="trailing-strings")
        except ValueError:  # not JSON (yet): keep what was shown
            return


def apply_patch(value: Any, path: str, new: Any) -> Any:
    """``value`` with ``new`` set at ``path`` (``$.city``, ``$.stops[1].name``). A string that is
    set where a string is, continues it. A path that is no path changes nothing."""
    steps = _steps(path)
    if steps is None:
        return value
    if not steps:
        return new
    root = value if value is not None else _empty(steps[0])
    place = root
    for step, following in itertools.pairwise(steps):
        place = _child(place, step, following)
        if place is None:
            return root
    _set(place, steps[-1], new)
    return root


def _steps(path: str) -> list[str | int] | None:
    if not path.startswith("$"):
        return None
    steps: list[str | int] = []
    at = 1
    while at < len(path):
        match = _STEP.match(path, at)
        if match is None or len(steps) >= MAX_DEPTH:
            return None
        name, index, single, double = match.groups()
        steps.append(int(index) if index else str(name or single or double or ""))
        at = match.end()
    return steps


def _empty(step: str | int) -> Any:
    return [] if isinstance(step, int) else {}


def _child(place: Any, step: str | int, following: str | int) -> Any:
    current = _get(place, step)
    if current is None:
        current = _empty(following)
        if not _set(place, step, current):
            return None
    return current


def _get(place: Any, step: str | int) -> Any:
    if isinstance(place, dict):
        return place.get(step)
    if isinstance(place, list) and isinstance(step, int) and step < len(place):
        return place[step]
    return None


def _set(place: Any, step: str | int, new: Any) -> bool:
    old = _get(place, step)
    if isinstance(old, str) and isinstance(new, str):
        new = old + new
    if isinstance(place, dict) and isinstance(step, str):
        place[step] = new
    elif isinstance(place, list) and isinstance(step, int) and step < _MAX_INDEX:
        place.extend([None] * (step + 1 - len(place)))
        place[step] = new
    else:
        return False
    return True
