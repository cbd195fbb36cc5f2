"""Commands to Redis: scripts that may be repeated, many streams in one round trip.

Always true: a script that was sent is sent again until its outcome is known or the time is up;
every script takes a repetition as what it is. Callers who are cancelled never touch a connection:
commands run in tasks of their own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha1
from pathlib import Path
from typing import Any, cast

from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from tokenwire.errors import ConfigError, StoreFullError, StoreUnavailableError
from tokenwire.log.base import Durability
from tokenwire.log.redis_url import LEVELS, RedisSettings, make_client

__all__ = ["Call", "Lane", "Link", "Script"]

#: Keys and values of one stream's part in a script call.
Call = tuple[list[str], list[Any]]

#: Errors that pass: the answer is lost or a failover is under way.
PASSING = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.ReadOnlyError,
    exceptions.ClusterDownError,
    exceptions.TryAgainError,
    exceptions.ClusterError,
    exceptions.SlotNotCoveredError,
    OSError,
)
PASSING_WORDS = ("NOREPLICAS", "MASTERDOWN", "LOADING", "READONLY", "UNBLOCKED", "BUSY ")


class Script:
    """A Lua file beside this one."""

    def __init__(self, name: str) -> None:
        self.text = Path(__file__).with_name(name).read_bytes()
        self.sha = sha1(self.text, usedforsecurity=False).hexdigest()


class _TooFewReplicasError(Exception):
    pass


class Lane:
    """Groups what is submitted while one group is under way; order is kept."""

    def __init__(self, work: Callable[[list[Any]], Awaitable[Sequence[Any]]], most: int) -> None:
        self._work = work
        self._most = most
        self._pending: list[tuple[Any, asyncio.Future[Any]]] = []
        self._task: asyncio.Task[None] | None = None

    def submit(self, item: Any) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._pending.append((item, future))
        if self._task is None:
            self._task = loop.create_task(self._pump())
        return future

    async def _pump(self) -> None:
        while self._pending:
            batch = self._pending[: self._most]
            del self._pending[: self._most]
            try:
                results = await self._work([item for item, _ in batch])
            except Exception as error:
                results = [error] * len(batch)
            for (_, future), result in zip(batch, results, strict=True):
                if future.done():
                    continue  # the caller was cancelled; the work is done all the same
                if isinstance(result, BaseException):
                    future.set_exception(result)
                else:
                    future.set_result(result)
        self._task = None

    async def drain(self) -> None:
        while self._task is not None:
            await asyncio.wait([self._task])


class Link:
    """One client, with repetition until ``settings.timeout`` has passed."""

    def __init__(self, settings: RedisSettings) -> None:
        self.settings = settings
        self.client: Any = None
        self.durability: Durability = "memory"
        self.notes: list[str] = []
        self.repeated = 0
        self._nodes: dict[str, Redis] = {}

    async def connect(self) -> None:
        """Connect and check what the store promises against what is asked of it."""
        self.client = make_client(self.settings)
        try:
            await self.repeat(self._check)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        client, self.client = self.client, None
        for node in self._nodes.values():
            await node.aclose()
        self._nodes.clear()
        if client is not None:
            await client.aclose()

    def node_of(self, channel: str) -> tuple[str, Redis]:
        """The server that carries ``channel``, by name, with a client of its own for Cluster."""
        if self.settings.kind != "cluster":
            return "", self.client
        node = self.client.get_node_from_key(channel)
        if node.name not in self._nodes:
            options = dict(node.connection_kwargs)
            for name in ("host", "port"):
                options.pop(name, None)
            known = {"username", "password", "socket_connect_timeout", "socket_keepalive", "ssl"}
            chosen = {name: value for name, value in options.items() if name in known}
            never = Retry(cast(Any, NoBackoff()), 0)
            self._nodes[node.name] = Redis(
                host=node.host, port=node.port, protocol=2, retry=never, **chosen
            )
        return node.name, self._nodes[node.name]

    async def run(
        self, script: Script, keys: list[str], arguments: list[Any], *, wait: bool = False
    ) -> tuple[Any, bool]:
        """The script's answer, and whether it had to be sent more than once."""
        before = self.repeated

        async def once() -> Any:
            if wait and self.settings.replicas:
                return await self._once_confirmed(script, keys, arguments)
            return await self._once(self.client, script, keys, arguments)

        answer = await self.repeat(once)
        return answer, self.repeated != before

    async def run_batch(
        self, script: Script, head: list[Any], calls: list[Call], *, wait: bool = False
    ) -> tuple[list[Any], bool]:
        """One script over many streams: their answers, and whether any was sent more than once.

        In a cluster a call may touch one slot only, so there it is many calls in one pipeline.
        """
        if self.settings.kind != "cluster":
            keys = [key for call in calls for key in call[0]]
            values = [value for call in calls for value in call[1]]
            return await self.run(script, keys, head + values, wait=wait)
        before = self.repeated
        answers = await self.repeat(lambda: self._pipelined(script, head, calls))
        return answers, self.repeated != before

    async def _pipelined(self, script: Script, head: list[Any], calls: list[Call]) -> list[Any]:
        pipeline = self.node_of(calls[0][0][0])[1].pipeline(transaction=False)
        for keys, values in calls:
            pipeline.execute_command("EVALSHA", script.sha, len(keys), *keys, *head, *values)
        answers = await pipeline.execute(raise_on_error=False)
        for number, answer in enumerate(answers):
            if isinstance(answer, exceptions.ResponseError):
                # Moved to another server, or the script is not known there: one by one, in order.
                keys, values = calls[number]
                answers[number] = await self._once(self.client, script, keys, head + values)
            elif isinstance(answer, BaseException):
                raise answer
        return [answer[0] for answer in answers]

    async def repeat(self, once: Callable[[], Awaitable[Any]]) -> Any:
        """Call ``once`` until it works, fails for good, or the time is up."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self.settings.timeout
        pause = 0.02
        while True:
            if self.client is None:
                raise StoreUnavailableError("The store is closed or was not started.")
            try:
                async with asyncio.timeout_at(end):
                    return await once()
            except exceptions.AuthenticationError as error:
                raise ConfigError("Redis refused the user or password.") from error
            except _TooFewReplicasError as error:
                reason: Exception = error
            except PASSING as error:
                reason = error
            except exceptions.ResponseError as error:
                reason = self._judge(error)
            self.repeated += 1
            if loop.time() + pause >= end:
                raise StoreUnavailableError(
                    f"Redis did not answer within {self.settings.timeout:g} s "
                    f"({type(reason).__name__.strip('_')}).",
                ) from reason
            await asyncio.sleep(pause)
            pause = min(pause * 2, 0.5)

    def _judge(self, error: exceptions.ResponseError) -> Exception:
        text = str(error)
        if isinstance(error, exceptions.OutOfMemoryError) or "MISCONF" in text:
            raise StoreFullError("Redis has no space left for new records.") from error
        if any(word in text for word in PASSING_WORDS):
            return error
        raise StoreUnavailableError(f"Redis refused a command: {text[:120]}") from error

    async def _once(self, client: Any, script: Script, keys: list[str], values: list[Any]) -> Any:
        try:
            return await client.execute_command("EVALSHA", script.sha, len(keys), *keys, *values)
        except exceptions.NoScriptError:
            return await client.execute_command("EVAL", script.text, len(keys), *keys, *values)

    async def _once_confirmed(self, script: Script, keys: list[str], values: list[Any]) -> Any:
        # WAIT asks about the writes of its own connection, and a repeated append writes nothing.
        # The small write between the two makes it ask about everything before it.
        settings = self.settings
        pipeline = self.client.pipeline(transaction=False)
        pipeline.execute_command("EVALSHA", script.sha, len(keys), *keys, *values)
        pipeline.execute_command("SET", f"{settings.prefix}:confirm", "1", "PX", "60000")
        pipeline.execute_command("WAIT", settings.replicas, int(settings.timeout * 1000 / 4))
        answer, _, confirmed = await pipeline.execute(raise_on_error=False)
        if isinstance(answer, exceptions.NoScriptError):
            await self.client.execute_command("SCRIPT LOAD", script.text)
            return await self._once_confirmed(script, keys, values)
        for value in (answer, confirmed):
            if isinstance(value, BaseException):
                raise value
        if confirmed < settings.replicas:
            raise _TooFewReplicasError(f"{confirmed} of {settings.replicas} replicas confirmed")
        return answer

    # What the store is and promises.

    async def _ask(self, *words: str) -> dict[str, str]:
        options = {}
        if self.settings.kind == "cluster":
            options["target_nodes"] = self.client.get_random_primary_node()
        answer = await self.client.execute_command(*words, **options)
        if isinstance(answer, dict):
            items = answer.items()
        else:
            items = zip(answer[::2], answer[1::2], strict=False)
        plain = lambda value: value.decode() if isinstance(value, bytes) else str(value)  # noqa: E731
        return {plain(name): plain(value) for name, value in items}

    async def _check(self) -> None:
        if self.settings.kind == "cluster":
            await self.client.initialize()
        server = await self._ask("INFO", "server")
        version = server.get("redis_version", "0")
        if int(version.split(".")[0]) < 7:
            raise ConfigError(f"Redis {version} is too old; tokenwire needs 7.0 or Valkey.")
        self.notes = []
        try:
            config = {}
            for name in ("maxmemory*", "append*"):
                config |= await self._ask("CONFIG", "GET", name)
        except exceptions.ResponseError:
            config = {}
        self._check_memory(config)
        self.durability = self._level(config)
        if LEVELS.index(self.durability) < LEVELS.index(self.settings.durability):
            raise ConfigError(
                f"The store URL asks for durability={self.settings.durability}, "
                f"but this Redis gives {self.durability!r}. {' '.join(self.notes)}"
            )

    def _check_memory(self, config: dict[str, str]) -> None:
        policy = config.get("maxmemory-policy", "noeviction")
        if policy == "noeviction":
            return
        message = (
            f"maxmemory-policy is {policy}: Redis may throw open streams away; use noeviction."
        )
        if config.get("maxmemory", "0") != "0":
            raise ConfigError(message)
        self.notes.append(message)

    def _level(self, config: dict[str, str]) -> Durability:
        if self.settings.replicas:
            return "replica"
        if not config:
            self.notes.append("CONFIG is not allowed here: what a record survives is not known.")
            return "memory"
        if config.get("appendonly") != "yes":
            self.notes.append("appendonly is off: a restart of Redis loses every stream.")
            return "memory"
        if config.get("appendfsync") == "always":
            return "disk"
        self.notes.append("appendfsync is not always: a power cut may lose the last second or two.")
        return "process"
