"""Bytes of one response to JSON payloads, whichever framing they came in.

Always true: what the first bytes are decides over what the content type says; the same bytes give
the same frames however they are cut; every buffer has a bound.

Read are: server-sent events, newline-delimited JSON, one JSON array, one JSON body (also over many
lines), and AWS event streams (whose payloads may hold base64 of the real one).
"""

from __future__ import annotations

import base64
import binascii

from tokenwire.errors import FramingError
from tokenwire.framing.aws_eventstream import EventStreamDecoder, Message
from tokenwire.framing.json_array import JSONValueDecoder
from tokenwire.framing.jsonl import LineDecoder
from tokenwire.framing.sse import Frame, SSEDecoder
from tokenwire.providers.decoding.pages import MOST_PAGE_BYTES, is_page_clear
from tokenwire.providers.decoding.values import load, obj, text_of

__all__ = ["PayloadReader"]

#: One payload may hold a whole image in base64; a 4K picture is about 20 MB of it.
MOST_PAYLOAD_BYTES = 32 << 20
_BOM = b"\xef\xbb\xbf"
_HEAD = 160
#: What may precede the first payload of an event stream.
_BLANK = b" \t\r\n\xef\xbb\xbf"

_Reader = SSEDecoder | LineDecoder | JSONValueDecoder | EventStreamDecoder


