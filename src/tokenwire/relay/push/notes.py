"""Who wants to hear of a task: the configurations of one run, as the store keeps them.

Always true: a run has at most ten; each knows the last event of the run that it was told, so that
the order is the log's, whoever sends.
"""

from __future__ import annotations

from typing import Any

import msgspec

from tokenwire.errors import InputError
from tokenwire.relay.upkeep.notes import Attempts, end_check_time

__all__ = ["MOST_CONFIGS", "PushConfig", "PushNote", "decoded", "due"]

MOST_CONFIGS = 10


class PushConfig(Attempts, kw_only=True, omit_defaults=True):
    """One receiver. ``principal``: whose it is; ``offset``: of the last event that was
    received; ``is_over``: it was told of the end."""

    id: str
    url: str
    principal: str = ""
    token: str = ""
    scheme: str = ""
    credentials: str = ""
    offset: int = 0
    is_over: bool = False

    @property
    def is_open(self) -> bool:
        """Whether it may have something to hear."""
        return not self.is_over and not self.is_failed

    def headers(self) -> dict[str, str]:
        """What its messages carry."""
        headers = {"content-type": "application/a2a+json"}
        if self.token:
            headers["x-a2a-notification-token"] = self.token
        if self.scheme and self.credentials:
            headers["authorization"] = f"{self.scheme} {self.credentials}"
        return headers

    def shown(self, task: str) -> dict[str, Any]:
        """As its owner reads it: without credentials."""
        value = {"id": self.id, "taskId": task, "url": self.url}
        if self.token:
            value["token"] = self.token
        return {**value, "authentication": {"scheme": self.scheme}} if self.scheme else value


class PushNote(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What the store has of one run; `Noted`. ``version``: another one after each change."""

    since: float
    ends: float = 0.0
    configs: list[PushConfig] = []
    has_ended: bool = False
    version: str = ""

    def put(self, config: PushConfig) -> None:
        """Add a configuration, or replace its owner's of the same id. Raises `InputError`."""
        others = [c for c in self.configs if (c.id, c.principal) != (config.id, config.principal)]
        if len(others) >= MOST_CONFIGS:
            raise InputError(f"a task has at most {MOST_CONFIGS} push notification configurations")
        self.configs = [*others, config]


def decoded(data: bytes) -> PushNote:
    """A note of the store."""
    return msgspec.json.decode(data, type=PushNote)


def due(data: bytes) -> float | None:
    """When a note is to be looked at: see `Notes`."""
    note = decoded(data)
    waiting = [c.until for c in note.configs if c.is_open]
    if not waiting:
        return float("inf")
    times = [until for until in waiting if until > 0.0 or note.has_ended]
    end = None if note.has_ended else end_check_time(note)
    times += [] if end is None else [end]
    return min(times) if times else None
