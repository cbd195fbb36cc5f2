"""Requests that come in one turn of the event loop are parsed in several, each in order."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from functools import partial
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from support.server import site
from support.spine import run_async
from tokenwire.server.edge.connection.arriving import ArrivingProtocol
from tokenwire.server.edge.connection.http import GuardedProtocol
from tokenwire.turns import MOST_PARSES, UPGRADE, turns


class Arriving(ArrivingProtocol):
    """A connection whose bytes are kept, with the turn in which they were parsed."""

    turn = 0

    def __init__(self) -> None:
        self.unparsed, self.is_in_body = b"", False
        self.got = b""
        self.by_turn: dict[int, int] = {}
        self.timers = 0

    def begins_request(self) -> bool:
        return not self.is_in_body

    def received(self, data: bytes) -> None:
        self.got += data
        self.by_turn[Arriving.turn] = self.by_turn.get(Arriving.turn, 0) + 1

    def _unset_keepalive_if_required(self) -> None:
        self.timers += 1


ACTIONS = st.lists(
    st.tuples(st.integers(0, 5), st.sampled_from(["data", "data", "large", "eof", "body", "turn"])),
    max_size=60,
)


@given(ACTIONS, st.integers(0, 2 * MOST_PARSES))
def test_nothing_passes_what_waits_and_all_is_parsed(
    actions: list[tuple[int, str]], others: int
) -> None:
    async def main() -> None:
        crowd = [Arriving() for _ in range(others)]
        for one in crowd:
            one.data_received(b"x")
        connections = [Arriving() for _ in range(6)]
        sent = [b""] * 6
        for number, (which, action) in enumerate(actions):
            one = connections[which]
            match action:
                case "data" | "large":
                    data = b"%d;" % number * (1 if action == "data" else 20_000)
                    one.data_received(data)
                    sent[which] += data
                case "eof":
                    one.eof_received()
                    assert one.got == sent[which], "its end comes behind its bytes"
                case "body":
                    one.is_in_body = not one.unparsed
                case _:
                    await asyncio.sleep(0)
            assert sent[which].startswith(one.got)
            assert one.got + one.unparsed == sent[which]
            assert not (one.is_in_body and one.unparsed), "a body waits for nothing"
        for _ in range(9):
            await asyncio.sleep(0)
        assert [one.got for one in connections] == sent
        assert all(one.got == b"x" for one in crowd)
        assert turns().line() == 0

    run_async(main())


def test_so_many_are_parsed_in_a_turn() -> None:
    async def main() -> None:
        Arriving.turn = 0
        crowd = [Arriving() for _ in range(5 * MOST_PARSES)]
        for one in crowd:
            one.data_received(b"GET ")
        assert sum(bool(one.got) for one in crowd) == MOST_PARSES
        assert turns().line() == 4 * MOST_PARSES
        while turns().line():
            Arriving.turn += 1
            await asyncio.sleep(0)
        parsed = [sum(one.by_turn.get(turn, 0) for one in crowd) for turn in range(6)]
        assert max(parsed) == MOST_PARSES
        assert sum(parsed) == 5 * MOST_PARSES
        # Its keep-alive clock would close a connection whose request waits.
        assert [one.timers for one in crowd] == [0] * MOST_PARSES + [1] * 4 * MOST_PARSES
        await asyncio.sleep(0)
        for _ in range(MOST_PARSES // UPGRADE):
            assert turns().admit_request()
            turns().parse(UPGRADE - 1)
        assert not turns().admit_request()
        await asyncio.sleep(0)
        assert turns().admit_request()

    run_async(main())


def test_requests_of_a_crowd_are_answered_however_their_connections_go_on() -> None:
    """On connections that are open already, in one moment: some send two, some are reset, and some
    are WebSockets."""
    count = 6 * MOST_PARSES
    lines, is_held, go_on = list[int](), threading.Event(), threading.Event()
    parse = GuardedProtocol.received

    def received(self: GuardedProtocol, data: bytes) -> None:
        lines.append(turns().line())
        if not is_held.is_set():  # the first one: the server stands still until all have come
            is_held.set()
            assert go_on.wait(60)
        parse(self, data)

    with site() as here, patch.object(GuardedProtocol, "received", received):
        host = f"HTTP/1.1\r\nHost: 127.0.0.1:{here.port}\r\n"
        request = f"GET /livez {host}\r\n".encode()
        upgrade = (
            f"GET /ws {host}Connection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ).encode()

        def send(number: int, writer: asyncio.StreamWriter) -> None:
            writer.write(upgrade if number % 4 == 3 else request)
            if number % 4 == 1:
                writer.write(request)
            elif number % 8 == 2:
                writer.transport.abort()

        async def main() -> list[bytes]:
            connect = partial(asyncio.open_connection, "127.0.0.1", here.port)
            opened = await asyncio.gather(*(connect() for _ in range(count)))
            send(0, opened[0][1])
            await asyncio.to_thread(is_held.wait, 60)
            for number, (_, writer) in enumerate(opened[1:], 1):
                send(number, writer)
            go_on.set()
            answers = []
            for number, (reader, writer) in enumerate(opened):
                if number % 8 != 2:
                    answers.append(await reader.readuntil(b"\r\n\r\n"))
                    writer.close()
            return answers

        answers: list[bytes] = run_async(main())
    assert max(lines) >= MOST_PARSES, "some waited"
    statuses = Counter(answer.split(b" ")[1] for answer in answers)
    assert statuses == {b"200": count // 4 * 2 + count // 8, b"101": count // 4}
