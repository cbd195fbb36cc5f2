"""What a Redis store is and promises, asked of every primary when the store is opened; and a
rehearsal of what a run does to it, so that a right that is missing is told at the start.

Always true: the level that is reported was found on the live servers; a stronger one that the URL
asks for is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from tokenwire.errors import ConfigError, LogError, StoreFullError
from tokenwire.log.base import Durability, Store
from tokenwire.log.redis.connection import Address, ReplyError
from tokenwire.log.redis.link import PASSING, Confirm, Link
from tokenwire.log.redis.url import LEVELS

__all__ = ["REHEARSER", "check_store", "rehearse"]

#: The owner of the log of a rehearsal.
REHEARSER = "start"

#: Names that are tried to find a key which one server of a cluster carries.
MOST_NAMES = 100_000


async def check_store(link: Link) -> None:
    """Set the link's ``durability``, ``notes`` and ``confirm``; `ConfigError` for a store that
    evicts, is too old, or keeps less than the URL asks for."""
    nodes, settings = link.nodes, link.settings
    assert nodes is not None
    await nodes.refresh()
    servers = await asyncio.gather(*(_ask(link, address) for address in nodes.primaries()))
    notes: list[str] = []
    levels = []
    for server, config in servers:
        version = _version(server)
        if version < (7, 0):
            number = server.get("redis_version", "?")
            raise ConfigError(f"Redis {number} is too old; tokenwire needs Redis 7.0 or Valkey")
        _check_memory(config, notes)
        levels.append(_level(config, notes))
    alone: Durability = min(levels, key=LEVELS.index, default="memory")
    can_wait = all(_version(server) >= (7, 2) for server, _ in servers)
    # With a file that is written once a second, the server can say when that has happened.
    disk = settings.durability == "disk" and alone == "process" and can_wait
    level: Durability = "disk" if disk else alone
    if settings.replicas:
        level = "replica"
        if settings.durability == "disk" and not disk and alone != "disk":
            _refuse(link, alone, notes)
    if LEVELS.index(level) < LEVELS.index(settings.durability):
        _refuse(link, level, notes)
    confirm = None
    if disk or settings.replicas:
        confirm = Confirm(settings.replicas, disk=disk, seconds=settings.timeout / 4)
        for address in nodes.primaries():
            await _try(link, confirm, address)
    link.durability, link.confirm = level, confirm
    link.notes = [] if disk else list(dict.fromkeys(notes))


def _refuse(link: Link, level: str, notes: list[str]) -> None:
    hint = ""
    if link.settings.durability == "disk" and level == "process":
        hint = " Redis 7.2 and newer can confirm each append from such a file (WAITAOF)."
    raise ConfigError(
        f"the store URL requires durability={link.settings.durability}, "
        f"but this Redis provides {level!r}. {' '.join(dict.fromkeys(notes))}{hint}"
    )


async def _try(link: Link, confirm: Confirm, address: Address) -> None:
    """One confirmed write, on the server that will be asked for it."""
    nodes = link.nodes
    assert nodes is not None
    names = (f"{link.settings.prefix}:{{confirm-{number}}}" for number in range(MOST_NAMES))
    key = next((name for name in names if nodes.place(name) == address), None)
    if key is None:
        return  # of a cluster: it has next to no slots
    wire = await nodes.connection(address, "confirmed")
    async with asyncio.timeout(link.settings.timeout / 3):
        answers = await wire.send(confirm.commands(key), 2)
    missing = confirm.missing(answers)
    if missing:
        raise ConfigError(
            f"the Redis at {address[0]}:{address[1]} does not confirm what the store URL requires: "
            f"{missing}; connect the replicas first, or lower replicas= or durability="
        )


def _version(server: dict[str, str]) -> tuple[int, int]:
    # Valkey says here which Redis it is compatible with.
    major, minor = (server.get("redis_version", "0.0") + ".0").split(".")[:2]
    return int(major), int(minor)


async def _ask(link: Link, address: Address) -> tuple[dict[str, str], dict[str, str]]:
    server = await _section(link, address, "server")
    config: dict[str, str] = {}
    try:
        for name in ("maxmemory*", "append*"):
            answer = await link.ask(address, "CONFIG", "GET", name)
            words = [word.decode() for word in answer]
            config |= dict(zip(words[::2], words[1::2], strict=True))
    except ReplyError as error:
        if error.code in PASSING:
            raise
        config = {}  # not allowed here, as on many managed servers
    return server, config


async def _section(link: Link, address: Address, name: str) -> dict[str, str]:
    answer: Any = await link.ask(address, "INFO", name)
    lines = answer.decode().splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def _check_memory(config: dict[str, str], notes: list[str]) -> None:
    policy = config.get("maxmemory-policy", "noeviction")
    if policy == "noeviction":
        return
    message = f"maxmemory-policy is {policy}: Redis may evict open logs; use noeviction."
    if config.get("maxmemory", "0") != "0":
        raise ConfigError(message)
    notes.append(message)


def _level(config: dict[str, str], notes: list[str]) -> Durability:
    if not config:
        notes.append("CONFIG is not allowed here: the durability of a record is unknown.")
        return "memory"
    if config.get("appendonly") != "yes":
        notes.append("appendonly is off: a restart of Redis loses every log.")
        return "memory"
    if config.get("appendfsync") == "always":
        return "disk"
    notes.append(
        "appendfsync is not always: a power cut, or a kill of Redis while its disk is slow, "
        "may lose the last second or two."
    )
    return "process"


async def rehearse(store: Store, name: str) -> None:
    """Create, own, write, end, read and erase the log ``name``. Raises `ConfigError` for what this
    user may not do. A full store passes: what is in it can still be read, and readiness tells."""
    try:
        await store.create(name, owner=REHEARSER, thread=name, key=name, lease=1.0)
        await store.command(name, b"command")
        await store.commands(name)
        await store.release(name, epoch=1)
        await store.claim(name, owner=REHEARSER, lease=1.0)
        await store.renew({name: 2}, owner=REHEARSER, lease=1.0)
        await store.append(name, epoch=2, first=1, records=[b"record"])
        await store.append(name, epoch=2, first=2, records=[], close="complete")
        await store.read(name, fresh=True)
        await store.thread(name)
        await store.orphans(most=1)
        await store.set_document(name, name, b"document")
        await store.documents(name)
        await store.set_document(name, name, None)
    except StoreFullError:
        pass
    finally:
        with contextlib.suppress(LogError):
            await store.delete(name)
