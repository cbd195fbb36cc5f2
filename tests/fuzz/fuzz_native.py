"""What is in C under AddressSanitizer and UndefinedBehaviorSanitizer, with its tests.

    python tests/fuzz/fuzz_native.py [--seconds SECONDS] [PYTEST_ARGUMENTS]

It is built with both into a temporary folder. The first round is every test that compares it with
the Python; further rounds are the generated ones, each with another seed, until the time is over.
Needs GCC and its sanitizers' libraries. The first report of a sanitizer ends it, as the first test
that fails.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = [ROOT / "speedups" / f"tokenwire_{name}.c" for name in ("speedups", "pages")]
LANE = ("_native", "", "_several", "_by_hand", "_dialects", "_wires", "_socket", "_pulled")
TESTS = [f"tests/run/test_lane{name}.py" for name in LANE]
TESTS += ["tests/providers/test_pulled_reads.py"]
TESTS += ["tests/log/test_sqlite_pages.py", "tests/log/test_sqlite_native.py"]
TESTS += ["tests/log/test_spool_native.py", "tests/log/test_sqlite_native_groups.py"]
GENERATED = "any_part or damage or any_columns or any_bytes or however_full"
GENERATED += " or generated or texts_of_any_kind or any_type or any_form or leaked or gaps"
#: How the names of what the sanitizers report begin.
REPORT = "report"
FLAGS = (
    "-g -O1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all"
    " -fPIC -shared -ffp-contract=off -Wall -Wextra -Wno-unused-parameter -Werror"
).split()


def build(folder: Path) -> dict[str, str]:
    """The environment in which Python loads the twins of ``folder``, which are built here."""
    compiler = shutil.which("gcc")
    if compiler is None:
        raise SystemExit("this needs gcc")
    include = f"-I{sysconfig.get_paths()['include']}"
    for source in SOURCES:
        target = folder / f"{source.stem}{sysconfig.get_config_var('EXT_SUFFIX')}"
        subprocess.run([compiler, *FLAGS, include, str(source), "-o", str(target)], check=True)
    named = [compiler, "-print-file-name=libasan.so"]
    library = subprocess.run(named, check=True, capture_output=True, text=True).stdout.strip()
    return {
        **os.environ,
        "PYTHONPATH": str(folder),
        "LD_PRELOAD": library,
        "PYTHONMALLOC": "malloc",  # each object is a block that the sanitizer knows
        # Python keeps what lives as long as the process. What a test's process prints may be lost.
        "ASAN_OPTIONS": f"detect_leaks=0:log_path={folder}/{REPORT}",
        "UBSAN_OPTIONS": f"print_stacktrace=1:log_path={folder}/{REPORT}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    options, more = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        env = build(folder)
        check = "import tokenwire_speedups as t, tokenwire.run.call.lane as l; print(t.__file__)"
        check += "; import tokenwire.log.sqlite.pages as p, tokenwire_pages as q; print(q.__file__)"
        check += "; assert l.twin.received, l.twin; assert p._native is q.read"
        command = [sys.executable, "-c", check]
        loaded = subprocess.run(command, check=True, env=env, capture_output=True, text=True)
        if {Path(line).parent for line in loaded.stdout.split()} != {folder}:
            raise SystemExit(f"another one was loaded: {loaded.stdout}")
        until, rounds = time.monotonic() + options.seconds, 0
        while rounds == 0 or time.monotonic() < until:
            seed = random.randrange(1 << 32)
            choice = ["-k", GENERATED] if rounds else []
            command = [sys.executable, "-m", "pytest", "-x", "-W", "ignore", *TESTS, *choice, *more]
            print(f"round {rounds + 1}, seed {seed}", flush=True)
            done = subprocess.run(
                [*command, f"--hypothesis-seed={seed}"], check=False, cwd=ROOT, env=env
            )
            if done.returncode:
                for report in folder.glob(f"{REPORT}*"):
                    print(report.read_text(), flush=True)
                raise SystemExit(done.returncode)
            rounds += 1


if __name__ == "__main__":
    main()
