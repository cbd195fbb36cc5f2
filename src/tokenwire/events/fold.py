"""Events to the message so far: the one state of a run that all readers share.

Always true: folding any coalescing of the same events gives the same message; a ``step-reset``
removes the discarded parts entirely; a restored snapshot folds on to the same result.
"""

from __future__ import annotations

from typing import Any, cast

import msgspec

from tokenwire.events import json_patch
from tokenwire.events.codec import AnyEvent
from tokenwire.events.message import Message, Part, ToolCallPart, steered
from tokenwire.events.model import (
    ApprovalAnswer,
    ApprovalRequest,
    Checkpoint,
    Control,
    Data,
    Error,
    Event,
    FileStart,
    Finish,
    OpaqueStart,
    PartAttr,
    PartDelta,
    PartEnd,
    PartStart,
    ProviderResultEnd,
    ProviderResultStart,
    ReasoningStart,
    ResponseStart,
    RunBudget,
    RunEnd,
    RunOutcome,
    RunProgress,
    RunStart,
    RunStatus,
    RunWait,
    SharedState,
    StepEnd,
    StepReset,
    StepStart,
    ToolCallEnd,
    ToolCallStart,
    ToolError,
    ToolResult,
    ToolStart,
    Usage,
)
from tokenwire.events.state import (
    USAGE_COUNTS,
    ApprovalState,
    PartState,
    SteerState,
    StepState,
    ToolState,
    message_part,
    own_fields,
    result_part,
)

__all__ = ["USAGE_COUNTS", "Fold", "PartState", "StepState", "ToolState", "fold"]


