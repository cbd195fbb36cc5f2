"""Reads of a provider's socket past the event loop: nothing lost, repeated, reordered or delayed,
whatever the peer does; in Python and in C."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import struct
from types import SimpleNamespace

import pytest
import uvloop

from support.tls import Authority
from tokenwire.errors import NetworkError
from tokenwire.express import YES
from tokenwire.providers.http.connection import MOST_PULLED, Connection
from tokenwire.providers.http.pool import Pool
from tokenwire.providers.http.response import HIGH_WATER
from tokenwire.run.call.lane import pull_in_python, twin

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
PULLS = {"python": pull_in_python, **({"native": twin.pull} if twin.pull else {})}
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(params=PULLS)
def _pull(request, monkeypatch):
    monkeypatch.setattr(Connection, "pull", PULLS[request.param])


@pytest.fixture(params=LOOPS)
def run(request, _pull):
    def run(main):
        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            return runner.run(asyncio.wait_for(main(), 60))

    return run


def chunk(data):
    return b"%x\r\n%b\r\n" % (len(data), data)


class Peer:
    """A server of one connection, by hand: a blocking socket, so that what it sent is there."""

    def __init__(self, head=HEAD):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port, self.head = self.listener.getsockname()[1], head
        self.socket = None

    async def response(self, pool):
        asking = asyncio.ensure_future(
            pool.request("POST", f"http://127.0.0.1:{self.port}/", {}, b"{}")
        )
        loop = asyncio.get_running_loop()
        if self.socket is None:
            self.socket, _ = await loop.run_in_executor(None, self.listener.accept)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await loop.run_in_executor(None, self.socket.recv, 1 << 16)
        self.socket.sendall(self.head)
        return await asking

    def send(self, data):
        self.socket.sendall(data)

    def reset(self):
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def close(self):
        if self.socket is not None:
            self.socket.close()
        self.listener.close()


class Answer:
    """A response that waits in `read_express`, and what it was given there."""

    def __init__(self, response):
        self.response, self.given, self.connection = response, [], response._connection
        self.reading = asyncio.ensure_future(self.read())

    async def read(self):
        while True:
            data = await self.response.read_express(self.take)
            if not data:
                return
            self.given.append(data)

    def take(self, data):
        self.given.append(data)
        return YES

    @property
    def text(self):
        return b"".join(self.given)


async def opened(pool, peer):
    answer = Answer(await peer.response(pool))
    await turns()
    return answer, answer.response.hold()


async def turns(seconds=0.02):
    await asyncio.sleep(seconds)


async def until(condition):
    while not condition():
        await asyncio.sleep(0.001)


def test_a_read_brings_what_is_there_and_the_event_loop_reads_nothing(run):
    async def main():
        pool, peer = Pool(), Peer()
        answer, hold = await opened(pool, peer)
        assert hold.pull() is False  # nothing has come
        for number in range(5):
            peer.send(chunk(b"a%d" % number) + chunk(b"b"))
            await turns()
            assert len(answer.given) == number
            assert hold.pull() is True
            assert len(answer.given) == number + 1
        assert answer.text == b"a0ba1ba2ba3ba4b"
        peer.send(chunk(b"c"))
        hold.release()
        await until(lambda: answer.text.endswith(b"c"))
        peer.send(chunk(b"d"))
        await until(lambda: answer.text.endswith(b"d"))
        assert hold.pull() is False  # nobody holds it any more
        pool.close()
        peer.close()

    run(main)


def test_every_cut_of_an_answer_and_its_end_in_the_middle_of_a_read(run):
    whole = chunk(b"one") + chunk(b"two") + b"0\r\n\r\n"

    async def main():
        for cut in range(1, len(whole) + 1, 2):
            pool, peer = Pool(), Peer()
            answer, hold = await opened(pool, peer)
            peer.send(whole[:cut])
            await turns(0.001)
            assert hold.pull() is True
            if cut < len(whole):
                assert not answer.reading.done()
                peer.send(whole[cut:])
                await turns(0.001)
                hold.pull()
            await answer.reading
            assert answer.text == b"onetwo"
            await answer.response.aclose()
            assert hold.pull() is False
            assert len(pool) == 1  # kept, and read by the event loop again
            again = asyncio.ensure_future(Peer.response(peer, pool))
            assert (await again)._connection is answer.connection
            pool.close()
            peer.close()

    run(main)


def test_an_end_is_the_event_loops_to_find(run):
    async def main():
        for head, error in ((HEAD, NetworkError), (b"HTTP/1.0 200 OK\r\n\r\n", None)):
            pool, peer = Pool(), Peer(head)
            answer, hold = await opened(pool, peer)
            peer.send(chunk(b"x"))
            peer.socket.close()
            await turns()
            assert hold.pull() is True
            assert answer.text in (b"x", chunk(b"x"))
            assert hold.pull() is False
            assert not answer.reading.done()
            hold.release()
            if error is None:
                await answer.reading
            else:
                with pytest.raises(error, match="closed within the response"):
                    await answer.reading
            assert hold.pull() is False
            pool.close()
            peer.close()

    run(main)


def test_a_reset_is_an_error_and_never_the_end_of_an_answer(run):
    async def main():
        for head in (HEAD, b"HTTP/1.0 200 OK\r\n\r\n"):
            pool, peer = Pool(), Peer(head)
            answer, hold = await opened(pool, peer)
            peer.send(chunk(b"x"))
            await turns()
            assert hold.pull() is True
            peer.reset()
            await turns()
            assert hold.pull() is False
            hold.release()
            with pytest.raises(NetworkError, match="closed within the response") as caught:
                await answer.reading
            assert isinstance(caught.value.__cause__, ConnectionResetError)
            await turns()
            assert len(pool) == 0
            peer.close()

    run(main)


def test_more_than_a_read_takes_is_left_to_the_event_loop(run):
    async def main():
        pool, peer = Pool(), Peer()
        answer, hold = await opened(pool, peer)
        piece = chunk(b"y" * 1000)
        peer.send(piece * 40)
        await turns()
        assert hold.pull() is False
        assert len(answer.text) > MOST_PULLED - 2000
        hold.release()
        await until(lambda: len(answer.text) == 40_000)
        pool.close()
        peer.close()

    run(main)


def test_an_answer_that_nobody_reads_is_no_longer_read(run):
    """What waits stays within its bound, and is read on when there is room."""

    async def main():
        pool, peer = Pool(), Peer()
        response = await peer.response(pool)
        hold, connection = response.hold(), response._connection
        sent = piece = 0
        data = chunk(b"z" * (8 << 10))
        while hold.pull() or piece < 2:
            peer.send(data)
            sent, piece = sent + (8 << 10), piece + 1
            await turns(0.001)
        assert HIGH_WATER < response._size <= HIGH_WATER + MOST_PULLED
        hold.release()
        await turns()
        assert connection._paused
        read = 0
        while read < sent:
            read += len(await response.read())
        assert read == sent
        assert not connection._paused
        pool.close()
        peer.close()

    run(main)


@pytest.mark.parametrize("how", ["abort", "close", "linger", "release", "pool"])
def test_a_socket_that_was_let_go_is_not_read_even_under_its_old_number(run, how):
    async def main():
        pool, peer = Pool(), Peer()
        answer, hold = await opened(pool, peer)
        fd, (here, other) = answer.connection._socket, socket.socketpair()
        peer.send(chunk(b"x"))
        if how == "abort":
            answer.response.abort(NetworkError("enough"))
        elif how == "close":
            await answer.response.aclose()
        elif how == "linger":
            answer.response.linger()
        elif how == "pool":
            pool.close()
        else:
            hold.release()
        assert hold.pull() is False
        await turns()
        if how in ("abort", "close", "pool"):
            with pytest.raises(OSError, match="Bad file"):
                os.fstat(fd)
            os.dup2(here.fileno(), fd)
            other.sendall(b"of another")
            assert hold.pull() is False
            assert os.read(fd, 100) == b"of another"
            os.close(fd)
        elif how == "release":
            assert answer.text == b"x"
        answer.reading.cancel()
        await asyncio.gather(answer.reading, return_exceptions=True)
        for each in (here, other, pool, peer):
            each.close()

    run(main)


def test_a_hold_of_an_answer_that_is_over_lets_nobody_elses_connection_go(run):
    async def main():
        pool, peer = Pool(), Peer()
        answer, hold = await opened(pool, peer)
        peer.send(b"0\r\n\r\n")
        await turns()
        hold.pull()
        await answer.reading
        await answer.response.aclose()
        later = Answer(await peer.response(pool))
        assert later.connection is answer.connection
        held = later.response.hold()
        hold.release()
        peer.send(chunk(b"x"))
        await turns()
        assert later.given == []
        assert held.pull() is True
        assert later.text == b"x"
        later.reading.cancel()
        await asyncio.gather(later.reading, return_exceptions=True)
        pool.close()
        peer.close()

    run(main)


def test_a_fault_of_who_takes_the_bytes_ends_the_connection(run):
    def boom(data):
        raise ValueError("boom")

    async def main():
        pool, peer, seen = Pool(), Peer(), []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: seen.append(context))
        answer, hold = await opened(pool, peer)
        answer.connection.diversion = SimpleNamespace(received=boom, leave=lambda: None)
        peer.send(chunk(b"x"))
        await turns()
        assert hold.pull() is False
        with pytest.raises(NetworkError, match="closed within the response"):
            await answer.reading
        assert [type(context["exception"]) for context in seen] == [ValueError]
        assert hold.pull() is False
        peer.close()

    run(main)


def test_tls_is_read_by_the_event_loop_alone(run, tmp_path):
    authority = Authority(tmp_path, "authority")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.certificate("peer", "127.0.0.1"))
    mine = ssl.create_default_context(cafile=str(authority.pem))

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD + chunk(b"x"))
        await reader.read()
        writer.close()

    async def main():
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        pool = Pool(mine)
        port = server.sockets[0].getsockname()[1]
        response = await pool.request("GET", f"https://127.0.0.1:{port}/", {}, b"")
        hold = response.hold()
        assert hold.pull() is False
        hold.release()
        assert await response.read() == b"x"
        pool.close()
        server.close()
        await turns()

    run(main)
