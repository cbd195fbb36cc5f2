"""Sockets that are read together: when they are, and who hears that one is not any more."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from tokenwire.log.intake import Intake

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is no such poller")

RUN = {"asyncio": asyncio.run, "uvloop": uvloop.run}


class Line:
    """A socket with what was read of it, and how often it was told that it is not there."""

    def __init__(self) -> None:
        self.here, self.peer = socket.socketpair()
        self.here.setblocking(False)
        self.fd = self.here.fileno()
        self.seen, self.ends = b"", 0
        self.pull: Callable[[], bool] = self._pull

    def _pull(self) -> bool:
        try:
            data = self.here.recv(1000)
        except BlockingIOError:
            return False
        self.seen += data
        return bool(data)

    def end(self) -> None:
        self.ends += 1

    def join(self, intake: Intake) -> None:
        intake.join(self.fd, self.pull, self.end)

    def close(self) -> None:
        self.here.close()
        self.peer.close()


@contextmanager
def opened(count: int = 1) -> Iterator[tuple[Any, ...]]:
    intake, lines = Intake(), [Line() for _ in range(count)]
    intake.open()
    try:
        for line in lines:
            line.join(intake)
        yield intake, *lines
    finally:
        intake.close()
        for line in lines:
            line.close()


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0.001)


@pytest.fixture(params=RUN)
def run(request: pytest.FixtureRequest) -> Any:
    return RUN[request.param]


def test_the_loop_reads_what_comes_unless_it_rests(run: Any) -> None:
    async def main() -> None:
        with opened() as (intake, line):
            line.peer.send(b"one")
            await turns()
            assert line.seen == b"one"
            intake.rest()
            line.peer.send(b"two")
            await turns()
            assert line.seen == b"one"
            intake.drain()
            assert line.seen == b"onetwo"
            line.peer.send(b"three")
            intake.watch()
            await turns()
            assert line.seen == b"onetwothree"
            assert (line.ends, intake.is_used) == (0, True)

    run(main())


def test_one_that_left_is_not_read(run: Any) -> None:
    async def main() -> None:
        with opened(2) as (intake, line, other):
            intake.leave(line.fd, line.pull)
            line.peer.send(b"one")
            other.peer.send(b"two")
            await turns()
            assert (line.seen, line.ends, other.seen) == (b"", 0, b"two")
            line.join(intake)
            await turns()
            assert line.seen == b"one"

    run(main())


def test_one_that_ends_hears_of_it_once_and_is_gone(run: Any) -> None:
    async def main() -> None:
        with opened(2) as (intake, line, other):
            line.peer.close()
            await turns()
            assert (line.ends, other.ends) == (1, 0)
            other.peer.close()
            await turns()
            assert (other.ends, intake.is_used) == (1, False)

    run(main())


def test_a_fault_of_one_is_no_other_s(run: Any) -> None:
    async def main() -> None:
        reports: list[Any] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, report: reports.append(report["exception"]))
        with opened(2) as (intake, line, other):
            intake.rest()
            line.here.close()  # its descriptor is not valid, though the poller has not heard of it
            line.here = other.here.dup()
            fault = OSError("it cannot be read")

            def failing() -> bool:
                raise fault

            bad = Line()
            bad.pull = failing
            bad.join(intake)
            bad.peer.send(b"one")
            other.peer.send(b"two")
            intake.drain()
            assert other.seen == b"two"
            assert reports == [fault]
            bad.close()

    run(main())


def test_a_descriptor_that_another_socket_has_by_now_stays_that_one_s() -> None:
    async def main() -> None:
        with opened() as (intake, line):
            line.close()
            other = Line()
            assert other.fd == line.fd, "the system gives the lowest number"
            other.join(intake)
            intake.leave(line.fd, line.pull)
            other.peer.send(b"one")
            intake.drain()
            assert (other.seen, line.seen, line.ends) == (b"one", b"", 0)
            other.close()

    asyncio.run(main())


def test_at_the_end_everybody_hears_and_nobody_joins(run: Any) -> None:
    async def main() -> None:
        with opened(2) as (intake, line, other):
            intake.close()
            assert (line.ends, other.ends) == (1, 1)
            assert (intake.is_open, intake.is_used) == (False, False)
            line.join(intake)
            intake.watch()
            line.peer.send(b"one")
            intake.drain()
            await turns()
            assert (line.seen, intake.is_used) == (b"", False)

    run(main())


def test_without_a_poller_nobody_joins(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        monkeypatch.setattr(sys, "platform", "darwin")
        with opened() as (intake, line):
            assert (intake.is_open, intake.is_used) == (False, False)
            line.peer.send(b"one")
            intake.drain()
            await turns()
            assert line.seen == b""

    asyncio.run(main())


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["send", "join", "leave", "shut", "drain", "rest", "watch"]),
        st.integers(0, 2),
    ),
    max_size=40,
)


@given(STEPS)
def test_whatever_happens_who_is_here_gets_what_was_sent(steps: list[tuple[str, int]]) -> None:
    async def main() -> None:
        with opened(3) as (intake, *lines):
            sent, is_here, is_shut = [b""] * 3, [True] * 3, [False] * 3
            for what, number in steps:
                line = lines[number]
                if what == "send" and not is_shut[number]:
                    line.peer.send(b"x")
                    sent[number] += b"x"
                elif what == "join" and not is_here[number] and not is_shut[number]:
                    line.join(intake)
                    is_here[number] = True
                elif what == "leave":
                    intake.leave(line.fd, line.pull)
                    is_here[number] = is_here[number] and line.ends > 0
                elif what == "shut" and is_here[number] and not is_shut[number]:
                    line.peer.close()
                    is_shut[number] = True
                elif what == "drain":
                    intake.drain()
                    intake.drain()
                    for one, line in enumerate(lines):
                        if is_here[one]:
                            assert line.seen == sent[one]
                            assert line.ends == is_shut[one]
                elif what in ("rest", "watch"):
                    getattr(intake, what)()
                assert all(map(bytes.startswith, sent, [line.seen for line in lines]))

    asyncio.run(main())
