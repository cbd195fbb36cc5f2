"""The long fault run: ``python -m tests.faults --kills 1000 --seed 1 --store sqlite``.

First the sweep: a worker is hit after every record of a run, in every way. Then the lease as it is
by default. Then kills at random, by the seed: of conversations in which two devices speak, of
shared ones, whose members come and go, of runs under budgets, and of runs under load.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]


@contextmanager
def store_of(kind: str, folder: str) -> Iterator[tuple[str, Callable[[], None] | None]]:
    if kind == "redis":
        from support.redis import redis_server

        with redis_server("--appendfsync", "always") as server:
            yield server.url, server.restart
    elif kind == "postgres":
        from support.postgres import postgres_server

        with postgres_server(fast=False) as database:
            yield database.url, database.restart
    else:
        yield f"sqlite://{folder}/log.db", None


def sweep(options: argparse.Namespace) -> list[str]:
    from faults.sweep import AGENT, GRAPH, MODES, OTHER_ENDS, Sweep

    broken: list[str] = []
    agents = [AGENT] * options.agents + [GRAPH] * options.graphs
    for prompt in ("scenario:sweep", *agents, *OTHER_ENDS):
        modes = MODES[:4] if prompt in OTHER_ENDS else MODES
        with (
            tempfile.TemporaryDirectory(prefix="tokenwire-faults-") as folder,
            store_of(options.store, folder) as (url, _),
        ):
            report = asyncio.run(Sweep(url, Path(folder), modes=modes, prompt=prompt).run())
        broken += [f"{prompt}: {text}" for text in report.broken]
        if not options.json:
            print(f"{prompt}: {len(report.kinds)} records, {report.seconds:.0f} s")
            for mode, points, hits, ends in report.table():
                told = ", ".join(f"{name} {count}" for name, count in sorted(ends.items()))
                print(f"  {mode:<7} {points} runs, {hits} workers hit: {told}", flush=True)
    return broken


def lease(options: argparse.Namespace) -> list[str]:
    from faults.lease import lease_run

    with (
        tempfile.TemporaryDirectory(prefix="tokenwire-faults-") as folder,
        store_of(options.store, folder) as (url, _),
    ):
        report = asyncio.run(lease_run(url, Path(folder)))
    if not options.json:
        took = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in report.takeovers.items())
        print(f"lease of 15 s, until another worker goes on: {took}", flush=True)
    return [f"lease: {text}" for text in report.broken]


def kills(options: argparse.Namespace) -> dict[str, Any]:
    from faults.harness import Harness

    with (
        tempfile.TemporaryDirectory(prefix="tokenwire-faults-") as folder,
        store_of(options.store, folder) as (url, restart),
    ):
        made = Harness(
            url,
            Path(folder),
            seed=options.seed,
            kills=options.kills,
            workers=options.workers,
            restart_store=restart,
            agents=options.agents,
            graphs=options.graphs,
        )
        return asdict(asyncio.run(made.run()))


def threads(options: argparse.Namespace, what: str) -> list[str]:
    from faults.members import MembersHarness
    from faults.threads import ThreadHarness

    with (
        tempfile.TemporaryDirectory(prefix="tokenwire-faults-") as folder,
        store_of(options.store, folder) as (url, restart),
    ):
        is_shared = what == "shared conversations"
        harness = MembersHarness if is_shared else ThreadHarness
        made = harness(
            url,
            Path(folder),
            seed=options.seed,
            kills=options.member_kills if is_shared else options.thread_kills,
            workers=options.workers,
            restart_store=restart,
        )
        report = asdict(asyncio.run(made.run()))
    broken: list[str] = report.pop("broken")
    if not options.json:
        text = ", ".join(f"{name} {value}" for name, value in report.items())
        print(f"{what}: {text}", flush=True)
    return [f"{what}: {text}" for text in broken]


def budgets(options: argparse.Namespace) -> list[str]:
    from faults.budgets import BudgetHarness

    with (
        tempfile.TemporaryDirectory(prefix="tokenwire-faults-") as folder,
        store_of(options.store, folder) as (url, restart),
    ):
        made = BudgetHarness(
            url,
            Path(folder),
            seed=options.seed,
            kills=options.budget_kills,
            workers=options.workers,
            restart_store=restart,
        )
        report = asdict(asyncio.run(made.run()))
    broken: list[str] = report.pop("broken")
    if not options.json:
        print("budgets: " + ", ".join(f"{k} {v}" for k, v in report.items()), flush=True)
    return [f"budgets: {text}" for text in broken]


def choose_python(options: argparse.Namespace) -> None:
    """Where LangGraph is: in this process, or in the environment of frameworks, with which the
    harness then starts again. Says so when it is in neither."""
    from faults import graph

    python = ROOT / ".venv-agents" / "bin" / "python"
    reason = graph.unavailable()
    options.graphs = options.agents and reason is None
    if not options.agents or reason is None:
        return
    if options.store != "sqlite":
        reason = f"its environment has no client of {options.store}"
    elif (python.parent.parent / ".installed").exists() and Path(sys.executable) != python:
        os.execv(python, [str(python), "-m", "tests.faults", *sys.argv[1:]])
    else:
        reason += "; 'make .venv-agents/.installed' installs it"
    print(f"WITHOUT LangGraph: {reason}", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=1000, help="0: none")
    parser.add_argument("--thread-kills", type=int, default=300, help="of conversations; 0: none")
    parser.add_argument("--member-kills", type=int, default=200, help="of shared ones; 0: none")
    parser.add_argument("--budget-kills", type=int, default=100, help="under budgets; 0: none")
    parser.add_argument("--no-sweep", action="store_true", help="the kills only")
    parser.add_argument(
        "--agents",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="agents beside models, with a graph of LangGraph where it is installed",
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--store", choices=["sqlite", "redis", "postgres"], default="sqlite")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    choose_python(options)
    broken = [] if options.no_sweep else [*sweep(options), *lease(options)]
    broken += threads(options, "conversations") if options.thread_kills else []
    broken += threads(options, "shared conversations") if options.member_kills else []
    broken += budgets(options) if options.budget_kills else []
    report = kills(options) if options.kills else {}
    broken += report.pop("broken", [])
    if options.json:
        print(json.dumps({**report, "broken": broken}))
    else:
        for name, value in {**report, "broken": len(broken)}.items():
            print(f"{name:<12} {value}")
        for line in broken[:50]:
            print("BROKEN", line)
    return bool(broken)


if __name__ == "__main__":
    sys.exit(main())
