"""The server is killed in mid-run and started again: the reader gets the whole answer."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from support.free_ports import free_port
from tokenwire.client import Client, Patience
from tokenwire.events.fold import Fold
from tokenwire.events.model import RunClaim, RunEnd, StepReset, TextDelta

ROOT = Path(__file__).parents[2]


def serve(folder: Path, port: int) -> subprocess.Popen[str]:
    """A server on ``port`` with a store in ``folder``, which listens."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("TOKENWIRE_")}
    store = f"sqlite:{folder / 'runs.db'}"
    process = subprocess.Popen(
        [sys.executable, "-m", "tokenwire", "serve", "--port", str(port), "--store", store],
        cwd=folder,
        env={
            **env,
            "PYTHONPATH": str(ROOT / "src"),
            "PYTHONUNBUFFERED": "1",
            "TOKENWIRE_MAX_LAG": "0",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "Ctrl-C" in line:
            return process
    raise AssertionError("the server did not start")


@pytest.mark.parametrize("transport", ["sse", "websocket"])
def test_killed_and_started_again(tmp_path: Path, transport: str) -> None:
    for number in range(10):
        folder = tmp_path / str(number)
        folder.mkdir()
        if killed(folder, transport):
            return
    raise AssertionError("the run had always ended before its server was killed")


def killed(tmp_path: Path, transport: str) -> bool:
    """Whether the server was killed while the run went on; if so, the answer was whole."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    first = serve(tmp_path, port)
    second: list[subprocess.Popen[str]] = []

    async def main() -> tuple[Fold, list[type]]:
        state, kinds = Fold(), []
        patience = Patience(base=0.2, cap=0.5)
        async with Client(url, transport=transport, patience=patience) as client:
            run = await client.start("scenario:text?rate=100")
            written = 0
            async for event in client.follow(run):
                state.apply(event)
                kinds.append(type(event))
                written += isinstance(event, TextDelta)
                if written == 5 and not second:
                    first.send_signal(signal.SIGKILL)
                    first.wait(60)
                    second.append(await asyncio.to_thread(serve, tmp_path, port))
            assert [type(e) async for e in client.follow(run)] == kinds
            assert (await client.snapshot(run))["message"]["content"][0]["text"] == state.text
        return state, kinds

    try:
        state, kinds = asyncio.run(asyncio.wait_for(main(), 120))
        assert kinds.count(RunEnd) == 1
        if RunClaim not in kinds:
            return False  # this process was stopped for so long that the run ended
        assert StepReset in kinds or state.outcome != "complete"
        assert state.outcome == "complete"
        again = httpx.post(url + "/v1/runs", json={"prompt": "scenario:text"}).json()["id"]
        whole = asyncio.run(text_of(url, again))
        assert state.text == whole
        return True
    finally:
        for process in (first, *second):
            process.kill()
            process.communicate()


async def text_of(url: str, run: str) -> str:
    async with Client(url) as client:
        return await client.text(run)
