"""What a token costs, as ratios: tokenwire beside a bare uvloop server and a proxy in C.

The load is a closed loop in C (`native/load.c`): every stream has a token due 50 times a second,
and none leaves the model before its reader has the one before, so that no server gets cheaper by
being late. The three take turns, round by round, on one core; model and readers have the other.
CPU is user plus system time of the server process. Both C programs are compiled here with gcc.

    python benchmarks/token_cost.py --streams 100,400,800 --rounds 3
    python benchmarks/token_cost.py --streams 100,200 --rate 200 --loop open

In an open loop tokens leave the model when they are due, whatever the reader has: so do fast
models, whose tokens are read on a tick, several at once.
``--wires chat,ui`` measures those as well, on the same server as the native one; ``--native`` a
server with the lane in C (`speedups/`), beside that in Python.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from harness import (
    ROOT,
    free_port,
    other_core,
    post,
    process,
    running_floor,
    running_tokenwire,
    server_core,
    wait_for,
)

sys.path.append(str(ROOT / "tests"))

from support.redis import redis_server
from tokenwire.run.call import lane

#: Ratios to reach: against the bare server at any size, against the C proxy by streams; the same
#: with the lane in C.
GOAL_BARE = 1.4
GOAL_PROXY = {100: 2.7, 400: 2.7, 800: 2.3}
GOAL_BARE_NATIVE = 1.0
GOAL_PROXY_NATIVE = {100: 1.7, 400: 1.7, 800: 1.6}
GOALS = ((GOAL_BARE, GOAL_PROXY), (GOAL_BARE_NATIVE, GOAL_PROXY_NATIVE))
#: The name of a server with the lane in C.
IN_C = "tokenwire, C lane"
NATIVE = Path(__file__).with_name("native")


#: The other wires against the native one.
GOAL_WIRE = 1.15
_NAME = "@" * 12  # `load` makes another name of it for every stream
_USER = {"id": "u1", "role": "user", "content": "x"}
#: Path and body of a request in each wire; ``MODEL`` is the model's name.
WIRES: dict[str, tuple[str, dict[str, Any]]] = {
    "native": ("/v1/runs", {"prompt": "x", "model": "MODEL"}),
    "chat": ("/v1/chat/completions", {"messages": [_USER], "model": "MODEL", "stream": True}),
    "responses": ("/v1/responses", {"input": "x", "model": "MODEL", "stream": True}),
    "anthropic": (
        "/v1/messages",
        {"messages": [{"role": "user", "content": "x"}], "model": "MODEL", "stream": True}
        | {"max_tokens": 9000},
    ),
    "ui": (
        "/api/chat",
        {"id": _NAME, "messages": [{**_USER, "parts": [{"type": "text", "text": "x"}]}]},
    ),
    "ag-ui": (
        "/ag-ui",
        {"threadId": _NAME, "runId": _NAME, "messages": [_USER], "tools": [], "context": []}
        | {"state": {}, "forwardedProps": {}},
    ),
}


class Row(NamedTuple):
    """One window: CPU in microseconds per token, what part of the tokens due arrived, delays."""

    user: float
    system: float
    held: float
    p50_ms: float
    p99_ms: float
    #: Bytes per token that the server had written to disk.
    written: float = 0.0
    #: CPU of the other processes, together, in microseconds per token.
    beside: float = 0.0

    @property
    def cost(self) -> float:
        return self.user + self.system


class Server(NamedTuple):
    port: int
    pid: int
    request: bytes
    #: Other processes whose CPU counts: further workers, a database.
    beside: tuple[int, ...] = ()


def compiled(name: str, folder: str) -> str:
    """The path of a program made from ``native/NAME.c``."""
    program = str(Path(folder, name))
    source = str(NATIVE / f"{name}.c")
    subprocess.run(["gcc", "-O2", "-o", program, source], check=True)
    return program


@contextlib.contextmanager
def running_proxy(program: str, model_port: int) -> Iterator[Server]:
    port = free_port()
    with process(program, str(port), str(model_port), core=server_core()) as child:
        wait_for(port, child)
        yield Server(port, child.pid, post(port, "/v1/chat/completions", b"{}"))


#: Seconds in which the streams of a server have tokens before its first turn.
WARM = 1.5


def windows(
    load: str,
    servers: Mapping[str, Server],
    model_port: int,
    streams: int,
    rate: float,
    seconds: float,
    turns: int = 1,
    loop: str = "closed",
) -> dict[str, list[Row]]:
    """Windows of load on each of ``servers``, which take ``turns`` turns, each with as many streams
    of its own. ``loop``: see `native/load.c`."""
    words: list[object] = [load, model_port, streams, rate, WARM, seconds, turns, loop]
    for server in servers.values():
        words += [server.port, ",".join(map(str, (server.pid, *server.beside)))]
    done = subprocess.run(
        [str(word) for word in words],
        input=b"".join(server.request + b"\0" for server in servers.values()),
        capture_output=True,
        timeout=120 + (seconds + WARM) * (turns + 1) * len(servers),
    )
    if done.returncode:
        raise SystemExit(f"the load ended: {done.stderr.decode('utf-8', 'replace')}")
    names = list(servers)
    rows: dict[str, list[Row]] = {name: [] for name in names}
    for line in done.stdout.splitlines():
        number, *values = map(int, line.split())
        rows[names[number]].append(_row(values, streams * rate * seconds))
    return rows


def _row(values: list[int], due: float) -> Row:
    """A window by a line of `native/load.c`, in which so many tokens were due."""
    tokens, p50, p99, user, system, written, *others = values
    if not tokens:
        raise SystemExit("no token arrived")
    beside = sum(others[0::3]) + sum(others[1::3])
    delays = p50 / 1000, p99 / 1000
    costs = user / tokens, system / tokens
    return Row(*costs, tokens / due, *delays, written / tokens, beside / tokens)


def median(rows: list[Row]) -> Row:
    return Row(*(statistics.median(column) for column in zip(*rows, strict=True)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", default="100,400,800")
    parser.add_argument("--rate", type=float, default=50.0)
    parser.add_argument("--loop", choices=("closed", "open"), default="closed")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--store", default="memory:", help="with TEMP for a folder; or 'redis'")
    parser.add_argument("--against", type=Path, help="another checkout of this project")
    parser.add_argument("--wires", default="", help=f"beside the native one: {', '.join(WIRES)}")
    parser.add_argument("--native", action="store_true", help="a server with the lane in C as well")
    given = parser.parse_args()
    if given.native and lane.twin.received is None:
        raise SystemExit(f"the lane in C is not used here: {lane.twin.reason}")
    if shutil.which("gcc") is None:
        print("skipped: gcc is not installed, and the load and the proxy are C programs")
        return
    os.sched_setaffinity(0, {other_core()})
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        load, proxy = compiled("load", folder), compiled("proxy", folder)
        model_port = free_port()
        upstream = f"http://127.0.0.1:{model_port}/v1"
        store = given.store
        if store == "redis":
            store = stack.enter_context(redis_server()).url
        wires = ["native", *filter(None, given.wires.split(","))]
        servers: dict[str, Server] = {}
        trees = {"tokenwire": ROOT} | ({"other": given.against.resolve()} if given.against else {})
        trees |= {IN_C: ROOT} if given.native else {}
        for number, (name, tree) in enumerate(trees.items()):
            url = store.replace("TEMP", f"{folder}/{number}")
            Path(folder, str(number)).mkdir()
            port, child = stack.enter_context(
                running_tokenwire(upstream, url, tree=tree, native=name == IN_C)
            )
            for wire in wires:
                path, body = WIRES[wire]
                data = json.dumps(body).replace("MODEL", f"{upstream}#bench").encode()
                label = name if wire == "native" else f"{name} {wire}"
                servers[label] = Server(port, child.pid, post(port, path, data))
        port, child = stack.enter_context(running_floor(upstream))
        servers["bare"] = Server(port, child.pid, post(port, "/v1/runs", b"{}"))
        servers["C proxy"] = stack.enter_context(running_proxy(proxy, model_port))
        print(
            "streams  server               us/token    user  system   held    p50 ms    p99 ms   "
            "x bare (goal)  x C proxy (goal)"
        )
        for streams in map(int, given.streams.split(",")):
            limits = streams, given.rate, given.seconds, given.rounds
            rows = windows(load, servers, model_port, *limits, given.loop)
            bare, floor = median(rows["bare"]).cost, median(rows["C proxy"]).cost
            for name in servers:
                row = median(rows[name])
                text = (
                    f"{streams:7d}  {name:19s}  {row.cost:8.1f}  {row.user:6.1f}  "
                    f"{row.system:6.1f}  {row.held:5.2f}  {row.p50_ms:8.1f}  {row.p99_ms:8.1f}"
                )
                if name in trees:
                    of_bare, of_proxy = GOALS[name == IN_C]
                    text += f"   {row.cost / bare:6.2f} ({of_bare})"
                    text += f"  {row.cost / floor:9.2f} ({of_proxy.get(streams, '-')})"
                elif name.partition(" ")[0] in trees:
                    native = median(rows[name.partition(" ")[0]]).cost
                    text += f"   {row.cost / native:6.2f} x native ({GOAL_WIRE})"
                print(text, flush=True)


if __name__ == "__main__":
    main()
