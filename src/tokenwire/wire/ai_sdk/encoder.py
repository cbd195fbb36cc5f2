"""The UI message stream of the AI SDK (v1): what `useChat` reads.

Always true: the default chunks are accepted by ``ai`` 5, 6 and 7 (an unknown type, an unknown key
or a null fails their whole stream); ``finish``, ``error`` or ``abort`` comes once, last, before
``[DONE]``; a delta's part is open in the same connection. A reader that resumes by cursor gets no
``start``; open text and reasoning continue under a new id, open tool input is sent again whole.

``compat`` says what may be sent: ``5`` what every release of 5 takes, ``common`` what the last
releases of 5, 6 and 7 take, ``6`` adds approvals, ``7`` adds ``reset-step`` and what a person says
while the answer is written, which the others get as data.
"""

from __future__ import annotations

from collections.abc import Container
from typing import ClassVar

from tokenwire.events.codec import AnyEvent
from tokenwire.events.model import (
    Control,
    FileEnd,
    OpaqueEnd,
    PartAttr,
    PartDelta,
    PartEnd,
    PartStart,
    ProviderResultEnd,
    RunEnd,
    RunStart,
    RunWait,
    SharedState,
    StepEnd,
    StepReset,
    StepStart,
    TextDelta,
    ToolCallDelta,
    ToolCallEnd,
)
from tokenwire.events.reasons import CUT_REASONS
from tokenwire.wire.ai_sdk.parts import (
    COMPAT,
    NOT_COMPLETE,
    Compat,
    side_facts,
    signed_facts,
    source_chunks,
    steering_chunk,
    task_chunk,
)
from tokenwire.wire.base import text_of
from tokenwire.wire.chunk_encoder import GAP, Chunk, ChunkEncoder, Common, clean, dumps
from tokenwire.wire.place import Place
from tokenwire.wire.view import PartView

__all__ = ["COMPAT", "FINISH_REASONS", "Compat", "UIMessageEncoder"]

#: Our finish reasons -> the six words that every version takes.
FINISH_REASONS = {
    "stop": "stop",
    "length": "length",
    "context_overflow": "length",
    "content_filter": "content-filter",
    "refusal": "content-filter",
    "tool_calls": "tool-calls",
    "error": "error",
    "malformed_tool_call": "error",
}
_TEXT = {"text": "text", "refusal": "text", "reasoning": "reasoning"}
_LETTER = {"text": "t", "refusal": "f", "reasoning": "r"}


