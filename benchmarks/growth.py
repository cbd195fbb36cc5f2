"""What grows with size, and what must not: the cost of one more, against how many there are.

Each row is one thing at three sizes, in CPU time of this process: what costs the same per item at
each size is linear; what costs the same in all does not grow. No sockets; half a minute.

    python benchmarks/growth.py
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from tokenwire.events import model as m
from tokenwire.log.memory import MemoryStore
from tokenwire.providers.http.connection import Connection, Route
from tokenwire.providers.http.pool import Pool
from tokenwire.relay.commands import decode_command
from tokenwire.relay.follow import open_follower
from tokenwire.relay.record import Chain, cursor_of
from tokenwire.relay.replay import read_run
from tokenwire.server.edge.connections import Connections
from tokenwire.server.edge.respond import RunResponse
from tokenwire.wire.catalogue import WIRES, encoder_for

RUN = "r" * 22


def cpu() -> float:
    return time.process_time()


async def idle_connections(count: int) -> float:
    """Microseconds for each idle connection that closes."""
    pool, route = Pool(), Route("127.0.0.1", 1, False)
    connections = [Connection(pool, route) for _ in range(count)]
    for connection in connections:
        pool.keep(route, connection)
    begin = cpu()
    for connection in connections:
        connection.connection_lost(None)
    took = cpu() - begin
    pool.close()
    return took / count * 1e6


async def stored(count: int) -> tuple[MemoryStore, str]:
    """A run of so many events, and a cursor near its end."""
    store, chain = MemoryStore(), Chain(RUN)
    events: list[m.Event] = [
        m.RunStart(run=RUN, time=1),
        m.StepStart(step=1, model="x", provider="x", dialect="openai-chat"),
        m.TextStart(part=0),
        *(m.TextDelta(part=0, text="word ") for _ in range(count)),
        m.TextEnd(part=0),
        m.StepEnd(step=1, status="complete", terminal_seen=True),
        m.RunEnd(outcome="complete"),
    ]
    for seq, event in enumerate(events, 1):
        event.seq = event.t = seq
    records = chain.seal_all(events)
    await store.create(RUN, owner="o")
    await store.append(RUN, epoch=1, first=1, records=records, close="complete")
    at = len(records) - 5
    return store, cursor_of(at, records[at - 1])


async def replay(count: int) -> float:
    """Microseconds per record of a run that is read back, as a takeover does."""
    store, _ = await stored(count)
    begin = cpu()
    await read_run(store, RUN)
    return (cpu() - begin) / count * 1e6


async def never() -> Any:
    await asyncio.Event().wait()


def resumed(wire: str) -> Callable[[int], Awaitable[float]]:
    async def resume(count: int) -> float:
        """Microseconds per record of a run whose last five are read, on a wire with state."""
        store, cursor = await stored(count)
        connections = Connections()

        async def send(message: Any) -> None:
            pass

        follower = await open_follower(store, RUN, cursor)
        skip = follower.after
        follower.rewind()
        response = RunResponse(connections, follower, encoder_for(wire), run_id=RUN, skip=skip)
        begin = cpu()
        await response({"type": "http", "method": "GET"}, never, send)
        took = cpu() - begin
        await connections.aclose()
        return took / count * 1e6

    return resume


async def commands(count: int) -> float:
    """Microseconds per mailbox of so many, each with one command."""
    store = MemoryStore()
    for number in range(count):
        await store.create(f"{number}", owner="o")
        await store.command(f"{number}", b'{"type":"control","command":"cancel"}')
    begin = cpu()
    for number in range(count):
        for _, data in await store.commands(f"{number}"):
            decode_command(data)
    return (cpu() - begin) / count * 1e6


ROWS: dict[str, tuple[Callable[[int], Awaitable[float]], tuple[int, ...]]] = {
    "idle connections that close": (idle_connections, (100, 1_000, 8_000)),
    "records of a run read back": (replay, (1_000, 10_000, 100_000)),
    **{
        f"records before a resume, {wire}": (resumed(wire), (1_000, 10_000, 100_000))
        for wire in WIRES
        if wire not in ("ui-5", "ui-6", "ui-7", "tanstack")
    },
    "mailboxes read": (commands, (100, 1_000, 10_000)),
}


async def main() -> None:
    print(f"{'us of CPU for each of':42s}  smallest, middle, largest number")
    for name, (measure, sizes) in ROWS.items():
        costs = [await measure(size) for size in sizes]
        text = "  ".join(
            f"{size:7,d}: {cost:7.2f}" for size, cost in zip(sizes, costs, strict=True)
        )
        print(f"{name:42s}  {text}   x {costs[-1] / costs[0]:.1f}", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
