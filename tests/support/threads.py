"""A device that follows a conversation over HTTP: what tests of live threads share."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from tokenwire.framing.sse import Frame, SSEDecoder

Event = dict[str, Any]


class Follower:
    """One open stream; ``events`` are those that were read."""

    def __init__(self, answer: httpx.Response) -> None:
        self.events: list[Event] = []
        self.cursors: list[str | None] = []
        self._bytes = answer.iter_bytes()
        #: What arrived together with an event that was waited for.
        self._later: list[Frame] = []
        self._decoder = SSEDecoder()
        self._id = ""
        self.has_ended = False

    @property
    def cursor(self) -> str:
        """That of the newest event that has one."""
        return next(cursor for cursor in reversed(self.cursors) if cursor)

    def types(self, *kinds: str) -> list[str]:
        """The types of what was read; only of ``kinds``, if any."""
        return [e["type"] for e in self.events if not kinds or e["type"] in kinds]

    def until(self, condition: Callable[[Follower], bool]) -> Follower:
        """Read on until it holds, event by event. The client's own timeout bounds it."""
        while not condition(self):
            while not self._later:
                data = next(self._bytes, None)
                if data is None:
                    self.has_ended = True
                    raise AssertionError(f"the stream ended: {self.events[-3:]}")
                self._later = self._decoder.feed(data)
            self._take(self._later.pop(0))
        return self

    def rest(self) -> Follower:
        """Read to its end."""
        for data in self._bytes:
            self._later += self._decoder.feed(data)
        for frame in self._later:
            self._take(frame)
        self._later = []
        self.has_ended = True
        return self

    def _take(self, frame: Frame) -> None:
        self.events.append(json.loads(frame.data))
        # A frame without an id of its own has that of the one before.
        self.cursors.append(frame.id if frame.id and frame.id != self._id else None)
        self._id = frame.id


def seen(kind: str, number: int = 1) -> Callable[[Follower], bool]:
    """So many events of a type were read."""
    return lambda follower: len(follower.types(kind)) >= number


@contextmanager
def following(
    client: httpx.Client, thread: str, *, after: str | None = None, **query: str
) -> Iterator[Follower]:
    """A stream of a conversation, open."""
    headers = {"last-event-id": after} if after is not None else {}
    headers |= query.pop("headers", {})  # type: ignore[arg-type]
    path = f"/v1/threads/{thread}/events"
    with client.stream("GET", path, params=query, headers=headers) as answer:
        assert answer.status_code == 200, answer.read()
        yield Follower(answer)


@contextmanager
def list_of(
    client: httpx.Client, *, after: str | None = None, headers: dict[str, str] | None = None
) -> Iterator[Follower]:
    """A stream of the list of conversations, open."""
    all_headers = dict(headers or {})
    if after is not None:
        all_headers["last-event-id"] = after
    path = "/v1/threads?live=sse"
    with client.stream("GET", path, headers=all_headers) as answer:
        assert answer.status_code == 200, answer.read()
        yield Follower(answer)


def pages(client: httpx.Client, thread: str, after: str, **query: str) -> list[Event]:
    """All that is there after a cursor, page by page."""
    events: list[Event] = []
    while True:
        params = {"live": "no", "after": after, **query}
        page = client.get(f"/v1/threads/{thread}/events", params=params).json()
        events += [item["event"] for item in page["events"] if "cursor" in item]
        if page["next"] == after:
            return events
        after = page["next"]
