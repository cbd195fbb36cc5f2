"""``tokenwire doctor``: what tokenwire needs on this machine, and what optional packages add; with
an address, what stands between here and a server.

Always true: it changes nothing, and without an address it sends nothing; it prints whether a key is
set, never the key; exit code 1 means that something necessary is broken.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
import os
import platform
import shutil
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import tokenwire
from tokenwire.cli.finding import Finding, exit_code, print_finding
from tokenwire.errors import ConfigError, TokenwireError

__all__ = ["run_doctor"]

_REQUIRED: Final = (
    "httptools",
    "anyio",
    "jiter",
    "msgspec",
    "pydantic",
    "rich",
    "starlette",
    "typer",
    "uvicorn",
    "websockets",
)
#: Module -> (extra, what it adds).
_OPTIONAL: Final = {
    "tokenwire_speedups": ("speedups", "the express lane in C"),
    "hiredis": ("redis", "runs shared by several servers"),
    "asyncpg": ("postgres", "runs in a PostgreSQL database"),
    "xllamacpp": ("local", "models from a .gguf file"),
    "mcp": ("mcp", "tools of MCP servers"),
    "jwt": ("jwt", "JSON Web Tokens of an issuer"),
    "prometheus_client": ("metrics", "metrics"),
    "genai_prices": ("prices", "what models cost"),
    "opentelemetry": ("otel", "traces"),
    "openai": ("sdk", "the clients of OpenAI, Anthropic and Google, without a server"),
    "cryptography": ("webhooks", "signatures of Durable Streams' webhooks"),
    "google.auth": ("vertex", "Google's own credentials"),
    "botocore": ("bedrock", "AWS's own credentials"),
    "azure.identity": ("azure", "Azure's own credentials"),
}
#: Modules inside of a package that several distributions share.
_DISTRIBUTIONS: Final = {"google.auth": "google-auth", "azure.identity": "azure-identity"}


def run_doctor(*, store: str | None, as_json: bool) -> int:
    """Run every check. Returns 1 if something necessary is broken."""
    findings: list[Finding] = []
    for finding in _checks(store):
        findings.append(finding)
        if not as_json:
            print_finding(finding)
    return exit_code(findings, as_json=as_json)


def _checks(store: str | None) -> Iterator[Finding]:
    yield from _python()
    # Made once: it reads the metadata of all that is installed.
    distributions = importlib.metadata.packages_distributions()
    for name in _REQUIRED:
        yield _package(name, distributions)
    for name, (extra, feature) in _OPTIONAL.items():
        advice = f"pip install 'tokenwire[{extra}]' adds {feature}"
        yield _package(name, distributions, advice)
    yield _lane()
    yield from _providers()
    yield _page()
    yield _port("127.0.0.1", 8765)
    yield _try("demo model", _demo)
    if store is not None:
        yield _try("store", lambda: _store(store))


def _python() -> Iterator[Finding]:
    version = platform.python_version()
    good = sys.version_info >= (3, 11)
    yield Finding("tokenwire", "ok", tokenwire.__version__)
    yield Finding(
        "python",
        "ok" if good else "broken",
        f"{version} on {platform.system()} {platform.machine()}",
        "" if good else "use Python 3.11 or newer",
    )


def _package(name: str, distributions: Mapping[str, list[str]], advice: str = "") -> Finding:
    try:
        importlib.import_module(name)
    except ImportError as error:
        if advice:
            return Finding(name, "missing", "", advice)
        return Finding(name, "broken", str(error), f"pip install {name}")
    except Exception as error:  # an installed package that does not load
        return Finding(name, "broken", f"{type(error).__name__}: {error}", "reinstall it")
    distribution = _DISTRIBUTIONS.get(name) or distributions.get(name, [name])[0]
    try:
        return Finding(name, "ok", importlib.metadata.version(distribution))
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, "ok")


def _lane() -> Finding:
    from tokenwire.run.call.lane import twin

    if twin.received is not None:
        return Finding("express lane", "ok", f"native {twin.version}")
    detail = f"pure Python; tokenwire-speedups: {twin.reason}"
    return Finding("express lane", "note" if twin.advice else "ok", detail, twin.advice)


def _providers() -> Iterator[Finding]:
    from tokenwire.providers.registry import Registry

    infos = [info for info in Registry().models() if info.name != "demo"]
    ready = [info.name for info in infos if info.configured]
    yield Finding(
        "providers",
        "ok" if ready else "missing",
        ", ".join(ready) or f"none of {len(infos)} has a key",
        "" if ready else "'tokenwire models' lists what to set; 'demo' needs no key",
    )


def _page() -> Finding:
    static = Path(tokenwire.__file__).parent / "server" / "static"
    if (static / "index.html").is_file():
        return Finding("chat page", "ok", "built")
    node = shutil.which("node")
    advice = "run 'make setup'" if node else "install Node, then run 'make setup'"
    return Finding("chat page", "missing", "not built; the API works without it", advice)


def _port(host: str, port: int) -> Finding:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return Finding(
                f"port {port}", "missing", error.strerror or "", "serve with --port another"
            )
    return Finding(f"port {port}", "ok", "free")


def _try(what: str, check: Callable[[], Any]) -> Finding:
    try:
        return Finding(what, "ok", asyncio.run(check()))
    except TokenwireError as error:
        return Finding(what, "broken", error.message)
    except Exception as error:  # the other checks still run
        return Finding(what, "broken", f"{type(error).__name__}: {error}")


async def _demo() -> str:
    async with tokenwire.stream("Hello", model="demo") as run:
        result = await run.result()
    first = result.timings.first_token_seconds or 0.0
    return f"works; first token after {first:.2f} s"


async def _store(url: str) -> str:
    from tokenwire.log.open import file_of

    store, file = tokenwire.open_store(url, upgrade=False), file_of(url)
    if file is not None and not (file.exists() and file.stat().st_size):
        folder = next(folder for folder in file.absolute().parents if folder.exists())
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            raise ConfigError(f"cannot create {file}: {folder} is not a writable folder")
        return "no store yet; the server creates it"
    await store.start()
    try:
        return f"opens; accepted records survive: {store.durability}"
    finally:
        await store.close()
