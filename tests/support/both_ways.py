"""A run over raw bytes of a provider, with its lane on and off: records and readers' bytes.

With it off, every event is decoded and encoded for every reader as well. With it on, the native
twin of the lane is compared as well, where it is installed, after each read.

Everything is real but the sockets and the clock: the bytes go into the provider's connection, each
read at its time, when everybody who was woken by the one before sleeps again.
"""

from __future__ import annotations

import asyncio
import time as real_time
from collections.abc import Awaitable, Callable, Iterable
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import msgspec

from tokenwire.events.message import user
from tokenwire.events.request import Request
from tokenwire.express import Port
from tokenwire.log.memory import MemoryStore
from tokenwire.observe import hooks
from tokenwire.observe.facts import ChunksCame, StoreAppended
from tokenwire.providers.base import Target
from tokenwire.providers.http.connection import Connection, Route
from tokenwire.relay.produce.contract import ProducerLimits
from tokenwire.relay.record import cursor_of
from tokenwire.relay.runs import Runs
from tokenwire.run.call.lane import (
    Lane,
    _Numbers,
    pull_in_python,
    received_in_python,
    switch,
    twin,
)
from tokenwire.run.call.recover import RetryPolicy
from tokenwire.run.loop import Loop
from tokenwire.server.edge.connections import Connections
from tokenwire.server.edge.encoding.batches import BatchEncoder
from tokenwire.server.edge.respond import RunResponse
from tokenwire.server.edge.transport import transport_of
from tokenwire.wire.ag_ui.encoder import AGUIEncoder
from tokenwire.wire.ag_ui.tanstack import AGUILinesEncoder
from tokenwire.wire.catalogue import encoder_for
from tokenwire.wire.native import NativeEncoder
from tokenwire.wire.token_sse import TokenEncoder

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ntransfer-encoding: chunked\r\n\r\n"
RUN = "run-0123456789abcdefgh"
#: How long a test waits for the next turn, on a slow machine.
PATIENCE = 60.0


def chunked(*blocks: bytes, form: bytes = b"%x\r\n") -> list[bytes]:
    """Each block as a chunk of its own."""
    return [form % len(block) + block + b"\r\n" for block in blocks if block]


END = b"0\r\n\r\n"


#: Encoders that no name gives.
OTHERS: dict[str, Callable[[], Any]] = {
    "native": NativeEncoder,
    "token": lambda: TokenEncoder(RUN),
    "lines": lambda: AGUILinesEncoder(history=[]),
    "history": lambda: AGUIEncoder(history=[{"id": "u1", "role": "user", "content": "hi"}]),
}
_ONCE = RetryPolicy(retries=0)


class Clock:
    """The clock of everything on the way of a token."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def namespace(self) -> SimpleNamespace:
        return SimpleNamespace(
            monotonic=self.monotonic,
            perf_counter=self.monotonic,
            time=lambda: 1_795_000_000.0,
        )


class Socket(asyncio.Transport):
    """The provider's side of a connection that is no socket."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = self.paused = False
        #: How often it was left alone for a while.
        self.pauses = 0
        self.connection: Connection | None = None

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def write(self, data: Any) -> None:
        pass

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.paused = True
        self.pauses += 1

    def resume_reading(self) -> None:
        self.paused = False

    def abort(self) -> None:
        if not self.closed:
            self.closed = True
            assert self.connection is not None
            asyncio.get_running_loop().call_soon(self.connection.connection_lost, None)

    close = abort

    @property
    def waits(self) -> bool:
        """Whether it is left alone until something happens that nobody has to wait for."""
        return self.paused

    def bring(self, data: bytes) -> None:
        """A read of it."""
        assert not self.paused
        assert self.connection is not None
        self.connection.data_received(data)


class Keeper:
    def keep(self, route: Route, connection: Connection) -> None:
        connection.abort()

    def forget(self, route: Route, connection: Connection) -> None:
        pass


class Http:
    """An `HttpClient` whose answers a test gives."""

    def __init__(self, content_type: str, socket: type[Socket] = Socket) -> None:
        self._head, self._socket = HEAD % content_type.encode(), socket
        self.sockets: list[Socket] = []

    async def open(self, call: Any, *, connect_timeout: float) -> Any:
        socket, connection = self._socket(), Connection(Keeper(), Route("127.0.0.1", 1, False))
        socket.connection = connection
        connection.connection_made(socket)
        self.sockets.append(socket)
        asyncio.get_running_loop().call_soon(connection.data_received, self._head)
        return await connection.ask(b"POST / HTTP/1.1\r\n\r\n")

    async def aclose(self) -> None:
        pass


