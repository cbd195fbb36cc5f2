"""Stored OpenAI responses: retrieved, polled, and streamed from a sequence number on.

Always true: a response goes on in time whether or not anybody reads it; because an answer is a
function of its request, reading it again makes the same bytes again instead of keeping them.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from tokenwire.simulator.answering import Prepared, spent, timed_chunks
from tokenwire.simulator.playback import Action, Close, Send, Silence
from tokenwire.simulator.script import Fail
from tokenwire.simulator.settings import Settings
from tokenwire.simulator.wires.openai_responses import OpenAIResponses, response_id

__all__ = ["Stored", "StoredResponses"]

#: Responses kept; the oldest are forgotten.
MAX_STORED = 1_000


class Stored(msgspec.Struct):
    """A response on its way or over."""

    prepared: Prepared
    started: float
    #: Seconds until it is over; infinite for one that never is.
    duration: float
    cancelled: bool = False


class StoredResponses:
    """Responses by id."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._wire = OpenAIResponses()
        self._stored: dict[str, Stored] = {}

    def add(self, prepared: Prepared, now: float) -> Stored:
        """Keep a response that starts now."""
        duration = 0.0
        for chunk in timed_chunks(prepared, self._settings):
            duration += float("inf") if chunk.kind in ("stall", "cut") else chunk.delay
        while len(self._stored) >= MAX_STORED:
            del self._stored[next(iter(self._stored))]
        stored = Stored(prepared, now, duration)
        self._stored[response_id(prepared.identity)] = stored
        return stored

    def get(self, identifier: str) -> Stored | None:
        """The response of this id."""
        return self._stored.get(identifier)

    def delete(self, identifier: str) -> bool:
        """Forget it."""
        return self._stored.pop(identifier, None) is not None

    def body(self, stored: Stored, now: float) -> dict[str, object]:
        """The response object as it is now."""
        prepared = stored.prepared
        ask, identity, script = prepared.ask, prepared.identity, prepared.script
        if stored.cancelled:
            return self._wire.unfinished(ask, identity, "cancelled")
        if now < stored.started + stored.duration:
            status = "queued" if now - stored.started < 0.01 else "in_progress"
            return self._wire.unfinished(ask, identity, status)
        failed = next((step for step in script.steps if isinstance(step, Fail)), None)
        if failed is not None:
            error = {"code": failed.code, "message": failed.message}
            return self._wire.unfinished(ask, identity, "failed", error)
        return self._wire.complete(ask, script, spent(prepared), identity)

    def frames(self, stored: Stored, after: int, now: float) -> Iterator[Action]:
        """The events after a sequence number; past ones at once, later ones in their time."""
        clock, due, number = now - stored.started, 0.0, -1
        for chunk in timed_chunks(stored.prepared, self._settings):
            due += chunk.delay
            if chunk.kind == "stall":
                yield Silence()
                return
            if chunk.kind == "cut":
                yield Close("fin")
                return
            for frame in chunk.data.split(b"\n\n")[:-1]:
                number += 1
                if number <= after:
                    continue
                delay, clock = max(0.0, due - clock), max(clock, due)
                yield Send(delay, frame + b"\n\n")
