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

from tokenwire.contracts import fulfils
from tokenwire.errors import ProtocolError
from tokenwire.events.model import Event, Heartbeat, PartDelta, Raw, Usage
from tokenwire.express import NO, SETTLE, YES, Hold, Intake, Loan, Taken
from tokenwire.providers.base import Decoder, ReleasedDecoder, SteadyDecoder
from tokenwire.run.call.lane import Lane, Way, switch
from tokenwire.run.call.pacing import FAST, SLOW, Pacer, ticks
from tokenwire.run.call.source import Source
from tokenwire.run.inbox import Inbox

__all__ = ["Express", "Reading", "Sink"]

#: Seconds to wait for more after a finish reason: the usage, the wire's last marker.
AFTER_FINISH = 2.0
#: After a finish reason and the usage that follows it, only the marker is due.
AFTER_USAGE = 0.25
#: A model's answer larger than this is a fault, not an answer.
MOST_RESPONSE_BYTES = 64 << 20


class Sink(Protocol):
    """The end of the express way inside a run: it takes events without waiting."""

    #: Whether `take` may be called.
    ready: bool

    def take(self, events: list[Event]) -> Taken:
        """Take the events; never ``NO``."""
        ...

    def take_json(self, data: bytes) -> Taken:
        """Take one event as its canonical JSON."""
        ...

    def lend(self) -> Loan | None:
        """What is needed to append by hand; None where events have to be given here. Until `repay`
        nothing is given here."""
        ...

    def repay(self, check: bytes, tail: int, size: int) -> None:
        """By hand records were appended up to the offset ``tail``, of ``size`` bytes together; the
        newest has the check ``check``."""
        ...

    async def settle(self) -> None:
        """Wait until all events that were taken are written. Raises what prevents it."""
        ...


class Express(Way, Protocol):
    """Where plain deltas go past the run's task."""

    def take(self, events: list[Event]) -> Taken:
        """Take deltas of open parts at once, all or none of them."""
        ...

    async def settle(self) -> None:
        """After ``SETTLE``: wait until everything that was taken is where it belongs."""
        ...


def _is_delta(event: Event) -> bool:
    return isinstance(event, PartDelta)


def _are_alive(events: list[Event]) -> bool:
    """Whether the events say no more than that the server is alive."""
    return not events or (
        type(events[-1]) is Heartbeat
        and all(type(e) is Heartbeat or type(e) is Raw for e in events)
    )


