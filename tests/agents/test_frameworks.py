"""The adapters with the real frameworks, which have an environment of their own (`make test`)."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-agents" / "bin" / "python"
FRAMEWORKS = ["pydantic_ai", "openai_agents", "langgraph"]


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.timeout(240)
def test_with_the_real_package(framework: str) -> None:
    if not (ROOT / ".venv-agents" / ".installed").exists():
        pytest.skip("the frameworks' own environment is not there (make .venv-agents/.installed)")
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
        [PYTHON, "-m", "pytest", *options, f"tests/agents/real/test_real_{framework}.py"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
