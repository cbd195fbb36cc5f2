"""A provider of raw bytes: each request gets what the test says, and is counted."""

from __future__ import annotations

import re
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

#: ``case:NAME:MORE`` in a prompt chooses the answer.
WORD = re.compile(rb"case:([\w-]+)(?::[\w-]+)?")

Answer = bytes | Callable[[socket.socket], None]


def http(status: int, body: bytes, *headers: str, kind: str = "application/json") -> bytes:
    """A whole response, after which the connection is closed."""
    lines = [
        f"HTTP/1.1 {status} X",
        f"Content-Type: {kind}",
        f"Content-Length: {len(body)}",
        "Connection: close",
        *headers,
        "",
        "",
    ]
    return "\r\n".join(lines).encode() + body


def sse(*payloads: str) -> bytes:
    """A chat stream of these payloads."""
    body = "".join(f"data: {payload}\n\n" for payload in payloads).encode()
    return http(200, body, kind="text/event-stream")


class Upstream:
    """The server. ``answer`` is what the next requests get."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        #: A model's name as the server takes it.
        self.model = f"http://127.0.0.1:{self.port}/v1#m"
        self.answer: Answer = http(500, b"{}")
        self.requests = 0
        #: Answers by a word of the request, before ``answer``; and how often each was asked for.
        self.answers: dict[str, Answer] = {}
        self.asked: Counter[str] = Counter()
        self.gone = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._socket.close()

    def will(self, answer: Answer) -> None:
        """From now on, and counted from 0."""
        self.answer, self.requests = answer, 0
        self.gone.clear()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            data = b""
            while b"\r\n\r\n" not in data:
                piece = connection.recv(65536)
                if not piece:
                    return
                data += piece
            head, _, body = data.partition(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head.lower())
            while length is not None and len(body) < int(length[1]):
                body += connection.recv(65536)
            self.requests += 1
            answer = self.answer
            word = WORD.search(body)
            if word is not None:
                name = word[1].decode()
                self.asked[word[0].decode()] += 1
                answer = self.answers[name]
            if isinstance(answer, bytes):
                connection.sendall(answer)
            else:
                answer(connection)

    def silent(self, connection: socket.socket) -> None:
        """An answer: accept the request, then nothing until the other side goes."""
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        connection.settimeout(60)
        with suppress(OSError):
            while connection.recv(1024):
                pass

    def hold(self, connection: socket.socket) -> None:
        """An answer: begin a stream, then nothing until the other side goes."""
        head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
        connection.sendall(head.encode() + text_chunk("Hello").encode())
        connection.settimeout(30)
        with suppress(OSError):
            while connection.recv(1024):
                pass
        self.gone.set()


def text_chunk(text: str, finish: str | None = None) -> str:
    """A chat chunk as an SSE block."""
    import json

    delta: dict[str, Any] = {"content": text} if text else {}
    chunk = {
        "id": "c1",
        "object": "chat.completion.chunk",
        "model": "m",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }
    return f"data: {json.dumps(chunk)}\n\n"


@contextmanager
def upstream() -> Iterator[Upstream]:
    server = Upstream()
    try:
        yield server
    finally:
        server.close()
