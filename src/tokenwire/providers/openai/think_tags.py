"""Text that holds its reasoning between ``<think>`` and ``</think>``, split into the two.

Always true: only a tag that begins the answer opens its reasoning, so that an answer about tags is
never hidden; a tag that is cut over pieces is recognised; what only looks like the beginning of a
tag is held back until it is clear and then emitted; nothing is lost but the tags themselves.
"""

from __future__ import annotations

from typing import Literal

__all__ = ["Kind", "ThinkSplitter"]

Kind = Literal["text", "reasoning"]
_OPEN, _CLOSE = "<think>", "</think>"
#: White space that may come before a tag; each piece of it is looked at again with the next.
_MOST_BLANK = 1024


class ThinkSplitter:
    """An incremental splitter of one choice's text. ``begins_open``: the server leaves out the
    first ``<think>``, so the answer begins with reasoning."""

    def __init__(self, *, begins_open: bool = False) -> None:
        self._kind: Kind = "reasoning" if begins_open else "text"
        #: Only white space came so far: here ``<think>`` is a tag.
        self._at_start = True
        #: A ``</think>`` came, or text that needs none: what follows is text as it is.
        self._is_over = False
        self._pending = ""

    def feed(self, piece: str) -> list[tuple[Kind, str]]:
        """The pieces that are clear now, in order."""
        data, self._pending = self._pending + piece, ""
        pieces: list[tuple[Kind, str]] = []
        if self._at_start and not self._is_over:
            data = self._start(data, pieces)
        while data and not self._is_over:
            before, tag, rest = data.partition(_CLOSE)
            if not tag:
                keep = _begun_tag(data, _CLOSE)
                self._pending = data[len(data) - keep :]
                before = data[: len(data) - keep]
            if before:
                pieces.append((self._kind, before))
            if tag:
                self._kind, self._is_over = "text", True
            data = rest
        if data:
            pieces.append(("text", data))
        return pieces

    def finish(self) -> list[tuple[Kind, str]]:
        """What was held back, at the end."""
        rest, self._pending = self._pending, ""
        return [(self._kind, rest)] if rest else []

    def _start(self, data: str, pieces: list[tuple[Kind, str]]) -> str:
        """Read the beginning of the answer; the rest, once it is clear what it is."""
        blank = data[: len(data) - len(data.lstrip())]
        rest = data[len(blank) :]
        if rest.startswith(_OPEN):
            self._at_start, self._kind = False, "reasoning"
            if blank:
                pieces.append(("text", blank))
            return rest[len(_OPEN) :]
        if _OPEN.startswith(rest) and len(blank) <= _MOST_BLANK:
            self._pending = data
            return ""
        self._at_start = False
        return data


def _begun_tag(data: str, tag: str) -> int:
    """How many characters at the end of ``data`` may begin ``tag``."""
    for size in range(min(len(tag) - 1, len(data)), 0, -1):
        if tag.startswith(data[-size:]):
            return size
    return 0
