"""The simulator as a server: routes to wires, answers to connections, a list of what happened.

Always true: every request is recorded once, and its record ends once, with how it ended; closing
the server ends every answer.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import msgspec

from tokenwire.simulator.http import Connection, Exchange
from tokenwire.simulator.openai_chat import OpenAIChat
from tokenwire.simulator.pace import Schedule
from tokenwire.simulator.play import Chunk, Identity, Usage, Wire, play, trim
from tokenwire.simulator.playback import Action, Close, Playback, Send, Silence, Ticker
from tokenwire.simulator.scenarios import SCENARIOS, script_for
from tokenwire.simulator.script import compact
from tokenwire.simulator.settings import Settings

__all__ = ["Record", "SimulatorServer", "serve", "start_demo"]

#: Records kept for ``GET /sim/requests``.
MAX_RECORDS = 10_000
_JSON = {"content-type": "application/json", "access-control-allow-origin": "*"}


class Record(msgspec.Struct):
    """What became of one request for an answer."""

    id: int
    method: str
    path: str
    model: str = ""
    scenario: str = ""
    stream: bool = False
    faults: str = ""
    status: int = 0
    #: Seconds of the event loop's clock.
    started: float = 0.0
    ended: float | None = None
    disconnected_at: float | None = None
    bytes_sent: int = 0
    #: ``running``, ``complete``, ``refused``, ``cut-fin``, ``cut-rst``, ``disconnected``.
    outcome: str = "running"


def _actions(chunks: Iterator[Chunk]) -> Iterator[Action]:
    for chunk in chunks:
        if chunk.kind == "stall":
            yield Silence()
        elif chunk.kind == "cut":
            yield Close("fin")
        else:
            yield Send(chunk.delay, chunk.data)


class SimulatorServer:
    """The simulator on a port of this event loop: ``async with SimulatorServer() as server``."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        #: The newest requests, oldest first.
        self.requests: deque[Record] = deque(maxlen=MAX_RECORDS)
        self._connections: set[Connection] = set()
        self._server: asyncio.Server | None = None
        self._ticker: Ticker | None = None
        self._count = 0
        self._changed = asyncio.Event()
        self._chat = OpenAIChat()

    @property
    def url(self) -> str:
        """``http://host:port``, without a path."""
        if self._server is None:
            raise RuntimeError("the simulator is not running; use 'async with' or start()")
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def start(self) -> SimulatorServer:
        """Listen."""
        self._ticker = Ticker()
        self._server = await asyncio.get_running_loop().create_server(
            lambda: Connection(self._serve, self._connections),
            self.settings.host,
            self.settings.port,
            backlog=4096,
        )
        return self

    async def aclose(self) -> None:
        """Stop listening and end every answer."""
        if self._server is None:
            return
        self._server.close()
        open_now = list(self._connections)
        for connection in open_now:
            connection.abort()
        for connection in open_now:
            await connection.closed.wait()
        if self._ticker is not None:
            self._ticker.close()
        self._server = None

    async def __aenter__(self) -> SimulatorServer:
        return await self.start()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def wait_ended(self, number: int = -1) -> Record:
        """Wait until the request at place ``number`` of `requests` has ended."""
        while True:
            if self.requests and -len(self.requests) <= number < len(self.requests):
                record = self.requests[number]
                if record.ended is not None:
                    return record
            self._changed.clear()
            await self._changed.wait()

    def _serve(self, exchange: Exchange) -> None:
        path = exchange.request.path
        if exchange.request.method == "POST" and path.endswith("/chat/completions"):
            self._answer(exchange, self._chat)
            return
        if path.rstrip("/").endswith("/models"):
            body = {"object": "list", "data": [self._model(name) for name in self.settings.models]}
            exchange.answer(200, _JSON, compact(body))
        elif path == "/scenarios":
            listed = [{"name": s.name, "summary": s.summary} for s in SCENARIOS.values()]
            exchange.answer(200, _JSON, compact({"scenarios": listed}))
        elif path == "/sim/requests":
            exchange.answer(200, _JSON, compact({"requests": list(self.requests)}))
        elif path == "/healthz":
            exchange.answer(200, _JSON, b'{"status":"ok"}')
        else:
            message = f"The simulator has nothing at {exchange.request.method} {path}."
            exchange.answer(404, _JSON, compact(self._chat.error(404, message, "not_found")))

    def _model(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": 1_700_000_000, "owned_by": "simulator"}

    def _answer(self, exchange: Exchange, wire: Wire) -> None:
        assert self._ticker is not None
        request = exchange.request
        self._count += 1
        record = Record(self._count, request.method, request.path, started=self._ticker.now())
        self.requests.append(record)
        self._changed.set()
        try:
            body = msgspec.json.decode(request.body)
            if not isinstance(body, dict):
                raise ValueError("the body must be a JSON object")
            ask = wire.read(body, request.path)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            self._refuse(
                exchange, record, wire, 400, f"Invalid request: {error}", "invalid_request"
            )
            return
        settings = self.settings
        seed = settings.seed if ask.seed is None else ask.seed
        script = trim(script_for(ask, seed), ask)
        record.model, record.scenario, record.stream = ask.model, script.name, ask.stream
        identity = Identity(settings.seed, self._count, int(time.time()))
        usage = Usage(ask.input_tokens())
        schedule = Schedule(settings.pace.with_hint(script.pace), seed)
        chunks = play(wire.writer(ask, identity), script, schedule, usage)
        headers = {"cache-control": "no-cache", "x-request-id": f"req_sim_{self._count}"}
        record.status = 200
        if ask.stream:
            actions = _actions(chunks)
            kind = wire.stream_type
        else:
            actions = self._whole(wire, ask, script, usage, identity, chunks)
            kind = "application/json"
        exchange.begin(200, {"content-type": kind, **headers, "access-control-allow-origin": "*"})
        self._start(exchange, record, actions)

    def _whole(
        self,
        wire: Wire,
        ask: Any,
        script: Any,
        usage: Usage,
        identity: Identity,
        chunks: Iterator[Chunk],
    ) -> Iterator[Action]:
        total = 0.0
        for chunk in chunks:
            total += chunk.delay
            if chunk.kind == "stall":
                yield Silence()
                return
            if chunk.kind == "cut":
                yield Close("fin")
                return
        yield Send(total, compact(wire.complete(ask, script, usage, identity)))

    def _start(self, exchange: Exchange, record: Record, actions: Iterator[Action]) -> None:
        assert self._ticker is not None
        ticker = self._ticker

        def ended(outcome: str) -> None:
            record.outcome = outcome
            record.ended = ticker.now()
            record.bytes_sent = exchange.sent
            if outcome == "disconnected":
                record.disconnected_at = record.ended
            self._changed.set()

        Playback(exchange, actions, ticker, ended).advance()

    def _refuse(
        self, exchange: Exchange, record: Record, wire: Wire, status: int, message: str, code: str
    ) -> None:
        record.status, record.outcome = status, "refused"
        record.ended = self._ticker.now() if self._ticker else 0.0
        exchange.answer(status, _JSON, compact(wire.error(status, message, code)))
        self._changed.set()


async def start_demo() -> SimulatorServer:
    """The demo model: a simulator on a loopback port with a pleasant rhythm."""
    return await SimulatorServer(Settings(ttft=0.25, rate=40.0, jitter=0.4)).start()


async def serve(settings: Settings, ready: asyncio.Future[str] | None = None) -> None:
    """Serve until cancelled; ``ready`` is told the address."""
    async with SimulatorServer(settings) as server:
        if ready is not None:
            ready.set_result(server.url)
        await asyncio.get_running_loop().create_future()
