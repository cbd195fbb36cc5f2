"""Streams that wait without a task: what a connection, its reader and its run do to them."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from support.server import Site, site
from tokenwire.log.memory import MemoryStore
from tokenwire.relay.follow import Follower
from tokenwire.server.edge.connections import Connections
from tokenwire.server.edge.respond import RunResponse
from tokenwire.server.edge.transport import Transport
from tokenwire.wire.native import NativeEncoder


@pytest.fixture
def here() -> Iterator[Site]:
    with site(access_log=True, heartbeat=0.3, on_disconnect="stop") as found:
        yield found
    while _opened:
        _opened.pop().close()


_opened: list[socket.socket] = []


def until(is_so: Callable[[], Any]) -> None:
    end = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < end, "it does not come to that"
        time.sleep(0.02)


def request(here: Site, method: str, path: str, body: bytes = b"", *headers: str) -> bytes:
    lines = [
        f"{method} {path} HTTP/1.1",
        f"Host: 127.0.0.1:{here.port}",
        "Accept: text/event-stream",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


START = b'{"prompt":"scenario:stall"}'


class Wire:
    """A connection of a reader, and all that came over it."""

    def __init__(self, here: Site) -> None:
        self.here = here
        self.socket = socket.create_connection(("127.0.0.1", here.port), timeout=20)
        _opened.append(self.socket)
        self.data = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def read_to(self, mark: bytes, *, times: int = 1) -> None:
        while self.data.count(mark) < times:
            piece = self.socket.recv(65536)
            assert piece, f"closed before {mark!r}: {self.data!r}"
            self.data += piece

    def stream(self, *more: bytes) -> str:
        """Start a run that stands still after some words, and wait until its stream rests; the
        run's id. ``more``: requests behind it."""
        self.send(b"".join([request(self.here, "POST", "/v1/runs", START), *more]))
        self.read_to(b"text-delta")
        until(lambda: tasks(self.here) == 0)
        return self.data.partition(b"tokenwire-run: ")[2].partition(b"\r\n")[0].decode()


def tasks(here: Site) -> int:
    """Tasks of requests, in the server."""
    return len(here.server._server.server_state.tasks)


def cancel(here: Site, run: str) -> None:
    assert here.client.post(f"/v1/runs/{run}/cancel", json={}).status_code == 202


def lines(caplog: pytest.LogCaptureFixture, path: str) -> list[str]:
    found = [record.getMessage() for record in caplog.records if record.name == "tokenwire.access"]
    return [line for line in found if f" {path} " in line]