class Body:
    """A reader's socket: what was written to it, and whether it takes more without waiting."""

    def __init__(self) -> None:
        self.data = b""
        self._is_full = False
        self.port = Port(self._send)
        #: What came past `write` as a chunk.
        self.past = 0

    @property
    def is_full(self) -> bool:
        return self._is_full

    @is_full.setter
    def is_full(self, is_full: bool) -> None:
        self._is_full = is_full
        if is_full:
            self.port.is_open = False

    def ready(self) -> bool:
        self.port.is_open = not self._is_full
        return self.port.is_open

    def _send(self, chunk: bytes) -> None:
        line, _, rest = chunk.partition(b"\r\n")
        assert line == b"%x" % (len(rest) - 2)
        assert rest.endswith(b"\r\n")
        self.past += 1
        self.write(rest[:-2])

    def write(self, data: bytes) -> None:
        assert not self.is_full
        self.data += data

    def hold(self) -> None:
        """What is written is there at once."""

    async def send(self, message: Any) -> None:
        self.data += message.get("body", b"")


class Outcome:
    """What somebody can see of a run."""

    def __init__(self) -> None:
        self.records: list[bytes] = []
        self.closed: str | None = None
        self.readers: dict[str, bytes] = {}
        self.state: Any = None
        self.chunks = self.appended = 0
        #: How often a provider's socket was left alone, as between two ticks.
        self.pauses = 0
        #: What the store counts, at the end.
        self.counted: dict[str, Any] = {}
        #: Reads that the lane took, and records that it wrote to a reader itself.
        self.on_lane = self.by_hand = 0
        #: What the lane, its log and its clocks held after each read.
        self.states: list[str] = []

    def seen(self) -> dict[str, Any]:
        """All of it but which way it went."""
        ways = ("on_lane", "by_hand", "states")
        return {name: value for name, value in vars(self).items() if name not in ways}


#: One thing that happens: bytes of the provider, or a call of the test's own.
Step = bytes | Callable[["Scene"], Awaitable[None]]


class Scene:
    """A run under way."""

    def __init__(self, runs: Runs, http: Http, clock: Clock, store: Any) -> None:
        self.runs, self.http, self.clock, self.store = runs, http, clock, store
        self.outcome = Outcome()
        self.bodies: dict[str, Body] = {}
        self.responses: list[RunResponse] = []
        self.answering: list[asyncio.Task[None]] = []
        self.connections = Connections()

    async def read(self, wire: str, name: str = "", *, after: int = 0) -> None:
        """One more reader; ``after``: the number of the last record that it has."""
        make = OTHERS.get(wire)
        encoder: Any = encoder_for(wire) if make is None else make()
        cursor = cursor_of(after, self.store._logs[RUN].records[after - 1]) if after else None
        follower = await self.runs.follow(RUN, after=cursor)
        skip = 0 if encoder.stateless else after
        if skip:
            follower.rewind()
        response = RunResponse(self.connections, follower, encoder, run_id=RUN, skip=skip)
        body = self.bodies[name or wire] = Body()
        scope: dict[str, Any] = {"type": "http", "method": "GET"}
        transport_of(scope).body = body  # type: ignore[assignment]
        self.responses.append(response)
        self.answering.append(asyncio.ensure_future(response(scope, _forever, body.send)))

    @property
    def owned(self) -> Any:
        return self.runs.owned.get(RUN)

    @property
    def socket(self) -> Socket:
        return self.http.sockets[-1]

    async def idle(self) -> None:
        """Until everybody waits for the provider, or the run is over."""
        until = real_time.monotonic() + PATIENCE
        while not self._is_idle():
            assert real_time.monotonic() < until, "the run does not come to rest"
            await asyncio.sleep(0)

    def _is_idle(self) -> bool:
        waits = all(
            task.done() or _waits(response.follower._waiter)
            for task, response in zip(self.answering, self.responses, strict=True)
        )
        if self.owned is None or self.owned.task.done():
            return waits
        if not self.http.sockets or self.socket.waits or self.owned.producer.appending:
            return False
        connection = self.socket.connection
        assert connection is not None
        response = connection._response
        is_read = connection._late is None
        return waits and is_read and response is not None and _waits(response._waiter)

    async def bring(self, data: bytes, seconds: float) -> None:
        """A read of the provider's socket, so long after the one before."""
        self.clock.now += seconds
        if not self.socket.closed:
            self.socket.bring(data)
        await self.idle()


def _waits(waiter: asyncio.Future[None] | None) -> bool:
    return waiter is not None and not waiter.done()


async def _forever() -> Any:
    await asyncio.Event().wait()


#: What changes in a lane from read to read, as it stands.
_PLAIN = (
    *_Numbers.__slots__, "_misses", "_read", "_text", "_times", "_varies",
)  # fmt: skip


def state_of(lane: Lane) -> str:
    """All that a read can change."""
    state: list[Any] = [getattr(lane, name, None) for name in _PLAIN]
    tape = lane._tape
    state += [lane._pacer.state(), lane._watch and lane._watch._last_event()]
    if tape is not None:
        usage = tape.usage
        state += [len(tape.records), tape.records[-1:], tape.bytes, usage.bytes, usage.records]
    return repr(state)


def _learn_nothing(*arguments: Any) -> None:
    """Every event is decoded and encoded."""


