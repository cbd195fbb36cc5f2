"""The application of examples/app as a process of its own, on one port and one folder of data."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from support.free_ports import free_port

ROOT = Path(__file__).parents[2]
APP = ROOT / "examples" / "app"


class AppServer:
    """`start` after `kill` goes on with the same data at the same address."""

    def __init__(self, data: Path, **env: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._env = {
            **os.environ,
            "PYTHONPATH": str(ROOT / "src"),
            "APP_DATA": str(data),
            **env,
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> AppServer:
        command = [sys.executable, str(APP / "app.py"), str(self.port)]
        self.process = subprocess.Popen(command, env=self._env)
        deadline = time.monotonic() + 60
        while True:
            try:
                assert httpx.get(f"{self.url}/session", timeout=60).status_code == 401
                return self
            except httpx.TransportError:
                assert self.process.poll() is None, "the application did not start"
                assert time.monotonic() < deadline, "the application never listened"
                time.sleep(0.1)

    def kill(self) -> None:
        self.stop(signal.SIGKILL)

    def stop(self, how: int = signal.SIGTERM) -> int | None:
        if self.process is None:
            return None
        self.process.send_signal(how)
        return self.process.wait(60)

    @contextmanager
    def sign_up(self, name: str) -> Iterator[httpx.Client]:
        """A client that is signed in."""
        with httpx.Client(base_url=self.url, timeout=60) as client:
            credentials = {"name": name, "password": f"password of {name}"}
            assert client.post("/people", json=credentials).status_code == 201
            yield client
