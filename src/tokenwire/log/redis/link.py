"""Commands to Redis: scripts that may be repeated, many logs in one round trip.

Always true: a script that was sent is sent again until its outcome is known or the time is up;
every script takes a repetition as what it is. Callers who are cancelled never touch a connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha1
from pathlib import Path
from typing import Any

from tokenwire.backoff import backoff
from tokenwire.errors import ConfigError, StoreFullError, StoreUnavailableError
from tokenwire.log.base import Durability
from tokenwire.log.redis.connection import Address, Connection, ReplyError, Word, encode
from tokenwire.log.redis.nodes import Nodes
from tokenwire.log.redis.url import RedisSettings

__all__ = ["PASSING", "Confirm", "Link", "Script"]

#: Answers of servers that pass: a failover or a move of slots is under way.
PASSING = {
    *("CLUSTERDOWN", "TRYAGAIN", "MOVED", "ASK", "NOREPLICAS", "MASTERDOWN", "LOADING"),
    *("READONLY", "UNBLOCKED", "BUSY", "NOSCRIPT"),
}
#: Answers that a setting must be changed for.
REFUSED = {"WRONGPASS": "the user or password", "NOAUTH": "a connection without a password"}

#: How scripts say that the user may not do what is in them, in Redis of various ages.
NO_RIGHT = ("user executing the script", "ACL failure in script")

#: How often one command follows a redirection before the map is asked for again.
MOST_HOPS = 5


class Script:
    """A Lua file beside this one."""

    def __init__(self, name: str, *, flags: str = "") -> None:
        self.text = Path(__file__).with_name(name).read_bytes()
        if flags:
            self.text = f"#!lua flags={flags}\n".encode() + self.text
        self.sha = sha1(self.text, usedforsecurity=False).hexdigest().encode()

    def call(self, keys: Sequence[Word], values: Sequence[Word]) -> bytes:
        """The encoded command."""
        return encode("EVALSHA", self.sha, len(keys), *keys, *values)


class Confirm:
    """What makes an append count: so many replicas, and with ``disk`` the files of all of them."""

    def __init__(self, replicas: int, *, disk: bool, seconds: float) -> None:
        self.replicas = replicas
        self.disk = disk
        words = ["WAITAOF", 1, replicas] if disk else ["WAIT", replicas]
        self._wait = encode(*words, int(seconds * 1000))

    def commands(self, key: str, *, asking: bool = False) -> bytes:
        """Two commands that follow the writes (three when ``asking``).

        The wait is for the writes of its own connection, and a repeated append writes nothing: the
        small write between the two makes it ask about everything before it.
        """
        write = encode("SET", f"{_tag(key)}:confirm", "1", "PX", 60_000)
        return (ASKING if asking else b"") + write + self._wait

    def missing(self, answers: list[Any]) -> str | None:
        """What the answers to `commands` lack, in words."""
        *writes, confirmation = answers
        for answer in (*writes, confirmation):
            if isinstance(answer, ReplyError):
                if answer.code not in PASSING:
                    raise answer
                return f"the server answered {answer.code}"
        local, replicas = confirmation if self.disk else (1, confirmation)
        if replicas < self.replicas:
            return f"{replicas} of {self.replicas} replicas confirmed"
        return None if local else "the append-only file was not yet on the disk"


ASKING = encode("ASKING")


def _tag(key: str) -> str:
    return key[: key.find("}") + 1] or key


class _UnconfirmedError(Exception):
    pass


class Link:
    """The store's servers, asked until ``settings.timeout`` has passed."""

    def __init__(self, settings: RedisSettings, scripts: Sequence[Script]) -> None:
        self.settings = settings
        self.nodes: Nodes | None = None
        self.durability: Durability = "memory"
        self.notes: list[str] = []
        #: What appends wait for beside the primary's own answer.
        self.confirm: Confirm | None = None
        #: The store was checked and is in use.
        self.started = False
        #: How often something was sent again.
        self.repeated = 0
        self._scripts = scripts

    async def connect(self, check: Callable[[Link], Awaitable[None]]) -> None:
        """Connect, and let ``check`` hold what the store promises against what is asked of it."""
        self.nodes = Nodes(self.settings, [script.text for script in self._scripts])
        try:
            await self.repeat(lambda: check(self))
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        nodes, self.nodes = self.nodes, None
        if nodes is not None:
            await nodes.close()

    def place(self, key: str) -> Address | None:
        """The server that carries ``key``, as far as is known now."""
        return self.nodes.place(key) if self.nodes is not None else None

    # Asking.

    async def command(self, key: str, *words: Word) -> Any:
        """The answer to one command about ``key``; it may be sent more than once."""
        data = encode(*words)
        answer, _ = await self.repeat(lambda: self._deliver(key, data, None))
        return answer

    async def run(
        self, script: Script, keys: list[str], arguments: Sequence[Word], *, wait: bool = False
    ) -> tuple[Any, bool]:
        """The script's answer, and whether it had to be sent more than once."""
        return await self.send(keys[0], script.call(keys, arguments), wait=wait)

    async def send(self, key: str, data: bytes, *, wait: bool = False) -> tuple[Any, bool]:
        """The same for an encoded command."""
        confirm = self.confirm if wait else None
        start = asyncio.get_running_loop().time()
        if confirm is None and self.at_hand(key) is not None:
            answer = await self.send_once(key, data)
            if answer is not None:
                return answer, False
            answer, _ = await self.repeat(lambda: self._deliver(key, data, None), start)
            return answer, True
        return await self.repeat(lambda: self._deliver(key, data, confirm))

    def at_hand(self, key: str) -> Connection | None:
        """The connection that `send_once` would use now, if there is one."""
        place = self.nodes.at_hand(key) if self.nodes is not None else None
        return place[1] if place is not None else None

    async def send_once(self, key: str, data: bytes) -> Any:
        """The answer to an encoded command that is sent over the connection `at_hand`; None where
        it may not have been done. Nearly always used: it has no coroutine and timeout of each
        layer."""
        place = self.nodes.at_hand(key) if self.nodes is not None else None
        assert place is not None
        answers = await self.exchange(*place, data, 1)
        if answers is not None and not isinstance(answers[0], ReplyError):
            return answers[0]
        self.repeated += answers is not None
        return None

    async def apart(self, key: str) -> tuple[Address, Connection] | None:
        """The server of ``key``, and a connection to it over which nothing goes but what is given
        to `exchange`; None where there is none now."""
        nodes = self.nodes
        if nodes is None:
            return None
        place = nodes.at_hand(key, "appends")
        if place is not None:
            return place
        try:
            address = await nodes.find(key)
            return address, await nodes.connection(address, "appends")
        except (OSError, ReplyError):
            return None

    async def exchange(
        self, address: Address, wire: Connection, data: bytes, count: int
    ) -> list[Any] | None:
        """The answers to so many encoded commands that are sent once, over ``wire``, which leads to
        ``address``; None where they are lost."""
        nodes = self.nodes
        assert nodes is not None
        loop, seconds = asyncio.get_running_loop(), self.settings.timeout / 3
        try:
            reply = wire.send(data, count)
            timer = loop.call_later(
                seconds, nodes.drop, address, "the server did not answer in time"
            )
            try:
                return await reply
            finally:
                timer.cancel()
        except ConnectionError:
            nodes.suspect(address)
            self.repeated += 1
            return None

    async def send_all(
        self, keys: list[str], commands: list[bytes], *, wait: bool = False
    ) -> tuple[list[Any], bool]:
        """Encoded commands, each about the key of its place, in one write to the server of the
        first; what another server has is sent there, in order."""
        confirm = self.confirm if wait else None
        return await self.repeat(lambda: self._deliver_all(keys, commands, confirm))

    async def fetch(self, key: str, data: bytes, answers: int) -> list[Any]:
        """All answers of the server that should have ``key``, asked once; errors among them."""
        if self.nodes is None:
            raise StoreUnavailableError("the store is closed or was not started")
        return await self._exchange(await self.nodes.find(key), data, answers, "main")

    async def ask(self, address: Address, *words: Word) -> Any:
        """The answer of one server; raises what it refuses."""
        [answer] = await self._exchange(address, encode(*words), 1, "main")
        if isinstance(answer, ReplyError):
            raise answer
        return answer

    async def _exchange(self, address: Address, data: bytes, answers: int, use: str) -> list[Any]:
        assert self.nodes is not None
        wire = await self.nodes.connection(address, use)
        try:
            async with asyncio.timeout(self.settings.timeout / 3):
                return await wire.send(data, answers)
        except TimeoutError:
            self.nodes.drop(address, "the server did not answer in time")
            raise
        except ConnectionError:
            self.nodes.suspect(address)
            raise

    async def _deliver(self, key: str, data: bytes, confirm: Confirm | None) -> Any:
        assert self.nodes is not None
        use = "confirmed" if confirm else "main"
        address, asking = await self.nodes.find(key), False
        answer: Any = None
        for _ in range(MOST_HOPS):
            head = ASKING if asking else b""
            tail = confirm.commands(key, asking=asking) if confirm else b""
            count = 1 + asking + (2 + asking if confirm else 0)
            answers = await self._exchange(address, head + data + tail, count, use)
            answer = answers[asking]
            code = answer.code if isinstance(answer, ReplyError) else ""
            if code in ("MOVED", "ASK"):
                address, asking = self.nodes.redirected(answer, address), code == "ASK"
            elif code == "NOSCRIPT":
                await self._load(address, use)
            elif code:
                if code == "READONLY":
                    self.nodes.drop(address, "the server is no primary any more")
                raise answer
            else:
                self._check(confirm, answers[asking + 1 :])
                if asking:
                    await self._tell_the_old(key)
                return answer
        raise answer

    async def _tell_the_old(self, key: str) -> None:
        # While a slot moves, its readers still listen at its old server, but what is done at the
        # new one is published there. A server that has lost the slot by now has told them itself.
        assert self.nodes is not None
        tag = _tag(key)
        words = [encode("SPUBLISH", f"{tag}:{name}", "moved") for name in ("live", "control")]
        await self._exchange(await self.nodes.find(key), b"".join(words), 2, "main")

    def _check(self, confirm: Confirm | None, answers: list[Any]) -> None:
        missing = confirm.missing(answers) if confirm else None
        if missing:
            raise _UnconfirmedError(missing)

    async def _load(self, address: Address, use: str) -> None:
        commands = [encode("SCRIPT", "LOAD", script.text) for script in self._scripts]
        await self._exchange(address, b"".join(commands), len(commands), use)

    async def _deliver_all(
        self, keys: list[str], commands: list[bytes], confirm: Confirm | None
    ) -> list[Any]:
        assert self.nodes is not None
        address = await self.nodes.find(keys[0])
        data = b"".join(commands) + (confirm.commands(keys[0]) if confirm else b"")
        use = "confirmed" if confirm else "main"
        replies = await self._exchange(address, data, len(commands) + 2 * bool(confirm), use)
        answers = replies[: len(commands)]
        resend: set[str] = set()
        for number, answer in enumerate(answers):
            # An error: moved to another server, or the script is not known there. What follows
            # for the same key was sent too early.
            if isinstance(answer, ReplyError) or keys[number] in resend:
                resend.add(keys[number])
                answers[number] = await self._deliver(keys[number], commands[number], confirm)
        if len(resend) < len(set(keys)):
            self._check(confirm, replies[len(commands) :])
        return answers

    async def repeat(
        self, operation: Callable[[], Awaitable[Any]], start: float | None = None
    ) -> tuple[Any, bool]:
        """Call ``operation`` until it works, fails for good, or the time is up, which runs from
        ``start`` (loop time) or now."""
        loop = asyncio.get_running_loop()
        end = (loop.time() if start is None else start) + self.settings.timeout
        failures = 0
        again = False
        reason: Exception | None = None
        while True:
            if self.nodes is None:
                raise StoreUnavailableError("the store is closed or was not started")
            try:
                async with asyncio.timeout_at(end):
                    return await operation(), again
            except TimeoutError as error:
                reason = reason or error
            except (OSError, _UnconfirmedError) as error:
                reason = error
            except ReplyError as error:
                reason = judge(error, started=self.started)
            again = True
            self.repeated += 1
            failures += 1
            pause = backoff(failures, first=0.02, longest=0.5)
            if loop.time() + pause >= end:
                raise StoreUnavailableError(
                    f"Redis did not reply within {self.settings.timeout:g} s "
                    f"({str(reason)[:120] or type(reason).__name__})",
                ) from reason
            await asyncio.sleep(pause)


def judge(error: ReplyError, *, started: bool = True) -> ReplyError:
    """The error when it passes; raises what it means otherwise. What somebody must change is a
    `ConfigError` at the start, and later the store's failure."""
    code = error.code
    if code in ("OOM", "MISCONF"):
        raise StoreFullError("Redis has no space left for new records") from error
    if code in PASSING:
        return error
    kind = StoreUnavailableError if started else ConfigError
    if code in REFUSED:
        raise kind(f"Redis refused {REFUSED[code]}") from error
    if code == "NOPERM" or any(words in str(error) for words in NO_RIGHT):
        message = f"the Redis user lacks a right that a store needs: {str(error)[:120]}"
        raise kind(message) from error
    raise StoreUnavailableError(f"Redis refused a command: {str(error)[:120]}") from error
