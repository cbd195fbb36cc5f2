"""More readers at once than a core can serve: what gets through, and how long the first word takes.

Requests come evenly within two seconds (`native/crowd.c`, compiled here with gcc); models send 50
tokens/s to each that began, whatever the server reads; with ``--closed`` none before its reader has
the one before. For each size a server of its own: requests that are refused, with a time to come
again, readers that got a first token and when (p50 and p99; those that wait still count with the
time so far), tokens/s, those of them in time, and CPU per token in the seconds after the last
request. More load must never mean less work done.

    python benchmarks/crowd.py --streams 400,800,1200,1600,2400 --against ../before
    python benchmarks/crowd.py --streams 400,800,1600 --closed --max-lag 0.05
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import harness
from harness import ROOT, free_port, other_core, post, running_tokenwire
from token_cost import WIRES, compiled

ARRIVE = 2.0


def crowd(program: str, tree: Path, given: argparse.Namespace, streams: int) -> str:
    """A line about ``streams`` readers of a new server."""
    model = free_port()
    upstream = f"http://127.0.0.1:{model}/v1"
    with running_tokenwire(upstream, tree=tree, native=given.native) as (
        port,
        child,
    ):
        path, body = WIRES["native"]
        text = json.dumps(body).replace("MODEL", f"{upstream}#bench")
        words = (port, model, child.pid, streams, 50, ARRIVE, given.seconds)
        words += (int(given.closed), given.in_time)
        done = subprocess.run(
            [program, *map(str, words)],
            input=post(port, path, text.encode()),
            capture_output=True,
            timeout=ARRIVE + given.seconds + 60,
        )
    if done.returncode:
        raise SystemExit(done.stderr.decode("utf-8", "replace"))
    refused, begun, first, last, _, no, tokens, _, late, used, told, kept = map(
        int, done.stdout.split()
    )
    return (
        f"{refused:7d} ({told:4d})  {begun:5d}  {first / 1e6:6.2f} / {last / 1e6:5.2f} s  "
        f"{max(no, 0) / 1e6:10.2f} s  {tokens / given.seconds:8.0f}  {kept / given.seconds:8.0f}  "
        f"{used / max(tokens, 1):8.1f}  {used / 1e6 / given.seconds:5.2f}  {late / 1000:7.0f} ms"
    )


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", default="200,400,800,1600")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--max-lag", type=float, default=0.25)
    parser.add_argument("--closed", action="store_true", help="one token of a stream at a time")
    parser.add_argument("--in-time", type=int, default=100, help="milliseconds of delay")
    parser.add_argument("--against", type=Path, help="another checkout of this project")
    parser.add_argument("--native", action="store_true", help="with the lane in C")
    return parser.parse_args(words)


def main() -> None:
    given = arguments()
    if shutil.which("gcc") is None:
        print("skipped: gcc is not installed, and the crowd is a C program")
        return
    os.sched_setaffinity(0, {other_core()})
    harness.ENVIRONMENT["TOKENWIRE_MAX_LAG"] = str(given.max_lag)
    trees = {"this": ROOT} | ({"other": given.against.resolve()} if given.against else {})
    with contextlib.ExitStack() as stack:
        program = compiled("crowd", stack.enter_context(tempfile.TemporaryDirectory()))
        print(
            "streams         refused (told)  begun  first p50 / p99   refusal p99  tokens/s"
            "   in time  us/token   core  delay p99"
        )
        for streams in map(int, given.streams.split(",")):
            for name, tree in trees.items():
                print(f"{streams:7d} {name:5s} {crowd(program, tree, given, streams)}", flush=True)


if __name__ == "__main__":
    main()
