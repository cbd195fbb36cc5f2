"""tokenwire beside other ways to pass a model's stream on: the same load, in turns, in one run.

Measured as in `gateway.py`: model's socket, server on one core, reader's socket. All servers run
from the start; each round measures every server once. A server that has fallen below 0.9 of the
tokens is not asked for more streams. The peers come from an environment of their own::

    python -m venv peers
    peers/bin/pip install fastapi uvicorn uvloop httptools openai sse-starlette "litellm[proxy]"
    peers/bin/pip install tensorzero
    npm ci --prefix benchmarks/node
    python benchmarks/gateway_peers.py --peers-python peers/bin/python --rounds 3 --seconds 3

They do different amounts of work: FastAPI and the SDK check nothing and keep nothing, LiteLLM and
TensorZero route and account, tokenwire logs every event before anybody sees it. A peer that is not
installed, or does not start, says so in a line.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import uvloop
from goal_table import ratio
from harness import (
    HEADING,
    free_port,
    held,
    line,
    measure,
    other_core,
    post,
    process,
    running_model,
    running_tokenwire,
    server_core,
    wait_for,
)

APP = Path(__file__).with_name("peers_app.py")
TENSORZERO = Path(__file__).with_name("peers_tensorzero.py")
NODE = Path(__file__).with_name("node")
#: Starting LiteLLM's proxy takes half a minute on a slow machine.
SECONDS_TO_START = 90.0


class Peer(msgspec.Struct):
    """A server under test and what its readers ask."""

    port: int
    pid: int
    request: bytes


def has(python: str, module: str) -> bool:
    """Whether that interpreter can import ``module``."""
    code = f"import importlib.util as u; raise SystemExit(u.find_spec({module!r}) is None)"
    return subprocess.run([python, "-c", code], capture_output=True).returncode == 0


def start_tokenwire(stack: contextlib.ExitStack, upstream: str, store: str) -> Peer:
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    port, child = stack.enter_context(running_tokenwire(upstream, store.replace("FOLDER", folder)))
    body = json.dumps({"prompt": "x", "model": f"{upstream}#bench"}).encode()
    return Peer(port, child.pid, post(port, "/v1/runs", body))


def start_app(stack: contextlib.ExitStack, python: str, kind: str, upstream: str) -> Peer:
    port = free_port()
    command = [python, str(APP), kind, str(port), upstream]
    child = stack.enter_context(process(*command, core=server_core(), env={"PYTHONPATH": ""}))
    wait_for(port, child, SECONDS_TO_START)
    return Peer(port, child.pid, post(port, "/chat", b"{}"))


def start_litellm(stack: contextlib.ExitStack, python: str, upstream: str) -> Peer:
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    target = {"model": "openai/bench", "api_base": upstream, "api_key": "none"}
    config = Path(folder, "config.yaml")  # JSON is YAML
    config.write_text(
        json.dumps({"model_list": [{"model_name": "bench", "litellm_params": target}]})
    )
    port, key = free_port(), f"sk-{secrets.token_hex(12)}"
    command = [python, "-c", "from litellm import run_server; run_server()"]
    command += ["--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    env = {"PYTHONPATH": "", "LITELLM_MASTER_KEY": key, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    child = stack.enter_context(process(*command, core=server_core(), env=env))
    wait_for(port, child, SECONDS_TO_START)
    body = json.dumps(
        {"model": "bench", "stream": True, "messages": [{"role": "user", "content": "x"}]}
    ).encode()
    request = post(port, "/v1/chat/completions", body, f"authorization: Bearer {key}")
    return Peer(port, child.pid, request)


def start_tensorzero(stack: contextlib.ExitStack, python: str, upstream: str) -> Peer:
    file = Path(stack.enter_context(tempfile.TemporaryDirectory()), "port")
    command = [python, str(TENSORZERO), upstream, str(file)]
    child = stack.enter_context(process(*command, core=server_core(), env={"PYTHONPATH": ""}))
    until = time.monotonic() + SECONDS_TO_START
    while not file.exists() or not file.read_text():
        if child.poll() is not None or time.monotonic() > until:
            raise SystemExit("the server did not start")
        time.sleep(0.1)
    body = {"model": "tensorzero::model_name::bench", "stream": True}
    body["messages"] = [{"role": "user", "content": "x"}]
    port = int(file.read_text())
    data = json.dumps(body).encode()
    return Peer(port, child.pid, post(port, "/openai/v1/chat/completions", data))


def start_node(stack: contextlib.ExitStack, upstream: str) -> Peer:
    port = free_port()
    command = ["node", str(NODE / "ui_stream.mjs"), str(port), upstream]
    child = stack.enter_context(process(*command, core=server_core()))
    wait_for(port, child, SECONDS_TO_START)
    parts = [{"type": "text", "text": "x"}]
    body = {"messages": [{"id": "m1", "role": "user", "parts": parts}]}
    return Peer(port, child.pid, post(port, "/", json.dumps(body).encode()))


def start_all(stack: contextlib.ExitStack, python: str, upstream: str) -> dict[str, Peer]:
    """Every server that can be started here."""
    peers = {
        "tokenwire, memory": start_tokenwire(stack, upstream, "memory:"),
        "tokenwire, SQLite": start_tokenwire(stack, upstream, "sqlite://FOLDER/log.db"),
    }
    sdk = has(python, "openai") and has(python, "fastapi")
    is_node = shutil.which("node") is not None and (NODE / "node_modules" / "ai").exists()
    others: dict[str, tuple[bool, Callable[[], Peer]]] = {
        "FastAPI + openai SDK": (sdk, lambda: start_app(stack, python, "fastapi", upstream)),
        "sse-starlette + openai SDK": (
            sdk and has(python, "sse_starlette"),
            lambda: start_app(stack, python, "sse-starlette", upstream),
        ),
        "Node AI SDK": (is_node, lambda: start_node(stack, upstream)),
        "TensorZero": (
            has(python, "tensorzero") and has(python, "openai"),
            lambda: start_tensorzero(stack, python, upstream),
        ),
        "LiteLLM proxy": (
            has(python, "litellm"),
            lambda: start_litellm(stack, python, upstream),
        ),
    }
    for name, (is_installed, start) in others.items():
        if not is_installed:
            print(f"{name}: not installed")
            continue
        try:
            peers[name] = start()
        except SystemExit as error:
            print(f"{name}: {error}")
    return peers


def middle(rows: list[dict[str, float]]) -> dict[str, float]:
    """Medians; of memory the most, since later rounds find it already taken."""
    row = {key: statistics.median(r[key] for r in rows) for key in rows[0]}
    return row | {"kb_per_stream": max(r["kb_per_stream"] for r in rows)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", default="25,50,100,400,800")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rate", type=float, default=50.0)
    parser.add_argument("--peers-python", default=sys.executable)
    parser.add_argument("--budget", type=float, default=600.0, help="begin nothing after this")
    options = parser.parse_args()
    os.sched_setaffinity(0, {other_core()})
    until = time.monotonic() + options.budget
    with contextlib.ExitStack() as stack:
        upstream = stack.enter_context(running_model(options.rate))
        peers = start_all(stack, options.peers_python, upstream)
        alive = set(peers)
        print(f"load {os.getloadavg()[0]:.0f} on {os.cpu_count()} cores")
        print(HEADING)
        for streams in map(int, options.streams.split(",")):
            rows: dict[str, list[dict[str, float]]] = {name: [] for name in peers if name in alive}
            for number in range(options.rounds):
                for name in rows:
                    if number and time.monotonic() > until:
                        continue
                    peer = peers[name]
                    args = (peer.port, peer.pid, streams, options.rate, options.seconds)
                    rows[name].append(uvloop.run(measure(*args, peer.request)))
            first = rows.get("tokenwire, memory", [])
            for name, found in rows.items():
                row = middle(found)
                text = f"{line(row)}  {'held' if held(row) else ' -- '}  {name}"
                if first and name != "tokenwire, memory" and row["delivered"]:
                    costs = [[r["us_per_token"] for r in side] for side in (found, first)]
                    text += f", {ratio(*costs):.1f} x tokenwire's CPU per token"
                print(text, flush=True)
                if row["delivered"] < 0.9:
                    alive.discard(name)
            if time.monotonic() > until:
                print("the time is up")
                break


if __name__ == "__main__":
    main()
