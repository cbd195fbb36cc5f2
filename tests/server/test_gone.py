"""Runs that are erased under their readers, and what the figures say of them."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect

from support.server import site
from tokenwire.log.sqlite.store import SQLiteStore
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
            run = here.start("scenario:stall")

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
                asyncio.run_coroutine_threadsafe(store.expire(retention=1.0), loop).result(30)
            reader.join(30)
            assert not reader.is_alive()
            assert '"reconnect"' in lines[-1]
            assert '"gone"' in lines[-1]
            status = here.client.get(f"/v1/runs/{run}/events").status_code
            assert status == (404 if how == "delete" else 410)
            assert "Traceback" not in caplog.text
    finally:
        stop()
    assert [f.why for f in facts if isinstance(f, FollowerGone) and f.run == run] == ["gone"]


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_a_page_that_waits_for_a_run_that_is_erased_says_what_a_later_one_does(
    tmp_path: Path, kind: str
) -> None:
    """Also where another process erases it."""
    path = tmp_path / "log.db"
    more = {"store": f"sqlite:{path}"} if kind == "sqlite" else {}
    with site(**more) as here:
        run = here.start("scenario:stall")
        url, connections = f"{here.url}/v1/runs/{run}/events", here.app.state.connections
        while "text-delta" not in (page := httpx.get(url, params={"live": "no"})).text:
            time.sleep(0.01)
        answers: list[httpx.Response] = []
        query = {"live": "long-poll", "after": page.json()["next"]}
        reader = threading.Thread(
            target=lambda: answers.append(httpx.get(url, params=query, timeout=60))
        )
        reader.start()
        while not len(connections):
            time.sleep(0.01)

        async def erase() -> None:
            store = SQLiteStore(str(path))
            await store.start()
            await store.delete(run)
            await store.close()

        if kind == "sqlite":
            asyncio.run(erase())
        else:
            assert here.client.delete(f"/v1/runs/{run}").status_code == 204
        reader.join(60)
        answers.append(httpx.get(url, params=query))
        assert [answer.status_code for answer in answers] == [404, 404]
        errors = [answer.json()["error"] for answer in answers]
        for error in errors:
            error.pop("request_id")
        assert errors[0] == errors[1]
        assert errors[0]["message"] == "no such run"


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
        assert begun.wait(30)
        (run,) = here.app.state.runs.owned
        assert here.client.delete(f"/v1/runs/{run}").status_code == 204
        reader.join(30)
        assert not any("[DONE]" in line for line in lines)
        assert len(failure) == 1


async def until_text(wire: Any) -> list[Any]:
    """Messages of a socket until the answer's text has begun."""
    messages = []
    while True:
        message = json.loads(await asyncio.wait_for(wire.recv(), 60))
        messages.append(message)
        if re.search('"text-delta"|"TEXT_MESSAGE_CONTENT"', json.dumps(message)):
            return messages


async def native(here: Any, url: str, erase: Any) -> tuple[Any, str]:
    async with connect(f"{url}/ws", proxy=None) as wire:
        await wire.send(
            json.dumps({"op": "start", "id": 1, "request": {"prompt": "scenario:slow"}})
        )
        await until_text(wire)
        await erase()
        while True:
            message = json.loads(await asyncio.wait_for(wire.recv(), 60))
            if message["op"] in ("error", "end"):
                break
        await wire.send(json.dumps({"op": "ping", "id": 2}))  # the socket itself is well
        assert json.loads(await asyncio.wait_for(wire.recv(), 60))["op"] == "pong"
    return message["op"], message["error"]["code"]


async def ui(here: Any, url: str, erase: Any) -> tuple[Any, str]:
    async with connect(f"{url}/api/chat/ws", proxy=None) as wire:
        asked = {"role": "user", "id": "1", "parts": [{"type": "text", "text": "scenario:slow"}]}
        body = {"type": "send", "requestId": "r1", "id": "chat", "messages": [asked]}
        await wire.send(json.dumps(body | {"trigger": "submit-message"}))
        await until_text(wire)
        await erase()
        while True:
            message = json.loads(await asyncio.wait_for(wire.recv(), 60))
            if message["type"] != "chunk":
                break
        await wire.send(json.dumps({"type": "resume", "requestId": "r2", "id": "chat"}))
        after = json.loads(await asyncio.wait_for(wire.recv(), 60))
        assert after == {"type": "no-active", "requestId": "r2"}
    return message["type"], message["errorText"]


async def ag_ui(here: Any, url: str, erase: Any) -> tuple[Any, str]:
    async with connect(f"{url}/ag-ui", proxy=None) as wire:
        asked = [{"role": "user", "id": "1", "content": "scenario:slow"}]
        body = {"threadId": "chat", "runId": "r1", "messages": asked, "state": {}, "tools": []}
        await wire.send(json.dumps(body | {"context": [], "forwardedProps": {}}))
        await until_text(wire)
        await erase()
        while True:
            message = json.loads(await asyncio.wait_for(wire.recv(), 60))
            message = message.get("chunk", message)
            if message["type"] in ("RUN_ERROR", "RUN_FINISHED"):
                break
    return message["type"], message["code"]


SOCKETS = {
    "native": (native, ("error", "gone"), "websocket"),
    "ui": (ui, ("error", None), "ui-websocket"),
    "ag-ui": (ag_ui, ("RUN_ERROR", "gone"), "ag-ui-websocket"),
}


@pytest.mark.parametrize("name", SOCKETS)
@pytest.mark.parametrize("how", ["delete", "expire"])
def test_a_reader_on_a_socket_hears_that_its_run_was_erased(
    caplog: pytest.LogCaptureFixture, name: str, how: str
) -> None:
    follow, (kind, word), wire_name = SOCKETS[name]
    facts: list[Any] = []
    stop = observe(facts.append)
    try:
        with site() as here, caplog.at_level(logging.WARNING):
            store = here.app.state.store
            loop = here.app.state.connections._ticker.get_loop()

            async def expire(run: str) -> None:
                log = store._logs[run]
                log.closed, log.closed_at = "complete", 0.0
                if log.thread is not None:
                    store._threads[log.thread].open, store._threads[log.thread].last_use = 0, 0.0
                await store.expire(retention=1.0)

            async def erase() -> None:
                (run,) = here.app.state.runs.owned
                if how == "delete":
                    answer = await asyncio.to_thread(here.client.delete, f"/v1/runs/{run}")
                    assert answer.status_code == 204
                else:
                    future = asyncio.run_coroutine_threadsafe(expire(run), loop)
                    await asyncio.wrap_future(future)

            url = here.url.replace("http", "ws", 1)
            told = asyncio.run(follow(here, url, erase))
            assert told[0] == kind
            if word is None:
                assert "deleted or has expired" in told[1]
            else:
                assert told[1] == word
            deadline = time.monotonic() + 40
            while not any(isinstance(f, FollowerGone) for f in facts):
                assert time.monotonic() < deadline
                time.sleep(0.02)
            assert "Traceback" not in caplog.text
    finally:
        stop()
    assert [(f.wire, f.why) for f in facts if isinstance(f, FollowerGone)] == [(wire_name, "gone")]
    started = [f.run for f in facts if isinstance(f, RunStarted)]
    ended = [f.run for f in facts if isinstance(f, RunEnded)]
    assert len(started) == 1
    if how == "delete":  # that an open run expires is made up: it keeps its conversation
        assert ended == started, "what started has ended, or was deleted"


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
        deadline = time.monotonic() + 40
        while not connections.lag and time.monotonic() < deadline:
            time.sleep(0.01)
        assert connections.lag > 0
