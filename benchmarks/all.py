"""Every benchmark, one after the other; about thirteen minutes. Names choose some of them.

python benchmarks/all.py
python benchmarks/all.py start encode
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ORDER = [
    "start",
    "decode",
    "encode",
    "http_reader",
    "token_path",
    "token_cost",
    "closed_loop",
    "gateway",
    "short",
    "growth",
    "fan_out",
    "log",
    "large_run",
    "threads",
    "many_runs",
    "churn",
    "takeovers",
]


def main() -> int:
    failed = 0
    for name in sys.argv[1:] or ORDER:
        path = Path(__file__).with_name(f"{name}.py")
        if not path.exists():
            print(f"== {name}: missing", flush=True)
            failed += 1
            continue
        print(f"== {name}", flush=True)
        failed += subprocess.run([sys.executable, str(path)]).returncode != 0
        print(flush=True)
    return min(failed, 1)


if __name__ == "__main__":
    raise SystemExit(main())
