"""Any sequence of calls gives what a simple model gives, on every store."""

from __future__ import annotations

import pytest

from support.log_machine import check
from support.postgres import PostgresServer
from support.redis import RedisServer


def test_memory_is_like_the_model() -> None:
    check("memory:", shared=False, examples=150)


@pytest.mark.parametrize("shared", [False, True])
def test_sqlite_is_like_the_model(shared: bool) -> None:
    check("sqlite://{folder}/log.db", shared=shared, examples=80)


@pytest.mark.redis
@pytest.mark.parametrize("shared", [False, True])
def test_redis_is_like_the_model(shared: bool, shared_redis: RedisServer) -> None:
    url = shared_redis.url + f"?prefix=m{shared:d}-" + "{number}"
    check(url, shared=shared, examples=20, shrink=False)


@pytest.mark.postgres
@pytest.mark.parametrize("shared", [False, True])
def test_postgres_is_like_the_model(shared: bool, shared_postgres: PostgresServer) -> None:
    url = shared_postgres.url + f"?schema=m{shared:d}_" + "{number}"
    check(url, shared=shared, examples=5, shrink=False)
