"""The AWS event stream reader: every cut, every checksum, every type of header."""

from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenwire.errors import FramingError
from tokenwire.framing.aws_eventstream import EventStreamDecoder, Message, encode_message

ONE = encode_message({":event-type": "chunk", ":message-type": "event"}, b'{"a":1}')
TWO = encode_message({":event-type": "größe"}, b"")


def read(pieces: list[bytes]) -> list[Message]:
    decoder = EventStreamDecoder()
    found = [m for piece in pieces for m in decoder.feed(piece)]
    assert not decoder.cut
    return found + decoder.finish()


def raw_message(headers: bytes, payload: bytes = b"x") -> bytes:
    head = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    body = head + struct.pack(">I", zlib.crc32(head)) + headers + payload
    return body + struct.pack(">I", zlib.crc32(body))


def test_messages_come_back_however_they_are_cut() -> None:
    data = ONE + TWO + ONE
    wanted = [
        Message({":event-type": "chunk", ":message-type": "event"}, b'{"a":1}'),
        Message({":event-type": "größe"}, b""),
        Message({":event-type": "chunk", ":message-type": "event"}, b'{"a":1}'),
    ]
    for size in (1, 2, 7, 13, 50, len(data)):
        assert read([data[i : i + size] for i in range(0, len(data), size)]) == wanted


def test_every_type_of_header() -> None:
    headers = b"".join(
        [
            b"\x01a\x00",
            b"\x01b\x01",
            b"\x01c\x02\xff",
            b"\x01d\x03\x01\x00",
            b"\x01e\x04\x00\x00\x01\x00",
            b"\x01f\x05" + (1 << 40).to_bytes(8, "big"),
            b"\x01g\x06\x00\x02hi",
            b"\x01h\x07\x00\x02hi",
            b"\x01i\x08" + (5).to_bytes(8, "big"),
            b"\x01j\x09" + bytes(16),
        ]
    )
    (message,) = read([raw_message(headers)])
    assert message.headers == {
        "a": True,
        "b": False,
        "c": -1,
        "d": 256,
        "e": 256,
        "f": 1 << 40,
        "g": b"hi",
        "h": "hi",
        "i": 5,
        "j": bytes(16),
    }


@pytest.mark.parametrize("at", range(len(ONE)))
def test_a_flipped_bit_is_found(at: int) -> None:
    broken = bytearray(TWO + ONE)
    broken[len(TWO) + at] ^= 4
    decoder = EventStreamDecoder()
    assert len(decoder.feed(bytes(broken))) == 1  # what came before is given out
    with pytest.raises(FramingError):
        decoder.feed(b"")
    with pytest.raises(FramingError):
        decoder.finish()


@pytest.mark.parametrize("headers", [b"\x05ab", b"\x01a\x07\x00\x09x", b"\x01a\x63", b"\x01a"])
def test_broken_headers_are_typed_errors(headers: bytes) -> None:
    with pytest.raises(FramingError):
        EventStreamDecoder().feed(raw_message(headers))


def test_a_message_over_its_bound_is_refused_before_it_is_read() -> None:
    head = struct.pack(">II", 1 << 30, 0)
    with pytest.raises(FramingError, match="longer"):
        EventStreamDecoder().feed(head + struct.pack(">I", zlib.crc32(head)))


def test_a_cut_message_is_no_message() -> None:
    decoder = EventStreamDecoder()
    assert decoder.feed(ONE[:-1]) == []
    assert decoder.cut
    assert decoder.finish() == []


@settings(max_examples=200)
@given(st.lists(st.binary(max_size=40), max_size=8))
def test_any_bytes_give_messages_or_a_typed_error(pieces: list[bytes]) -> None:
    decoder = EventStreamDecoder()
    try:
        for piece in pieces:
            decoder.feed(piece)
        decoder.finish()
    except FramingError:
        pass
