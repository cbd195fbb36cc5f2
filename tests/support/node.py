"""Runs real client packages under Node against a real server in this process."""

from __future__ import annotations

import atexit
import json
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from support.server import Simulator
from tokenwire.providers.registry import Registry
from tokenwire.server.app import create_app
from tokenwire.server.settings import Settings
from tokenwire.server.start import ThreadedServer
from tokenwire.simulator.settings import Settings as SimulatorSettings
from tokenwire.tools.registry import ToolSet

HERE = Path(__file__).parents[1] / "node"
#: Ids as providers have them, with slashes, colons and more; nobody listens at the last.
MODELS = ["demo", "ollama:qwen3:0.6b", "http://127.0.0.1:9/v1#meta-llama/llama-3.3-70b:free"]
_INSTALLED = HERE / "node_modules" / ".tokenwire-installed"


def need_node() -> None:
    """Skip without Node; install the packages once."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None:
        pytest.skip("node is not installed")
    lock = (HERE / "package-lock.json").read_text()
    if _INSTALLED.exists() and _INSTALLED.read_text() == lock:
        return
    if npm is None:
        pytest.skip("npm is not installed, and tests/node has no node_modules")
    done = subprocess.run(
        [npm, "ci", "--no-audit", "--no-fund"],
        cwd=HERE,
        capture_output=True,
        text=True,
        timeout=240,
    )
    if done.returncode:
        pytest.skip(f"npm could not install the client packages: {done.stderr[-300:]}")
    _INSTALLED.write_text(lock)


def need_client() -> None:
    """Skip where npm is missing, as the set-up then leaves our own package out; a package that
    could have been built and was not is a failure."""
    need_node()
    built = (HERE.parents[1] / "packages" / "client" / "dist" / "index.js").exists()
    if not built and shutil.which("npm") is None:
        pytest.skip("npm is not installed, so packages/client is not built")
    assert built, "packages/client is not built: run npm run build"


@cache
def _demo() -> Simulator:
    """The demo model of this test process: it streams, and five times as fast as for people."""
    return Simulator(SimulatorSettings(ttft=0.05, rate=200.0, jitter=0.4))


@contextmanager
def serving(
    tools: ToolSet | None = None, agents: Iterable[object] = (), **settings: Any
) -> Iterator[ThreadedServer]:
    """A server on a free port with the demo model."""
    settings.setdefault("model", ["demo"])
    registry = Registry(demo_url=_demo().server.url + "/v1")
    app = create_app(Settings(port=0, **settings), registry=registry, tools=tools, agents=agents)
    with ThreadedServer(app) as server:
        yield server


class Keeper:
    """A Node process that runs one script after the other: to load what they import takes longer
    than most scripts take."""

    def __init__(self) -> None:
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            ["node", "--no-warnings", "keeper.mjs"],
            cwd=HERE,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )
        self.is_open = True

    def run(self, script: str, arguments: tuple[str, ...], env: dict[str, str], most: float) -> Any:
        """What ``script`` printed last, as JSON. One that fails, that ends its process or takes
        longer than ``most`` seconds closes the keeper."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        request = {"script": str(HERE / script), "arguments": arguments, "env": env}
        clock = threading.Timer(most, self._process.kill)
        clock.start()
        try:
            stdin.write(json.dumps(request) + "\n")
            stdin.flush()
            line = stdout.readline()
        finally:
            clock.cancel()
        reply = json.loads(line) if line else {"failed": f"no answer within {most} s"}
        told = reply.get("told")
        said = "" if told and not reply.get("ended") else self.close()
        if not told:
            why = reply.get("failed", "nothing was printed")
            raise AssertionError(f"{script} {arguments}: {why}\n{said}")
        return json.loads(told[-1])

    def close(self) -> str:
        """What it had to say beside its answers."""
        self.is_open = False
        self._process.kill()
        self._process.communicate()
        with self._errors as errors:
            errors.seek(0)
            return errors.read()[-4000:]


_keeper: Keeper | None = None


@atexit.register
def _close_keeper() -> None:
    if _keeper is not None and _keeper.is_open:
        _keeper.close()


def run_node(script: str, *arguments: str, seconds: float = 120, **env: str) -> Any:
    """What ``script`` printed last, as JSON; its output in the failure when it does not end well.
    The scripts of a test process share a Node, which runs each anew."""
    global _keeper
    if _keeper is None or not _keeper.is_open:
        _keeper = Keeper()
    return _keeper.run(script, arguments, env, seconds)


def run_alone(*arguments: str) -> Any:
    """In a Node of its own, as a page's globals are not for other scripts."""
    done = subprocess.run(
        ["node", "--no-warnings", *arguments],
        cwd=HERE,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])
