"""What every decoder does around its own wire: read payloads, give events, end the step.

Always true: a payload that is no JSON, or a page in place of a stream, becomes one ``error`` event
and later bytes are ignored; events before it are kept; ``finish`` ends all that is open and reports
truncation unless the wire's own end marker was seen.
"""

from __future__ import annotations

from typing import Any, ClassVar, cast

import msgspec

from tokenwire.errors import FramingError
from tokenwire.events.model import (
    Error,
    Event,
    Finish,
    FinishReason,
    Heartbeat,
    PartDelta,
    Raw,
    Usage,
)
from tokenwire.framing.sse import ERROR_FIELD, Frame
from tokenwire.providers.decoding.counts import merged
from tokenwire.providers.decoding.faults import fault_in, says_error, wire_of
from tokenwire.providers.decoding.life import says_life
from tokenwire.providers.decoding.pages import not_this_wire, page_error, words_error
from tokenwire.providers.decoding.parts import Parts
from tokenwire.providers.decoding.payloads import PayloadReader
from tokenwire.providers.decoding.reasons import FAILURES, is_partial
from tokenwire.providers.decoding.values import (
    check_depth,
    clean_all,
    decode,
    holds_text,
    read,
    rest_of,
    text_of,
)
from tokenwire.providers.failures import error_event, from_object

__all__ = ["PayloadDecoder"]

#: Names of events, and payloads, that only say that the server is alive.
_PINGS = frozenset({"ping", "heartbeat", "keepalive", "keep-alive", "keep_alive"})
#: Names of events that are not of any wire.
_ASIDE = _PINGS | {ERROR_FIELD}
#: Bytes with which nothing is said: white space and a byte-order mark.
_BLANK = b" \t\r\n\xef\xbb\xbf"
_ENDS = frozenset({b"DONE", b"END"})
#: End markers and keep-alives are no longer.
_SHORT = 16
#: Payloads longer than that may be nested too deeply.
_LONG = 400
#: Reasons that explain an answer in which there is nothing.
_EMPTY_REASONS = frozenset(
    {"stop", "length", "refusal", "content_filter", "pause", "context_overflow"}
    | {"malformed_tool_call"}
)