class _One:
    def __init__(self, dialect: Any, quirks: frozenset[str]) -> None:
        self.answer = (
            dialect,
            Target(
                provider="x",
                dialect=dialect.name,
                model="m",
                base_url="http://127.0.0.1:1",
                quirks=quirks,
            ),
        )

    def resolve(self, name: str) -> Any:
        return self.answer


def run_over(
    dialect: Any,
    steps: Iterable[Step],
    *,
    lane: bool,
    wires: Iterable[str] = ("native",),
    seconds: float = 0.02,
    content_type: str = "text/event-stream",
    quirks: frozenset[str] = frozenset(),
    ends: bool = True,
    store: Callable[[], Any] = lambda: MemoryStore(clock=lambda: 1.0),
    bounds: ProducerLimits | None = None,
    received: Callable[[Any, bytes], bool] | None = None,
    socket: type[Socket] = Socket,
) -> Outcome:
    """The outcome of a run whose provider sends ``steps``, ``seconds`` apart. ``ends``: at the end
    the provider closes the connection. ``received``: the lane's, where it is another than the
    installed one. ``socket``: the provider's side of its connections."""

    async def main() -> Outcome:
        clock = Clock()
        fake = clock.namespace()
        on_lane, states = 0, []
        take = received or Lane.received
        pull = twin.pull if twin.pull and take is twin.received else pull_in_python

        def counted(self: Lane, data: bytes) -> bool:
            nonlocal on_lane
            taken = take(self, data)
            on_lane += taken
            states.append(state_of(self))
            return taken

        defaults = {**(Loop.__init__.__kwdefaults__ or {})}
        defaults |= {"clock": fake.monotonic, "wall": fake.time}
        with (
            patch("tokenwire.run.loop.time", fake),
            patch("tokenwire.run.call.lane.time", fake),
            patch("tokenwire.run.call.source.time", fake),
            patch("tokenwire.run.call.sweep.time", fake),
            patch.object(Loop.__init__, "__kwdefaults__", defaults),
            patch.object(Lane, "received", counted),
            patch.object(Connection, "pull", pull),
            patch.object(switch, "on", lane),
            patch.object(BatchEncoder, "_learn", BatchEncoder._learn if lane else _learn_nothing),
        ):
            log = store()
            await log.start()
            http = Http(content_type, socket)
            registry: Any = _One(dialect, quirks)
            runs = Runs(log, registry=registry, http=http, retry=_ONCE, bounds=bounds)
            await runs.open()
            scene = Scene(runs, http, clock, log)
            outcome = scene.outcome

            def observe(fact: object) -> None:
                if isinstance(fact, ChunksCame):
                    outcome.chunks += len(fact.chunk_gap_seconds)
                elif isinstance(fact, StoreAppended):
                    outcome.appended += fact.records

            stop = hooks.observe(observe)
            try:
                await runs.start(Request(messages=[user("x")]), model="m", run_id=RUN)
                for wire in wires:
                    await scene.read(wire)
                await scene.idle()
                for step in steps:
                    if isinstance(step, bytes):
                        await scene.bring(step, seconds)
                    else:
                        await step(scene)
                        await scene.idle()
                until = real_time.monotonic() + PATIENCE
                while ends and scene.owned is not None and not scene.owned.task.done():
                    assert real_time.monotonic() < until, "the run does not end"
                    if not scene.socket.closed:
                        scene.socket.abort()
                    await asyncio.sleep(0)
                await scene.idle()
                if isinstance(log, MemoryStore):
                    outcome.counted = await log.stats()
                page = await log.read(RUN, most=1_000_000, most_bytes=1 << 30)
                outcome.records, outcome.closed = page.records, page.closed
                snapshot = await runs.snapshot(RUN)
                outcome.state = msgspec.structs.replace(snapshot, created=0)  # a store's own clock
            finally:
                stop()
                for task in scene.answering:
                    if not task.done() and ends:
                        await asyncio.wait([task], timeout=PATIENCE)
                    task.cancel()
                await asyncio.gather(*scene.answering, return_exceptions=True)
                await scene.connections.aclose()
                await runs.aclose()
                await log.close()
                for _ in range(3):  # transports tell their end in a turn of their own
                    await asyncio.sleep(0)
            outcome.readers = {name: body.data for name, body in scene.bodies.items()}
            outcome.on_lane, outcome.states = on_lane, states
            outcome.pauses = sum(socket.pauses for socket in http.sockets)
            outcome.by_hand = sum(body.past for body in scene.bodies.values())
            return outcome

    return asyncio.run(main())


def same_both_ways(dialect: Any, steps: Iterable[Step], **options: Any) -> Outcome:
    """The outcome with the lane; fails where it differs from that without."""
    steps = list(steps)
    plain = run_over(dialect, steps, lane=False, **options)
    laned = run_over(dialect, steps, lane=True, received=received_in_python, **options)
    assert plain.on_lane == 0
    assert laned.records == plain.records
    assert laned.readers == plain.readers
    assert laned.seen() == plain.seen()
    if twin.received is not None:
        native = run_over(dialect, steps, lane=True, received=twin.received, **options)
        assert native.states == laned.states
        assert vars(native) == vars(laned)
    return laned
