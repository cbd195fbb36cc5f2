"""One try at one provider: connect, read, decode, in time; the connection closed on every exit.

Always true: nothing is yielded before something is visible, so an error raised from here means that
nobody has seen anything; once something was yielded, every failure becomes events (ends for open
parts, an ``error``, ``step-end``) and nothing is raised.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, cast

from tokenwire.errors import (
    CancelledRunError,
    DeadlineError,
    FramingError,
    LimitError,
    ProtocolError,
    ProviderError,
    TokenwireError,
    TruncatedError,
)
from tokenwire.events.model import Error, Event, Heartbeat, ResponseStart, StepEnd, Usage
from tokenwire.providers.base import Call, Decoder, Dialect, Target
from tokenwire.run.deadlines import Deadlines, Watch
from tokenwire.run.inbox import Inbox
from tokenwire.run.sweep import sweeper

if TYPE_CHECKING:
    from tokenwire.providers.http import ByteStream, HttpClient

__all__ = ["attempt", "error_event"]

#: A model's answer larger than this is a fault, not an answer.
MOST_RESPONSE_BYTES = 64 << 20
#: Of an error answer we read this much; more cannot help anybody.
MOST_ERROR_BYTES = 64 << 10


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
) -> AsyncGenerator[list[Event], None]:
    """The events of one model call, in batches as they came from the socket.

    Raises `ProviderError` or `FramingError` when it failed before anything was visible and
    `CancelledRunError` when it was cancelled before that.
    """
    stream = await _open(http, call, deadlines, inbox)
    watch = Watch(deadlines, time.monotonic())
    ticks = sweeper()
    ticks.add(stream, watch)
    release = inbox.on_cancel(lambda: stream.abort(_stop()))
    try:
        if not 200 <= stream.status < 300:
            raise dialect.error(stream.status, stream.headers, await _read_error(stream))
        decoder = dialect.decoder(
            step=step,
            first_part=first_part,
            quirks=target.quirks,
            content_type=stream.headers.get("content-type"),
        )
        async for batch in _read(stream, decoder, watch, inbox):
            yield batch
    finally:
        ticks.discard(stream)
        release()
        await stream.aclose()


async def _open(http: HttpClient, call: Call, deadlines: Deadlines, inbox: Inbox) -> ByteStream:
    """Connect and wait for the answer's head, at most ``first_event`` seconds, until cancelled."""
    loop = asyncio.get_running_loop()
    opening = asyncio.ensure_future(http.open(call, connect_timeout=deadlines.connect))
    timer = loop.call_later(deadlines.first_event, opening.cancel)
    release = inbox.on_cancel(lambda: opening.cancel() and None)
    started = loop.time()
    try:
        return await opening
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            opening.cancel()
            raise
        if inbox.cancelled is not None:
            raise CancelledRunError("the run was stopped") from None
        if loop.time() - started < deadlines.first_event:
            raise
        raise DeadlineError(
            f"no answer began within {deadlines.first_event:g} s",
            which="first_event",
            seconds=deadlines.first_event,
        ) from None
    finally:
        timer.cancel()
        release()


async def _read(
    stream: ByteStream, decoder: Decoder, watch: Watch, inbox: Inbox
) -> AsyncGenerator[list[Event], None]:
    held: list[Event] = []  # what came before anything was visible
    shown = False
    total = 0
    failure: TokenwireError | None = None
    while True:
        try:
            data = await stream.read()
            if not data:
                break
            total += len(data)
            if total > MOST_RESPONSE_BYTES:
                raise ProtocolError(
                    f"the provider's answer is larger than {MOST_RESPONSE_BYTES} bytes"
                )
            events = decoder.feed(data)
        except (ProviderError, FramingError, LimitError) as error:
            failure = error
            break
        if not events:
            continue
        if len(events) > 1 or type(events[0]) is not Heartbeat:
            watch.heard(time.monotonic())
        if shown:
            yield events
            continue
        held.extend(events)
        if any(_is_visible(e) for e in events):
            shown = True
            yield held
    last = _last(decoder, failure, shown, inbox)
    yield last if shown else held + last


def _last(
    decoder: Decoder, failure: TokenwireError | None, shown: bool, inbox: Inbox
) -> list[Event]:
    """The closing events, or the error when nothing was shown."""
    stopped = inbox.cancelled is not None
    if stopped and not decoder.terminal_seen:
        if not shown:
            raise CancelledRunError("the run was stopped")
        events = decoder.finish()
        for event in events:
            if isinstance(event, StepEnd):
                event.status = "cancelled"
        return events
    if failure is None and decoder.terminal_seen:
        return decoder.finish()
    if failure is not None and decoder.terminal_seen:
        return decoder.finish()  # the answer was whole; what broke after it does not matter
    if failure is None:
        failure = TruncatedError(
            "the provider's stream ended without its end marker; the answer is not whole"
        )
    if shown:
        return decoder.finish(error_event(failure, after_output=True))
    events = decoder.finish()
    if any(_is_visible(e) for e in events):
        # A whole answer came in one piece at the end (or an error object did).
        truncated = any(isinstance(e, StepEnd) and not e.terminal_seen for e in events)
        if not truncated or not isinstance(failure, TruncatedError):
            return events
        if all(not _is_content(e) for e in events):
            return events
        return [*events[:-1], error_event(failure, after_output=True), events[-1]]
    raise failure


def error_event(error: TokenwireError, *, after_output: bool = False) -> Error:
    """A failure as an event that every client can show."""
    scope = "provider" if isinstance(error, ProviderError) else "internal"
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
        retryable=error.retryable,
        http_status=error.http_status,
        after_output=after_output,
        which=getattr(error, "which", None),
        retry_after=getattr(error, "retry_after", None),
        request_id=getattr(error, "request_id", None),
    )


def _is_visible(event: Event) -> bool:
    if isinstance(event, ResponseStart):
        return event.resumable  # its handle must be in the log before anything else
    return not isinstance(event, Heartbeat | Usage | StepEnd)


def _is_content(event: Event) -> bool:
    return _is_visible(event) and not isinstance(event, Error)


def _stop() -> ProviderError:
    return ProviderError("the run was stopped")


async def _read_error(stream: ByteStream) -> bytes:
    body = bytearray()
    while len(body) < MOST_ERROR_BYTES:
        data = await stream.read()
        if not data:
            break
        body += data
    return bytes(body[:MOST_ERROR_BYTES])
