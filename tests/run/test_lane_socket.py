"""Records that go past a transport into its socket: all bytes, in order, however full it is."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from run.test_lane_native import CLOCK, FORM, Desk, desk, read_of
from tokenwire.express import Port
from tokenwire.run.call import lane as module
from tokenwire.run.call.lane import received_in_python, twin

WAYS = [received_in_python, *([twin.received] if twin.received is not None else [])]
both_ways = pytest.mark.parametrize("received", WAYS, ids=["python", "native"][: len(WAYS)])


@pytest.fixture(autouse=True)
def _clock(monkeypatch):
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: CLOCK.now))


class Transport:
    """One end of a pair of sockets, and what waits in front of it, as uvloop's transport."""

    def __init__(self) -> None:
        self.here, self.peer = socket.socketpair()
        for each in (self.here, self.peer):
            each.setblocking(False)
        self.here.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
        self.waiting = self.arrived = b""
        self.port = Port(self.write)
        self.port.socket, self.port.unsent = self.here.fileno(), lambda: len(self.waiting)
        self.port.is_open, self.port.form = True, FORM
        self.writes = 0

    def write(self, data: bytes) -> None:
        self.writes += 1
        self.waiting += data  # as uvloop, which writes at the end of its turn

    def flush(self) -> None:
        while self.waiting:
            try:
                self.waiting = self.waiting[self.here.send(self.waiting) :]
            except BlockingIOError:
                return

    def read(self) -> None:
        try:
            while data := self.peer.recv(1 << 16):
                self.arrived += data
        except BlockingIOError:
            pass

    def close(self) -> None:
        self.here.close()
        self.peer.close()


def reading(transport: Transport) -> Desk:
    lane = desk()
    lane.readers[0].port = transport.port
    CLOCK.now = 1.5
    return lane


def offered(received: Any, lane: Desk, text: bytes) -> bytes:
    """One more record on its way; the chunk of it."""
    CLOCK.now += 1.0
    assert received(lane, read_of(text)) is True
    tape = lane._tape
    assert tape is not None
    record = tape.records[-1]
    return FORM.fill(len(tape.records), record[:16], record[16:], text)


@both_ways
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=st.lists(st.tuples(st.integers(1, 3900), st.sampled_from("rrfw--")), max_size=60))
def test_a_socket_gets_all_in_order_however_full_it_is(received, steps):
    transport = Transport()
    try:
        lane, expected = reading(transport), b""
        for size, kind in steps:
            expected += offered(received, lane, b"a" * size)
            if kind == "r":
                transport.read()
            elif kind == "f":
                transport.flush()
            elif kind == "w":  # the response's task writes something
                transport.port.fd = -1
                transport.write(b"beside")
                expected += b"beside"
        while len(transport.arrived) < len(expected):
            transport.flush()
            transport.read()
        assert transport.arrived == expected
        assert not lane.readers[0].failures
    finally:
        transport.close()


@both_ways
def test_what_fits_goes_past_the_transport_and_what_waits_goes_first(received):
    transport = Transport()
    lane, expected = reading(transport), b""
    for _ in range(20):
        expected += offered(received, lane, b"word")
        transport.read()
    assert (transport.writes, transport.arrived) == (0, expected)
    transport.port.fd = -1
    transport.write(b"beside")
    expected += b"beside" + offered(received, lane, b"word")
    transport.read()
    assert len(transport.arrived) < len(expected)
    transport.flush()
    transport.read()
    assert transport.arrived == expected
    transport.close()


@both_ways
def test_a_socket_that_is_gone_is_the_matter_of_the_transport(received):
    transport = Transport()
    lane, seen = reading(transport), []
    transport.port.send = seen.append
    transport.peer.close()
    chunk = offered(received, lane, b"word")
    assert seen == [chunk]
    assert transport.port.fd == -1
    transport.close()


@both_ways
def test_a_fault_of_who_counts_is_the_readers(received):
    transport = Transport()
    lane = reading(transport)
    transport.port.unsent = lambda: 1 // 0
    offered(received, lane, b"word")
    assert [kind for kind, _ in lane.readers[0].failures] == [ZeroDivisionError]
    transport.close()
