"""The appends of a group that may be sent under a permit, each as a push: one loop over all of
them, in C where the twin is (`speedups/`), as it happens at every token.

Always true: the bytes of each log that is packed are counted in its `Owned` as if they were stored;
whoever does not store them takes them off again (`unpack_items`).
"""

from __future__ import annotations

from typing import NamedTuple

from tokenwire.log import spool as spools
from tokenwire.log.redis.appending.owned import Owned
from tokenwire.log.spool import MOST_PIECES, Item

__all__ = [
    "MOST_OFFSET",
    "NOTED_BYTES",
    "PUBLISH_SECONDS",
    "Package",
    "pack",
    "pack_items",
    "push",
    "unpack_items",
]

#: The highest offset of an append in a short form.
MOST_OFFSET = 999_999_999
#: Where no reader in another process is known, readers are told nothing but at an append so many
#: seconds after the last one of which they were: those of the release before do not say that they
#: are there.
PUBLISH_SECONDS = 2.0
#: Bytes of a log that Redis has not noted, at most (`read.lua` knows the number): so many are
#: missing to a process that takes it over.
NOTED_BYTES = 16_384


class Package(NamedTuple):
    """Of its ``items``: when their permits end, how many records they are, and a command for each.
    ``rest`` goes another way."""

    items: list[Item]
    rest: list[Item]
    until: int
    size: int
    commands: bytes


def push(key: bytes, records: list[bytes]) -> bytes:
    """The command that appends ``records`` to a list that is there; ``key``: its word."""
    words = b"".join([b"$%d\r\n%b\r\n" % (len(record), record) for record in records])
    return b"*%d\r\n$6\r\nRPUSHX\r\n%b%b" % (2 + len(records), key, words)


def _size_of(item: Item) -> int:
    spool, start, end = item
    return sum(map(len, spool.records[start:end]))


def pack_items(
    items: list[Item],
    owned_of: dict[str, Owned],
    apart: set[str],
    this_round: int,
    now: float,
    publish_seconds: float,
    noted_bytes: int,
    most_offset: int,
) -> Package:
    """Pack what may be sent without a look at its owner. ``apart``: logs with an append in front
    that is looked at."""
    members: list[Item] = []
    rest: list[Item] = []
    commands: list[bytes] = []
    until, count = 1 << 53, 0
    for item in items:
        spool, start, end = item
        owned = owned_of.get(spool.log)
        if (
            owned is None
            or not start < end <= start + MOST_PIECES
            or end > most_offset
            or owned.has_readers
            or owned.epoch != spool.epoch
            or owned.permit_round != this_round
            or now >= owned.permit_end
            or now - owned.published_at > publish_seconds
            or owned.words is None
            or spool.log in apart
            or owned.bytes + _size_of(item) - owned.noted > noted_bytes
        ):
            rest.append(item)
            continue
        owned.bytes += _size_of(item)
        count += end - start
        until = min(until, owned.permit)
        members.append(item)
        commands.append(push(owned.words[4], spool.records[start:end]))
    return Package(members, rest, until, count, b"".join(commands))


_native = spools.native()
if _native is not None:
    _native.bind_owned(Owned)


def pack(
    items: list[Item], owned_of: dict[str, Owned], apart: set[str], this_round: int, now: float
) -> Package:
    """`pack_items`, in C where that is installed."""
    bounds = (PUBLISH_SECONDS, NOTED_BYTES, MOST_OFFSET)
    if _native is None:
        return pack_items(items, owned_of, apart, this_round, now, *bounds)
    parts: tuple[list[Item], list[Item], int, int, bytes] = _native.pack(
        items, owned_of, apart, this_round, now, *bounds
    )
    return Package(*parts)


def unpack_items(items: list[Item], owned_of: dict[str, Owned]) -> None:
    """What was packed is not known to be stored."""
    for item in items:
        spool = item[0]
        owned = owned_of.get(spool.log)
        if owned is not None and owned.epoch == spool.epoch:
            owned.bytes -= _size_of(item)
            owned.permit_end = 0.0
