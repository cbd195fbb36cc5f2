"""The token wire: ``token`` events whose data is the text exactly, then one ``done`` or ``error``.

Always true: the tokens joined are the answer's visible text, each piece once; exactly one ``done``
or ``error`` ends the stream; a truncated or failed answer ends in ``error``, never in ``done``.
The data of ``done`` is empty after a whole answer and names the finish reason otherwise.

A line end in a token becomes several ``data`` lines, which a reader joins with a newline; SSE
cannot tell CR and CRLF from LF, so both arrive as LF. This wire cannot retract text: when a step
restarts, text that repeats what was sent is skipped, and text that differs ends the stream with an
``error``.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

from tokenwire.events.codec import AnyEvent
from tokenwire.events.model import (
    Error,
    Finish,
    PartDelta,
    Reconnect,
    RefusalDelta,
    RunEnd,
    StepReset,
    StepStart,
    TextDelta,
)
from tokenwire.events.reasons import CUT_REASONS, ending
from tokenwire.framing.sse import encode_frame
from tokenwire.wire.base import EncodeJSON, Steady, text_of
from tokenwire.wire.failure import failure_of
from tokenwire.wire.speakers import RootAgent

__all__ = ["TokenEncoder"]

_CHANGED = "the answer was restarted and differs from what was shown; ask again"


class TokenEncoder:
    """Visible text of one run as ``token`` events. ``run`` goes into every ``id``, so that a
    reconnecting `EventSource` says by itself which run it was reading."""

    name: ClassVar[str] = "token"
    content_type: ClassVar[str] = "text/event-stream"
    headers: ClassVar[dict[str, str]] = {}
    stateless: ClassVar[bool] = False
    encode_json: EncodeJSON | None = None

    def __init__(self, run: str) -> None:
        self.run = run
        self._step_texts: list[str] = []  # this step's text, needed only if the step starts again
        self._repeat = ""  # what a restarted step must repeat before anything new is sent
        self._finish: Finish | None = None
        self._error: Error | None = None
        self._root = RootAgent()
        self._tasks: set[int] = set()  # steps without text, which may overlap the others
        self.ended = False

    def encode(self, event: AnyEvent, cursor: str) -> bytes:
        """A ``token``, ``done`` or ``error`` block, or nothing."""
        block = self._fold(event)
        if block is None:
            return b""
        name, data = block
        return encode_frame(data, event=name, id=f"{self.run}:{cursor}")

    def skip(self, event: AnyEvent) -> None:
        """Apply ``event``, which the client has received."""
        self._fold(event)

    def reopen(self) -> bytes:
        """Tokens stand alone: nothing to open again."""
        return b""

    def finish(self) -> bytes:
        """``done`` or ``error`` is the end."""
        return b""

    def heartbeat(self) -> bytes:
        """An SSE comment."""
        return b": keep-alive\n\n"

    def farewell(self, event: Reconnect) -> bytes | None:
        """Only a ``retry`` time: the stream ends, and `EventSource` reconnects after it."""
        return b"retry: %d\n\n" % event.after_ms

    def steady(self, delta: PartDelta) -> Steady | None:
        """What the deltas that follow ``delta`` look like, while nothing is repeated. (What has
        escapes in JSON may have line ends.)"""
        if self.ended or self._repeat or not isinstance(delta, TextDelta | RefusalDelta):
            return None
        if self._root.hides(delta):
            return None
        texts = self._step_texts
        return Steady(
            head=b"id: %b:" % self.run.encode(),
            middle=b"\nevent: token\ndata: ",
            tail=b"\n\n",
            take=lambda text, count: texts.append(text_of(text)),
            is_json=False,
        )

    def _fold(self, event: AnyEvent) -> tuple[str, str] | None:
        if self.ended or self._root.hides(event):
            return None
        if isinstance(event, TextDelta | RefusalDelta):
            return self._text(event.text)
        if isinstance(event, StepStart):
            if event.kind == "task":
                self._tasks.add(event.step)
                return None
            self._finish = None
            if event.attempt == 1:
                self._step_texts, self._repeat = [], ""
        elif isinstance(event, StepReset):
            if event.step in self._tasks:
                return None
            self._repeat, self._step_texts = "".join(self._step_texts) + self._repeat, []
        elif isinstance(event, Finish):
            self._finish = event
        elif isinstance(event, Error):
            self._error = event
        elif isinstance(event, RunEnd):
            return self._end(event)
        return None

    @property
    def _finish_reason(self) -> str:
        return self._finish.reason if self._finish is not None else "stop"

    def _text(self, text: str) -> tuple[str, str] | None:
        repeat = self._repeat
        if repeat:
            same = min(len(repeat), len(text))
            if repeat[:same] != text[:same]:
                self.ended = True
                return "error", _json(code="restarted", message=_CHANGED)
            self._step_texts.append(text[:same])
            self._repeat, text = repeat[same:], text[same:]
        if not text:
            return None
        self._step_texts.append(text)
        return "token", text

    def _end(self, event: RunEnd) -> tuple[str, str] | None:
        self.ended = True
        if self._repeat:
            return "error", _json(code="restarted", message=_CHANGED)
        has_error = self._error is not None
        kind = ending(event.outcome, self._finish_reason, event.reason, has_error=has_error)
        if kind == "cancelled":
            return "done", _json(finish_reason="cancelled")
        if kind == "failed":
            failure = failure_of(self._error, self._finish, event.outcome, event.reason)
            return "error", _json(code=failure.code, message=failure.message)
        reason = self._finish_reason
        if kind == "cut" and reason not in CUT_REASONS:
            reason = event.reason or "length"
        return "done", "" if reason == "stop" else _json(finish_reason=reason)


def _json(**fields: str) -> str:
    return msgspec.json.encode(fields).decode()
