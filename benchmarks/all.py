"""Every benchmark, one after the other, and last the table of goals; about half an hour.

One that does not end within ``--limit`` seconds is stopped, with all that it started, and the next
one begins. Names choose some of them; ``goals`` alone is the table.

    python benchmarks/all.py
    python benchmarks/all.py start encode
    python benchmarks/all.py goals
    python benchmarks/all.py goals-native
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ORDER = [
    "start",
    "decode",
    "encode",
    "http_reader",
    "tls",
    "token_path",
    "budget",
    "token_cost",
    "closed_loop",
    "crowd",
    "gateway",
    "memory",
    "short",
    "growth",
    "fan_out",
    "log",
    "large_run",
    "threads",
    "many_runs",
    "churn",
    "takeovers",
    "workers",
    "goals",
    "goals-native",
]
#: Those that are another one with options.
WITH_OPTIONS = {"goals-native": ["goals", "--native"]}
#: Seconds of one benchmark. `goals.py` begins nothing after 900 and ends soon after that.
LIMIT = 1200.0


def run(path: Path, options: Sequence[str], seconds: float) -> str:
    """Run one; what went wrong, or nothing."""
    child = subprocess.Popen([sys.executable, str(path), *options], start_new_session=True)
    try:
        code = child.wait(seconds)
    except subprocess.TimeoutExpired:
        _stop(child)
        return f"stopped after {seconds:g} s"
    except BaseException:
        _stop(child)
        raise
    return f"failed with exit code {code}" if code else ""


def _stop(child: subprocess.Popen[bytes]) -> None:
    """End a benchmark and its servers, which are of its session's group."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(10)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=ORDER, metavar="NAME")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds of one benchmark")
    given = parser.parse_args()
    problems = []
    for name in given.names:
        program, *options = WITH_OPTIONS.get(name, [name])
        path = Path(__file__).with_name(f"{program}.py")
        print(f"== {name}", flush=True)
        problem = run(path, options, given.limit) if path.exists() else "there is no such benchmark"
        if problem:
            problems.append(f"{name}: {problem}")
            print(problems[-1])
        print(flush=True)
    if len(problems) > 1 and len(given.names) > 2:
        print("\n".join(problems))
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
