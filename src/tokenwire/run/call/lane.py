"""The express lane: a plain delta from the provider's bytes to its record by comparison alone.

Nearly every read of an answer differs from the one before in the text of one delta. So the bytes
around that text are learned from the stream's own reads, and proven by the decoder with another
text in the gap. From then on a read that fits is not parsed, decoded, numbered and encoded again:
its text goes, escaped as it came, into the next record. Whatever does not fit leaves the lane, and
goes the ordinary way with the same bytes.

Always true: records and events are those of the ordinary way, byte for byte; what decoder, order,
fold and clocks missed meanwhile is made up for before anybody else looks at them (`leave`), by the
decoder itself, from one payload that has all of the text; a text passes only in the one form in
which a record writes it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

import msgspec

from tokenwire.errors import ProtocolError
from tokenwire.events.model import Event, PartDelta
from tokenwire.express import YES, Taken
from tokenwire.providers.base import SteadyDecoder
from tokenwire.run.call.deadlines import Watch
from tokenwire.run.call.pacing import FAST, Pacer
from tokenwire.run.call.source import Source
from tokenwire.run.call.template import Template, is_text, is_written_so, written

__all__ = ["Lane", "Seat", "Switch", "switch"]

_decode = msgspec.json.Decoder(str).decode

#: Deltas after which what was missed is made up for, so that little is ever outstanding.
_MOST_DELTAS = 64
#: Bytes of a read on the lane. So many deltas of it are far from the bounds of one payload.
_MOST_BYTES = 4 << 10
#: Reads without a template, and stays of a few deltas, after which a stream is left alone.
_MOST_MISSES = 32
_SHORT_STAY = 3


class Switch:
    """Whether lanes are used; tests compare both ways."""

    on = True


switch = Switch()


class Seat(msgspec.Struct, frozen=True):
    """What the lane needs of the run: the number of its newest event, its time line (event time is
    ``base`` milliseconds and those since ``start``, by `time.monotonic`), its sink, and how much
    text may come before the run must look at it, in quarters of a token."""

    seq: int
    base: int
    start: float
    sink: JSONSink
    quarters: int = 1 << 62


class JSONSink(Protocol):
    """A sink that takes events as JSON."""

    ready: bool

    def take_json(self, data: bytes) -> Taken:
        """Take one event in its canonical JSON form; never ``NO``."""
        ...


class Way(Protocol):
    """The run, as its lane sees it."""

    def seat(self, make_up: Callable[[], None]) -> Seat | None:
        """None where this run has no lane. ``make_up`` calls `catch_up` for all that the lane has
        taken."""
        ...

    def catch_up(self, delta: PartDelta, times: list[float]) -> None:
        """What the sink took since `seat`: its text as one delta with the number and time of the
        last, and when each came."""
        ...


class Account(Protocol):
    """The reading whose bytes pass here."""

    def missed(self, size: int) -> None:
        """So many bytes of the answer came past it."""
        ...

    def failed(self, error: Exception) -> None:
        """Something went wrong; the run's task raises it."""
        ...


