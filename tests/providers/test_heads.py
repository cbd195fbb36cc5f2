"""Heads of responses: what can be read in one way is read, the rest is named."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.raw_provider import closing, raw_provider
from support.spine import run_async
from tokenwire.errors import ProtocolError
from tokenwire.providers.base import Call
from tokenwire.providers.http.client import HttpClient
from tokenwire.providers.http.heads import MOST_HEAD_BYTES, HeadReader

HOST = "127.0.0.1:1"
STATUS = b"HTTP/1.1 200 OK\r\n"


async def read(raw: bytes) -> tuple[int, dict[str, str], bytes]:
    async with raw_provider(closing(raw)) as provider:
        client = HttpClient(env={})
        try:
            call = Call(url=f"{provider.url}/v1", headers={}, body=b"{}")
            stream = await client.open(call, connect_timeout=30)
            pieces = b""
            while data := await stream.read():
                pieces += data
            await stream.aclose()
            return stream.status, dict(stream.headers), pieces
        finally:
            await client.aclose()


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(STATUS + b"content-length: 2\r\ncontent-length: 2\r\n\r\nok", id="twice"),
        pytest.param(STATUS + b"Content-Length: 2\r\ncontent-length:2\r\n\r\nok", id="spelling"),
        pytest.param(STATUS + b"content-length: 2, 2\r\n\r\nok", id="as a list"),
        pytest.param(b"HTTP/1.1 200 OK\ncontent-length: 2\n\nok", id="line feeds alone"),
        pytest.param(b"HTTP/1.1 200 OK\ncontent-length: 2\r\n\nok", id="line ends of both kinds"),
        pytest.param(b"\r\n" + STATUS + b"content-length: 2\r\n\r\nok", id="an empty line first"),
        pytest.param(
            STATUS + b"content-length: 9\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            id="chunked and a length",
        ),
        pytest.param(
            b"HTTP/1.1 103 Early Hints\nlink: x\n\nHTTP/1.1 100 Continue\r\n\r\n"
            b"HTTP/1.1 200 OK\ncontent-length: 2\n\nok",
            id="informational heads",
        ),
        pytest.param(b"HTTP/1.0 200 OK\r\n\r\nok", id="an old server"),
        pytest.param(STATUS + b"x: a\r\n b\r\n\tc\r\ncontent-length: 2\r\n\r\nok", id="folded"),
        pytest.param(STATUS + b"content-length:\r\n 2\r\n\r\nok", id="a folded length"),
        pytest.param(
            STATUS + b"transfer-encoding:\n\tchunked\n\n2\r\nok\r\n0\r\n\r\n", id="a folded coding"
        ),
        pytest.param(
            STATUS + b"content-encoding: utf-8\r\ncontent-length: 2\r\n\r\nok", id="a charset"
        ),
    ],
)
def test_heads_that_can_be_read_in_one_way_are_read(raw: bytes) -> None:
    async def main() -> None:
        status, _, body = await read(raw)
        assert (status, body) == (200, b"ok")

    run_async(main())


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (STATUS + b"content-length: 2\r\ncontent-length: 3\r\n\r\nok!", "2 and 3"),
        (STATUS + b"content-length: 2, 3\r\n\r\nok!", "2 and 3"),
        (b"HTTP/1.1 200 OK\ncontent-length: 2\nContent-Length: 3\n\nok!", "2 and 3"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "did not reply with HTTP"),
        (b"HTTP/2 200\r\n\r\n", "did not reply with HTTP/1.1"),
        (STATUS + b" folded: status\r\n\r\n", "the head of the response"),
        (STATUS + b"content-length : 2\r\n\r\nok", "the head of the response"),
        (b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n", "(101)"),
        (STATUS + b"content-encoding: x-gzip\r\ncontent-length: 2\r\n\r\nok", "compressed"),
        (STATUS + b"content-encoding: utf-8, br\r\ncontent-length: 2\r\n\r\nok", "compressed"),
        (STATUS + b"a: " + b"x" * MOST_HEAD_BYTES + b"\r\n\r\n", "exceeds"),
    ],
)
def test_other_heads_are_named_with_their_server(raw: bytes, words: str) -> None:
    async def main() -> None:
        with pytest.raises(ProtocolError) as caught:
            await read(raw)
        assert words in str(caught.value)
        assert "127.0.0.1:" in str(caught.value)

    run_async(main())


HEADS = st.sampled_from(
    [
        STATUS + b"content-length: 2\r\n\r\nok",
        STATUS + b"content-length: 2\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 100 Continue\r\n\r\n" + STATUS + b"x: y\r\ntransfer-encoding: chunked\r\n\r\n0",
        b"HTTP/1.1 200 OK\nx: y\n\nrest",
        b"HTTP/1.1 200 OK\r\nx: y\r\n\tz\r\n  w\r\n\r\nrest",
    ]
)


@given(HEADS, st.lists(st.integers(0, 200), max_size=8))
def test_however_it_is_cut_the_parser_gets_the_same_bytes(raw: bytes, places: list[int]) -> None:
    whole, complete = HeadReader(HOST).feed(raw)
    assert complete
    ends = sorted({p % len(raw) for p in places} | {len(raw)})
    reader, pieces, is_done = HeadReader(HOST), b"", False
    for start, end in zip([0, *ends], ends, strict=False):
        if is_done:
            pieces += raw[start:end]
        else:
            data, is_done = reader.feed(raw[start:end])
            pieces += data
    assert is_done
    assert pieces == whole


def test_a_head_by_the_rules_is_passed_on_as_it_is() -> None:
    raw = STATUS + b"Content-Type: text/event-stream\r\nX: 1\r\nX: 2\r\n\r\ndata"
    assert HeadReader(HOST).feed(raw) == (raw, True)


@given(st.binary(max_size=300))
def test_whatever_comes_is_a_head_or_an_error(raw: bytes) -> None:
    reader = HeadReader(HOST)
    try:
        reader.feed(b"HTTP/1.1 200 OK\r\n" + raw)
    except ProtocolError as error:
        assert HOST in str(error)
