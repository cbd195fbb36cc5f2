"""The event union: every fact that a run can tell, as small typed values.

Always true: an event is understandable alone (its type says what its text is); a delta holds the
new piece only; ``part`` is unique within a run; what is absent is absent, never null.

Events are named noun, then moment: ``text-start``, ``text-delta``, ``text-end``. The JSON form is
the struct with ``type`` first and defaults left out (`tokenwire.events.codec`).

Three base classes let code ask for a moment whatever the kind: `PartStart`, `PartDelta`, `PartEnd`.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import msgspec

__all__ = [
    "EVENT_TYPES",
    "TRANSIENT",
    "ApprovalAnswer",
    "ApprovalRequest",
    "Checkpoint",
    "Control",
    "Data",
    "Error",
    "Event",
    "FileDelta",
    "FileEnd",
    "FileStart",
    "Finish",
    "FinishReason",
    "Heartbeat",
    "LogReset",
    "OpaqueEnd",
    "OpaqueStart",
    "PartAttr",
    "PartDelta",
    "PartEnd",
    "PartPatch",
    "PartStart",
    "PartStatus",
    "ProviderResultDelta",
    "ProviderResultEnd",
    "ProviderResultStart",
    "Raw",
    "ReasoningDelta",
    "ReasoningEnd",
    "ReasoningStart",
    "Reconnect",
    "RefusalDelta",
    "RefusalEnd",
    "RefusalStart",
    "ResponseStart",
    "RunClaim",
    "RunEnd",
    "RunOutcome",
    "RunStart",
    "RunWait",
    "StepEnd",
    "StepReset",
    "StepStart",
    "StepStatus",
    "TextDelta",
    "TextEnd",
    "TextStart",
    "ToolCallDelta",
    "ToolCallEnd",
    "ToolCallStart",
    "ToolError",
    "ToolOutput",
    "ToolProgress",
    "ToolResult",
    "ToolStart",
    "Unknown",
    "Usage",
]

FinishReason = Literal[
    "stop",
    "length",
    "tool_calls",
    "refusal",
    "content_filter",
    "pause",
    "context_overflow",
    "malformed_tool_call",
    "error",
    "cancelled",
    "other",
]
PartStatus = Literal["complete", "truncated", "invalid", "discarded"]
StepStatus = Literal["complete", "incomplete", "error", "cancelled"]
RunOutcome = Literal["complete", "incomplete", "cancelled", "error", "interrupted"]
Kind = Literal["text", "reasoning", "refusal", "tool-call", "provider-result", "file", "opaque"]


class Event(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """What every event carries.

    ``seq``: position in the run, 1, 2, 3, ... without gap (0: not assigned yet, `events.order`
    assigns it). ``t``: milliseconds since the run started. ``extra``: fields of the JSON form that
    this version does not know; kept, and written back.
    """

    seq: int = 0
    t: int = 0
    extra: dict[str, Any] | None = None

    @property
    def type(self) -> str:
        """The JSON ``type``: ``text-delta``."""
        return str(self.__struct_config__.tag)


# --- run ---------------------------------------------------------------------------------------


class RunStart(Event, tag="run-start"):
    """The first event of every run. ``time``: Unix time in milliseconds."""

    run: str
    time: int = 0
    thread: str | None = None
    model: str | None = None
    metadata: dict[str, Any] | None = None


class RunClaim(Event, tag="run-claim"):
    """Another worker took the run over; ``epoch`` only grows along the log."""

    epoch: int
    owner: str = ""
    reason: str | None = None


class RunWait(Event, tag="run-wait"):
    """The run waits for a person or a client: ``pending`` are approval ids or call ids."""

    reason: Literal["approval", "client_tool"]
    pending: list[str]


class RunEnd(Event, tag="run-end"):
    """The one terminal event of a run; nothing follows it.

    ``complete`` is a whole answer; ``incomplete`` ended by length, filter or truncation;
    ``interrupted`` lost its worker and could not go on. ``usage`` sums all steps.
    """

    outcome: RunOutcome
    reason: str | None = None
    usage: dict[str, int] | None = None
    recoverable: bool = False


# --- step --------------------------------------------------------------------------------------


class StepStart(Event, tag="step-start"):
    """One call of a model begins (``attempt`` 1), or begins again (2, 3, ...)."""

    step: int
    attempt: int = 1
    provider: str | None = None
    dialect: str | None = None
    model: str | None = None


class ResponseStart(Event, tag="response-start"):
    """The provider has begun to answer: its own handles of the response."""

    id: str | None = None
    model: str | None = None
    request_id: str | None = None
    resumable: bool = False


class Usage(Event, tag="usage"):
    """Token counts. ``cumulative`` replaces what was told before in this step, never adds.

    ``input_tokens`` includes cached ones; ``output_tokens`` includes reasoning where the provider
    counts it so. ``raw`` is the provider's own object.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    cached_input_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    mode: Literal["cumulative", "increment"] = "cumulative"
    source: Literal["provider", "estimated"] = "provider"
    raw: dict[str, Any] | None = None


