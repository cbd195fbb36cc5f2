"""Bytes of a text/event-stream to frames and back (WHATWG HTML, "Server-sent events").

Always true: the same bytes give the same frames however they are cut; the work is linear in the
bytes, also for one long line in tiny pieces; a line or an event over its bound raises
`FramingError` after the frames before it were given out; data keeps the bytes that came.
"""

from __future__ import annotations

import msgspec

from tokenwire.errors import FramingError

__all__ = ["ERROR_FIELD", "Frame", "SSEDecoder", "encode_comment", "encode_frame"]

#: The name of a block whose data came in a field ``error``.
ERROR_FIELD = ":error"

_BOM = b"\xef\xbb\xbf"
#: A line's bound counts its value; this much more is granted for the field's name and colon.
_FIELD_ROOM = 16
#: No reconnection time worth keeping has more digits; `int` refuses more than 4,300.
_MOST_RETRY_DIGITS = 18
#: Decoded event names in the cache: no wire has more, and the bound protects the memory.
_MOST_NAMES, _LONGEST_NAME = 64, 80
#: Characters of lines that are no field which are kept: they may say why there is no stream.
_MOST_STRAY = 400
#: The lists and names of a stream that has none yet; nothing is ever put into them.
_NONE: list[bytes] = []
_NO_NAMES: dict[bytes, str] = {}


class Frame(msgspec.Struct, gc=False):
    """One dispatched block. ``id`` is the last event ID at that moment; ``unterminated`` marks a
    block that the end of the stream cut off before its blank line."""

    data: bytes
    event: str = "message"
    id: str = ""
    unterminated: bool = False

    @property
    def text(self) -> str:
        """The data as text; invalid UTF-8 becomes U+FFFD as the standard says."""
        return self.data.decode("utf-8", "replace")


