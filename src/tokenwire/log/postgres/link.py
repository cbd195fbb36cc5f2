"""Connections to PostgreSQL, and statements that are repeated until their outcome is known.

Always true: a connection on which something went wrong is closed, not used again; what is repeated
is one transaction that takes a repetition as what it is. Callers who are cancelled never touch a
connection (the store runs each operation in a task of its own).
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol, TypeVar

from tokenwire.backoff import backoff
from tokenwire.errors import ConfigError, LogError, StoreUnavailableError
from tokenwire.log.postgres.errors import judge
from tokenwire.log.postgres.url import PostgresSettings

__all__ = ["Connection", "Connections", "Link", "OwnConnections", "connect"]

T = TypeVar("T")

#: A connection of the driver; a pool's stands for one.
Connection = Any


class Connections(Protocol):
    """Where connections come from: the store's own, or an application's pool."""

    def use(self) -> contextlib.AbstractAsyncContextManager[Connection]:
        """A connection for one transaction. One that was closed is not used again."""
        ...

    def transaction(self) -> contextlib.AbstractAsyncContextManager[tuple[Connection, Any]]:
        """A transaction that commits at the end, or is rolled back by an exception: its connection
        of the driver, and the connection as the application knows it."""
        ...

    def listening(self) -> contextlib.AbstractAsyncContextManager[Connection]:
        """A connection to stay on, which is closed at the end."""
        ...

    def drop_idle(self) -> None:
        """The server is another one now: close what is not in use."""
        ...

    async def close(self) -> None:
        """Close what is the store's own."""
        ...


async def connect(dsn: str, *, cache: bool, timeout: float) -> Connection:
    """A connection of the driver. Raises as the driver does; `ConfigError` for its settings."""
    import asyncpg  # an extra: `open_store` says when it is missing

    try:
        return await asyncpg.connect(
            dsn,
            timeout=timeout,  # type: ignore[arg-type] - a part of a second will do
            # Behind a pooler, statements that are prepared belong to another client's server.
            statement_cache_size=200 if cache else 0,
            server_settings={"application_name": "tokenwire"},
        )
    except (asyncpg.ClientConfigurationError, ssl.SSLError, ValueError) as error:
        raise ConfigError(f"the store URL cannot be used: {str(error)[:120]}") from error


class OwnConnections:
    """Up to ``settings.connections`` of the store's own, made when they are needed."""

    def __init__(self, settings: PostgresSettings) -> None:
        self._settings = settings
        self._free: list[Connection] = []
        self._places = asyncio.Semaphore(settings.connections)
        #: Statements may be prepared on the server; not behind a pooler.
        self.cache = False
        self._closed = False

    @contextlib.asynccontextmanager
    async def use(self) -> AsyncIterator[Connection]:
        async with self._places:
            while self._free and self._free[-1].is_closed():
                self._free.pop()
            if self._free:
                connection = self._free.pop()
            else:
                seconds = self._settings.timeout / 3
                connection = await connect(self._settings.dsn, cache=self.cache, timeout=seconds)
            try:
                yield connection
            except BaseException:
                connection.terminate()
                raise
            if self._closed:
                connection.terminate()
            else:
                self._free.append(connection)

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[tuple[Connection, Any]]:
        async with self.use() as connection, connection.transaction():
            yield connection, connection

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[Connection]:
        dsn = self._settings.direct or self._settings.dsn
        connection = await connect(dsn, cache=False, timeout=self._settings.timeout / 3)
        try:
            yield connection
        finally:
            connection.terminate()

    def drop_idle(self) -> None:
        free, self._free = self._free, []
        for connection in free:
            connection.terminate()

    async def close(self) -> None:
        self._closed = True
        free, self._free = self._free, []
        for connection in free:
            with contextlib.suppress(Exception):
                await connection.close(timeout=1)


class Link:
    """The store's server, asked until ``settings.timeout`` has passed."""

    def __init__(self, settings: PostgresSettings, connections: Connections) -> None:
        self.settings = settings
        self.connections = connections
        #: The store was checked and is in use.
        self.started = False
        self.closed = False
        #: How often something was sent again.
        self.repeated = 0
        #: Called when a connection was lost: what is known of other processes may be old.
        self.on_lost: Callable[[], None] = lambda: None

    async def close(self) -> None:
        self.closed = True
        await self.connections.close()

    async def fetch(self, query: str, *values: Any) -> list[Any]:
        """The rows of a statement that may be repeated."""
        rows, _ = await self.repeat(lambda connection: connection.fetch(query, *values))
        return rows

    async def value(self, query: str, *values: Any) -> Any:
        """The first column of the first row; None without one."""
        rows = await self.fetch(query, *values)
        return rows[0][0] if rows else None

    async def repeat(self, operation: Callable[[Connection], Awaitable[T]]) -> tuple[T, bool]:
        """`attempts` with a connection for each."""

        async def attempt() -> T:
            async with self.connections.use() as connection:
                return await operation(connection)

        return await self.attempts(attempt, self.settings.timeout / 3)

    async def attempts(
        self, operation: Callable[[], Awaitable[T]], seconds: float
    ) -> tuple[T, bool]:
        """What ``operation`` gives, and whether it was called more than once. It is called until
        it works, fails for good, or the time is up; each time for ``seconds`` at most."""
        loop = asyncio.get_running_loop()
        end = loop.time() + max(seconds, self.settings.timeout)
        failures = 0
        while True:
            if self.closed:
                raise StoreUnavailableError("the store is closed or was not started")
            try:
                async with asyncio.timeout_at(min(end, loop.time() + seconds)):
                    return await operation(), failures > 0
            except (LogError, ConfigError):
                raise
            except Exception as error:
                reason = judge(error, started=self.started)
            self._lost(reason)
            self.repeated += 1
            failures += 1
            pause = backoff(failures, first=0.02, longest=0.5)
            if loop.time() + pause >= end:
                text = str(reason)[:120] or type(reason).__name__
                raise StoreUnavailableError(
                    f"PostgreSQL did not reply within {self.settings.timeout:g} s ({text})"
                ) from reason
            await asyncio.sleep(pause)

    def _lost(self, reason: Exception) -> None:
        state = getattr(reason, "sqlstate", None)
        if state in ("40001", "40P01", "55P03"):
            return  # of this transaction only
        self.connections.drop_idle()
        self.on_lost()
