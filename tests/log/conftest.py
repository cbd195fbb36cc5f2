"""The stores that the cases of the contract run against."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from redis_support import RedisServer, redis_server
from tokenwire.log.base import Log
from tokenwire.log.open import open_log


@pytest.fixture(scope="session")
def shared_redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture(
    params=["memory", "sqlite", pytest.param("redis", marks=pytest.mark.redis)],
)
def new_log(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Log]:
    """Opens the same store each time it is called (memory: a new one)."""
    if request.param == "memory":
        return lambda: open_log("memory:")
    if request.param == "sqlite":
        return lambda: open_log(f"sqlite://{tmp_path}/log.db")
    server: RedisServer = request.getfixturevalue("shared_redis")
    prefix = f"t{secrets.token_hex(4)}"
    return lambda: open_log(f"{server.url}?prefix={prefix}")
