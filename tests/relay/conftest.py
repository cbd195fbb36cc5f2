"""The stores that conversations are kept in: one of each kind."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.postgres import PostgresServer, postgres_server
from support.redis import BINARIES, redis_server
from tokenwire.log.base import Store
from tokenwire.log.open import open_store

REDIS = [pytest.param(name, marks=pytest.mark.redis) for name in list(BINARIES)[:1]]


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """One server for all cases of a session."""
    with redis_server(name=next(iter(BINARIES))) as server:
        yield server.url


@pytest.fixture(params=["memory", "sqlite", *REDIS])
def new_log(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Store]:
    """Opens the same store each time it is called (memory: a new one)."""
    if request.param == "memory":
        return lambda: open_store("memory:")
    if request.param == "sqlite":
        return lambda: open_store(f"sqlite://{tmp_path}/log.db")
    url = request.getfixturevalue("redis_url")
    prefix = f"t{secrets.token_hex(4)}"
    return lambda: open_store(f"{url}?prefix={prefix}")


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One server for all cases of a session."""
    with postgres_server() as server:
        yield server


@pytest.fixture(
    params=["memory", "sqlite", *REDIS, pytest.param("postgres", marks=pytest.mark.postgres)]
)
def every_log(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Store]:
    """`new_log`, with PostgreSQL: for what hangs on the store itself."""
    if request.param == "postgres":
        url = f"{request.getfixturevalue('postgres').url}?schema=t{secrets.token_hex(4)}"
        return lambda: open_store(url)
    if request.param == "memory":
        return lambda: open_store("memory:")
    if request.param == "sqlite":
        return lambda: open_store(f"sqlite://{tmp_path}/log.db")
    url = f"{request.getfixturevalue('redis_url')}?prefix=t{secrets.token_hex(4)}"
    return lambda: open_store(url)
