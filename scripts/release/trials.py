"""What a user of the packages does first, in environments that hold nothing else."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

__all__ = ["node", "python"]

_ASK = """
import asyncio, tokenwire
async def main():
    async with tokenwire.stream("Hello", model="demo") as run:
        text = "".join([each async for each in run.text()])
        assert run.state.status == "complete" and "Hello" in text, (run.state.status, text)
asyncio.run(main())
"""
_TYPES = """
import { TokenwireClient, type ClientOptions } from "@tokenwire/client";
import * as react from "@tokenwire/react";
export const client: TokenwireClient = new TokenwireClient({} satisfies ClientOptions);
export const hooks: string[] = Object.keys(react);
"""
_RUNS = """
const client = await import("@tokenwire/client");
const react = await import("@tokenwire/react");
if (typeof client.TokenwireClient !== "function" || !Object.keys(react).length) process.exit(1);
"""


def python(wheels: list[Path], folder: Path, pins: Path, run: Callable[..., str]) -> None:
    """The first wheel with its plain dependencies: a script gets an answer, and ``tokenwire serve``
    is a server with its page, which a signal stops with exit code 0. The same with the express lane
    in C, which the extra takes from the second one."""
    run(sys.executable, "-m", "venv", folder)
    pip = [folder / "bin" / "pip", "install", "-q", "--disable-pip-version-check"]
    constraints = folder / "pins.txt"
    lines = pins.read_text().splitlines()
    constraints.write_text("\n".join(line.split(" ")[0] for line in lines if "==" in line))
    run(*pip, "-c", constraints, wheels[0])
    program = folder / "bin" / "tokenwire"
    run(program, "--version", cwd=folder)
    run(folder / "bin" / "python", "-c", _ASK, cwd=folder)
    _serve(program, folder)
    run(*pip, "--no-index", "--find-links", wheels[1].parent, f"{wheels[0]}[speedups]")
    found = json.loads(run(program, "doctor", "--json", cwd=folder))
    (lane,) = (each for each in found if each["what"] == "express lane")
    if not lane["detail"].startswith("native "):
        raise AssertionError(f"{wheels[1].name} is not in use: {lane['detail']}")
    _serve(program, folder)


def _serve(program: Path, folder: Path) -> None:
    command = [program, "serve", "--port", "0", "--store", "memory:"]
    server = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        address = next(
            word for line in server.stdout for word in line.split() if word.startswith("http://")
        )
        page = urllib.request.urlopen(address, timeout=20).read().decode()
        if "assets/" not in page:
            raise AssertionError(f"{address} is not the chat page: {page[:200]}")
        server.send_signal(signal.SIGTERM)
        if server.wait(30) != 0:
            raise AssertionError(f"a stop ended with exit code {server.returncode}")
    finally:
        server.kill()
        server.wait()


def node(tarballs: list[Path], folder: Path, run: Callable[..., str]) -> None:
    """Both packages in a new project: their types hold, and they load."""
    folder.mkdir()
    (folder / "package.json").write_text(json.dumps({"private": True, "type": "module"}))
    install = ["npm", "install", "--silent", "--no-fund", "--no-audit"]
    others = ["react@19", "@types/react@19", "typescript@5", "ai@7"]
    run(*install, *tarballs, *others, cwd=folder)
    (folder / "types.ts").write_text(_TYPES)
    options = ["--strict", "--noEmit", "--module", "nodenext", "--target", "es2022", "--jsx"]
    run("npx", "tsc", *options, "react-jsx", "--skipLibCheck", "false", "types.ts", cwd=folder)
    (folder / "runs.js").write_text(_RUNS)
    run("node", "runs.js", cwd=folder)
