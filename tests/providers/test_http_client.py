"""The HTTP client against a real server on a socket that misbehaves on demand."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable

import pytest

from tokenwire.errors import DeadlineError, NetworkError, ProtocolError, ProviderError
from tokenwire.providers.base import Call
from tokenwire.providers.http.client import ByteStream, HttpClient

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"


async def request_of(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    size = 0
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            size = int(line.split(b":")[1])
    return head, await reader.readexactly(size)


async def served(handler: Handler, use: Callable[[HttpClient, str], Awaitable[None]]) -> None:
    async def wrapped(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(wrapped, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = HttpClient()
    try:
        await use(client, f"http://127.0.0.1:{port}/v1")
    finally:
        await client.aclose()
        server.close()


def call(url: str, **headers: str) -> Call:
    return Call(url=url, headers={"content-type": "application/json", **headers}, body=b'{"a":1}')


async def everything(stream: ByteStream) -> bytes:
    found = b""
    while data := await stream.read():
        found += data
    return found


def test_bytes_arrive_as_they_were_sent_with_plain_headers() -> None:
    seen: list[bytes] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.extend(await request_of(reader))
        writer.write(HEAD + b"X-Request-ID: r1\r\nTransfer-Encoding: chunked\r\n\r\n")
        writer.write(b"3\r\nabc\r\n")
        await writer.drain()
        writer.write(b"2\r\nde\r\n0\r\n\r\n")
        await writer.drain()

    async def use(client: HttpClient, url: str) -> None:
        stream = await client.open(call(url, authorization="Bearer k"), connect_timeout=30)
        assert (stream.status, stream.headers["x-request-id"]) == (200, "r1")
        assert await everything(stream) == b"abcde"
        await stream.aclose()

    asyncio.run(served(handler, use))
    head = seen[0].lower()
    assert seen[1] == b'{"a":1}'
    assert b"accept-encoding: identity\r\n" in head
    assert b"authorization: bearer k\r\n" in head
    assert b"cookie" not in head


def test_redirects_and_refusals_come_back_as_they_are() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(b"HTTP/1.1 302 Found\r\nLocation: http://192.0.2.1/\r\n")
        writer.write(b"Connection: close\r\nSet-Cookie: a=b\r\nContent-Length: 2\r\n\r\nno")

    async def use(client: HttpClient, url: str) -> None:
        for _ in range(2):
            stream = await client.open(call(url), connect_timeout=30)
            assert stream.status == 302
            assert await everything(stream) == b"no"
            await stream.aclose()

    asyncio.run(served(handler, use))


@pytest.mark.parametrize("reset", [False, True])
def test_a_body_that_is_cut_is_a_network_error_after_its_bytes(reset: bool) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await writer.drain()
        await asyncio.wait_for(heard.wait(), 60)
        if reset:
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    async def use(client: HttpClient, url: str) -> None:
        stream = await client.open(call(url), connect_timeout=30)
        assert await stream.read() == b"hello"
        heard.set()
        with pytest.raises(NetworkError, match=r"127\.0\.0\.1") as caught:
            await stream.read()
        assert caught.value.retryable
        await stream.aclose()

    async def main() -> None:
        await served(handler, use)

    heard = asyncio.Event()
    asyncio.run(main())


def test_abort_closes_the_connection_and_raises_in_the_pending_read() -> None:
    gone = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(HEAD + b"\r\nhello")
        await writer.drain()
        assert await reader.read() == b""  # the client hung up
        gone.set()

    async def use(client: HttpClient, url: str) -> None:
        stream = await client.open(call(url), connect_timeout=30)
        assert await stream.read() == b"hello"
        pending = asyncio.ensure_future(stream.read())
        await asyncio.sleep(0)
        stream.abort(DeadlineError("too quiet", which="idle", seconds=1))
        with pytest.raises(DeadlineError, match="too quiet"):
            await pending
        with pytest.raises(DeadlineError):
            await stream.read()
        await asyncio.wait_for(gone.wait(), 60)
        await stream.aclose()

    asyncio.run(served(handler, use))


def test_closing_before_the_end_closes_the_connection() -> None:
    gone = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(HEAD + b"Content-Length: 1000\r\n\r\nhello")
        await writer.drain()
        assert await reader.read() == b""
        gone.set()

    async def use(client: HttpClient, url: str) -> None:
        stream = await client.open(call(url), connect_timeout=30)
        await stream.aclose()
        await asyncio.wait_for(gone.wait(), 60)

    asyncio.run(served(handler, use))


def test_a_cancelled_wait_for_the_head_closes_the_connection() -> None:
    asked, gone = asyncio.Event(), asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        asked.set()
        assert await reader.read() == b""
        gone.set()

    async def use(client: HttpClient, url: str) -> None:
        opening = asyncio.ensure_future(client.open(call(url), connect_timeout=30))
        await asyncio.wait_for(asked.wait(), 60)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await asyncio.wait_for(gone.wait(), 60)

    asyncio.run(served(handler, use))


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"SSH-2.0-OpenSSH_9\r\n\r\n", ProtocolError),
        (b"", NetworkError),
        (HEAD + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\nxx", ProtocolError),
    ],
)
def test_what_is_no_plain_http_is_a_typed_error(answer: bytes, kind: type[ProviderError]) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(answer)

    async def use(client: HttpClient, url: str) -> None:
        with pytest.raises(kind):
            await client.open(call(url), connect_timeout=30)

    asyncio.run(served(handler, use))


def test_nobody_there_is_a_network_error_that_says_where() -> None:
    async def main() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
            client = HttpClient()
            with pytest.raises(NetworkError, match=str(port)) as caught:
                await client.open(
                    call(f"http://127.0.0.1:{port}/v1?key=secret"), connect_timeout=30
                )
            assert "secret" not in str(caught.value)
            await client.aclose()

    asyncio.run(main())


def test_a_connection_that_is_not_accepted_in_time_is_a_connect_deadline() -> None:
    async def main() -> None:
        with socket.socket() as full:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            address = full.getsockname()
            queued = []
            for _ in range(3):  # fill the queue of connections that nobody accepts
                waiting = socket.socket()
                waiting.setblocking(False)
                waiting.connect_ex(address)
                queued.append(waiting)
            client = HttpClient()
            with pytest.raises(DeadlineError) as caught:
                await client.open(call(f"http://127.0.0.1:{address[1]}/"), connect_timeout=0.2)
            assert caught.value.which == "connect"
            await client.aclose()
            for waiting in queued:
                waiting.close()

    asyncio.run(main())
