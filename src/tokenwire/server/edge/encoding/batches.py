"""Batches of a run's records in one reader's wire.

Always true: the bytes are those of the encoder for each event, one after the other, whether a delta
was decoded for it or its text was taken from the record as it stands there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tokenwire.contracts import fulfils
from tokenwire.events.codec import decode
from tokenwire.events.model import PartDelta
from tokenwire.express import Form, Port, form_of
from tokenwire.relay.follow import Batch
from tokenwire.relay.record import CHECK, cursor_of
from tokenwire.server.edge.connections import SharedBytes
from tokenwire.wire.base import FormEncoder, Steady, SteadyEncoder
from tokenwire.wire.own import AnyEncoder

__all__ = ["BatchEncoder"]

#: How much is encoded at a time, at least one event.
_PIECES = 256 << 10
#: Bytes of text after which the encoder hears of it.
_MOST_TEXT = 256
_TEXT = b'"text":"'
#: What follows a delta's text in a record. No text holds it: its quotes would have backslashes.
_END = b'","seq":'
#: A text with escapes, in the only form in which a record writes it.
_is_escaped = re.compile(rb'[^"\\]*+(?:\\(?:["\\nrtbf]|u00[01][0-9a-f])[^"\\]*+)*+').fullmatch


class BatchEncoder:
    """Batches in one reader's wire, on both ways. Objects with slots: a token finds them in fewer
    cache lines than the cells of a closure. ``skip``: the offset up to which the reader has seen
    the run."""

    __slots__ = (
        "_encoder",
        "_head",
        "_learns",
        "_one",
        "_part",
        "_port",
        "_reopened",
        "_settled",
        "_shared",
        "_shift",
        "_skip",
        "_steady",
        "_text",
        "_text_at",
    )

    def __init__(self, encoder: AnyEncoder, skip: int, shared: SharedBytes | None) -> None:
        self._encoder, self._skip, self._shared = encoder, skip, shared
        #: An encoder of single records from their JSON; it needs no event.
        self._one = encoder.encode_json
        self._reopened = skip == 0
        self._learns = encoder if fulfils(encoder, SteadyEncoder) else None
        #: What deltas like the last one are: on the wire; and in their records, the JSON before
        #: their text, and where that begins.
        self._steady: Steady | None = None
        self._head, self._text_at = b"", 0
        #: A delta's number less its offset.
        self._shift = 0
        #: The text that the encoder has not heard of, and the offset up to which it has.
        self._text, self._settled = bytearray(), 0
        #: Where others may write what is like the last delta.
        self._port: Port | None = None
        #: The part of the last event, if that was a delta.
        self._part = -1

    def open(self, port: Port) -> None:
        """Let others write records to ``port`` that need no encoder."""
        encoder = self._encoder
        if self._learns is not None:
            self._port, port.text = port, self._text
        elif fulfils(encoder, FormEncoder) and self._reopened:
            port.form = form_of(encoder.form + b"%b")

    def encode(self, batch: Batch) -> bytes:
        """The batch's bytes; encoded once for all readers that share them."""
        shared, records = self._shared, batch.records
        if shared is None or shared.readers == 1:
            return self._encode(batch)
        data = shared.get(batch.first, len(records))
        if data is None:
            data = self._encode(batch)
            shared.put(batch.first, len(records), data)
        return data

    def encode_one(self, offset: int, record: bytes) -> bytes:
        """The same for a batch of one record."""
        if self._learns is not None:
            return self._next(offset, record)
        shared = self._shared
        if self._one is not None and self._reopened and (shared is None or shared.readers == 1):
            return self._one(record[CHECK:], b"%d-%b" % (offset, record[:CHECK]))
        return self.encode(Batch(offset, [record]))

    def pieces(self, batch: Batch) -> Iterator[bytes]:
        """The same in pieces that grow with no event but their own, each encoded when the one
        before has been sent."""
        if self._one is not None or len(batch.records) == 1:
            data = self.encode(batch)
            if data:
                yield data
            return
        pieces: list[bytes] = []
        size = 0
        for piece in self._each(batch):
            if size and size + len(piece) > _PIECES:
                yield b"".join(pieces)
                pieces.clear()
                size = 0
            pieces.append(piece)
            size += len(piece)
        if size:
            yield b"".join(pieces)

    def settle(self, offset: int) -> None:
        """The encoder's state is that after the record at ``offset``, the last one given here."""
        if self._steady is not None:
            self._settle(self._steady, offset)

    def _encode(self, batch: Batch) -> bytes:
        one = self._one
        if one is not None and self._reopened:
            return b"".join([one(data, cursor) for data, cursor in batch.raw()])
        return b"".join(self._each(batch))

    def _each(self, batch: Batch) -> Iterator[bytes]:
        if self._learns is not None:
            for offset, record in enumerate(batch.records, batch.first):
                yield self._next(offset, record)
            return
        encoder = self._encoder
        offset = batch.first
        for cursor, event in batch.events():
            if offset <= self._skip:
                encoder.skip(event)
            else:
                if not self._reopened:
                    self._reopened = True
                    yield encoder.reopen()
                yield encoder.encode(event, cursor)
            offset += 1

    # --- steady encoders -------------------------------------------------------------------------

    def _next(self, offset: int, record: bytes) -> bytes:
        """The bytes of the record at ``offset``; none while the reader has them."""
        steady = self._steady
        # (What is skipped last goes to `skip`, which may note where the reader is.)
        if steady is None or offset == self._skip:
            return self._next_event(offset, record)
        at = self._text_at
        end = record.find(b'"', at)
        text = record[at:end]
        if not record.startswith(self._head, CHECK):
            return self._next_event(offset, record)
        if b"\\" in text:
            text = self._escaped(record) if steady.is_json else b""
        elif not record.startswith(_END, end):
            text = b""
        if not text:
            return self._next_event(offset, record)
        self._text += text
        data = b""
        if offset > self._skip:
            cursor = b"%d-%b" % (offset, record[:CHECK]) if steady.has_cursor else b""
            data = b"".join((steady.head, cursor, steady.middle, text, steady.tail))
            if steady.number >= 0:
                data = b"%b%d%b" % (data, offset + self._shift, steady.end)
        if len(self._text) >= _MOST_TEXT:
            self._settle(steady, offset)
        return data

    def _escaped(self, record: bytes) -> bytes:
        """The text with escapes; empty where it is not written as a record writes it."""
        at = self._text_at
        text = record[at : record.find(_END, at)]
        return text if _is_escaped(text) is not None else b""

    def _settle(self, steady: Steady, offset: int) -> None:
        """The encoder hears of what was encoded without it, up to ``offset``."""
        if offset > self._settled:
            text = bytes(self._text)
            self._text.clear()
            steady.take(text, offset - self._settled)
            self._settled = offset

    def _next_event(self, offset: int, record: bytes) -> bytes:
        if self._steady is not None:
            self._settle(self._steady, offset - 1)
            self._steady = None
            if self._port is not None:
                self._port.form = None
        event, encoder, data = decode(record[CHECK:]), self._encoder, b""
        if offset <= self._skip:
            encoder.skip(event)
        else:
            if not self._reopened:
                self._reopened, data = True, encoder.reopen()
            data += encoder.encode(event, cursor_of(offset, record))
        if not isinstance(event, PartDelta):
            self._part = -1
            return data
        # From the second of a row on: parts that take turns would be learned again at each.
        if event.part == self._part and offset != self._skip:
            self._learn(offset, event, record)
        self._part = event.part
        return data

    def _learn(self, offset: int, delta: PartDelta, record: bytes) -> None:
        """The record of ``delta`` was encoded or skipped: what follows may be like it."""
        at = record.find(_TEXT, CHECK) + len(_TEXT)
        if at < len(_TEXT) or self._learns is None:
            return
        steady = self._learns.steady(delta)
        if steady is None:
            return
        self._head, self._text_at, self._steady = record[CHECK:at], at, steady
        self._settled, self._shift = offset, steady.number - offset - 1
        if self._port is not None and offset > self._skip:
            self._port.form = _form_of(steady, self._head, self._shift)


def _form_of(steady: Steady, head: bytes, shift: int) -> Form:
    """The form of deltas of a part, whose JSON begins with ``head``."""
    fixed = (steady.head, steady.middle, steady.tail, steady.end)
    return form_of(
        b"%b%%b%b%%b%b%%b%b" % tuple(each.replace(b"%", b"%%") for each in fixed),
        head=head,
        has_cursor=steady.has_cursor,
        is_json=steady.is_json,
        shift=shift if steady.number >= 0 else None,
    )
