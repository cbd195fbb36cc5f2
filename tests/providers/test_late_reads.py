"""Reads of a connection that wait for their turn of the event loop, and its end behind them."""

from __future__ import annotations

import asyncio
from typing import Any
from unittest.mock import patch

import pytest

from support.both_ways import Socket
from support.spine import run_async
from tokenwire.errors import NetworkError, ProviderError
from tokenwire.providers.http.connection import Connection, Route
from tokenwire.providers.http.response import HIGH_WATER, Response
from tokenwire.turns import MOST, turns

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Pool:
    """What became of each connection."""

    def __init__(self) -> None:
        self.kept: list[Connection] = []
        self.gone: list[Connection] = []

    def keep(self, route: Route, connection: Connection) -> None:
        self.kept.append(connection)

    def forget(self, route: Route, connection: Connection) -> None:
        self.gone.append(connection)


class Peer(Socket):
    """The provider's side; a connection that it closes is told so at once."""

    def lose(self, error: Exception | None = None) -> None:
        self.closed = True
        assert self.connection is not None
        self.connection.connection_lost(error)


async def asked(pool: Pool) -> tuple[Peer, Connection, Response]:
    """A connection whose answer has begun."""
    peer, connection = Peer(), Connection(pool, Route("127.0.0.1", 1, False))
    peer.connection = connection
    connection.connection_made(peer)  # type: ignore[arg-type]
    asyncio.get_running_loop().call_soon(connection.data_received, HEAD)
    response = await connection.ask(b"POST / HTTP/1.1\r\n\r\n")
    return peer, connection, response


async def next_turns() -> None:
    """A turn in which nothing came, so that the next one has all its room."""
    for _ in range(4):
        await asyncio.sleep(0)


def use_up() -> None:
    """All the room of this turn."""
    while turns().admit():
        pass


def test_of_many_that_end_at_once_each_is_whole_and_few_are_handled_in_a_turn() -> None:
    async def main() -> None:
        pool, count = Pool(), 5 * MOST
        open_ones = [await asked(pool) for _ in range(count)]
        reading = [asyncio.ensure_future(response.read()) for *_, response in open_ones]
        await next_turns()
        by_turn, turn, parse = dict[int, int](), 0, Connection._parse

        def counted(self: Connection, data: bytes) -> None:
            by_turn[turn] = by_turn.get(turn, 0) + 1
            parse(self, data)

        with patch.object(Connection, "_parse", counted):
            for number, (peer, *_) in enumerate(open_ones):
                peer.bring(chunk(b"%d " % number))
                peer.bring(chunk(b"more") + END)
            while not all(task.done() for task in reading):
                await asyncio.sleep(0)
                turn += 1
        # Work that comes and work that waits may meet in what is one turn to this task.
        assert max(by_turn.values()) <= 2 * MOST
        for number, (task, (_, _, response)) in enumerate(zip(reading, open_ones, strict=True)):
            data = task.result()
            while more := await response.read():
                data += more
            assert data == b"%d more" % number
            await response.aclose()
        assert len(pool.kept) == count

    run_async(main())


@pytest.mark.parametrize("error", [None, ConnectionResetError("reset")])
def test_the_end_comes_after_the_bytes_that_wait(error: Exception | None) -> None:
    async def main() -> None:
        pool = Pool()
        peer, connection, response = await asked(pool)
        reading = asyncio.ensure_future(response.read())
        await next_turns()
        use_up()
        peer.bring(chunk(b"one "))
        assert not connection.usable
        peer.bring(chunk(b"two"))
        peer.lose(error)
        assert not pool.gone
        assert not connection.usable
        assert await reading == b"one two"
        with pytest.raises(NetworkError) as failure:
            await response.read()
        assert failure.value.__cause__ is error
        assert pool.gone == [connection]
        await response.aclose()
        assert not pool.kept

    run_async(main())


def test_many_connections_that_are_lost_at_once_wait_too() -> None:
    async def main() -> None:
        pool = Pool()
        open_ones = [await asked(pool) for _ in range(3 * MOST)]
        reading = [asyncio.ensure_future(response.read()) for *_, response in open_ones]
        await next_turns()
        for peer, *_ in open_ones:
            peer.lose()
        assert len(pool.gone) == MOST
        errors = await asyncio.gather(*reading, return_exceptions=True)
        assert [type(error) for error in errors] == [NetworkError] * len(errors)
        assert pool.gone == [connection for _, connection, _ in open_ones]

    run_async(main())


