"""The bare HTTP reader: reuse, flow, TLS, and what a peer may do to it."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import subprocess
import threading
import time

import pytest

from support.spine import run_async
from tokenwire.errors import NetworkError, ProtocolError, ProviderError
from tokenwire.providers.base import Call
from tokenwire.providers.http.client import HttpClient
from tokenwire.providers.http.pool import Pool
from tokenwire.providers.http.response import HIGH_WATER

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Peer:
    """A server of scripted answers; one script a request, in order over all connections."""

    def __init__(self, *answers, tls=None):
        self.answers, self.tls = list(answers), tls
        self.connections = 0
        self.requests = []
        self.tasks = set()

    async def __aenter__(self):
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.tls)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self.server.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def _serve(self, reader, writer):
        self.tasks.add(asyncio.current_task())
        self.connections += 1
        try:
            while self.answers:
                head = await reader.readuntil(b"\r\n\r\n")
                self.requests.append(head)
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                await reader.readexactly(length)
                answer = self.answers.pop(0)
                if callable(answer):
                    await answer(writer)
                else:
                    writer.write(answer)
                    await writer.drain()
                if answer is close_now or b"connection: close" in (
                    answer if isinstance(answer, bytes) else b""
                ):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client went away, which some tests want
        finally:
            writer.close()


async def close_now(writer):
    writer.close()


async def whole(pool, peer, **options):
    response = await pool.request(
        "POST", f"http://127.0.0.1:{peer.port}/v1/x?y=1", {"a": "b"}, b"{}", **options
    )
    data = b""
    while piece := await response.read():
        data += piece
    await response.aclose()
    return response, data


def test_a_whole_answer_gives_its_connection_back_and_any_other_does_not():
    chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"
    closing = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nby"
    until_close = b"HTTP/1.0 200 OK\r\n\r\nto the end"

    async def last(writer):
        writer.write(until_close)
        writer.close()

    async def main():
        pool = Pool()
        async with Peer(OK, chunked, closing, OK, last) as peer:
            bodies = [(await whole(pool, peer))[1] for _ in range(5)]
            assert bodies == [b"ok", b"hi", b"by", b"ok", b"to the end"]
            assert peer.connections == 2
            assert peer.requests[0].startswith(b"POST /v1/x?y=1 HTTP/1.1\r\nhost: 127.0.0.1:")
            pool.close()

    run_async(main())


@pytest.mark.parametrize("lingers", [False, True])
def test_an_answer_to_nothing_is_no_part_of_the_one_before(lingers):
    chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n"
    more = b"HTTP/1.1 500 No\r\ncontent-length: 3\r\n\r\nbad"

    async def main():
        pool, read = Pool(), asyncio.Event()

        async def answer(writer):
            writer.write(chunked)
            if lingers:
                await read.wait()
            writer.write(b"0\r\n\r\n" + more)

        async with Peer(answer, OK) as peer:
            url = f"http://127.0.0.1:{peer.port}/v1/x"
            response = await pool.request("POST", url, {}, b"{}")
            if lingers:
                assert await response.read() == b"hi"
                response.linger()
                read.set()
                while not response._ended:
                    await asyncio.sleep(0.005)
            else:
                body = [await response.read()]
                while body[-1]:
                    body.append(await response.read())
                assert (b"".join(body), response.status) == (b"hi", 200)
                await response.aclose()
            assert (await whole(pool, peer))[1] == b"ok"
            assert peer.connections == 2
            pool.close()

    run_async(main())


def test_a_request_that_the_peer_read_is_not_sent_again_in_silence():
    """The peer reads the second request and closes without a word: who pays for it decides."""

    async def main():
        pool = Pool()
        async with Peer(OK, close_now, OK) as peer:
            assert (await whole(pool, peer))[1] == b"ok"
            with pytest.raises(NetworkError, match="closed before a response"):
                await whole(pool, peer)
            assert (peer.connections, len(peer.requests)) == (1, 2)
            assert (await whole(pool, peer))[1] == b"ok"  # the pool goes on
            assert peer.connections == 2
            pool.close()

    run_async(main())


def test_a_question_without_effect_is_sent_again():
    async def main():
        pool = Pool()
        async with Peer(OK, close_now, OK) as peer:
            for _ in range(2):
                # A length, so that this peer can read it.
                headers = {"content-length": "0"}
                response = await pool.request("GET", f"http://127.0.0.1:{peer.port}/", headers, b"")
                assert await response.read() == b"ok"
                await response.aclose()
            assert (peer.connections, len(peer.requests)) == (2, 3)
            pool.close()

    run_async(main())


@pytest.mark.parametrize("unread", [b"", b"HTTP/1.1 408 Request Timeout\r\n\r\n"])
@pytest.mark.parametrize("how", ["at once", "later"])
def test_a_kept_connection_that_was_closed_while_idle_is_never_written_to(unread, how):
    """Also where its end has arrived and the event loop has not read it yet. ``unread``: what load
    balancers say as they close."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    requests, is_closed, go = [], threading.Event(), threading.Event()

    def serve():
        with listener:
            for number in range(2):
                with listener.accept()[0] as connection:
                    connection.settimeout(40)
                    data = b""
                    while not data.endswith(b"\r\n\r\n{}"):
                        data += connection.recv(4096)
                    requests.append(data)
                    connection.sendall(OK)
                    if number == 0:
                        assert go.wait(30)
                        connection.sendall(unread)
                        connection.shutdown(socket.SHUT_WR)
                        is_closed.set()
                        try:
                            requests.append(connection.recv(4096))  # nothing: its end
                        except ConnectionResetError:
                            requests.append(b"")

    async def ask(pool):
        response = await pool.request("POST", f"http://127.0.0.1:{port}/", {}, b"{}")
        assert await response.read() == b"ok"
        await response.read()
        await response.aclose()

    async def main():
        pool = Pool()
        await ask(pool)
        go.set()
        assert is_closed.wait(30)  # the loop stands still meanwhile
        time.sleep(0.05)
        if how == "later":
            await asyncio.sleep(0.05)
        await ask(pool)
        pool.close()

    server = threading.Thread(target=serve)
    server.start()
    run_async(main())
    server.join(30)
    assert not server.is_alive()
    assert [bool(data) for data in requests] == [True, False, True]


