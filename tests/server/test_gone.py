"""Runs that are erased under their readers, and what the figures say of them."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import Any

import httpx
import pytest

from support.server import site
from tokenwire.observe.facts import FollowerGone, RunEnded, RunStarted
from tokenwire.observe.hooks import observe


@pytest.mark.parametrize("how", ["delete", "expire"])
def test_a_reader_of_an_erased_run_gets_an_end_of_its_own(
    caplog: pytest.LogCaptureFixture, how: str
) -> None:
    facts: list[Any] = []
    stop = observe(facts.append)
    lines: list[str] = []
    try:
        with site() as here, caplog.at_level(logging.WARNING):
            run = here.start("scenario:slow")

            def read() -> None:
                with here.client.stream("GET", f"/v1/runs/{run}/events") as response:
                    lines.extend(line for line in response.iter_lines() if line)

            reader = threading.Thread(target=read)
            reader.start()
            while not any('"text-delta"' in line for line in lines):
                time.sleep(0.01)
            store = here.app.state.store
            if how == "delete":
                assert here.client.delete(f"/v1/runs/{run}").status_code == 204
            else:
                store._logs[run].closed, store._logs[run].closed_at = "complete", 0.0
                loop = here.app.state.connections._ticker.get_loop()
                asyncio.run_coroutine_threadsafe(store.expire(retention=1.0), loop).result(10)
            reader.join(10)
            assert not reader.is_alive()
            assert '"reconnect"' in lines[-1]
            assert '"gone"' in lines[-1]
            status = here.client.get(f"/v1/runs/{run}/events").status_code
            assert status == (404 if how == "delete" else 410)
            assert "Traceback" not in caplog.text
    finally:
        stop()
    assert [f.why for f in facts if isinstance(f, FollowerGone) and f.run == run] == ["gone"]


def test_a_wire_without_a_farewell_breaks_off() -> None:
    """An orderly end would be the end of the answer to its clients."""
    with site() as here:
        lines: list[str] = []
        body = {"model": "demo", "messages": [{"role": "user", "content": "scenario:slow"}]}

        def read() -> None:
            with here.client.stream(
                "POST", "/v1/chat/completions", json=body | {"stream": True}
            ) as response:
                for line in response.iter_lines():
                    lines.append(line)
                    if '"content":"' in line:
                        begun.set()

        begun = threading.Event()
        failure: list[BaseException] = []

        def guarded() -> None:
            try:
                read()
            except httpx.HTTPError as error:
                failure.append(error)

        reader = threading.Thread(target=guarded)
        reader.start()
        assert begun.wait(10)
        (run,) = here.app.state.runs.owned
        assert here.client.delete(f"/v1/runs/{run}").status_code == 204
        reader.join(10)
        assert not any("[DONE]" in line for line in lines)
        assert len(failure) == 1


def test_what_started_has_ended_or_was_deleted() -> None:
    facts: list[Any] = []
    stop = observe(facts.append)
    try:
        with site() as here:
            deleted = here.start("scenario:slow")
            whole = here.start("scenario:text")
            here.frames(f"/v1/runs/{whole}/events")
            here.client.delete(f"/v1/runs/{deleted}")
            here.client.delete(f"/v1/runs/{whole}")
    finally:
        stop()
    started = [f.run for f in facts if isinstance(f, RunStarted)]
    ended = {f.run: f.outcome for f in facts if isinstance(f, RunEnded)}
    assert sorted(started) == sorted([deleted, whole])
    assert ended == {deleted: "deleted", whole: "complete"}


def test_the_lag_is_measured_without_readers() -> None:
    with site(heartbeat=0.2) as here:
        connections = here.app.state.connections
        assert len(connections) == 0
        connections._ticker.get_loop().call_soon_threadsafe(time.sleep, 0.5)
        deadline = time.monotonic() + 10
        while not connections.lag and time.monotonic() < deadline:
            time.sleep(0.01)
        assert connections.lag > 0