class Finish(Event, tag="finish"):
    """Why the model stopped; not the end of the stream. ``raw``: the provider's own word."""

    reason: FinishReason
    raw: str | None = None
    message: str | None = None
    details: dict[str, Any] | None = None
    choice: int = 0


class StepEnd(Event, tag="step-end"):
    """A model call is over. Without ``terminal_seen`` the answer was cut, whatever was shown."""

    step: int
    status: StepStatus
    terminal_seen: bool = False


class StepReset(Event, tag="step-reset"):
    """The step starts again as ``attempt``: forget ``discard_parts``, keep all earlier steps."""

    step: int
    attempt: int
    discard_parts: list[int] = []
    reason: str | None = None


# --- parts -------------------------------------------------------------------------------------


class PartStart(Event):
    """Base of ``*-start``. ``choice``: which candidate, when more than one was asked for."""

    kind: ClassVar[Kind]
    part: int
    step: int = 0
    choice: int = 0
    #: What the provider calls it (item or block id, index), for those who must send it back.
    meta: dict[str, Any] | None = None


class PartDelta(Event):
    """Base of ``*-delta``: the next piece, never the text so far."""

    kind: ClassVar[Kind]
    part: int
    text: str


class PartEnd(Event):
    """Base of ``*-end``. ``text``, when present, replaces what the deltas gave (a provider's
    correction). ``size``: UTF-8 bytes of the part's text."""

    kind: ClassVar[Kind]
    part: int
    status: PartStatus = "complete"
    size: int = 0
    text: str | None = None


class TextStart(PartStart, tag="text-start"):
    kind = "text"


class TextDelta(PartDelta, tag="text-delta"):
    kind = "text"


class TextEnd(PartEnd, tag="text-end"):
    kind = "text"


class ReasoningStart(PartStart, tag="reasoning-start"):
    """``summary``: the provider's summary instead of the reasoning itself."""

    kind = "reasoning"
    summary: bool = False


class ReasoningDelta(PartDelta, tag="reasoning-delta"):
    kind = "reasoning"


class ReasoningEnd(PartEnd, tag="reasoning-end"):
    kind = "reasoning"


class RefusalStart(PartStart, tag="refusal-start"):
    kind = "refusal"


class RefusalDelta(PartDelta, tag="refusal-delta"):
    kind = "refusal"


class RefusalEnd(PartEnd, tag="refusal-end"):
    kind = "refusal"


class ToolCallStart(PartStart, tag="tool-call-start"):
    """The model asks for a tool. ``executor``: who runs it. ``id_source``: ``synthetic`` when the
    provider gave no id. ``name`` may come later as a ``part-attr`` ``tool_name``. ``format``:
    ``text`` for free-form input (no JSON)."""

    kind = "tool-call"
    name: str = ""
    call_id: str = ""
    id_source: Literal["provider", "synthetic"] = "provider"
    executor: Literal["server", "client", "provider"] = "server"
    format: Literal["json", "text"] = "json"


class ToolCallDelta(PartDelta, tag="tool-call-delta"):
    """A piece of the arguments' JSON text; not valid JSON before the call ends."""

    kind = "tool-call"


class ToolCallEnd(PartEnd, tag="tool-call-end"):
    """``arguments``: the parsed value when ``complete``; ``error`` says why when ``invalid``."""

    kind = "tool-call"
    arguments: Any = None
    error: str | None = None


class ProviderResultStart(PartStart, tag="provider-result-start"):
    """The result of a tool that the provider ran itself, as it came, in ``content``."""

    kind = "provider-result"
    call_id: str = ""
    name: str = ""
    content: Any = None


class ProviderResultDelta(PartDelta, tag="provider-result-delta"):
    kind = "provider-result"


class ProviderResultEnd(PartEnd, tag="provider-result-end"):
    kind = "provider-result"
    content: Any = None


class FileStart(PartStart, tag="file-start"):
    """An image, audio or file made by the model; deltas are pieces of base64 text."""

    kind = "file"
    media: Literal["image", "audio", "file"] = "file"
    media_type: str = "application/octet-stream"
    name: str | None = None
    url: str | None = None


class FileDelta(PartDelta, tag="file-delta"):
    kind = "file"


class FileEnd(PartEnd, tag="file-end"):
    kind = "file"


class OpaqueStart(PartStart, tag="opaque-start"):
    """A provider's part that we cannot read but must keep: redacted thinking, compaction."""

    kind = "opaque"
    name: str = ""
    payload: Any = None


class OpaqueEnd(PartEnd, tag="opaque-end"):
    kind = "opaque"