def test_an_interim_answer_is_not_the_answer():
    async def main():
        pool = Pool()
        async with Peer(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + OK) as peer:
            response, data = await whole(pool, peer)
            assert (response.status, data) == (200, b"ok")
            assert "link" not in response.headers
            pool.close()

    run_async(main())


def test_an_unread_answer_stops_the_socket_and_is_whole_in_the_end():
    size = 16 * HIGH_WATER
    sent = []

    async def flood(writer):
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
        for _ in range(size // 65536):
            writer.write(b"x" * 65536)
            await writer.drain()
            sent.append(65536)

    async def main():
        pool = Pool()
        async with Peer(flood) as peer:
            response = await pool.request("POST", f"http://127.0.0.1:{peer.port}/", {}, b"{}")
            for _ in range(200):
                await asyncio.sleep(0)
            while not response._connection._paused:
                await asyncio.sleep(0.001)
            assert response._size < HIGH_WATER + (1 << 20)
            total = 0
            while data := await response.read():
                total += len(data)
            assert total == size
            await response.aclose()
            pool.close()

    run_async(main())


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"HTTP/1.1 200 OK\r\n" + b"a: " + b"x" * (80 << 10) + b"\r\n\r\n", ProtocolError),
        (b"SSH-2.0-OpenSSH\r\n", ProtocolError),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab", ProtocolError),
        (close_now, NetworkError),
    ],
)
def test_bad_answers_are_typed_errors(answer, kind):
    async def main():
        pool = Pool()
        async with Peer(answer) as peer:
            with pytest.raises(kind):
                await whole(pool, peer)
            pool.close()

    run_async(main())


def test_broken_chunking_in_the_middle_is_an_error_after_its_bytes():
    answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\nZZ\r\n"

    async def main():
        pool = Pool()
        async with Peer(answer) as peer:
            with pytest.raises(ProviderError):
                await whole(pool, peer)
            pool.close()

    run_async(main())


def test_a_header_with_a_line_end_is_never_sent():
    async def main():
        pool = Pool()
        async with Peer(OK) as peer:
            with pytest.raises(ProtocolError, match="line break"):
                await pool.request(
                    "POST", f"http://127.0.0.1:{peer.port}/", {"a": "b\r\nx: y"}, b""
                )
            assert peer.requests == []
            pool.close()

    run_async(main())


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_tls_is_checked(tmp_path):
    subprocess.run(
        "openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 1 "
        "-subj /CN=localhost -addext subjectAltName=IP:127.0.0.1".split(),
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    trusting = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))

    async def main():
        async with Peer(OK, OK, tls=tls) as peer:
            call = Call(url=f"https://127.0.0.1:{peer.port}/", headers={}, body=b"{}")
            strict = HttpClient()
            with pytest.raises(NetworkError, match="certificate") as caught:
                await strict.open(call, connect_timeout=30)
            assert caught.value.should_retry is False
            await strict.aclose()
            client = HttpClient(ssl_context=trusting)
            stream = await client.open(call, connect_timeout=30)
            assert await stream.read() == b"ok"
            assert await stream.read() == b""
            await stream.aclose()
            await client.aclose()
            await asyncio.sleep(0.01)

    run_async(main())


def test_a_cancel_that_comes_as_the_socket_connects_is_not_lost():
    async def main():
        async with Peer() as peer:
            pool = Pool()
            asking = asyncio.create_task(
                pool.request("POST", f"http://127.0.0.1:{peer.port}/", {}, b"{}")
            )
            while not pool._all:
                await asyncio.sleep(0)
            asking.cancel()
            done, _ = await asyncio.wait([asking], timeout=60)
            assert done, "the request goes on as if nobody had cancelled it"
            assert asking.cancelled()
            pool.close()

    run_async(main())