class PayloadReader:
    """An incremental reader of frames. ``kind`` is known after the first bytes: ``sse``,
    ``lines``, ``values``, ``eventstream``, or ``html`` (a page, not an answer)."""

    __slots__ = (
        "_reader",
        "_undecided",
        "_undecided_size",
        "head",
        "kind",
        "page",
        "page_is_clear",
        "sse",
    )

    def __init__(self, content_type: str | None = None) -> None:
        media_type = (content_type or "").partition(";")[0].strip().lower()
        self.kind = "eventstream" if media_type == "application/vnd.amazon.eventstream" else ""
        #: The first bytes, for a message about an answer that holds no payload. Of an event stream
        #: only whether there were any: `SSEDecoder` keeps the words that are no field.
        self.head = b""
        self._reader: _Reader | None = EventStreamDecoder() if self.kind else None
        #: Once ``kind`` is ``sse``: who reads the bytes that come now.
        self.sse: SSEDecoder | None = None
        #: The first bytes of an answer that is a page, and whether they say why it came.
        self.page = b""
        self.page_is_clear = False
        self._undecided: list[bytes] | None = None
        self._undecided_size = 0

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that these bytes complete."""
        if len(self.head) < _HEAD:
            self.head += data[: _HEAD - len(self.head)]
        reader = self._reader
        if reader is None:
            return self._begin(data)
        return self._frames(reader, data)

    def block(self, data: bytes) -> Frame | None:
        """The frame that ``data`` would complete now, if it is just one whole block, or one line of
        an answer of lines, and nothing is pending. Changes nothing."""
        reader = self._reader
        if isinstance(reader, SSEDecoder):
            return reader.block(data)
        line = reader.line(data) if isinstance(reader, LineDecoder) else None
        return None if line is None else Frame(line)

    def finish(self) -> list[Frame]:
        """The end of the bytes: what was not yet complete but may be whole."""
        reader = self._reader
        if reader is None:
            if self.kind != "html" and self._undecided:
                return self._release("values")
            return []
        if isinstance(reader, SSEDecoder):
            return reader.finish()
        if isinstance(reader, EventStreamDecoder):
            frames = [_aws_frame(message) for message in reader.finish()]
        else:
            frames = [Frame(data) for data in reader.finish()]
        for frame in frames:
            frame.unterminated = True
        return frames

    @property
    def comments(self) -> int:
        """Comment lines so far (keep-alives)."""
        return self.sse.comments if self.sse is not None else 0

    @property
    def open_line(self) -> bytes:
        """The bytes of a line whose end has not come, in an answer of lines."""
        return self._reader.rest if isinstance(self._reader, LineDecoder) else b""

    @property
    def words(self) -> str:
        """The first words of an answer that is no stream."""
        words = self.sse.stray_text if self.sse is not None else self.head
        return words.strip().decode("utf-8", "replace")

    @property
    def cut(self) -> bool:
        """Whether the bytes ended inside a value or a message."""
        reader = self._reader
        is_binary = isinstance(reader, EventStreamDecoder | JSONValueDecoder)
        return bool(self._undecided) or (is_binary and reader.cut)

    def _begin(self, data: bytes) -> list[Frame]:
        """Choose the framing by the first bytes; buffer them until they are decisive."""
        if self.kind == "html":
            return self._turn_page(data)
        if self.kind == "object":
            return self._lines_or_values(data)
        if not self._undecided and data[:1] != b"\0":
            data = data.lstrip(b" \t\r\n")
        if not data:
            return []
        head = b"".join([*(self._undecided or ()), data])
        self._undecided = [head]
        start = head.removeprefix(_BOM).lstrip(b" \t\r\n")[:1]
        if not start or (len(head) < 3 and _BOM.startswith(head)):
            if len(head) > _HEAD:  # nothing but blanks after a byte-order mark
                return self._release("sse")
            return []
        if start == b"{":
            self.kind, self._undecided = "object", None
            return self._lines_or_values(head)
        if start == b"<":
            self.kind, self._undecided = "html", None
            return self._turn_page(head)
        return self._release({b"\0": "eventstream", b"[": "values"}.get(start, "sse"))

    def _turn_page(self, data: bytes) -> list[Frame]:
        if not self.page_is_clear:
            self.page = (self.page + data)[:MOST_PAGE_BYTES]
            self.page_is_clear = is_page_clear(self.page)
        return []

    def _lines_or_values(self, data: bytes) -> list[Frame]:
        """An object begins: one per line, or one over many lines. The first line decides."""
        undecided = self._undecided = self._undecided or []
        undecided.append(data)
        self._undecided_size += len(data)
        if b"\n" not in data:
            if self._undecided_size > MOST_PAYLOAD_BYTES:
                raise FramingError(
                    f"a JSON value is longer than {MOST_PAYLOAD_BYTES} bytes",
                    limit="value",
                    most=MOST_PAYLOAD_BYTES,
                )
            return []
        head = b"".join(undecided)
        try:
            load(head.removeprefix(_BOM).lstrip(b" \t\r\n").partition(b"\n")[0])
        except ValueError:
            return self._release("values")
        return self._release("lines")

    def _release(self, kind: str) -> list[Frame]:
        head, self._undecided = b"".join(self._undecided or ()), None
        reader = self._reader = self._use(kind)
        return self._frames(reader, head)

    def _use(self, kind: str) -> _Reader:
        self.kind = kind
        if kind == "sse":
            most = MOST_PAYLOAD_BYTES
            self.sse = SSEDecoder(max_line=most, max_event=most, error_field=True)
            self.head = self.head.strip(_BLANK)[:1]
            return self.sse
        if kind == "lines":
            return LineDecoder(MOST_PAYLOAD_BYTES)
        if kind == "values":
            return JSONValueDecoder(MOST_PAYLOAD_BYTES)
        return EventStreamDecoder()

    def _frames(self, reader: _Reader, data: bytes) -> list[Frame]:
        if isinstance(reader, SSEDecoder):
            return reader.feed(data)
        if isinstance(reader, EventStreamDecoder):
            return [_aws_frame(message) for message in reader.feed(data)]
        return [Frame(value) for value in reader.feed(data)]


def _aws_frame(message: Message) -> Frame:
    """A message of an AWS event stream as a frame; an exception's name is kept in the event."""
    kind = text_of(message.headers.get(":message-type"))
    if kind in ("exception", "error"):
        name = message.headers.get(":exception-type") or message.headers.get(":error-code")
        data = message.payload or b"{}"
        return Frame(data, f"exception:{text_of(name) or kind}")
    event = text_of(message.headers.get(":event-type"))
    if event != "chunk":
        return Frame(message.payload, event or "message")
    try:
        inner = obj(load(message.payload)).get("bytes")
        data = base64.b64decode(inner, validate=True) if isinstance(inner, str) else b""
    except (ValueError, binascii.Error):
        raise FramingError("a chunk of the event stream holds no base64 bytes") from None
    return Frame(data or message.payload)