class Fold(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The state of a run after its events so far. `apply` each event once, in order."""

    run: str = ""
    thread: str | None = None
    model: str | None = None
    time: int = 0
    seq: int = 0
    steps: list[StepState] = []
    #: Tokens of discarded attempts, which cost as well.
    spent: dict[str, int] = {}
    #: An attempt was lost of which the provider did not report all tokens; at the end of a run,
    #: that it cost more than `usage`.
    usage_unknown: bool = False
    parts: dict[int, PartState] = {}
    tools: dict[str, ToolState] = {}
    #: What is known of questions to people beside their calls, by approval; and how often one was
    #: asked or settled.
    approvals: dict[str, ApprovalState] = {}
    approval_changes: int = 0
    #: Facts of the application, as ``name``, ``payload`` and ``id``; no transient ones.
    data: list[dict[str, Any]] = []
    #: The state that an agent shares with its readers; None before it shares any.
    shared: Any = None
    progress: dict[str, Any] | None = None
    #: The budget that is nearly used up, or that ended the run.
    budget: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    waiting: list[str] = []
    cancel_requested: bool = False
    #: What a person said between two steps.
    steers: list[SteerState] = []
    outcome: RunOutcome | None = None
    end_reason: str | None = None
    recoverable: bool = False

    def apply(self, event: AnyEvent) -> None:
        """Add one event."""
        if event.seq:
            self.seq = event.seq
        if isinstance(event, PartDelta):
            state = self.parts.get(event.part)
            if state is not None:
                state.add(event.text)
            return
        handler = _HANDLERS.get(type(event))
        if handler is not None:
            handler(self, event)
        elif isinstance(event, PartStart):
            _part_start(self, event)
        elif isinstance(event, PartEnd):
            _part_end(self, event)

    # --- reading -------------------------------------------------------------------------------

    @property
    def status(self) -> RunStatus:
        """``running``, ``waiting``, or the outcome."""
        return self.outcome or ("waiting" if self.waiting else "running")

    @property
    def text(self) -> str:
        """All text of the first choice, all steps; of the root agent, where there are several."""
        parts = (self.parts[p] for step in self.steps for p in step.parts)
        return "".join(
            part.text
            for part in parts
            if part.kind == "text" and part.choice == 0 and part.is_answer
        )

    @property
    def usage(self) -> dict[str, int]:
        """Token counts, summed over all steps and their attempts, as far as reported."""
        total: dict[str, int] = dict(self.spent)
        for step in self.steps:
            for name, count in step.usage.items():
                total[name] = total.get(name, 0) + count
        return total

    def end(
        self,
        outcome: RunOutcome,
        reason: str | None = None,
        *,
        recoverable: bool = False,
        is_calling: bool = False,
    ) -> RunEnd:
        """The end of the run. ``is_calling``: an attempt was announced whose end nobody knows, so
        that it may have been billed."""
        end = RunEnd(outcome=outcome, reason=reason, usage=self.usage or None)
        end.recoverable, last = recoverable, self.last_step
        is_lost = is_calling and last is not None and last.is_unreported(is_billed=True)
        has_gap = any(step.is_unreported() for step in self.steps)
        end.usage_unknown = self.usage_unknown or is_lost or has_gap
        return end

    @property
    def last_step(self) -> StepState | None:
        """The newest step that may hold parts: none of the kind ``task``."""
        return next((step for step in reversed(self.steps) if step.kind != "task"), None)

    @property
    def finish_reason(self) -> str | None:
        """Why the model stopped in the last step: a `FinishReason`."""
        for step in reversed(self.steps):
            if step.finish is not None:
                return cast(str, step.finish["reason"])
        return None

    def step_parts(self, step: StepState, choice: int = 0) -> list[Part]:
        """A step's parts as message parts; without those of subagents."""
        return [
            message_part(part, step.dialect)
            for part in (self.parts[p] for p in step.parts)
            if part.choice == choice and part.status != "discarded" and part.is_answer
        ]

    def message(self, choice: int = 0) -> Message:
        """The assistant's message: the parts of all steps."""
        parts = [part for step in self.steps for part in self.step_parts(step, choice)]
        return Message(role="assistant", content=parts)

    def history(self) -> list[Message]:
        """What to append to the conversation: per step the assistant's parts, then the results
        of its tool calls."""
        messages: list[Message] = []
        for step in self.steps:
            parts = self.step_parts(step)
            if parts:
                messages.append(Message(role="assistant", content=parts))
            results: list[Part] = [
                result_part(self.tools[p.call_id])
                for p in parts
                if isinstance(p, ToolCallPart)
                and p.call_id in self.tools
                and self.tools[p.call_id].done
            ]
            if results:
                messages.append(Message(role="tool", content=results))
            messages += [
                steered(steer.text, steer.id, self.run)
                for steer in self.steers
                if steer.step == step.step
            ]
        return messages

    def snapshot(self) -> dict[str, Any]:
        """The state as a JSON object, for `restore` and for late joiners."""
        for state in self.parts.values():
            _ = state.text
        return cast(dict[str, Any], msgspec.to_builtins(self, str_keys=True))

    @classmethod
    def restore(cls, snapshot: dict[str, Any]) -> Fold:
        """A state from its snapshot."""
        return msgspec.convert(snapshot, cls, strict=False)


def fold(events: list[AnyEvent] | list[Event]) -> Fold:
    """The state after all of ``events``."""
    state = Fold()
    for event in events:
        state.apply(event)
    return state


# --- one function per fact ---------------------------------------------------------------------


def _run_start(state: Fold, event: RunStart) -> None:
    state.run, state.thread, state.model = event.run, event.thread, event.model
    state.time = event.time


def _run_end(state: Fold, event: RunEnd) -> None:
    state.outcome, state.end_reason = event.outcome, event.reason
    state.recoverable, state.usage_unknown = event.recoverable, event.usage_unknown
    state.waiting = []
    state.approval_changes += len(state.approvals)


def _run_wait(state: Fold, event: RunWait) -> None:
    state.waiting = list(event.pending)


def _step_start(state: Fold, event: StepStart) -> None:
    state.waiting = []
    step = next((s for s in state.steps if s.step == event.step), None)
    if step is None:
        step = StepState(step=event.step)
        state.steps.append(step)
    step.attempt, step.provider = event.attempt, event.provider
    step.dialect, step.model = event.dialect, event.model
    step.kind, step.name = event.kind, event.name
    step.agent, step.operation = event.agent, event.operation


def _response_start(state: Fold, event: ResponseStart) -> None:
    step = _step(state)
    state.usage_unknown |= step.begin_response(event.id)
    step.response_id = event.id or step.response_id
    step.request_id = event.request_id or step.request_id
    step.model = event.model or step.model
    step.resumable = event.resumable


def _step_end(state: Fold, event: StepEnd) -> None:
    step = next((s for s in reversed(state.steps) if s.step == event.step), None) or _step(state)
    step.status, step.terminal_seen = event.status, event.terminal_seen


def _step_reset(state: Fold, event: StepReset) -> None:
    discard = set(event.discard_parts)
    for step in state.steps:
        if step.step == event.step:
            discarded = discard or set(step.parts)
            for part in discarded:
                state.parts.pop(part, None)
            is_billed = event.reason != "refused"
            state.usage_unknown |= step.spend(state.spent, is_billed=is_billed)
            step.finish, step.status = None, "open"
            step.response_id, step.terminal_seen = None, False
    for step in state.steps:  # a reset may name a part of another step
        step.parts = [p for p in step.parts if p in state.parts]


def _usage(state: Fold, event: Usage) -> None:
    _step(state).count(event)


def _finish(state: Fold, event: Finish) -> None:
    if event.choice == 0:
        _step(state).finish = own_fields(event)


def _part_start(state: Fold, event: PartStart) -> None:
    attrs: dict[str, Any] = {"meta": event.meta} if event.meta else {}
    if isinstance(event, ToolCallStart):
        attrs |= {"name": event.name, "call_id": event.call_id, "executor": event.executor}
        attrs |= {"id_source": event.id_source, "format": event.format}
    elif isinstance(event, ReasoningStart):
        attrs |= {"summary": event.summary}
    elif isinstance(event, ProviderResultStart):
        attrs |= {"name": event.name, "call_id": event.call_id, "content": event.content}
    elif isinstance(event, FileStart):
        attrs |= {"media_type": event.media_type, "media": event.media}
        attrs |= {"name": event.name, "url": event.url}
    elif isinstance(event, OpaqueStart):
        attrs |= {"name": event.name, "payload": event.payload}
    state.parts[event.part] = PartState(
        part=event.part,
        kind=event.kind,
        step=event.step,
        choice=event.choice,
        attrs=attrs,
        agent=event.agent,
    )
    step = _step(state)
    step.parts.append(event.part)
    step.is_answered = True


def _part_end(state: Fold, event: PartEnd) -> None:
    part = state.parts.get(event.part)
    if part is None:
        return
    part.status = event.status
    if event.text is not None:
        part.pieces = [event.text]
    if isinstance(event, ToolCallEnd):
        if event.arguments is not None:
            part.attrs["arguments"] = event.arguments
        if event.error is not None:
            part.attrs["error"] = event.error
    elif isinstance(event, ProviderResultEnd) and event.content is not None:
        part.attrs["content"] = event.content


def _part_attr(state: Fold, event: PartAttr) -> None:
    part = state.parts.get(event.part)
    if part is None:
        return
    attrs, name, value = part.attrs, event.name, event.value
    if name == "citation":
        attrs["citations"] = [*_list_of(attrs, "citations"), value]
    elif name == "logprobs" and isinstance(value, list):
        attrs["logprobs"] = [*_list_of(attrs, "logprobs"), *value]
    elif name == "meta" and isinstance(value, dict):
        meta = attrs.get("meta")
        attrs["meta"] = {**(meta if isinstance(meta, dict) else {}), **value}
    else:
        attrs["name" if name == "tool_name" else name] = value


def _list_of(attrs: dict[str, Any], name: str) -> list[Any]:
    """What is there to add to; a producer elsewhere may have sent something that is no list."""
    value = attrs.get(name)
    return value if isinstance(value, list) else []


def _tool(state: Fold, call_id: str, name: str = "") -> ToolState:
    tool = state.tools.get(call_id)
    if tool is None:
        tool = state.tools[call_id] = ToolState(call_id=call_id)
    if name:
        tool.name = name
    return tool


def _tool_start(state: Fold, event: ToolStart) -> None:
    tool = _tool(state, event.call_id, event.name)
    tool.started = True
    tool.idempotent, tool.step = event.idempotent, event.step
    tool.arguments = event.arguments


def _tool_result(state: Fold, event: ToolResult) -> None:
    tool = _tool(state, event.call_id, event.name)
    tool.done = True
    tool.content = event.content
    _no_longer_waiting(state, event.call_id)


def _tool_error(state: Fold, event: ToolError) -> None:
    tool = _tool(state, event.call_id, event.name)
    tool.done = True
    tool.content, tool.error = event.message, event.code
    state.approval_changes += tool.approval_id is not None
    _no_longer_waiting(state, event.call_id)


def _approval_request(state: Fold, event: ApprovalRequest) -> None:
    tool = _tool(state, event.call_id, event.name)
    tool.approval_id, tool.approval_arguments = event.approval_id, event.arguments
    state.approvals[event.approval_id] = ApprovalState(
        event.seq, state.time + event.t, event.expires, event.reason
    )
    state.approval_changes += 1


def _approval_answer(state: Fold, event: ApprovalAnswer) -> None:
    tool = _tool(state, event.call_id)
    if tool.approved is None:  # the first answer wins
        tool.approved, tool.approval_reason = event.approved, event.reason
        state.approvals.setdefault(event.approval_id, ApprovalState()).by = event.by
        state.approval_changes += 1
        if event.arguments is not None:
            tool.approval_arguments = event.arguments
    _no_longer_waiting(state, event.approval_id)


def _no_longer_waiting(state: Fold, name: str) -> None:
    if name in state.waiting:
        state.waiting = [w for w in state.waiting if w != name]


def _shared(state: Fold, event: SharedState) -> None:
    state.shared = json_patch.after(state.shared, event.snapshot, event.patch)


def _data(state: Fold, event: Data) -> None:
    if event.transient:
        return
    fact = {"name": event.name, "payload": event.payload, "id": event.id}
    for number, earlier in enumerate(state.data):
        if event.id is not None and (earlier["name"], earlier["id"]) == (event.name, event.id):
            state.data[number] = fact
            return
    state.data.append(fact)


def _progress(state: Fold, event: RunProgress) -> None:
    state.progress = own_fields(event)


def _error(state: Fold, event: Error) -> None:
    state.error = own_fields(event)


def _budget(state: Fold, event: RunBudget) -> None:
    state.budget = own_fields(event)


def _control(state: Fold, event: Control) -> None:
    if event.command == "cancel":
        state.cancel_requested = True
    elif event.id is not None and event.text is not None:
        last = state.last_step
        state.steers.append(SteerState(event.id, event.text, last.step if last is not None else 0))


def _checkpoint(state: Fold, event: Checkpoint) -> None:
    if not state.steps and event.upto > state.seq - 1:
        restored = Fold.restore(event.state)
        for name in Fold.__struct_fields__:
            setattr(state, name, getattr(restored, name))


def _step(state: Fold) -> StepState:
    """The step that parts and token counts belong to: never a task."""
    step = state.last_step
    if step is None:
        step = StepState(step=1)
        state.steps.append(step)
    return step


_HANDLERS: dict[type, Any] = {
    Data: _data,
    RunStart: _run_start,
    RunEnd: _run_end,
    RunWait: _run_wait,
    StepStart: _step_start,
    ResponseStart: _response_start,
    StepEnd: _step_end,
    StepReset: _step_reset,
    Usage: _usage,
    Finish: _finish,
    PartAttr: _part_attr,
    ToolStart: _tool_start,
    ToolResult: _tool_result,
    ToolError: _tool_error,
    ApprovalRequest: _approval_request,
    ApprovalAnswer: _approval_answer,
    SharedState: _shared,
    RunProgress: _progress,
    RunBudget: _budget,
    Error: _error,
    Control: _control,
    Checkpoint: _checkpoint,
}