class SSEDecoder:
    """An incremental reader of one stream.

    ``max_line`` bounds a line's value, ``max_event`` the joined data of one event.
    ``last_event_id`` and ``retry_ms`` are what a reconnecting reader uses; ``comments`` counts
    comment lines (keep-alives) and ``stray`` lines that are not a field, whose first bytes are
    ``stray_text``. With ``error_field`` a
    field ``error`` is the data of an event `ERROR_FIELD`, as some model servers send it.
    """

    __slots__ = (
        "_at_start",
        "_clear",
        "_data",
        "_data_size",
        "_error",
        "_error_field",
        "_event",
        "_fast_bound",
        "_id",
        "_line_bound",
        "_more",
        "_names",
        "_pieces",
        "_pieces_size",
        "_skip_lf",
        "comments",
        "last_event_id",
        "max_event",
        "max_line",
        "retry_ms",
        "stray",
        "stray_text",
    )

    def __init__(
        self, *, max_line: int = 1 << 20, max_event: int = 4 << 20, error_field: bool = False
    ) -> None:
        self._error_field = error_field
        self.max_line = max_line
        self.max_event = max_event
        self.last_event_id = ""
        self.retry_ms: int | None = None
        self.comments = 0
        self.stray = 0
        self.stray_text = b""
        self._line_bound = max_line + _FIELD_ROOM
        self._fast_bound = min(max_line, max_event)
        self._pieces = _NONE  # of a line whose end has not come; joined once
        self._pieces_size = 0
        self._clear = False  # between two blocks: nothing is pending but perhaps a line's pieces
        self._at_start = True
        self._skip_lf = False  # the last read ended in CR; an LF that follows belongs to it
        self._data: bytes | None = None
        self._more = _NONE  # data lines after the first
        self._data_size = 0
        self._event = ""
        self._names = _NO_NAMES
        self._id = ""
        self._error: FramingError | None = None

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that these bytes complete."""
        # A steady stream brings one block of one data line per read: most reads end here.
        end = len(data) - 2
        if (
            self._clear
            and not self._pieces
            and data[-1:] == b"\n"
            and end < self._fast_bound
            and b"\r" not in data
        ):
            first = data.find(b"\n")
            if first == end:
                if data[:6] == b"data: ":
                    return [Frame(data[6:-2], "message", self._id)]
            elif (
                data[:7] == b"event: "
                and data[first + 1 : first + 7] == b"data: "
                and data.find(b"\n", first + 1) == end
            ):
                line = data[:first]
                name = self._names.get(line) or self._name(line)
                return [Frame(data[first + 7 : -2], name or "message", self._id)]
        return self._feed(data)

    def block(self, data: bytes) -> Frame | None:
        """The frame that ``data`` would complete now, if it is just one block of ``event``, ``id``
        and ``data`` lines, and nothing is pending. Changes nothing."""
        if not self._clear or self._pieces or len(data) > self._fast_bound:
            return None
        fresh = SSEDecoder(max_line=self.max_line, max_event=self.max_event)
        fresh._clear, fresh._at_start, fresh._id = True, False, self._id
        fresh.last_event_id = self._id
        frames = fresh.feed(data)
        is_plain = fresh._clear and not fresh._pieces and fresh.retry_ms is None
        is_plain = is_plain and not (fresh.comments or fresh.stray)
        return frames[0] if len(frames) == 1 and is_plain else None

    def _feed(self, data: bytes) -> list[Frame]:
        if self._error is not None:
            raise self._error
        if self._skip_lf and data:
            self._skip_lf = False
            if data[0] == 10:
                data = data[1:]
        if b"\r" in data:
            self._skip_lf = data[-1] == 13
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        lines = data.split(b"\n")
        rest = lines.pop()
        frames: list[Frame] = []
        self._clear = False
        try:
            if lines:
                if self._pieces:
                    lines[0] = self._joined(lines[0])
                if self._at_start:
                    self._at_start = False
                    lines[0] = lines[0].removeprefix(_BOM)
                self._read(lines, frames)
            if rest:
                if self._pieces is _NONE:
                    self._pieces = []
                self._pieces.append(rest)
                self._pieces_size += len(rest)
                if self._pieces_size > self._line_bound:
                    raise self._too_long("line", self.max_line)
        except FramingError as error:
            self._error = error
            if not frames:
                raise
            return frames
        self._clear = self._data is None and not self._event and not self._skip_lf and bool(lines)
        self._clear = self._clear and self.last_event_id == self._id
        return frames

    def finish(self) -> list[Frame]:
        """The end of the stream. A block with data that lacks its blank line comes as a frame
        marked ``unterminated``; the standard drops it."""
        if self._error is not None:
            error, self._error = self._error, None
            self._pieces, self._data, self._more = _NONE, None, _NONE
            raise error
        frames: list[Frame] = []
        if self._pieces:
            line = self._joined(b"")
            if self._at_start:
                line = line.removeprefix(_BOM)
            self._read([line], frames)
        if self._data is not None:
            frames.append(Frame(self._whole(), self._event or "message", self._id, True))
            self._data, self._more = None, _NONE
        return frames

    def _joined(self, last: bytes) -> bytes:
        line = b"".join([*self._pieces, last])
        self._pieces, self._pieces_size = _NONE, 0
        return line

    def _read(self, lines: list[bytes], frames: list[Frame]) -> None:
        bound = self.max_line
        for line in lines:
            if not line:
                if self._data is not None:
                    if self._more:
                        frames.append(Frame(self._whole(), self._event or "message", self._id))
                        self._more = _NONE
                    else:
                        frames.append(Frame(self._data, self._event or "message", self._id))
                    self._data = None
                self._event = ""
                self.last_event_id = self._id
            elif len(line) > bound and self._exceeds(line):
                raise self._too_long("line", bound)
            elif line[:5] == b"data:":
                value = line[6:] if line[5:6] == b" " else line[5:]
                if self._data is None and len(value) <= self.max_event:
                    self._data, self._data_size = value, len(value)
                else:
                    self._add_data(value)
            elif line[:7] == b"event: ":
                name = self._names.get(line)
                self._event = self._name(line) if name is None else name
            elif line[0] == 58:
                self.comments += 1
            else:
                self._field(line)

    def _exceeds(self, line: bytes) -> bool:
        """Whether a line's value, or its name, is longer than it may be."""
        _, colon, value = line.partition(b":")
        size = len(value) - value.startswith(b" ") if colon else len(line)
        return size > self.max_line or len(line) > self._line_bound

    def _add_data(self, value: bytes) -> None:
        if self._data is None:
            self._data = value
            self._data_size = len(value)
        else:
            if self._more is _NONE:
                self._more = []
            self._more.append(value)
            self._data_size += len(value) + 1
        if self._data_size > self.max_event:
            raise self._too_long("event", self.max_event)

    def _whole(self) -> bytes:
        assert self._data is not None
        return b"\n".join([self._data, *self._more])

    def _name(self, line: bytes) -> str:
        """An event's name; the few that a stream has are decoded once."""
        name = line[7:].decode("utf-8", "replace")
        if len(self._names) < _MOST_NAMES and len(line) < _LONGEST_NAME:
            if self._names is _NO_NAMES:
                self._names = {}
            self._names[line] = name
        return name

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        if value[:1] == b" ":
            value = value[1:]
        if name == b"event":
            self._event = value.decode("utf-8", "replace")
        elif name == b"id":
            if b"\0" not in value:
                self._id = value.decode("utf-8", "replace")
        elif name == b"data":
            self._add_data(value)
        elif name == b"error" and self._error_field:
            self._event = ERROR_FIELD
            self._add_data(value)
        elif name == b"retry":
            digits = value.lstrip(b"0") or value[:1]
            if value.isdigit() and len(digits) <= _MOST_RETRY_DIGITS:
                self.retry_ms = int(digits)
        else:
            self.stray += 1
            if len(self.stray_text) < _MOST_STRAY:
                self.stray_text += line[:_MOST_STRAY] + b"\n"

    def _too_long(self, what: str, most: int) -> FramingError:
        return FramingError(
            f"an event stream's {what} is longer than {most} bytes", limit=what, most=most
        )


def encode_frame(
    data: bytes | str,
    *,
    event: str | None = None,
    id: str | None = None,  # noqa: A002 - the wire's own word
    retry: int | None = None,
) -> bytes:
    """One block with LF line ends. Line breaks in ``data`` become several data lines; CR, LF and
    NUL in ``event`` or ``id`` raise `ValueError`, since they would forge fields."""
    body = data.encode() if isinstance(data, str) else data
    head = b""
    if id is not None:
        head = b"id: " + _one_line("id", id) + b"\n"
    if event is not None:
        head += b"event: " + _one_line("event", event) + b"\n"
    if retry is not None:
        if retry < 0:
            raise ValueError("'retry' must not be negative")
        head += b"retry: %d\n" % retry
    if b"\r" in body:
        body = body.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if b"\n" in body:
        body = body.replace(b"\n", b"\ndata: ")
    return head + b"data: " + body + b"\n\n"


def encode_comment(text: str = "") -> bytes:
    """A comment, which readers skip: a keep-alive. Line breaks raise `ValueError`."""
    return b": " + _one_line("comment", text) + b"\n\n"


def _one_line(what: str, value: str) -> bytes:
    if "\n" in value or "\r" in value or "\0" in value:
        raise ValueError(f"'{what}' must not hold a line break or NUL")
    return value.encode()
