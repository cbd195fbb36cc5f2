"""Who in other processes must look at a log: hints by NOTIFY, and looking oneself.

Always true: a hint is sent after the commit that it is about, in a statement of its own, many logs
at a time; the log is the truth. Where hints do not come (a pooler in transaction mode, a lost
connection), this process looks itself every few milliseconds; where they do, every second, as a
writer may die between its commit and its hint.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import zlib
from collections.abc import Callable, Iterable
from typing import Any

from tokenwire.backoff import backoff
from tokenwire.errors import ConfigError, LogError
from tokenwire.log.postgres.link import Connection, Link
from tokenwire.log.postgres.names import to_text
from tokenwire.log.postgres.schema import quoted

__all__ = ["Hints", "Looks"]

#: Channels over which logs are spread, so that a process hears little that is not for it.
CHANNELS = 8
#: Seconds between two hints.
HINT_SECONDS = 0.002
#: Hashes of one notification, which has at most 8,000 bytes.
MOST_HASHES = 800

#: Seconds between two looks, with hints and without; and the share of time that looking may take.
SLOW_LOOK, FAST_LOOK, LOOK_SHARE = 1.0, 0.02, 0.1

#: Seconds until a connection that hears nothing is asked whether it is still there.
SILENCE_SECONDS = 10.0
PROBE_SECONDS = 5.0


def hash_of(log: str) -> int:
    """By what processes tell each other which logs they touched."""
    return zlib.crc32(log.encode())


class Hints:
    """Sends hints and hears those of others. ``hear(hashes)`` is called with the logs that others
    touched; None: hints may have been missed."""

    def __init__(self, link: Link, *, hear: Callable[[set[int] | None], None]) -> None:
        self._link = link
        self._hear = hear
        self._identity = secrets.token_hex(4)
        self._names = [f"{link.settings.schema}_{number}" for number in range(CHANNELS)]
        self._pending: set[int] = set()
        self._sender: asyncio.Task[None] | None = None
        self._listener: asyncio.Task[None] | None = None
        self._channels: set[int] = set()
        self._changed = asyncio.Event()
        #: Hints come: a first one, of our own, has arrived on the present connection.
        self.is_heard = False
        #: Whether a connection is tried for hearing: not behind a pooler without an address.
        self.can_listen = False

    # Sending.

    def touched(self, log: str) -> None:
        """Something of ours about ``log`` was committed."""
        self._pending.add(hash_of(log))
        if self._sender is None:
            self._sender = asyncio.get_running_loop().create_task(self._send())

    async def _send(self) -> None:
        try:
            while self._pending:
                hashes, self._pending = self._pending, set()
                with contextlib.suppress(LogError, ConfigError):  # a hint; the others look as well
                    await self._notify(hashes)
                await asyncio.sleep(HINT_SECONDS)
        finally:
            self._sender = None

    async def _notify(self, hashes: Iterable[int]) -> None:
        by_channel: dict[int, list[str]] = {}
        for number in hashes:
            by_channel.setdefault(number % CHANNELS, []).append(f"{number:08x}")
        channels: list[str] = []
        payloads: list[str] = []
        for channel, words in by_channel.items():
            for start in range(0, len(words), MOST_HASHES):
                channels.append(self._names[channel])
                payloads.append(self._identity + "".join(words[start : start + MOST_HASHES]))
        # Nobody waits for the disk on behalf of a hint.
        await self._link.fetch(
            "SELECT set_config('synchronous_commit', 'off', true), pg_notify(c, p)"
            " FROM unnest($1::text[], $2::text[]) AS n(c, p)",
            channels,
            payloads,
        )

    # Hearing.

    def want(self, log: str) -> None:
        """Hear of ``log`` from now on."""
        channel = hash_of(log) % CHANNELS
        if channel not in self._channels:
            self._channels.add(channel)
            self._changed.set()
        if self._listener is None and self.can_listen:
            self._listener = asyncio.get_running_loop().create_task(self._listen())

    async def close(self) -> None:
        if self._sender is not None:
            await asyncio.wait([self._sender], timeout=1)
        tasks = [task for task in (self._listener, self._sender) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _listen(self) -> None:
        failures = 0
        while True:
            try:
                async with self._link.connections.listening() as connection:
                    failures = await self._stay(connection, failures)
            except Exception:  # whatever broke: everybody looks until there is a connection again
                failures += 1
            finally:
                self.is_heard = False
            self._hear(None)
            await asyncio.sleep(backoff(failures, first=0.05, longest=2.0))

    async def _stay(self, connection: Connection, failures: int) -> int:
        """Until the connection is lost; how many in a row were of no use."""
        ended = asyncio.Event()
        connection.add_termination_listener(lambda _: (ended.set(), self._changed.set()))
        have: set[int] = set()
        if not await self._try(connection):
            return failures + 1
        self.is_heard = True
        while not ended.is_set():
            self._changed.clear()
            for channel in sorted(self._channels - have):
                async with asyncio.timeout(PROBE_SECONDS):
                    await connection.add_listener(self._names[channel], self._take)
                have.add(channel)
                self._hear(None)  # of what was before, nobody was told
            try:
                async with asyncio.timeout(SILENCE_SECONDS):
                    await self._changed.wait()
            except TimeoutError:
                async with asyncio.timeout(PROBE_SECONDS):
                    await connection.fetchval("SELECT 1")
        return 1

    async def _try(self, connection: Connection) -> bool:
        """Whether a hint sent like all others arrives here."""
        name = f"{self._link.settings.schema}_{self._identity}"
        arrived = asyncio.Event()
        async with asyncio.timeout(PROBE_SECONDS):
            await connection.add_listener(name, lambda *_: arrived.set())
        await self._link.fetch("SELECT pg_notify($1, '')", name)
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                await arrived.wait()
        except TimeoutError:
            return False
        return True

    def _take(self, _connection: Any, _pid: int, _channel: str, payload: str) -> None:
        if payload.startswith(self._identity):
            return  # our own
        words = payload[8:]
        try:
            hashes = {int(words[at : at + 8], 16) for at in range(0, len(words), 8)}
        except ValueError:
            return  # not a hint of ours
        self._hear(hashes)


class Looks:
    """Looks at the logs that somebody in this process waits for. ``names()`` are these;
    ``wake(log)`` is called for each that others changed, and once for each that is new."""

    def __init__(
        self,
        link: Link,
        hints: Hints,
        *,
        names: Callable[[], list[str]],
        is_ours: Callable[[str], bool],
        wake: Callable[[str], None],
    ) -> None:
        self._link = link
        self._hints = hints
        self._names = names
        self._is_ours = is_ours
        self._wake = wake
        self._states: dict[str, tuple[Any, ...] | None] = {}
        self._task: asyncio.Task[None] | None = None
        self._soon = asyncio.Event()
        schema = quoted(link.settings.schema)
        self._query = (
            "SELECT s.name, h.epoch, h.commands, h.tail, h.closed IS NOT NULL"  # noqa: S608
            f" FROM {schema}.stream s JOIN {schema}.head h USING (sid)"
            " WHERE s.name = ANY($1::text[])"
        )

    def start(self) -> None:
        """Somebody waits. Ends by itself when nobody does any more."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    def soon(self) -> None:
        """Look without waiting any longer: hints may have been missed."""
        self._soon.set()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._names():
                self._soon.clear()
                begin = loop.time()
                with contextlib.suppress(LogError, ConfigError):
                    await self._look()
                took = loop.time() - begin
                least = SLOW_LOOK if self._hints.is_heard else FAST_LOOK
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(least, took / LOOK_SHARE)):
                        await self._soon.wait()
        finally:
            self._task = None
            self._states.clear()

    async def _look(self) -> None:
        names = {to_text(log): log for log in self._names()}
        before, self._states = self._states, {}
        try:
            rows = await self._link.fetch(self._query, list(names))
        except BaseException:
            self._states = before
            raise
        states = {names[row[0]]: tuple(row)[1:] for row in rows}
        for log in names.values():
            state = states.get(log)
            if state is not None and self._is_ours(log):
                state = state[:2]  # what we append ourselves is no news
            self._states[log] = state
            if log not in before or before[log] != state:
                self._wake(log)
