"""The thin client beneath the Redis log: answers keep their place, doubt ends a connection."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.redis import RedisServer, need_redis
from support.redis_cases import opened
from tokenwire.log.redis.connection import Connection, ReplyError, encode, open_wire
from tokenwire.log.redis.nodes import slot_of
from tokenwire.log.redis.url import parse_url

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def with_server(serve: Serve, case: Callable[[Connection], Awaitable[None]]) -> None:
    """Run ``case`` on a connection to a server that does what ``serve`` says."""

    async def main() -> None:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await serve(reader, writer)
            writer.close()

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        settings = parse_url(f"redis://127.0.0.1:{port}")
        wire, _ = await open_wire(Connection, settings.hosts[0], settings, None)
        try:
            await case(wire)
        finally:
            wire.abort("the test is over")
            server.close()

    asyncio.run(main())


async def _after_a_command(reader: asyncio.StreamReader) -> None:
    await reader.readuntil(b"PING\r\n")


def test_a_caller_that_gives_up_leaves_its_place_in_the_line() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for number in range(3):
            await _after_a_command(reader)
            writer.write(b":%d\r\n" % number)

    async def case(wire: Connection) -> None:
        first, second, third = (wire.send(encode("PING")) for _ in range(3))
        second.cancel()
        assert (await first, await third) == ([0], [2])

    with_server(serve, case)


def test_answers_come_in_any_pieces() -> None:
    answer = b"*2\r\n$3\r\na\r\n\r\n:7\r\n-ERR no\r\n$-1\r\n"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _after_a_command(reader)
        for at in range(len(answer)):
            writer.write(answer[at : at + 1])
            await writer.drain()
            await asyncio.sleep(0)

    async def case(wire: Connection) -> None:
        array, error, nothing = await wire.send(encode("PING"), 3)
        assert array == [b"a\r\n", 7]
        assert (type(error), error.code, nothing) == (ReplyError, "ERR", None)

    with_server(serve, case)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak the protocol"),
        (b"+PONG\r\n+PONG\r\n", "unexpected reply"),
        (b"+PO", "closed the connection"),
    ],
)
def test_a_connection_in_doubt_is_never_used_again(said: bytes, reason: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _after_a_command(reader)
        writer.write(said)

    async def case(wire: Connection) -> None:
        try:
            assert await wire.send(encode("PING")) == [b"PONG"]
        except ConnectionError as error:
            assert reason in str(error)
        while wire.failure is None:
            await asyncio.sleep(0.01)
        with pytest.raises(ConnectionError, match=reason):
            wire.send(encode("PING"))

    with_server(serve, case)


@pytest.mark.redis
def test_scripts_that_a_server_forgot_are_given_again(server: RedisServer) -> None:
    async def main() -> None:
        async with opened(server.url) as log:
            await log.create("s", owner="me", lease=60)
            for number in range(1, 6):
                server.ask("SCRIPT", "FLUSH")
                record = b"%d" % number
                done = await log.append("s", epoch=1, first=number, records=[record])
                assert done.status == "ok"
                server.ask("SCRIPT", "FLUSH")
                assert (await log.read("s", after=number - 1)).records == [record]

    asyncio.run(main())


@pytest.mark.redis
def test_slots_are_those_of_the_server() -> None:
    need_redis()
    server = RedisServer("--cluster-enabled", "yes")
    server.start()

    @given(st.text(max_size=20).map(lambda text: text.replace("\x00", "{")))
    def check(key: str) -> None:
        words = b"*3\r\n$7\r\nCLUSTER\r\n$7\r\nKEYSLOT\r\n$%d\r\n%b\r\n"
        data = key.encode("utf-8", "replace")
        assert slot_of(data.decode()) == server.send(words % (len(data), data))

    try:
        check()
        for key in ("", "{}", "{}a", "a{b}c{d}", "{{a}}", "a{", "a}b{c}"):
            assert slot_of(key) == server.answer("CLUSTER", "KEYSLOT", key)
    finally:
        server.stop()
