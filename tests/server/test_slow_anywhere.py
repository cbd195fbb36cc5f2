"""A peer that stops reading, on every transport: `SlowReader`, and never a cancellation.

The application runs under a server that knows nothing of ours: its ``send`` simply waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

import tokenwire
from support.server import make_app, simulator
from tokenwire.observe.facts import Fact, FollowerGone, RunEnded
from tokenwire.observe.hooks import observe
from tokenwire.providers.registry import Registry
from tokenwire.server import Live, stream_response
from tokenwire.server.edge.connections import Connection, Connections, SlowReader
from tokenwire.server.embed import unlogged as unlogged_module
from tokenwire.server.settings import Settings

PROMPT = "scenario:slow"
AG_UI = {
    "threadId": "t1",
    "runId": "r1",
    "messages": [{"id": "m", "role": "user", "content": PROMPT}],
    "tools": [],
    "context": [],
    "state": {},
    "forwardedProps": {},
}
UI = {
    "type": "send",
    "requestId": "r1",
    "id": "chat",
    "trigger": "submit-message",
    "messages": [{"id": "u", "role": "user", "parts": [{"type": "text", "text": PROMPT}]}],
}
CHAT = {"model": "demo", "stream": True, "messages": [{"role": "user", "content": PROMPT}]}
NATIVE = {"op": "start", "request": {"prompt": PROMPT}}
HTTP: dict[str, tuple[str, str, Any]] = {
    "native": ("GET", "/v1/runs/{run}/events", None),
    "token": ("GET", f"/chat/stream?prompt={PROMPT}", None),
    "ag-ui": ("POST", "/ag-ui", AG_UI),
    "ag-ui lines": ("POST", "/ag-ui?stream=ndjson", AG_UI),
    "openai": ("POST", "/v1/chat/completions", CHAT),
    "durable": ("GET", "/ds/v1/stream/runs/{run}?offset=-1&live=sse", None),
}
SOCKETS = {"websocket": ("/ws", NATIVE), "ui": ("/api/chat/ws", UI), "ag-ui": ("/ag-ui", AG_UI)}


class Peer:
    """One request or WebSocket whose peer reads ``reads`` messages and then nothing."""

    def __init__(self, path: str, method: str = "GET", body: Any = None, *, reads: int = 3) -> None:
        self.path, _, self.query = path.partition("?")
        self.method, self.body, self.reads = method, body, reads
        self.sent: list[dict[str, Any]] = []
        self.is_stuck = asyncio.Event()
        self._asked = 0

    async def send(self, message: Any) -> None:
        if len(self.sent) >= self.reads:
            self.is_stuck.set()
            await asyncio.Event().wait()
        self.sent.append(message)

    async def receive(self) -> Any:
        self._asked += 1
        if self.method == "WS" and self._asked == 1:
            return {"type": "websocket.connect"}
        if self.method == "WS" and self._asked == 2:
            return {"type": "websocket.receive", "text": json.dumps(self.body)}
        if self.method != "WS" and self._asked == 1:
            data = json.dumps(self.body).encode() if self.body is not None else b""
            return {"type": "http.request", "body": data, "more_body": False}
        return await asyncio.Event().wait()

    def scope(self) -> dict[str, Any]:
        kind = "websocket" if self.method == "WS" else "http"
        scope = {
            "type": kind,
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "scheme": "ws" if self.method == "WS" else "http",
            "path": self.path,
            "raw_path": self.path.encode(),
            "root_path": "",
            "query_string": self.query.encode(),
            "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
        }
        return scope | ({"subprotocols": []} if kind == "websocket" else {"method": self.method})

    def task(self, app: Any) -> asyncio.Task[None]:
        return asyncio.create_task(app(self.scope(), self.receive, self.send))


def facts_of_this_thread() -> tuple[list[Fact], Callable[[], None]]:
    """The facts from now on, without those of servers in other threads, and what ends it."""
    facts: list[Fact] = []
    here = threading.get_ident()

    def note(fact: Fact) -> None:
        if threading.get_ident() == here:
            facts.append(fact)

    return facts, observe(note)


@contextlib.asynccontextmanager
async def running(deadline: float = 0.2) -> AsyncIterator[tuple[Any, list[Fact]]]:
    """The application and the facts that it reports."""
    app = make_app(write_deadline=deadline, durable_streams="read")
    facts, stop = facts_of_this_thread()
    await app.startup()
    try:
        yield app, facts
    finally:
        stop()
        await app.shutdown()


async def peer_of(app: Any, name: str) -> Peer:
    method, path, body = HTTP[name]
    if "{run}" in path:
        from tokenwire.events.message import user
        from tokenwire.events.request import Request

        info = await app.state.runs.start(Request(messages=[user(PROMPT)]), model="demo")
        path = path.format(run=info.id)
    return Peer(path, method, body)


def socket_of(name: str) -> Peer:
    path, body = SOCKETS[name]
    return Peer(path, "WS", body, reads=4)


def reasons(facts: list[Fact]) -> list[str]:
    return [fact.why for fact in facts if isinstance(fact, FollowerGone)]


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(40):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("name", HTTP)
def test_a_slow_response_ends_without_an_error(name: str) -> None:
    async def main() -> None:
        async with running() as (app, facts):
            peer = await peer_of(app, name)
            task = peer.task(app)
            async with asyncio.timeout(40):
                await task
            assert peer.is_stuck.is_set()
            assert len(peer.sent) == peer.reads
            assert task.cancelling() == 0, "the cancellation was taken back"
            assert reasons(facts) == ([] if name == "durable" else ["slow"])
            assert len(app.state.connections) == 0

    asyncio.run(main())


@pytest.mark.parametrize("name", SOCKETS)
def test_a_slow_socket_ends_without_an_error(name: str) -> None:
    async def main() -> None:
        async with running() as (app, facts):
            peer = socket_of(name)
            task = peer.task(app)
            async with asyncio.timeout(40):
                await task
            assert peer.is_stuck.is_set()
            assert task.cancelling() == 0
            assert reasons(facts) == ["slow"]
            assert len(app.state.connections) == 0

    asyncio.run(main())


def stuck_connection(app: Any) -> Connection:
    (connection,) = app.state.connections._open
    return connection


@pytest.mark.parametrize("first", ["slow", "cancel"])
@pytest.mark.parametrize("name", [*HTTP, *(f"{name} socket" for name in SOCKETS)])
def test_a_cancellation_at_the_same_moment_is_one(name: str, first: str) -> None:
    async def main() -> None:
        async with running(deadline=60.0) as (app, facts):
            if name.endswith(" socket"):
                peer = socket_of(name.removesuffix(" socket"))
            else:
                peer = await peer_of(app, name)
            task = peer.task(app)
            async with asyncio.timeout(40):
                await peer.is_stuck.wait()
            connection = stuck_connection(app)
            if first == "slow":
                assert connection.give_up()
            task.cancel()
            if first == "cancel" and "socket" not in name:  # there another task writes
                assert not connection.give_up()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert len(app.state.connections) == 0
            if name != "durable":
                (why,) = reasons(facts)
                is_named_slow = first == "slow" and "socket" in name
                assert why == ("slow" if is_named_slow else "closed")

    asyncio.run(main())


def unlogged(prompt: str) -> Any:
    registry = Registry(demo_url=simulator().server.url + "/v1", env={})
    return stream_response(tokenwire.stream(prompt, model="demo", registry=registry))


@pytest.mark.parametrize("case", ["an answer", "keep-alives"])
def test_a_slow_reader_of_a_run_without_a_log_cancels_it(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        is_silent = case == "keep-alives"
        connections = Connections(write_deadline=0.2, heartbeat=0.05 if is_silent else 60.0)
        monkeypatch.setattr(unlogged_module, "_connections", lambda: connections)
        scenario = "stall" if is_silent else "slow"
        peer = Peer("/", reads=12 if is_silent else 3)
        task = peer.task(unlogged(f"scenario:{scenario}"))
        async with asyncio.timeout(40):
            await task
        assert peer.is_stuck.is_set()
        assert task.cancelling() == 0
        assert len(connections) == 0
        record = simulator().newest(scenario)
        await until(lambda: record.disconnected_at is not None)
        await connections.aclose()

    asyncio.run(main())


def test_keep_alives_and_events_of_a_run_without_a_log_do_not_mix(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        monkeypatch.setattr(unlogged_module, "_connections", lambda: Connections(heartbeat=0.02))
        under_way = 0
        bodies: list[bytes] = []

        async def send(message: Any) -> None:
            nonlocal under_way
            under_way += 1
            assert under_way == 1, "two sends at once"
            await asyncio.sleep(0.03)
            under_way -= 1
            bodies.append(message.get("body", b""))

        peer = Peer("/")
        async with asyncio.timeout(60):
            await unlogged("scenario:slow")(peer.scope(), peer.receive, send)
        assert b"run-end" in b"".join(bodies)

    asyncio.run(main())


def test_a_cancelled_reader_of_a_run_without_a_log_is_cancelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        connections = Connections(write_deadline=60.0)
        monkeypatch.setattr(unlogged_module, "_connections", lambda: connections)
        peer = Peer("/", reads=3)
        task = peer.task(unlogged(PROMPT))
        async with asyncio.timeout(40):
            await peer.is_stuck.wait()
        (connection,) = connections._open
        assert connection.give_up()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(connections) == 0

    asyncio.run(main())


def test_a_slow_reader_of_a_live_run_leaves_and_the_run_goes_on() -> None:
    async def main() -> None:
        registry = Registry(demo_url=simulator().server.url + "/v1", env={})
        live = Live("memory:", registry=registry, settings=Settings(write_deadline=0.2))
        facts, stop = facts_of_this_thread()
        async with live.lifespan():
            peer = Peer("/")
            async with asyncio.timeout(40):
                await peer.task(await live.start(PROMPT))
            assert reasons(facts) == ["slow"]
            await until(lambda: any(isinstance(fact, RunEnded) for fact in facts))
        stop()
        assert [fact.outcome for fact in facts if isinstance(fact, RunEnded)] == ["complete"]

    asyncio.run(main())


# --- one write ------------------------------------------------------------------------------------


def written(then: Callable[[Connection, asyncio.Task[None]], None], send: Any = None) -> Any:
    """What a ``write`` of a stuck peer raised after ``then``, and how the task is counted."""

    async def main() -> tuple[BaseException | None, int]:
        connections = Connections(write_deadline=60.0)

        class Waiting:
            def poke(self) -> None: ...

        connection = connections.open(Waiting())

        async def stuck(message: Any) -> None:
            await asyncio.Event().wait()

        async def write() -> None:
            await connection.write(send or stuck, {"type": "http.response.body"})

        task = asyncio.create_task(write())
        await asyncio.sleep(0)
        then(connection, task)
        result: BaseException | None = None
        try:
            await task
        except BaseException as error:
            result = error
        connections.close(connection)
        await connections.aclose()
        return result, task.cancelling()

    return asyncio.run(main())


def test_what_a_write_raises() -> None:
    raised, cancels = written(lambda c, t: c.give_up() and None)
    assert isinstance(raised, SlowReader)
    assert cancels == 0

    def twice(connection: Connection, task: asyncio.Task[None]) -> None:
        assert connection.give_up()
        assert not connection.give_up()

    assert isinstance(written(twice)[0], SlowReader)

    def both(connection: Connection, task: asyncio.Task[None]) -> None:
        connection.give_up()
        task.cancel()

    raised, cancels = written(both)
    assert isinstance(raised, asyncio.CancelledError)
    assert cancels == 1
    raised, cancels = written(lambda c, t: t.cancel() and None)
    assert isinstance(raised, asyncio.CancelledError)


def test_a_deadline_of_the_caller_stays_one() -> None:
    """Cancellations that others take back are counted apart from ours."""

    async def main() -> None:
        connections = Connections(write_deadline=60.0)

        class Waiting:
            def poke(self) -> None: ...

        connection = connections.open(Waiting())

        async def stuck(message: Any) -> None:
            await asyncio.Event().wait()

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await connection.write(stuck, {})
        asyncio.get_running_loop().call_later(0.01, connection.give_up)
        with pytest.raises(SlowReader):
            async with asyncio.timeout(40):
                await connection.write(stuck, {})
        with pytest.raises(SlowReader):  # and nothing more is sent
            await connection.write(stuck, {})
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        connections.close(connection)
        await connections.aclose()

    asyncio.run(main())
