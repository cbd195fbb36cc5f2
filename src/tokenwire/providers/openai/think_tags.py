"""Text that holds its reasoning between ``<think>`` and ``</think>``, split into the two.

Always true: a tag that is cut over pieces is recognised; what only looks like the beginning of a
tag is held back until it is clear and then given out; nothing is lost but the tags themselves.
"""

from __future__ import annotations

from typing import Literal

__all__ = ["Kind", "ThinkSplitter"]

Kind = Literal["text", "reasoning"]


class ThinkSplitter:
    """An incremental splitter of one choice's text."""

    def __init__(self) -> None:
        self._kind: Kind = "text"
        self._pending = ""

    def feed(self, piece: str) -> list[tuple[Kind, str]]:
        """The pieces that are clear now, in order."""
        data, pieces = self._pending + piece, list[tuple[Kind, str]]()
        self._pending = ""
        while data:
            tag = "<think>" if self._kind == "text" else "</think>"
            before, matched, rest = data.partition(tag)
            if not matched:
                keep = _tag_begun(data, tag)
                self._pending = data[len(data) - keep :]
                before = data[: len(data) - keep]
            if before:
                pieces.append((self._kind, before))
            if not matched:
                break
            self._kind = "reasoning" if self._kind == "text" else "text"
            data = rest
        return pieces

    def finish(self) -> list[tuple[Kind, str]]:
        """What was held back, at the end."""
        rest, self._pending = self._pending, ""
        return [(self._kind, rest)] if rest else []


def _tag_begun(data: str, tag: str) -> int:
    """How many characters at the end of ``data`` may begin ``tag``."""
    for size in range(min(len(tag) - 1, len(data)), 0, -1):
        if tag.startswith(data[-size:]):
            return size
    return 0
