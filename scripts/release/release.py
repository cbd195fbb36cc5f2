"""Makes what a release consists of, from the last commit, and tries it where nothing else is.

    make release                                  # into dist/release/
    make release ARGS="--address https://host/project/blob/v0.1.0/"

Always true: it is made from a commit and not from a working tree; nothing is uploaded; what fails
a check leaves no checksums behind, so that a folder with SHA256SUMS has passed all of them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path

import trials

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / ".venv-release" / "bin"
CHECKS = Path(__file__).parent / "node_modules" / ".bin"
PACKAGES = ("client", "react")
#: Module in C -> the number that names what it does, and the file of the Python with the same one.
TWINS = {
    "tokenwire_speedups.c": ("TWIN", "src/tokenwire/run/call/native.py"),
    "tokenwire_pages.c": ("PAGES", "src/tokenwire/log/sqlite/pages.py"),
}
_CLONE = re.compile(r"<!-- clone -->\n.*?<!-- release\n(.*?)-->\n", re.DOTALL)
_COMMENT = re.compile(r"<!--.*?-->\n?", re.DOTALL)
_IMAGE = re.compile(r"!\[([^\]]+)\]\((?!https?://)([^)]+)\)\n*")
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?://|#)([^)]+)\)")


class ReleaseError(Exception):
    """The release cannot be made; its text says why."""


def run(*command: str | Path, cwd: Path = ROOT, env: dict[str, str] | None = None) -> str:
    """Standard output. Raises `ReleaseError` with all that a failing command wrote."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words,
        check=False,
        cwd=cwd,
        capture_output=True,
        text=True,
        env={**os.environ, **(env or {})},
    )
    if done.returncode:
        raise ReleaseError(f"{' '.join(words)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def version_of(source: Path) -> str:
    """The version, which is the same in Python and npm. Raises `ReleaseError`."""
    python = tomllib.loads((source / "pyproject.toml").read_text())["project"]["version"]
    for name in PACKAGES:
        npm = json.loads((source / "packages" / name / "package.json").read_text())["version"]
        if npm != python:
            raise ReleaseError(f"packages/{name} has version {npm}, pyproject.toml {python}")
    check_twin(source, python)
    return python


def check_twin(source: Path, version: str) -> None:
    """What is in C is that of this version, in all places that say so, and its extra takes no
    other. Raises `ReleaseError`."""
    project = tomllib.loads((source / "pyproject.toml").read_text())["project"]
    twin = tomllib.loads((source / "speedups" / "pyproject.toml").read_text())["project"]
    extra = project["optional-dependencies"].get("speedups")
    places = {
        "speedups/pyproject.toml": (twin["version"], version),
        "the extra 'speedups'": (extra, [f"{twin['name']}=={version}"]),
    }
    for file in sorted((source / "speedups").glob("*.c")):
        number, python = TWINS[file.name]
        native, beside = file.read_text(), (source / python).read_text()
        versions = re.findall(r'^#define VERSION "(.+)"$', native, re.M)
        numbers = re.findall(rf"^#define {number} (\d+)$", native, re.M)
        expected = re.findall(rf"^{number} = (\d+)$", beside, re.M)
        places[f"VERSION of {file.name}"] = (versions, [version])
        places[f"{number} of {file.name}"] = (numbers, expected)
    for place, (found, expected) in places.items():
        if found != expected or not found:
            raise ReleaseError(f"{place}: {found}, expected {expected}")


def readme_of_release(text: str, address: str | None) -> str:
    """README as it is read beside a released package: its first command installs that, and its
    links and pictures are absolute below ``address``; where there is none, links are text and
    pictures are left out. Raises `ReleaseError`."""
    text, count = _CLONE.subn(lambda match: match[1], text)
    if count != 1:
        raise ReleaseError("README.md needs one block <!-- clone -->...<!-- release ... -->")
    text = _COMMENT.sub("", text)
    if address is None:
        return _LINK.sub(r"\1", _IMAGE.sub("", text))
    base = address.rstrip("/")
    raw = "?raw=true" if "/blob/" in base else ""  # such an address is a page about the file
    text = _IMAGE.sub(lambda match: f"![{match[1]}]({base}/{match[2]}{raw})\n\n", text)
    return _LINK.sub(lambda match: f"[{match[1]}]({base}/{match[2]})", text)


def export(target: Path, address: str | None) -> dict[str, str]:
    """The last commit with the page built into it; the environment of a reproducible build."""
    target.mkdir()
    archive = target.with_suffix(".tar")
    run("git", "archive", "--output", archive, "HEAD")
    run("tar", "-xf", archive, "-C", target)
    archive.unlink()
    readme = target / "README.md"
    readme.write_text(readme_of_release(readme.read_text(), address))
    run("npm", "ci", "--loglevel=error", "--no-fund", "--no-audit", cwd=target)
    run("npm", "run", "--silent", "build", cwd=target)
    return {"SOURCE_DATE_EPOCH": run("git", "log", "-1", "--format=%ct").strip()}


def build(source: Path, out: Path, env: dict[str, str]) -> tuple[list[Path], list[Path]]:
    """The wheels, tokenwire's and the one of the express lane in C for this platform, each made
    from the source distribution beside it; and the npm packages."""
    wheels = []
    for name, folder in (("tokenwire", "."), ("tokenwire_speedups", "speedups")):
        make = [TOOLS / "python", "-m", "build", "--no-isolation", "--outdir", out, folder]
        run(*make, cwd=source, env=env)
        (wheel,) = out.glob(f"{name}-*.whl")
        wheels.append(named(wheel, out, env))
    tarballs = []
    for name in PACKAGES:
        pack = ["npm", "pack", "--json", "--ignore-scripts", "--pack-destination", out]
        said = json.loads(run(*pack, cwd=source / "packages" / name))
        (each,) = said if isinstance(said, list) else said.values()
        tarballs.append(out / each["filename"])
    return wheels, tarballs


def named(wheel: Path, out: Path, env: dict[str, str]) -> Path:
    """The wheel under the name that says on which Linux it runs; an index takes no other."""
    if "-linux_" not in wheel.name:
        return wheel
    path = {"PATH": f"{TOOLS}{os.pathsep}{os.environ['PATH']}"}
    run(TOOLS / "auditwheel", "repair", "--wheel-dir", out, wheel, env={**env, **path})
    wheel.unlink()
    (wheel,) = out.glob(f"{wheel.name.partition('-linux_')[0]}-*.whl")
    return wheel


def strays(names: list[str]) -> list[str]:
    """Of the files of a source distribution, those that nobody needs to build and test it."""
    tops = {"src", "tests", "docs", "examples", "conformance"}
    tops |= {"README.md", "CHANGELOG.md", "LICENSE", "PKG-INFO", "pyproject.toml", ".gitignore"}
    found = []
    for name in names:
        _, _, inside = name.partition("/")
        parts = inside.split("/")
        if parts[0] not in tops or "node_modules" in parts or inside == "docs/film.webp":
            found.append(inside)
    return found


def check(wheels: list[Path], tarballs: list[Path]) -> None:
    """What the indexes and the type checkers of users would find. Raises `ReleaseError`."""
    sdist, twin = sorted(wheels[0].parent.glob("*.tar.gz"))
    with tarfile.open(sdist) as archive:
        unwanted = strays(archive.getnames())
    if unwanted:
        raise ReleaseError(f"{sdist.name} holds what it should not: {', '.join(unwanted[:5])}")
    run(TOOLS / "twine", "check", "--strict", *wheels, sdist, twin)
    for tarball in tarballs:
        run(CHECKS / "publint", "run", "--strict", tarball)
        # Only `import` is promised: the packages are ECMAScript modules.
        run(CHECKS / "attw", "--profile", "esm-only", tarball)


def describe(source: Path, out: Path) -> None:
    """What is inside: an SBOM (CycloneDX) of the server's pins, and one of each npm package."""
    bom = [TOOLS / "cyclonedx-py", "requirements", "--of", "JSON", "--output-reproducible"]
    run(*bom, "-o", out / "tokenwire.cdx.json", source / "requirements" / "run.txt")
    # npm describes no workspace whose root has no version.
    run("npm", "pkg", "set", f"version={version_of(source)}", cwd=source)
    sbom = ["npm", "sbom", "--sbom-format", "cyclonedx", "--omit", "dev"]
    for name in PACKAGES:
        text = run(*sbom, "--workspace", f"packages/{name}", cwd=source)
        (out / f"tokenwire-{name}.cdx.json").write_text(text)


def open_points(source: Path, version: str, tag: str | None) -> list[str]:
    """What keeps the commit from being a release under its tag."""
    points = []
    if tag is not None and tag != f"v{version}":
        points.append(f"the tag is {tag}, and the version {version}")
    if not re.search(
        rf"^## {re.escape(version)}(\s|$)", (source / "CHANGELOG.md").read_text(), re.M
    ):
        points.append(f"CHANGELOG.md has no part '## {version}'")
    return points


def checksums(out: Path) -> None:
    """``SHA256SUMS``, as ``sha256sum --check`` reads it."""
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
        for path in sorted(out.iterdir())
    ]
    (out / "SHA256SUMS").write_text("".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description="Make and check a release; nothing is uploaded.")
    parser.add_argument("--address", help="Address below which README's links lead.")
    parser.add_argument(
        "--tag", help="Tag of the commit, v and the version; without it a rehearsal."
    )
    parser.add_argument("--out", type=Path, default=ROOT / "dist" / "release", help="The folder.")
    arguments = parser.parse_args()
    if run("git", "status", "--porcelain", "--untracked-files=no").strip():
        print("release: what is not committed is not in it", file=sys.stderr)
    shutil.rmtree(arguments.out, ignore_errors=True)
    arguments.out.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="release-") as folder:
        source = Path(folder) / "source"
        print("release: the page and the packages of the last commit")
        env = export(source, arguments.address)
        version = version_of(source)
        for why in open_points(source, version, arguments.tag):
            if arguments.tag:
                raise ReleaseError(why)
            print(f"release: {why}; a tag would be refused", file=sys.stderr)
        wheels, tarballs = build(source, arguments.out, env)
        print(f"release: checks of {', '.join(path.name for path in (*wheels, *tarballs))}")
        check(wheels, tarballs)
        describe(source, arguments.out)
        print("release: the packages alone, in empty environments")
        trials.python(wheels, Path(folder) / "python", source / "requirements" / "run.txt", run)
        trials.node(tarballs, Path(folder) / "node", run)
    checksums(arguments.out)
    print(f"release: tokenwire {version} in {arguments.out}")


if __name__ == "__main__":
    try:
        main()
    except ReleaseError as error:
        sys.exit(f"release: {error}")
