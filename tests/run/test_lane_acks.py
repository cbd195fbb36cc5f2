"""Acknowledgements of a provider's bytes: two reads of a stream on the lane share one, and a stream
that is late because of that is acknowledged at once again."""

from __future__ import annotations

import asyncio
import socket
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from run.test_lane_native import CLOCK, READ, desk
from run.test_lane_socket import WAYS, both_ways
from tokenwire.providers.http.pool import Pool
from tokenwire.run.call import lane as module
from tokenwire.run.call.source import ACK_SECONDS, READS_BETWEEN_DELAYS, Source

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(autouse=True)
def _clock(monkeypatch):
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: CLOCK.now))


def delays(received: Any, gaps: list[float], read: bytes = READ) -> list[str]:
    """After which events a lane asks for the delay, with a read after each gap; and the means of
    the gaps that it kept."""
    lane = desk()
    lane._mean, lane._now, lane._wait_below = 0.02, 1.0, 0.0
    CLOCK.now, means = 1.0, []
    for gap in gaps:
        CLOCK.now += gap
        means.append(lane._mean)
        received(lane, read)
    late = [
        f"delay after {4 + number}"
        for number, (gap, mean) in enumerate(zip(gaps, means, strict=True))
        if gap > ACK_SECONDS + 1e-9 and mean < ACK_SECONDS
    ]
    found = [call for call in lane.calls if isinstance(call, str) and call.startswith("delay")]
    assert found == late
    return found


@both_ways
def test_a_late_read_of_a_stream_that_is_not_slow_delays_again(received):
    assert delays(received, [0.02, 0.02, 0.05, 0.02, 0.039]) == ["delay after 6"]
    assert delays(received, [0.09, 0.09, 0.09]) == ["delay after 4"]  # it has become slow


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(gaps=st.lists(st.sampled_from([0.001, 0.02, 0.03, 0.045, 0.06, 0.2, 1.0]), max_size=40))
def test_both_ways_delay_after_the_same_reads(gaps):
    assert len({tuple(delays(received, gaps)) for received in WAYS}) == 1


@both_ways
def test_a_fault_of_the_delay_is_no_read_that_was_taken(received):
    def boom(seq: int) -> None:
        raise ValueError(f"boom {seq}")

    lane = desk()
    lane._mean, lane._now = 0.02, 1.0
    lane._source = SimpleNamespace(delay_acks=boom)  # type: ignore[assignment]
    CLOCK.now = 1.05
    with pytest.raises(ValueError, match="boom 4"):
        received(lane, READ)
    assert len(lane._tape.records) == lane._seq == 4  # type: ignore[union-attr]


class Push:
    """A stream that counts its delays."""

    def __init__(self, line: bytes | None = b"%x\r\n") -> None:
        self.delays, self.line = 0, line

    def divert(self, lane: Any, body: bytes) -> bytes | None:
        return self.line

    def delay_acks(self) -> None:
        self.delays += 1


def source_of(push: Push | None) -> Source:
    source = Source(None, None, None, None, None)  # type: ignore[arg-type]
    source._push = push  # type: ignore[assignment]
    return source


@pytest.mark.parametrize(("line", "count"), [(b"%x\r\n", 1), (None, 0)])
def test_a_lane_that_begins_delays_and_one_that_does_not_begin_changes_nothing(line, count):
    push = Push(line)
    assert source_of(push).divert(None, b"") == line  # type: ignore[arg-type]
    assert push.delays == count


def test_what_is_late_again_at_once_is_late_because_of_the_delay():
    """A server that waits for the acknowledgement has one late read, and then none."""
    push, few = Push(), READS_BETWEEN_DELAYS - 1
    source = source_of(push)
    for seq, expected in ((10, 1), (11, 1), (11 + few, 1), (12 + few, 1)):
        source.delay_acks(seq)
        assert push.delays == expected
    source.delay_acks(12 + few + READS_BETWEEN_DELAYS)
    assert push.delays == 2
    source_of(None).delay_acks(10)  # its connection has gone


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has the option")
@pytest.mark.parametrize("loop", LOOPS)
def test_the_socket_of_an_answer_acknowledges_later(loop):
    async def main() -> None:
        pool = Pool()
        listener = socket.create_server(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        asking = asyncio.ensure_future(pool.request("POST", address, {}, b"{}"))
        loop = asyncio.get_running_loop()
        peer, _ = await loop.run_in_executor(None, listener.accept)
        # An answer that is read before the request is written ends the connection.
        assert await loop.run_in_executor(None, peer.recv, 65536)
        peer.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        response = await asking
        sock = response._connection._transport.get_extra_info("socket")  # type: ignore[union-attr]
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        response.delay_acks()
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK) == 0
        response._connection.abort()
        response.delay_acks()
        for each in (peer, listener):
            each.close()
        pool.close()
        await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(asyncio.wait_for(main(), 60))
