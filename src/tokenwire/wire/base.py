"""The encoder contract: how a run looks to one kind of client.

Always true: an encoder is a fold. Its bytes for event n, and its state after it, depend only on
events 1..n; it reads no clock and does no I/O. So a resumed reader gets the same bytes, or, where
its wire requires open parts to be opened again, a re-opening and then only what it misses: cut
anywhere, resume, and the client's final message is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Protocol, runtime_checkable

import msgspec

from tokenwire.events.codec import AnyEvent
from tokenwire.events.model import PartDelta, Reconnect

__all__ = ["EncodeJSON", "Encoder", "FormEncoder", "Steady", "SteadyEncoder", "text_of"]

#: ``(event as canonical JSON, cursor in ASCII) -> bytes``.
EncodeJSON = Callable[[bytes, bytes], bytes]

_decode = msgspec.json.Decoder(str).decode


def text_of(text: bytes) -> str:
    """The text of a JSON string without its quotes."""
    return _decode(b'"%b"' % text) if b"\\" in text else text.decode()


class Encoder(Protocol):
    """Events of one run to one client's bytes."""

    #: The wire's name in metrics and logs; the same for all of its releases and dialects.
    name: ClassVar[str]
    #: The media type of the response.
    content_type: ClassVar[str]
    #: Response headers that this wire's clients look for, beyond the server's own.
    headers: ClassVar[dict[str, str]]
    #: No event depends on the ones before: a reader may start at its cursor, without `skip`, and
    #: all readers of a run get the same bytes. Where it is false, `skip` gets every earlier event.
    stateless: ClassVar[bool]

    @property
    def encode_json(self) -> EncodeJSON | None:
        """The function for an event whose canonical JSON is at hand; None where the wire needs the
        event itself. Only of stateless encoders."""
        ...

    @property
    def ended(self) -> bool:
        """Whether the client has received the wire's end, though the run may go on: it waits for a
        person, or the wire could not show what followed."""
        ...

    def encode(self, event: AnyEvent, cursor: str) -> bytes:
        """The bytes of ``event`` (may be empty). ``cursor`` is its opaque position, for
        wires that carry one (SSE ``id:``)."""
        ...

    def skip(self, event: AnyEvent) -> None:
        """Apply ``event`` to the state without output: the client has received it already."""
        ...

    def reopen(self) -> bytes:
        """After the last `skip` and before the first `encode`: what a resumed connection must
        receive before the rest (open parts opened again). Empty where the wire needs nothing."""
        ...

    def finish(self) -> bytes:
        """After the terminal event: the wire's sentinel (``data: [DONE]``), or nothing."""
        ...

    def heartbeat(self) -> bytes:
        """Bytes that keep an idle connection open and change nothing: an SSE comment."""
        ...

    def farewell(self, event: Reconnect) -> bytes | None:
        """The bytes that ask the client to reconnect, after which the response ends in order. None
        where the wire has none: to its clients an orderly end would be the end of the answer."""
        ...


@runtime_checkable
class FormEncoder(Protocol):
    """An encoder whose `Encoder.encode_json` is no more than ``form % (cursor, JSON)``."""

    form: ClassVar[bytes]


class Steady(msgspec.Struct, kw_only=True):
    """The bytes of a delta: ``head``, its cursor, ``middle``, its text, ``tail``; and, where
    ``number`` is not negative, that number, which grows by one with each delta, and ``end``."""

    head: bytes
    middle: bytes
    tail: bytes
    #: ``(the texts of deltas, joined, as canonical JSON has them; how many)``: what their encoding
    #: would have changed.
    take: Callable[[bytes, int], None]
    has_cursor: bool = True
    #: Whether the text stands there as canonical JSON has it even where that has escapes.
    is_json: bool = True
    number: int = -1
    end: bytes = b""


@runtime_checkable
class SteadyEncoder(Encoder, Protocol):
    """An encoder that knows what the deltas of an open part have in common on its wire, so that
    their text goes from the record to the wire without being decoded and encoded again."""

    def steady(self, delta: PartDelta) -> Steady | None:
        """After ``delta`` was encoded or skipped: the bytes of what follows, while nothing follows
        but deltas of its type and part with a text. Before anything else is asked of the encoder,
        `Steady.take` has to have what followed. None where deltas have nothing in common."""
        ...
