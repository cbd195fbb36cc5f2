"""The least that Python can do for a token: a server that decodes, encodes and keeps nothing.

Two uvloop protocols, tied together: what a provider's socket brings is parsed, its text decoded and
written to the reader as one SSE block. No log, no order, no limits, no errors; not a product, but
the mark that `gateway.py --floor` measures tokenwire against.
"""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

import httptools
import msgspec
import uvloop


class Delta(msgspec.Struct, gc=False):
    content: str = ""


class Choice(msgspec.Struct, gc=False):
    delta: Delta


class Chunk(msgspec.Struct, gc=False):
    choices: list[Choice]


class Said(msgspec.Struct, gc=False):
    text: str
    seq: int


decode = msgspec.json.Decoder(Chunk).decode
encode = msgspec.json.Encoder().encode
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
ASK = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}"


class Upstream(asyncio.Protocol):
    """The provider's side: bytes to the reader's transport."""

    def __init__(self, reader: asyncio.Transport) -> None:
        self.reader, self.seq = reader, 0
        self.parser: Any = httptools.HttpResponseParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.transport.write(ASK)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        for line in body.split(b"\n\n"):
            if line[:6] == b"data: ":
                self.seq += 1
                said = encode(Said(decode(line[6:]).choices[0].delta.content, self.seq))
                self.reader.write(b"%x\r\ndata: %b\n\n\r\n" % (len(said) + 8, said))


class Downstream(asyncio.Protocol):
    """The reader's side: any request is answered by a stream."""

    upstream: tuple[str, int] = ("127.0.0.1", 0)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.source: Upstream | None = None
        self.asked: Any = None

    def data_received(self, data: bytes) -> None:
        if self.asked is None:
            self.transport.write(ANSWER)
            self.asked = asyncio.get_running_loop().create_task(self.ask())

    async def ask(self) -> None:
        loop = asyncio.get_running_loop()
        _, self.source = await loop.create_connection(
            lambda: Upstream(self.transport), *self.upstream
        )

    def connection_lost(self, exc: Exception | None) -> None:
        if self.source is not None:
            self.source.transport.abort()


async def main(port: int, upstream: int) -> None:
    Downstream.upstream = ("127.0.0.1", upstream)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Downstream, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--upstream", type=int, required=True, help="the model's port")
    given = parser.parse_args()
    uvloop.run(main(given.port, given.upstream))