def test_a_whole_answer_that_waited_gives_its_connection_back() -> None:
    async def main() -> None:
        pool = Pool()
        peer, connection, response = await asked(pool)
        await next_turns()
        use_up()
        peer.bring(END)
        response.linger()
        assert not pool.kept
        await next_turns()
        assert pool.kept == [connection]
        assert connection.usable
        assert not peer.closed

    run_async(main())


def test_what_waits_is_bounded() -> None:
    async def main() -> None:
        peer, _, response = await asked(Pool())
        await next_turns()
        use_up()
        piece = chunk(b"x" * 60_000)
        sent = 0
        while not peer.paused:
            assert sent <= HIGH_WATER
            peer.bring(piece)
            sent += len(piece)
        await next_turns()
        assert peer.paused  # as much is unread in the answer now
        assert len(await response.read()) == sent // len(piece) * 60_000
        assert not peer.paused

    run_async(main())


def test_a_pause_for_what_waited_ends_with_it() -> None:
    """The answer may have nobody for what was too much in one turn."""

    async def main() -> None:
        peer, _, response = await asked(Pool())
        got: list[bytes] = []

        def take(data: bytes) -> Any:
            got.append(data)
            return 1

        reading = asyncio.ensure_future(response.read_express(take))  # type: ignore[arg-type]
        await next_turns()
        use_up()
        with patch("tokenwire.providers.http.late.Late.received", autospec=True) as received:
            received.side_effect = lambda late, data: late._pieces.append(data) or late._on_full()
            peer.bring(chunk(b"one"))
        assert peer.paused
        await next_turns()
        assert got == [b"one"]
        assert not peer.paused
        reading.cancel()

    run_async(main())


def test_after_an_abort_nothing_of_it_arrives() -> None:
    async def main() -> None:
        pool = Pool()
        peer, connection, response = await asked(pool)
        reading = asyncio.ensure_future(response.read())
        await next_turns()
        use_up()
        peer.bring(chunk(b"late"))
        response.abort(ProviderError("stopped"))
        with pytest.raises(ProviderError, match="stopped"):
            await reading
        await next_turns()
        assert response._pieces == []
        assert pool.gone == [connection]

    run_async(main())


def test_a_fault_ends_the_answer_and_is_reported_once() -> None:
    async def main() -> None:
        pool, reported = Pool(), list[object]()
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: reported.append(context["message"]))
        peer, connection, response = await asked(pool)
        reading = asyncio.ensure_future(response.read())
        await next_turns()
        use_up()
        with patch.object(Connection, "_parse", side_effect=RuntimeError("a fault of ours")):
            peer.bring(chunk(b"one"))
            await next_turns()
        with pytest.raises(NetworkError) as failure:
            await reading
        assert isinstance(failure.value.__cause__, RuntimeError)
        assert reported == ["a read of a provider's answer failed"]
        assert peer.closed
        assert connection in pool.gone

    run_async(main())


def test_bytes_of_no_request_wait_for_nothing() -> None:
    async def main() -> None:
        pool = Pool()
        peer, _, response = await asked(pool)
        peer.bring(END)
        await response.aclose()
        assert pool.kept
        use_up()
        peer.bring(b"HTTP/1.1 408 Late\r\n\r\n")
        assert peer.closed

    run_async(main())


def test_an_answer_that_comes_with_its_end_in_one_turn_is_whole() -> None:
    """Its head is not yet where it is waited for when the connection ends."""

    async def main() -> None:
        peer, connection = Peer(), Connection(Pool(), Route("127.0.0.1", 1, False))
        peer.connection = connection
        connection.connection_made(peer)  # type: ignore[arg-type]
        asking = asyncio.ensure_future(connection.ask(b"POST / HTTP/1.1\r\n\r\n"))
        await next_turns()
        use_up()
        connection.data_received(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nall")
        peer.lose()
        response = await asking
        assert [await response.read(), await response.read()] == [b"all", b""]

    run_async(main())