class UIMessageEncoder(ChunkEncoder):
    """Events to UI message chunks.

    ``message_id``: of the assistant message that is continued (default: the run's id).
    ``resolved_ids``: approvals and calls that have their answer or result; a wait for others ends
    the stream.
    """

    name: ClassVar[str] = "ui"
    headers: ClassVar[dict[str, str]] = {
        "x-vercel-ai-ui-message-stream": "v1",
        "content-encoding": "identity",
    }

    def __init__(
        self,
        *,
        compat: Compat = "common",
        message_id: str | None = None,
        resolved_ids: Container[str] = (),
        place: Place | None = None,
    ) -> None:
        super().__init__(place=place)
        self.compat: Compat = compat
        self.message_id = message_id
        self.resolved_ids = resolved_ids
        self._calls: set[str] = set()  # tool parts that the client has
        self._step_calls: dict[str, bool] = {}  # of this step -> its input is whole
        self._step_visible = False  # something of this step can be seen
        self._step_open = False  # the client has its start and not its end
        # What the client has open, by our id, with the id that it knows.
        self._open: dict[str, str] = {}
        self._open_calls: dict[str, tuple[Chunk, list[str]]] = {}
        self._last = 0

    def encode(self, event: AnyEvent, cursor: str) -> bytes:
        """The frames of ``event``; text, the common case, takes a short path."""
        if type(event) is TextDelta and not self.ended:
            part = self.view.open.get(event.part)
            if part is not None and part.announced and event.text:
                part.add(event.text)
                name = f"t{event.part}"
                return b'id: %b\ndata: {"type":"text-delta","id":"%b","delta":%b}\n\n' % (
                    cursor.encode("ascii"),
                    self._open.get(name, name).encode("ascii"),
                    dumps(event.text),
                )
        return super().encode(event, cursor)

    def finish(self) -> bytes:
        """The sentinel; clients do not need it, other tools look for it."""
        return b"data: [DONE]\n\n"

    # --- what the client has ---------------------------------------------------------------------

    def skip(self, event: AnyEvent) -> None:
        """Apply ``event``; re-opened parts take their new ids from its number."""
        self._last = event.seq
        super().skip(event)

    def _track(self, chunk: Chunk) -> None:
        kind = chunk["type"]
        if kind in ("text-start", "reasoning-start"):
            self._open[chunk["id"]] = chunk["id"]
        elif kind in ("text-end", "reasoning-end"):
            self._open.pop(chunk["id"], None)
        elif kind == "tool-input-start":
            self._open_calls[chunk["toolCallId"]] = (chunk, [])
        elif kind == "tool-input-delta":
            self._open_calls[chunk["toolCallId"]][1].append(chunk["inputTextDelta"])
        elif kind in ("tool-input-available", "tool-input-error", "tool-output-error"):
            self._open_calls.pop(chunk["toolCallId"], None)
        elif kind == "reset-step":
            self._open.clear()
            self._open_calls.clear()

    def _client_names(self, chunk: Chunk) -> Chunk:
        if chunk["type"] in ("text-delta", "reasoning-delta", "text-end", "reasoning-end"):
            client_id = self._open.get(chunk["id"], chunk["id"])
            if client_id != chunk["id"]:
                return {**chunk, "id": client_id}
        return chunk

    def _reopened_parts(self) -> list[Chunk]:
        chunks: list[Chunk] = []
        for name in self._open:
            self._open[name] = f"{name}.{self._last}"
            kind = "reasoning" if name.startswith("r") else "text"
            chunks.append({"type": f"{kind}-start", "id": self._open[name]})
        for call_id, (start, pieces) in self._open_calls.items():
            chunks.append(start)
            if pieces:
                # A new connection has none of the input so far, so it is sent whole.
                text = "".join(pieces)
                chunks.append(
                    {"type": "tool-input-delta", "toolCallId": call_id, "inputTextDelta": text}
                )
        return chunks

    # --- events to chunks ------------------------------------------------------------------------

    def _render(self, event: AnyEvent) -> list[Chunk]:
        view = self.view
        discarded = dict(view.open) if isinstance(event, StepReset) else {}
        task = view.tasks.get(event.step) if isinstance(event, StepEnd) else None
        view.apply(event)
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
            return [self._start(event)]
        if isinstance(event, StepStart | StepEnd) and (task or event.step in view.tasks):
            return [task_chunk(event, task or view.tasks[event.step])]
        if isinstance(event, StepStart):
            return self._start_step()
        if isinstance(event, StepEnd):
            self._step_open = False
            return [{"type": "finish-step"}]
        if isinstance(event, StepReset):
            return self._reset(event, discarded)
        if isinstance(event, RunWait):
            return self._wait(event)
        if isinstance(event, RunEnd):
            return self._run_end(event)
        if isinstance(event, SharedState):
            # Data parts are replaced, not patched, so each holds the whole.
            return [{"type": "data-state", "id": "state", "data": view.shared}]
        if isinstance(event, Control) and event.command == "steer" and event.id and event.text:
            return [steering_chunk(event.id, [{"type": "text", "text": event.text}], self.compat)]
        return side_facts(event, self._calls, self.compat)

    def _start(self, event: RunStart) -> Chunk:
        facts = clean(run=event.run, thread=event.thread, model=event.model)
        return {
            "type": "start",
            "messageId": self.message_id or event.run,
            "messageMetadata": {"tokenwire": facts},
        }

    def _start_step(self) -> list[Chunk]:
        # Of an attempt before this one the client may have the start, and nothing else.
        is_told = self._step_open and not self._step_visible
        self._step_calls, self._step_visible, self._step_open = {}, False, True
        return [] if is_told else [{"type": "start-step"}]

    def _open_part(self, part: PartView) -> list[Chunk]:
        if part.announced:
            return []
        if part.kind in _TEXT:
            part.announced = self._step_visible = True
            chunk: Chunk = {"type": f"{_TEXT[part.kind]}-start", "id": _name(part)}
            if part.kind == "refusal":
                chunk["providerMetadata"] = {"tokenwire": {"kind": "refusal"}}
            return [chunk]
        if part.kind == "tool-call" and part.call_id and part.name:
            part.announced = self._step_visible = True
            self._calls.add(part.call_id)
            self._step_calls[part.call_id] = False
            start = clean(
                type="tool-input-start",
                toolCallId=part.call_id,
                toolName=part.name,
                providerExecuted=True if part.executor == "provider" else None,
            )
            return [start, *self._arguments(part)]
        return []

    def _arguments(self, part: PartView) -> list[Chunk]:
        # Pieces that arrived before the call had its name and id are sent when it is opened.
        text = "".join(part.pieces[part.pieces_sent :])
        part.pieces_sent = len(part.pieces)
        if not text:
            return []
        return [{"type": "tool-input-delta", "toolCallId": part.call_id, "inputTextDelta": text}]

    def _delta(self, event: PartDelta) -> list[Chunk]:
        part = self.view.open.get(event.part)
        if part is None or not event.text:
            return []
        if part.kind in _TEXT:
            chunks = self._open_part(part)
            kind = f"{_TEXT[part.kind]}-delta"
            chunks.append({"type": kind, "id": _name(part), "delta": event.text})
            return chunks
        if isinstance(event, ToolCallDelta) and part.announced:
            return self._arguments(part)
        return []

    def _common(self, part: PartView) -> Common | None:
        if not part.announced:
            return None
        if part.kind in _TEXT:
            return {"type": f"{_TEXT[part.kind]}-delta", "id": _name(part), "delta": GAP}, None
        _, pieces = self._open_calls.get(part.call_id, (None, None))
        if part.kind != "tool-call" or pieces is None:
            return None
        chunk = {"type": "tool-input-delta", "toolCallId": part.call_id, "inputTextDelta": GAP}

        def change(text: bytes) -> None:
            part.sent()
            pieces.append(text_of(text))

        return chunk, change

    def _end(self, event: PartEnd) -> list[Chunk]:
        part = self.view.parts.get(event.part)
        if part is None:
            return []
        if part.kind in _TEXT:
            return self._end_text(part, event)
        if isinstance(event, ToolCallEnd):
            return self._end_call(part, event)
        if isinstance(event, ProviderResultEnd):
            return self._provider_result(part, event)
        if isinstance(event, FileEnd) and event.status == "complete":
            url = part.url or f"data:{part.media_type};base64,{part.text}"
            self._step_visible = True
            return [{"type": "file", "url": url, "mediaType": part.media_type}]
        if isinstance(event, OpaqueEnd) and event.status == "complete":
            # Kept for the provider, as the AI SDK keeps redacted thinking: reasoning without text.
            self._step_visible = True
            facts = clean(name=part.name, payload=part.payload, **signed_facts(part))
            return [
                {"type": "reasoning-start", "id": f"r{part.part}"},
                {
                    "type": "reasoning-end",
                    "id": f"r{part.part}",
                    "providerMetadata": {"tokenwire": {"opaque": facts}},
                },
            ]
        return []

    def _end_text(self, part: PartView, event: PartEnd) -> list[Chunk]:
        missing = part.missing(event.text)
        signed = signed_facts(part)
        chunks = self._open_part(part) if missing or signed else []
        if not part.announced:
            return chunks
        kind = _TEXT[part.kind]
        if missing:
            chunks.append({"type": f"{kind}-delta", "id": _name(part), "delta": missing})
        end: Chunk = {"type": f"{kind}-end", "id": _name(part)}
        if signed:
            end["providerMetadata"] = {"tokenwire": signed}
        chunks.append(end)
        if missing is None:
            data = {"part": part.part, "text": event.text}
            chunks.append({"type": "data-text-correction", "id": f"fix-{part.part}", "data": data})
        return chunks

    def _end_call(self, part: PartView, event: ToolCallEnd) -> list[Chunk]:
        part.call_id = part.call_id or f"call-{part.part}"
        part.name = part.name or "unknown"
        chunks = self._open_part(part)
        self._step_calls[part.call_id] = True
        fields = clean(
            toolCallId=part.call_id,
            toolName=part.name,
            providerExecuted=True if part.executor == "provider" else None,
        )
        if event.status == "complete":
            value = event.arguments if event.arguments is not None else part.text or {}
            extra = signed_facts(part)
            if extra:
                fields["providerMetadata"] = {"tokenwire": extra}
            return [*chunks, {"type": "tool-input-available", **fields, "input": value}]
        error = event.error or NOT_COMPLETE[event.status]
        failed = {"type": "tool-input-error", **fields, "input": part.text, "errorText": error}
        return [*chunks, failed]

    def _provider_result(self, part: PartView, event: ProviderResultEnd) -> list[Chunk]:
        chunks: list[Chunk] = []
        content = event.content if event.content is not None else part.payload
        call_id = part.call_id or f"call-{part.part}"
        self._step_visible = True
        self.view.result_ids.add(call_id)
        if call_id not in self._calls:
            self._calls.add(call_id)
            self._step_calls[call_id] = True
            chunks.append(
                {
                    "type": "tool-input-available",
                    "toolCallId": call_id,
                    "toolName": part.name or "provider_tool",
                    "input": {},
                    "providerExecuted": True,
                }
            )
        output = content if content is not None else part.text
        chunks.append(
            {
                "type": "tool-output-available",
                "toolCallId": call_id,
                "output": output,
                "providerExecuted": True,
            }
        )
        return chunks

    def _attr(self, event: PartAttr) -> list[Chunk]:
        part = self.view.open.get(event.part)
        if part is None:
            return []
        if part.kind == "tool-call":
            return self._open_part(part)
        if event.name == "citation" and isinstance(event.value, dict):
            return source_chunks(event)
        return []

    def _reset(self, event: StepReset, discarded: dict[int, PartView]) -> list[Chunk]:
        if not self._step_visible:
            return []
        if self.compat == "7":
            self._calls -= set(self._step_calls)
            return [{"type": "reset-step"}]
        chunks: list[Chunk] = [
            {"type": f"{_TEXT[p.kind]}-end", "id": _name(p)}
            for p in discarded.values()
            if p.announced and p.kind in _TEXT
        ]
        for call_id in self._step_calls:
            if call_id not in self.view.result_ids:
                text = "The step was started again; this call is not made."
                chunks.append(
                    {"type": "tool-output-error", "toolCallId": call_id, "errorText": text}
                )
        data = clean(step=event.step, attempt=event.attempt, reason=event.reason)
        chunks.append({"type": "data-step-reset", "id": f"reset-{event.seq}", "data": data})
        return chunks

    def _wait(self, event: RunWait) -> list[Chunk]:
        keeps_open = event.reason == "approval" and self.compat in ("5", "common")
        if keeps_open or all(name in self.resolved_ids for name in event.pending):
            return []
        self.ended = True
        return [self._finish("tool_calls", "waiting")]

    def _run_end(self, event: RunEnd) -> list[Chunk]:
        ending = self.view.ending(event)
        if ending == "cancelled":
            return [{"type": "abort"}]
        if ending == "failed":
            return [{"type": "error", "errorText": self.view.failure(event).message}]
        reason = self.view.reason
        if ending == "cut" and reason not in CUT_REASONS:
            reason = "length"  # a limit of ours (`max_steps`), for which this wire has no word
        return [self._finish(reason, event.outcome, usage_unknown=event.usage_unknown)]

    def _finish(self, reason: str, outcome: str, *, usage_unknown: bool = False) -> Chunk:
        usage = self.view.usage or None
        facts = clean(outcome=outcome, finishReason=reason, usage=usage)
        if usage_unknown:
            facts["usageUnknown"] = True
        chunk: Chunk = {"type": "finish"}
        if self.compat != "5":
            chunk["finishReason"] = FINISH_REASONS.get(reason, "other")
        chunk["messageMetadata"] = {"tokenwire": facts}
        return chunk


def _name(part: PartView) -> str:
    return f"{_LETTER[part.kind]}{part.part}"
