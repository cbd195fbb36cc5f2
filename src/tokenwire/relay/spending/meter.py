"""The model calls of a run and their tokens, read from the run's log.

Always true: pure; every attempt counts, also one that a takeover discarded, as it was billed; what
one call reports again replaces what it reported before; the sum over all calls is the fold's
``usage``. What a provider did not say, of an answer that was cut or not counted, is estimated by
the length of what was said, and stays apart from what was reported.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from tokenwire.events.codec import AnyEvent, decode
from tokenwire.events.estimate import QUARTERS, quarters_of
from tokenwire.events.fold import USAGE_COUNTS
from tokenwire.events.model import (
    PartStart,
    ReasoningDelta,
    RefusalDelta,
    ResponseStart,
    RunStart,
    StepEnd,
    StepReset,
    StepStart,
    TextDelta,
    ToolCallDelta,
    ToolError,
    ToolResult,
    Usage,
)
from tokenwire.log.base import Records
from tokenwire.relay.record import CHECK, json_of
from tokenwire.relay.spending.counts import MOST_TOKENS, Counts, counts_of, details_of

__all__ = ["Meter", "ModelCall", "read_calls"]

#: Events that say something about a call, beside its deltas, of which a log has many.
_TYPES = (
    "run-start",
    "step-start",
    "step-reset",
    "step-end",
    "tool-result",
    "tool-error",
    "response-start",
    "usage",
    "text-start",
    "reasoning-start",
    "refusal-start",
    "tool-call-start",
    "provider-result-start",
    "file-start",
    "opaque-start",
)
_PREFIXES = tuple(f'{{"type":"{name}"'.encode() for name in _TYPES)
_DELTAS = tuple(
    f'{{"type":"{kind}-delta"'.encode() for kind in ("text", "reasoning", "refusal", "tool-call")
)
#: Around the text of a delta, in its record.
_TEXT, _AFTER_TEXT = b'"text":"', b'","seq":'
#: What a model says, piece by piece.
_Said = TextDelta | ReasoningDelta | RefusalDelta | ToolCallDelta


class ModelCall(msgspec.Struct, kw_only=True):
    """One attempt of a model call. ``model``: that was called; ``served``: what the provider says
    it is; ``time``: Unix milliseconds of its newest count; ``counts``: None where the provider
    answered and reported no tokens, or more than a call can have;
    ``estimate``: what it used beyond these, None where the provider has said everything."""

    provider: str | None
    model: str | None
    served: str | None = None
    time: int = 0
    counts: Counts | None = None
    estimate: Counts | None = None

    @property
    def name(self) -> str:
        """``openai/gpt-4o``, as bills say it."""
        return "/".join(filter(None, (self.provider, self.model or self.served))) or "unknown"


class _Attempt:
    """A call that may still report. ``is_models``: what an agent says itself is no model's, and has
    tokens only where it reports some."""

    def __init__(self, call: ModelCall, *, is_models: bool, is_resumable: bool = False) -> None:
        self.call, self.is_models, self.is_resumable = call, is_models, is_resumable
        #: The provider's id of its response; and the attempt before, whose response this one is
        #: to read again.
        self.response: str | None = None
        self.rereads: _Attempt | None = None
        self.reported: dict[str, int] = {}
        self.has_answered = False
        #: What was reported is somebody's estimate, as of an answer that was cut.
        self.is_estimated = False
        #: Its answer is whole, so that what was reported is all.
        self.is_whole = False
        #: Of its answer, and of what the run said before it, in quarters of a token.
        self.quarters = self.earlier = 0
        #: Tokens of its request, where they are known.
        self.request: int | None = None

    def report(self, event: Usage) -> None:
        """Count what the provider says, as the fold does."""
        counts = {name: getattr(event, name) for name in USAGE_COUNTS} | details_of(event)
        for name, count in counts.items():
            if count is not None:
                more = self.reported.get(name, 0) if event.mode == "increment" else 0
                self.reported[name] = more + count

    @property
    def lacks_input(self) -> bool:
        """Whether nothing is known of its request's tokens."""
        is_told = self.request is not None or self.reported.get("input_tokens")
        return self.is_models and self.has_answered and not is_told

    def count(self, request: int) -> None:
        """Set counts and estimate of the call; the run began with ``request`` tokens."""
        call, reported = self.call, self.reported
        call.counts = call.estimate = None
        if reported and not self.is_estimated and max(reported.values()) <= MOST_TOKENS:
            call.counts = counts_of(reported)
        counts = call.counts
        if not self.is_models or (counts is not None and (self.is_whole or counts.unsplit_tokens)):
            return
        counts = counts or Counts()
        earlier = request + self.earlier // QUARTERS if self.request is None else self.request
        more = Counts(
            input_tokens=0 if counts.input_tokens else earlier,
            output_tokens=max(0, -(-self.quarters // QUARTERS) - counts.output_tokens),
        )
        if more.total:
            call.estimate = more


class Meter:
    """The calls of one run. `apply` its events in order; those that it has no use for may be left
    out."""

    def __init__(self) -> None:
        self._start = self._said = 0
        #: Tokens of the next call's request, where somebody knows them.
        self.request: int | None = None
        self._discarded: list[_Attempt] = []
        #: The newest attempt of each step; tasks have no parts and no tokens.
        self._steps: dict[int, _Attempt] = {}

    def apply(self, event: AnyEvent) -> None:
        """Add one event."""
        if isinstance(event, _Said):
            self.count_text(quarters_of(event.text))
        elif isinstance(event, RunStart):
            self._start = event.time
        elif isinstance(event, StepStart):
            if event.kind != "task":
                self._begin(event)
        elif isinstance(event, StepReset):
            self._reset(event.step)
        elif isinstance(event, StepEnd):
            if event.step in self._steps:
                self._steps[event.step].is_whole = event.terminal_seen
        elif isinstance(event, ResponseStart):
            attempt = self._newest(event)
            attempt.has_answered, attempt.is_resumable = True, event.resumable
            attempt.response = event.id or attempt.response
            if attempt.rereads is not None:
                if event.id != attempt.rereads.response:  # another one: both were billed
                    self._discarded.append(attempt.rereads)
                attempt.rereads = None
            attempt.call.served = event.model or attempt.call.served
        elif isinstance(event, PartStart):
            self._newest(event).has_answered = True
        elif isinstance(event, Usage) and event.source == "estimated":
            attempt = self._newest(event)
            attempt.request, attempt.is_estimated = event.input_tokens, True
            attempt.report(event)
        elif isinstance(event, Usage):
            attempt = self._newest(event)
            attempt.is_estimated = False
            attempt.has_answered, attempt.call.time = True, self._start + event.t
            attempt.report(event)
        elif isinstance(event, ToolResult):
            self._said += len(msgspec.json.encode(event.content))
        elif isinstance(event, ToolError):
            self._said += len(event.message)

    def count_text(self, quarters: int) -> None:
        """Count text of the newest call's answer, in quarters of a token."""
        self._said += quarters
        if self._steps:
            attempt = next(reversed(self._steps.values()))
            attempt.quarters += quarters

    def _begin(self, event: StepStart) -> None:
        call = ModelCall(provider=event.provider, model=event.model, time=self._start + event.t)
        attempt = _Attempt(call, is_models=event.kind == "model")
        earlier = self._steps.get(event.step)
        if earlier is not None:  # it begins again; without a reset it keeps its counts
            attempt.reported, attempt.has_answered = earlier.reported, earlier.has_answered
            attempt.is_resumable, attempt.quarters = earlier.is_resumable, earlier.quarters
            attempt.response, attempt.rereads = earlier.response, earlier.rereads
        attempt.earlier, attempt.request, self.request = self._said, self.request, None
        self._steps.pop(event.step, None)  # the newest is the last
        self._steps[event.step] = attempt

    def _reset(self, step: int) -> None:
        attempt = self._steps.get(step)
        if attempt is None:
            return
        # A response that its provider keeps is read again, and counted then; or, where it is not,
        # beside the one that is made in its place.
        rereads = attempt if attempt.is_resumable and attempt.response else attempt.rereads
        if not attempt.is_resumable:
            self._discarded.append(attempt)
        self._said -= attempt.quarters
        call = msgspec.structs.replace(attempt.call, served=None)
        restarted = _Attempt(call, is_models=attempt.is_models, is_resumable=attempt.is_resumable)
        restarted.rereads = rereads
        self._steps[step] = restarted

    def _newest(self, event: AnyEvent) -> _Attempt:
        """The call that an event belongs to."""
        if not self._steps:
            call = ModelCall(provider=None, model=None, time=self._start + event.t)
            self._steps[1] = _Attempt(call, is_models=True)
        return next(reversed(self._steps.values()))

    @property
    def reported(self) -> dict[str, int]:
        """All counts together, as they were reported."""
        total: dict[str, int] = {}
        for attempt in self._attempts:
            for name, count in attempt.reported.items():
                total[name] = total.get(name, 0) + count
        return total

    @property
    def _attempts(self) -> list[_Attempt]:
        unread = [one.rereads for one in self._steps.values() if one.rereads is not None]
        return [*self._discarded, *unread, *self._steps.values()]

    def unreported(self, request: int) -> Counts | None:
        """What the newest call used, as estimated, where its provider has said nothing."""
        attempt = next(reversed(self._steps.values()), None)
        if attempt is None or attempt.reported or not attempt.has_answered:
            return None
        attempt.count(request)
        return attempt.call.estimate

    @property
    def lacks_input(self) -> bool:
        """Whether the tokens of the run's request are needed to count its calls."""
        return any(attempt.lacks_input for attempt in self._attempts)

    def calls(self, request: int = 0) -> list[ModelCall]:
        """Every call that was answered, so far. ``request``: tokens that the run began with."""
        calls: list[ModelCall] = []
        for attempt in self._attempts:
            attempt.count(request)
            if attempt.reported or (attempt.has_answered and attempt.is_models):
                calls.append(attempt.call)
        return calls


async def read_calls(
    store: Records, run: str, request: Callable[[], Awaitable[int]] | None = None
) -> list[ModelCall]:
    """The model calls in a run's log. ``request`` is asked for the tokens that the run began with,
    where a call of it was not counted. Raises `LogError`."""
    meter, offset = Meter(), 0
    while True:
        page = await store.read(run, after=offset, most=4096, most_bytes=4 << 20, fresh=True)
        for record in page.records:
            if record.startswith(_DELTAS, CHECK):
                meter.count_text(_quarters_in(record))
            elif record.startswith(_PREFIXES, CHECK):
                meter.apply(decode(json_of(record)))
        offset += len(page.records)
        if not page.records or offset >= page.tail:
            break
    is_asked = request is not None and meter.lacks_input
    return meter.calls(await request() if is_asked and request is not None else 0)


def _quarters_in(record: bytes) -> int:
    """The length of a delta's text, in quarters of a token."""
    start, end = record.find(_TEXT, CHECK) + len(_TEXT), record.rfind(_AFTER_TEXT)
    text = record[start:end]
    if end < start or not text.isascii() or b"\\" in text:  # or of another's making
        event = decode(json_of(record))
        return quarters_of(event.text) if isinstance(event, _Said) else 0
    return len(text)
