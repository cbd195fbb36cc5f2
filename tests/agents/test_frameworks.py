"""The adapters with the real frameworks, which have an environment of their own (`make test`)."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
#: Frameworks by the environment that holds them.
FRAMEWORKS = {
    "pydantic_ai": ".venv-agents",
    "openai_agents": ".venv-agents",
    "langgraph": ".venv-agents",
    "langgraph_cuts": ".venv-agents",
    "langgraph_client": ".venv-agents",
    "langgraph_kills": ".venv-agents",
    "waiting": ".venv-agents",
    "strands": ".venv-agents-more",
    "google_adk": ".venv-agents-more",
    "claude": ".venv-agents-more",
    "llama_index": ".venv-agents-more",
}
EXAMPLES = {
    "agent_pydantic_ai": ".venv-agents",
    "agent_openai": ".venv-agents",
    "agent_langgraph": ".venv-agents",
    "agent_claude": ".venv-agents-more",
    "agent_google_adk": ".venv-agents-more",
    "agent_llama_index": ".venv-agents-more",
    "agent_strands": ".venv-agents-more",
}


def python_of(environment: str) -> Path:
    if not (ROOT / environment / ".installed").exists():
        pytest.skip(f"the environment of frameworks is not there (make {environment}/.installed)")
    return ROOT / environment / "bin" / "python"


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_example_runs(example: str) -> None:
    done = subprocess.run(
        [python_of(EXAMPLES[example]), ROOT / "examples" / f"{example}.py"],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("-- complete")


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.timeout(240)
def test_with_the_real_package(framework: str) -> None:
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])
    options = [
        "-o",
        "addopts=",
        "-p",
        "no:cacheprovider",
        "-W",
        "ignore",
        "--confcutdir",
        "tests/agents",
    ]
    done = subprocess.run(
        [
            python_of(FRAMEWORKS[framework]),
            "-m",
            "pytest",
            *options,
            f"tests/agents/real/test_real_{framework}.py",
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