class Lane:
    """The lane of one answer. `offer` it what went the ordinary way; the connection gives it reads
    by `received` until that is false, and then calls `leave`."""

    __slots__ = (
        "_account",
        "_bar",
        "_base",
        "_before",
        "_bytes",
        "_decoder",
        "_deltas",
        "_head",
        "_json",
        "_mean",
        "_misses",
        "_now",
        "_pacer",
        "_quarters",
        "_read",
        "_room",
        "_seq",
        "_sink",
        "_size_line",
        "_source",
        "_start",
        "_t",
        "_tail",
        "_take",
        "_template",
        "_texts",
        "_times",
        "_varies",
        "_watch",
        "_way",
    )

    def __init__(
        self, source: Source, decoder: SteadyDecoder, way: Way, pacer: Pacer, account: Account
    ) -> None:
        self._source, self._decoder, self._way = source, decoder, way
        self._pacer, self._account = pacer, account
        #: The last read that gave one delta: its bytes, and the text as it stands in them.
        self._before: tuple[bytes, bytes] | None = None
        self._misses = 0
        self._template: Template | None = None
        #: What was taken, and is not made up for yet: texts, times, bytes.
        self._texts: list[bytes] = []
        self._times: list[float] = []
        self._bytes = self._deltas = 0
        self._watch: Watch | None = None

    @property
    def is_hopeless(self) -> bool:
        """Whether this stream does not fit a lane."""
        return self._misses >= _MOST_MISSES

    # --- learning ------------------------------------------------------------------------------

    def offer(self, body: bytes, delta: Event, room: int) -> None:
        """A read went the ordinary way and gave ``delta``, alone: learn from it, and begin if the
        template is proven. ``room``: the bytes that the answer may still have."""
        if not isinstance(delta, PartDelta) or not self._knows(body, delta):
            self._misses += 1
            return
        seat, watch = self._way.seat(self.make_up), self._source.watch
        if seat is None or watch is None:
            return
        size_line = self._source.divert(self, body)
        if size_line is None:
            self._misses += 1
            return
        self._size_line, self._watch = size_line, watch
        self._seq, self._base, self._start = seat.seq, seat.base, seat.start
        self._sink, self._take = seat.sink, seat.sink.take_json
        self._quarters = seat.quarters
        self._mean, self._now = self._pacer.state()
        self._room = room

    def _knows(self, body: bytes, delta: PartDelta) -> bool:
        """Whether a proven template has ``body``, and the decoder takes all that fits it."""
        text, template = written(delta.text), self._template
        before, self._before = self._before, (body, text)
        if template is not None and template.fits(body, text, delta):
            return self._decoder.plain(body) is not None
        template = Template.learn(self._decoder, before, body, delta) if before else None
        if template is None:
            return False
        self._template, self._varies = template, bool(template.steps)
        self._head, self._tail = template.head, template.tail
        self._json, self._bar = template.json, template.bar
        return True

    # --- on the lane ---------------------------------------------------------------------------

    def received(self, data: bytes) -> bool:
        """Take a read whole; False, and nothing has happened, for one that does not fit."""
        now = time.monotonic()
        gap, mean = now - self._now, self._mean
        mean += (gap - mean) * (0.5 if gap > mean else 0.2)  # as `Pacer.read`
        head = self._head
        line = data.find(b"\r\n", 0, 10) + 2
        size = len(data) - line - 2
        if self._varies:
            text = self._text_in(data, line, line + size)
        elif data.startswith(head, line) and data.endswith(self._tail, line, line + size):
            text = data[line + len(head) : line + size - len(self._tail)]
        else:
            return False
        t = self._base + int((now - self._start) * 1000)
        if (
            not text
            or size > _MOST_BYTES
            or size > self._room - self._bytes
            or mean < FAST
            or t <= 0  # a record has no time then
            or not self._sink.ready
            or not data.startswith(self._size_line % size)
            or not data.endswith(b"\r\n")
            or is_written_so(text) is None
            or text.startswith(self._bar)
            or not (text.isascii() or is_text(text))
            # A character that is no ASCII has two bytes at least, and is a token at most.
            or (quarters := self._quarters - (len(text) << (not text.isascii()))) < 0
        ):
            return False
        self._quarters = quarters
        self._seq = seq = self._seq + 1
        self._t, self._mean, self._now = t, mean, now
        self._watch.last_event = now  # type: ignore[union-attr]
        self._texts.append(text)
        self._times.append(now)
        self._bytes += size
        if self._take(self._json % (text, seq, t)) is not YES:
            self._source.settle()  # which calls `leave`
        elif len(self._texts) >= _MOST_DELTAS:
            self.make_up()
        return True

    def _text_in(self, data: bytes, start: int, end: int) -> bytes:
        """The text of a payload in which more than that differs; empty where it does not fit."""
        span = self._template.span_in(data, start, end)  # type: ignore[union-attr]
        if span is None:
            return b""
        # As the last payload counts, the head and tail of this one are those to make up with. (If
        # it is not taken after all, the decoder reads it next.)
        self._read = data, start, span, end
        return data[span[0] : span[1]]

    def leave(self) -> None:
        """Whoever looks at decoder, order, fold and clocks now finds everything there. Raises
        nothing; `Account.failed` hears what goes wrong."""
        self.make_up()
        self._misses = self._misses + 1 if self._deltas <= _SHORT_STAY else 0
        self._deltas = 0
        self._pacer.go_on(self._mean, self._now)

    def make_up(self) -> None:
        """The same, and the lane goes on."""
        texts, times, template = self._texts, self._times, self._template
        if not texts or template is None:
            return
        self._texts, self._times = [], []
        self._deltas += len(texts)
        self._account.missed(self._bytes)
        self._room -= self._bytes
        self._bytes = 0
        head, tail = self._head, self._tail
        if self._varies:
            data, start, span, end = self._read
            head, tail = data[start : span[0]], data[span[1] : end]
        joined = b"".join(texts)
        try:
            # Order and fold have what is in the log, whatever the decoder makes of it.
            delta = template.kind(part=template.part, text=_decode(b'"%b"' % joined))
            delta.seq, delta.t = self._seq, self._t
            self._way.catch_up(delta, times)
            events = self._decoder.feed(head + joined + tail)
            if [_said(event) for event in events] != [_said(delta)]:
                raise ProtocolError("the model's answer was not read as it was proven")
        except Exception as error:  # for the run's task to raise
            self._account.failed(error)
            self._source.settle()


def _said(event: Event) -> tuple[type, int, str] | None:
    return (type(event), event.part, event.text) if isinstance(event, PartDelta) else None