class Reading:
    """The answer of one `Source`, decoded by ``decoder``."""

    __slots__ = (
        "_decoder",
        "_distrusts",
        "_ending",
        "_express",
        "_failure",
        "_hold",
        "_inbox",
        "_intake",
        "_lane",
        "_over",
        "_pacer",
        "_rest",
        "_source",
        "_ticks",
        "_total",
        "_waits",
    )

    def __init__(
        self, source: Source, decoder: Decoder, inbox: Inbox, express: Express | None = None
    ) -> None:
        self._source, self._decoder, self._inbox = source, decoder, inbox
        self._express = express
        self._pacer, self._ticks = Pacer(), ticks()
        #: The source's, while ticks read it, or the store's intake; else, if the next read waits
        #: for a tick here.
        self._hold: Hold | None = None
        self._intake: Intake | None = None
        self._waits = self._over = False
        # A finish reason was seen; one came before the end, so that none counts as the end.
        self._ending = self._distrusts = False
        self._total = 0
        #: None before it is tried, False where there is none.
        self._lane: Lane | bool | None = None if switch.on else False
        self._rest: list[Event] | None = None
        self._failure: Exception | None = None

    def close(self) -> None:
        """Nothing more is read: let go of what has this reading, or itself."""
        self._lane = False
        if self._hold is not None:
            self._leave()
            self._hold.release()
            self._hold = None
        if fulfils(self._decoder, ReleasedDecoder):
            self._decoder.release()

    async def next(self, *, express: bool = False) -> list[Event] | None:
        """The next events; None at the end of the answer, or of the body. With ``express``, plain
        deltas may go to `Express` instead.

        Raises `NetworkError` and other `ProviderError`, `FramingError`, `ProtocolError`.
        """
        if self._waits and not self._inbox.ends_calls:
            await self._ticks.wait()
        if self._over:
            return None
        way = self._express if express else None
        take = self.take if way is not None else None
        while True:
            data = await self._source.read(take)
            if self._failure is not None:
                failure, self._failure = self._failure, None
                raise failure
            if data is None and way is not None:
                if self._rest is not None:
                    rest, self._rest = self._rest, None
                    return rest
                await way.settle()
            elif not data:
                return None
            elif events := self._feed(data):
                return events
            if self._over:
                return None

    def _feed(self, data: bytes) -> list[Event]:
        """The events of ``data``, without lone keep-alives. A payload that is kept although it says
        no more than one (`Raw` before `Heartbeat`) is no output either."""
        self._total += len(data)
        if self._total > MOST_RESPONSE_BYTES:
            raise ProtocolError(f"the model's answer exceeds {MOST_RESPONSE_BYTES} bytes")
        decoder = self._decoder
        events = decoder.feed(data)
        if decoder.terminal_seen or decoder.closed or self._ending:
            self._near_end(events)
        if not events:
            if b"\n" in data:  # blank lines, and payloads that say nothing, are keep-alives as well
                self._source.alive()
            return events
        if type(events[-1]) is Heartbeat and _are_alive(events):
            self._source.alive()
            return [event for event in events if type(event) is Raw]
        self._waits = False
        if self._pacer.read(self._source.touch(), len(data), len(events)):
            self.wait_for_tick()
        return events

    def _join(self, lane: Lane) -> None:
        """Let the store have the socket read when it takes records, if it does so."""
        intake = lane._tape.intake if lane._tape is not None else None
        hold = self._source.hold() if intake is not None else None
        if hold is None or intake is None:
            return
        if hold.fd < 0:
            hold.release()
            return
        self._hold, self._intake = hold, intake
        intake.join(hold.fd, hold.pull, self._left)

    def _leave(self) -> None:
        """Nobody but this reading reads the socket, which is still on hold."""
        hold, intake, self._intake = self._hold, self._intake, None
        if hold is not None and intake is not None:
            intake.leave(hold.fd, hold.pull)

    def _left(self) -> None:
        """The event loop has to read the socket."""
        hold, self._hold, self._intake = self._hold, None, None
        if hold is not None:
            hold.release()

    def wait_for_tick(self) -> None:
        """Leave the socket alone until the next tick, which reads it, if the source supports
        that."""
        hold = self._hold
        if self._intake is not None:
            self._leave()
        elif hold is not None:
            return
        else:
            self._hold = hold = self._source.hold()
        self._waits = hold is None
        if hold is not None:
            if isinstance(self._lane, Lane):
                self._lane._wait_below = 0.0
            self._ticks.join(self._tick)

    def _tick(self) -> bool:
        """Read the socket; whether the next tick does so as well."""
        hold = self._hold
        if hold is None:
            return False
        has_read = hold.pull()
        if has_read and self._mean_gap() < SLOW:
            return True
        self._hold = None
        hold.release()
        if isinstance(self._lane, Lane):
            self._lane._wait_below = FAST
            if has_read:
                self._join(self._lane)
        return False

    def _mean_gap(self) -> float:
        lane, watch = self._lane, self._source.watch
        is_on_lane = isinstance(lane, Lane) and watch is not None and watch.progress is lane
        return lane._mean if is_on_lane else self._pacer.state()[0]  # type: ignore[union-attr]

    def _near_end(self, events: list[Event]) -> None:
        """The end of the answer does not need the end of the connection, which some peers keep
        open: the wire's last marker is the end, or a finish reason and a moment without more."""
        decoder = self._decoder
        writes = any(isinstance(event, PartDelta) for event in events)
        if decoder.closed:
            self._over = True
        elif self._ending and (writes or not decoder.terminal_seen):
            # Another choice has begun, or this server puts a finish reason on every chunk.
            self._ending = False
            self._distrusts = self._distrusts or writes
            self._source.end_within(None)
        elif decoder.terminal_seen and not self._distrusts:
            if not self._ending or not _are_alive(events):
                counted = not writes and any(type(event) is Usage for event in events)
                self._source.end_within(AFTER_USAGE if counted else AFTER_FINISH)
            self._ending = True

    def take(self, data: bytes) -> Taken:
        """Bytes arrived while the task waits: they are decoded here in any case."""
        if self._failure is not None:
            return SETTLE
        try:
            events = self._feed(data)
            if not events:
                return SETTLE if self._over else YES
            outcome = NO
            if isinstance(events[0], PartDelta) and (
                len(events) == 1 or all(map(_is_delta, events))
            ):
                outcome = self._express.take(events)  # type: ignore[union-attr]
                if outcome is YES and self._lane is not False:
                    self._offer(data, events)
        except Exception as error:
            self._failure = error
            return SETTLE
        if outcome is NO:
            self._rest = events
            return SETTLE
        return SETTLE if self._over else outcome

    # --- the lane, see `run.call.lane` -----------------------------------------------------------

    def _offer(self, data: bytes, events: list[Event]) -> None:
        lane = self._lane
        if not isinstance(lane, Lane):
            decoder, way = self._decoder, self._express
            if way is None or not fulfils(decoder, SteadyDecoder):
                self._lane = False
                return
            self._lane = lane = Lane(self._source, decoder, way, self._pacer, self)
            if self._hold is not None:
                lane._wait_below = 0.0
        if self._over or self._ending:
            return
        lane.offer(data, events, MOST_RESPONSE_BYTES - self._total)
        if lane.is_hopeless:
            self._lane = False
        elif self._hold is None:
            self._join(lane)

    def missed(self, size: int) -> None:
        """Bytes came past `take`."""
        self._total += size

    def failed(self, error: Exception) -> None:
        """The lane failed; the task raises it."""
        self._failure = error