class PartAttr(Event, tag="part-attr"):
    """Something that decorates an open part.

    ``name`` and what a fold does with ``value``: ``signature``, ``encrypted``, ``call_id``,
    ``tool_name``, ``status`` replace; ``citation`` (an object) and ``logprobs`` (a list) add;
    ``meta`` (an object) merges.
    """

    part: int
    name: str
    value: Any = None


class PartPatch(Event, tag="part-patch"):
    """A JSON value set at ``path`` (JSONPath, ``$.city``) of a part's arguments; ``open`` strings
    are continued by the next patch of the same path."""

    part: int
    path: str
    value: Any = None
    open: bool = False


# --- tools -------------------------------------------------------------------------------------


class ToolStart(Event, tag="tool-start"):
    """A tool begins to run for ``call_id``; written before it runs."""

    call_id: str
    name: str
    step: int = 0
    arguments: Any = None
    idempotent: bool = False


class ToolProgress(Event, tag="tool-progress"):
    """How far it is: ``fraction`` 0 to 1, or unknown."""

    call_id: str
    fraction: float | None = None
    message: str | None = None


class ToolOutput(Event, tag="tool-output"):
    """A piece of a result that streams; the whole follows in ``tool-result``."""

    call_id: str
    text: str


class ToolResult(Event, tag="tool-result"):
    """The result that the model will see: any JSON value, or text."""

    call_id: str
    content: Any = None
    name: str = ""
    by: str | None = None


class ToolError(Event, tag="tool-error"):
    """The tool failed, and the model sees ``message``. ``code``: ``timeout``, ``exception``,
    ``unknown_tool``, ``invalid_arguments``, ``denied``, ``too_many``, ``oversize``, ..."""

    call_id: str
    code: str
    message: str
    name: str = ""


class ApprovalRequest(Event, tag="approval-request"):
    """A person must say yes before ``call_id`` runs with exactly these ``arguments``."""

    approval_id: str
    call_id: str
    name: str
    arguments: Any = None
    reason: str | None = None


class ApprovalAnswer(Event, tag="approval-answer"):
    """Somebody answered; the first answer wins. ``arguments``: as edited, when edited."""

    approval_id: str
    call_id: str
    approved: bool
    by: str | None = None
    reason: str | None = None
    arguments: Any = None


# --- the rest ----------------------------------------------------------------------------------


class Error(Event, tag="error"):
    """Something went wrong; ``message`` is safe to show. ``after_output``: text was shown before.

    ``which`` names the clock of a timeout. ``raw`` is for people who debug, and is redacted.
    """

    scope: Literal["transport", "timeout", "parse", "provider", "policy", "tool", "internal"]
    code: str
    message: str
    retryable: bool = False
    http_status: int | None = None
    after_output: bool = False
    which: str | None = None
    retry_after: float | None = None
    request_id: str | None = None
    raw: Any = None


class Control(Event, tag="control"):
    """A command from outside, written into the log: ``cancel`` or ``steer``."""

    command: Literal["cancel", "steer"]
    by: str | None = None
    reason: str | None = None
    text: str | None = None


class Data(Event, tag="data"):
    """An application's own fact. The same ``id`` replaces; ``transient`` is shown, not kept."""

    name: str
    payload: Any = None
    id: str | None = None
    transient: bool = False


class Raw(Event, tag="raw"):
    """A wire event that we do not know, as it came."""

    dialect: str
    event: str | None = None
    payload: Any = None


class Checkpoint(Event, tag="checkpoint"):
    """The folded state up to event ``upto``, for late joiners and compaction."""

    upto: int
    state: dict[str, Any]


class Heartbeat(Event, tag="heartbeat"):
    """Somebody is alive; never logged, moves no clock but the transport's."""

    source: Literal["provider", "comment", "server"] = "provider"


class Reconnect(Event, tag="reconnect"):
    """The server will close this connection; come back with your offset. Never logged."""

    after_ms: int = 1000
    reason: str | None = None


class LogReset(Event, tag="log-reset"):
    """Your cursor is not of this log: forget what you hold and read again from ``to``.
    Never logged."""

    reason: str
    to: int = 0


class Unknown(msgspec.Struct, kw_only=True):
    """An event type of a newer version: ``fields`` is its whole JSON object."""

    seq: int = 0
    t: int = 0
    fields: dict[str, Any]

    @property
    def type(self) -> str:
        """The JSON ``type``."""
        return str(self.fields.get("type", ""))


#: Events that are told to readers but never stored.
TRANSIENT: tuple[type[Event], ...] = (Heartbeat, Reconnect, LogReset)


def _leaves(base: type[Event]) -> list[type[Event]]:
    found: list[type[Event]] = []
    for child in base.__subclasses__():
        if child not in (PartStart, PartDelta, PartEnd):
            found.append(child)
        found.extend(_leaves(child))
    return found


#: JSON type -> class, for every event of this version.
EVENT_TYPES: dict[str, type[Event]] = {str(c.__struct_config__.tag): c for c in _leaves(Event)}
