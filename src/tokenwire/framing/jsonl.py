"""Bytes of newline-delimited JSON to lines.

Always true: the same bytes give the same lines however they are cut; blank lines are dropped; the
work is linear in the bytes; a line over its bound raises `FramingError` after the lines before it
were given out.
"""

from __future__ import annotations

from tokenwire.errors import FramingError

__all__ = ["LineDecoder"]

_BOM = b"\xef\xbb\xbf"
_BLANK = b" \t\r"


class LineDecoder:
    """An incremental reader of lines ended by LF or CRLF; ``max_line`` bounds each."""

    def __init__(self, max_line: int = 4 << 20) -> None:
        self.max_line = max_line
        self._pieces: list[bytes] = []
        self._size = 0
        self._at_start = True
        self._error: FramingError | None = None

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that these bytes complete, without their ends."""
        if self._error is not None:
            raise self._error
        lines = data.split(b"\n")
        rest = lines.pop()
        ready: list[bytes] = []
        if lines:
            self._pieces.append(lines[0])
            lines[0] = b"".join(self._pieces)
            self._pieces, self._size = [], 0
            if self._at_start:
                self._at_start = False
                lines[0] = lines[0].removeprefix(_BOM)
        for line in lines:
            if len(line) > self.max_line:
                return self._fail(ready)
            if bare := line.strip(_BLANK):
                ready.append(bare)
        if rest:
            self._pieces.append(rest)
            self._size += len(rest)
            if self._size > self.max_line:
                return self._fail(ready)
        return ready

    def line(self, data: bytes) -> bytes | None:
        """The line that ``data`` would complete now, if it is just one with its end, and nothing is
        pending. Changes nothing."""
        if self._at_start or self._pieces or self._error is not None:
            return None
        if data.find(b"\n") != len(data) - 1 or len(data) > self.max_line:
            return None
        return data[:-1].strip(_BLANK) or None

    @property
    def rest(self) -> bytes:
        """The bytes of the line whose end has not come."""
        return b"".join(self._pieces)

    def finish(self) -> list[bytes]:
        """The last line, when the stream ended without a line end."""
        if self._error is not None:
            error, self._error = self._error, None
            self._pieces = []
            raise error
        line = b"".join(self._pieces)
        self._pieces = []
        if self._at_start:
            line = line.removeprefix(_BOM)
        line = line.strip(_BLANK)
        return [line] if line else []

    def _fail(self, ready: list[bytes]) -> list[bytes]:
        """Give out what came before; the error follows with the next call."""
        self._error = FramingError(
            f"a line is longer than {self.max_line} bytes", limit="line", most=self.max_line
        )
        if not ready:
            raise self._error
        return ready
