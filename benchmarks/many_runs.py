"""Does a run that has ended cost anything? A SQLite file fresh, and after many runs.

Two processes share the file, as two workers do: the second one appends all the time. Measured are
the start of a run, an append, the attaching of a reader (a description and a first page), the list
of a conversation, the probe of `/healthz`, the figures of `stats`, and the look of a sweep that
finds nothing due. Medians; the goal is a ratio of at most 1.5. The file is filled by SQL, without
records beyond one a run. About a minute; a million runs take some minutes and 500 MB of disk.

    python benchmarks/many_runs.py [--runs 50000] [--rounds 200]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src")]

from tokenwire.log.sqlite.pages import cut, insert  # noqa: E402
from tokenwire.log.sqlite.schema import checksum  # noqa: E402
from tokenwire.log.sqlite.store import SQLiteStore  # noqa: E402

GOAL = 1.5
RECORD = b'0123456789abcdef{"type":"text-delta","part":0,"text":" a few words of"}'


async def other(path: str, seconds: float) -> None:
    """The second process: appends to a run of its own, a thousand times a second at most."""
    store = SQLiteStore(path)
    await store.start()
    name = f"other-{os.getpid()}"
    await store.create(name, owner="other", lease=600)
    end, number = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        number += 1
        await store.append(name, epoch=1, first=number, records=[RECORD])
        await asyncio.sleep(0.001)
    await store.append(name, epoch=1, first=number + 1, records=[], close="complete")
    await store.close()


def fill(path: str, runs: int, thread_size: int = 5) -> None:
    """Ended runs with one record each, five to a conversation."""
    connection = sqlite3.connect(path)
    start = connection.execute("SELECT coalesce(max(sid), 0) + 1 FROM stream").fetchone()[0]
    now = time.time()
    for first in range(start, start + runs, 10_000):
        sids = range(first, min(first + 10_000, start + runs))
        connection.executemany(
            "INSERT INTO stream (sid, name, epoch, owner, lease_until, closed, closed_at, created,"
            " thread, meta, meta_check) VALUES (?, ?, 1, 'me', 0, NULL, NULL, ?, ?, x'', 0)",
            ((sid, f"full-{sid}", now, f"thread-{sid // thread_size}") for sid in sids),
        )
        connection.execute(
            "UPDATE stream SET closed = 'complete', closed_at = ? WHERE sid >= ? AND sid <= ?",
            (now, sids[0], sids[-1]),
        )
        pages = [
            page for sid in sids for page in cut(sid, 1, 0, [RECORD], [checksum(RECORD, sid, 1)])
        ]
        insert(connection, pages)
        for name, change in (
            ("logs", len(sids)),
            ("ended_records", len(sids)),
            ("ended_bytes", len(sids) * len(RECORD)),
        ):
            connection.execute(
                "INSERT INTO counter VALUES (?1, ?2)"
                " ON CONFLICT (name) DO UPDATE SET value = value + ?2",
                (name, change),
            )
        connection.commit()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


class Bench:
    """A store on a file, beside another process that appends to it."""

    def __init__(self, path: str) -> None:
        self.store = SQLiteStore(path)
        self.times: dict[str, list[float]] = {}
        self._path, self._at, self._made = path, 0, 0

    async def start(self) -> None:
        words = [sys.executable, __file__, "--other", self._path, "--seconds", "600"]
        self._process = subprocess.Popen(words)
        await self.store.start()
        for number in range(5):
            await self.store.create(f"mine-{number}", owner="me", thread="mine", lease=600)

    async def close(self) -> None:
        await self.store.close()
        self._process.terminate()
        self._process.wait(20)

    def work(self) -> dict[str, Callable[[], Awaitable[object]]]:
        store = self.store

        async def append() -> None:
            self._at += 1
            await store.append("mine-0", epoch=1, first=self._at, records=[RECORD])

        async def start() -> None:
            self._made += 1
            name = f"new-{self._made}"
            await store.create(name, owner="me", thread=name, key=name, lease=600)

        async def attach() -> None:
            await store.describe("mine-0")
            await store.read("mine-0", fresh=True, most=16)

        return {
            "append": append,
            "start": start,
            "attach": attach,
            "conversation": lambda: store.thread("mine"),
            "probe": store._try_to_write,
            "stats": store.stats,
            "sweep": lambda: store.due(86_400.0, 200),
        }

    async def round(self, name: str, count: int) -> None:
        act = self.work()[name]
        for _ in range(count):
            start = time.perf_counter()
            await act()
            self.times.setdefault(name, []).append(time.perf_counter() - start)


async def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--other", default="")
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    if options.other:
        await other(options.other, options.seconds)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        fresh, full = Bench(f"{folder}/fresh.db"), Bench(f"{folder}/full.db")
        await full.store.start()  # makes the file
        await full.store.close()
        start = time.perf_counter()
        fill(f"{folder}/full.db", options.runs)
        print(f"filled with {options.runs} runs in {time.perf_counter() - start:.0f} s", flush=True)
        await fresh.start()
        await full.start()
        await asyncio.sleep(1)
        for name in fresh.work():  # in turns, so that the machine's load is on both
            for _ in range(10):
                for bench in (fresh, full):
                    await bench.round(name, options.rounds // 10)
            before, after = (statistics.median(b.times[name]) * 1e6 for b in (fresh, full))
            mark = "" if after <= GOAL * before else "  <-- above the goal"
            print(
                f"{name:14} fresh {before:8.0f} us, after {options.runs} runs {after:8.0f} us:"
                f" {after / before:5.2f} times{mark}",
                flush=True,
            )
        await fresh.close()
        await full.close()
        print(f"load of the machine: {os.getloadavg()[0]:.1f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main()))
