"""AG-UI 1.0 events, and the same with TanStack AI's additions.

Always true: ``RUN_STARTED`` comes first; whatever was started is ended before ``RUN_FINISHED``;
exactly one ``RUN_FINISHED`` or ``RUN_ERROR`` ends the stream, nothing follows; ids name one message
or call each; optional fields are absent, never null. With ``tanstack`` a reader that resumes
continues with the very next event; without it a new connection receives ``RUN_STARTED`` and the
starts of open parts again (reducers accept a known id as it is), then only what it misses.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any, ClassVar

from tokenwire.events.codec import AnyEvent
from tokenwire.events.model import (
    ApprovalRequest,
    Control,
    Data,
    FileEnd,
    OpaqueEnd,
    PartAttr,
    PartDelta,
    PartEnd,
    PartStart,
    ProviderResultEnd,
    Raw,
    RunBudget,
    RunEnd,
    RunProgress,
    RunStart,
    RunWait,
    SharedState,
    StepEnd,
    StepReset,
    StepStart,
    ToolCallEnd,
    ToolError,
    ToolProgress,
    ToolResult,
)
from tokenwire.events.reasons import CUT_REASONS
from tokenwire.wire.ag_ui.chunks import args, encrypted, speaker
from tokenwire.wire.ag_ui.messages import MessageList
from tokenwire.wire.base import text_of
from tokenwire.wire.chunk_encoder import (
    GAP,
    Chunk,
    ChunkEncoder,
    Common,
    budget_fields,
    clean,
    dumps_text,
)
from tokenwire.wire.place import Place
from tokenwire.wire.view import PartView

__all__ = ["AGUIEncoder"]

#: What is opened by which event, and how it is closed: start type -> (end type, id field).
_PAIRS = {
    "TEXT_MESSAGE_START": ("TEXT_MESSAGE_END", "messageId"),
    "TOOL_CALL_START": ("TOOL_CALL_END", "toolCallId"),
    "REASONING_MESSAGE_START": ("REASONING_MESSAGE_END", "messageId"),
    "REASONING_START": ("REASONING_END", "messageId"),
    "STEP_STARTED": ("STEP_FINISHED", "stepName"),
}
_ENDS = {end: (start, field) for start, (end, field) in _PAIRS.items()}
#: Our finish reasons -> TanStack's four words.
_FINISH = {
    "stop": "stop",
    "length": "length",
    "context_overflow": "length",
    "pause": "length",
    "tool_calls": "tool_calls",
}
_FILTERED = {"content_filter", "refusal"}
_TEXT = {"text": "TEXT_MESSAGE", "refusal": "TEXT_MESSAGE", "reasoning": "REASONING_MESSAGE"}


class AGUIEncoder(ChunkEncoder):
    """Events to AG-UI events.

    ``thread_id`` and ``run_id``: the client's own names (default: those of the run's start).
    ``history``: the messages of the request; with them a ``step-reset`` becomes a
    ``MESSAGES_SNAPSHOT`` without the parts that are void; without them only a ``CUSTOM`` event
    reports it. ``is_continuation``: a new run of the client continues this run (an interrupt was
    resolved). ``resolved_ids``: approvals and calls that have their answer or result; a wait for
    others ends the stream.
    """

    name: ClassVar[str] = "ag-ui"
    subagents: ClassVar[bool] = True

    def __init__(
        self,
        *,
        thread_id: str | None = None,
        run_id: str | None = None,
        history: list[Chunk] | None = None,
        tanstack: bool = False,
        is_continuation: bool = False,
        resolved_ids: Container[str] = (),
        place: Place | None = None,
    ) -> None:
        super().__init__(place=place)
        self.thread_id, self.run_id = thread_id, run_id
        self.tanstack = tanstack
        self.is_continuation = is_continuation
        self.resolved_ids = resolved_ids
        self._messages = MessageList(history) if history is not None else None
        self._parent: str | None = None  # the assistant message that tool calls hang on
        self._approvals: dict[str, ApprovalRequest] = {}
        self._calls: dict[str, PartView] = {}
        #: What the client has open: (start type, id) -> the start.
        self._open: dict[tuple[str, str], Chunk] = {}
        self._step_ids: list[str] = []
        #: Open steps, with the names that the client knows them by.
        self._steps: dict[int, str] = {}

    # --- what the client has ---------------------------------------------------------------------

    def _track(self, chunk: Chunk) -> None:
        kind = chunk["type"]
        pair = _PAIRS.get(kind)
        if pair is not None:
            self._open[kind, chunk[pair[1]]] = chunk
        elif kind in _ENDS:
            start, field = _ENDS[kind]
            self._open.pop((start, chunk[field]), None)
        if self._messages is not None:
            self._messages.apply(chunk)

    def _reopened_parts(self) -> list[Chunk]:
        if self.tanstack and not self.is_continuation:
            return []
        return [self._run_started(), *self._open.values()]

    # --- events to chunks ------------------------------------------------------------------------

    def _render(self, event: AnyEvent) -> list[Chunk]:
        view = self.view
        task = isinstance(event, StepEnd) and event.step in view.tasks
        shared = view.shared
        view.apply(event)
        if isinstance(event, SharedState):
            return self._shared(event, shared)
        if isinstance(event, PartDelta):
            return self._delta(event)
        if isinstance(event, PartStart):
            part = view.parts[event.part]
            return self._open_part(part) if part.kind in ("text", "refusal", "tool-call") else []
        if isinstance(event, PartEnd):
            return self._end(event)
        if isinstance(event, PartAttr):
            return self._attr(event)
        if isinstance(event, RunStart):
            return [self._run_started()]
        if isinstance(event, StepStart):
            return self._step_start(event)
        if isinstance(event, StepEnd):
            ended = self._close_step(event.step)
            return ended if task else [*self._close_parts(), *ended]
        if isinstance(event, StepReset):
            return self._reset(event)
        if isinstance(event, RunWait):
            return self._wait(event)
        if isinstance(event, RunEnd):
            return self._run_end(event)
        if isinstance(event, Control) and event.command == "steer" and event.id and event.text:
            return [
                {"type": "TEXT_MESSAGE_START", "messageId": event.id, "role": "user"},
                {"type": "TEXT_MESSAGE_CONTENT", "messageId": event.id, "delta": event.text},
                {"type": "TEXT_MESSAGE_END", "messageId": event.id},
            ]
        return self._other(event)

    def _step_start(self, event: StepStart) -> list[Chunk]:
        name = f"step-{event.step}"
        if event.kind == "task":
            # Tasks overlap, and a name may be open once only.
            open_names = {name for start, name in self._open if start == "STEP_STARTED"}
            name = f"{event.name or name}"
            name = f"{name}-{event.step}" if name in open_names else name
            if event.step in self._steps:
                return []  # a task that is started again
        else:
            self._parent, self._step_ids = None, []
        self._steps[event.step] = name
        return [{"type": "STEP_STARTED", "stepName": name}]

    def _close_step(self, step: int) -> list[Chunk]:
        name = self._steps.pop(step, None)
        if name is None or ("STEP_STARTED", name) not in self._open:
            return []
        return [{"type": "STEP_FINISHED", "stepName": name}]

    def _run_started(self) -> Chunk:
        return {"type": "RUN_STARTED", **self._names()}

    def _names(self) -> Chunk:
        # Who started the run on this wire has a name of its own for it.
        client_run = self.view.metadata.get("ag_ui_run")
        run = self.run_id or (client_run if isinstance(client_run, str) else None) or self.view.run
        return {"threadId": self.thread_id or self.view.thread or run, "runId": run}

    def _message_id(self, part: PartView) -> str:
        return f"{self.view.run}-{part.part}"

    def _open_part(self, part: PartView) -> list[Chunk]:
        if part.announced:
            return []
        name = self._message_id(part)
        if part.kind in ("text", "refusal"):
            part.announced = True
            self._parent = name
            self._step_ids.append(name)
            chunk: Chunk = {"type": "TEXT_MESSAGE_START", "messageId": name, "role": "assistant"}
            if part.agent is not None and part.agent.name:
                chunk["name"] = part.agent.name
            facts: Chunk = {}
            if self.tanstack and self.view.model:
                facts["tanstack"] = {"model": self.view.model}
            if part.agent is not None:
                facts["tokenwire"] = {"agent": speaker(part.agent)}
            return [{**chunk, "metadata": facts} if facts else chunk]
        if part.kind == "reasoning":
            part.announced = True
            self._step_ids.append(name)
            return [
                {"type": "REASONING_START", "messageId": name},
                {"type": "REASONING_MESSAGE_START", "messageId": name, "role": "reasoning"},
            ]
        if part.kind == "tool-call" and part.call_id and part.name:
            part.announced = True
            self._calls[part.call_id] = part
            # The first call without text before it makes the message that the others hang on.
            self._parent = self._parent or name
            self._step_ids.append(part.call_id)
            start = {
                "type": "TOOL_CALL_START",
                "toolCallId": part.call_id,
                "toolCallName": part.name,
                "parentMessageId": self._parent,
            }
            return [start, *self._arguments(part)]
        return []

    def _arguments(self, part: PartView) -> list[Chunk]:
        text = "".join(part.pieces[part.pieces_sent :])
        part.pieces_sent = len(part.pieces)
        return [args(part.call_id, text)] if text else []

    def _delta(self, event: PartDelta) -> list[Chunk]:
        part = self.view.open.get(event.part)
        if part is None or not event.text:
            return []
        if part.kind in _TEXT:
            return [*self._open_part(part), self._content(part, event.text)]
        if part.kind == "tool-call" and part.announced:
            return self._arguments(part)
        return []

    def _content(self, part: PartView, text: str) -> Chunk:
        kind = f"{_TEXT[part.kind]}_CONTENT"
        return {"type": kind, "messageId": self._message_id(part), "delta": text}

    def _common(self, part: PartView) -> Common | None:
        is_text = part.kind in _TEXT
        if not part.announced or not (is_text or part.kind == "tool-call"):
            return None
        chunk = self._content(part, GAP) if is_text else args(part.call_id, GAP)
        name = self._message_id(part) if is_text else part.call_id
        pieces = None if self._messages is None else self._messages.pieces(name)
        if pieces is None:
            return chunk, None if is_text else part.sent

        def change(text: bytes) -> None:
            part.sent()
            pieces.append(text_of(text))

        return chunk, change

    def _end(self, event: PartEnd) -> list[Chunk]:
        part = self.view.parts.get(event.part)
        if part is None:
            return []
        name = self._message_id(part)
        if part.kind in _TEXT:
            return self._end_text(part, event, name)
        if isinstance(event, ToolCallEnd):
            part.call_id = part.call_id or f"call-{part.part}"
            part.name = part.name or "unknown"
            chunks = self._open_part(part)
            if event.status == "complete" and not part.text and event.arguments is not None:
                chunks.append(args(part.call_id, dumps_text(event.arguments)))
            end: Chunk = {"type": "TOOL_CALL_END", "toolCallId": part.call_id}
            if event.status != "complete":
                facts = clean(status=event.status, error=event.error)
                end["metadata"] = {"tokenwire": facts}
            chunks.append(end)
            return [*chunks, *encrypted(part, "tool-call", part.call_id)]
        if isinstance(event, ProviderResultEnd):
            content = event.content if event.content is not None else part.payload
            value = clean(
                callId=part.call_id or None,
                name=part.name or None,
                content=content if content is not None else part.text,
            )
            return [{"type": "CUSTOM", "name": "provider-result", "value": value}]
        if isinstance(event, FileEnd) and event.status == "complete":
            value = clean(
                mediaType=part.media_type, url=part.url, data=part.text or None, name=part.name
            )
            return [{"type": "CUSTOM", "name": "file", "value": value}]
        if isinstance(event, OpaqueEnd) and event.status == "complete":
            value = clean(name=part.name, payload=part.payload, **part.attrs)
            return [{"type": "CUSTOM", "name": "opaque", "value": value}]
        return []

    def _end_text(self, part: PartView, event: PartEnd, name: str) -> list[Chunk]:
        kind = _TEXT[part.kind]
        missing = part.missing(event.text)
        signed = part.kind == "reasoning" and (
            "signature" in part.attrs or "encrypted" in part.attrs
        )
        chunks = self._open_part(part) if missing or signed else []
        if missing:
            chunks.append(self._content(part, missing))
        if part.announced:
            chunks.append({"type": f"{kind}_END", "messageId": name})
            if part.kind == "reasoning":
                chunks += encrypted(part, "message", name)
                chunks.append({"type": "REASONING_END", "messageId": name})
        if missing is None:
            value = {"messageId": name, "text": event.text}
            chunks.append({"type": "CUSTOM", "name": "text-correction", "value": value})
        return chunks

    def _attr(self, event: PartAttr) -> list[Chunk]:
        part = self.view.open.get(event.part)
        if part is None:
            return []
        if part.kind == "tool-call":
            return self._open_part(part)
        if event.name == "citation":
            value = {"messageId": self._message_id(part), "citation": event.value}
            return [{"type": "CUSTOM", "name": "citation", "value": value}]
        return []

    # --- ends and waits --------------------------------------------------------------------------

    def interrupts(self, pending: list[str]) -> list[Chunk]:
        """What a client is told to wait for, after the events were taken with `skip`."""
        return [self._interrupt(name) for name in pending]

    def _close(self, *starts: str) -> list[Chunk]:
        chunks: list[Chunk] = []
        for start, name in reversed(self._open):
            if start in starts:
                end, field = _PAIRS[start]
                chunks.append({"type": end, field: name})
        return chunks

    def _close_parts(self) -> list[Chunk]:
        return self._close(*(start for start in _PAIRS if start != "STEP_STARTED"))

    def _reset(self, event: StepReset) -> list[Chunk]:
        chunks = [*self._close_parts(), *self._close_step(event.step)]
        if not self._step_ids:
            return chunks
        value = clean(step=event.step, attempt=event.attempt, reason=event.reason)
        value["discard"] = list(self._step_ids)
        chunks.append({"type": "CUSTOM", "name": "step-reset", "value": value})
        if self._messages is not None:
            messages = self._messages.without(self._step_ids)
            chunks.append({"type": "MESSAGES_SNAPSHOT", "messages": messages})
        return chunks

    def _wait(self, event: RunWait) -> list[Chunk]:
        if all(name in self.resolved_ids for name in event.pending):
            return []
        self.ended = True
        outcome: Chunk = {"type": "success", "pendingToolCallIds": list(event.pending)}
        if event.reason == "approval" or self.tanstack:
            outcome = {
                "type": "interrupt",
                "interrupts": self.interrupts(list(event.pending)),
            }
        return [*self._close(*_PAIRS), self._finished(outcome, "tool_calls")]

    def _interrupt(self, pending: str) -> Chunk:
        question = self._approvals.get(pending)
        if question is None:
            part = self._calls.get(pending)
            facts: Chunk = {"kind": "client_tool", "toolName": part.name if part else ""}
            facts["input"] = part.payload if part is not None and part.payload is not None else {}
            return {
                "id": pending,
                "reason": "client_tool_input",
                "toolCallId": pending,
                "metadata": facts,
            }
        facts = {"kind": "approval", "toolName": question.name}
        facts["input"] = question.arguments if question.arguments is not None else {}
        schema = {
            "type": "object",
            "properties": {"approved": {"type": "boolean"}, "reason": {"type": "string"}},
            "required": ["approved"],
        }
        return clean(
            id=question.approval_id,
            reason="approval_required" if self.tanstack else "tool_call",
            message=question.reason or f"May the tool {question.name} run?",
            toolCallId=question.call_id,
            responseSchema=schema,
            metadata=facts,
        )

    def _run_end(self, event: RunEnd) -> list[Chunk]:
        chunks = self._close(*_PAIRS)
        ending = self.view.ending(event)
        if ending == "cancelled":
            return [*chunks, self._finished({"type": "cancelled"}, "stop", event)]
        if ending != "failed":
            reason = self.view.reason
            if ending == "cut" and reason not in CUT_REASONS:
                reason = "length"  # a limit of ours (`max_steps`), for which this wire has no word
            return [*chunks, self._finished({"type": "success"}, reason, event)]
        failure = self.view.failure(event)
        failed = {"type": "RUN_ERROR", "message": failure.message, "code": failure.code}
        if self.tanstack:
            failed |= self._names()
        return [*chunks, failed]

    def _finished(self, outcome: Chunk, reason: str, end: RunEnd | None = None) -> Chunk:
        usage = self.view.usage
        word = "content_filter" if reason in _FILTERED else _FINISH.get(reason, "stop")
        is_unknown = end is not None and end.usage_unknown
        metadata = {"tokenwire": clean(finishReason=reason, usageUnknown=is_unknown or None)}
        if self.tanstack:
            metadata["tanstack"] = clean(finishReason=word, model=self.view.model)
        chunk = {"type": "RUN_FINISHED", **self._names(), "outcome": outcome}
        if usage:
            counts = clean(
                provider=self.view.provider,
                model=self.view.model,
                inputTokens=usage.get("input_tokens"),
                outputTokens=usage.get("output_tokens"),
                totalTokens=usage.get("total_tokens"),
                reasoningTokens=usage.get("reasoning_tokens"),
                cachedInputTokens=usage.get("cached_input_tokens"),
                cacheWriteInputTokens=usage.get("cache_write_tokens"),
            )
            chunk["usage"] = [counts]
        return {**chunk, "metadata": metadata}

    def _shared(self, event: SharedState, before: Any) -> list[Chunk]:
        """The state: a patch only to a client that has what it changes."""
        shared = self.view.shared
        if event.patch is not None and shared is before:
            return []  # nothing changed
        if event.patch is None or not isinstance(before, dict | list):
            return [{"type": "STATE_SNAPSHOT", "snapshot": shared if shared is not None else {}}]
        return [{"type": "STATE_DELTA", "delta": event.patch}]

    def _other(self, event: AnyEvent) -> list[Chunk]:
        if isinstance(event, ToolResult | ToolError):
            failed = isinstance(event, ToolError)
            content = event.message if failed else dumps_text(event.content)
            chunk: Chunk = {
                "type": "TOOL_CALL_RESULT",
                "messageId": f"{self.view.run}-result-{event.call_id}",
                "toolCallId": event.call_id,
                "content": content,
                "role": "tool",
            }
            if failed:
                facts: Chunk = {"tokenwire": {"error": event.code}}
                if self.tanstack:
                    facts["tanstack"] = {"state": "output-error"}
                chunk["metadata"] = facts
            return [chunk]
        if isinstance(event, ApprovalRequest):
            self._approvals[event.approval_id] = event
        elif isinstance(event, ToolProgress):
            value = clean(toolCallId=event.call_id, fraction=event.fraction, message=event.message)
            return [{"type": "CUSTOM", "name": "tool-progress", "value": value}]
        elif isinstance(event, RunProgress):
            value = clean(fraction=event.fraction, message=event.message)
            return [{"type": "CUSTOM", "name": "progress", "value": value}]
        elif isinstance(event, RunBudget):
            return [{"type": "CUSTOM", "name": "budget", "value": budget_fields(event)}]
        elif isinstance(event, Data):
            value = event.payload if event.payload is not None else {}
            return [{"type": "CUSTOM", "name": event.name, "value": value}]
        elif isinstance(event, Raw):
            value = event.payload if event.payload is not None else {}
            return [{"type": "RAW", "event": value, "source": event.dialect}]
        return []
