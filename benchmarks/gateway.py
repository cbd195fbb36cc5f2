"""A provider's socket, tokenwire, a reader's socket: how many streams does one core hold?

A model process sends every stream 50 tokens/s, the server under test is pinned to one core,
readers and model to the other (`harness.py`). "Held": at least 0.99 of the tokens arrived within
the window, p99 of the added delay under 50 ms. ``--against DIR`` measures another checkout beside
this one, round by round, for changes of the hot path; ``--floor`` the bare server of `floor.py`.

    python benchmarks/gateway.py --streams 100,400,800 --store memory: --seconds 4
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
from pathlib import Path

import uvloop
from harness import (
    HEADING,
    ROOT,
    line,
    measure,
    other_core,
    post,
    running_floor,
    running_model,
    running_side_by_side,
)

sys.path.append(str(ROOT / "tests"))

from support.postgres import postgres_server
from support.redis import redis_server


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", default="100,400,800")
    parser.add_argument(
        "--store",
        default="memory:",
        help="a store's URL, with TEMP for a folder of its own; 'redis' and 'postgres' start one",
    )
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rate", type=float, default=50.0)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--against", type=Path, help="another checkout of this project")
    parser.add_argument("--floor", action="store_true", help="a bare server beside it")
    options = parser.parse_args()
    os.sched_setaffinity(0, {other_core()})
    with contextlib.ExitStack() as stack:
        upstream = stack.enter_context(running_model(options.rate))
        if options.store == "redis":
            options.store = stack.enter_context(redis_server()).url
        elif options.store == "postgres":
            options.store = stack.enter_context(postgres_server(fast=False)).url
        body = json.dumps({"prompt": "x", "model": f"{upstream}#bench"}).encode()
        trees = running_side_by_side(upstream, options.store, options.against)
        servers = stack.enter_context(trees)
        if options.floor:
            servers["floor"] = stack.enter_context(running_floor(upstream))
        print(HEADING)
        for streams in map(int, options.streams.split(",")):
            rows: dict[str, list[dict[str, float]]] = {name: [] for name in servers}
            for _ in range(options.rounds):
                for name, (port, child) in servers.items():
                    request = post(port, "/v1/runs", body)
                    args = (port, child.pid, streams, options.rate, options.seconds, request)
                    rows[name].append(uvloop.run(measure(*args)))
            for name, found in rows.items():
                row = {k: statistics.median(r[k] for r in found) for k in found[0]}
                print(line(row), name, flush=True)


if __name__ == "__main__":
    main()
