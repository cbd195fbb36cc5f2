"""Real redis-server processes for tests: on free ports, in temporary folders, ended by their id."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator

import pytest

__all__ = ["RedisServer", "need_redis", "redis_server"]

BINARY = shutil.which("redis-server") or shutil.which("valkey-server")


def need_redis() -> None:
    """Skip the test, saying why, when there is no server to start."""
    if BINARY is None:
        pytest.skip("redis-server (or valkey-server) is not installed")


def free_port() -> int:
    """A port that is free, and whose cluster port (10,000 above) exists."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port < 55_000:
            return port


class RedisServer:
    """One server. `start` waits until it answers; `kill` is kill -9."""

    def __init__(self, *options: str, port: int | None = None, folder: str | None = None) -> None:
        self.port = port or free_port()
        self._own = folder is None
        self.folder = folder or tempfile.mkdtemp(prefix="tokenwire-redis-")
        self.options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> RedisServer:
        assert BINARY is not None
        command = [BINARY, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", self.folder]
        command += ["--save", "", "--appendonly", "yes", "--appendfsync", "everysec"]
        command += ["--maxmemory-policy", "noeviction", *self.options]
        return self._launch(command)

    def start_sentinel(self, settings: str) -> RedisServer:
        """A Sentinel with the settings file ``settings``, which it rewrites."""
        assert BINARY is not None
        command = [BINARY, settings, "--sentinel", "--port", str(self.port)]
        return self._launch([*command, "--bind", "127.0.0.1", "--dir", self.folder])

    def _launch(self, command: list[str]) -> RedisServer:
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        end = time.monotonic() + 20
        while not any(word in self.ask("PING") for word in (b"PONG", b"NOAUTH")):
            assert self._process.poll() is None, "redis-server ended at once"
            assert time.monotonic() < end, "redis-server does not answer"
            time.sleep(0.02)
        return self

    def ask(self, *words: str) -> bytes:
        """One command over a plain socket; b"" when nobody answers."""
        request = f"*{len(words)}\r\n" + "".join(f"${len(w)}\r\n{w}\r\n" for w in words)
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
                connection.sendall(request.encode())
                return connection.recv(65536)
        except OSError:
            return b""

    def signal(self, number: int) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.signal(signal.SIGKILL)
            self._process.wait(10)
            self._process = None

    def restart(self) -> None:
        """kill -9, and start again on the same port and files."""
        self.kill()
        self.start()

    def stop(self) -> None:
        self.kill()
        if self._own:
            shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def redis_server(*options: str) -> Iterator[RedisServer]:
    need_redis()
    server = RedisServer(*options)
    try:
        yield server.start()
    finally:
        server.stop()
