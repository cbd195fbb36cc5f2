"""``tokenwire serve`` as a process of its own, for tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["Process", "command", "environment", "refused", "serving"]

ROOT = Path(__file__).parents[2]


def command(*flags: str) -> list[str]:
    return [sys.executable, "-m", "tokenwire", "serve", *flags]


def environment(**more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("TOKENWIRE_")}
    ours = {"PYTHONPATH": str(ROOT / "src"), "PYTHONUNBUFFERED": "1", "TOKENWIRE_MAX_LAG": "0"}
    return {**kept, **ours, **more}


class Process:
    def __init__(self, folder: Path, *flags: str, **env: str) -> None:
        # A file, not a pipe: one that nobody reads would stop a server which says much.
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115
        self.process = subprocess.Popen(
            command("--port", "0", *flags),
            cwd=folder,
            env=environment(XDG_DATA_HOME=str(folder), **env),
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        assert self.process.stdout is not None
        self.lines: list[str] = []
        for line in self.process.stdout:
            self.lines.append(line)
            if "Ctrl-C" in line:
                break
        if not self.lines:
            self.process.communicate()
            raise AssertionError(self.errors())
        self.url = self.lines[0].split(" at ")[1].split()[0].rstrip("/")

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, float, str]:
        started = time.monotonic()
        self.process.send_signal(number)
        self.process.communicate(timeout=60)
        return self.process.returncode, time.monotonic() - started, self.errors()

    def errors(self) -> str:
        """What it wrote to standard error."""
        self._errors.seek(0)
        return self._errors.read()

    def close(self) -> None:
        """End it, if it runs, and wait for it."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        self._errors.close()


@contextmanager
def serving(folder: Path, *flags: str, **env: str) -> Iterator[Process]:
    process = Process(folder, *flags, **env)
    try:
        yield process
    finally:
        process.close()


def refused(folder: Path, *flags: str, **env: str) -> str:
    """What is said by a start that must be refused: one line, exit code 2."""
    done = subprocess.run(
        command(*flags),
        cwd=folder,
        env=environment(XDG_DATA_HOME=str(folder), **env),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2, done
    assert done.stdout == ""
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]
