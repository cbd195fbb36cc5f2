"""The contract of a dialect: a pure request builder and a pure decoder for one provider wire.

Always true: nothing here or in a dialect does I/O or reads a clock; the same bytes give the same
events however they are cut; every part that a decoder starts, it ends; a stream without its
terminal marker ends with ``step-end`` whose ``terminal_seen`` is false.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Protocol, runtime_checkable

import msgspec

from tokenwire.errors import ProviderError
from tokenwire.events.model import Error, Event, PartDelta
from tokenwire.events.request import Request

__all__ = [
    "Call",
    "Cursor",
    "Decoder",
    "Dialect",
    "ReleasedDecoder",
    "ResumableDecoder",
    "SteadyDecoder",
    "Target",
    "effort_of",
]

#: How far a kept response was read, in the provider's own terms: a number or an event id.
Cursor = int | str

#: Token budgets from which on an effort is meant, the largest first.
_EFFORTS = ((16384, "high"), (4096, "medium"), (1, "low"), (0, "none"))


def effort_of(reasoning: str | int) -> str:
    """How much a model shall think, as an effort: an effort stays itself, a budget of tokens
    (Anthropic's way to ask) becomes the one nearest to it, for models that take no budget."""
    if isinstance(reasoning, str):
        return reasoning
    return next((effort for least, effort in _EFFORTS if reasoning >= least), "none")


class Target(msgspec.Struct, kw_only=True, frozen=True):
    """Where a request goes. Comes from configuration only, never from a request."""

    #: The provider's name in model names and metrics: ``openai``, ``anthropic``, ``demo``.
    provider: str
    #: The dialect's name: ``openai-chat``, ``anthropic``, ``gemini``, ...
    dialect: str
    #: The provider's own name of the model.
    model: str
    #: Without a trailing slash: ``http://127.0.0.1:8080/v1``.
    base_url: str
    api_key: str | None = None
    headers: dict[str, str] = {}
    #: Named switches of compatible servers (`providers.compatible`).
    quirks: frozenset[str] = frozenset()
    #: What authorises its requests where that changes (`providers.credentials`), else None.
    credential: object = None
    #: Deadlines of this model in place of the run's: clock -> seconds (`providers.clocks`).
    clocks: dict[str, float] = {}

    def headers_over(self, headers: dict[str, str]) -> dict[str, str]:
        """``headers`` with the configured ones over them, whatever their case."""
        return headers | {name.lower(): value for name, value in self.headers.items()}

    def __repr__(self) -> str:  # a key must not reach a log by way of a repr
        return f"Target({self.provider}:{self.model} at {self.base_url})"


class Call(msgspec.Struct, kw_only=True):
    """An HTTP request as values. ``body`` is JSON, encoded."""

    url: str
    headers: dict[str, str]
    body: bytes
    method: str = "POST"
    #: Quirks of the answer to this very request, beside those of its target.
    reading: frozenset[str] = frozenset()


class Decoder(Protocol):
    """Bytes of one response to events; one decoder a response.

    ``feed`` and ``finish`` raise `FramingError` (a frame over its limit) or `ProtocolError` (not
    this wire) and nothing else; after either, ``finish(error)`` may still be called to close what
    is open. ``heartbeat`` events are returned like others; they are not logged.
    """

    #: An end of the transport would now be a good end: the wire's own end marker was seen, or a
    #: finish reason, after which usage and the like may follow.
    terminal_seen: bool
    #: Nothing follows: the wire's last marker was seen, or a failure. Later bytes are ignored, and
    #: the run does not wait for the end of the transport.
    closed: bool

    def feed(self, data: bytes) -> list[Event]:
        """The events that these bytes complete, in order."""
        ...

    def finish(self, error: Error | None = None) -> list[Event]:
        """The end of the transport: ends for open parts (``truncated`` unless the terminal was
        seen), then ``error`` when given, then ``step-end``. Called once, last."""
        ...


@runtime_checkable
class ResumableDecoder(Decoder, Protocol):
    """A decoder of a wire whose provider may keep the response, so that a new connection can
    continue it (see `Dialect.resume`)."""

    #: The provider's id of the response, once it is known.
    response_id: str | None
    #: Whether the provider keeps this response.
    resumable: bool
    #: How far the response was read; None before its first event.
    cursor: Cursor | None

    def reattach(self) -> None:
        """Expect the bytes of a new connection, requested with `cursor`; events before it are not
        emitted twice."""
        ...


@runtime_checkable
class ReleasedDecoder(Decoder, Protocol):
    """A decoder with references to itself."""

    def release(self) -> None:
        """Let go of them: nothing is asked of the decoder any more."""
        ...


@runtime_checkable
class SteadyDecoder(Decoder, Protocol):
    """A decoder that can say what it would make of bytes, for `run.call.lane`.

    ``passing``: names of fields whose value, a number or a string, changes no event of a plain
    delta; of several payloads at most the last one's counts. ``counting``: names of fields of which
    that is true for numbers that are not 0.
    """

    passing: ClassVar[frozenset[bytes]]
    counting: ClassVar[frozenset[bytes]]

    def plain(self, data: bytes) -> PartDelta | None:
        """The one event that these bytes would give now, and nothing would change but the text so
        far, if it is a delta of an open part, and any other text in its place would give a delta
        of that text: whatever it says, and however long. (A call's arguments: any text that does
        not begin with a brace.) Changes nothing. None for all other bytes."""
        ...


class Dialect(Protocol):
    """One provider wire."""

    name: str

    def build(self, request: Request, target: Target) -> Call:
        """The HTTP request that sends ``request`` and streams the answer. Raises `InputError`
        when the dialect cannot express it."""
        ...

    def decoder(
        self,
        *,
        step: int = 1,
        first_part: int = 0,
        quirks: frozenset[str] = frozenset(),
        content_type: str | None = None,
    ) -> Decoder:
        """A new decoder. Parts are numbered from ``first_part``. ``content_type`` of the response
        may choose the framing (SSE, NDJSON, JSON array, binary event stream)."""
        ...

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        """The typed error of a non-2xx answer; its message is safe to show."""
        ...

    def resume(self, response_id: str, after: Cursor | None, target: Target) -> Call | None:
        """The request that re-attaches to a response which the provider keeps, after ``after``;
        None when this wire keeps none."""
        ...
