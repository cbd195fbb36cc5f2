"""Loops that stand still, workers that cannot start, and files that are not enough."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import sys
import time
from collections.abc import Callable

import pytest

from tokenwire.server import start, workers
from tokenwire.server.settings import Settings
from tokenwire.server.watchdog import Watchdog


def test_a_loop_that_stands_still_is_reported_once_with_its_stack(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> int:
        watchdog = Watchdog(stall=0.2)
        watchdog.start()
        await asyncio.sleep(0.1)
        stand_still_here(1.5)
        await asyncio.sleep(0.1)
        watchdog.stop()
        return watchdog.stalls

    with caplog.at_level(logging.ERROR, "tokenwire.server"):
        assert asyncio.run(main()) == 1
    assert "stand_still_here" in caplog.text
    assert "has not come round" in caplog.text


def stand_still_here(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.05)


def test_a_loop_that_turns_is_not_reported() -> None:
    beats: list[float] = []

    async def main() -> int:
        watchdog = Watchdog(stall=5.0, beat=beats.append)
        watchdog.start()
        await asyncio.sleep(1.2)
        watchdog.stop()
        await asyncio.sleep(0)
        return watchdog.stalls

    assert asyncio.run(main()) == 0
    assert len(beats) >= 2


def test_under_a_debugger_it_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "gettrace", lambda: lambda *_: None)
    beats: list[float] = []

    async def main() -> None:
        watchdog = Watchdog(stall=0.01, beat=beats.append)
        watchdog.start()
        watchdog.stop()

    asyncio.run(main())
    assert not beats


def in_child(work: Callable[[int], int]) -> tuple[int, list[str]]:
    """``work`` in a process of its own, which may fork and take signals; its exit code and what
    it wrote to the pipe that it is given."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        code = 99
        try:
            os.close(read)
            code = work(write)
        finally:
            os._exit(code)
    os.close(write)
    with os.fdopen(read) as lines:
        text = lines.read()
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), text.splitlines()


def noting(write: int) -> Callable[[str], None]:
    return lambda line: os.write(write, line.encode() + b"\n") and None


def test_a_worker_that_cannot_start_is_tried_again_ever_more_rarely(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workers, "_BACKOFF", (0.05, 0.2))
    monkeypatch.setattr(workers, "_LOOK_SECONDS", 0.01)

    def work(write: int) -> int:
        starts: list[float] = []
        note = noting(write)

        def counted(line: str) -> None:
            note(line)
            starts.append(0)
            if len(starts) == 4:
                os.kill(os.getpid(), signal.SIGTERM)

        return workers.supervise(1, lambda first, beat: 7, counted)

    code, lines = in_child(work)
    assert code == 0
    assert len(lines) == 4
    assert all("exit code 7" in line for line in lines)
    assert [line.rpartition("starts ")[2] for line in lines] == [
        "in 0.05 s",
        "in 0.1 s",
        "in 0.2 s",
        "in 0.2 s",
    ]


def test_what_cannot_serve_at_all_ends_with_its_code() -> None:
    code, _ = in_child(lambda write: workers.supervise(2, lambda first, beat: 2, noting(write)))
    assert code == 2


def test_a_worker_whose_loop_stands_still_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_DEAD_SECONDS", 0.3)
    monkeypatch.setattr(workers, "_LOOK_SECONDS", 0.02)

    def work(write: int) -> int:
        note = noting(write)
        parent = os.getpid()

        def run(is_first: bool, beat: Callable[[float], None]) -> int:
            beat(time.monotonic())
            if is_first:
                time.sleep(60)  # its loop stands still
            note("the second one serves")
            os.kill(parent, signal.SIGTERM)
            while True:
                beat(time.monotonic())
                time.sleep(0.02)

        return workers.supervise(1, run, note)

    code, lines = in_child(work)
    assert code == 0
    assert "stood still" in lines[0]
    assert "SIGKILL" in lines[1]
    assert lines[-1] == "the second one serves"


def test_the_file_limit_is_raised_or_connections_are_fewer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits = [(1024, 4096)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, new: limits.append(new))
    notes: list[str] = []
    fits = Settings(connections=2000)
    start.raise_file_limit(fits, notes.append)
    assert limits[-1] == (2512, 4096)
    assert (fits.connections, notes) == (2000, [])
    limits[:] = [(1024, 4096)]
    fewer = Settings(connections=10_000)
    start.raise_file_limit(fewer, notes.append)
    assert limits[-1] == (4096, 4096)
    assert fewer.connections == 4096 - 512
    assert "--connections 10000" in notes[0]
