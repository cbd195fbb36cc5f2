"""One try at one provider: connect, read, decode, in time; the connection closed on every exit.

Where the provider keeps the response (OpenAI Responses in background mode), a cut connection is
re-attached and the answer continues; only the deadlines notice.

Always true: nothing is returned before something is visible, so an error raised from `attempt`
means that no reader has seen anything, and what it cost is in `Unseen`; from then on every failure
becomes events (ends for open parts, an ``error``, ``step-end``), and `Answer.next` raises nothing.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

from tokenwire.errors import (
    CancelledRunError,
    DeadlineError,
    FramingError,
    LimitError,
    NetworkError,
    ProtocolError,
    ProviderError,
    TokenwireError,
    TruncatedError,
)
from tokenwire.events.model import (
    Error,
    Event,
    Finish,
    Heartbeat,
    PartStart,
    Raw,
    ResponseStart,
    StepEnd,
    Usage,
)
from tokenwire.providers.base import Call, Decoder, Dialect, Target
from tokenwire.providers.failures import raised
from tokenwire.run.call.deadlines import Deadlines
from tokenwire.run.call.reading import Express, Reading
from tokenwire.run.call.source import Source
from tokenwire.run.call.unseen import Unseen
from tokenwire.run.inbox import Inbox

if TYPE_CHECKING:
    from tokenwire.providers.http.client import ByteStream, HttpClient

__all__ = ["Answer", "attempt", "error_event"]

#: Bytes read of an error response; more would not help.
MOST_ERROR_BYTES = 64 << 10
#: Seconds to wait for the body of an error response.
ERROR_SECONDS = 5.0


class Answer:
    """A model's answer from its first visible event on: call `next` until it returns None, and
    `aclose` in any case. (Generators, one inside the other, took half a kilobyte each of every
    stream.)"""

    __slots__ = ("_decoder", "_first", "_inbox", "_is_whole", "_reading", "_source")

    def __init__(self, source: Source, decoder: Decoder, inbox: Inbox, reading: Reading) -> None:
        self._source, self._decoder = source, decoder
        self._inbox, self._reading = inbox, reading
        self._first: list[Event] | None = None
        self._is_whole = False

    async def begin(self, unseen: Unseen) -> Answer:
        """Read until something is visible, with the events in ``unseen`` until then. Raises what
        `attempt` does."""
        self._first = await self.next(unseen)
        return self

    async def next(self, unseen: Unseen | None = None) -> list[Event] | None:
        """The next events, in a batch as they came from the socket; None after the last. Plain
        deltas go past it, where the call has an express way. ``unseen``: see `begin`."""
        first, self._first = self._first, None
        if first is not None or self._is_whole:
            return first
        decoder = self._decoder
        failure: TokenwireError | None = None
        rest: list[Event] = []
        while True:
            try:
                events = await self._reading.next(express=unseen is None)
                if events is None:
                    if not _is_over(decoder) and await self._source.reattach(decoder):
                        continue
                    break
            except (ProviderError, FramingError, LimitError) as error:
                lost = isinstance(error, NetworkError) and not _is_over(decoder)
                if lost and await self._source.reattach(decoder):
                    continue
                failure = error
                break
            if unseen is not None:
                unseen.events += events
                if not any(_is_visible(e) for e in events):
                    continue
                if refusal := _refusal(unseen.events):
                    unseen.events += decoder.finish()  # with counts that come last
                    raise refusal
                events = unseen.take()
            if not decoder.closed:
                return events
            rest, unseen = events, None  # nothing follows: they go with the end
            break
        self._is_whole = True
        if failure is None and _is_over(decoder):
            self._source.finish()
        last = _last(decoder, failure, self._inbox, unseen)
        failure = None  # its traceback has this frame
        if unseen is None:
            return [*rest, *last]
        unseen.events += last
        if refusal := _refusal(last):
            raise refusal
        return unseen.take()

    async def aclose(self) -> None:
        """Close the connection."""
        await self._source.aclose()
        self._reading.close()


async def attempt(
    http: HttpClient,
    dialect: Dialect,
    target: Target,
    call: Call,
    *,
    deadlines: Deadlines,
    inbox: Inbox,
    step: int,
    first_part: int,
    unseen: Unseen,
    express: Express | None = None,
) -> Answer:
    """Make one model call, up to its first visible event; what comes before that is in ``unseen``.
    After it, plain deltas may go to ``express``.

    Raises `ProviderError` or `FramingError` when it failed before anything was visible and
    `CancelledRunError` when it was cancelled before that.
    """
    source = Source(http, dialect, target, deadlines, inbox)
    reading: Reading | None = None
    try:
        stream = await source.open(call)
        if not 200 <= stream.status < 300:
            source.end_within(ERROR_SECONDS)
            body = await _read_error(stream)
            if inbox.ends_calls:
                raise CancelledRunError("the run was cancelled")
            # A date in ``Retry-After`` is measured against the answer's own, or else our clock.
            headers = {"date": datetime.now(UTC).isoformat(), **stream.headers}
            raise dialect.error(stream.status, headers, body)
        unseen.is_accepted = True
        decoder = dialect.decoder(
            step=step,
            first_part=first_part,
            quirks=target.quirks | call.reading if call.reading else target.quirks,
            content_type=stream.headers.get("content-type"),
        )
        reading = Reading(source, decoder, inbox, express)
        return await Answer(source, decoder, inbox, reading).begin(unseen)
    except BaseException:
        await source.aclose()
        if reading is not None:
            reading.close()
        raise


def _is_over(decoder: Decoder) -> bool:
    return decoder.terminal_seen or decoder.closed


def _last(
    decoder: Decoder,
    failure: TokenwireError | None,
    inbox: Inbox,
    unseen: Unseen | None = None,
) -> list[Event]:
    """The closing events, or the error when nothing was shown, where ``unseen`` gets them."""
    stopped = inbox.ends_calls
    if stopped and not decoder.terminal_seen:
        events = decoder.finish()
        if unseen is not None:
            unseen.events += events
            raise CancelledRunError("the run was cancelled")
        for event in events:
            if isinstance(event, StepEnd):
                event.status = "cancelled" if inbox.cancelled is not None else "incomplete"
        return events
    if failure is None and decoder.terminal_seen:
        return decoder.finish()
    if failure is not None and decoder.terminal_seen:
        return decoder.finish()  # the answer was complete; a failure after it does not matter
    if failure is None:
        failure = TruncatedError(
            "the provider's stream ended without its end marker; the answer is incomplete"
        )
    if unseen is None:
        return decoder.finish(error_event(failure, after_output=True))
    events = decoder.finish()
    if isinstance(failure, DeadlineError) and all(map(_is_judgement, events)):
        unseen.events += events
        raise failure  # that the bytes so far were not understood says less than the clock
    truncated = any(isinstance(e, StepEnd) and not e.terminal_seen for e in events)
    if not truncated and isinstance(failure, TruncatedError):
        return events  # a whole answer came in one piece at the end, perhaps an empty one
    if any(_is_visible(e) for e in events):
        # An error object came in one piece at the end, or a part of an answer.
        if not isinstance(failure, TruncatedError) or all(not _is_content(e) for e in events):
            return events
        return [*events[:-1], error_event(failure, after_output=True), events[-1]]
    unseen.events += events
    raise failure


def _refusal(events: list[Event]) -> ProviderError | None:
    """An error that precedes any part: it is a refusal inside a 200, and may be retried like any
    other."""
    for event in events:
        if isinstance(event, PartStart):
            return None
        if isinstance(event, Error):
            return raised(event)
    return None


def error_event(error: TokenwireError, *, after_output: bool = False) -> Error:
    """A failure as an event that every client can display."""
    scope, should_retry = "internal", None
    if isinstance(error, ProviderError):
        scope, should_retry = "provider", error.should_retry
    if isinstance(error, DeadlineError):
        scope = "timeout"
    elif isinstance(error, FramingError | ProtocolError):
        scope = "parse"
    elif error.code in ("network", "truncated"):
        scope = "transport"
    return Error(
        scope=cast("object", scope),  # type: ignore[arg-type]
        code=error.code,
        message=error.message,
        retryable=error.retryable if should_retry is None else should_retry,
        http_status=error.http_status,
        after_output=after_output,
        which=getattr(error, "which", None),
        retry_after=getattr(error, "retry_after", None),
        request_id=getattr(error, "request_id", None),
    )


def _is_visible(event: Event) -> bool:
    if isinstance(event, ResponseStart):
        return event.resumable  # its handle must be in the log before anything else
    # What only describes an answer waits for it: a failure that follows can be tried again.
    return not isinstance(event, Finish | Heartbeat | Raw | Usage | StepEnd)


def _is_judgement(event: Event) -> bool:
    """Whether the event says nothing of the provider's own."""
    return not _is_visible(event) or (isinstance(event, Error) and event.scope == "parse")


def _is_content(event: Event) -> bool:
    return _is_visible(event) and not isinstance(event, Error)


async def _read_error(stream: ByteStream) -> bytes:
    body = bytearray()
    while len(body) < MOST_ERROR_BYTES:
        try:
            data = await stream.read()
        except ProviderError:  # the status says enough, whatever became of the connection
            break
        if not data:
            break
        body += data
    return bytes(body[:MOST_ERROR_BYTES])
