"""TLS sessions: further connections of a route resume; a server that cannot is no failure."""

from __future__ import annotations

import asyncio
import ssl
from types import SimpleNamespace
from typing import Any

import pytest
import uvloop

from support.tls import Authority
from tokenwire.providers.http.connection import Route
from tokenwire.providers.http.pool import Pool
from tokenwire.providers.http.sessions import Sessions

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok"
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


BIG = bytes(range(256)) * 4096
PIECES = [b"a", b"b" * 16384, b"c" * 16385, b"d" * 40000, b"e"]


class Peer:
    """A TLS server of one request a connection; `resumed` has each connection's answer. It closes
    as many connections as `refuses` says before TLS begins."""

    def __init__(self, context):
        self.context, self.resumed, self.refuses = context, [], 0
        self.refused = 0

    async def start(self, port=0):
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        self.port = self.server.sockets[0].getsockname()[1]

    async def stop(self):
        self.server.close()
        await self.server.wait_closed()

    async def _serve(self, reader, writer):
        try:
            if self.refuses:
                self.refuses -= 1
                self.refused += 1
                return
            await writer.start_tls(self.context)
            self.resumed.append(writer.get_extra_info("ssl_object").session_reused)
            await reader.readuntil(b"\r\n\r\n{}")
            writer.write(OK)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass  # a client that does not trust it
        finally:
            writer.close()


async def ask(pool, port, host="127.0.0.1"):
    response = await pool.request("POST", f"https://{host}:{port}/", {}, b"{}", connect_timeout=60)
    data = b""
    while piece := await response.read():
        data += piece
    await response.aclose()
    assert data == b"ok"


def server_context(authority, version=ssl.TLSVersion.TLSv1_3):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.certificate("peer", "127.0.0.1", "localhost"))
    context.minimum_version = context.maximum_version = version
    return context


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path, "authority")


def trusting(authority):
    return ssl.create_default_context(cafile=str(authority.pem))


def run(main, loop="uvloop"):
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(main)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_further_connection_resumes(authority, version, loop):
    async def main():
        peer = Peer(server_context(authority, version))
        await peer.start()
        pool = Pool(trusting(authority))
        for _ in range(3):
            await ask(pool, peer.port)
        assert peer.resumed == [False, True, True]
        pool.close()
        await peer.stop()

    run(main(), loop)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_every_byte_of_records_of_all_sizes_is_read(authority, version, loop):
    """Several records in one read, a record in several reads, and the end."""

    async def serve(reader, writer):
        await writer.start_tls(server_context(authority, version))
        await reader.readuntil(b"\r\n\r\n{}")
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")
        for piece in PIECES:
            writer.write(piece)
            await writer.drain()
        for n in range(200):
            writer.write(b"%d," % n)
        writer.write(BIG)
        await writer.drain()
        writer.close()

    async def main():
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        pool = Pool(trusting(authority))
        response = await pool.request(
            "POST", f"https://127.0.0.1:{port}/", {}, b"{}", connect_timeout=60
        )
        data = b""
        while piece := await response.read():
            data += piece
        assert data == b"".join(PIECES) + b"".join(b"%d," % n for n in range(200)) + BIG
        pool.close()
        server.close()
        await server.wait_closed()

    run(main(), loop)


def test_a_session_is_of_its_route_and_pool(authority):
    async def main():
        peer, other = Peer(server_context(authority)), Peer(server_context(authority))
        await peer.start()
        await other.start()
        context = trusting(authority)
        pool, second = Pool(context), Pool(context)
        await ask(pool, peer.port)
        await ask(pool, other.port)  # another port
        await ask(pool, peer.port, "localhost")  # another name
        await ask(second, peer.port)  # another pool
        assert peer.resumed + other.resumed == [False] * 4
        for each in (pool, second):
            each.close()
        await peer.stop()
        await other.stop()

    run(main())


def test_a_server_that_lost_its_sessions_is_asked_with_a_full_handshake(authority):
    async def main():
        peer = Peer(server_context(authority))
        await peer.start()
        pool = Pool(trusting(authority))
        await ask(pool, peer.port)
        peer.context = server_context(authority)  # as after a restart: other keys of tickets
        await ask(pool, peer.port)
        await ask(pool, peer.port)
        assert peer.resumed == [False, False, True]
        pool.close()
        await peer.stop()

    run(main())


def test_a_connection_that_fails_with_a_session_is_made_again_without(authority):
    async def main():
        peer = Peer(server_context(authority))
        await peer.start()
        pool = Pool(trusting(authority))
        peer.refuses = 1
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await ask(pool, peer.port)  # nothing was offered, so it is not made again
        await ask(pool, peer.port)
        peer.refuses = 1
        await ask(pool, peer.port)
        assert peer.refused == 2
        assert peer.resumed == [False, False]
        pool.close()
        await peer.stop()

    run(main())


def test_a_certificate_that_is_no_longer_trusted_is_refused_after_the_session(authority, tmp_path):
    """A server with another authority behind the same address gets no further than before."""
    (tmp_path / "other").mkdir()

    async def main():
        peer = Peer(server_context(authority))
        await peer.start()
        pool = Pool(trusting(authority))
        await ask(pool, peer.port)
        peer.context = server_context(Authority(tmp_path / "other", "other"))
        with pytest.raises(ssl.SSLCertVerificationError):
            await ask(pool, peer.port)
        pool.close()
        await peer.stop()

    run(main())


def made(*, reused, has_ticket=True) -> Any:
    """What `Sessions` looks at of a connection."""
    return SimpleNamespace(session=SimpleNamespace(has_ticket=has_ticket), session_reused=reused)


def test_after_an_hour_the_certificate_is_verified_again():
    now = [0.0]
    sessions, context = Sessions(lambda: now[0]), ssl.create_default_context()
    route = Route("example.com", 443, True)
    sessions.keep(route, context, made(reused=False))
    for now[0] in (1800.0, 3599.0):  # renewed, but that verified nothing
        assert sessions.offer(route, context) is not None
        sessions.keep(route, context, made(reused=True))
    now[0] = 3601.0
    assert sessions.offer(route, context) is None
    sessions.keep(route, context, made(reused=True))  # came late
    assert sessions.offer(route, context) is None
    sessions.keep(route, context, made(reused=False))
    assert sessions.offer(route, context) is not None
    assert sessions.offer(route, ssl.create_default_context()) is None


def test_sessions_are_bounded_and_without_a_ticket_none_is_kept():
    sessions, context = Sessions(), ssl.create_default_context()
    for port in range(300):
        sessions.keep(Route("example.com", port, True), context, made(reused=False))
    assert len(sessions._kept) == 256
    assert sessions.offer(Route("example.com", 0, True), context) is None
    assert sessions.offer(Route("example.com", 299, True), context) is not None
    without = Route("example.org", 443, True)
    sessions.keep(without, context, made(reused=False, has_ticket=False))
    assert sessions.offer(without, context) is None
