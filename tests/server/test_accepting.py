"""New connections: taken together, and refused while the event loop is late."""

from __future__ import annotations

import asyncio
import socket
import threading
import time

from support.server import site
from tokenwire.server.edge.connection.http import GuardedProtocol
from tokenwire.server.edge.connections import Connections


def test_connections_that_come_together_are_accepted_within_a_few_turns(monkeypatch) -> None:
    """Else a server whose turns are long would leave most of a crowd waiting, unseen."""
    accepted = 0
    made = GuardedProtocol.connection_made

    def count(self, transport) -> None:
        nonlocal accepted
        accepted += 1
        made(self, transport)

    monkeypatch.setattr(GuardedProtocol, "connection_made", count)
    come, done = threading.Event(), threading.Event()
    turns = 0

    def turn(loop) -> None:
        nonlocal turns
        turns += 1
        if accepted < first + 24 and turns < 200:
            loop.call_soon(turn, loop)
        else:
            done.set()

    def stand_still(loop) -> None:
        come.wait(40)
        loop.call_soon(turn, loop)

    with site() as here:
        loop = here.app.state.connections._ticker.get_loop()
        first = accepted
        loop.call_soon_threadsafe(stand_still, loop)
        readers = [socket.create_connection(("127.0.0.1", here.port)) for _ in range(24)]
        come.set()
        assert done.wait(40)
        for reader in readers:
            reader.close()
    assert accepted >= first + 24
    assert turns <= 4


def test_the_lateness_is_known_within_a_long_turn() -> None:
    async def main() -> None:
        connections = Connections()
        assert connections.lateness() == 0.0
        connections.wake()
        await asyncio.sleep(0)
        connections._due = time.monotonic() + 60.0
        assert connections.lateness() == 0.0
        connections._due = time.monotonic() - 8.0
        assert connections.lateness() >= 2.0
        connections.lag = 5.0
        assert connections.lateness() >= 5.0
        await connections.aclose()

    asyncio.run(main())
