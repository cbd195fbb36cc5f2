"""Readers that stop reading: let go on time, while nobody else waits."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from support.server import Frame, Reading, Site, site
from tokenwire.framing.sse import SSEDecoder
from tokenwire.observe.facts import Fact, FollowerGone
from tokenwire.observe.hooks import observe

SETTINGS = {"write_deadline": 0.5, "socket_buffer": 4096, "heartbeat": 1.0}


def stalled(here: Site, path: str) -> socket.socket:
    """A reader with a small window that asks and then reads nothing."""
    wire = socket.socket()
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    wire.connect(("127.0.0.1", here.port))
    wire.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return wire


def wait_until_closed(wire: socket.socket, seconds: float = 40.0) -> int:
    """Bytes that still came before the connection was broken off."""
    wire.settimeout(seconds)
    count = 0
    try:
        while piece := wire.recv(65536):
            count += len(piece)
    except ConnectionResetError:
        return count
    return count


def test_a_reader_that_stops_is_let_go_and_the_others_go_on() -> None:
    with site(**SETTINGS) as here:
        run = here.start("scenario:long")
        path = f"/v1/runs/{run}/events"
        slow = stalled(here, path)
        whole = whole_of(here, run)
        connections = here.app.state.connections
        end = time.monotonic() + 40
        while len(connections) and time.monotonic() < end:
            time.sleep(0.02)
        assert len(connections) == 0
        got = wait_until_closed(slow)
        slow.close()
        assert got < sum(len(f.data) for f in whole)
        assert here.client.get(f"/v1/runs/{run}").json()["state"] == "complete"


def whole_of(here: Site, run: str) -> list[Frame]:
    """All frames with an id, by a reader that reads: where the machine stands still, it is taken
    for a slow one as well, and comes again."""
    found: list[Frame] = []
    while not found or json.loads(found[-1].data)["type"] != "run-end":
        decoder = SSEDecoder()
        params = {"after": found[-1].id} if found else {}
        with here.client.stream("GET", f"/v1/runs/{run}/events", params=params) as answer:
            with contextlib.suppress(httpx.RemoteProtocolError):
                for data in answer.iter_bytes():
                    found += [frame for frame in decoder.feed(data) if frame.id]
    return found


@contextmanager
def reasons() -> Iterator[list[str]]:
    """Why readers leave."""
    whys: list[str] = []

    def note(fact: Fact) -> None:
        if isinstance(fact, FollowerGone):
            whys.append(fact.why)

    stop = observe(note)
    try:
        yield whys
    finally:
        stop()


@pytest.mark.parametrize("scenario", ["long", "long?rate=200"])
def test_the_reason_is_the_same_whichever_clock_notices_first(scenario: str) -> None:
    """With little to send nothing waits in the application, only in the transport."""
    with site(**SETTINGS) as here, reasons() as whys:
        run = here.start(f"scenario:{scenario}")
        slow = stalled(here, f"/v1/runs/{run}/events")
        end = time.monotonic() + 60
        while not whys and time.monotonic() < end:
            time.sleep(0.02)
        slow.close()
        here.client.post(f"/v1/runs/{run}/cancel")
        assert whys == ["slow"]


def test_a_reader_that_has_everything_or_goes_is_no_slow_one() -> None:
    with site(**SETTINGS) as here, reasons() as whys:
        run = here.start("scenario:text")
        here.frames(f"/v1/runs/{run}/events")
        stall = here.start("scenario:stall")
        reading = Reading.get(here.port, f"/v1/runs/{stall}/events")
        reading.until(b"text-delta")
        reading.close()
        end = time.monotonic() + 40
        while len(whys) < 2 and time.monotonic() < end:
            time.sleep(0.02)
        here.client.post(f"/v1/runs/{stall}/cancel")
        assert whys == ["end", "closed"]


def test_a_page_that_nobody_reads_does_not_keep_its_connection() -> None:
    with site(**SETTINGS) as here:
        run = here.start("scenario:long")
        whole_of(here, run)
        wire = stalled(here, f"/v1/runs/{run}/events?live=long-poll")
        watch = here.server._server.config.http.watch
        end = time.monotonic() + 40
        while time.monotonic() < end and any(
            p.client[1] == wire.getsockname()[1] for p in tuple(watch.open)
        ):
            time.sleep(0.05)
        assert not any(p.client[1] == wire.getsockname()[1] for p in tuple(watch.open))
        while time.monotonic() < end and len(here.app.state.connections):
            time.sleep(0.05)  # its answer hears of the loss in a turn of its own
        assert len(here.app.state.connections) == 0
        wire.close()


def test_a_slow_reader_that_reads_gets_everything() -> None:
    with site(**{**SETTINGS, "write_deadline": 3.0}) as here:
        run = here.start("scenario:long")
        whole = whole_of(here, run)
        wire = stalled(here, f"/v1/runs/{run}/events")
        wire.settimeout(40)
        body = b""
        for number in range(100_000):
            body += (piece := wire.recv(16384))
            if not piece or body.endswith(b"0\r\n\r\n"):
                break
            if number < 10:
                time.sleep(0.35)  # slow at first, but never as slow as the deadline
        wire.close()
        assert body.count(b"\nid: ") == len(whole)


def test_an_answer_that_nobody_reads_does_not_keep_its_connection() -> None:
    with site(**SETTINGS) as here:
        run = here.start("scenario:long")
        whole_of(here, run)
        wire = stalled(here, f"/v1/runs/{run}")  # a large JSON answer, not a stream
        watch = here.server._server.config.http.watch
        end = time.monotonic() + 40
        while time.monotonic() < end:
            left = [p for p in tuple(watch.open) if p.client[1] == wire.getsockname()[1]]
            if wait_until_gone(left):
                break
            time.sleep(0.05)
        assert not left
        wire.close()


def wait_until_gone(left: list[object]) -> bool:
    return not left


def test_connections_above_the_limit_are_refused_and_given_back() -> None:
    with site(connections=3) as here:
        here.client.close()
        holding = [Reading(here.port, b"") for _ in range(3)]
        watch = here.server._server.config.http.watch
        while len(watch.open) < 3:
            time.sleep(0.01)
        refused = Reading(here.port, b"")
        assert b"HTTP/1.1 503" in refused.rest()
        for reading in holding:
            reading.close()
        while watch.open:
            time.sleep(0.01)
        fine = Reading.get(here.port, "/healthz", "Connection: close")
        assert b"200 OK" in fine.rest()
