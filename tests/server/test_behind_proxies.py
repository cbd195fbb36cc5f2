"""The server behind nginx and HAProxy: as Debian sets them up, and as the guide says."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets

from support.free_ports import free_port
from support.process import serving
from support.reverse_proxy import KINDS, ReverseProxy, nginx_with, reverse_proxy
from support.server import Site, site
from tokenwire.client import Client, Patience
from tokenwire.events.fold import Fold

ROOT = Path(__file__).parents[2]
#: A comment, as the server writes it when nothing else is said.
HEARTBEAT = b"\n:"
NUMBERS = "".join(f"{number} " for number in range(1, 91))


@pytest.fixture(scope="module")
def here() -> Iterator[Site]:
    with site(heartbeat=0.3) as made:
        yield made


@pytest.fixture(scope="module", params=KINDS)
def proxy(request: pytest.FixtureRequest, here: Site) -> Iterator[ReverseProxy]:
    with reverse_proxy(request.param, here.port) as made:
        yield made


class Stream:
    """An answer that is read piece by piece."""

    def __init__(self, answer: httpx.Response) -> None:
        self._pieces = answer.iter_raw()
        self.seen = b""

    def until(self, wanted: bytes, times: int = 1) -> bytes:
        """Read until ``wanted`` is there so often; all so far."""
        while self.seen.count(wanted) < times:
            self.seen += next(self._pieces)
        return self.seen


def test_events_come_while_the_model_still_speaks_though_the_proxy_buffers(
    here: Site, proxy: ReverseProxy
) -> None:
    body = {"prompt": "scenario:stall"}  # a few words, and then nothing until it is stopped
    head = {"accept": "text/event-stream"}
    with httpx.stream("POST", f"{proxy.url}/v1/runs", json=body, headers=head) as answer:
        assert answer.status_code in (200, 201)
        assert "gzip" not in answer.headers.get("content-encoding", "")
        stream = Stream(answer)
        seen = stream.until(b'"type":"text-delta"')
        run = json.loads(seen.partition(b"data: ")[2].partition(b"\n")[0])["run"]
        httpx.post(f"{proxy.url}/v1/runs/{run}/cancel", json={})
        stream.until(b'"type":"run-end"')


def test_a_whole_answer_is_the_same_through_the_proxy(here: Site, proxy: ReverseProxy) -> None:
    run = here.start("scenario:text")
    straight = httpx.get(f"{here.url}/v1/runs/{run}/events").content
    assert b"run-end" in straight
    assert httpx.get(f"{proxy.url}/v1/runs/{run}/events").content == straight


def test_heartbeats_pass_the_proxy(here: Site, proxy: ReverseProxy) -> None:
    run = here.start("scenario:stall")
    with httpx.stream("GET", f"{proxy.url}/v1/runs/{run}/events") as answer:
        Stream(answer).until(HEARTBEAT, 3)
    here.client.post(f"/v1/runs/{run}/cancel", json={})


async def followed(url: str, run: str, **patience: Any) -> tuple[Fold, int]:
    """The run read through to its end, and how often the reader was cut."""
    state, cuts = Fold(), []
    waits = Patience(base=0.1, cap=0.3, **patience)
    async with Client(url, patience=waits) as client:
        follow = client.follow(run, on_cut=lambda error, wait: cuts.append(error))
        async for event in follow:
            state.apply(event)
    return state, len(cuts)


def test_open_streams_outlive_a_reload_of_the_proxy(here: Site, proxy: ReverseProxy) -> None:
    runs = [here.start("scenario:slow") for _ in range(5)]

    async def main() -> list[tuple[Fold, int]]:
        reading = [asyncio.create_task(followed(proxy.url, run)) for run in runs]
        await asyncio.sleep(0)
        await asyncio.to_thread(proxy.reload)
        return await asyncio.gather(*reading)

    for state, _ in asyncio.run(main()):
        assert state.outcome == "complete"
        assert state.text == NUMBERS


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_is_away_for_a_while_is_waited_for(tmp_path: Path, kind: str) -> None:
    """The proxy says 502 or 503 meanwhile."""
    port, store = free_port(), f"sqlite:{tmp_path / 'chat.db'}"
    flags = ("--port", str(port), "--store", store)
    with reverse_proxy(kind, port) as proxy:
        with serving(tmp_path, *flags) as process:
            run = httpx.post(f"{proxy.url}/v1/runs", json={"prompt": "scenario:slow"}).json()["id"]
            process.stop(signal.SIGKILL)
        assert httpx.get(f"{proxy.url}/v1/runs/{run}").status_code in (502, 503)

        async def main() -> tuple[Fold, int]:
            away = asyncio.Event()
            state, cuts = Fold(), []

            def cut(error: Exception | None, wait: float) -> None:
                cuts.append(error)
                away.set()

            async def back() -> None:
                await away.wait()
                with serving(tmp_path, *flags):
                    await over.wait()

            over = asyncio.Event()
            server = asyncio.create_task(back())
            async with Client(proxy.url, patience=Patience(base=0.1, cap=0.3)) as client:
                async for event in client.follow(run, on_cut=cut):
                    state.apply(event)
            over.set()
            await server
            return state, len(cuts)

        state, cuts = asyncio.run(main())
        assert cuts > 0
        assert state.outcome == "complete"
        assert state.text == NUMBERS


def block_of_the_guide(port: int) -> str:
    text = (ROOT / "docs" / "guide" / "operate.md").read_text()
    [block] = re.findall(r"```nginx\n(.*?)```", text, re.DOTALL)
    return block.replace("127.0.0.1:8765", f"127.0.0.1:{port}")


def test_nginx_as_the_guide_sets_it(here: Site) -> None:
    with nginx_with(block_of_the_guide(here.port)) as proxy:
        state, cuts = asyncio.run(followed(proxy.url, here.start("scenario:text")))
        assert state.outcome == "complete"
        assert cuts == 0

        async def over_websocket() -> str:
            address = proxy.url.replace("http", "ws") + "/ws"
            async with websockets.connect(address) as socket:
                run = here.start("scenario:text")
                await socket.send(json.dumps({"op": "follow", "run": run}))
                while "run-end" not in (message := str(await socket.recv())):
                    assert '"error"' not in message
                return message

        assert "run-end" in asyncio.run(over_websocket())

        async def opened(path: str) -> None:
            async with websockets.connect(proxy.url.replace("http", "ws") + path):
                pass  # the handshake went through

        for path in ("/ag-ui", "/api/chat/ws"):
            asyncio.run(opened(path))
        asked = httpx.get(proxy.url + "/ag-ui", params={"threadId": "none"})
        assert asked.status_code == 200, asked.text


def test_a_quiet_model_outlives_the_read_timeout_of_nginx(here: Site) -> None:
    """Heartbeats come more often than nginx gives up: 0.3 s and 1 s here, 15 s and 60 s else."""
    body = f"location / {{ proxy_pass http://127.0.0.1:{here.port}; proxy_read_timeout 1s; }}"
    with nginx_with(body) as proxy:
        run = here.start("scenario:stall")
        with httpx.stream("GET", f"{proxy.url}/v1/runs/{run}/events", timeout=30) as answer:
            stream = Stream(answer)
            stream.until(HEARTBEAT, 8)  # more than two seconds in which the model says nothing
            here.client.post(f"/v1/runs/{run}/cancel", json={})
            stream.until(b"run-end")
