"""A typed client, generated from the OpenAPI document with `openapi-typescript`: it type-checks,
its mistakes do not, and it is what the server understands."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from support.node import HERE, need_client
from support.server import Site
from support.server import site as serving

pytestmark = pytest.mark.node

CLIENT = (HERE / "openapi_client.ts").read_text("utf-8")
#: What a compiler must find, each in a program that is right otherwise.
MISTAKES = [
    ("prompt: 'scenario:text'", "prompt: 5", "number"),
    ("limit: 5", "limit: 'five'", "number"),
    ("'/v1/runs/{run}/info'", "'/v1/run/{run}/info'", "/v1/run/"),
    ("event.outcome", "event.outcomes", "outcomes"),
    ("snapshot.data.state", "snapshot.data.stat", "stat"),
    ("model: 'demo', ", "", "model"),
]


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with serving() as running:
        yield running


@pytest.fixture(scope="module")
def folder(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Path:
    need_client()
    here = tmp_path_factory.mktemp("client")
    (here / "node_modules").symlink_to(HERE / "node_modules")
    (here / "package.json").write_text('{"type": "module"}')
    answer = httpx.get(site.url + "/openapi.json?version=3.1")
    (here / "openapi.json").write_bytes(answer.content)
    made = run(here, "openapi-typescript", "openapi.json", "-o", "api.d.ts")
    assert made.returncode == 0, made.stdout + made.stderr
    options = {
        "target": "ES2022",
        "module": "ESNext",
        "moduleResolution": "Bundler",
        "lib": ["ES2022", "DOM", "DOM.Iterable"],
        "strict": True,
        "skipLibCheck": False,
        "types": [],
    }
    (here / "tsconfig.json").write_text(
        json.dumps({"compilerOptions": options, "include": ["*.ts"]})
    )
    (here / "node.d.ts").write_text("declare const process: { argv: string[] }\n")
    return here


def run(folder: Path, tool: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    home = HERE.parents[1] if tool == "tsc" else HERE  # the compiler of our own packages
    command = [str(home / "node_modules" / ".bin" / tool), *arguments]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=110, check=False
    )


def test_it_type_checks_and_the_server_understands_it(site: Site, folder: Path) -> None:
    (folder / "client.ts").write_text(CLIENT)
    built = run(folder, "tsc", "-p", ".")
    assert built.returncode == 0, built.stdout
    done = subprocess.run(
        ["node", "client.js", site.url],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "same": True,
        "end": "complete",
        "state": "complete",
        "threads": ["typed"],
        "code": "unknown_run",
        "answer": True,
    }


def test_mistakes_are_found_by_the_types(folder: Path) -> None:
    for number, (right, wrong, _) in enumerate(MISTAKES):
        assert CLIENT.count(right) == 1, right
        (folder / f"mistake{number}.ts").write_text(CLIENT.replace(right, wrong))
    built = run(folder, "tsc", "-p", ".", "--noEmit")
    assert built.returncode != 0
    for number, (_, _, word) in enumerate(MISTAKES):
        lines = [ln for ln in built.stdout.splitlines() if ln.startswith(f"mistake{number}.ts")]
        assert lines, built.stdout
        assert any(word in line for line in lines), lines
