"""A store that takes no more writes while an answer is being written: whoever reads it hears of it
within the store's time, on every wire, and nobody is told that the answer is complete."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from support.server import Site, site
from tokenwire.errors import LogError, StoreFullError, StoreUnavailableError
from tokenwire.relay.produce.contract import ProducerLimits

PROMPT = "scenario:slow?rate=50"
#: Text of the end of an answer, as the wires say it.
ENDS = ('"type":"run-end","outcome":"complete"', "[DONE]", "RUN_FINISHED", '"finish_reason":"stop"')


@pytest.fixture(params=[StoreFullError, StoreUnavailableError], ids=["full", "unavailable"])
def here(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    error: type[LogError] = request.param
    with site(store=f"sqlite:{tmp_path}/chat.db", durable_streams="readwrite") as found:
        worker, store = found.app.state.runs.worker, found.app.state.store
        worker._bounds = ProducerLimits(store_timeout=0.3)
        append, count = store.append, 0

        async def failing(*args: Any, **more: Any) -> Any:
            nonlocal count
            count += 1
            if count > 20:
                raise error("no writes any more")
            return await append(*args, **more)

        store.append = failing
        store.append_soon = lambda *args, **more: False
        yield found


def sse(here: Site, method: str, path: str, **more: Any) -> str:
    text = ""
    try:
        with here.client.stream(method, path, **more) as answer:
            for piece in answer.iter_text():
                text += piece
    except httpx.RemoteProtocolError:
        text += "(cut)"
    return text


def native(here: Site) -> str:
    return sse(here, "GET", f"/v1/runs/{here.start(PROMPT)}/events")


def durable(here: Site) -> str:
    run = here.start(PROMPT)
    params = {"offset": "-1", "live": "sse"}
    text = sse(here, "GET", f"/ds/v1/stream/runs/{run}", params=params)
    assert "streamClosed" not in text
    return text


def durable_polls(here: Site) -> str:
    run, offset = here.start(PROMPT), "-1"
    while True:
        params = {"offset": offset, "live": "long-poll"}
        page = here.client.get(f"/ds/v1/stream/runs/{run}", params=params)
        if page.status_code != 200:
            return f"{page.status_code} {page.text}"
        assert "stream-closed" not in page.headers
        offset = page.headers["stream-next-offset"]


def polls(here: Site) -> str:
    run, after = here.start(PROMPT), None
    while True:
        params = {"live": "long-poll", **({"after": after} if after else {})}
        page = here.client.get(f"/v1/runs/{run}/events", params=params)
        if page.status_code != 200:
            return f"{page.status_code} {page.text}"
        assert not page.json()["closed"]
        after = page.json()["next"]


def socket(here: Site) -> str:
    with connect(here.url.replace("http", "ws", 1) + "/ws", proxy=None) as wire:
        wire.send(json.dumps({"op": "start", "request": {"prompt": PROMPT}}))
        while True:
            message = wire.recv(20)
            if json.loads(message)["op"] not in ("started", "events"):
                return str(message)


def chat(here: Site, *, stream: bool) -> str:
    messages = [{"role": "user", "content": PROMPT}]
    body = {"model": "demo", "messages": messages, "stream": stream}
    return sse(here, "POST", "/v1/chat/completions", json=body)


def ui(here: Site) -> str:
    message = {"role": "user", "parts": [{"type": "text", "text": PROMPT}]}
    return sse(here, "POST", "/api/chat", json={"id": "c1", "messages": [message]})


READERS: dict[str, tuple[Callable[[Site], str], str]] = {
    "native": (native, '"reason":"store"'),
    "long-poll": (polls, "503"),
    "socket": (socket, '"op":"error"'),
    "durable": (durable, "upToDate"),
    "durable long-poll": (durable_polls, "503"),
    "chat": (lambda here: chat(here, stream=True), "(cut)"),
    "whole chat": (lambda here: chat(here, stream=False), "store_"),
    "ui": (ui, "(cut)"),
}


@pytest.mark.parametrize("name", READERS)
def test_a_reader_hears_that_the_store_failed(here: Site, name: str) -> None:
    read, words = READERS[name]
    heard: list[str] = []
    thread = threading.Thread(target=lambda: heard.append(read(here)), daemon=True)
    thread.start()
    thread.join(30)
    assert heard, "the reader still waits"
    assert words in heard[0].replace('": ', '":'), heard[0][-500:]
    assert not any(end in heard[0].replace(" ", "") for end in ENDS)


def test_a_store_that_cannot_be_read_ends_a_durable_stream(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with site(store=f"sqlite:{tmp_path}/chat.db", durable_streams="readwrite") as here:
        store = here.app.state.store
        read, count = store.read, 0

        async def failing(*args: Any, **more: Any) -> Any:
            nonlocal count
            count += 1
            if count > 5:
                raise StoreUnavailableError("no reads any more")
            return await read(*args, **more)

        store.read = failing
        with caplog.at_level("WARNING"):
            text = durable(here)
        assert "(cut)" not in text
        assert "Traceback" not in caplog.text
