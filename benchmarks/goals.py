"""The goals of performance beside what this machine reaches, from one run: ratios, met or not.

Everything that is compared runs at the same time, on one core, and is measured in short turns
between streams that stay open, so that another program's load meets both sides; a ratio is that of
all turns, with the quartiles of the pairs beside it. The other core has model and readers, in C
(`native/`).
Before each part a C proxy shows whether the machine has time for it; a figure counts only then.
What cannot be had here (no C compiler, no redis-server) says so in its row. Nothing begins after
``--limit`` seconds; some eight minutes as it is.

    python benchmarks/goals.py
    python benchmarks/goals.py --only sqlite,replay --turns 40
    python benchmarks/goals.py --native

``--native``: with the compiled twins (`speedups/`), against their own goals; else all is Python.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable

# Before anything of tokenwire is imported, here and in the servers.
os.environ["TOKENWIRE_SPEEDUPS"] = "1" if "--native" in sys.argv else "0"

import uvloop
from fan_out import started
from goal_table import GOALS, Figure, Missing, Ratio, ratio, table
from harness import (
    ROOT,
    free_port,
    other_core,
    post,
    process,
    running_floor,
    running_model,
    running_tokenwire,
    server_core,
    wait_for,
)
from token_cost import WIRES, Row, Server, compiled, median, running_proxy, windows

sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

from workers import reading_costs, workers_costs  # noqa: E402

from log import replay  # noqa: E402
from support.redis import BINARIES, redis_server  # noqa: E402
from tokenwire.log.open import open_store  # noqa: E402
from tokenwire.run.call import lane  # noqa: E402

#: Seconds of a turn: as short as the machine's moods are, and some thousand tokens.
TURN = 0.3
#: Streams that are tried, as shares of the goal, until so many are held.
STEPS = (1.0, 0.75, 0.5, 0.35, 0.2)
FAN = 1000
#: Where the C proxy delivers less than this in time, starts and timers are much of each figure.
PROXY_HELD = 0.9
#: What half of a fast stream's tokens may wait at most, for its cost to count: a tick and a half.
MOST_DELAY_MS = 30.0


class Bench:
    """The programs under test, and what is known of them."""

    def __init__(self, stack: contextlib.ExitStack, given: argparse.Namespace) -> None:
        self.stack, self.given = stack, given
        self.until = time.monotonic() + given.limit
        self.folder = stack.enter_context(tempfile.TemporaryDirectory())
        self.model_port = free_port()
        self.upstream = f"http://127.0.0.1:{self.model_port}/v1"
        self.load = compiled("load", self.folder) if shutil.which("gcc") else ""
        self.servers: dict[str, Server] = {}

    def server(self, name: str) -> Server:
        """A server by its name, started when it is first asked for."""
        if name not in self.servers:
            self.servers[name] = self._start(name)
        return self.servers[name]

    def _start(self, name: str) -> Server:
        if name == "bare":
            port, child = self.stack.enter_context(running_floor(self.upstream))
            return Server(port, child.pid, post(port, "/v1/runs", b"{}"))
        if name == "proxy":
            program = compiled("proxy", self.folder)
            return self.stack.enter_context(running_proxy(program, self.model_port))
        if name in WIRES and name != "native":
            port, pid, _, _ = self.server("memory")
            return Server(port, pid, self._request(port, name))
        beside: tuple[int, ...] = ()
        store = {"memory": "memory:", "sqlite": f"sqlite://{self.folder}/log.db"}.get(name, "")
        if name == "redis":
            redis = self.stack.enter_context(redis_server())
            assert redis._process is not None
            store, beside = redis.url, (redis._process.pid,)
        port, child = self.stack.enter_context(running_tokenwire(self.upstream, store))
        return Server(port, child.pid, self._request(port, "native"), beside)

    def _request(self, port: int, wire: str) -> bytes:
        path, body = WIRES[wire]
        text = json.dumps(body).replace("MODEL", f"{self.upstream}#bench")
        return post(port, path, text.encode())

    def turns(
        self,
        streams: int,
        *names: str,
        rate: float = 50.0,
        loop: str = "closed",
        seconds: float = TURN,
        share: float = 1.0,
    ) -> dict[str, list[Row]]:
        """Short windows of each server, in turns between streams that stay open; ``share`` of as
        many turns as usual."""
        servers = {name: self.server(name) for name in names}
        turns = max(1, round(self.given.turns * share))
        rows = windows(self.load, servers, self.model_port, streams, rate, seconds, turns, loop)
        for name, found in rows.items():
            middle = median(found)
            late = f", p50 {middle.p50_ms:.0f} ms" if loop == "open" else ""
            cost = f"{middle.cost:.1f} us, {middle.held:.2f} in time{late}"
            _note(f"{streams} x {rate:g}/s {name}: {cost}")
        return rows

    def doubt(self) -> str:
        """Why nothing that is measured now counts; empty when the machine has time for it."""
        if not self.load:
            return ""
        row = self.window(self.server("proxy"), 400, 50.0)
        if row.held >= PROXY_HELD:
            return ""
        return f"too busy: the C proxy delivered {row.held:.2f} in time"

    def window(self, server: Server, streams: int, rate: float) -> Row:
        """One long window of one server."""
        only, seconds = {"": server}, self.given.seconds
        return windows(self.load, only, self.model_port, streams, rate, seconds)[""][0]


def _note(text: str) -> None:
    print(f"   {text}", flush=True)


def _costs(rows: Iterable[Row]) -> list[float]:
    return [row.cost for row in rows]


def tokens(bench: Bench, wanted: set[str]) -> dict[str, Figure]:
    figures: dict[str, Figure] = {}
    for streams in (400, 800):
        if wanted & {f"bare-{streams}", f"proxy-{streams}"}:
            rows = bench.turns(streams, "bare", "memory", "proxy")
            costs = {name: _costs(found) for name, found in rows.items()}
            figures[f"bare-{streams}"] = ratio(costs["memory"], costs["bare"])
            figures[f"proxy-{streams}"] = ratio(costs["memory"], costs["proxy"])
    return figures


def sqlite(bench: Bench, _: set[str]) -> dict[str, Figure]:
    """In longer turns, so that each has some of what a store does now and then."""
    rows = bench.turns(400, "sqlite", "memory", seconds=4 * TURN, share=0.5)
    written = statistics.mean(row.written for row in rows["sqlite"]) / 1000
    costs = ratio(_costs(rows["sqlite"]), _costs(rows["memory"]))
    return {"sqlite": costs, "written": written}


def redis(bench: Bench, _: set[str]) -> dict[str, Figure]:
    if BINARIES["redis"] is None:
        return dict.fromkeys(("redis", "redis-server"), Missing("redis-server is not installed"))
    rows = bench.turns(400, "redis", "memory", seconds=4 * TURN, share=0.5)
    beside = ratio([row.beside for row in rows["redis"]], [1.0] * len(rows["redis"]))
    return {"redis": ratio(_costs(rows["redis"]), _costs(rows["memory"])), "redis-server": beside}


def fast(bench: Bench, _: set[str]) -> dict[str, Figure]:
    """In an open loop: a closed one has no second token that a tick could find."""
    rows = bench.turns(200, "memory", "proxy", rate=200.0, loop="open")
    delay = statistics.median(row.p50_ms for row in rows["memory"])
    if delay > MOST_DELAY_MS:  # then lateness merged the tokens, and not the tick
        return {"fast": Missing(f"too busy: half of the tokens were over {delay:.0f} ms late")}
    return {"fast": ratio(_costs(rows["memory"]), _costs(rows["proxy"]))}


def wires(bench: Bench, _: set[str]) -> dict[str, Figure]:
    """Each wire beside the native one, on the same server."""
    ratios: dict[str, Ratio] = {}
    for name in WIRES:
        if name == "native" or (ratios and time.monotonic() > bench.until):
            continue
        rows = bench.turns(200, "memory", name)
        ratios[name] = ratio(_costs(rows[name]), _costs(rows["memory"]))
        _note(f"{name}: {ratios[name]}")
    return {"wires": max(ratios.values())}


def held(bench: Bench, wanted: set[str]) -> dict[str, Figure]:
    """The most streams of `STEPS` that are held; 0 when none is."""
    figures: dict[str, Figure] = {}
    for store in ("memory", "sqlite", "redis"):
        name = f"held-{store}"
        if name not in wanted:
            continue
        if store == "redis" and BINARIES["redis"] is None:
            figures[name] = Missing("redis-server is not installed")
            continue
        figures[name] = 0
        most = GOALS[name].twin if bench.given.twin else GOALS[name].python
        for share in STEPS:
            if time.monotonic() > bench.until:
                figures[name] = Missing("the time is up")
                break
            row = bench.window(bench.server(store), int(most * share), 50.0)
            _note(f"{store}, {int(most * share)}: {row.held:.2f}, p99 {row.p99_ms:.0f} ms")
            if row.held >= 0.99 and row.p99_ms < 50:
                figures[name] = int(most * share)
                break
    return figures


def fan_out(bench: Bench, _: set[str]) -> dict[str, Figure]:
    """One run of tokenwire's, and one block in C, both to `FAN` readers."""
    program, floor = compiled("fan", bench.folder), free_port()
    costs: dict[str, list[float]] = {"tokenwire": [], "send": []}
    with contextlib.ExitStack() as stack:
        sender = stack.enter_context(process(program, "send", str(floor), "50", core=server_core()))
        wait_for(floor, sender)
        upstream = stack.enter_context(running_model())
        port, child = stack.enter_context(running_tokenwire(upstream))
        for number in range(bench.given.rounds):
            if number and time.monotonic() > bench.until:
                break
            path = asyncio.run(started(port, f"{upstream}#bench"))
            targets = {"tokenwire": (port, child.pid, path), "send": (floor, sender.pid, "/")}
            for name, (at, pid, target) in targets.items():
                request = f"GET {target} HTTP/1.1\r\nhost: 127.0.0.1:{at}\r\n\r\n".encode()
                words = map(str, (at, pid, FAN, 2.0, bench.given.seconds))
                command = [program, "read", *words]
                done = subprocess.run(command, input=request, capture_output=True, timeout=90)
                if done.returncode:
                    raise SystemExit(done.stderr.decode("utf-8", "replace"))
                blocks, used = map(int, done.stdout.split())
                costs[name].append(used / max(blocks, 1))
                _note(f"{name}: {costs[name][-1]:.1f} us a reader and token")
    return {"fan-out": ratio(costs["tokenwire"], costs["send"])}


