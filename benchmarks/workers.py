"""What further workers cost: a token of two workers that share a store, and a reader elsewhere.

Tokens: the same streams through one worker, through two workers of one store (``--workers 2``, half
of the streams each, as the kernel deals them), and through two servers that know nothing of each
other, which pay for smaller batches as well; CPU of all of them, per token. Readers: runs of one
server, read from that server and from another one with the same store; CPU of both servers, per
reader and token. Everything in turns; all servers on one core, so that none has more room.

    python benchmarks/workers.py --stores sqlite,redis --streams 200 --rounds 5
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import uvloop
from fan_out import Counter, ended, started
from goal_table import ratio
from harness import (
    ENVIRONMENT,
    ROOT,
    cpu_seconds,
    free_port,
    other_core,
    post,
    process,
    running_model,
    running_tokenwire,
    server_core,
    wait_for,
)
from token_cost import Server, compiled, window

sys.path.append(str(ROOT / "tests"))

from support.redis import redis_server

#: Runs whose readers are elsewhere, and the readers of each.
READINGS = ((40, 1), (4, 20))


def children_of(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


@contextlib.contextmanager
def running_workers(upstream: str, store: str, count: int) -> Iterator[tuple[int, list[int]]]:
    """``tokenwire serve --workers``: its port, and the workers' processes."""
    port = free_port()
    command = [sys.executable, "-m", "tokenwire", "serve", "--port", str(port)]
    command += ["--model", f"{upstream}#bench", "--store", store, "--workers", str(count)]
    with process(*command, core=server_core(), env=ENVIRONMENT) as child:
        wait_for(port, child)
        until = time.monotonic() + 60
        while len(children_of(child.pid)) < count:
            if child.poll() is not None or time.monotonic() > until:
                raise SystemExit("the workers did not start")
            time.sleep(0.1)
        time.sleep(3.0)  # the last one serves a moment later
        yield port, children_of(child.pid)


def workers_costs(
    load: str, urls: str, streams: int, rounds: int, seconds: float
) -> dict[str, list[float]]:
    """CPU microseconds per token: of one worker, of two, and of two servers apart, by rounds.
    ``urls``: stores' URL, with ``%s`` for a name."""
    costs: dict[str, list[float]] = {"one": [], "two": [], "apart": []}
    model_port = free_port()
    upstream = f"http://127.0.0.1:{model_port}/v1"
    body = json.dumps({"prompt": "x", "model": f"{upstream}#bench"}).encode()
    with contextlib.ExitStack() as stack:
        port, child = stack.enter_context(running_tokenwire(upstream, urls % "one"))
        one = Server(port, child.pid, post(port, "/v1/runs", body))
        port, pids = stack.enter_context(running_workers(upstream, urls % "two", 2))
        two = Server(port, pids[0], post(port, "/v1/runs", body), tuple(pids[1:]))
        apart = []
        for name in ("first", "second"):
            port, child = stack.enter_context(running_tokenwire(upstream, urls % name))
            apart.append(Server(port, child.pid, post(port, "/v1/runs", body)))
        for _ in range(rounds):
            for name, server in (("one", one), ("two", two)):
                row = window(load, server, model_port, streams, 50.0, seconds)
                costs[name].append(row.cost + row.beside)
                share = row.beside / (row.cost + row.beside)
                said = f"{row.held:.2f} in time, {share:.2f} of it the second's"
                print(f"   {name}: {costs[name][-1]:.1f} us a token, {said}", flush=True)
            halves = [window(load, s, model_port, streams // 2, 50.0, seconds) for s in apart]
            costs["apart"].append(statistics.mean(row.cost for row in halves))
            print(f"   apart: {costs['apart'][-1]:.1f} us a token", flush=True)
    return costs


async def reading(
    ports: tuple[int, int],
    pids: tuple[int, int],
    model: str,
    runs: int,
    readers: int,
    seconds: float,
) -> float:
    """CPU microseconds of both servers per reader and token: runs at the first port, their readers
    at the second."""
    loop = asyncio.get_running_loop()
    counters: list[Counter] = []
    paths: list[str] = []
    for _ in range(runs):
        path = await started(ports[0], model)
        paths.append(path)
        request = f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1:{ports[1]}\r\n\r\n".encode()
        for _ in range(readers):
            made = await loop.create_connection(lambda r=request: Counter(r), "127.0.0.1", ports[1])
            counters.append(made[1])
    until = time.monotonic() + 20
    while not all(c.events for c in counters) and time.monotonic() < until:
        await asyncio.sleep(0.1)
    await asyncio.sleep(0.5)
    first, used = sum(c.events for c in counters), sum(map(cpu_seconds, set(pids)))
    await asyncio.sleep(seconds)
    events, used = sum(c.events for c in counters) - first, sum(map(cpu_seconds, set(pids))) - used
    for counter in counters:
        counter.transport.close()
    for path in paths:
        await ended(ports[0], path)
    await asyncio.sleep(0.5)
    if not events:
        raise SystemExit("no token arrived")
    return used / events * 1e6


def reading_costs(
    store: str, rounds: int, seconds: float
) -> dict[tuple[int, int], dict[str, list[float]]]:
    """CPU per reader and token by `READINGS`: ``here`` and ``elsewhere``."""
    costs = {size: {"here": [], "elsewhere": []} for size in READINGS}
    with contextlib.ExitStack() as stack:
        upstream = stack.enter_context(running_model())
        servers = [stack.enter_context(running_tokenwire(upstream, store)) for _ in range(2)]
        (here, first), (there, second) = servers
        pids = first.pid, second.pid
        for _ in range(rounds):
            for size in READINGS:
                for name, port in (("here", here), ("elsewhere", there)):
                    args = (here, port), pids, f"{upstream}#bench", *size, seconds
                    costs[size][name].append(uvloop.run(reading(*args)))
                    said = f"{size[0]} runs, {size[1]} readers each, {name}"
                    print(f"   {said}: {costs[size][name][-1]:.1f} us", flush=True)
    return costs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stores", default="sqlite,redis")
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    given = parser.parse_args()
    os.sched_setaffinity(0, {other_core()})
    for kind in given.stores.split(","):
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            urls = f"sqlite://{folder}/%s.db"
            if kind == "redis":
                if shutil.which("redis-server") is None:
                    print("redis: skipped, redis-server is not installed")
                    continue
                urls = stack.enter_context(redis_server()).url + "?prefix=%s"
            if shutil.which("gcc") is None:
                print("tokens: skipped, gcc is not installed, and the load is a C program")
            else:
                load = compiled("load", folder)
                costs = workers_costs(load, urls, given.streams, given.rounds, given.seconds)
                for name in ("two", "apart"):
                    value = ratio(costs[name], costs["one"])
                    print(f"{kind}: a token of {name}, against one worker: {value:.2f} (goal 1.1)")
            for size, both in reading_costs(urls % "read", given.rounds, given.seconds).items():
                value = ratio(both["elsewhere"], both["here"])
                print(f"{kind}: {size[1]} readers of a run, elsewhere: {value:.2f} (goal 1.3)")


if __name__ == "__main__":
    main()
