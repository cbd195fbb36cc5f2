"""A2A 1.0 stream responses: a run as a task.

Always true: the first response is the task; whatever follows changes its status or an artifact, and
no chunk appends to an artifact that the reader does not have; one terminal status ends the stream,
and only a whole answer is ``TASK_STATE_COMPLETED``. Each response has the run's cursor in its
metadata. A reader that resumes receives the task as of its cursor, then only what it misses. Tools
of the server, reasoning, and the words of subagents are the agent's own and are not sent.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from datetime import UTC, datetime
from typing import ClassVar

from tokenwire.events.codec import AnyEvent
from tokenwire.events.model import (
    ApprovalAnswer,
    ApprovalRequest,
    Data,
    FileEnd,
    PartDelta,
    PartEnd,
    RunBudget,
    RunEnd,
    RunProgress,
    RunStart,
    RunWait,
    StepReset,
    StepStart,
    ToolError,
    ToolResult,
    ToolStart,
)
from tokenwire.events.reasons import CUT_REASONS
from tokenwire.wire.a2a.task import TaskFold, question_parts, with_cursor
from tokenwire.wire.chunk_encoder import Chunk, ChunkEncoder, budget_fields, clean, dumps
from tokenwire.wire.place import Place
from tokenwire.wire.view import PartView

__all__ = ["A2AEncoder"]

#: What a person reads of an answer that a known limit cut.
_CUTS = {
    "length": "The answer was cut at its length limit.",
    "content_filter": "The answer was cut by a content filter.",
    "context_overflow": "The answer was cut: the conversation is too long for the model.",
    "max_steps": "The task was ended at its limit of steps.",
    "budget": "The task was ended because its budget is used up.",
}


class A2AEncoder(ChunkEncoder):
    """Events to A2A's stream responses.

    ``request_id``: of a JSON-RPC request, whose responses these are; without one they are those of
    the REST binding. ``context_id``: what the client calls the conversation. ``history``: the
    messages of the task. ``resolved_ids``: approvals and calls that have their answer; a wait for
    others ends the stream. ``keeps``: hold the whole task (`task`); a reader that resumes does, up
    to its place. ``is_task_sent``: the reader that resumes has the task already.
    """

    name: ClassVar[str] = "a2a"
    of_reader: ClassVar[frozenset[str]] = ChunkEncoder.of_reader | {"resume_id"}

    def __init__(
        self,
        *,
        request_id: str | int | None = None,
        is_rpc: bool = False,
        context_id: str | None = None,
        history: list[Chunk] | None = None,
        resolved_ids: Container[str] = (),
        keeps: bool = False,
        is_task_sent: bool = False,
        place: Place | None = None,
    ) -> None:
        super().__init__(place=place)
        self.request_id, self.is_rpc = request_id, is_rpc
        self.context_id, self.history = context_id, history or []
        self.resolved_ids = resolved_ids
        self._is_task_sent = is_task_sent
        self._fold = TaskFold() if keeps or place is not None else None
        self._drops = not keeps
        #: The id with which a reader comes back to the place where this one resumes.
        self.resume_id = ""
        if place is not None:
            frames = f".{place.frames}" if place.frames is not None else ""
            self.resume_id = f"{place.cursor}{frames}"
        self._state = ""
        self._seq = self._time = 0
        self._pending: list[str] = []
        self._approvals: dict[str, ApprovalRequest] = {}
        #: Artifacts that the client has, and how many the steps before this one made.
        self._artifacts: set[str] = set()
        self._count = self._step_count = 0
        self._names: dict[int, str] = {}
        self._refusals: dict[int, list[str]] = {}

    def task(self) -> Chunk:
        """The task so far, of an encoder that keeps it."""
        assert self._fold is not None
        return self._fold.value()

    def task_at(self, events: Iterable[AnyEvent], place: Place) -> Chunk:
        """The task as of ``place``, of an encoder that keeps it and has seen nothing."""
        for event in events:
            if event.seq < place.offset or (event.seq == place.offset and place.frames is None):
                self.skip(event)
            elif event.seq == place.offset:
                for chunk in self._rendered(event)[: place.frames]:
                    self._track(chunk)
        return self.task()

    def frame(self, chunk: Chunk, cursor: str) -> bytes:
        """One stream response with its cursor."""
        return self._frame(chunk, cursor)

    # --- what the client has ---------------------------------------------------------------------

    def _track(self, chunk: Chunk) -> None:
        if self._fold is not None:
            self._fold.apply(chunk)

    def _reopened_parts(self) -> list[Chunk]:
        if self._fold is None:
            return []
        task = self._fold.value()
        if self._drops:
            self._fold = None
        return [{"task": task}] if task and not self._is_task_sent else []

    def _frame(self, chunk: Chunk, frame_id: str | None) -> bytes:
        cursor = frame_id or self.resume_id
        body = with_cursor(chunk, cursor) if cursor else chunk
        if self.is_rpc:
            body = {"jsonrpc": "2.0", "id": self.request_id, "result": body}
        head = b"id: %b\n" % cursor.encode("ascii") if cursor else b""
        return b"%bdata: %b\n\n" % (head, dumps(body))

    # --- events to stream responses --------------------------------------------------------------

    def _render(self, event: AnyEvent) -> list[Chunk]:
        view = self.view
        view.apply(event)
        self._seq, self._time = event.seq, event.t
        if isinstance(event, PartDelta):
            part = view.open.get(event.part)
            return self._delta(part, event.text) if part is not None and event.text else []
        if isinstance(event, PartEnd):
            return self._end(event)
        if isinstance(event, RunStart):
            self._state = "SUBMITTED"
            return [{"task": self._task()}]
        if isinstance(event, StepStart):
            if event.kind != "task":
                self._step_count, self._names = self._count, {}
            return self._works()
        if isinstance(event, StepReset):
            return self._reset()
        if isinstance(event, RunWait):
            return self._wait(event)
        if isinstance(event, RunEnd):
            return [self._status(*self._outcome(event))]
        if isinstance(event, Data) and not event.transient:
            return self._data(event)
        if isinstance(event, RunProgress) and event.message:
            parts: list[Chunk] = [{"text": event.message}]
            facts = clean(progress=event.fraction)
            return [self._status("WORKING", self._message(parts), facts)]
        if isinstance(event, RunBudget):
            return [self._status("WORKING", None, {"budget": budget_fields(event)})]
        return self._answered(event)

    def _answered(self, event: AnyEvent) -> list[Chunk]:
        if isinstance(event, ApprovalRequest):
            self._approvals[event.approval_id] = event
        elif isinstance(event, ApprovalAnswer | ToolResult | ToolError) and self._pending:
            name = event.approval_id if isinstance(event, ApprovalAnswer) else event.call_id
            self._pending = [n for n in self._pending if n != name]
            return [] if self._pending else self._works()
        elif isinstance(event, ToolStart):
            return self._works()
        return []

    @property
    def _context(self) -> str:
        return self.context_id or self.view.thread or self.view.run

    def _names_of(self) -> Chunk:
        return {"taskId": self.view.run, "contextId": self._context}

    def _task(self) -> Chunk:
        task: Chunk = {"id": self.view.run, "contextId": self._context}
        task["status"] = {"state": "TASK_STATE_SUBMITTED", "timestamp": self._timestamp()}
        if self.history:
            task["history"] = self.history
        return task

    def _timestamp(self) -> str:
        moment = datetime.fromtimestamp((self.view.time + self._time) / 1000, UTC)
        return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"

    def _status(
        self, state: str, message: Chunk | None = None, facts: Chunk | None = None
    ) -> Chunk:
        self._state = state
        status = clean(state=f"TASK_STATE_{state}", message=message, timestamp=self._timestamp())
        update: Chunk = {**self._names_of(), "status": status}
        if facts:
            update["metadata"] = {"tokenwire": facts}
        return {"statusUpdate": update}

    def _works(self) -> list[Chunk]:
        if self._state == "WORKING" or self._pending:
            return []
        return [self._status("WORKING")]

    def _message(self, parts: list[Chunk]) -> Chunk:
        name = f"{self.view.run}-{self._seq}"
        return {"messageId": name, **self._names_of(), "role": "ROLE_AGENT", "parts": parts}

    # --- artifacts -------------------------------------------------------------------------------

    def _artifact(
        self, name: str, part: Chunk, *, append: bool = False, last: bool = False, title: str = ""
    ) -> Chunk:
        artifact: Chunk = {"artifactId": name, "parts": [part]}
        if title:
            artifact["name"] = title
        update: Chunk = {**self._names_of(), "artifact": artifact}
        if append and name in self._artifacts:
            update["append"] = True
        if last:
            update["lastChunk"] = True
        self._artifacts.add(name)
        return {"artifactUpdate": update}

    def _artifact_id(self, part: PartView) -> str:
        name = self._names.get(part.part)
        if name is None:
            self._count += 1
            name = self._names[part.part] = f"artifact-{self._count}"
        return name

    def _delta(self, part: PartView, text: str) -> list[Chunk]:
        if part.kind == "refusal":
            self._refusals.setdefault(part.part, []).append(text)
            return []
        if part.kind != "text":
            return []
        is_first = not part.announced
        part.announced = True
        return [self._artifact(self._artifact_id(part), {"text": text}, append=not is_first)]

    def _end(self, event: PartEnd) -> list[Chunk]:
        part = self.view.parts.get(event.part)
        if part is None:
            return []
        if part.kind == "refusal":
            if event.text is not None:
                self._refusals[part.part] = [event.text]
            return []
        if part.kind == "text":
            missing = part.missing(event.text)
            if missing is None:
                name = self._artifact_id(part)
                return [self._artifact(name, {"text": event.text}, last=True)]
            return self._delta(part, missing) if missing else []
        if isinstance(event, FileEnd) and event.status == "complete":
            content = clean(
                url=part.url,
                raw=None if part.url else part.text,
                mediaType=part.media_type,
                filename=part.name or None,
            )
            return [self._artifact(self._artifact_id(part), content, last=True)]
        return []

    def _data(self, event: Data) -> list[Chunk]:
        part: Chunk = {"data": event.payload, "mediaType": "application/json"}
        name = f"data-{event.name}" if event.id is None else f"data-{event.name}-{event.id}"
        return [self._artifact(name, part, append=event.id is None, title=event.name)]

    def _reset(self) -> list[Chunk]:
        """Empty what the void attempt made; its names are used again."""
        void = [name for name in self._names.values() if name in self._artifacts]
        for part in list(self._refusals):
            if part in self.view.parts:
                del self._refusals[part]
        self._names, self._count = {}, self._step_count
        return [self._artifact(name, {"text": ""}) for name in void]

    # --- waits and ends --------------------------------------------------------------------------

    def _wait(self, event: RunWait) -> list[Chunk]:
        self._pending = list(event.pending)
        calls = {p.call_id: p for p in self.view.parts.values() if p.kind == "tool-call"}
        approvals: list[Chunk] = []
        tools: list[Chunk] = []
        for name in event.pending:
            question = self._approvals.get(name)
            if question is not None:
                approvals.append(
                    clean(
                        approvalId=name,
                        name=question.name,
                        arguments=question.arguments,
                        reason=question.reason,
                        expires=question.expires,
                    )
                )
                continue
            part = calls.get(name)
            tools.append(
                clean(
                    callId=name,
                    name=part.name if part is not None else "",
                    arguments=part.payload if part is not None else None,
                )
            )
        status = self._status("INPUT_REQUIRED", self._message(question_parts(approvals, tools)))
        self.ended = not all(name in self.resolved_ids for name in event.pending)
        return [status]

    def _outcome(self, event: RunEnd) -> tuple[str, Chunk | None, Chunk]:
        """The state, what a person reads of it, and facts for programs."""
        view = self.view
        ending = view.ending(event)
        facts = clean(finishReason=view.reason, usage=view.usage or None)
        if event.usage_unknown:
            facts["usageUnknown"] = True
        refusal = "".join(text for texts in self._refusals.values() for text in texts)
        if ending == "cancelled":
            reason = event.reason
            return "CANCELED", self._message([{"text": reason}]) if reason else None, facts
        if ending == "failed":
            failure = view.failure(event)
            facts["error"] = failure.code
            return "FAILED", self._message([{"text": failure.message}]), facts
        if refusal or view.reason == "refusal":
            text = refusal or "The model refused."
            return "REJECTED", self._message([{"text": text}]), facts
        if ending == "cut":
            reason = view.reason if view.reason in CUT_REASONS else event.reason or view.reason
            facts["error"] = reason
            text = _CUTS.get(reason, f"The answer is not whole: {reason}.")
            return "FAILED", self._message([{"text": text}]), facts
        return "COMPLETED", None, facts
