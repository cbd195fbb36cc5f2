"""Follow the list of one's conversations as it changes, across any number of lost connections.

Always true: an event is yielded once and in order; after a ``reset`` a new ``snapshot`` follows.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from tokenwire.client.thread_events import FeedReading
from tokenwire.errors import ServerProtocolError

__all__ = ["ListEvent", "ListEvents", "ThreadEntry"]


class ThreadEntry(msgspec.Struct, kw_only=True, frozen=True):
    """A conversation in the list. ``thread``: its name for `Client.thread`; ``updated``: Unix
    seconds of its newest run; ``title``: as a person set it, or its first question; ``state``: what
    it does, None for nothing; ``queue``: how many turns wait in it. Of a shared one ``id``: by
    which all of its members reach it; ``role``: of the caller; ``members``: how many it has."""

    thread: str
    updated: float
    title: str | None = None
    state: Literal["running", "waiting"] | None = None
    queue: int = 0
    id: str | None = None
    role: str | None = None
    members: int | None = None


class ListEvent(msgspec.Struct, kw_only=True, frozen=True):
    """What changed in the list. ``type``: ``snapshot`` (``threads``: the newest), ``thread``
    (``entry``: how it stands in the list now), ``thread-gone``, or ``reset``; ``thread``: its name;
    ``at``: Unix milliseconds; ``data``: the whole JSON object; ``cursor``: resume from it, None for
    a ``reset``."""

    type: str
    data: dict[str, Any]
    at: int = 0
    thread: str | None = None
    entry: ThreadEntry | None = None
    threads: list[ThreadEntry] = []
    cursor: str | None = None


class ListEvents(FeedReading[ListEvent]):
    """What changes in the list, after the cursor ``after``; iterate it once, for as long as you
    like. `Client.threads` makes it. ``origin``: the server; ``path``: its stream's;
    ``patience``: waits and timeouts; ``on_cut``: called at each lost connection."""

    def _event(self, value: dict[str, Any], cursor: str | None) -> ListEvent:
        try:
            return msgspec.convert({**value, "data": value, "cursor": cursor}, ListEvent)
        except msgspec.ValidationError as error:
            raise ServerProtocolError("the server's stream contains an invalid event") from error
