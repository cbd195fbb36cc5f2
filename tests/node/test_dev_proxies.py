"""The development servers of Vite and Next as a proxy before the server, set as the guide says: a
word passes before the next one is written, a stream is resumed, a socket opens, and a request whose
`Host` or `Origin` does not fit is refused."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import queue
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from support.free_ports import free_port
from tokenwire import RunContext, agent
from tokenwire.server.app import create_app
from tokenwire.server.settings import Settings
from tokenwire.server.start import ThreadedServer

pytestmark = pytest.mark.node
ROOT = Path(__file__).resolve().parents[2]
NEXT = Path(__file__).parent / "next"
WORDS = [f"word{n} " for n in range(1, 7)]

#: A word is written when the one before it was read at the other end of the proxy.
GATE: queue.Queue[None] = queue.Queue()


@agent
async def gated(ctx: RunContext):
    for word in WORDS:
        await asyncio.to_thread(GATE.get, timeout=40)
        yield word


@agent
async def quick(ctx: RunContext):
    for word in WORDS:
        yield word


@contextlib.contextmanager
def server(*origins: str) -> Iterator[str]:
    app = create_app(Settings(port=0, cors_origin=list(origins)), agents=[gated, quick])
    with ThreadedServer(app) as running:
        yield running.url


@contextlib.contextmanager
def started(command: list[str], folder: Path, **env: str) -> Iterator[None]:
    """A development server, once it says where it is."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, **env, "NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    seen: list[str] = []
    drain = threading.Thread()
    try:
        for line in process.stdout:
            seen.append(line)
            if re.search(r"ready in|Ready in", line):
                break
        else:
            raise AssertionError("it did not start:\n" + "".join(seen))
        drain = threading.Thread(target=process.stdout.read, daemon=True)
        drain.start()
        yield
    finally:
        process.terminate()
        process.wait(20)
        if drain.ident:
            drain.join(30)
        process.stdout.close()


#: As in docs/guide/browser.md, but for the address of the server; `short` is what it warns of.
VITE = """
const target = process.env.TOKENWIRE_TARGET;
const api = process.env.SHORT ? target : { target, changeOrigin: false };
const ws = process.env.SHORT ? { target, changeOrigin: true, ws: true } : { ...api, ws: true };
export default {
  server: { proxy: { "/v1": api, "/api/chat": api, "/ws": ws } },
};
"""


@contextlib.contextmanager
def vite(tmp_path: Path, target: str, **env: str) -> Iterator[str]:
    module = ROOT / "node_modules/vite/bin/vite.js"
    node = shutil.which("node")
    if node is None or not module.exists():
        pytest.skip("vite is not installed (npm ci)")
    (tmp_path / "vite.config.mjs").write_text(VITE)
    (tmp_path / "index.html").write_text("<p>a page</p>")
    port = free_port()
    command = [node, str(module), "--host", "127.0.0.1", "--port", str(port), "--strictPort"]
    with started(command, tmp_path, TOKENWIRE_TARGET=target, **env):
        yield f"http://127.0.0.1:{port}"


