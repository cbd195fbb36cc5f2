"""A package that adds agents by the entry-point group ``tokenwire.agents``, really installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = Path(__file__).parent / "plugin"

SCRIPT = """
import asyncio, logging
logging.basicConfig(level="ERROR", format="%(message)s")
import tokenwire
from oracle_agents import Oracle
from tokenwire.agents.load import agents_of

async def main():
    async with tokenwire.stream("Why?", model=Oracle("42")) as run:
        print((await run.result()).text)
    print(list(agents_of([Oracle("1")])))
    try:
        agents_of([object()])
    except tokenwire.TokenwireError as error:
        print(type(error).__name__)

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target"]
    command = [sys.executable, "-m", "pip", "install", *options, str(target), str(PLUGIN)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return target


def test_its_objects_are_agents_and_a_broken_one_is_named(installed: Path) -> None:
    path = os.pathsep.join([str(ROOT / "src"), str(installed)])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["42, to 'Why?'", "['oracle']", "ConfigError"]
    for words in ("'a_missing'", "ModuleNotFoundError", "'b_broken'", "the plugin is at fault"):
        assert words in done.stderr
    assert "'c_wrong'" in done.stderr
    assert "returned str" in done.stderr
