"""Does an append to SQLite cost more in a long stream, or among many? CPU and bytes written.

The writer alone, fully durable, in this thread: each stream gets one record in turn, so many in a
commit (``--commit``; fewer streams than that, one each). Printed are CPU microseconds and kilobytes
per record (what the process passes to ``write``: write-ahead log and file) for parts of the
streams' length. The goal: at most 2 kB at 400 streams, however long they are.
``--against ../before`` runs another checkout in turns. Half a minute.

    python benchmarks/log_growth.py [--streams 1,100,400] [--length 400]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(os.environ.get("TOKENWIRE_BENCH_TREE", Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(ROOT / "src"))

from tokenwire.log.sqlite import store as store_module  # noqa: E402

RECORD = b'0123456789abcdef{"type":"text-delta","part":0,"text":" a few words of","seq":123,"t":99}'
PARTS = 4
GOAL = 2.0


def written() -> int:
    """Bytes that this process has passed to ``write``; 0 where the system does not say."""
    try:
        lines = Path("/proc/self/io").read_text().splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) for line in lines if line.startswith("wchar"))


async def part_costs(path: str, streams: int, length: int, commit: int) -> list[list[float]]:
    """CPU microseconds and kilobytes per record, for each part of the length."""
    store = store_module.SQLiteStore(path)
    await store.start()
    names = [f"s{number}" for number in range(streams)]
    for name in names:
        await store.create(name, owner="bench", lease=3600)
    writer = store._writer
    assert writer is not None
    costs: list[list[float]] = []
    group = min(commit, streams)
    jobs = []
    for part in range(PARTS):
        first, last = part * length // PARTS + 1, (part + 1) * length // PARTS
        before, cpu = written(), time.process_time()
        for number in range(first, last + 1):
            for name in names:
                jobs.append(store_module.AppendJob(name, 1, number, [RECORD], None, False))
                if len(jobs) == group:
                    assert {done.status for done in writer.work(jobs)} == {"ok"}
                    jobs.clear()
        count = (last - first + 1) * streams
        cost = (time.process_time() - cpu) / count * 1e6
        costs.append([cost, (written() - before) / count / 1e3])
    await store.close()
    return costs


def measure(tree: Path, streams: int, length: int, commit: int) -> list[list[float]]:
    command = [sys.executable, __file__, "--one", f"{streams},{length},{commit}"]
    environment = dict(os.environ, TOKENWIRE_BENCH_TREE=str(tree))
    done = subprocess.run(command, env=environment, capture_output=True, check=False, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout)


def main() -> int:
    """Measure and print; 1 where a goal is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--streams", default="1,100,400")
    parser.add_argument("--length", type=int, default=400)
    parser.add_argument("--commit", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        with tempfile.TemporaryDirectory(dir=os.environ.get("TOKENWIRE_BENCH_DIR")) as folder:
            numbers = map(int, options.one.split(","))
            print(json.dumps(asyncio.run(part_costs(f"{folder}/log.db", *numbers))))
        return 0
    trees = [ROOT, *([options.against] if options.against else [])]
    bounds = [f"to {(n + 1) * options.length // PARTS}" for n in range(PARTS)]
    print(f"{'':24}" + "".join(f"{bound:>18}" for bound in bounds) + "   (us, kB per record)")
    worst = 0.0
    for streams in map(int, options.streams.split(",")):
        rounds: dict[Path, list[list[list[float]]]] = {tree: [] for tree in trees}
        for _ in range(options.rounds):
            for tree in trees:
                one = measure(tree, streams, options.length, options.commit)
                rounds[tree].append(one)
        for tree in trees:
            cells = []
            for part in range(PARTS):
                cpu = statistics.median(one[part][0] for one in rounds[tree])
                size = statistics.median(one[part][1] for one in rounds[tree])
                if tree == ROOT and streams == 400:
                    worst = max(worst, size)
                cells.append(f"{cpu:8.1f} {size:6.2f} kB")
            name = f"{streams} streams" + ("" if tree == ROOT else ", before")
            print(f"{name:24}" + "".join(f"{cell:>18}" for cell in cells), flush=True)
    print(f"load of the machine: {os.getloadavg()[0]:.1f}")
    if worst:
        print(f"at 400 streams at most {worst:.2f} kB per record (goal {GOAL:g})")
    return int(worst > GOAL)


if __name__ == "__main__":
    raise SystemExit(main())