def test_a_stream_that_waits_has_no_task_and_ends_as_any(
    here: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tokenwire.access")
    wire = Wire(here)
    run = wire.stream()
    assert len(here.app.state.connections) == 1
    assert not lines(caplog, "/v1/runs")
    cancel(here, run)
    wire.read_to(b"\r\n0\r\n\r\n")
    assert b'"outcome":"cancelled"' in wire.data
    until(lambda: len(here.app.state.connections) == 0)
    until(lambda: lines(caplog, "/v1/runs"))
    wire.send(request(here, "GET", "/healthz", b"", "Connection: close"))
    wire.read_to(b"HTTP/1.1 200 OK")
    assert len(lines(caplog, "/v1/runs")) == 1
    assert lines(caplog, "/v1/runs")[0].startswith("POST /v1/runs 201 ")
    assert not here.app.state.budget.waiting("principal ")


def test_a_request_behind_it_is_answered_after_it(here: Site) -> None:
    wire = Wire(here)
    run = wire.stream(request(here, "GET", "/healthz"))
    assert b"HTTP/1.1 200 OK" not in wire.data
    cancel(here, run)
    wire.read_to(b"HTTP/1.1 200 OK")
    head, end, rest = wire.data.partition(b"\r\n0\r\n\r\n")
    assert b'"type":"run-end"' in head
    assert end
    assert rest.startswith(b"HTTP/1.1 200 OK")


def test_a_request_that_comes_while_it_waits_is_answered_after_it(here: Site) -> None:
    wire = Wire(here)
    run = wire.stream()
    whole = request(here, "GET", "/healthz")
    wire.send(whole[:20])  # a parser of its own, in two pieces
    time.sleep(0.1)
    wire.send(whole[20:])
    time.sleep(0.1)
    assert b"HTTP/1.1 200 OK" not in wire.data
    cancel(here, run)
    wire.read_to(b"HTTP/1.1 200 OK")
    assert wire.data.index(b'"type":"run-end"') < wire.data.index(b"HTTP/1.1 200 OK")


def test_a_reader_that_leaves_is_missed(here: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tokenwire.access")
    wire = Wire(here)
    run = wire.stream()
    wire.socket.close()
    until(lambda: here.client.get(f"/v1/runs/{run}/info").json()["state"] == "cancelled")
    until(lambda: len(here.app.state.connections) == 0)
    until(lambda: lines(caplog, "/v1/runs"))
    assert len(lines(caplog, "/v1/runs")) == 1
    until(lambda: tasks(here) == 0)


def test_two_readers_rest_and_each_leaves_by_itself(here: Site) -> None:
    first, second = Wire(here), Wire(here)
    run = first.stream()
    second.send(request(here, "GET", f"/v1/runs/{run}/events"))
    second.read_to(b"text-delta")
    until(lambda: tasks(here) == 0)
    first.socket.close()
    until(lambda: len(here.app.state.connections) == 1)
    cancel(here, run)
    second.read_to(b"\r\n0\r\n\r\n")
    assert b'"type":"run-end"' in second.data


def test_silence_has_heartbeats(here: Site) -> None:
    wire = Wire(here)
    wire.stream()
    before = wire.data.count(b"\r\n: ")
    wire.read_to(b"\r\n: ", times=before + 2)
    until(lambda: tasks(here) == 0)
    assert len(here.app.state.connections) == 1


def test_a_stop_tells_it_to_come_back(here: Site) -> None:
    wire = Wire(here)
    wire.stream()
    loop = here.app.loop
    assert loop is not None
    loop.call_soon_threadsafe(here.app.state.drain)
    wire.read_to(b"\r\n0\r\n\r\n")
    assert b'"type":"reconnect"' in wire.data
    until(lambda: len(here.app.state.connections) == 0)


def test_an_erased_run_ends_it(here: Site) -> None:
    wire = Wire(here)
    run = wire.stream()
    assert here.client.delete(f"/v1/runs/{run}").status_code == 204
    wire.read_to(b"\r\n0\r\n\r\n")
    until(lambda: len(here.app.state.connections) == 0)


def test_a_request_whose_body_is_not_all_here_keeps_its_task(here: Site) -> None:
    wire = Wire(here)
    run = wire.stream()
    other = Wire(here)
    whole = request(here, "GET", f"/v1/runs/{run}/events", b"12345")
    other.send(whole[:-2])
    other.read_to(b"text-delta")
    assert tasks(here) > 0
    other.socket.close()
    until(lambda: tasks(here) == 0)
    assert len(here.app.state.connections) == 1
    cancel(here, run)
    wire.read_to(b"\r\n0\r\n\r\n")


def test_who_hears_of_the_peer_is_decided_once() -> None:
    """A body that is not all here at first keeps the task, and its `receive`, to the end."""

    async def main() -> None:
        store, connections, is_pending = MemoryStore(), Connections(), True
        await store.create("run", owner="o")
        gone = asyncio.Event()
        transport = Transport(takes_rest=True, unread=lambda: is_pending)

        async def receive() -> Any:
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            nonlocal is_pending
            is_pending = False

        response = RunResponse(connections, Follower(store, "run"), NativeEncoder(), run_id="run")
        scope = {"type": "http", "method": "GET", "tokenwire.transport": transport}
        answering = asyncio.ensure_future(response(scope, receive, send))
        for _ in range(10):
            await asyncio.sleep(0)
        assert (is_pending, transport.rest, len(connections)) == (False, None, 1)
        gone.set()
        await asyncio.wait_for(answering, 20)
        assert len(connections) == 0
        await connections.aclose()

    asyncio.run(main())


def test_an_application_that_fails_behind_its_answer_breaks_it_off(
    here: Site, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "tokenwire.access")
    guarded = here.app._guarded
    has_left: list[bool] = []

    async def failing(scope: Any, receive: Any, send: Any) -> None:
        await guarded(scope, receive, send)
        if scope["method"] == "POST":
            has_left.append(scope["tokenwire.transport"].rest is not None)
            raise RuntimeError("behind its answer")

    monkeypatch.setattr(here.app, "_guarded", failing)
    wire = Wire(here)
    wire.send(request(here, "POST", "/v1/runs", START))
    data = b""
    try:
        while piece := wire.socket.recv(65536):
            data += piece
    except ConnectionResetError:
        pass
    assert has_left == [True]
    assert not data.endswith(b"\r\n0\r\n\r\n")
    until(lambda: len(here.app.state.connections) == 0 and tasks(here) == 0)
    until(lambda: lines(caplog, "/v1/runs"))
    assert len(lines(caplog, "/v1/runs")) == 1
    assert any("behind its answer" in str(record.exc_info) for record in caplog.records)
