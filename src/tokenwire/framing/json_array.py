"""Bytes that hold JSON values one after another, or one JSON array, to the text of each value.

Always true: the same bytes give the same values however they are cut; values may span lines; the
work is linear in the bytes; a value over its bound raises `FramingError`.

Gemini streams one array (``[{...}\\n,\\n{...}]``) when it is not asked for server-sent events; an
error body is one object over many lines. Both are read here: elements of a top-level array and
top-level values alike.
"""

from __future__ import annotations

import re

from tokenwire.errors import FramingError

__all__ = ["JSONValueDecoder"]

_BOM = b"\xef\xbb\xbf"
_IN_STRING = re.compile(rb'["\\]')
_OUTSIDE = re.compile(rb'["{}\[\]]')
_BETWEEN = re.compile(rb"[^\s,]")


class JSONValueDecoder:
    """An incremental splitter. ``max_value`` bounds one value's bytes. Only objects and arrays
    count as values; ``stray`` counts other bytes between them. ``ended``: a top-level array was
    closed."""

    def __init__(self, max_value: int = 32 << 20) -> None:
        self.max_value = max_value
        self.stray = 0
        self.ended = False
        self._pieces: list[bytes] = []
        self._size = 0
        self._depth = 0
        self._in_array = False
        self._started = False
        self._in_string = False
        self._escaped = False

    def feed(self, data: bytes) -> list[bytes]:
        """The values that these bytes complete."""
        values: list[bytes] = []
        at, size = 0, len(data)
        while at < size:
            if self._depth == 0:
                at = self._between(data, at)
                continue
            start, at, is_whole = at, *self._inside(data, at)
            self._pieces.append(data[start:at])
            self._size += at - start
            if self._size > self.max_value:
                raise FramingError(
                    f"a JSON value is longer than {self.max_value} bytes",
                    limit="value",
                    most=self.max_value,
                )
            if is_whole:
                values.append(b"".join(self._pieces))
                self._pieces, self._size = [], 0
        return values

    def finish(self) -> list[bytes]:
        """The end of the bytes: nothing more; a value that was cut off is not a value."""
        self._pieces, self._size = [], 0
        return []

    @property
    def cut(self) -> bool:
        """Whether a value or the array is still open."""
        return self._depth > 0 or (self._in_array and not self.ended)

    def _between(self, data: bytes, at: int) -> int:
        """Move over what separates values; the index of the next value, or the end."""
        while (match := _BETWEEN.search(data, at)) is not None:
            at = match.end()
            byte = match.group()
            if byte == b"{" or (byte == b"[" and (self._started or self._in_array)):
                self._started = True
                self._depth = 1
                self._pieces.append(byte)
                self._size = 1
                return at
            if byte == b"[":
                self._started = self._in_array = True
            elif byte == b"]" and self._in_array:
                self.ended = True
            elif byte not in _BOM:
                self.stray += 1
        return len(data)

    def _inside(self, data: bytes, at: int) -> tuple[int, bool]:
        """Move on inside a value: where it, or the data, ends, and whether it ended."""
        size = len(data)
        while at < size:
            if self._in_string:
                if self._escaped:
                    self._escaped = False
                    at += 1
                    continue
                match = _IN_STRING.search(data, at)
                if match is None:
                    return size, False
                at = match.end()
                if match.group() == b"\\":
                    self._escaped = True
                else:
                    self._in_string = False
                continue
            match = _OUTSIDE.search(data, at)
            if match is None:
                return size, False
            at = match.end()
            byte = match.group()
            if byte == b'"':
                self._in_string = True
            elif byte in b"{[":
                self._depth += 1
            else:
                self._depth -= 1
                if self._depth == 0:
                    return at, True
        return size, False
