"""What further workers cost: a token of two workers that share a store, and a reader elsewhere.

Tokens: the same streams through one worker, through two workers of one store (``--workers 2``, half
of the streams each, as the kernel deals them), and through two servers that know nothing of each
other, which pay for smaller batches as well; CPU of all of them, per token. Readers: runs of one
server, read from that server and from another one with the same store; CPU of both servers, per
reader and token. Everything in short turns, between streams that stay open; all servers on one
core, so that none has more room.

    python benchmarks/workers.py --stores sqlite,redis --streams 200 --rounds 16
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

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
    running_model_process,
    running_tokenwire,
    server_core,
    wait_for,
)
from token_cost import Server, compiled, windows

sys.path.append(str(ROOT / "tests"))

from support.redis import redis_server

#: Runs whose readers are elsewhere, and the readers of each.
READINGS = ((100, 1), (10, 20))
#: Seconds of a turn that are not counted.
SETTLE = 0.2


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
    load: str, urls: str, streams: int, turns: int, seconds: float, *, with_apart: bool = True
) -> dict[str, list[float]]:
    """CPU microseconds per token: of one worker, of two, and of two servers apart, by rounds of
    turns. ``urls``: stores' URL, with ``%s`` for a name."""
    model_port = free_port()
    upstream = f"http://127.0.0.1:{model_port}/v1"
    body = json.dumps({"prompt": "x", "model": f"{upstream}#bench"}).encode()
    with contextlib.ExitStack() as stack:

        def single(name: str) -> Server:
            port, child = stack.enter_context(running_tokenwire(upstream, urls % name))
            return Server(port, child.pid, post(port, "/v1/runs", body))

        port, pids = stack.enter_context(running_workers(upstream, urls % "two", 2))
        two = Server(port, pids[0], post(port, "/v1/runs", body), tuple(pids[1:]))
        servers = {"one": single("one"), "two": two}
        rows = windows(load, servers, model_port, streams, 50.0, seconds, turns)
        costs = {name: [row.cost + row.beside for row in found] for name, found in rows.items()}
        for name, found in rows.items():
            share = statistics.median(row.beside / (row.cost + row.beside) for row in found)
            held = statistics.median(row.held for row in found)
            said = f"{held:.2f} in time, {share:.2f} of it the second's"
            print(f"   {name}: {statistics.median(costs[name]):.1f} us a token, {said}", flush=True)
        if with_apart:
            halves = {name: single(name) for name in ("first", "second")}
            found = windows(load, halves, model_port, streams // 2, 50.0, seconds, turns).values()
            costs["apart"] = [
                statistics.mean(row.cost for row in both) for both in zip(*found, strict=True)
            ]
            print(f"   apart: {statistics.median(costs['apart']):.1f} us a token", flush=True)
    return costs


class Pair(NamedTuple):
    """Two servers of one store: runs are of the first, readers of that one or of the other."""

    upstream: str
    model: int
    pids: tuple[int, int]
    owner: int
    reader: int


class Reading:
    """Runs of one pair with their readers, until `close`."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.counters: list[Counter] = []
        self.paths: list[str] = []

    async def open(self, runs: int, readers: int) -> None:
        loop, port = asyncio.get_running_loop(), self.pair.reader
        for _ in range(runs):
            path = await started(self.pair.owner, f"{self.pair.upstream}#bench")
            self.paths.append(path)
            request = f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n\r\n".encode()
            for _ in range(readers):
                made = await loop.create_connection(lambda r=request: Counter(r), "127.0.0.1", port)
                self.counters.append(made[1])
        until = time.monotonic() + 20
        while not all(c.events for c in self.counters) and time.monotonic() < until:
            await asyncio.sleep(0.1)
        self.rest()

    def rest(self) -> None:
        """The model says nothing more."""
        os.kill(self.pair.model, signal.SIGSTOP)

    async def turn(self, seconds: float) -> float:
        """CPU microseconds of both servers per reader and token, in a turn of the model's."""
        os.kill(self.pair.model, signal.SIGCONT)
        await asyncio.sleep(SETTLE)
        first, used = self._counts()
        await asyncio.sleep(seconds)
        events, end = self._counts()
        self.rest()
        if events == first:
            raise SystemExit("no token arrived")
        return (end - used) / (events - first) * 1e6

    def _counts(self) -> tuple[int, float]:
        return sum(c.events for c in self.counters), sum(map(cpu_seconds, self.pair.pids))

    async def close(self) -> None:
        os.kill(self.pair.model, signal.SIGCONT)
        for counter in self.counters:
            counter.transport.close()
        for path in self.paths:
            await ended(self.pair.owner, path)
        await asyncio.sleep(0.5)


async def readings(
    pairs: Mapping[str, Pair], runs: int, readers: int, turns: int, seconds: float
) -> dict[str, list[float]]:
    """What a reader and token costs in each pair, in turns; every other round goes backwards."""
    opened = {name: Reading(pair) for name, pair in pairs.items()}
    costs: dict[str, list[float]] = {name: [] for name in pairs}
    for reading in opened.values():
        await reading.open(runs, readers)
    for number in range(turns):
        for name in list(pairs)[:: -1 if number % 2 else 1]:
            costs[name].append(await opened[name].turn(seconds))
    for reading in opened.values():
        await reading.close()
    return costs


def reading_costs(
    stores: str, turns: int, seconds: float
) -> dict[tuple[int, int], dict[str, list[float]]]:
    """CPU per reader and token by `READINGS`: ``here`` and ``elsewhere``. Each has a pair of
    servers with a store of its own, so that neither looks after what the other's readers read.
    ``stores``: their URL, with ``%s`` for a name."""
    costs: dict[tuple[int, int], dict[str, list[float]]] = {}
    with contextlib.ExitStack() as stack:
        pairs: dict[str, Pair] = {}
        for name in ("here", "elsewhere"):
            upstream, model = stack.enter_context(running_model_process())
            url = stores % name
            (first, owner), (second, other) = (
                stack.enter_context(running_tokenwire(upstream, url)) for _ in range(2)
            )
            pids, reader = (owner.pid, other.pid), first if name == "here" else second
            pairs[name] = Pair(upstream, model.pid, pids, first, reader)
        for size in READINGS:
            costs[size] = uvloop.run(readings(pairs, *size, turns, seconds))
            for name, values in costs[size].items():
                said = f"{size[0]} runs, {size[1]} readers each, {name}"
                print(f"   {said}: {statistics.median(values):.1f} us", flush=True)
    return costs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stores", default="sqlite,redis")
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=16, help="turns of each")
    parser.add_argument("--seconds", type=float, default=0.5, help="of a turn")
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
                    print(f"{kind}: a token of {name}, against one worker: {value} (goal 1.1)")
            for size, both in reading_costs(urls, given.rounds, given.seconds).items():
                value = ratio(both["elsewhere"], both["here"])
                print(f"{kind}: {size[1]} readers of a run, elsewhere: {value} (goal 1.3)")


if __name__ == "__main__":
    main()
