"""Plain sockets against a server of tests, as an attacker would use them."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from support.server import Site


@contextmanager
def plain(here: Site) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", here.port), timeout=40) as connection:
        yield connection


def rest_of(connection: socket.socket) -> bytes:
    """Everything until the server closes."""
    pieces: list[bytes] = []
    try:
        while data := connection.recv(65536):
            pieces.append(data)
    except ConnectionResetError:
        pass
    return b"".join(pieces)


def until(connection: socket.socket, text: bytes) -> bytes:
    data = b""
    while text not in data:
        piece = connection.recv(65536)
        assert piece, data
        data += piece
    return data


def until_true(check: Callable[[], bool], seconds: float = 40.0) -> None:
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.02)


def ask(here: Site, request: bytes) -> bytes:
    with plain(here) as connection:
        connection.sendall(request)
        return rest_of(connection)


def upgrade(path: bytes = b"/ws", more: bytes = b"") -> bytes:
    """A WebSocket's handshake; ``more`` are whole header lines."""
    return (
        b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        b"Sec-WebSocket-Version: 13\r\n" + more + b"\r\n"
    )


def frame(opcode: int, data: bytes = b"", *, is_last: bool = True, reserved: int = 0) -> bytes:
    """A masked frame of a client."""
    size = len(data)
    head = bytes([is_last << 7 | reserved << 4 | opcode])
    head += bytes([0x80 | size]) if size < 126 else struct.pack("!BH", 0x80 | 126, size)
    mask = b"\x1f\x80\x2c\x05"
    return head + mask + bytes(byte ^ mask[n % 4] for n, byte in enumerate(data))