def need_next() -> str:
    """Skip without Node or Next; install it once."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None:
        pytest.skip("node is not installed")
    mark = NEXT / "node_modules/.tokenwire-installed"
    lock = (NEXT / "package-lock.json").read_text()
    if mark.exists() and mark.read_text() == lock:
        return node
    if npm is None:
        pytest.skip("npm is not installed, and tests/node/next has no node_modules")
    command = [npm, "ci", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=NEXT, capture_output=True, text=True, timeout=300)
    if done.returncode:
        pytest.skip(f"npm could not install Next: {done.stderr[-300:]}")
    mark.write_text(lock)
    return node


def read_words(url: str, run: str, origin: str, after: str = "", stop: int = 0) -> tuple[str, str]:
    """The text that follows a cursor, and the cursor after it; each word lets the next one go."""
    headers = {"origin": origin, **({"last-event-id": after} if after else {})}
    text, cursor = "", after
    with httpx.stream(
        "GET", f"{url}/v1/runs/{run}/events", headers=headers, timeout=30
    ) as response:
        assert response.status_code == 200, response.read()
        for line in response.iter_lines():
            if line.startswith("id:"):
                cursor = line[3:].strip()
            if not line.startswith("data:"):
                continue
            event = json.loads(line[5:])
            if event["type"] == "text-delta":
                text += event["text"]
                GATE.put(None)
                if stop and len(text.split()) == stop:
                    break
            if event["type"] == "run-end":
                assert event["outcome"] == "complete"
                break
    return text, cursor


def start(url: str, origin: str, model: str) -> httpx.Response:
    body = {"prompt": "Say it", "model": model}
    return httpx.post(f"{url}/v1/runs", json=body, headers={"origin": origin}, timeout=30)


def passes_everything(url: str) -> None:
    """What a page at ``url`` does passes through the proxy there."""
    with contextlib.suppress(queue.Empty):
        while True:
            GATE.get_nowait()
    response = start(url, url, "gated")
    assert response.status_code in (200, 201, 202), response.text
    run = response.json()["id"]
    GATE.put(None)
    # A word is written when the one ahead of it came through: a proxy that holds any back stands.
    head, cursor = read_words(url, run, url, stop=3)
    assert head == "".join(WORDS[:3])
    rest, _ = read_words(url, run, url, after=cursor)
    assert rest == "".join(WORDS[3:])
    assert over_socket(url, run) == "".join(WORDS)
    chat = {
        "id": "chat-1",
        "messages": [{"role": "user", "parts": [{"type": "text", "text": "x"}]}],
    }
    answer = httpx.post(
        f"{url}/api/chat", json={**chat, "model": "quick"}, headers={"origin": url}, timeout=30
    )
    assert answer.status_code == 200, answer.text
    assert "word6" in answer.text


def over_socket(url: str, run: str) -> str:
    text = ""
    with connect(f"{url.replace('http', 'ws')}/ws", origin=url) as socket:  # type: ignore[arg-type]
        socket.send(json.dumps({"op": "follow", "run": run}))
        while True:
            message: dict[str, Any] = json.loads(socket.recv(timeout=30))
            for one in message.get("events", ()):
                text += one["event"].get("text", "") if one["event"]["type"] == "text-delta" else ""
            if message["op"] == "end" or any(
                one["event"]["type"] == "run-end" for one in message.get("events", ())
            ):
                return text
            assert message["op"] != "error", message


def is_refused(url: str, origin: str) -> None:
    response = start(url, origin, "quick")
    assert response.status_code == 403, response.text
    assert "origin" in response.text
    with pytest.raises(InvalidStatus) as refused:
        connect(f"{url.replace('http', 'ws')}/ws", origin=origin)  # type: ignore[arg-type]
    assert refused.value.response.status_code == 403


def test_vite_as_the_guide_sets_it(tmp_path: Path) -> None:
    with server() as target, vite(tmp_path, target) as url:
        passes_everything(url)
        is_refused(url, "http://evil.example")


def test_vites_short_form_changes_host_and_is_refused(tmp_path: Path) -> None:
    with server() as target, vite(tmp_path, target, SHORT="1") as url:
        is_refused(url, url)


def test_next_as_the_guide_sets_it() -> None:
    node = need_next()
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [node, "node_modules/next/dist/bin/next", "dev", "-H", "127.0.0.1", "-p", str(port)]
    env = {"NEXT_TELEMETRY_DISABLED": "1"}
    with server(url) as target, started(command, NEXT, TOKENWIRE_TARGET=target, **env):
        assert "a page" in httpx.get(url, timeout=60).text
        passes_everything(url)
        is_refused(url, "http://evil.example")


def test_next_is_refused_until_its_origin_is_allowed() -> None:
    node = need_next()
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [node, "node_modules/next/dist/bin/next", "dev", "-H", "127.0.0.1", "-p", str(port)]
    env = {"NEXT_TELEMETRY_DISABLED": "1"}
    with server() as target, started(command, NEXT, TOKENWIRE_TARGET=target, **env):
        is_refused(url, url)
