"""Bytes of one response to JSON payloads, whichever framing they came in.

Always true: what the first bytes are decides over what the content type says; the same bytes give
the same frames however they are cut; every buffer has a bound.

Read are: server-sent events, newline-delimited JSON, one JSON array, one JSON body (also over many
lines), and AWS event streams (whose payloads may hold base64 of the real one).
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

from tokenwire.errors import FramingError
from tokenwire.framing.aws_eventstream import EventStreamDecoder, Message
from tokenwire.framing.json_array import JSONValueDecoder
from tokenwire.framing.jsonl import LineDecoder
from tokenwire.framing.sse import Frame, SSEDecoder
from tokenwire.providers.decoding.parts import load, obj, text_of

__all__ = ["PayloadReader"]

#: One payload may hold a whole image in base64; a 4K picture is about 20 MB of it.
MOST_PAYLOAD_BYTES = 32 << 20
_BOM = b"\xef\xbb\xbf"
_HEAD = 160


class PayloadReader:
    """An incremental reader of frames. ``kind`` is known after the first bytes: ``sse``,
    ``lines``, ``values``, ``eventstream``, or ``html`` (a page, which is no answer)."""

    def __init__(self, content_type: str | None = None) -> None:
        media_type = (content_type or "").partition(";")[0].strip().lower()
        self.kind = "eventstream" if media_type == "application/vnd.amazon.eventstream" else ""
        #: The first bytes, for a message about an answer that holds no payload.
        self.head = b""
        self._reader: Any = EventStreamDecoder() if self.kind else None
        #: Once ``kind`` is ``sse``: who reads the bytes that come now.
        self.sse: SSEDecoder | None = None
        self._held: list[bytes] = []
        self._held_size = 0

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that these bytes complete."""
        if len(self.head) < _HEAD:
            self.head += data[: _HEAD - len(self.head)]
        reader = self._reader
        if reader is None:
            return self._begin(data)
        if self.kind == "sse":
            return reader.feed(data)
        return self._frames(reader.feed(data))

    def finish(self) -> list[Frame]:
        """The end of the bytes: what was not yet complete but may be whole."""
        if self._reader is None:
            if self.kind != "html" and self._held:
                held, self._held = b"".join(self._held), []
                self._use("values")
                reader: Any = self._reader
                return self._frames(reader.feed(held))
            return []
        if self.kind == "sse":
            return self._reader.finish()
        frames = self._frames(self._reader.finish())
        for frame in frames:
            frame.unterminated = True
        return frames

    @property
    def comments(self) -> int:
        """Comment lines so far (keep-alives)."""
        return self._reader.comments if self.kind == "sse" else 0

    @property
    def stray(self) -> int:
        """Lines of an event stream so far that are no field."""
        return self._reader.stray if self.kind == "sse" else 0

    @property
    def cut(self) -> bool:
        """Whether the bytes ended inside a value or a message."""
        return bool(self._held) or bool(getattr(self._reader, "cut", False))

    def _begin(self, data: bytes) -> list[Frame]:
        """Choose by the first bytes; hold them until they can be told apart."""
        if self.kind == "html":
            return []
        if self.kind == "object":
            return self._lines_or_values(data)
        if not self._held and data[:1] != b"\0":
            data = data.lstrip(b" \t\r\n")
        if not data:
            return []
        held = b"".join([*self._held, data])
        self._held = [held]
        start = held.removeprefix(_BOM).lstrip(b" \t\r\n")[:1]
        if not start or (len(held) < 3 and _BOM.startswith(held)):
            if len(held) > _HEAD:  # nothing but blanks after a byte-order mark
                return self._release("sse")
            return []
        if start == b"{":
            self.kind, self._held = "object", []
            return self._lines_or_values(held)
        if start == b"<":
            self.kind, self._held = "html", []
            return []
        return self._release({b"\0": "eventstream", b"[": "values"}.get(start, "sse"))

    def _lines_or_values(self, data: bytes) -> list[Frame]:
        """An object begins: either one a line, or one over many lines. The first line tells."""
        self._held.append(data)
        self._held_size += len(data)
        if b"\n" not in data:
            if self._held_size > MOST_PAYLOAD_BYTES:
                raise FramingError(
                    f"a JSON value is longer than {MOST_PAYLOAD_BYTES} bytes",
                    limit="value",
                    most=MOST_PAYLOAD_BYTES,
                )
            return []
        held = b"".join(self._held)
        try:
            load(held.removeprefix(_BOM).lstrip(b" \t\r\n").partition(b"\n")[0])
        except ValueError:
            return self._release("values")
        return self._release("lines")

    def _release(self, kind: str) -> list[Frame]:
        held, self._held = b"".join(self._held), []
        self._use(kind)
        found = self._reader.feed(held)
        return found if kind == "sse" else self._frames(found)

    def _use(self, kind: str) -> None:
        self.kind = kind
        if kind == "sse":
            self.sse = SSEDecoder(max_line=MOST_PAYLOAD_BYTES, max_event=MOST_PAYLOAD_BYTES)
            self._reader = self.sse
        elif kind == "lines":
            self._reader = LineDecoder(MOST_PAYLOAD_BYTES)
        elif kind == "values":
            self._reader = JSONValueDecoder(MOST_PAYLOAD_BYTES)
        else:
            self._reader = EventStreamDecoder()

    def _frames(self, found: list[Any]) -> list[Frame]:
        if self.kind == "eventstream":
            return [_aws_frame(message) for message in found]
        return [Frame(data) for data in found]


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
