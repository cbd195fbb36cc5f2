"""The simulator as a server: routes to wires, answers to connections, a list of what happened.

Always true: every request is recorded once, and its record ends once, with how it ended; closing
the server ends every answer.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Iterator
from itertools import chain
from types import TracebackType
from typing import Any

import msgspec

from tokenwire.simulator.answering import Reply, prepare, reply
from tokenwire.simulator.faults import FAULTS, FaultPlan, break_bytes
from tokenwire.simulator.http import Connection, Exchange
from tokenwire.simulator.play import Identity, Wire
from tokenwire.simulator.playback import Action, Head, Playback, Ticker
from tokenwire.simulator.scenarios import SCENARIOS
from tokenwire.simulator.script import compact
from tokenwire.simulator.settings import Settings
from tokenwire.simulator.wires.background import StoredResponses
from tokenwire.simulator.wires.by_path import CHAT, RESPONSES, wire_of

__all__ = ["Record", "SimulatorServer", "serve", "start_demo"]

#: Records kept for ``GET /sim/requests``.
MAX_RECORDS = 10_000
#: A fake model has nothing to protect, and pages on other ports want to try it.
_OPEN = {"access-control-allow-origin": "*"}
_JSON = {"content-type": "application/json", **_OPEN}
_PREFLIGHT = {
    **_OPEN,
    "access-control-allow-methods": "GET, POST, DELETE, OPTIONS",
    "access-control-allow-headers": "*",
}


class Record(msgspec.Struct):
    """What became of one request for an answer."""

    id: int
    method: str
    path: str
    wire: str = ""
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
    #: ``running``, ``complete``, ``refused``, ``cut-end``, ``cut-fin``, ``cut-rst``,
    #: ``disconnected`` (by the client), ``failed`` (a bug of the simulator).
    outcome: str = "running"


class SimulatorServer:
    """The simulator on a port of this event loop: ``async with SimulatorServer() as server``."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        FaultPlan.parse(self.settings.faults)  # a bad plan is refused now, not at a request
        #: The newest requests for answers, oldest first.
        self.requests: deque[Record] = deque(maxlen=MAX_RECORDS)
        self._connections: set[Connection] = set()
        self._live: dict[int, Exchange] = {}
        self._server: asyncio.Server | None = None
        self._ticker: Ticker | None = None
        self._count = 0
        self._plans: Counter[str] = Counter()
        self._changed = asyncio.Event()
        self._stored = StoredResponses(self.settings)

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
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        open_now = list(self._connections)
        for connection in open_now:
            connection.abort()
        for connection in open_now:
            await connection.closed.wait()
        if self._ticker is not None:
            self._ticker.close()

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
        request = exchange.request
        path = request.path.rstrip("/")
        if request.method == "OPTIONS":
            exchange.answer(204, _PREFLIGHT, b"")
        elif request.method == "POST" and (wire := wire_of(path)) is not None:
            self._answer(exchange, wire)
        elif "/responses/" in path:
            self._stored_response(exchange, path)
        elif request.method == "DELETE" and path == "/sim/requests":
            self.requests.clear()
            exchange.answer(204, _OPEN, b"")
        elif request.method == "GET" and (body := self._page(path)) is not None:
            exchange.answer(200, _JSON, compact(body))
        else:
            message = f"The simulator has nothing at {request.method} {request.path}."
            exchange.answer(404, _JSON, compact(CHAT.error(404, message, "not_found")))

    def _page(self, path: str) -> Any:
        models = self.settings.models
        if path == "/sim/requests":
            for record in self.requests:
                if (exchange := self._live.get(record.id)) is not None:
                    record.bytes_sent = exchange.sent
            return {"requests": list(self.requests)}
        if path == "/scenarios":
            listed = [{"name": one.name, "summary": one.summary} for one in SCENARIOS.values()]
            return {"scenarios": listed, "faults": FAULTS}
        if path in ("", "/healthz"):
            return {"status": "ok", "what": "the tokenwire simulator", "see": "/scenarios"}
        if path == "/api/version":
            return {"version": "0.0.0-simulated"}
        if path == "/api/tags":
            return {"models": [{"name": name, "model": name, "size": 0} for name in models]}
        if path == "/v1beta/models":
            return {"models": [{"name": f"models/{name}", "displayName": name} for name in models]}
        if path.endswith("/models"):
            return {"object": "list", "data": [_model(name) for name in models], "has_more": False}
        front, _, name = path.rpartition("/")
        return _model(name) if front.endswith("/models") and name in models else None

    def _answer(self, exchange: Exchange, wire: Wire) -> None:
        assert self._ticker is not None
        request, record = exchange.request, self._record(exchange, wire)
        if not self._allowed(exchange):
            self._refuse(exchange, record, wire, 401, "Incorrect API key (simulated).", "bad_key")
            return
        identity = Identity(self.settings.seed, self._count, int(time.time()))
        try:
            body = msgspec.json.decode(request.body)
            faults = request.headers.get("x-sim-faults", "")
            prepared = prepare(
                wire, body, request.path, request.query, self.settings, identity, faults
            )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            self._refuse(
                exchange, record, wire, 400, f"Invalid request: {error}", "invalid_request"
            )
            return
        ask, plan = prepared.ask, prepared.plan
        record.model, record.scenario, record.stream = ask.model, prepared.script.name, ask.stream
        record.faults = plan.text
        self._plans[plan.text] += 1
        if wire is RESPONSES and (ask.extra["store"] or ask.extra["background"]):
            stored = self._stored.add(prepared, self._ticker.now())
            if ask.extra["background"] and not ask.stream:
                record.status, record.outcome = 200, "complete"
                record.ended = self._ticker.now()
                exchange.answer(200, _JSON, compact(self._stored.body(stored, record.ended)))
                self._changed.set()
                return
        self._start(exchange, record, reply(prepared, self.settings, self._plans[plan.text]))

    def _record(self, exchange: Exchange, wire: Wire) -> Record:
        assert self._ticker is not None
        self._count += 1
        request = exchange.request
        record = Record(self._count, request.method, request.path, wire.name)
        record.started = self._ticker.now()
        self.requests.append(record)
        self._changed.set()
        return record

    def _allowed(self, exchange: Exchange) -> bool:
        key = self.settings.api_key
        headers, query = exchange.request.headers, exchange.request.query
        sent_key = (
            headers.get("authorization", "").removeprefix("Bearer "),
            headers.get("x-api-key"),
            headers.get("x-goog-api-key"),
            headers.get("api-key"),
            query.get("key"),
        )
        return key is None or key in sent_key

    def _stored_response(self, exchange: Exchange, path: str) -> None:
        assert self._ticker is not None
        request, now = exchange.request, self._ticker.now()
        identifier = path.partition("/responses/")[2]
        cancel = request.method == "POST" and identifier.endswith("/cancel")
        identifier = identifier.removesuffix("/cancel")
        stored = self._stored.get(identifier)
        if stored is None:
            message = f"Response with id '{identifier}' not found."
            exchange.answer(404, _JSON, compact(CHAT.error(404, message, "not_found")))
            return
        if request.method == "DELETE":
            self._stored.delete(identifier)
            body: Any = {"id": identifier, "object": "response", "deleted": True}
            exchange.answer(200, _JSON, compact(body))
            return
        if cancel:
            stored.cancelled = now < stored.started + stored.duration
        if cancel or request.query.get("stream") != "true":
            exchange.answer(200, _JSON, compact(self._stored.body(stored, now)))
            return
        record = self._record(exchange, RESPONSES)
        record.stream, record.model = True, stored.prepared.ask.model
        after = request.query.get("starting_after", "-1")
        try:
            plan = FaultPlan.parse(request.headers.get("x-sim-faults", ""))
            frames = self._stored.frames(stored, int(after), now)
        except ValueError as error:
            self._refuse(exchange, record, RESPONSES, 400, str(error), "invalid_request")
            return
        record.faults = plan.text
        headers = {"content-type": RESPONSES.stream_type, "cache-control": "no-cache"}
        actions = break_bytes(plan, frames, plan.draw(self.settings.seed))
        self._start(exchange, record, Reply(200, headers, actions))

    def _start(self, exchange: Exchange, record: Record, answer: Reply) -> None:
        assert self._ticker is not None
        ticker = self._ticker
        record.status = answer.status
        self._live[record.id] = exchange

        def ended(outcome: str) -> None:
            del self._live[record.id]
            refused = answer.refused and outcome == "complete"
            record.outcome = "refused" if refused else outcome
            record.ended = ticker.now()
            record.bytes_sent = exchange.sent
            if outcome == "disconnected":
                record.disconnected_at = record.ended
            self._changed.set()

        headers = {"x-request-id": f"req_sim_{record.id}", **answer.headers, **_OPEN}
        head: Iterator[Action] = iter([Head(answer.wait, answer.status, headers)])
        Playback(exchange, chain(head, answer.actions), ticker, ended).advance()

    def _refuse(
        self, exchange: Exchange, record: Record, wire: Wire, status: int, message: str, code: str
    ) -> None:
        assert self._ticker is not None
        record.status, record.outcome = status, "refused"
        record.ended = self._ticker.now()
        exchange.answer(status, _JSON, compact(wire.error(status, message, code)))
        self._changed.set()


def _model(name: str) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "type": "model",
        "display_name": name,
        "created": 1_700_000_000,
        "created_at": "2023-11-14T22:13:20Z",
        "owned_by": "simulator",
    }


async def start_demo() -> SimulatorServer:
    """The demo model: a simulator on a loopback port with a pleasant rhythm."""
    return await SimulatorServer(Settings(ttft=0.25, rate=40.0, jitter=0.4)).start()


async def serve(settings: Settings, ready: asyncio.Future[str] | None = None) -> None:
    """Serve until cancelled; ``ready`` receives the address."""
    async with SimulatorServer(settings) as server:
        if ready is not None:
            ready.set_result(server.url)
        await asyncio.get_running_loop().create_future()
