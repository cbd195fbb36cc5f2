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
from array import array
from collections.abc import Callable
from hashlib import blake2b
from struct import Struct
from typing import Protocol

import msgspec

from tokenwire.errors import ProtocolError
from tokenwire.events.model import Event, PartDelta
from tokenwire.express import YES, Form, Loan, Port, Reader, Taken, Tape, Usage, offer, offer_one
from tokenwire.providers.base import SteadyDecoder
from tokenwire.providers.http.connection import Connection
from tokenwire.run.call.deadlines import Watch
from tokenwire.run.call.native import numbers_of, twin_of
from tokenwire.run.call.pacing import FAST, Pacer
from tokenwire.run.call.several import MOST, Place, last_of, size_lines, take_several
from tokenwire.run.call.source import ACK_SECONDS, Source
from tokenwire.run.call.template import Template, is_plain, passes, shared, written

__all__ = ["Lane", "Seat", "Switch", "pull_in_python", "received_in_python", "switch", "twin"]

#: The check of a record, before it has seen anything; see `relay.record.Chain`.
_seal = blake2b(digest_size=8)

_decode = msgspec.json.Decoder(str).decode
_packed = Struct("d").pack

#: Seconds, and bytes of the provider, after which what was missed is made up for, so that little is
#: ever outstanding: so many bytes are far from the bounds of one payload.
_MOST_SECONDS = 4.0
_MOST_OUTSTANDING = 128 << 10
#: The lowest bits of a record's number when that is looked at: every 16th time.
_SOMETIMES = 15
#: Bytes of a read on the lane. A record with its text is smaller than `_MOST_RECORD`.
_MOST_BYTES = 4 << 10
_MOST_RECORD = 8 << 10
#: Records by which the end of a loan is rounded.
_ROUND = 1024
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

    def lend(self) -> Loan | None:
        """See `run.call.reading.Sink`."""
        ...

    def repay(self, check: bytes, tail: int, size: int) -> None:
        """See `run.call.reading.Sink`."""
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

    def wait_for_tick(self) -> None:
        """Read the socket again at the next tick."""
        ...


class _Numbers:
    """What a lane counts. The twin has a class of its own for it, which keeps them unboxed: every
    object of a stream that has waited for its turn is a line of cold memory."""

    __slots__ = (
        "_base",
        "_check",
        "_deltas",
        "_due",
        "_epoch",
        "_free",
        "_last",
        "_lent",
        "_mean",
        "_now",
        "_quarters",
        "_read_end",
        "_read_start",
        "_room",
        "_seq",
        "_start",
        "_text_end",
        "_text_start",
        "_usage_bound",
        "_wait_below",
    )

    #: Time: that of the last read, the mean gap before it, and those of `Seat`.
    _now: float
    _mean: float
    #: The mean gap below which a read is the last one before the next tick.
    _wait_below: float
    _base: int
    _start: float
    #: The number of the newest record, and its check.
    _seq: int
    _check: bytes
    #: Bytes that the answer may still have; the same when the last ones were made up for, and when
    #: the next ones are; deltas that were made up for.
    _free: int
    _room: int
    _due: float
    _deltas: int
    _quarters: int
    #: Of the loan: `Loan.epoch`, the last record that is within `Loan.last` and `Loan.room` for
    #: certain, `Tape.bytes` as it was, the most of `Usage`.
    _epoch: int
    _last: int
    _lent: int
    _usage_bound: int
    #: Where the payload and its text are in `Lane._read`.
    _read_start: int
    _read_end: int
    _text_start: int
    _text_end: int


_Base: type[_Numbers] = numbers_of(_Numbers)


class _Near(_Base):
    """What a lane touches at every token, next to its numbers."""

    __slots__ = ("_end", "_head", "_json", "_lines", "_tape", "_text", "_times", "_varies")