def replayed(bench: Bench, _: set[str]) -> dict[str, Figure]:
    async def measure() -> float:
        log = open_store(f"sqlite://{bench.folder}/replay.db")
        await log.start()
        value = await replay(log, "replay", time.process_time)
        await log.close()
        return value

    return {"replay": uvloop.run(measure())}


def more_workers(bench: Bench, wanted: set[str]) -> dict[str, Figure]:
    figures: dict[str, Figure] = {}
    turns = bench.given.turns
    if "workers" in wanted:
        urls = f"sqlite://{bench.folder}/%s.db"
        costs = workers_costs(bench.load, urls, 200, turns, 2 * TURN, with_apart=False)
        figures["workers"] = ratio(costs["two"], costs["one"])
    if "elsewhere" in wanted:
        pairs = reading_costs(f"sqlite://{bench.folder}/read-%s.db", turns, TURN).values()
        figures["elsewhere"] = max(ratio(pair["elsewhere"], pair["here"]) for pair in pairs)
    return figures


#: What gives which figures, in the order in which they are measured.
PARTS: dict[Callable[[Bench, set[str]], dict[str, Figure]], tuple[str, ...]] = {
    replayed: ("replay",),
    tokens: ("bare-400", "bare-800", "proxy-400", "proxy-800"),
    sqlite: ("sqlite", "written"),
    redis: ("redis", "redis-server"),
    fast: ("fast",),
    wires: ("wires",),
    fan_out: ("fan-out",),
    more_workers: ("workers", "elsewhere"),
    held: ("held-memory", "held-sqlite", "held-redis"),
}
#: Those that need no program in C.
WITHOUT_C = {"replay", "elsewhere"}


