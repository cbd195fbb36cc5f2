"""Reads of one answer as batches of events; plain deltas on the express way, where they may.

While a run's task waits for its provider, nearly every read is one more delta of an open part, and
waking the task for it costs several times what the delta does. So whoever brings the bytes calls
`Reading.take`, in the same turn of the event loop, and the task sleeps on.

Always true: events pass in order and once; events that `Express` does not take stay here, decoded,
and the task returns them before it reads on; failures are raised in the task, never in the turn
that brought the bytes.
"""

from __future__ import annotations

from typing import Protocol

from tokenwire.errors import ProtocolError
from tokenwire.events.model import Event, Heartbeat, PartDelta
from tokenwire.express import NO, SETTLE, YES, Taken
from tokenwire.providers.base import Decoder
from tokenwire.run.call.pacing import Pacer, ticks
from tokenwire.run.call.source import Source
from tokenwire.run.inbox import Inbox

__all__ = ["Express", "Reading"]

#: A model's answer larger than this is a fault, not an answer.
MOST_RESPONSE_BYTES = 64 << 20


class Express(Protocol):
    """Where plain deltas go past the run's task."""

    def take(self, events: list[Event]) -> Taken:
        """Take deltas of open parts at once, all or none of them."""
        ...

    async def settle(self) -> None:
        """After ``SETTLE``: wait until everything that was taken is where it belongs."""
        ...


def _is_delta(event: Event) -> bool:
    return isinstance(event, PartDelta)


class Reading:
    """The answer of one `Source`, decoded by ``decoder``."""

    __slots__ = (
        "_decoder",
        "_express",
        "_failure",
        "_fast",
        "_holds",
        "_inbox",
        "_pacer",
        "_rest",
        "_source",
        "_ticks",
        "_total",
    )

    def __init__(
        self, source: Source, decoder: Decoder, inbox: Inbox, express: Express | None = None
    ) -> None:
        self._source, self._decoder, self._inbox = source, decoder, inbox
        self._express = express
        self._pacer, self._ticks = Pacer(), ticks()
        self._fast = self._holds = False
        self._total = 0
        self._rest: list[Event] | None = None
        self._failure: Exception | None = None

    async def next(self, *, express: bool = False) -> list[Event] | None:
        """The next events; None at the end of the body. With ``express``, plain deltas may go to
        `Express` instead.

        Raises `NetworkError` and other `ProviderError`, `FramingError`, `ProtocolError`.
        """
        if self._fast and not self._holds and self._inbox.cancelled is None:
            await self._ticks.wait()
        way = self._express if express else None
        take = self.take if way is not None else None
        while True:
            data = await self._source.read(take)
            if data is None and way is not None:
                if self._failure is not None:
                    failure, self._failure = self._failure, None
                    raise failure
                if self._rest is not None:
                    rest, self._rest = self._rest, None
                    return rest
                await way.settle()
                continue
            if not data:
                return None
            events = self._feed(data)
            if events:
                return events

    def _feed(self, data: bytes) -> list[Event]:
        """The events of ``data``, without a lone keep-alive."""
        self._total += len(data)
        if self._total > MOST_RESPONSE_BYTES:
            raise ProtocolError(f"the model's answer exceeds {MOST_RESPONSE_BYTES} bytes")
        events = self._decoder.feed(data)
        if not events or (len(events) == 1 and type(events[0]) is Heartbeat):
            return []
        self._fast = self._pacer.read(self._source.touch(), len(data), len(events))
        if self._fast:
            go_on = self._source.hold()
            self._holds = go_on is not None
            if go_on is not None:
                self._ticks.call(go_on)
        return events

    def take(self, data: bytes) -> Taken:
        """Bytes arrived while the task waits: they are decoded here in any case."""
        try:
            events = self._feed(data)
            if not events:
                return YES
            outcome = NO
            if isinstance(events[0], PartDelta) and (
                len(events) == 1 or all(map(_is_delta, events))
            ):
                outcome = self._express.take(events)  # type: ignore[union-attr]
        except Exception as error:
            self._failure = error
            return SETTLE
        if outcome is NO:
            self._rest = events
            return SETTLE
        return outcome
