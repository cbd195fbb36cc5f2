"""Loops that stand still, workers that cannot start, and files that are not enough."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import resource
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

import tokenwire
from tokenwire import RunContext, agent
from tokenwire.observe.redact import redact
from tokenwire.server import start, workers
from tokenwire.server.settings import Settings
from tokenwire.server.watchdog import Watchdog
from tokenwire.testing import ScriptedModel, call
from tokenwire.tools import ToolContext


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


@agent
async def sleepy(ctx: RunContext) -> AsyncIterator[str]:
    yield "before "
    for _ in range(2):
        time.sleep(0.9)  # an agent
        yield "after "


@agent
async def deep(ctx: RunContext) -> str:
    await asyncio.sleep(0)
    return await inner()


async def inner() -> str:
    json.loads("[]")
    return Sleeper().work()


class Sleeper:
    def work(self) -> str:
        time.sleep(0.9)  # deep
        return "done"


async def wait_badly(ctx: ToolContext) -> str:
    """Blocks."""
    time.sleep(0.9)  # a tool
    return "done"


def blocked(work: Callable[[], Awaitable[object]], caplog: pytest.LogCaptureFixture) -> list[str]:
    """The warnings while ``work`` runs."""

    async def main() -> None:
        async with Watchdog():
            await work()
            await asyncio.sleep(0.3)

    with caplog.at_level(logging.WARNING, "tokenwire.server"):
        asyncio.run(main())
    lines = [r.getMessage() for r in caplog.records if "blocks the event loop" in r.getMessage()]
    caplog.clear()
    return lines


def line_of(mark: str) -> str:
    """``FILE:LINE in `` of the line of this file that ends in a comment."""
    lines = Path(__file__).read_text("utf-8").splitlines()
    (number,) = (n for n, line in enumerate(lines, 1) if line.endswith(f"  # {mark}"))
    return f"{os.path.relpath(__file__)}:{number} in "


def test_an_agent_that_blocks_the_loop_is_named_once_with_its_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    runs: list[str] = []

    async def work() -> None:
        async with tokenwire.stream("x", model=sleepy) as run:
            runs.append(run.id)
            assert (await run.result()).text == "before after after "

    (line,) = blocked(work, caplog)
    assert line.startswith(f"agent 'sleepy' of run {runs[0]} blocks")
    assert line_of("an agent") + "sleepy;" in line


def test_the_innermost_function_of_the_user_is_named(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        async with tokenwire.stream("x", model=deep) as run:
            await run.result()

    (line,) = blocked(work, caplog)
    assert line_of("deep") + "Sleeper.work;" in line


def test_a_line_is_named_as_the_log_shows_it(
    caplog: pytest.LogCaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logs leave whole paths out, so that the file is named from the working directory, or by its
    end."""

    async def work() -> None:
        async with tokenwire.stream("x", model=deep) as run:
            await run.result()

    monkeypatch.chdir(tmp_path)
    (line,) = blocked(work, caplog)
    assert " tests/server/test_watchdog.py:" in line
    assert redact(line) == line


def test_a_tool_and_a_callback_that_block_are_named(caplog: pytest.LogCaptureFixture) -> None:
    async def tool_run() -> None:
        model = ScriptedModel([call("wait_badly")], ["done"])
        async with tokenwire.stream("x", model=model, tools=[wait_badly]) as run:
            await run.result()

    (line,) = blocked(tool_run, caplog)
    assert line.startswith("tool 'wait_badly' of run ")
    assert line_of("a tool") in line

    async def callback() -> None:
        asyncio.get_running_loop().call_soon(stand_still_here, 0.9)
        await asyncio.sleep(0)

    (line,) = blocked(callback, caplog)
    assert line.startswith("a callback blocks")
    assert "in stand_still_here;" in line


def test_a_loop_with_much_to_do_names_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """Many tasks that each run shortly make the loop late, and none of them blocks it."""

    async def short() -> None:
        time.sleep(0.002)

    async def work() -> None:
        await asyncio.gather(*(short() for _ in range(400)))

    async def through() -> None:
        task = asyncio.ensure_future(work())
        await task

    assert blocked(through, caplog) == []


def test_what_runs_in_a_thread_is_not_named(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        await asyncio.to_thread(stand_still_here, 0.9)

    assert blocked(work, caplog) == []


def test_a_function_that_a_debugger_holds_is_not_named(caplog: pytest.LogCaptureFixture) -> None:
    def held() -> None:
        sys._getframe().f_trace = lambda *_: None
        time.sleep(0.9)

    async def work() -> None:
        held()

    assert blocked(work, caplog) == []


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
