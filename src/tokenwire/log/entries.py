"""What the log in memory has of one log, and of one conversation."""

from __future__ import annotations

from tokenwire.express import Tape, Usage

__all__ = ["Conversation", "MemoryLog"]


class MemoryLog(Tape):
    """One log. ``epoch`` is its owner's; while it is open, `Tape.writer` is the same."""

    __slots__ = (
        "closed",
        "closed_at",
        "commands",
        "created",
        "epoch",
        "key",
        "lease_until",
        "meta",
        "owner",
        "thread",
    )

    def __init__(
        self, usage: Usage, owner: str, meta: bytes, thread: str | None, created: float
    ) -> None:
        super().__init__(usage)
        self.owner = owner
        self.meta = meta
        self.thread = thread
        self.created = created
        self.key: str | None = None
        self.epoch = 1
        self.lease_until = 0.0
        self.closed: str | None = None
        self.closed_at = 0.0
        self.commands: list[bytes] = []


class Conversation:
    """A conversation: its logs, oldest first, how many of them are open, and its last use."""

    __slots__ = ("last_use", "logs", "open")

    def __init__(self) -> None:
        self.logs: dict[str, None] = {}
        self.open = 0
        self.last_use = 0.0
