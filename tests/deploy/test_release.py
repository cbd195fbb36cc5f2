"""What a release is made from: one version, README's two beginnings, links that lead somewhere."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tokenwire import __version__
from tokenwire.log.sqlite.pages import PAGES
from tokenwire.run.call.native import TWIN

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "release" / "release.py"
README = (ROOT / "README.md").read_text()
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.fixture(scope="module")
def release() -> Iterator[Any]:
    sys.path.insert(0, str(SCRIPT.parent))
    try:
        spec = importlib.util.spec_from_file_location("tokenwire_release", SCRIPT)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(SCRIPT.parent))


def test_readme_of_a_release_begins_with_an_install(release: Any) -> None:
    text = release.readme_of_release(README, "https://host.example/blob/v1/")
    assert "pip install tokenwire && tokenwire serve" in text
    assert "make serve" not in text
    assert "<!-- " not in text
    assert "](https://host.example/blob/v1/docs/quickstart.md)" in text
    assert "](docs/" not in text


def test_without_an_address_links_are_text(release: Any) -> None:
    text = release.readme_of_release(README, None)
    assert "](docs/" not in text
    assert "Quickstart" in text


def test_a_readme_without_its_block_is_no_release(release: Any) -> None:
    with pytest.raises(release.ReleaseError, match="needs one block"):
        release.readme_of_release("# tokenwire\n", None)


def test_the_packages_have_one_version(release: Any, tmp_path: Path) -> None:
    assert release.version_of(ROOT)
    for name in ("pyproject.toml", *(f"packages/{each}/package.json" for each in release.PACKAGES)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    other = tmp_path / "packages" / "react" / "package.json"
    other.write_text(other.read_text().replace('"version": "', '"version": "9.', 1))
    with pytest.raises(release.ReleaseError, match="packages/react has version 9"):
        release.version_of(tmp_path)


@pytest.mark.parametrize(
    ("file", "before", "after", "place"),
    [
        ("speedups/pyproject.toml", f'"{__version__}"', '"0.0.9"', "speedups/pyproject.toml"),
        ("speedups/tokenwire_speedups.c", f'"{__version__}"', '"0.0.9"', "VERSION"),
        ("speedups/tokenwire_speedups.c", f"TWIN {TWIN}\n", f"TWIN {TWIN + 1}\n", "TWIN"),
        ("src/tokenwire/run/call/native.py", f"TWIN = {TWIN}\n", "TWIN = 0\n", "TWIN"),
        ("src/tokenwire/run/call/native.py", f"TWIN = {TWIN}\n", "", "TWIN"),
        ("speedups/tokenwire_pages.c", f'"{__version__}"', '"0.0.9"', "VERSION"),
        ("speedups/tokenwire_pages.c", f"PAGES {PAGES}\n", "PAGES 0\n", "PAGES"),
        ("pyproject.toml", f"speedups=={__version__}", f"speedups>={__version__}", "the extra"),
    ],
)
def test_the_lane_in_c_is_that_of_the_release(
    release: Any, tmp_path: Path, file: str, before: str, after: str, place: str
) -> None:
    sources = [f"speedups/{name}" for name in release.TWINS]
    beside = [path for _, path in release.TWINS.values()]
    for name in ("pyproject.toml", "speedups/pyproject.toml", *sources, *beside):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    release.check_twin(tmp_path, __version__)
    text = (tmp_path / file).read_text()
    assert text.count(before) == 1
    (tmp_path / file).write_text(text.replace(before, after))
    with pytest.raises(release.ReleaseError, match=place):
        release.check_twin(tmp_path, __version__)


def test_a_tag_needs_its_version_and_its_changes(release: Any, tmp_path: Path) -> None:
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## 1.2.3 - 2030-01-01\n")
    assert release.open_points(tmp_path, "1.2.3", "v1.2.3") == []
    assert release.open_points(tmp_path, "1.2.3", "v1.2.4")
    assert release.open_points(tmp_path, "1.2", None)
    assert release.open_points(tmp_path, "1.2.33", "v1.2.33")


def test_checksums_are_those_of_sha256sum(release: Any, tmp_path: Path) -> None:
    (tmp_path / "one.whl").write_bytes(b"1")
    (tmp_path / "two.tgz").write_bytes(b"2")
    release.checksums(tmp_path)
    check = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    assert (
        subprocess.run(check, cwd=tmp_path, capture_output=True, text=True).stdout.count("OK") == 2
    )
    (tmp_path / "two.tgz").write_bytes(b"3")
    assert subprocess.run(check, cwd=tmp_path, capture_output=True).returncode


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_have_few_rights_and_call_what_exists(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    targets = (ROOT / "Makefile").read_text()
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    for step in steps:
        command = step.get("run", "")
        if command.startswith("make "):
            assert f"\n{command.split()[1]}:" in targets
    assert any("make" in step.get("run", "") for step in steps)


def test_only_the_publishing_jobs_can_name_themselves() -> None:
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())["jobs"]
    with_identity = {name for name, job in jobs.items() if "id-token" in job.get("permissions", {})}
    assert with_identity == {"python", "npm"}
    for name in with_identity:
        needs = jobs[name]["needs"]
        assert set([needs] if isinstance(needs, str) else needs) <= {"build", "speedups"}
        assert "build" in needs
        assert jobs[name]["environment"] == "release"
        assert not any("secrets." in str(step) for step in jobs[name]["steps"])


def test_pictures_of_readme_are_absolute_or_left_out(release: Any) -> None:
    text = "# x\n\n<!-- clone -->\n<!-- release\nhi\n-->\n\n![a\nb](docs/a.webp)\n\nend [c](d.md)\n"
    assert "a.webp" not in release.readme_of_release(text, None)
    assert release.readme_of_release(text, None).endswith("end c\n")
    on_host = release.readme_of_release(text, "https://host.example/p/blob/v1/")
    assert "![a\nb](https://host.example/p/blob/v1/docs/a.webp?raw=true)" in on_host
    plain = release.readme_of_release(text, "https://host.example/v1")
    assert "![a\nb](https://host.example/v1/docs/a.webp)" in plain
    assert "<!--" not in on_host


def test_a_source_distribution_with_more_than_its_sources_is_no_release(release: Any) -> None:
    good = ["x-1/src/a.py", "x-1/tests/node/package.json", "x-1/PKG-INFO", "x-1/docs/why.md"]
    assert release.strays(good) == []
    bad = [
        "node_modules/a/README.md",
        "tests/node_modules/a.js",
        "docs/film.webp",
        "scripts/docs/a",
    ]
    assert release.strays([*good, *(f"x-1/{name}" for name in bad)]) == bad
