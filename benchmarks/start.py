"""How long until something happens: importing the package, and a server that answers.

python benchmarks/start.py
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from harness import ROOT, free_port, process

ENV = {**os.environ, "PYTHONPATH": str(ROOT / "src")}


def import_ms() -> float:
    code = "import time; t = time.perf_counter(); import tokenwire; print(time.perf_counter() - t)"
    done = subprocess.run([sys.executable, "-c", code], env=ENV, capture_output=True, check=True)
    return float(done.stdout) * 1000


def ready_ms() -> float:
    port = free_port()
    begin = time.perf_counter()
    command = [sys.executable, "-m", "tokenwire", "serve", "--port", str(port)]
    with process(*command, "--store", "memory:", core=sorted(os.sched_getaffinity(0))[0]):
        while time.perf_counter() - begin < 20:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=1):
                    return (time.perf_counter() - begin) * 1000
            except (urllib.error.URLError, OSError):
                time.sleep(0.01)
    raise SystemExit("the server did not answer within 20 s")


def main() -> None:
    print(f"import tokenwire  {statistics.median(import_ms() for _ in range(7)):8.1f} ms")
    print(f"server ready      {statistics.median(ready_ms() for _ in range(3)):8.1f} ms")


if __name__ == "__main__":
    main()
