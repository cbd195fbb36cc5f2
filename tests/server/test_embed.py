"""Streaming from routes of a FastAPI application: five lines, with and without a log."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, Request

import tokenwire
from support.server import Reading, simulator, text_of, types_of
from tokenwire.errors import StoreUnavailableError, UnknownModelError
from tokenwire.events.request import Request as ModelRequest
from tokenwire.framing.sse import SSEDecoder
from tokenwire.providers.registry import Registry
from tokenwire.relay.follow import Follower
from tokenwire.server import Live, stream_response

NUMBERS = "".join(f"{n} " for n in range(1, 91))


def registry() -> Registry:
    return Registry(demo_url=simulator().server.url + "/v1", env={})


@contextmanager
def running(app: FastAPI) -> Iterator[tuple[str, int]]:
    """The application under plain uvicorn, as a user would run it."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="on"))
    started = threading.Event()
    startup = server.startup

    async def told(sockets: Any = None) -> None:
        await startup(sockets)
        started.set()

    server.startup = told  # type: ignore[method-assign]
    thread = threading.Thread(target=lambda: server.run(sockets=[listener]), daemon=True)
    thread.start()
    assert started.wait(30)
    port = listener.getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}", port
    finally:
        server.should_exit = True
        thread.join(30)
        listener.close()


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, int]]:
    live = Live("memory:", registry=registry())
    app = FastAPI(lifespan=live.lifespan)

    @app.post("/plain")
    async def plain(prompt: str) -> Any:
        return stream_response(tokenwire.stream(prompt, model="demo", registry=registry()))

    @app.post("/tokens")
    async def tokens(prompt: str) -> Any:
        run = tokenwire.stream(prompt, model="demo", registry=registry())
        return stream_response(run, wire="tokens")

    @app.post("/chat")
    async def chat(prompt: str) -> Any:
        return await live.start(prompt)

    @app.get("/chat/{run}")
    async def again(run: str, request: Request) -> Any:
        return await live.resume(run, request.headers.get("last-event-id"))

    @app.post("/chat/{run}/stop")
    async def stop(run: str) -> Any:
        await live.runs.cancel(run)

    with running(app) as found:
        yield found


def frames_of(text: str) -> list:
    return SSEDecoder().feed(text.encode())


@pytest.mark.parametrize(
    "model",
    [
        "http://127.0.0.1:9/v1",
        "http://169.254.169.254/latest#m",
        "openai:gpt-5",
        "",
        "DEMO",
        "../x",
    ],
)
def test_live_starts_only_the_models_that_it_was_given(model: str) -> None:
    async def main() -> None:
        live = Live("memory:", models=["demo"], registry=registry())
        async with live.lifespan():
            with pytest.raises(UnknownModelError, match="choose one of demo"):
                await live.start("x", model=model)
            assert (await live._store.stats())["streams"] == 0

    asyncio.run(main())


def test_an_unlogged_run_streams_from_a_route(address: tuple[str, int]) -> None:
    answer = httpx.post(address[0] + "/plain", params={"prompt": "scenario:slow"}, timeout=20)
    assert answer.headers["content-type"] == "text/event-stream"
    assert "no-store" in answer.headers["cache-control"]
    frames = frames_of(answer.text)
    assert text_of(frames) == NUMBERS
    assert types_of(frames)[-1] == "run-end"


def test_tokens_stream_from_a_route(address: tuple[str, int]) -> None:
    answer = httpx.post(address[0] + "/tokens", params={"prompt": "scenario:slow"}, timeout=20)
    frames = frames_of(answer.text)
    assert "".join(f.text for f in frames if f.event == "token") == NUMBERS
    assert frames[-1].event == "done"


def test_leaving_an_unlogged_run_stops_it(address: tuple[str, int]) -> None:
    request = b"POST /plain?prompt=scenario:stall HTTP/1.1\r\nHost: localhost\r\n\r\n"
    reading = Reading(address[1], request)
    reading.until(b"text-delta")
    record = simulator().newest("stall")
    reading.close()
    gone = threading.Event()
    for _ in range(500):
        if record.disconnected_at is not None:
            break
        gone.wait(0.01)
    assert record.disconnected_at is not None


def test_a_logged_run_is_resumed_and_stopped(address: tuple[str, int]) -> None:
    url = address[0]
    answer = httpx.post(url + "/chat", params={"prompt": "scenario:slow"}, timeout=20)
    run, whole = answer.headers["tokenwire-run"], frames_of(answer.text)
    assert text_of(whole) == NUMBERS
    for number in (1, 50, len(whole) - 1):
        headers = {"last-event-id": whole[number - 1].id}
        again = frames_of(httpx.get(f"{url}/chat/{run}", headers=headers).text)
        assert again == whole[number:]
    request = b"POST /chat?prompt=scenario:stall HTTP/1.1\r\nHost: localhost\r\n\r\n"
    reading = Reading(address[1], request)
    run = reading.until(b"text-delta").split(b"tokenwire-run: ")[1].split(b"\r\n")[0].decode()
    httpx.post(f"{url}/chat/{run}/stop")
    seen = reading.rest()
    assert b'"outcome":"cancelled"' in seen


def test_a_resume_that_fails_leaves_no_reader_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """It cannot be seen whether its reader has all: the run, which stops with its last reader,
    stops."""

    async def main() -> None:
        live = Live("memory:", registry=registry())
        async with live.lifespan():
            runs = live.runs
            runs.worker.readers.return_seconds = 0.1
            request = ModelRequest(messages=[tokenwire.user("scenario:stall")])
            info = await runs.start(request, model="demo", on_disconnect="stop")
            follower = await runs.follow(info.id)
            batch = await follower.next()
            assert batch is not None
            cursor = batch.items()[-1][0]
            calls = []

            async def flaky(follower: Follower) -> bool:
                calls.append(follower)
                raise StoreUnavailableError("the store does not answer")

            monkeypatch.setattr(Follower, "is_read", flaky)
            with pytest.raises(StoreUnavailableError):
                await live.resume(info.id, after=cursor, wire="tokens")
            assert len(calls) == 1
            assert (await runs.info(info.id)).state == "running"
            follower.close()
            async with asyncio.timeout(40):
                while (await runs.info(info.id)).state == "running":
                    await asyncio.sleep(0.01)
            assert (await runs.info(info.id)).state == "cancelled"

    asyncio.run(main())


def test_live_outside_its_lifespan_says_what_to_do() -> None:
    with pytest.raises(RuntimeError, match="lifespan"):
        _ = Live("memory:").runs


def test_events_are_json(address: tuple[str, int]) -> None:
    answer = httpx.post(address[0] + "/plain", params={"prompt": "scenario:text"}, timeout=20)
    assert all(json.loads(frame.data)["type"] for frame in frames_of(answer.text))
