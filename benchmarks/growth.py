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
from tokenwire.events.fold import Fold
from tokenwire.events.message import user
from tokenwire.events.request import Request, ToolSpec
from tokenwire.log.memory import MemoryStore
from tokenwire.providers.base import Target
from tokenwire.providers.http.connection import Connection, Route
from tokenwire.providers.http.pool import Pool
from tokenwire.providers.openai.chat import DIALECT as CHAT
from tokenwire.relay.commands import decode_command
from tokenwire.relay.follow import open_follower
from tokenwire.relay.record import Chain, cursor_of
from tokenwire.relay.replay import read_run
from tokenwire.server.edge.connections import Connections
from tokenwire.server.edge.encoding.states import EncoderStates
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


def resumed(wire: str, *, again: bool = False) -> Callable[[int], Awaitable[float]]:
    async def resume(count: int) -> float:
        """Microseconds per record of a run whose last five are read, on a wire with state; or per
        run, by a reader that comes back once more."""
        store, cursor = await stored(count)
        states = EncoderStates()
        took = await resumed_once(store, cursor, wire, states)
        if not again:
            return took / count * 1e6
        return await resumed_once(store, cursor, wire, states) * 1e6

    return resume


async def resumed_once(store: MemoryStore, cursor: str, wire: str, states: EncoderStates) -> float:
    connections = Connections()

    async def send(message: Any) -> None:
        pass

    follower = await open_follower(store, RUN, cursor)
    skip, encoder = follower.after, encoder_for(wire)
    begin = cpu()
    keeper = await states.begin(encoder, follower)
    response = RunResponse(connections, follower, encoder, run_id=RUN, skip=skip, keeper=keeper)
    await response({"type": "http", "method": "GET"}, never, send)
    took = cpu() - begin
    await connections.aclose()
    return took


async def mailboxes(count: int) -> float:
    """Microseconds per mailbox of so many, each with one command, that are read in one call."""
    store = MemoryStore()
    for number in range(count):
        await store.create(f"{number}", owner="o")
        await store.command(f"{number}", b'{"type":"control","command":"cancel"}')
    places = {f"{number}": 0 for number in range(count)}
    begin = cpu()
    for commands in (await store.mailboxes(places)).values():
        for _, data in commands:
            decode_command(data)
    return (cpu() - begin) / count * 1e6


async def kept(count: int) -> float:
    """Microseconds for one more run, from its creation to its end, beside so many that ended."""
    store = MemoryStore()

    async def one(name: str) -> None:
        await store.create(name, owner="o", thread="t", meta=b"{}")
        await store.append(name, epoch=1, first=1, records=[b"x" * 200], close="complete")

    for number in range(count):
        await one(f"{number}")
    begin = cpu()
    for number in range(500):
        await one(f"more {number}")
    return (cpu() - begin) / 500 * 1e6


async def readers(count: int) -> float:
    """Microseconds per reader and record, of so many readers of one run."""
    store, chain = MemoryStore(), Chain(RUN)
    await store.create(RUN, owner="o")
    followers = [await open_follower(store, RUN, None) for _ in range(count)]
    events: list[m.Event] = [m.TextDelta(part=0, text="word ") for _ in range(4)]
    records = chain.seal_all(events)
    begin = cpu()
    for number, record in enumerate(records, 1):
        await store.append(RUN, epoch=1, first=number, records=[record])
        for follower in followers:
            await follower.next()
    took = cpu() - begin
    for follower in followers:
        follower.close()
    return took / count / len(records) * 1e6


TARGET = Target(provider="x", dialect="openai-chat", model="m", base_url="http://127.0.0.1:1")


async def history(count: int) -> float:
    """Microseconds per message of a conversation that is sent to a model."""
    request = Request(messages=[user(f"question {number}") for number in range(count)])
    begin = cpu()
    CHAT.build(request, TARGET)
    return (cpu() - begin) / count * 1e6


async def tools(count: int) -> float:
    """Microseconds per tool of a request to a model."""
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    specs = [ToolSpec(name=f"tool_{number}", parameters=schema) for number in range(count)]
    begin = cpu()
    CHAT.build(Request(messages=[user("x")], tools=specs), TARGET)
    return (cpu() - begin) / count * 1e6


async def calls(count: int) -> float:
    """Microseconds per tool call of a run whose state is kept."""
    state = Fold()
    begin = cpu()
    for number in range(count):
        name = f"call_{number}"
        state.apply(m.ToolStart(call_id=name, name="f"))
        state.apply(m.ToolResult(call_id=name, name="f", content="x"))
    return (cpu() - begin) / count * 1e6


ROWS: dict[str, tuple[Callable[[int], Awaitable[float]], tuple[int, ...]]] = {
    "idle connections that close": (idle_connections, (100, 1_000, 8_000)),
    "records of a run read back": (replay, (1_000, 10_000, 100_000)),
    **{
        f"records before a resume, {wire}": (resumed(wire), (1_000, 10_000, 100_000))
        for wire in WIRES
        if wire not in ("ui-5", "ui-6", "ui-7", "tanstack")
    },
    **{
        f"one more resume of so many, {wire}": (
            resumed(wire, again=True),
            (1_000, 10_000, 100_000),
        )
        for wire in ("ui", "ag-ui", "langgraph")
    },
    "mailboxes read": (mailboxes, (100, 1_000, 10_000)),
    "one more run beside those kept": (kept, (100, 10_000, 100_000)),
    "readers of one run": (readers, (10, 100, 1_000)),
    "messages of a history": (history, (10, 100, 1_000)),
    "tools of a request": (tools, (10, 100, 1_000)),
    "tool calls of one run": (calls, (100, 1_000, 10_000)),
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