def measured(
    given: argparse.Namespace, wanted: set[str]
) -> tuple[dict[str, Figure], dict[str, str]]:
    """The figures, and why some do not count."""
    figures: dict[str, Figure] = {}
    doubts: dict[str, str] = {}
    if not shutil.which("gcc"):
        reason = Missing("no C compiler: gcc is not installed")
        figures.update(dict.fromkeys(wanted - WITHOUT_C, reason))
    with contextlib.ExitStack() as stack:
        bench = Bench(stack, given)
        for part, names in PARTS.items():
            missing = wanted.intersection(names) - figures.keys()
            if not missing:
                continue
            if time.monotonic() > bench.until:
                figures.update(dict.fromkeys(missing, Missing("the time is up")))
                continue
            _note(f"-- {', '.join(sorted(missing))}")
            try:
                if doubt := bench.doubt():
                    _note(doubt)
                    doubts.update(dict.fromkeys(missing, doubt))
                figures.update(part(bench, missing))
            except (Exception, SystemExit) as error:  # the others are wanted all the same
                reason = str(error).strip().split("\n")[0] or type(error).__name__
                figures.update(dict.fromkeys(missing, Missing(f"failed: {reason[:60]}")))
    return figures, doubts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=20, help="short windows of each server")
    parser.add_argument("--rounds", type=int, default=3, help="of 1,000 readers")
    parser.add_argument("--seconds", type=float, default=2.0, help="of all other windows")
    parser.add_argument("--limit", type=float, default=900.0, help="begin nothing after this")
    parser.add_argument("--only", default="", help=f"some of: {', '.join(GOALS)}")
    parser.add_argument("--native", action="store_true", dest="twin", help="with the twins in C")
    given = parser.parse_args()
    wanted = set(filter(None, given.only.split(","))) or set(GOALS)
    if unknown := wanted - GOALS.keys():
        parser.error(f"no such goal: {', '.join(sorted(unknown))}; there are {', '.join(GOALS)}")
    if given.twin and lane.twin.received is None:
        parser.error(f"the compiled twins are not used here: {lane.twin.reason}")
    os.sched_setaffinity(0, {other_core()})
    begin, load = time.monotonic(), os.getloadavg()[0]
    figures, doubts = measured(given, wanted)
    minutes = (time.monotonic() - begin) / 60
    twin = "with the compiled twin" if given.twin else "pure Python"
    print(f"{twin}; {minutes:.0f} min; load {load:.0f} to {os.getloadavg()[0]:.0f}, ", end="")
    print(f"{os.cpu_count()} cores")
    for line in table(figures, wanted, doubts, with_twin=given.twin):
        print(line)


if __name__ == "__main__":
    main()
