"""The event union: every fact of a run, as small typed values.

Always true: an event is understandable alone (its type says what its text is); a delta holds the
new piece only; ``part`` is unique within a run; absent fields are omitted, never null.

Events are named noun, then moment: ``text-start``, ``text-delta``, ``text-end``. The JSON form is
the struct with ``type`` first and defaults omitted (`tokenwire.events.codec`).

Three base classes select a moment whatever the kind: `PartStart`, `PartDelta`, `PartEnd`.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from tokenwire.events.parts import (
    Agent,
    Event,
    FileDelta,
    FileEnd,
    FileStart,
    OpaqueEnd,
    OpaqueStart,
    PartAttr,
    PartDelta,
    PartEnd,
    PartPatch,
    PartStart,
    PartStatus,
    ProviderResultDelta,
    ProviderResultEnd,
    ProviderResultStart,
    ReasoningDelta,
    ReasoningEnd,
    ReasoningStart,
    RefusalDelta,
    RefusalEnd,
    RefusalStart,
    TextDelta,
    TextEnd,
    TextStart,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
)

__all__ = [
    "EVENT_TYPES",
    "TRANSIENT",
    "Agent",
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
    "HistoryDescription",
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
    "RunBudget",
    "RunClaim",
    "RunEnd",
    "RunOutcome",
    "RunProgress",
    "RunStart",
    "RunStatus",
    "RunWait",
    "SharedState",
    "StepEnd",
    "StepKind",
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
StepStatus = Literal["complete", "incomplete", "error", "cancelled"]
StepKind = Literal["model", "task", "agent"]
RunOutcome = Literal["complete", "incomplete", "cancelled", "error", "interrupted"]
#: The state of a run: open, or how it ended.
RunStatus = Literal["running", "waiting", RunOutcome]


# --- run ---------------------------------------------------------------------------------------


class HistoryDescription(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What of its conversation a run's model was given. ``turns``: how many turns, of which the
    run's snapshot has the names; ``policy``: the rule that decided it; ``parent``: the run that it
    continues; ``omitted``: how many turns not; ``summarised``: a text is in place of those;
    ``summary_error``: why that could not be made, so that older turns are missing from it."""

    turns: int
    policy: str
    parent: str | None = None
    omitted: int = 0
    summarised: bool = False
    summary_error: str | None = None


class RunStart(Event, tag="run-start"):
    """The first event of every run. ``time``: Unix time in milliseconds; ``history``: what of its
    conversation the model was given, where the request had not all of it."""

    run: str
    time: int = 0
    thread: str | None = None
    model: str | None = None
    metadata: dict[str, Any] | None = None
    history: HistoryDescription | None = None


class RunClaim(Event, tag="run-claim"):
    """Another worker took over the run; ``epoch`` only grows along the log."""

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
    ``interrupted`` lost its worker and could not be resumed. ``usage`` sums all steps, including
    discarded attempts; ``usage_unknown``: of one of these the provider did not report all tokens
    (it was cut, or they are never reported), so that the run cost more than ``usage``, or may have.
    """

    outcome: RunOutcome
    reason: str | None = None
    usage: dict[str, int] | None = None
    usage_unknown: bool = False
    recoverable: bool = False


# --- step --------------------------------------------------------------------------------------


class StepStart(Event, tag="step-start"):
    """A step begins (``attempt`` 1), or begins again (2, 3, ...).

    ``kind``: ``model`` is one call of a model; ``agent`` holds what an agent says itself, without
    a model; ``task`` is a piece of an agent's work, called ``name``: it has no parts and may
    overlap other steps. ``operation``: the operation of the agent that the step belongs to.
    """

    step: int
    attempt: int = 1
    provider: str | None = None
    dialect: str | None = None
    model: str | None = None
    kind: StepKind = "model"
    name: str | None = None
    agent: Agent | None = None
    operation: int | None = None


class ResponseStart(Event, tag="response-start"):
    """The provider's response began: its own ids."""

    id: str | None = None
    model: str | None = None
    request_id: str | None = None
    resumable: bool = False


class Usage(Event, tag="usage"):
    """Token counts. ``cumulative`` replaces the earlier counts of this step, never adds.

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
    """Why the model stopped; not the end of the stream. ``raw``: the provider's own value."""

    reason: FinishReason
    raw: str | None = None
    message: str | None = None
    details: dict[str, Any] | None = None
    choice: int = 0


class StepEnd(Event, tag="step-end"):
    """A step is over. A model's without ``terminal_seen`` was cut, whatever was shown. ``size``:
    bytes of the JSON of a task's value, which no reader gets."""

    step: int
    status: StepStatus
    terminal_seen: bool = False
    size: int = 0


