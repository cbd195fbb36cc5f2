"""Makes the documentation site: pages, both references, search, plain Markdown beside each page.

    make docs                                   # into dist/docs/VERSION/
    make docs ARGS="--address https://host/"    # with absolute addresses in llms.txt
    python -m http.server -d dist/docs          # to look at it

Always true: the sources are copied and never changed; a broken link, a missing anchor, a warning of
the generator or anything that a page would fetch from elsewhere ends it with exit code 1, and the
site of before stays as it was; the folders of other versions are kept.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import python_reference
import site_check
import site_pages
import site_twins
import typescript_reference

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent


class BuildError(Exception):
    """The site cannot be made; its text says why."""


def configuration(version: str, python: list[Any], typescript: list[Any]) -> dict[str, Any]:
    """zensical.toml with the pages of the references in its navigation."""
    settings = tomllib.loads((HERE / "zensical.toml").read_text(encoding="utf-8"))
    project = settings["project"]
    project["extra"]["release"] = version
    for section in project["nav"]:
        for item in section.get("Reference", []):
            if "Python" in item:
                item["Python"] = [{page.module: f"reference/python/{page.file}"} for page in python]
            if "TypeScript" in item:
                item["TypeScript"] = [
                    {entry.name: f"reference/typescript/{entry.file}"} for entry in typescript
                ]
        if "Reference" in section:
            section["Reference"] = [item for item in section["Reference"] if any(item.values())]
    return settings


def generate(work: Path) -> Path:
    """Runs the generator in its strict mode; the site that it made. Raises `BuildError`."""
    site = work / "site"
    command = [str(Path(sys.executable).with_name("zensical")), "build", "--strict", "--clean"]
    command += ["--config-file", str(work / "zensical.toml")]
    done = subprocess.run(command, check=False, cwd=work, capture_output=True, text=True)
    if done.returncode or not (site / "index.html").is_file():
        words = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)
        raise BuildError(f"zensical failed:\n{words}")
    return site


def toml(value: Any) -> str:
    """A value of the configuration as TOML, of which JSON is nearly a part."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def publish(site: Path, out: Path, version: str) -> None:
    """The site in the folder of its version, and what is above the versions."""
    target = out / version
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(site, target)
    found = [path.parent.name for path in out.glob("*/index.html")]
    ordered = sorted(
        found, key=lambda name: [int(n) for n in re.findall(r"\d+", name)], reverse=True
    )
    rows = [
        {"version": name, "title": name, "aliases": ["latest"] if name == ordered[0] else []}
        for name in ordered
    ]
    (out / "versions.json").write_text(json.dumps(rows, indent=2) + "\n")
    newest = '<!doctype html><meta charset="utf-8"><title>tokenwire</title>'
    newest += f'<meta http-equiv="refresh" content="0; url={ordered[0]}/">'
    newest += f'<a href="{ordered[0]}/">tokenwire {ordered[0]}</a>\n'
    (out / "index.html").write_text(newest)


def build(out: Path, work: Path, address: str, *, with_typescript: bool) -> Path:
    """Returns the folder of the version. Raises `BuildError` and `site_pages.LinkError`."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    shutil.rmtree(work, ignore_errors=True)
    source = work / "source"
    reference = source / "reference"
    staged = site_pages.Stage(ROOT, source)
    staged.write()
    shutil.copyfile(HERE / "site.css", source / "site.css")
    python = python_reference.write(ROOT / "src", reference / "python")
    typescript: list[typescript_reference.Entry] = []
    if with_typescript:
        typescript = typescript_reference.write(ROOT, work / "typescript", reference / "typescript")
    settings = configuration(version, python, typescript)
    project = settings["project"]
    project["nav"] = site_twins.with_all(project["nav"], staged.pages())
    lines = [f"{json.dumps(key)} = {toml(value)}" for key, value in project.items()]
    (work / "zensical.toml").write_text("\n".join(["[project]", *lines]) + "\n")
    site = generate(work)
    base = f"{address.rstrip('/')}/{version}/" if address else ""
    words = project["site_name"], project["site_description"]
    site_twins.write(site, *words, project["nav"], source, base)
    wrong = site_check.problems(site)
    if wrong:
        raise BuildError("\n".join([*wrong, f"{len(wrong)} problems"]))
    publish(site, out, version)
    return out / version


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the documentation site")
    parser.add_argument("--out", type=Path, default=ROOT / "dist" / "docs")
    parser.add_argument("--address", default="", help="where the site will be, for llms.txt")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "docs")
    parser.add_argument("--no-typescript", action="store_true", help="leave that reference out")
    options = parser.parse_args()
    typescript = not options.no_typescript
    try:
        target = build(options.out, options.work, options.address, with_typescript=typescript)
    except (BuildError, site_pages.LinkError, subprocess.CalledProcessError) as error:
        print(error, file=sys.stderr)
        return 1
    pages = len(list(target.rglob("index.html")))
    print(f"{pages} pages in {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
