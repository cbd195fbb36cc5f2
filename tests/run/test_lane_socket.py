"""Records that go past a transport into its socket: all bytes, in order, however full it is."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from run.test_lane_native import CLOCK, FORM, OF_TEXT, Desk, desk, read_of
from tokenwire.express import MOST_TEXT, Form, Port
from tokenwire.run.call import lane as module
from tokenwire.run.call.lane import received_in_python, twin

WAYS = [received_in_python, *([twin.received] if twin.received is not None else [])]
both_ways = pytest.mark.parametrize("received", WAYS, ids=["python", "native"][: len(WAYS)])
#: Whether the log knows that it has this one reader.
alone_or_not = pytest.mark.parametrize("is_alone", [True, False], ids=["alone", "listed"])


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


def reading(transport: Transport, *, is_alone: bool) -> Desk:
    lane = desk()
    lane.readers[0].port = transport.port
    if is_alone:
        lane._tape.reader = lane.readers[0]  # type: ignore[union-attr]
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
@alone_or_not
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=st.lists(st.tuples(st.integers(1, 3900), st.sampled_from("rrfw--")), max_size=60))
def test_a_socket_gets_all_in_order_however_full_it_is(received, is_alone, steps):
    transport = Transport()
    try:
        lane, expected = reading(transport, is_alone=is_alone), b""
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
@alone_or_not
def test_what_fits_goes_past_the_transport_and_what_waits_goes_first(received, is_alone):
    transport = Transport()
    lane, expected = reading(transport, is_alone=is_alone), b""
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
@alone_or_not
def test_a_socket_that_is_gone_is_the_matter_of_the_transport(received, is_alone):
    transport = Transport()
    lane, seen = reading(transport, is_alone=is_alone), []
    transport.port.send = seen.append
    transport.peer.close()
    chunk = offered(received, lane, b"word")
    assert seen == [chunk]
    assert transport.port.fd == -1
    transport.close()


@both_ways
@alone_or_not
def test_a_fault_of_who_counts_is_the_readers(received, is_alone):
    transport = Transport()
    lane = reading(transport, is_alone=is_alone)
    transport.port.unsent = lambda: 1 // 0
    offered(received, lane, b"word")
    assert [kind for kind, _ in lane.readers[0].failures] == [ZeroDivisionError]
    transport.close()


def state(lane: Desk, transport: Transport) -> list[Any]:
    """What a record may change at its reader."""
    reader, port = lane.readers[0], transport.port
    transport.flush()
    transport.read()
    return [
        transport.arrived, transport.writes, list(lane.calls), reader.after, list(reader.failures),
        port.fd == port.socket, port.wrote, port.text,
    ]  # fmt: skip


def states(received: Any, form: Form | None, texts: list[bytes], **options: Any) -> list[Any]:
    """The state after each record; what the reader is not written is for it to take, and then it
    has that too."""
    transport, found = Transport(), []
    lane = reading(transport, is_alone=options["is_alone"])
    transport.port.form, transport.port.text = form, options["heard"]
    transport.port.is_open = options["is_open"]
    try:
        for text in texts:
            offered(received, lane, text)
            found.append(state(lane, transport))
            lane.readers[0].after = lane._seq
        return found
    finally:
        transport.close()


@both_ways
@pytest.mark.parametrize("form", [FORM, None, *OF_TEXT])
@pytest.mark.parametrize("heard", [None, b"", b"a" * (MOST_TEXT - 9), b"a" * MOST_TEXT])
@pytest.mark.parametrize("is_open", [True, False])
def test_one_reader_gets_what_it_would_get_among_several(received, form, heard, is_open):
    texts = [b"word ", b"\\n", b"a", "é".encode(), b"x" * 3000, b"b" * 3000, b"c"]
    alone, listed = (
        states(
            received,
            form,
            texts,
            is_alone=is_alone,
            is_open=is_open,
            heard=None if heard is None else bytearray(heard),
        )
        for is_alone in (True, False)
    )
    assert alone == listed
    is_written = is_open and form is not None and heard != b"a" * MOST_TEXT
    assert any(arrived for arrived, *_ in alone) is is_written
