"""An application's connections, shared by the store: a pool of asyncpg, or an engine of SQLAlchemy.

Always true: the pool is the application's, which opens and closes it; a connection is given back
after each transaction, except one that hears of what other processes write.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from tokenwire.errors import ConfigError
from tokenwire.log.postgres.link import Connection, Connections

__all__ = ["connections_of"]


def connections_of(pool: Any) -> Connections:
    """What the store makes of an application's pool. Raises `ConfigError` for anything else."""
    if hasattr(pool, "acquire") and hasattr(pool, "release"):
        return _Pool(pool)
    if hasattr(pool, "begin") and hasattr(pool, "sync_engine"):
        if pool.dialect.driver != "asyncpg":
            raise ConfigError(
                f"the engine's driver is {pool.dialect.driver}; make it with postgresql+asyncpg://"
            )
        return _Engine(pool)
    raise ConfigError(
        f"pool must be an asyncpg pool or an AsyncEngine of SQLAlchemy, not {type(pool).__name__}"
    )


class _Pool:
    """A pool of asyncpg."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    @contextlib.asynccontextmanager
    async def use(self) -> AsyncIterator[Connection]:
        connection = await self._pool.acquire()
        try:
            yield connection
        except BaseException as error:
            if getattr(error, "sqlstate", None) is None:
                connection.terminate()  # in the middle of something
            raise
        finally:
            await self._pool.release(connection)

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[tuple[Connection, Any]]:
        async with self._pool.acquire() as connection, connection.transaction():
            yield connection, connection

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[Connection]:
        connection = await self._pool.acquire()
        try:
            yield connection
        finally:
            connection.terminate()
            await self._pool.release(connection)

    def drop_idle(self) -> None:
        """The pool finds out by itself."""

    async def close(self) -> None:
        """The application's."""


class _Engine:
    """An engine of SQLAlchemy with the driver asyncpg."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    @contextlib.asynccontextmanager
    async def use(self) -> AsyncIterator[Connection]:
        async with self._engine.connect() as connection:
            raw = await connection.get_raw_connection()
            try:
                yield raw.driver_connection
            except BaseException as error:
                if getattr(error, "sqlstate", None) is None:
                    raw.driver_connection.terminate()
                    await connection.invalidate()
                raise

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[tuple[Connection, Any]]:
        async with self._engine.begin() as connection:
            # Its first statement begins the transaction, in which ours are as well.
            await connection.exec_driver_sql("SELECT 1")
            raw = await connection.get_raw_connection()
            yield raw.driver_connection, connection

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[Connection]:
        async with self._engine.connect() as connection:
            raw = await connection.get_raw_connection()
            try:
                yield raw.driver_connection
            finally:
                raw.driver_connection.terminate()
                await connection.invalidate()

    def drop_idle(self) -> None:
        """The engine finds out by itself."""

    async def close(self) -> None:
        """The application's."""