class Lane(_Near):
    """The lane of one answer. `offer` it what went the ordinary way; the connection gives it reads
    by `received` until that is false, and then calls `leave`."""

    __slots__ = (
        "_account",
        "_bar",
        "_before",
        "_decoder",
        "_may_borrow",
        "_misses",
        "_pacer",
        "_read",
        "_sink",
        "_source",
        "_tail",
        "_take",
        "_template",
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
        #: What was taken, and is not made up for yet: the text as it came, and when its pieces did
        #: (each a `float` as the machine has it).
        self._text, self._times = bytearray(), bytearray()
        self._deltas, self._wait_below, self._check = 0, FAST, bytes(16)
        self._watch: Watch | None = None
        #: The log, while records are appended by hand.
        self._tape: Tape | None = None

    @property
    def is_hopeless(self) -> bool:
        """Whether this stream does not fit a lane."""
        return self._misses >= _MOST_MISSES

    @property
    def last_event(self) -> float:
        """See `Progress`."""
        return self._now

    # --- learning ------------------------------------------------------------------------------

    def offer(self, body: bytes, events: list[Event], room: int) -> None:
        """A read went the ordinary way and gave ``events``, only deltas: learn from it, and begin
        if the template is proven. ``room``: the bytes that the answer may still have."""
        example = last_of(body, events)
        if example is None or not self._knows(*example):
            self._misses += 1
            return
        seat, watch = self._way.seat(self.make_up), self._source.watch
        if seat is None or watch is None:
            return
        size_line = self._source.divert(self, body)
        if size_line is None:
            self._misses += 1
            return
        self._lines, self._watch = size_lines(size_line, _MOST_BYTES), watch
        self._seq, self._base, self._start = seat.seq, seat.base, seat.start
        self._sink, self._take = seat.sink, seat.sink.take_json
        self._quarters = min(MOST, seat.quarters)  # that very object where nothing is bounded
        self._mean, self._now = self._pacer.state()
        self._room = self._free = room
        self._due = self._now + _MOST_SECONDS
        watch.progress = self
        self._borrow()

    def _knows(
        self, previous: bytes | None, body: bytes, delta: PartDelta, previous_text: str
    ) -> bool:
        """Whether a proven template has ``body``, and the decoder takes all that fits it.
        ``previous``: the payload before it, if it came in the same read."""
        text, template = written(delta.text), self._template
        before, self._before = self._before, (body, text)
        if previous is not None:
            before = previous, written(previous_text)
        if template is not None and template.fits(body, text, delta):
            return self._decoder.plain(body) is not None
        template = Template.learn(self._decoder, before, body, delta) if before else None
        if template is None:
            return False
        self._template, self._varies = template, bool(template.steps)
        self._head, self._tail = template.head, template.tail
        self._end = shared(template.tail + b"\r\n")
        self._json, self._bar = template.json, template.bar
        return True

    # --- on the lane ---------------------------------------------------------------------------

    def received(self, data: bytes) -> bool:
        """Take a read whole; False, and nothing has happened, for one that does not fit."""
        now = time.monotonic()
        # Together, so that the processor waits for cold memory once, and not for each.
        last, mean, free = self._now, self._mean, self._free
        base, start, quarters = self._base, self._start, self._quarters
        gap = now - last
        if gap > ACK_SECONDS > mean:
            self._source.delay_acks(self._seq)
        mean += (gap - mean) * (0.5 if gap > mean else 0.2)  # as `Pacer.read`
        length = len(data)
        if length > _MOST_BYTES or not data.startswith(line := self._lines[length]):
            return take_several(self, data, now)
        size = length - (place := len(line)) - 2
        if self._varies:
            text = self._text_in(data, place, length - 2) if data.endswith(b"\r\n") else b""
        elif data.endswith(self._end) and data.startswith(self._head, place):
            text = data[place + len(self._head) : -len(self._end)]
        else:
            return take_several(self, data, now)
        t = base + int((now - start) * 1000)
        if quarters < MOST:
            # A character that is no ASCII has two bytes at least, and is a token at most.
            quarters -= len(text) << (not text.isascii())
        if (
            size > free
            or mean < self._wait_below
            or t <= 0  # a record has no time then
            or quarters < 0
            or not (is_plain(text) or passes(text, self._bar))
        ):
            return take_several(self, data, now)
        return self._append(text, size, t, now, mean, quarters)

    def _append(
        self, text: bytes, size: int, t: int, now: float, mean: float, quarters: int
    ) -> bool:
        """A text that fits into the log and to the readers; False where the log is not ready.

        By hand, without a call of each layer between the provider's bytes and the readers' sockets:
        of one stream among many, every further function and object is a line of cold memory."""
        seq, tape, check = self._seq, self._tape, self._check
        pieces, times = self._text, self._times
        takers = None if tape is None else tape.takers
        if tape is not None and takers is None:  # a reader came, or left
            self._repay()
            self._borrow()
            tape, check = self._tape, self._check
            takers = None if tape is None else tape.takers
        if tape is None or takers is None:
            return self._pass_on(text, size, t, now, mean, quarters)
        records, reader, usage = tape.records, tape.reader, tape.usage
        if (
            tape.writer != self._epoch
            or len(records) != seq
            or seq >= self._last
            or usage.bytes > self._usage_bound
        ):
            return self._pass_on(text, size, t, now, mean, quarters)
        seq += 1
        json = self._json % (text, seq, t)
        try:
            seal = _seal.copy()  # half of what it costs to make one
            seal.update(check)
            seal.update(json)
            check = seal.hexdigest().encode()
        except Exception as error:  # a fault of ours, for the run's task to raise
            self._account.failed(error)
            self._source.settle()
            return True
        self._seq, self._check = seq, check
        self._quarters, self._mean, self._now = quarters, mean, now
        self._free -= size
        pieces += text
        times += _packed(now)
        record = check + json
        records.append(record)
        length = len(record)
        tape.bytes += length
        usage.bytes += length
        usage.records += 1
        if reader is None or not offer_one(reader, seq, check, json, text):
            offer(takers, seq, check, json, text, record)
        if not seq & _SOMETIMES and self._is_due(now):
            self.make_up()
            self._borrow()
        return True

    def _is_due(self, now: float) -> bool:
        """Whether it is time to make up for what is outstanding."""
        return now >= self._due or self._room - self._free >= _MOST_OUTSTANDING

    def _pass_on(
        self, text: bytes, size: int, t: int, now: float, mean: float, quarters: int
    ) -> bool:
        """`_append`, where that cannot be by hand."""
        self._repay()
        if not self._sink.ready:
            return False
        self._seq, self._quarters, self._mean, self._now = self._seq + 1, quarters, mean, now
        self._free -= size
        self._text += text
        self._times += _packed(now)
        return self._give(self._json % (text, self._seq, t))

    def _give(self, json: bytes) -> bool:
        """Give a record to the sink, where it cannot be appended by hand."""
        if self._take(json) is not YES:
            self._source.settle()  # which calls `leave`
        elif self._is_due(self._now):
            self.make_up()
        if self._may_borrow:
            self._borrow()
        return True

    def _borrow(self) -> None:
        """From here on records are appended by hand, where the log allows that."""
        loan = self._sink.lend()
        self._may_borrow = loan is not None
        if loan is None or loan.tape.takers is None or len(loan.tape.records) != self._seq:
            self._tape = None
            return
        self._tape, self._epoch, self._check, last, room = loan
        records = min(room, MOST) // _MOST_RECORD
        if records > _ROUND:  # to a number that many streams share
            records -= (self._seq + records) % _ROUND
        self._last, self._lent = shared(min(last, self._seq + records)), loan.tape.bytes
        self._usage_bound = shared(min(loan.tape.usage.most, MOST) - _MOST_RECORD)

    def _repay(self) -> None:
        """The sink hears of what was appended by hand; the loan ends."""
        if self._tape is not None:
            if self._lent != self._tape.bytes:
                self._sink.repay(self._check, self._seq, self._tape.bytes - self._lent)
            self._tape = None

    def _text_in(self, data: bytes, start: int, end: int) -> bytes:
        """The text of a payload in which more than that differs; empty where it does not fit."""
        span = self._template.span_in(data, start, end)  # type: ignore[union-attr]
        if span is None:
            return b""
        # As the last payload counts, the head and tail of this one are those to make up with. (If
        # it is not taken after all, the decoder reads it next.)
        self._read, self._read_start, self._read_end = data, start, end
        self._text_start, self._text_end = span
        return data[span[0] : span[1]]

    def _keep(self, data: bytes, place: Place) -> None:
        """The last payload, of those in which more differs than the text."""
        self._read = data
        self._read_start, self._text_start, self._text_end, self._read_end = place

    def leave(self) -> None:
        """Whoever looks at decoder, order, fold and clocks now finds everything there. Raises
        nothing; `Account.failed` hears what goes wrong."""
        self.make_up()
        self._misses = self._misses + 1 if self._deltas <= _SHORT_STAY else 0
        self._deltas = 0
        self._pacer.go_on(self._mean, self._now)
        watch = self._watch
        if watch is not None and watch.progress is self:
            watch.last_event, watch.progress = self._now, None

    def make_up(self) -> None:
        """The same, and the lane goes on: `_borrow` follows."""
        template = self._template
        self._repay()
        if not self._times or template is None:
            return
        text, times = self._text, array("d", self._times).tolist()
        self._text, self._times = bytearray(), bytearray()
        self._deltas += len(times)
        self._account.missed(self._room - self._free)
        self._room, self._due = self._free, self._now + _MOST_SECONDS
        head, tail = self._head, self._tail
        if self._varies:
            data = self._read
            head = data[self._read_start : self._text_start]
            tail = data[self._text_end : self._read_end]
        try:
            # Order and fold have what is in the log, whatever the decoder makes of it.
            delta = template.kind(part=template.part, text=_decode(b'"%b"' % text))
            delta.seq = self._seq
            delta.t = self._base + int((times[-1] - self._start) * 1000)
            self._way.catch_up(delta, times)
            events = self._decoder.feed(head + text + tail)
            if [_said(event) for event in events] != [_said(delta)]:
                raise ProtocolError("the model's answer was not read as it was proven")
        except Exception as error:  # for the run's task to raise
            self._account.failed(error)
            self._source.settle()


def _said(event: Event) -> tuple[type, int, str] | None:
    return (type(event), event.part, event.text) if isinstance(event, PartDelta) else None


#: The native twin (see `run.call.native`): its functions stand in for these.
twin = twin_of(
    globals(),
    {each.__name__: each for each in (Lane, Template, Tape, Usage, Reader, Port, Form, Connection)},
)
received_in_python, pull_in_python = Lane.received, Connection.pull
if twin.received is not None and twin.data_received is not None and twin.pull is not None:
    Lane.received = twin.received  # type: ignore[method-assign]
    Connection.data_received = twin.data_received  # type: ignore[method-assign]
    Connection.pull = twin.pull  # type: ignore[method-assign]
