"""Tests of what waits for a person: coroutines on an event loop of their own, on all stores."""

from __future__ import annotations

import asyncio
import inspect
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.postgres import postgres_server
from support.redis import redis_server

_REDIS = pytest.param("redis", marks=pytest.mark.redis)
_POSTGRES = pytest.param("postgres", marks=pytest.mark.postgres)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: Any) -> bool | None:
    """Run a coroutine test."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    arguments = {name: pyfuncitem.funcargs[name] for name in names}

    async def main() -> None:
        async with asyncio.timeout(120):
            await pyfuncitem.obj(**arguments)

    asyncio.run(main())
    return True


@pytest.fixture(scope="session")
def redis() -> Iterator[str]:
    with redis_server() as server:
        yield server.url


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    with postgres_server() as server:
        yield server.url


def _url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "memory":
        return "memory:"
    if request.param == "redis":
        return f"{request.getfixturevalue('redis')}?prefix=w{secrets.token_hex(4)}"
    if request.param == "postgres":
        return f"{request.getfixturevalue('postgres')}?schema=w{secrets.token_hex(4)}"
    return f"sqlite:{tmp_path / 'runs.db'}"


@pytest.fixture(params=["memory", "sqlite", _REDIS])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of each store."""
    return _url(request, tmp_path)


@pytest.fixture(params=["sqlite", _REDIS])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of each store that several processes see."""
    return _url(request, tmp_path)


@pytest.fixture(params=["memory", "sqlite", _REDIS, _POSTGRES])
def every_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """`url`, with PostgreSQL: for what hangs on the store itself."""
    return _url(request, tmp_path)


@pytest.fixture(params=["sqlite", _REDIS, _POSTGRES])
def every_shared_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """`shared`, with PostgreSQL."""
    return _url(request, tmp_path)
