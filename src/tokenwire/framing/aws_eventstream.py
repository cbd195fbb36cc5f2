"""Bytes of application/vnd.amazon.eventstream to messages and back.

Always true: the same bytes give the same messages however they are cut; both checksums of every
message are verified; a message over its bound or with a wrong checksum raises `FramingError`
after the messages before it were given out.

A message is: total length, header length, CRC32 of those eight bytes, headers, payload, CRC32 of
everything before (all numbers big-endian). A header is: name length, name, type, value.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any

import msgspec

from tokenwire.errors import FramingError

__all__ = ["EventStreamDecoder", "Message", "encode_message"]

_PRELUDE = struct.Struct(">III")
_CRC = struct.Struct(">I")
_SMALLEST = 16
_FIXED: dict[int, struct.Struct] = {
    2: struct.Struct(">b"),
    3: struct.Struct(">h"),
    4: struct.Struct(">i"),
    5: struct.Struct(">q"),
    8: struct.Struct(">q"),
}


class Message(msgspec.Struct, gc=False):
    """One message: its headers (texts, numbers, booleans or bytes) and its payload."""

    headers: dict[str, Any]
    payload: bytes


class EventStreamDecoder:
    """An incremental reader. ``max_message`` bounds one message; AWS itself allows 16 MiB."""

    def __init__(self, max_message: int = 24 << 20) -> None:
        self.max_message = max_message
        self._pieces: list[bytes] = []
        self._size = 0
        self._least = 12
        self._error: FramingError | None = None

    def feed(self, data: bytes) -> list[Message]:
        """The messages that these bytes complete."""
        if self._error is not None:
            raise self._error
        self._pieces.append(data)
        self._size += len(data)
        if self._size < self._least:
            return []
        buffer = b"".join(self._pieces)
        messages: list[Message] = []
        at = 0
        try:
            while len(buffer) - at >= 12:
                total = self._total(buffer, at)
                if len(buffer) - at < total:
                    break
                messages.append(_message(buffer[at : at + total]))
                at += total
        except FramingError as error:
            self._error = error
            if not messages:
                raise
            return messages
        rest = buffer[at:]
        self._pieces, self._size = [rest], len(rest)
        self._least = self._total(rest, 0) if len(rest) >= 12 else 12
        return messages

    def finish(self) -> list[Message]:
        """The end of the bytes: nothing more; a message that was cut off is not a message."""
        if self._error is not None:
            raise self._error
        self._pieces, self._size = [], 0
        return []

    @property
    def cut(self) -> bool:
        """Whether a message is half read."""
        return self._size > 0

    def _total(self, buffer: bytes, at: int) -> int:
        total, headers, check = _PRELUDE.unpack_from(buffer, at)
        if zlib.crc32(buffer[at : at + 8]) != check:
            raise FramingError("the prelude of an event stream message fails its checksum")
        if total > self.max_message:
            raise FramingError(
                f"an event stream message is longer than {self.max_message} bytes",
                limit="message",
                most=self.max_message,
            )
        if total < _SMALLEST + headers:
            raise FramingError("an event stream message is shorter than its headers")
        return total


def _message(data: bytes) -> Message:
    if zlib.crc32(data[:-4]) != _CRC.unpack_from(data, len(data) - 4)[0]:
        raise FramingError("an event stream message fails its checksum")
    end = 12 + _PRELUDE.unpack_from(data)[1]
    return Message(headers=_headers(data, end), payload=data[end:-4])


def _headers(data: bytes, end: int) -> dict[str, Any]:
    headers: dict[str, Any] = {}
    at = 12
    try:
        while at < end:
            size = data[at]
            name = data[at + 1 : at + 1 + size].decode("utf-8", "replace")
            kind = data[at + 1 + size]
            at += 2 + size
            if kind in (0, 1):
                headers[name] = kind == 0
            elif kind in _FIXED:
                fixed = _FIXED[kind]
                headers[name] = fixed.unpack_from(data, at)[0]
                at += fixed.size
            elif kind in (6, 7):
                length = int.from_bytes(data[at : at + 2], "big")
                value = data[at + 2 : at + 2 + length]
                headers[name] = value.decode("utf-8", "replace") if kind == 7 else value
                at += 2 + length
            elif kind == 9:
                headers[name] = data[at : at + 16]
                at += 16
            else:
                raise FramingError(f"an event stream header has the unknown type {kind}")
    except (IndexError, struct.error):
        raise FramingError("an event stream message has broken headers") from None
    if at != end:
        raise FramingError("an event stream message has broken headers")
    return headers


def encode_message(headers: dict[str, str], payload: bytes) -> bytes:
    """One message whose headers are all texts."""
    block = b"".join(
        bytes([len(name.encode())])
        + name.encode()
        + b"\x07"
        + len(value.encode()).to_bytes(2, "big")
        + value.encode()
        for name, value in headers.items()
    )
    head = struct.pack(">II", 16 + len(block) + len(payload), len(block))
    body = head + _CRC.pack(zlib.crc32(head)) + block + payload
    return body + _CRC.pack(zlib.crc32(body))
