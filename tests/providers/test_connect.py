"""Several addresses of one name: the first that connects is used, and none is left open."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from support.free_ports import free_port
from support.raw_provider import HEAD, chunked, closing, raw_provider
from support.spine import run_async
from tokenwire.providers.base import Call
from tokenwire.providers.http import connect, pool
from tokenwire.providers.http.client import HttpClient
from tokenwire.providers.http.connect import open_socket
from tokenwire.providers.http.connection import Route
from tokenwire.providers.http.pool import Pool

STREAM = socket.SOCK_STREAM
Info = tuple[Any, Any, int, str, Any]


def info(port: int) -> Info:
    return (socket.AF_INET, STREAM, 0, "", ("127.0.0.1", port))


class Resolver:
    """What the loop's `getaddrinfo` finds, whatever the name."""

    def __init__(self, *infos: Info) -> None:
        self.infos = list(infos)

    async def __call__(self, *_: Any, **__: Any) -> list[Info]:
        return self.infos


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def to(*infos: Info) -> None:
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", Resolver(*infos))

    return to


class Attempts:
    """Attempts to connect by port: some never end, others end as the network says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *silent: int) -> None:
        self.ports: list[int] = []
        self.cancelled: list[int] = []
        connected = connect._connected

        async def attempt(address: Info) -> socket.socket:
            port = address[4][1]
            self.ports.append(port)
            if port in silent:
                try:
                    await asyncio.Event().wait()
                finally:
                    self.cancelled.append(port)
            return await connected(address)

        monkeypatch.setattr(connect, "_connected", attempt)


def test_an_address_that_does_not_answer_does_not_hold_the_next(
    monkeypatch: pytest.MonkeyPatch, resolve: Callable[..., None]
) -> None:
    monkeypatch.setattr(connect, "NEXT_AFTER", 0.05)
    attempts = Attempts(monkeypatch, 1)

    async def main() -> None:
        async with raw_provider(closing()) as provider:
            port = int(provider.url.rpartition(":")[2])
            resolve(info(1), info(port))
            sock = await asyncio.wait_for(open_socket("models.internal", 443), 60)
            assert sock.getpeername() == ("127.0.0.1", port)
            sock.close()
            await asyncio.sleep(0)
            assert attempts.ports == [1, port]
            assert attempts.cancelled == [1]

    run_async(main())


def test_an_address_that_refuses_gives_way_at_once(
    monkeypatch: pytest.MonkeyPatch, resolve: Callable[..., None]
) -> None:
    monkeypatch.setattr(connect, "NEXT_AFTER", 3600.0)  # no clock helps

    async def main() -> None:
        async with raw_provider(closing()) as provider:
            port = int(provider.url.rpartition(":")[2])
            resolve(info(free_port()), info(free_port()), info(port))
            sock = await asyncio.wait_for(open_socket("models.internal", 443), 60)
            assert sock.getpeername() == ("127.0.0.1", port)
            sock.close()

    run_async(main())


def test_when_all_refuse_the_first_failure_is_told(resolve: Callable[..., None]) -> None:
    async def main() -> None:
        resolve(info(free_port()), info(free_port()))
        with pytest.raises(ConnectionRefusedError):
            await open_socket("models.internal", 443)

    run_async(main())


def test_a_cancel_ends_all_attempts(
    monkeypatch: pytest.MonkeyPatch, resolve: Callable[..., None]
) -> None:
    monkeypatch.setattr(connect, "NEXT_AFTER", 0.01)
    attempts = Attempts(monkeypatch, 1, 2, 3)

    async def main() -> None:
        resolve(info(1), info(2), info(3))
        opening = asyncio.ensure_future(open_socket("models.internal", 443))
        while len(attempts.ports) < 3:
            await asyncio.sleep(0.01)
        opening.cancel()
        with suppress(asyncio.CancelledError):
            await opening
        await asyncio.sleep(0)
        assert sorted(attempts.cancelled) == [1, 2, 3]

    run_async(main())


def test_families_take_turns_and_an_address_is_tried_once() -> None:
    def of(family: Any, host: str) -> Info:
        return (family, STREAM, 6, "", (host, 443))

    six, four = socket.AF_INET6, socket.AF_INET
    infos = [of(six, "a"), of(six, "b"), of(six, "a"), of(four, "c"), of(four, "d"), of(six, "e")]
    assert [i[4][0] for i in connect._interleaved(infos)] == ["a", "c", "b", "d", "e"]


def test_a_request_uses_the_address_that_answers(
    monkeypatch: pytest.MonkeyPatch, resolve: Callable[..., None]
) -> None:
    monkeypatch.setattr(connect, "NEXT_AFTER", 0.05)
    Attempts(monkeypatch, 1)

    async def main() -> None:
        answer = closing(HEAD, chunked(b"ok"), b"0\r\n\r\n")
        async with raw_provider(answer) as provider:
            resolve(info(1), info(int(provider.url.rpartition(":")[2])))
            client = HttpClient(env={})
            call = Call(url="http://models.internal/v1", headers={}, body=b"{}")
            stream = await client.open(call, connect_timeout=30)
            assert await stream.read() == b"ok"
            await stream.aclose()
            await client.aclose()

    run_async(main())


# --- idle connections ------------------------------------------------------------------------


class Idle:
    """As much of a connection as a pool needs."""

    def __init__(self, since: float) -> None:
        self.loop = asyncio.get_running_loop()
        self.idle_since, self.usable, self.aborted = since, True, False

    def abort(self) -> None:
        self.aborted = True


ROUTE = Route("models.internal", 443, True)


def test_idle_connections_are_closed_without_another_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool, "KEEP_IDLE", 0.05)
    closed = asyncio.Event

    async def main() -> None:
        ended = closed()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(2)
            writer.write(HEAD + chunked(b"ok") + b"0\r\n\r\n")
            await reader.read()
            ended.set()
            writer.close()

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        async with server:
            connections = Pool()
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
            response = await connections.request("POST", url, {}, b"{}")
            while await response.read():
                pass
            await response.aclose()
            assert len(connections) == 1
            await asyncio.wait_for(ended.wait(), 60)
            await asyncio.sleep(0)
            assert len(connections) == 0
            connections.close()

    run_async(main())


def test_the_older_ones_end_and_the_younger_ones_stay() -> None:
    async def main() -> None:
        connections = Pool()
        now = asyncio.get_running_loop().time()
        idle = [Idle(now) for _ in range(3)]
        for each in idle:
            connections.keep(ROUTE, each)  # type: ignore[arg-type]
        for each in idle[:2]:
            each.idle_since = now - 2 * pool.KEEP_IDLE
        connections._prune()
        assert [each.aborted for each in idle] == [True, True, False]
        assert connections._take(ROUTE) is idle[2]
        connections.close()

    run_async(main())


def test_forgetting_one_of_many_does_not_look_at_the_others() -> None:
    """Comparisons are counted, not time."""
    looks = 0

    class Counted(Idle):
        def __eq__(self, other: object) -> bool:
            nonlocal looks
            looks += 1
            return self is other

        __hash__ = object.__hash__

    async def main() -> None:
        connections = Pool()
        idle = [Counted(0.0) for _ in range(2000)]
        for each in idle:
            connections.keep(ROUTE, each)  # type: ignore[arg-type]
        for each in idle:
            connections.forget(ROUTE, each)  # type: ignore[arg-type]
        assert looks < 2 * len(idle)
        assert connections._take(ROUTE) is None
        connections.close()

    run_async(main())
