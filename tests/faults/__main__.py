"""The long fault run: ``python -m tests.faults --kills 1000 --seed 1 --store sqlite``."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]


def main() -> int:
    from faults.fault_harness import Harness, Report
    from redis_support import redis_server

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--store", choices=["sqlite", "redis"], default="sqlite")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    def harness(url: str, folder: str, restart: Callable[[], None] | None = None) -> Report:
        made = Harness(
            url,
            Path(folder),
            seed=options.seed,
            kills=options.kills,
            workers=options.workers,
            restart_store=restart,
        )
        return asyncio.run(made.run())

    with tempfile.TemporaryDirectory(prefix="tokenwire-faults-") as folder:
        if options.store == "redis":
            with redis_server() as server:
                report = harness(server.url, folder, server.restart)
        else:
            report = harness(f"sqlite://{folder}/log.db", folder)
    if options.json:
        print(json.dumps(asdict(report)))
    else:
        for name, value in asdict(report).items():
            print(f"{name:<12} {len(report.broken) if name == 'broken' else value}")
        for line in report.broken[:50]:
            print("BROKEN", line)
    return bool(report.broken)


if __name__ == "__main__":
    sys.exit(main())
