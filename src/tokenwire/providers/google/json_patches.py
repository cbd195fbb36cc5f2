"""A JSON object built by patches at JSON paths, as Gemini streams a call's arguments.

Always true: the work is linear in the patches; a path that is not ``$.name`` or ``[index]`` steps,
is too deep, or skips far ahead in a list raises `ValueError`, so that nobody can fill the memory
with one short patch.
"""

from __future__ import annotations

import re
from typing import Any, cast

from tokenwire.providers.decoding.values import clean

__all__ = ["PatchedObject"]

_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d{1,9})\]|\[(['\"])(.*?)\3\]")
_MOST_DEPTH = 64
#: How far beyond a list's end an index may point; the wire counts up one by one.
_MOST_GAP = 100


class _Text:
    """A string that is still being written."""

    __slots__ = ("pieces",)

    def __init__(self, piece: str) -> None:
        self.pieces = [piece]


class PatchedObject:
    """The object so far. `set` values in the order in which they came; `value` reads it."""

    def __init__(self) -> None:
        self._root: dict[str, Any] = {}
        self._open: dict[str, _Text] = {}
        self.count = 0

    def set(self, path: str, value: Any, *, more: bool) -> None:
        """A value at ``path``; a string continues the one that was left open there."""
        self.count += 1
        open_text = self._open.get(path)
        if open_text is not None and isinstance(value, str):
            open_text.pieces.append(value)
            if not more:
                del self._open[path]
            return
        if more and isinstance(value, str):
            value = self._open[path] = _Text(value)
        self._put(_steps(path), value)

    def value(self) -> dict[str, Any]:
        """The object, with its open strings as far as they came."""
        return cast(dict[str, Any], _plain(self._root))

    @property
    def open(self) -> bool:
        """Whether a string is still being written."""
        return bool(self._open)

    def _put(self, steps: list[str | int], value: Any) -> None:
        at: Any = self._root
        for step, following in zip(steps, [*steps[1:], None], strict=True):
            last = following is None
            fresh: Any = value if last else ([] if isinstance(following, int) else {})
            if isinstance(step, int):
                at = _item(at, step, fresh, last)
            else:
                if not isinstance(at, dict):
                    raise ValueError("a patch sets a field of a value that is not an object")
                fields = cast(dict[str, Any], at)
                if last or step not in fields:
                    fields[step] = fresh
                at = fields[step]


def _item(at: Any, step: int, fresh: Any, last: bool) -> Any:
    if not isinstance(at, list):
        raise ValueError("a patch sets an index of a value that is not a list")
    entries = cast(list[Any], at)
    if step > len(entries) + _MOST_GAP:
        raise ValueError("a patch skips far beyond the end of a list")
    while len(entries) <= step:
        entries.append(None)
    if last or entries[step] is None:
        entries[step] = fresh
    return entries[step]


def _steps(path: str) -> list[str | int]:
    if not path.startswith("$"):
        raise ValueError("a patch's path does not begin with '$'")
    steps: list[str | int] = []
    at = 1
    while at < len(path):
        match = _STEP.match(path, at)
        if match is None or len(steps) >= _MOST_DEPTH:
            raise ValueError("a patch's path cannot be read")
        name, index, _, quoted = match.groups()
        steps.append(int(index) if index is not None else (name or quoted or ""))
        at = match.end()
    if not steps:
        raise ValueError("a patch's path is empty")
    return steps


def _plain(value: Any) -> Any:
    if isinstance(value, _Text):
        return clean("".join(value.pieces))
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in cast(dict[str, Any], value).items()}
    if isinstance(value, list):
        return [_plain(v) for v in cast(list[Any], value)]
    return value
