"""Every benchmark, one after the other; about six minutes. Options go to each as they are.

    python benchmarks/all.py
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ORDER = ["start", "decode", "encode", "http_reader", "gateway", "fan_out", "log"]


def main() -> int:
    failed = 0
    for name in ORDER:
        path = Path(__file__).with_name(f"{name}.py")
        if not path.exists():
            print(f"== {name}: missing", flush=True)
            failed += 1
            continue
        print(f"== {name}", flush=True)
        failed += subprocess.run([sys.executable, str(path), *sys.argv[1:]]).returncode != 0
        print(flush=True)
    return min(failed, 1)


if __name__ == "__main__":
    raise SystemExit(main())
