"""What every decoder does around its own wire: read payloads, give events, end the step.

Always true: a payload that is no JSON, or a page in place of a stream, becomes one ``error`` event
and later bytes are ignored; events before it are kept; ``finish`` ends all that is open and reports
truncation unless the wire's own end marker was seen.
"""

from __future__ import annotations

from typing import Any, ClassVar

from tokenwire.errors import FramingError
from tokenwire.events.model import Error, Event, Finish, FinishReason, Heartbeat, Raw
from tokenwire.framing.sse import Frame
from tokenwire.providers.decoding.parts import Parts, load
from tokenwire.providers.decoding.payloads import PayloadReader
from tokenwire.providers.failures import error_event, from_object

__all__ = ["PayloadDecoder"]


class PayloadDecoder:
    """Base of the decoders: subclasses implement `payload`, and may override `ended`.

    ``terminal_seen``: the end of the bytes would now be a good end. ``closed``: the wire announced
    that nothing follows; later payloads are ignored. ``payloads`` counts payloads without
    ``[DONE]``; ``done_sentinel``: a ``[DONE]`` was seen.
    """

    dialect: ClassVar[str]

    def __init__(
        self,
        *,
        step: int = 1,
        first_part: int = 0,
        quirks: frozenset[str] = frozenset(),
        content_type: str | None = None,
    ) -> None:
        self.parts = Parts(step=step, first_part=first_part)
        self.quirks = quirks
        self.reader = PayloadReader(content_type)
        self.terminal_seen = False
        self.closed = False
        self.failed = False
        self.payloads = 0
        self.done_sentinel = False
        self.reason: str | None = None
        self._comments = 0

    # --- for subclasses ------------------------------------------------------------------------

    def payload(self, value: dict[str, Any], event: str) -> None:
        """One payload; ``event`` is the frame's name (``message`` when none)."""
        raise NotImplementedError

    def done(self) -> None:
        """A ``[DONE]`` was seen."""

    def ended(self) -> None:
        """The bytes are over, also after a failure: emit what the wire left implicit."""

    def finish_reason(
        self,
        reason: FinishReason,
        raw: str | None,
        *,
        message: str | None = None,
        details: dict[str, Any] | None = None,
        choice: int = 0,
    ) -> None:
        """Emit why the model stopped."""
        if choice == 0:
            self.reason = reason
        self.parts.finish(
            Finish(reason=reason, raw=raw, message=message, details=details, choice=choice)
        )

    def fail(self, error: Error) -> None:
        """An error inside the stream: emit it, and ignore what follows."""
        error.after_output = self.parts.shown
        self.parts.out.append(error)
        self.failed = self.closed = True

    def fail_with(self, value: Any, *, raw: Any = None, request_id: str | None = None) -> None:
        """The same from the provider's own error object."""
        error = from_object(value)
        error.request_id = error.request_id or request_id
        self.fail(error_event(error, raw=value if raw is None else raw))

    def raw(self, event: str | None, payload: Any) -> None:
        """Emit an unknown payload unchanged."""
        self.parts.out.append(Raw(dialect=self.dialect, event=event, payload=payload))

    # --- the decoder's contract ----------------------------------------------------------------

    def feed(self, data: bytes) -> list[Event]:
        """The events that these bytes complete."""
        reader = self.reader.sse
        if reader is not None and not self.closed:
            for frame in reader.feed(data):
                self._frame(frame)
            if reader.comments != self._comments:
                self._heard()
            parts = self.parts
            out, parts.out = parts.out, []
            return out
        return self._feed(data)

    def _feed(self, data: bytes) -> list[Event]:
        try:
            frames = self.reader.feed(data)
        except FramingError:
            if self.closed:
                return []
            raise
        for frame in frames:
            self._frame(frame)
        if self.reader.comments != self._comments:
            self._heard()
        if self.reader.kind == "html" and not self.failed:
            self.fail(_not_this_wire("the provider answered with a web page, not a stream"))
        return self.parts.take()

    def finish(self, error: Error | None = None) -> list[Event]:
        """The end of the transport; see `tokenwire.providers.base.Decoder`."""
        try:
            for frame in self.reader.finish():
                self._frame(frame, last=True)
        except FramingError:
            if error is None and not self.closed:
                raise
        self.ended()
        if not self.failed:
            nothing = not self.payloads and not self.done_sentinel and not self.reader.comments
            if error is None and nothing and self.reader.head:
                self.fail(_not_this_wire("the provider's answer holds no event of its wire"))
        if error is not None and error.code == "truncated" and (self.terminal_seen or self.failed):
            error = None  # the last bytes held the end marker, or the error was emitted already
        self.parts.end_step(
            terminal_seen=self.terminal_seen, reason=self.reason, error=error, failed=self.failed
        )
        return self.parts.take()

    def _heard(self) -> None:
        """A comment came: the server is alive."""
        self._comments = self.reader.comments
        if not self.closed:
            self.parts.out.append(Heartbeat(source="comment"))

    def _frame(self, frame: Frame, *, last: bool = False) -> None:
        data = frame.data
        if data[:1] != b"{":
            data = data.strip()
            if data == b"[DONE]":
                self.done_sentinel = True
                if not self.closed:
                    self.done()
                return
            if not data:
                if not self.closed:
                    self.parts.out.append(Heartbeat(source="provider"))
                return
        if self.closed:
            return
        try:
            value = load(data)
        except ValueError as error:
            if not (last or frame.unterminated):  # else it was cut off, which `finish` reports
                self.fail(_not_this_wire(f"a payload of the stream is not JSON: {error}", data))
            return
        if not isinstance(value, dict):
            self._odd(value)
            return
        self.payloads += 1
        self.payload(value, frame.event)

    def _odd(self, value: Any) -> None:
        if isinstance(value, list):
            for item in value:
                if isinstance(item, dict) and not self.closed:
                    self.payloads += 1
                    self.payload(item, "message")
            return
        self.raw(None, value)


def _not_this_wire(message: str, data: bytes | None = None) -> Error:
    raw = data[:2000].decode("utf-8", "replace") if data is not None else None
    return Error(scope="parse", code="protocol_error", message=message, http_status=502, raw=raw)
