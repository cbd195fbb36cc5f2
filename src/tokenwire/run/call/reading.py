"""Reads of one answer as batches of events; plain deltas past the run's task, where they may.

While a run's task waits for its provider, nearly all that comes is one more delta of an open part,
and to wake the task for it costs several times what the delta does. So whoever brings the bytes
hands them over here, in the same turn of the event loop, and the task sleeps on.

Always true: events pass in order and once; what `Deliver` does not take is kept, decoded, for the
task, which is woken and has it before it reads on; failures are raised in the task, never in the
turn that brought the bytes.
"""

from __future__ import annotations

from collections.abc import Callable

from tokenwire.errors import ProtocolError
from tokenwire.events.model import Event, Heartbeat, PartDelta
from tokenwire.providers.base import Decoder
from tokenwire.run.call.pacing import Pacer, ticks
from tokenwire.run.call.source import Source
from tokenwire.run.inbox import Inbox

__all__ = ["Deliver", "Reading"]

#: Takes events on their way at once. Returns None when it took them, the events when it took none
#: of them, and ``[]`` when it took them but the task has to look after them.
Deliver = Callable[[list[Event]], list[Event] | None]

#: A model's answer larger than this is a fault, not an answer.
MOST_RESPONSE_BYTES = 64 << 20


def _is_delta(event: Event) -> bool:
    return isinstance(event, PartDelta)


class Reading:
    """The answer of one `Source`, decoded by ``decoder``."""

    __slots__ = (
        "_decoder",
        "_deliver",
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
        self, source: Source, decoder: Decoder, inbox: Inbox, deliver: Deliver | None = None
    ) -> None:
        self._source, self._decoder, self._inbox = source, decoder, inbox
        self._deliver = deliver
        self._pacer, self._ticks = Pacer(), ticks()
        self._fast = self._holds = False
        self._total = 0
        self._rest: list[Event] | None = None
        self._failure: Exception | None = None

    async def next(self, *, express: bool = False) -> list[Event] | None:
        """The next events; None at the end of the body. With ``express``, plain deltas go to
        `Deliver` without coming back here; then ``[]`` says that it needs its task.

        Raises `NetworkError` and other `ProviderError`, `FramingError`, `ProtocolError`.
        """
        if self._fast and not self._holds and self._inbox.cancelled is None:
            await self._ticks.wait()
        take = self._take if express and self._deliver is not None else None
        while True:
            data = await self._source.read(take)
            if self._failure is not None:
                failure, self._failure = self._failure, None
                raise failure
            if self._rest is not None:
                rest, self._rest = self._rest, None
                return rest
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

    def _take(self, data: bytes) -> bool:
        """Bytes came while the task waits: whether it may wait on."""
        try:
            events = self._feed(data)
            if not events:
                return True
            rest: list[Event] | None = events
            if self._deliver is not None and all(map(_is_delta, events)):
                rest = self._deliver(events)
        except Exception as error:
            self._failure = error
            return False
        self._rest = rest
        return rest is None
