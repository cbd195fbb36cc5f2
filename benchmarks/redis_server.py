"""What an append costs redis-server itself: CPU microseconds per record, by appends in one call.

A store appends one record each of so many streams per turn of the event loop, which is one call of
its script, or a transaction of pushes beside it. "commands" is Redis' own account of the two
(``INFO commandstats``), "process" the CPU time of the server process, system calls included.
``--against`` takes turns with another checkout.

    python benchmarks/redis_server.py --against ../before
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tests"))

from harness import cpu_seconds  # noqa: E402

from support.redis import RedisServer, redis_server  # noqa: E402
from tokenwire.log.open import open_store  # noqa: E402

GROUPS = (1, 4, 40)
APPENDS = 12_000
RECORD = b'0123456789abcdef{"type":"text-delta","part":0,"text":" word","seq":123,"t":4567}'


async def appends(url: str, group: int) -> None:
    """Append `APPENDS` records, ``group`` of as many streams at a time."""
    log: Any = open_store(url)
    await log.start()
    names = [f"bench-{group}-{number}" for number in range(group)]
    for name in names:
        await log.create(name, owner="bench", lease=600)
        log.subscribe(name, int, appends=False)  # as whoever owns a run does
    for offset in range(1, APPENDS // group + 1):
        work = (log.append(name, epoch=1, first=offset, records=[RECORD]) for name in names)
        for outcome in await asyncio.gather(*work):
            assert outcome.status == "ok"
    await log.close()


def counts(server: RedisServer) -> tuple[float, float]:
    """CPU microseconds so far: of scripts and transactions, and of the process."""
    stats = server.ask("INFO", "commandstats").decode()
    used = re.findall(r"cmdstat_(?:evalsha|exec):calls=\d+,usec=(\d+)", stats)
    assert server._process is not None
    return float(sum(map(int, used))), cpu_seconds(server._process.pid) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--against", type=Path, help="another checkout of this project")
    parser.add_argument("--append", nargs=2, metavar=("URL", "GROUP"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.append:
        asyncio.run(appends(given.append[0], int(given.append[1])))
        return
    trees = {"this": ROOT} | ({"other": given.against.resolve()} if given.against else {})
    print("appends per call  checkout  commands us  process us")
    for group in GROUPS:
        costs: dict[str, list[tuple[float, float]]] = {name: [] for name in trees}
        for _ in range(given.rounds):
            for name, tree in trees.items():
                with redis_server() as server:
                    script, process = counts(server)
                    command = [sys.executable, __file__, "--append", server.url, str(group)]
                    env = {**os.environ, "PYTHONPATH": str(tree / "src")}
                    subprocess.run(command, check=True, env=env)
                    after, process_after = counts(server)
                pair = (after - script) / APPENDS, (process_after - process) / APPENDS
                costs[name].append(pair)
        for name, pairs in costs.items():
            script, process = map(statistics.median, zip(*pairs, strict=True))
            print(f"{group:16d}  {name:8s}  {script:11.2f}  {process:10.2f}", flush=True)


if __name__ == "__main__":
    main()