class StepReset(Event, tag="step-reset"):
    """The step restarts as ``attempt``: drop ``discard_parts``, keep all earlier steps.

    ``reason``: ``restart`` after its worker was lost; where an attempt failed before anything of
    it was visible, ``retry`` (the same model is called again) or ``fallback`` (another one);
    ``refused``: another one, as the model before began no answer, and nothing was billed.
    """

    step: int
    attempt: int
    discard_parts: list[int] = []
    reason: str | None = None


# --- tools -------------------------------------------------------------------------------------


class ToolStart(Event, tag="tool-start"):
    """A tool starts to run for ``call_id``; logged before it runs."""

    call_id: str
    name: str
    step: int = 0
    arguments: Any = None
    idempotent: bool = False


class ToolProgress(Event, tag="tool-progress"):
    """The progress of a tool: ``fraction`` 0 to 1, or unknown."""

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
    """A person must approve ``call_id`` before it runs with exactly these ``arguments``.
    ``expires``: Unix milliseconds at which it ends as denied, unless somebody has decided."""

    approval_id: str
    call_id: str
    name: str
    arguments: Any = None
    reason: str | None = None
    expires: int | None = None


class ApprovalAnswer(Event, tag="approval-answer"):
    """The decision on an approval; the first one wins. ``arguments``: those edited, if any."""

    approval_id: str
    call_id: str
    approved: bool
    by: str | None = None
    reason: str | None = None
    arguments: Any = None


# --- the rest ----------------------------------------------------------------------------------


class Error(Event, tag="error"):
    """A failure; ``message`` is safe to show. ``after_output``: text was visible before.

    ``which`` names the clock of a timeout. ``raw`` is for debugging, and is redacted.
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
    """A command from outside, recorded in the log: ``cancel``, or ``steer``: the ``text`` of a
    person that the model gets between two steps, under the ``id`` of its turn."""

    command: Literal["cancel", "steer"]
    by: str | None = None
    reason: str | None = None
    text: str | None = None
    id: str | None = None


class Data(Event, tag="data"):
    """An application's own fact. The same ``id`` replaces; a ``transient`` one is for those who
    read along, and no part of the message."""

    name: str
    payload: Any = None
    id: str | None = None
    transient: bool = False


class SharedState(Event, tag="state"):
    """The state that an agent shares with its readers: the whole as ``snapshot``, or, where there
    is a ``patch``, what changed since the last (``add``, ``replace``, ``remove`` of RFC 6902)."""

    snapshot: Any = None
    patch: list[dict[str, Any]] | None = None


class RunProgress(Event, tag="progress"):
    """How far the run is: ``fraction`` 0 to 1, or unknown. The last one counts."""

    fraction: float | None = None
    message: str | None = None


class RunBudget(Event, tag="budget"):
    """A budget is nearly used up, or, with nothing ``left``, ends the run. The last one counts.

    ``name``: ``principal/day``, ``tenant/month``, ``thread``, or ``run`` (the request's own);
    ``left``, ``most``: tokens, or US dollars; ``resets``: Unix seconds at which it begins anew.
    """

    name: str
    unit: Literal["tokens", "dollars"]
    left: int | float
    most: int | float
    resets: int | None = None


class Raw(Event, tag="raw"):
    """An unknown event of the provider's wire, unchanged."""

    dialect: str
    event: str | None = None
    payload: Any = None


class Checkpoint(Event, tag="checkpoint"):
    """The folded state up to event ``upto``, for late joiners and compaction."""

    upto: int
    state: dict[str, Any]


class Heartbeat(Event, tag="heartbeat"):
    """A sign of life; never logged, resets only the transport's deadline."""

    source: Literal["provider", "comment", "server"] = "provider"


class Reconnect(Event, tag="reconnect"):
    """The server will close this connection; resume from your cursor. Never logged."""

    after_ms: int = 1000
    reason: str | None = None


class Unknown(msgspec.Struct, kw_only=True):
    """An event type of a newer version: ``fields`` is its whole JSON object."""

    seq: int = 0
    t: int = 0
    fields: dict[str, Any]

    @property
    def type(self) -> str:
        """The JSON ``type``."""
        return str(self.fields.get("type", ""))


#: Events that are sent to readers but never stored.
TRANSIENT: tuple[type[Event], ...] = (Heartbeat, Reconnect)


def _leaves(base: type[Event]) -> list[type[Event]]:
    classes: list[type[Event]] = []
    for child in base.__subclasses__():
        if child not in (PartStart, PartDelta, PartEnd):
            classes.append(child)
        classes.extend(_leaves(child))
    return classes


#: JSON type -> class, for every event of this version.
EVENT_TYPES: dict[str, type[Event]] = {str(c.__struct_config__.tag): c for c in _leaves(Event)}
