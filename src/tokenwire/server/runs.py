"""A run's description as the routes return it."""

from __future__ import annotations

from typing import Any

import msgspec

from tokenwire.events.model import HistoryDescription, RunStatus
from tokenwire.events.principal import parts_of
from tokenwire.relay.conversation.history import described
from tokenwire.relay.conversation.queue import WhileBusy
from tokenwire.relay.description import RunInfo

__all__ = ["RunDescription", "describe"]


class RunDescription(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A run. ``tail``: the number of its newest event; ``created``: Unix seconds; ``thread``: its
    conversation; ``by``: the plain id of who started it; ``events``: the path of its events;
    ``while_busy``: where this request started it as a turn of a conversation, the rule that it came
    under."""

    id: str
    state: RunStatus
    tail: int
    model: str
    thread: str | None = None
    by: str | None = None
    created: float
    metadata: dict[str, Any] | None = None
    history: HistoryDescription | None = None
    events: str
    while_busy: WhileBusy | None = None


def describe(info: RunInfo, mount: str) -> dict[str, Any]:
    """A `RunInfo` as JSON; ``mount``: the prefix that paths have in the application."""
    description = RunDescription(
        id=info.id,
        state=info.state,
        tail=info.tail,
        model=info.model,
        thread=info.thread,
        by=parts_of(info.principal)[0] or None,
        created=info.created,
        metadata=info.metadata,
        history=described(info.history),
        events=f"{mount}/v1/runs/{info.id}/events",
    )
    return msgspec.to_builtins(description)
