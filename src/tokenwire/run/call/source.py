"""Where a model call's bytes come from: one connection, and another where the response is kept.

Always true: at most one connection is open; each is watched by the sweeper and closed by a cancel;
deadlines continue over a re-attach, they do not restart.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from tokenwire.backoff import backoff
from tokenwire.contracts import fulfils
from tokenwire.errors import CancelledRunError, DeadlineError, ProviderError
from tokenwire.express import Diversion, Hold, Taken
from tokenwire.providers.base import Call, Decoder, Dialect, ResumableDecoder, Target
from tokenwire.providers.http.client import PushStream
from tokenwire.run.call.deadlines import Deadlines, Watch
from tokenwire.run.call.sweep import sweeper
from tokenwire.run.inbox import Inbox

if TYPE_CHECKING:
    from tokenwire.providers.http.client import ByteStream, HttpClient

__all__ = ["Source"]

#: Connections after the first that one response may use.
MOST_REATTACHES = 5
#: Seconds that Linux waits at least before it acknowledges what it received by itself.
ACK_SECONDS = 0.04
#: Events between two delays of acknowledgements, at least.
READS_BETWEEN_DELAYS = 4


class Source:
    """The connection(s) of one model call."""

    __slots__ = (
        "_deadlines",
        "_delayed",
        "_dialect",
        "_http",
        "_inbox",
        "_push",
        "_reattached",
        "_release",
        "_stream",
        "_target",
        "_watch",
    )

    def __init__(
        self,
        http: HttpClient,
        dialect: Dialect,
        target: Target,
        deadlines: Deadlines,
        inbox: Inbox,
    ) -> None:
        self._http, self._dialect, self._target = http, dialect, target
        self._deadlines, self._inbox = deadlines, inbox
        self._watch: Watch | None = None
        self._stream: ByteStream | None = None
        #: The same stream, where it can hand bytes on past a waiting task.
        self._push: PushStream | None = None
        self._release: Any = None
        self._reattached = 0
        #: The event before the last read that was late; see `delay_acks`.
        self._delayed = 0

    async def open(self, call: Call) -> ByteStream:
        """Connect, send, and wait for the head."""
        if self._watch is None:
            self._watch = Watch(self._deadlines, time.monotonic())
        stream = await _open(self._http, call, self._deadlines, self._inbox)
        if 200 <= stream.status < 300:
            self._watch.accept(time.monotonic())
        sweeper().add(stream, self._watch)
        self._stream = stream
        self._push = stream if fulfils(stream, PushStream) else None
        self._release = self._inbox.on_cancel(self._cut)
        return stream

    def _cut(self) -> None:
        """Model calls end."""
        if self._stream is not None:
            self._stream.abort(_stop())

    def read(
        self, take: Callable[[bytes], Taken] | None = None
    ) -> Coroutine[None, None, bytes | None]:
        """The next bytes; ``b""`` at the end. During the wait, bytes go to ``take`` (if the stream
        supports it); None after it said ``SETTLE``. (The stream's own coroutine: one of ours around
        it would take 200 bytes of each stream.)"""
        push, stream = self._push, self._stream
        if take is not None and push is not None:
            return push.read_express(take)
        return _nothing() if stream is None else stream.read()

    def hold(self) -> Hold | None:
        """See `PushStream.hold`; None where the stream does not support that."""
        return self._push.hold() if self._push is not None else None

    @property
    def watch(self) -> Watch | None:
        """The clocks of the call, once it is open."""
        return self._watch

    def divert(self, lane: Diversion, body: bytes) -> bytes | None:
        """Give what the socket brings to ``lane`` from now on, where the stream supports it and
        ``body`` was all of a read; see `PushStream.divert`."""
        push = self._push
        line = push.divert(lane, body) if push is not None else None
        if push is not None and line is not None:
            push.delay_acks()
        return line

    def delay_acks(self, seq: int) -> None:
        """A read, behind the event ``seq``, came later than the system waits with its
        acknowledgement, which from then on it sends for each read; delay those again. But not soon
        after the last time: a server that waits for the acknowledgement before it sends more (by
        Nagle's algorithm) is late because of the delay itself."""
        if self._push is not None and seq - self._delayed >= READS_BETWEEN_DELAYS:
            self._push.delay_acks()
        self._delayed = seq

    def settle(self) -> None:
        """End the diversion, and make the `read` that waits return None."""
        if self._push is not None:
            self._push.settle()

    def touch(self) -> float:
        """Record that a semantic event arrived; returns the time (monotonic seconds)."""
        now = time.monotonic()
        if self._watch is not None:
            self._watch.last_event = now
        return now

    def alive(self) -> None:
        """Record that a keep-alive arrived."""
        if self._watch is not None:
            self._watch.last_life = time.monotonic()

    def end_within(self, seconds: float | None) -> None:
        """Wait for the end of the bytes so many seconds only; None is as long as before."""
        if self._watch is not None:
            self._watch.end_by(math.inf if seconds is None else time.monotonic() + seconds)
            if self._stream is not None:
                sweeper().add(self._stream, self._watch)

    def finish(self) -> None:
        """The answer is complete: release the connection at once, where the stream can."""
        push = self._push
        if push is not None:
            self._detach()
            push.linger()

    async def reattach(self, decoder: Decoder) -> bool:
        """After a cut, continue the same response on a new connection, if the provider stores it
        and the decoder has a cursor. False when the response cannot be continued."""
        if not fulfils(decoder, ResumableDecoder) or not decoder.resumable:
            return False
        while self._reattached < MOST_REATTACHES and not self._inbox.ends_calls:
            self._reattached += 1
            response = decoder.response_id
            if response is None:
                return False
            call = self._dialect.resume(response, decoder.cursor, self._target)
            if call is None:
                return False
            await self.aclose()
            await self._inbox.sleep(backoff(self._reattached, first=0.1, longest=8.0))
            try:
                stream = await self.open(call)
            except CancelledRunError:
                return False
            except ProviderError:
                continue
            if 200 <= stream.status < 300:
                decoder.reattach()
                return True
            if stream.status in (400, 401, 403, 404, 410):
                return False
        return False

    async def aclose(self) -> None:
        """Close the connection."""
        stream = self._detach()
        if stream is not None:
            await stream.aclose()

    def _detach(self) -> ByteStream | None:
        stream, self._stream, self._push = self._stream, None, None
        if stream is not None:
            sweeper().discard(stream)
            if self._release is not None:
                self._release()
                self._release = None  # it has this source
        return stream


async def _nothing() -> bytes:
    return b""


def _stop() -> ProviderError:
    return ProviderError("the run was cancelled")


def _drop(_: object) -> None:
    """Discard a return value."""


def _close_unwanted(opening: asyncio.Task[ByteStream]) -> None:
    """The answer may have come in the very moment of the cancel: nobody else would close it."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result().abort(_stop())


async def _open(http: HttpClient, call: Call, deadlines: Deadlines, inbox: Inbox) -> ByteStream:
    """Connect and wait for the answer's head, at most ``first_event`` seconds, until cancelled."""
    which = "first_event" if deadlines.first_event <= deadlines.total else "total"
    seconds = min(deadlines.first_event, deadlines.total)
    opening = asyncio.ensure_future(http.open(call, connect_timeout=deadlines.connect))
    late = False

    def give_up() -> None:
        nonlocal late
        late = True
        opening.cancel()

    timer = asyncio.get_running_loop().call_later(seconds, give_up)
    release = inbox.on_cancel(lambda: _drop(opening.cancel()))
    try:
        return await opening
    except asyncio.CancelledError:
        opening.cancel()
        opening.add_done_callback(_close_unwanted)
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        if inbox.ends_calls:
            raise CancelledRunError("the run was cancelled") from None
        if not late:  # set by the timer: a loop may fire it a moment early
            raise
        raise DeadlineError(
            f"no response from the model within {seconds:g} s", which=which, seconds=seconds
        ) from None
    finally:
        timer.cancel()
        release()
