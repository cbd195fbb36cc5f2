"""The stores that the cases of the contract run against."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.postgres import PostgresServer, postgres_server
from support.redis import BINARIES, RedisServer, redis_server
from support.redis_cluster import Cluster, redis_cluster
from tokenwire.log.base import Store
from tokenwire.log.open import open_store

REDIS = [pytest.param(name, marks=pytest.mark.redis) for name in BINARIES]


@pytest.fixture(scope="session")
def shared_servers() -> Iterator[Callable[[str], RedisServer]]:
    """One server of each program for all cases that leave it as it was."""
    with contextlib.ExitStack() as stack:
        servers: dict[str, RedisServer] = {}

        def server(name: str) -> RedisServer:
            if name not in servers:
                servers[name] = stack.enter_context(redis_server(name=name))
            return servers[name]

        yield server


@pytest.fixture(params=REDIS)
def shared_redis(
    request: pytest.FixtureRequest, shared_servers: Callable[[str], RedisServer]
) -> RedisServer:
    return shared_servers(request.param)


@pytest.fixture(params=REDIS)
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A server of this test alone, of each program in turn."""
    with redis_server(name=request.param) as started:
        yield started


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[Cluster]:
    with redis_cluster() as made:
        yield made


@pytest.fixture(scope="session")
def shared_postgres() -> Iterator[PostgresServer]:
    """One server for all cases that take a schema of their own and leave the rest as it was."""
    with postgres_server() as made:
        yield made


@pytest.fixture
def postgres_url(shared_postgres: PostgresServer) -> str:
    """The store of one test: its schema is erased with the server's files."""
    return f"{shared_postgres.url}?schema=t{secrets.token_hex(4)}"


STORES = [
    "memory",
    "sqlite",
    *REDIS,
    pytest.param("cluster", marks=pytest.mark.redis),
    pytest.param("postgres", marks=pytest.mark.postgres),
]


@pytest.fixture(params=STORES)
def new_log(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Store]:
    """Opens the same store each time it is called (memory: a new one)."""
    if request.param == "memory":
        return lambda: open_store("memory:")
    if request.param == "sqlite":
        return lambda: open_store(f"sqlite://{tmp_path}/log.db")
    if request.param == "postgres":
        store = request.getfixturevalue("postgres_url")
        return lambda: open_store(store)
    if request.param == "cluster":
        url = request.getfixturevalue("shared_cluster").url
    else:
        url = request.getfixturevalue("shared_servers")(request.param).url
    prefix = f"t{secrets.token_hex(4)}"
    return lambda: open_store(f"{url}?prefix={prefix}")
