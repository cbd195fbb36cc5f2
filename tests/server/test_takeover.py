"""Two servers on one store file: what one leaves undone, the other goes on with. Real processes."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.process import Process, serving
from support.server import Simulator
from tokenwire.events.codec import decode
from tokenwire.events.fold import fold
from tokenwire.framing.sse import SSEDecoder


def start(server: Process, prompt: str, **fields: Any) -> str:
    answer = httpx.post(server.url + "/v1/runs", json={"prompt": prompt, **fields})
    return answer.json()["id"]


class Reader:
    """Follows a run on one server."""

    def __init__(self, server: Process, run: str) -> None:
        self._url = f"{server.url}/v1/runs/{run}/events"
        self._decoder = SSEDecoder()
        self.events: list[Any] = []
        self._answer = httpx.stream("GET", self._url, timeout=60)
        self._pieces = self._answer.__enter__().iter_bytes()

    def until(self, kind: str) -> list[Any]:
        """Read until an event of this type is there; all events so far."""
        while kind not in [event.type for event in self.events]:
            for frame in self._decoder.feed(next(self._pieces)):
                self.events.append(decode(frame.data))
        return self.events

    def close(self) -> None:
        self._answer.__exit__(None, None, None)


def kinds(events: list[Any], *wanted: str) -> list[int]:
    return [sum(event.type == kind for event in events) for kind in wanted]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:{tmp_path_factory.mktemp('store') / 'chat.db'}"


@pytest.fixture(scope="module")
def other(store: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """The server that is there when one is gone."""
    with serving(tmp_path_factory.mktemp("other"), "--store", store) as process:
        yield process


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_another_server_goes_on_and_its_readers_notice_a_reset_at_most(
    tmp_path: Path, store: str, other: Process, how: signal.Signals
) -> None:
    with serving(tmp_path, "--store", store) as one:
        run = start(one, "scenario:slow")
        reader = Reader(other, run)
        reader.until("text-delta")
        one.stop(how)
        events = reader.until("run-end")
        reader.close()
        assert kinds(events, "run-start", "run-claim", "step-reset", "run-end") == [1, 1, 1, 1]
        assert events[-1].outcome == "complete"
        assert fold(events).text == "".join(f"{number} " for number in range(1, 91))
        again = Reader(other, run)
        assert again.until("run-end") == events
        again.close()


def silent(server: Process, run: str) -> None:
    """Wait until nothing more is written of a run whose model has stalled."""
    tail, since = -1, time.monotonic()
    while time.monotonic() - since < 0.5:
        found = httpx.get(f"{server.url}/v1/runs/{run}", timeout=30).json()["tail"]
        if found != tail:
            tail, since = found, time.monotonic()
        time.sleep(0.05)


def test_a_cancel_sticks_though_the_server_that_had_the_run_is_gone(
    tmp_path: Path, store: str, other: Process
) -> None:
    with serving(tmp_path, "--store", store) as one:
        run = start(one, "scenario:stall")
        reader = Reader(other, run)
        reader.until("text-delta")
        silent(other, run)  # stopped in the middle of an append it would keep the store's lock
        one.process.send_signal(signal.SIGSTOP)  # it hears of no cancel
        answer = httpx.post(f"{other.url}/v1/runs/{run}/cancel", json={})
        assert answer.status_code == 202
        one.stop(signal.SIGKILL)
        events = reader.until("run-end")
        reader.close()
        assert events[-1].outcome == "cancelled"
        assert kinds(events, "step-start", "control") == [1, 1]


def test_a_server_without_the_model_leaves_the_run_to_one_that_has_it(
    tmp_path: Path, store: str, other: Process
) -> None:
    model = f"{Simulator().server.url}/v1#mine"
    with serving(tmp_path, "--store", store, "--model", model) as one:
        run = start(one, "scenario:slow")
        reader = Reader(other, run)
        reader.until("text-delta")
        one.stop(signal.SIGKILL)
    # Another lost run is taken over meanwhile: the server looks, and passes the first one by.
    with serving(tmp_path, "--store", store) as third:
        late = Reader(other, start(third, "scenario:slow"))
        late.until("text-delta")
        third.stop(signal.SIGKILL)
        assert late.until("run-end")[-1].outcome == "complete"
        late.close()
    assert httpx.get(f"{other.url}/v1/runs/{run}").json()["state"] == "running"
    with serving(tmp_path, "--store", store, "--model", model):
        events = reader.until("run-end")
    reader.close()
    assert events[-1].outcome == "complete"
    assert kinds(events, "run-claim", "step-reset", "run-end") == [1, 1, 1]


def test_a_tool_at_work_is_finished_before_a_server_that_is_asked_to_stop_hands_over(
    tmp_path: Path, store: str, other: Process
) -> None:
    with serving(tmp_path, "--store", store) as one:
        run = start(one, "scenario:progress")  # slow_task may not run twice
        reader = Reader(other, run)
        reader.until("tool-start")
        one.stop(signal.SIGTERM)
        events = reader.until("run-end")
        reader.close()
        assert events[-1].outcome == "complete"
        assert kinds(events, "tool-start", "tool-result", "run-claim") == [1, 1, 1]
