"""The express lane in C as people install it: built from its source distribution, found by the
extra, and refused by name where it is of another release."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from tokenwire import __version__
from tokenwire.run.call.native import SWITCH

ROOT = Path(__file__).resolve().parents[2]
OTHER = "0.0.9"
HEADERS = Path(sysconfig.get_paths()["include"]) / "Python.h"
needs_compiler = pytest.mark.skipif(
    shutil.which("cc") is None or not HEADERS.exists(), reason="no C compiler, or no Python.h"
)


def call(*words: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name not in (SWITCH, "PYTHONPATH")}
    return subprocess.run(
        [str(word) for word in words],
        capture_output=True,
        text=True,
        timeout=200,
        env={**kept, **env},
        cwd=ROOT / "tests",
        check=False,
    )


def checked(*words: str | Path, **env: str) -> str:
    done = call(*words, **env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(source: Path, out: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return call(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, source, **env)


def copy_of(name: str, target: Path, version: str = __version__) -> Path:
    """The sources of a distribution, with another version if asked for."""
    if name == "tokenwire":
        shutil.copytree(ROOT / "src", target / "src", ignore=shutil.ignore_patterns("__pycache__"))
        for file in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / file, target)
        return target
    generated = shutil.ignore_patterns("build", "*.egg-info")
    shutil.copytree(ROOT / "speedups", target, ignore=generated)
    for file in (target / "pyproject.toml", *target.glob("*.c")):
        text = file.read_text()
        assert text.count(f'"{__version__}"') == 1
        file.write_text(text.replace(f'"{__version__}"', f'"{version}"'))
    return target


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of both distributions, and a speedups of another version in ``other``."""
    folder = tmp_path_factory.mktemp("built")
    for name, version, out in (
        ("tokenwire", __version__, folder),
        ("speedups", __version__, folder),
        ("speedups", OTHER, folder / "other"),
    ):
        done = build(copy_of(name, folder / f"{name}-{version}", version), out)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """A new environment with tokenwire's dependencies and nothing of its own."""
    checked(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv")
    (packages,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    others = tmp_path / "dependencies"
    others.mkdir()
    for entry in Path(sysconfig.get_paths()["purelib"]).iterdir():
        own = "tokenwire" in entry.name or "editable" in entry.name or entry.suffix == ".pth"
        if not own:
            (others / entry.name).symlink_to(entry)
    (packages / "dependencies.pth").write_text(str(others))
    return tmp_path / "venv"


def install(environment: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    pip = (sys.executable, "-m", "pip", "--python", environment / "bin" / "python", "install", "-q")
    options = ("--no-index", "--find-links", folder, "--disable-pip-version-check")
    return call(*pip, *options, *words, PIP_CONFIG_FILE=os.devnull)


def findings(environment: Path, **env: str) -> dict[str, Any]:
    """What ``tokenwire doctor`` of an environment finds; its demo model has answered."""
    text = checked(environment / "bin" / "tokenwire", "doctor", "--json", **env)
    found = {each["what"]: each for each in json.loads(text)}
    assert found["demo model"]["state"] == "ok"
    assert found["tokenwire"]["detail"] == __version__
    return found


@needs_compiler
@pytest.mark.slow
def test_the_extra_installs_it_from_the_files(built: Path, environment: Path) -> None:
    done = install(environment, built, "tokenwire[speedups]")
    assert done.returncode == 0, done.stderr
    found = findings(environment)
    assert found["express lane"] == {
        "what": "express lane",
        "state": "ok",
        "detail": f"native {__version__}",
    }
    assert found["tokenwire_speedups"]["detail"] == __version__
    lane = findings(environment, **{SWITCH: "0"})["express lane"]
    assert (lane["state"], "turns it off" in lane["detail"]) == ("ok", True)


@needs_compiler
@pytest.mark.slow
def test_another_version_is_refused_by_name(built: Path, environment: Path) -> None:
    assert install(environment, built, "tokenwire").returncode == 0
    done = install(environment, built / "other", "tokenwire[speedups]")
    assert done.returncode != 0
    assert f"tokenwire-speedups=={__version__}" in done.stderr
    assert install(environment, built / "other", "tokenwire-speedups").returncode == 0
    lane = findings(environment)["express lane"]
    assert lane["state"] == "note"
    assert lane["detail"].startswith("pure Python; ")
    assert f"{OTHER} is made for another release" in lane["detail"]
    assert lane["advice"].endswith(f"tokenwire-speedups=={__version__}")


@needs_compiler
@pytest.mark.slow
def test_without_a_compiler_there_is_a_source_distribution_and_tokenwire_works(
    built: Path, environment: Path, tmp_path: Path
) -> None:
    done = build(copy_of("speedups", tmp_path / "speedups"), tmp_path / "out", CC="no-compiler")
    assert done.returncode != 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == [
        f"tokenwire_speedups-{__version__}.tar.gz"
    ]
    assert install(environment, built, "tokenwire").returncode == 0
    found = findings(environment)
    assert found["express lane"]["detail"] == "pure Python; tokenwire-speedups: not installed"
    assert found["tokenwire_speedups"]["advice"].startswith("pip install 'tokenwire[speedups]'")


def test_its_license_is_the_projects() -> None:
    assert (ROOT / "speedups" / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
