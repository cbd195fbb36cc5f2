"""A log that this process writes to, and what is missing where a log is not there.

Always true: its lease ends here no later than by the server's clock, since it counts from before
the call that began it.
"""

from __future__ import annotations

import sys
import time

from tokenwire.errors import GoneError, NotFoundError, TokenwireError
from tokenwire.log.read_commands import ReadCommands

__all__ = ["Owned", "Words", "clock", "missing"]

#: A log's words in an append, encoded: its keys; its nonce; its channel; its first key as text;
#: and the key of its records alone.
Words = tuple[bytes, bytes, bytes, str, bytes]


def clock() -> float:
    """Seconds of a monotonic clock that includes the time for which the machine is suspended."""
    if sys.platform == "linux":
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    if sys.platform == "win32":
        return time.monotonic()
    return time.clock_gettime(time.CLOCK_MONOTONIC)


class Owned:
    """A log that this process created or claimed: enough to append to it, and to put it back after
    a failover."""

    __slots__ = (
        "announced_at",
        "bytes",
        "commands",
        "created",
        "epoch",
        "has_readers",
        "key",
        "key_value",
        "lease",
        "lease_start",
        "meta",
        "nonce",
        "noted",
        "owner",
        "permit",
        "permit_end",
        "permit_round",
        "published_at",
        "published_bytes",
        "refreshed",
        "thread",
        "words",
    )

    def __init__(
        self,
        owner: str,
        nonce: str,
        lease: float,
        meta: bytes = b"",
        thread: str | None = None,
        key: str | None = None,
        epoch: int = 1,
        size: int = 0,
    ) -> None:
        self.owner = owner
        self.nonce = nonce
        self.lease = lease
        self.meta = meta
        self.thread = thread
        self.key = key
        self.epoch = epoch
        #: Unix seconds by the server's clock; what the idempotency key holds, where it is known.
        self.created, self.key_value = 0.0, b""
        #: The bytes of its records, and how many of them Redis has noted (or is about to).
        self.bytes = self.noted = size
        #: Whether readers in other processes may listen; loop times at which such a reader last
        #: said so, and at which readers were last told of an append.
        self.has_readers = True
        self.announced_at = self.published_at = 0.0
        #: The bytes of the log when they were.
        self.published_bytes = size
        #: When its lease began, by `clock`; it lasts for `lease` seconds.
        self.lease_start = clock()
        #: The commands that this process has read.
        self.commands = ReadCommands()
        #: When its idempotency key and its documents were kept alive last; monotonic seconds.
        self.refreshed = time.monotonic()
        self.words: Words | None = None
        #: Until when Redis takes appends without a look at the owner, by the server's clock, in
        #: milliseconds; until when they are sent so, in monotonic seconds; and `Calls.round` of
        #: the answer that said so.
        self.permit = 0
        self.permit_end = 0.0
        self.permit_round = 0

    @property
    def lease_end(self) -> float:
        """When another process may take the log over at the earliest, by `clock`."""
        return self.lease_start + self.lease


def missing(state: str) -> TokenwireError:
    """The error for a log that is not there."""
    if state == "gone":
        return GoneError("the log has expired; its records are no longer stored")
    return NotFoundError("no log has this name", what="log")