class PayloadDecoder:
    """Base of the decoders: subclasses implement `payload`, and may override `ended`.

    ``terminal_seen``: the end of the bytes would now be a good end. ``closed``: the wire announced
    that nothing follows; later payloads are ignored. ``payloads`` counts payloads without
    ``[DONE]``; ``done_sentinel``: a ``[DONE]`` was seen.
    """

    dialect: ClassVar[str]
    #: See `tokenwire.providers.base.SteadyDecoder`.
    passing: ClassVar[frozenset[bytes]] = frozenset()
    counting: ClassVar[frozenset[bytes]] = frozenset()

    def __init__(
        self,
        *,
        step: int = 1,
        first_part: int = 0,
        quirks: frozenset[str] = frozenset(),
        content_type: str | None = None,
    ) -> None:
        self.parts = Parts(step=step, first_part=first_part)
        self.parts.may_wait = True
        self.parts.counting = self
        self.quirks = quirks
        self.reader = PayloadReader(content_type)
        self.terminal_seen = False
        self.closed = False
        self.failed = False
        self.payloads = 0
        self.done_sentinel = False
        self.reason: str | None = None
        #: The provider says that the answer is not whole, for a reason without a word of ours.
        self.unfinished = False
        self.usage: Usage | None = None
        self._unknown = 0
        self._other_wire: str | None = None
        self._bad_finish: Finish | None = None
        #: An error outside of the wire's own blocks: no end after it is a good one.
        self._last_words: bytes | None = None
        #: Payloads came whose texts may end in half a character.
        self._needs_care = False
        self._comments = 0
        #: The last value of each field that is not known.
        self._extras: dict[str, Any] | None = None

    def release(self) -> None:
        """Nothing more is asked of this decoder: let go of everything. Handlers are its own
        methods, and such cycles would wait for the collector, as many as there were answers."""
        vars(self).clear()

    # --- for subclasses ------------------------------------------------------------------------

    def payload(self, value: dict[str, Any], event: str) -> None:
        """One payload; ``event`` is the frame's name (``message`` when none)."""
        raise NotImplementedError

    def plain_frame(self, frame: Frame) -> PartDelta | None:
        """What `plain` says of one block."""
        return None

    def done(self) -> None:
        """A ``[DONE]`` was seen: nothing follows, whether or not the wire's own end came before."""
        self.closed = True

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
        """Emit why the model stopped. A reason that means failure makes the answer fail, once its
        payload is read (which may hold the error itself)."""
        if choice == 0:
            self.reason = reason
            self.unfinished = self.unfinished or (reason == "other" and is_partial(raw))
        finish = Finish(reason=reason, raw=raw, message=message, details=details, choice=choice)
        self.parts.finish(finish)
        if reason in FAILURES:
            self._bad_finish = finish

    def count(self, usage: Usage | None) -> None:
        """Emit token counts, unless they say nothing new; a 0 does not replace a number."""
        usage = merged(self.usage, usage)
        if usage is not None and usage != self.usage:
            self.usage = msgspec.structs.replace(usage)  # the event itself is timed and numbered
            self.parts.out.append(usage)

    def fail(self, error: Error) -> None:
        """An error inside the stream: emit it, and ignore what follows."""
        if not self.failed:
            error.after_output = self.parts.shown
            self.parts.out.append(error)
        self.failed = self.closed = True

    def fail_with(self, value: Any, *, raw: Any = None, request_id: str | None = None) -> None:
        """The same from the provider's own error object."""
        error = from_object(value)
        error.request_id = error.request_id or request_id
        self.fail(error_event(error, raw=value if raw is None else raw))

    def fail_unclaimed(self) -> None:
        """Arguments of no open call came after a call that ended without any: they may be its own,
        so nothing of this step may run."""
        message = "arguments came for a tool call that had ended without any"
        self.fail(Error(scope="parse", code="protocol_error", message=message, http_status=502))

    def raw(self, event: str | None, payload: Any) -> None:
        """Emit an unknown payload unchanged."""
        self.parts.out.append(Raw(dialect=self.dialect, event=event, payload=payload))

    def keep_extras(self, value: dict[str, Any], names: frozenset[str]) -> None:
        """Keep the fields of a delta that hold text and are not among ``names``, unless they only
        repeat the last value."""
        for name in value.keys() - names:
            extra = value[name]
            if not extra or not holds_text(extra):
                continue
            if self._extras is None:
                self._extras = {}
            if self._extras.get(name) != extra:
                self._extras[name] = extra
                self.raw(name, extra)

    def missing_text(self, whole: str) -> str:
        """What a whole answer adds to the text that came; what contradicts it is kept."""
        rest = rest_of(self.parts.text, whole)
        if rest is None:
            self.raw("message", whole)
        return rest or ""

    def unknown(self, event: str | None, value: dict[str, Any]) -> None:
        """A payload in which this wire knows nothing: a failure in another form, a keep-alive, or
        something new that is kept."""
        self._unknown += 1
        is_alive = not says_error(event or "") and says_life(event, value)
        fault = None if is_alive else fault_in(value)
        if fault is not None or says_error(event or ""):
            self.fail_with(value if fault is None else fault, raw=value)
        elif (event in _PINGS or text_of(value.get("type")) in _PINGS) and len(value) < 4:
            self.parts.out.append(Heartbeat(source="provider"))
        else:
            self._other_wire = self._other_wire or wire_of(value)
            self.raw(None if event == "message" else event, value)
            if is_alive:  # kept, but no output
                self._alive()

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
        if self.reader.kind == "html" and self.reader.page_is_clear and not self.failed:
            self.fail(page_error(self.reader.page))
        return self.parts.take()

    def plain(self, data: bytes) -> PartDelta | None:
        """See `tokenwire.providers.base.SteadyDecoder`."""
        if self.closed or self.terminal_seen or self.failed:
            return None
        if self.parts.loose or self._needs_care or self.parts.out:
            return None
        frame = self.reader.block(data)
        return None if frame is None else self.plain_frame(frame)

    def finish(self, error: Error | None = None) -> list[Event]:
        """The end of the transport; see `tokenwire.providers.base.Decoder`."""
        try:
            for frame in self.reader.finish():
                self._frame(frame, last=True)
        except FramingError:
            if error is None and not self.closed:
                raise
        start = len(self.parts.out)
        if self.reader.kind == "html" and not self.failed:
            self.fail(page_error(self.reader.page))
        self.ended()
        if not self.failed and (error is None or error.code == "truncated"):
            if self._last_words is not None:
                if error is not None or self.terminal_seen or not self.parts.shown:
                    self._fail_with_field(self._last_words)
            else:
                self._judge()
        if self.failed or (error is not None and error.code == "truncated" and self.terminal_seen):
            error = None  # one was emitted already, or the last bytes held the end marker
        self.parts.end_step(
            terminal_seen=self.terminal_seen,
            reason=self.reason,
            error=error,
            failed=self.failed,
            unfinished=self.unfinished,
        )
        if self.parts.loose:
            self._clean(start)
        return self.parts.take()

    def _fail_with_field(self, data: bytes) -> None:
        """An error outside of the wire's own blocks."""
        if not data.strip() or data.strip().lower() in (b"null", b"none", b"false", b"{}"):
            return
        try:
            value = clean_all(read(data)[0])
        except ValueError:
            value = data[:2000].decode("utf-8", "replace")
        self.fail_with({"error": value} if isinstance(value, str) else value, raw=value)

    def _judge(self) -> None:
        """Fail an answer that is over and in which nothing was understood, or nothing is."""
        if self.payloads == 0 and not self.done_sentinel and not self.reader.comments:
            if self.reader.head.strip(_BLANK):
                words = words_error(self.reader.words)
                message = "the provider's answer holds no event of its wire"
                self.fail(words or not_this_wire(message))
        elif self.payloads and self._unknown >= self.payloads:
            other = self._other_wire
            looks = f"; it looks like '{other}'" if other and other != self.dialect else ""
            self.terminal_seen = False
            self.fail(
                not_this_wire(
                    f"the provider's answer holds no event of the wire '{self.dialect}'{looks}; "
                    "check the model's address and wire"
                )
            )
        elif self.terminal_seen and not self.parts.shown and self.reason not in _EMPTY_REASONS:
            self.terminal_seen = False
            self.fail(
                Error(
                    scope="provider",
                    code="provider_error",
                    message="the provider's answer is empty, and does not say why",
                    retryable=True,
                )
            )

    def _fail_for_reason(self, finish: Finish) -> None:
        """The model stopped for a reason that means failure, and no error object says more."""
        error = from_object({"error": {"code": finish.raw, "message": finish.message or ""}})
        event = error_event(error, raw={"finish_reason": finish.raw})
        if error.code == "provider_error":
            event.retryable = True
        event.after_output = self.parts.shown
        self.parts.out.append(event)
        self.failed = True

    def _clean(self, start: int) -> None:
        """Make every text of the events from ``start`` on valid Unicode."""
        for event in self.parts.out[start:]:
            if isinstance(event, PartDelta):
                continue
            for name in event.__struct_fields__:
                value = getattr(event, name)
                if isinstance(value, str | list | dict):
                    setattr(event, name, clean_all(value))

    def _heard(self) -> None:
        """A comment came: the server is alive."""
        self._comments = self.reader.comments
        if not self.closed:
            self.parts.out.append(Heartbeat(source="comment"))

    def _frame(self, frame: Frame, *, last: bool = False) -> None:
        data = frame.data
        event = frame.event
        if data[:1] != b"{":
            data = data.strip()
            if len(data) <= _SHORT and self._is_marker(data, event):
                return
        if self.closed:
            return
        if event in _ASIDE:
            if event == ERROR_FIELD:
                self._last_words = data
                return
            if data[:1] != b"{":
                self._alive()
                return
        try:
            value = decode(data)
            if len(data) > _LONG:
                check_depth(data, value)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError):
            self._odd_frame(frame, data, last=last)
            return
        if isinstance(value, dict) and not self._needs_care:
            self.payloads += 1
            self.payload(value, event)
            if self._bad_finish is None:
                return
        else:
            self._value(value, event)
        self._settle()

    def _is_marker(self, data: bytes, event: str) -> bool:
        """Whether the data is no payload: the end marker, a keep-alive, or nothing."""
        if data.strip(b'"[]').upper() in _ENDS:
            self.done_sentinel = True
            if not self.closed:
                self.done()
            return True
        if not data or data == b"null" or data.lower().decode("latin-1") in _PINGS:
            if event == "error":
                self._fault({})
            else:
                self._alive()
            return True
        return False

    def _odd_frame(self, frame: Frame, data: bytes, *, last: bool) -> None:
        """A payload that is no strict JSON."""
        try:
            value, loose = read(data)
        except ValueError as error:
            if frame.event == "error" and not frame.unterminated:
                self.fail_with(data[:2000].decode("utf-8", "replace"))
            elif not (last or frame.unterminated):  # else it was cut off, which `finish` reports
                self._fail_with_words(data, f"a payload of the stream is not JSON: {error}")
            return
        if loose and not self.parts.loose:
            self.parts.be_loose()
            self._needs_care = True
        self._value(value, frame.event)
        self._settle()

    def _fail_with_words(self, data: bytes, message: str) -> None:
        if data[:1] == b"<":
            self.fail(page_error(data))
        elif data[:1] in b"{[":
            self.fail(not_this_wire(message, data))
        else:
            words = words_error(data[:2000].decode("utf-8", "replace"))
            self.fail(words or not_this_wire(message, data))

    def _value(self, value: Any, event: str) -> None:
        start = len(self.parts.out)
        if isinstance(value, dict):
            self.payloads += 1
            self.payload(cast(dict[str, Any], value), event)
        elif event == "error":
            self.fail_with(value)
        else:
            self._odd(value)
        if self.parts.loose:
            self._clean(start)

    def _settle(self) -> None:
        """After a payload: fail for its finish reason, unless it held the error itself."""
        finish, self._bad_finish = self._bad_finish, None
        if finish is not None and not self.failed:
            self._fail_for_reason(finish)

    def _alive(self) -> None:
        if not self.closed:
            self.parts.out.append(Heartbeat(source="provider"))

    def _odd(self, value: Any) -> None:
        if isinstance(value, list):
            for item in value:
                if isinstance(item, dict) and not self.closed:
                    self.payloads += 1
                    self.payload(item, "message")
            return
        words = words_error(value) if isinstance(value, str) else None
        if words is not None and not self.closed:
            self.fail(words)
        else:
            self.raw(None, value)

    def _fault(self, value: Any) -> None:
        if not self.closed:
            self.fail_with(value)
