"""Which server carries which key, and the connections to it: one server, Sentinel, or Cluster.

Always true: what is known here may be old; servers refuse what is not theirs, and a refusal or a
broken connection makes the next question ask again.
"""

from __future__ import annotations

import asyncio
import ssl
from binascii import crc_hqx
from collections.abc import Awaitable, Callable, Iterable
from functools import lru_cache
from typing import Any

from tokenwire.errors import ConfigError
from tokenwire.log.redis.connection import (
    Address,
    Connection,
    ReplyError,
    encode,
    make_context,
    open_wire,
)
from tokenwire.log.redis.url import RedisSettings

__all__ = ["Nodes", "slot_of"]

SLOTS = 16384

#: Seconds that one server has to say where the slots or the primary are, before another is asked.
ASK_SECONDS = 1.0


@lru_cache(maxsize=1 << 15)
def slot_of(key: str) -> int:
    """The slot of a key: of what is between its first braces, when there is something."""
    start = key.find("{")
    if start >= 0:
        end = key.find("}", start + 1)
        if end > start + 1:
            key = key[start + 1 : end]
    return crc_hqx(key.encode(), 0) % SLOTS


class Nodes:
    """`find` says where a key is, `connection` leads there."""

    def __init__(self, settings: RedisSettings, scripts: Iterable[bytes]) -> None:
        self._settings = settings
        self._context = make_context(settings)
        self._hello = [encode("SCRIPT", "LOAD", text) for text in scripts]
        if settings.kind == "sentinel":
            self._hello.append(encode("ROLE"))
        self._connections: dict[tuple[Address, str], Connection] = {}
        #: What several callers wait for together: a connection being made, a map being asked for.
        self._shared: dict[Any, asyncio.Task[Any]] = {}
        self._slots: list[Address | None] = [None] * SLOTS
        self._addresses: dict[Address, None] = {}
        self._primary: Address | None = None
        self._suspects: set[Address] = set()

    async def close(self) -> None:
        for task in list(self._shared.values()):
            task.cancel()
        await asyncio.gather(*self._shared.values(), return_exceptions=True)
        for connection in self._connections.values():
            connection.abort("the store is closed")
        self._connections.clear()

    # Where things are.

    def place(self, key: str) -> Address | None:
        """Where ``key`` is as far as is known now."""
        if self._settings.kind == "single":
            return self._settings.hosts[0]
        if self._settings.kind == "sentinel":
            return self._primary
        return self._slots[slot_of(key)]

    async def find(self, key: str) -> Address:
        """Where ``key`` is; asks when that is not known or in doubt."""
        address = self.place(key)
        if address is None or address in self._suspects:
            await self.refresh()
            address = self.place(key)
            if address is None:
                raise ConnectionError("no server has this slot")
        return address

    def suspect(self, address: Address) -> None:
        """Something went wrong there: ask again before the next use."""
        if self._settings.kind != "single":
            self._suspects.add(address)

    def drop(self, address: Address, reason: str) -> None:
        """Use no connection to ``address`` any more; new ones may be made."""
        self.suspect(address)
        for (other, _), connection in self._connections.items():
            if other == address:
                connection.abort(reason)

    def redirected(self, error: ReplyError, source: Address) -> Address:
        """Where a MOVED or ASK answer leads; MOVED is remembered."""
        code, slot, target = str(error).split(" ")[:3]
        host, _, port = target.rpartition(":")
        address = (host.strip("[]") or source[0], int(port))
        self._addresses[address] = None
        if code == "MOVED":
            self._slots[int(slot)] = address
            self.suspect(source)  # more than this slot may have moved
        return address

    def primaries(self) -> list[Address]:
        """All servers that carry keys."""
        if self._settings.kind == "single":
            return [self._settings.hosts[0]]
        if self._settings.kind == "sentinel":
            return [self._primary] if self._primary else []
        return list(dict.fromkeys(address for address in self._slots if address))

    async def refresh(self) -> None:
        """Ask where the primary or the slots are; many callers, one question."""
        if self._settings.kind == "sentinel":
            await self._together("primary", self._ask_sentinels)
        elif self._settings.kind == "cluster":
            await self._together("slots", self._ask_cluster)

    async def _together(self, name: Any, work: Callable[[], Awaitable[Any]]) -> Any:
        task = self._shared.get(name)
        if task is None:
            task = self._shared[name] = asyncio.ensure_future(work())
            task.add_done_callback(lambda _: self._shared.pop(name, None))
        return await asyncio.shield(task)

    async def _ask_sentinels(self) -> None:
        command = encode("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._settings.service)
        reason: Exception = ConnectionError("no Sentinel replied")
        ignorant = 0
        for host in self._settings.hosts:
            try:
                async with asyncio.timeout(ASK_SECONDS):
                    wire, [reply] = await open_wire(
                        Connection, host, self._settings, self._context, [command], user=False
                    )
                wire.abort("asked")
            except (OSError, ReplyError) as error:
                _raise_if_untrusted(error, host)
                reason = error
                continue
            if isinstance(reply, list):
                self._primary = (reply[0].decode(), int(reply[1]))
                self._suspects.clear()
                return
            if isinstance(reply, ReplyError):
                reason = reply
            else:
                ignorant += 1
        if ignorant == len(self._settings.hosts):
            raise ConfigError(f"no Sentinel knows a service named {self._settings.service[:40]!r}")
        raise reason

    async def _ask_cluster(self) -> None:
        candidates = [*dict.fromkeys((*self._addresses, *self._settings.hosts))]
        candidates.sort(key=lambda address: address in self._suspects)
        reason: Exception = ConnectionError("no server of the cluster replied")
        for address in candidates:
            try:
                async with asyncio.timeout(ASK_SECONDS):
                    wire = await self.connection(address, "main")
                    [ranges] = await wire.send(encode("CLUSTER", "SLOTS"))
            except OSError as error:
                reason = error
                continue
            if isinstance(ranges, ReplyError):
                raise ConfigError(
                    f"the server is not part of a Redis Cluster: {str(ranges)[:80]}"
                ) from ranges
            if ranges:
                self._learn(ranges, address)
                return
        raise reason

    def _learn(self, ranges: list[Any], source: Address) -> None:
        slots: list[Address | None] = [None] * SLOTS
        addresses: dict[Address, None] = {}
        for first, last, *servers in ranges:
            for number, server in enumerate(servers):
                host = server[0].decode() if server[0] else source[0]
                address = (host, int(server[1]))
                addresses[address] = None
                if number == 0:
                    slots[first : last + 1] = [address] * (last + 1 - first)
        self._slots, self._addresses = slots, addresses
        self._suspects.clear()

    # Connections.

    async def connection(self, address: Address, use: str) -> Connection:
        """The connection to ``address`` for ``use`` (``main``, ``confirmed``, ``appends``), made at
        need."""
        wire = self._connections.get((address, use))
        if wire is not None and wire.failure is None:
            return wire
        return await self._together((address, use), lambda: self._connect(address, use))

    def at_hand(self, key: str, use: str = "main") -> tuple[Address, Connection] | None:
        """The server of ``key`` and the connection to it for ``use``, where that is open and not in
        doubt."""
        address = self.place(key)
        if address is None or address in self._suspects:
            return None
        wire = self._connections.get((address, use))
        return (address, wire) if wire is not None and wire.failure is None else None

    async def _connect(self, address: Address, use: str) -> Connection:
        wire, answers = await self.open(Connection, address, self._hello)
        for answer in answers:
            if isinstance(answer, ReplyError):
                wire.abort("refused")
                self.suspect(address)
                raise answer
        if self._settings.kind == "sentinel" and answers[-1][0] != b"master":
            wire.abort("not the primary")
            self.suspect(address)
            raise ConnectionError("the server that Sentinel names is not the primary")
        self._connections[(address, use)] = wire
        return wire

    async def open(
        self, kind: Callable[[], Any], address: Address, commands: list[bytes]
    ) -> tuple[Any, list[Any]]:
        """A connection of its own kind, not shared. Raises `ConfigError` when the server or we
        are not trusted, `OSError` when nobody is there."""
        try:
            return await open_wire(kind, address, self._settings, self._context, commands)
        except OSError as error:
            _raise_if_untrusted(error, address)
            self.suspect(address)
            raise


def _raise_if_untrusted(error: Exception, address: Address) -> None:
    if not isinstance(error, ssl.SSLError):
        # TLS 1.3 refuses a client after the connection has been made.
        if error.__cause__ is None or not isinstance(error.__cause__, ssl.SSLError):
            return
        error = error.__cause__
    where = f"{address[0]}:{address[1]}"
    if isinstance(error, ssl.SSLCertVerificationError):
        raise ConfigError(
            f"the certificate of the Redis server at {where} is not trusted: "
            f"{error.verify_message}; name the file of its authority with ssl_ca_certs= "
            "in the store URL"
        ) from error
    if "ALERT" in (error.reason or "") or "WRONG_VERSION" in (error.reason or ""):
        raise ConfigError(
            f"TLS with the Redis server at {where} failed: {error.reason}; check that this port "
            "uses TLS, and whether it requires a client certificate (ssl_certfile=, ssl_keyfile=)"
        ) from error
