"""Follow a conversation as it happens, across any number of lost connections.

Always true: an event that the server keeps is yielded once and in order; what only passes (who
types, who is there) is yielded as it comes; after a ``reset`` a new ``snapshot`` follows.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, TypeVar

import msgspec

from tokenwire.client.origin import Origin
from tokenwire.client.reconnect import Patience
from tokenwire.client.sse import open_events
from tokenwire.client.stream import OnCut, Reading
from tokenwire.errors import ServerProtocolError
from tokenwire.events.codec import AnyEvent, decode

__all__ = ["FeedReading", "ThreadEvent", "ThreadEvents"]

T = TypeVar("T")


class ThreadEvent(msgspec.Struct, kw_only=True, frozen=True):
    """What happened in a conversation. ``type``: the guide of threads lists them; ``thread``: its
    id; ``at``: Unix milliseconds, 0 where it is an event of a run; ``by``: a person, if one is
    known; ``data``: the whole JSON object; ``cursor``: resume from it, None for what passes."""

    type: str
    thread: str
    data: dict[str, Any]
    at: int = 0
    by: str | None = None
    cursor: str | None = None

    @property
    def run(self) -> str | None:
        """The run that it is about."""
        return self.data.get("run")

    def event(self) -> AnyEvent:
        """The run's own event of a ``run-event``. Raises `InputError` for any other."""
        return decode(msgspec.json.encode(self.data.get("event")))


class FeedReading(Reading[T]):
    """The events of a feed that has no end. ``origin``: the server; ``path``: of its stream, with
    the query; ``after``: a cursor; ``patience``: waits and timeouts; ``on_cut``: called at each
    lost connection."""

    def __init__(
        self,
        origin: Origin,
        path: str,
        *,
        after: str | None = None,
        patience: Patience | None = None,
        on_cut: OnCut | None = None,
    ) -> None:
        super().__init__(
            origin, path, opener=open_events, after=after, patience=patience, on_cut=on_cut
        )

    @abstractmethod
    def _event(self, value: dict[str, Any], cursor: str | None) -> T:
        """The event of a JSON object. Raises `ServerProtocolError`."""

    def _take(self, cursor: str, data: bytes) -> None:
        if self._ended:
            return
        try:
            value = msgspec.json.decode(data, type=dict[str, Any])
            kind = value["type"]
        except (msgspec.DecodeError, KeyError) as error:
            raise ServerProtocolError("the server's stream contains an invalid event") from error
        if kind == "reconnect":
            self._within = float(value.get("after_ms", 1000)) / 1000
            return
        # A block without an id of its own has that of the one before: it only passes.
        is_stored = bool(cursor) and cursor != self._after
        event = self._event(value, cursor if is_stored else None)
        if is_stored:
            self._after = cursor
        self._ready.append((self._after, event))


class ThreadEvents(FeedReading[ThreadEvent]):
    """The events of a conversation after the cursor ``after``; iterate it once, for as long as you
    like. `Thread.events` makes it. ``origin``: the server; ``thread``: the conversation's id;
    ``path``: of its stream, with the query; ``patience``: waits and timeouts; ``on_cut``: called at
    each lost connection."""

    def __init__(
        self,
        origin: Origin,
        thread: str,
        path: str,
        *,
        after: str | None = None,
        patience: Patience | None = None,
        on_cut: OnCut | None = None,
    ) -> None:
        self.thread = thread
        super().__init__(origin, path, after=after, patience=patience, on_cut=on_cut)

    def _event(self, value: dict[str, Any], cursor: str | None) -> ThreadEvent:
        return ThreadEvent(
            type=value["type"],
            thread=value.get("thread") or self.thread,
            data=value,
            at=value.get("at") or 0,
            by=value.get("by"),
            cursor=cursor,
        )
