"""The Durable Streams protocol's own words: offsets, cursors, JSON batches, SSE frames.

Always true: an offset is 16 digits, ``_``, 16 digits, and grows with every append; a control event
follows every data event, in the same bytes; a JSON data event is a whole array; text is split on
CR, LF and CRLF, so that no text ends a line that it did not begin.
"""

from __future__ import annotations

import base64
import random
import re
from typing import Any

import msgspec

from tokenwire.errors import InputError
from tokenwire.wire.chunk_encoder import clean, dumps

__all__ = [
    "BEGIN",
    "content_kind",
    "control_frame",
    "cursor_at",
    "data_frame",
    "flatten",
    "media_type",
    "offset_text",
    "position_of",
    "whole_number",
]

BEGIN = "-1"
_OFFSET = re.compile(r"\A(\d{16})_(\d{16})\Z")
_DIGITS = re.compile(r"\A(?:0|[1-9]\d{0,15})\Z")
_LINE = re.compile(rb"\r\n|\r|\n")
#: Unix seconds of 2024-10-09T00:00Z, where the protocol's cache cursors begin.
_CURSOR_EPOCH = 1_728_432_000
_CURSOR_SECONDS = 20


def offset_text(position: int) -> str:
    """The offset of a position in a stream."""
    return f"{0:016d}_{position:016d}"


def position_of(offset: str) -> int:
    """The position that an offset names. Raises `InputError` for what no server of ours minted."""
    match = _OFFSET.match(offset)
    if match is None:
        raise InputError("the offset is malformed; send one that this server gave", field="offset")
    first, second = int(match[1]), int(match[2])
    return second if first == 0 else first * 10**16 + second


def whole_number(text: str, name: str) -> int:
    """Strict digits without leading zeros, at most 2^53 - 1."""
    if not _DIGITS.match(text) or int(text) > (1 << 53) - 1:
        raise InputError(f"'{name}' must be a whole number", field=name)
    return int(text)


def media_type(content_type: str) -> str:
    """A content type without its parameters, in lower case."""
    return content_type.partition(";")[0].strip().lower()


def content_kind(content_type: str) -> str:
    """How a stream of this type is framed: ``json``, ``text``, or ``binary``."""
    kind = media_type(content_type)
    if kind == "application/json":
        return "json"
    return "text" if kind.startswith("text/") else "binary"


def flatten(body: bytes, *, empty: bool) -> list[bytes]:
    """A JSON body as its messages: an array is taken apart one level. ``empty`` allows ``[]``."""
    try:
        value = msgspec.json.decode(body, type=msgspec.Raw)
        if not bytes(value).lstrip().startswith(b"["):
            return [bytes(value).strip()]
        items = msgspec.json.decode(body, type=list[msgspec.Raw])
    except msgspec.DecodeError as error:
        raise InputError(f"the body is not valid JSON: {error}") from error
    except RecursionError as error:
        raise InputError("the body's JSON is nested too deep") from error
    if not items and not empty:
        raise InputError("an empty array appends nothing")
    return [bytes(item).strip() for item in items]


def cursor_at(now: float, previous: str | None) -> str:
    """The cache cursor at Unix time ``now``; past ``previous``, so that caches never loop."""
    current = int((now - _CURSOR_EPOCH) // _CURSOR_SECONDS)
    if previous is not None and _DIGITS.match(previous) and int(previous) >= current:
        return str(int(previous) + -(-random.randint(1, 3600) // _CURSOR_SECONDS))
    return str(current)


def data_frame(kind: str, pieces: list[bytes]) -> bytes:
    """``event: data`` with appended pieces, in the stream's kind of framing."""
    if kind == "json":
        return b"event: data\ndata:[%b]\n\n" % b",".join(_one_line(p) for p in pieces)
    whole = b"".join(pieces)
    if kind == "binary":
        return b"event: data\ndata:%b\n\n" % base64.b64encode(whole)
    lines = _LINE.split(whole)
    return b"event: data\n" + b"".join(map(_data_line, lines)) + b"\n"


def _data_line(line: bytes) -> bytes:
    # A reader takes one space away; a line that begins with one gets another.
    return b"data: %b\n" % line if line.startswith(b" ") else b"data:%b\n" % line


def _one_line(message: bytes) -> bytes:
    # Line ends are only whitespace between JSON tokens; inside texts they are escaped.
    return message if b"\n" not in message and b"\r" not in message else _LINE.sub(b" ", message)


def control_frame(
    offset: str, cursor: str | None, *, up_to_date: bool, closed: bool, **more: Any
) -> bytes:
    """``event: control``. A closed stream has no cursor to come back with. The ``id`` is the
    offset, so that a browser's own `EventSource` comes back to the right place."""
    value = clean(
        streamNextOffset=offset,
        streamCursor=None if closed else cursor,
        upToDate=True if up_to_date else None,
        streamClosed=True if closed else None,
        **more,
    )
    return b"id: %b\nevent: control\ndata:%b\n\n" % (offset.encode("ascii"), dumps(value))
