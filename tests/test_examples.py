"""Every example is short, runs, and says what it is meant to say."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from support.free_ports import free_port

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
#: Example -> what its output must hold.
SAYS = {
    "agent": "-- complete",
    "agent_claude": "-- complete",
    "agent_google_adk": "-- complete",
    "agent_langgraph": "-- complete",
    "agent_llama_index": "-- complete",
    "agent_openai": "-- complete",
    "agent_pydantic_ai": "-- complete",
    "agent_strands": "-- complete",
    "backpressure": "90 numbers",
    "cancel": "outcome: cancelled",
    "events": "[finish: stop]",
    "failures": "[unknown_model, retryable: False]",
    "fallback": "answered by demo",
    "hello": "Hello",
    "hello_sync": "Hello",
    "inspect_recording": "'Hello' stop",
    "observe": "ended: complete",
    "rag": "Read on: ",
    "remote": "-- complete",
    "resume": "90",
    "result": "finish reason: stop",
    "sdk_stream": "Hello",
    "structured": "checked: name='Paris' people=2100000 rivers=['Seine', 'Bièvre']",
    "test_your_app": "ok",
    "tool_approval": "result: report.txt is gone",
    "tool_mcp": "the server answered 42",
    "tool_progress": "67% reading page 3",
    "tools": "<- {'city': 'Paris'",
    "with_tools": "'name': 'get_weather', 'arguments': '{\"city\":\"Paris\"}'",
}
#: Example -> a package that it needs.
#: Frameworks have an environment of their own, in which tests/agents runs their examples.
NEEDS = {
    "agent_pydantic_ai": "pydantic_ai",
    "agent_openai": "agents.run",
    "agent_langgraph": "langgraph",
    "agent_claude": "claude_agent_sdk",
    "agent_google_adk": "google.adk.agents",
    "agent_llama_index": "llama_index.core",
    "agent_strands": "strands",
    "tool_mcp": "mcp",
    "sdk_stream": "openai",
    "fastapi_app": "fastapi",
}
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONIOENCODING": "utf-8"}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_an_example_is_short_and_opens_with_its_idea(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) < 60
    assert lines[0].startswith('"""')


def test_every_example_is_run_here() -> None:
    assert {p.stem for p in EXAMPLES} == {*SAYS, "fastapi_app"}


@pytest.mark.parametrize("name", SAYS)
def test_an_example_runs(name: str) -> None:
    if name in NEEDS:
        pytest.importorskip(NEEDS[name], reason=f"'{NEEDS[name]}' is not installed")
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / f"{name}.py")],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=100,
        env=ENVIRONMENT,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert SAYS[name] in done.stdout
    assert "Traceback" not in done.stderr


def test_the_fastapi_app_streams_and_is_read_again() -> None:
    pytest.importorskip("fastapi", reason="'fastapi' is not installed")
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "examples" / "fastapi_app.py"), str(port)], env=ENVIRONMENT
    )
    try:
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/chat?prompt=Hello", method="POST"
        )
        first = _open_when_ready(request)
        body = first.read().decode()
        assert "text-delta" in body
        run = first.headers["tokenwire-run"]
        again = urllib.request.urlopen(f"http://127.0.0.1:{port}/chat/{run}", timeout=60)
        assert again.read().decode().count("text-delta") == body.count("text-delta")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _open_when_ready(request: urllib.request.Request):
    deadline = time.monotonic() + 60
    while True:
        try:
            return urllib.request.urlopen(request, timeout=60)
        except urllib.error.HTTPError:
            raise
        except OSError:
            assert time.monotonic() < deadline, "the app never listened"
            time.sleep(0.1)
