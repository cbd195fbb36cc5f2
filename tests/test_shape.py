"""The numbers that the house keeps: sizes, cycles, and the time of an import."""

from __future__ import annotations

import ast
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "src" / "tokenwire").rglob("*.py"))

MOST_LINES = 500
MOST_FILES = 15
MOST_FUNCTION_LINES = 60


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT / "src")))
def test_a_file_is_one_room_of_human_size(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MOST_LINES
    tree = ast.parse(text)
    if text.strip():
        assert ast.get_docstring(tree), "a module opens with one line of purpose"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = (node.end_lineno - body[0].lineno + 1) if body else 0
            assert lines <= MOST_FUNCTION_LINES, f"{node.name} has {lines} lines"


def test_a_folder_is_one_floor_of_human_size():
    """At most fifteen source files; a data file beside them, such as a script of a store, does not
    count."""
    folders = {path.parent for path in SOURCES}
    sizes = {folder: len(list(folder.glob("*.py"))) for folder in folders}
    assert len(sizes) > 20
    assert not {str(folder): size for folder, size in sizes.items() if size > MOST_FILES}


def test_the_page_of_design_names_files_that_exist():
    text = (ROOT / "docs" / "design.md").read_text("utf-8")
    named = set(re.findall(r"`((?:[\w-]+/)+[\w.-]+\.(?:py|ts|tsx|lua|md))`", text))
    assert len(named) > 30
    roots = [ROOT, ROOT / "src" / "tokenwire", ROOT / "packages" / "client" / "src"]
    missing = [name for name in named if not any((root / name).exists() for root in roots)]
    assert not missing


def test_the_page_of_design_names_what_its_files_define():
    """After a file, in brackets: ``run_response``, ``Records.read``, ``approve`` of a class."""
    text = (ROOT / "docs" / "design.md").read_text("utf-8")
    named = re.findall(r"`((?:[\w-]+/)+\w+\.py)` \(`([\w.]+)`\)", text)
    assert len(named) > 10
    for file, name in named:
        source = (ROOT / "src" / "tokenwire" / file).read_text("utf-8")
        for part in name.split("."):
            assert re.search(rf"(?:def|class) {part}\b|^{part}\b", source, re.MULTILINE), file


def test_the_page_of_design_draws_the_layers_and_the_tree_as_they_are():
    text = (ROOT / "docs" / "design.md").read_text("utf-8")
    contract = (ROOT / ".importlinter").read_text("utf-8")
    block = contract.split("layers =\n")[1].split("ignore_imports")[0]
    layers = [line.split("|") for line in block.split("\n") if line.strip()]
    section = text.split("## Layers")[1].split("## ")[0]
    drawn = [re.split(r"\s{2,}", line)[0].split("|") for line in _block(section)]
    assert [[n.strip() for n in row] for row in drawn] == [[n.strip() for n in r] for r in layers]
    folders = {
        line.split("/")[0].strip()
        for line in _block(text.split("## The tree")[1])
        if line.startswith("  ") and "/" in line
    }
    package = ROOT / "src" / "tokenwire"
    assert folders == {path.parent.name for path in package.glob("*/__init__.py")}


def _block(text: str) -> list[str]:
    return text.split("```\n")[1].splitlines()


def _imports(path: Path) -> set[Path]:
    """The files of the package that a file names in an import, wherever the import stands: for
    types only, or inside of a function."""
    named = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tokenwire"):
            module = node.module or ""
            named |= {module, *(f"{module}.{name.name}" for name in node.names)}
        elif isinstance(node, ast.Import):
            named |= {name.name for name in node.names}
    files = {ROOT / "src" / (name.replace(".", "/") + ".py") for name in named}
    return {file for file in files if file.exists() and file != path}


def test_no_file_needs_itself():
    """No circle of imports, not even of those that only a type checker follows."""
    above = {path: _imports(path) for path in SOURCES}
    assert sum(map(len, above.values())) > 1000, "the imports were not found"
    while free := [path for path, needed in above.items() if not needed & above.keys()]:
        for path in free:
            del above[path]
    assert not above, f"a circle among {sorted(str(p.relative_to(ROOT)) for p in above)}"


def _has(module: str, name: str) -> bool:
    if hasattr(importlib.import_module(module), name):
        return True
    try:
        importlib.import_module(f"{module}.{name}")
    except ModuleNotFoundError:
        return False
    return True


def test_what_is_run_by_hand_finds_what_it_imports():
    """Benchmarks, the long fault run and scripts are started by no test; names change all the
    same."""
    asked = {
        (path.relative_to(ROOT), node.module, name.name)
        for folder in ("benchmarks", "examples", "scripts", "tests")
        for path in (ROOT / folder).rglob("*.py")
        if "node_modules" not in path.parts
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tokenwire")
        for name in node.names
    }
    assert len(asked) > 1000
    missing = [f"{path}: {module}.{name}" for path, module, name in asked if not _has(module, name)]
    assert not missing


def test_the_package_imports_little():
    """What `import tokenwire` may load: nothing of the network, the server or a provider."""
    code = "import sys, tokenwire; print(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(ROOT / "src")},
    )
    loaded = set(done.stdout.split())
    assert not loaded & {"aiohttp", "asyncio", "pydantic", "starlette", "typer", "uvicorn", "redis"}


def test_no_loose_ends_and_no_addresses_of_registries():
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        for word in ("TODO", "FIXME", "XXX"):
            assert word not in text, f"{path.name} has {word}"
    for name in ("requirements/dev.txt", "requirements/run.txt"):
        assert "://" not in (ROOT / name).read_text(encoding="utf-8"), f"{name} names an address"
    for folder in (ROOT, ROOT / "tests" / "node", ROOT / "benchmarks" / "node"):
        path = folder / "package-lock.json"
        packages = json.loads(path.read_text(encoding="utf-8"))["packages"]
        assert len(packages) > 5
        for name, package in packages.items():
            assert "://" not in package.get("resolved", ""), f"{path.name}: {name}"
