"""Gemini Interactions: its stream of steps to events, and our request to its own.

Always true: a step's parts carry its type and index in ``meta``; ``interaction.completed`` (or
another final status) is the end marker; a hosted tool's step is kept as it came.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal

import msgspec

from tokenwire.events.model import (
    FileStart,
    FinishReason,
    OpaqueStart,
    PartDelta,
    PartStatus,
    ProviderResultStart,
    ReasoningStart,
    ResponseStart,
    TextStart,
    ToolCallStart,
    Usage,
)
from tokenwire.framing.sse import Frame
from tokenwire.providers.base import Call, Cursor, Target
from tokenwire.providers.decoding.decoder import PayloadDecoder
from tokenwire.providers.decoding.faults import sure_fault_in
from tokenwire.providers.decoding.parts import OpenPart
from tokenwire.providers.decoding.payloads import PayloadReader
from tokenwire.providers.decoding.reasons import reason_of, word_of
from tokenwire.providers.decoding.values import (
    arguments_text,
    citation,
    items,
    obj,
    text_of,
    texts_of,
    tokens_of,
)
from tokenwire.providers.dialect import PayloadDialect
from tokenwire.providers.google.interactions_request import build, resume

__all__ = ["DIALECT", "InteractionsDecoder"]

_FINISH: dict[str, FinishReason] = {
    "completed": "stop",
    "requires_action": "tool_calls",
    "requires_continuation": "pause",
    "incomplete": "length",
    "budget_exceeded": "length",
    "failed": "error",
    "cancelled": "cancelled",
}


_TEXT_FIELDS = frozenset({"type", "text", "annotations", "event_id"})


class _Step:
    """One step and what is open of it."""

    def __init__(self, kind: str, index: Any, fields: dict[str, Any]) -> None:
        self.type = kind
        self.fields = fields
        self.part: OpenPart | None = None
        self.meta: dict[str, Any] = {"type": kind, "index": index}
        self.signature = ""
        self.told = False


class _Shape(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    pass


class _Words(_Shape, tag="text"):
    text: str


class _Summary(_Shape, tag="thought_summary"):
    content: _Words


class _Arguments(_Shape, tag="arguments_delta"):
    arguments: str


class _PlainDelta(_Shape):
    """An event that adds to one step's text, summary or arguments, and holds nothing else."""

    event_type: Literal["step.delta"]
    index: int
    delta: _Words | _Summary | _Arguments
    event_id: str | None = None


_decode_plain = msgspec.json.Decoder(_PlainDelta).decode


class InteractionsDecoder(PayloadDecoder):
    """One interaction; ``cursor`` is the last event id, where the server gives any."""

    dialect: ClassVar[str] = "gemini-interactions"
    passing: ClassVar[frozenset[bytes]] = frozenset({b"event_id"})

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.cursor: str | None = None
        self.response_id: str | None = None
        self.resumable = False
        self._steps: dict[Any, _Step] = {}
        self._begun = False
        self._handlers: dict[str, Callable[[dict[str, Any]], None]] = {
            "step.delta": self._delta,
            "step.start": self._start,
            "step.stop": self._stop,
            "interaction.created": self._created,
            "interaction.status_update": self._status,
            "interaction.completed": self._completed,
            "error": self._error,
        }

    def plain_frame(self, frame: Frame) -> PartDelta | None:
        """The delta of an open output, thought or call."""
        try:
            value = _decode_plain(frame.data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        step, delta = self._steps.get(value.index), value.delta
        if step is None or step.part is None or frame.event not in ("step.delta", "message"):
            return None
        if isinstance(delta, _Words):
            text, fits = delta.text, step.type == "model_output"
        elif isinstance(delta, _Summary):
            text, fits = delta.content.text, True
        else:
            text, fits = delta.arguments, _is_call(step)
        return step.part.plain(text) if fits and text else None

    def payload(self, value: dict[str, Any], event: str) -> None:
        kind = value.get("event_type")
        kind = kind if isinstance(kind, str) else event
        if isinstance(value.get("event_id"), str):
            self.cursor = value["event_id"]
        handler = self._handlers.get(kind)
        if handler is not None:
            handler(value)
        elif sure_fault_in(value) is not None:
            self._error(value)
        elif value.get("object") == "interaction":
            self._whole(value)
        else:
            self.unknown(kind, value)

    def ended(self) -> None:
        status: PartStatus = "complete" if self.terminal_seen else "truncated"
        for step in self._steps.values():
            self._end_step(step, status)

    # --- the interaction -----------------------------------------------------------------------

    def _created(self, value: dict[str, Any]) -> None:
        interaction = obj(value.get("interaction"))
        interaction_id = text_of(interaction.get("id")) or None
        if self._begun and (interaction_id is None or interaction_id == self.response_id):
            return
        self._begun, self.response_id = True, interaction_id or self.response_id
        self.resumable = interaction.get("background") is True
        self.parts.out.append(
            ResponseStart(
                id=self.response_id,
                model=text_of(interaction.get("model"))
                or text_of(interaction.get("agent"))
                or None,
                resumable=self.resumable,
            )
        )

    def reattach(self) -> None:
        """Continue on a new connection, requested with the last event id."""
        self.reader, self._comments = PayloadReader(), 0

    def _status(self, value: dict[str, Any]) -> None:
        status = text_of(value.get("status"))
        if status in ("failed", "cancelled"):
            self._over(status, {})

    def _completed(self, value: dict[str, Any]) -> None:
        interaction = obj(value.get("interaction"))
        self._created(value)
        if not self.parts.shown:
            self._tell(interaction)  # no step of it streamed
        status = interaction.get("status")
        status = status if isinstance(status, str) else word_of(status)
        self._over(status or "completed", interaction)

    def _over(self, status: str, interaction: dict[str, Any]) -> None:
        for index in list(self._steps):
            self._end_step(self._steps.pop(index))
        raw = obj(interaction.get("usage"))
        if raw:
            self._count(raw)
        token = interaction.get("continuation_token")
        details = {"continuation_token": token} if token else None
        reason = reason_of(status, _FINISH)
        self.unfinished = reason == "other"
        self.finish_reason(reason, status, details=details)
        self.terminal_seen = True
        if status == "failed":
            self.fail_with(
                interaction.get("error") or {"error": {"code": "failed"}}, raw=interaction
            )
        self.closed = True

    def _error(self, value: dict[str, Any]) -> None:
        self.fail_with(value)

    def _whole(self, value: dict[str, Any]) -> None:
        """A whole interaction in place of a stream."""
        self._tell(value)
        self._completed({"interaction": value})

    def _tell(self, value: dict[str, Any]) -> None:
        """The steps of a whole interaction."""
        for index, step in enumerate(map(obj, items(value.get("steps") or value.get("outputs")))):
            self._start({"index": index, "step": step})
            content = step.get("content") or step.get("summary")
            for piece in items(content):
                self._delta({"index": index, "delta": piece})
            self._stop({"index": index})

    def _count(self, raw: dict[str, Any]) -> None:
        self.count(
            Usage(
                input_tokens=tokens_of(raw.get("total_input_tokens")),
                output_tokens=tokens_of(raw.get("total_output_tokens")),
                total_tokens=tokens_of(raw.get("total_tokens")),
                cached_input_tokens=tokens_of(raw.get("total_cached_tokens")),
                reasoning_tokens=tokens_of(raw.get("total_thought_tokens")),
                raw=raw,
            )
        )

    # --- steps ---------------------------------------------------------------------------------

    def _start(self, value: dict[str, Any]) -> None:
        fields = obj(value.get("step"))
        index = _index(value)
        before = self._steps.pop(index, None)
        if before is not None:
            self._end_step(before)
        kind = text_of(fields.get("type"))
        step = self._steps[index] = _Step(kind, index, dict(fields))
        if kind == "thought":
            step.part = self.parts.open(ReasoningStart, summary=True, meta=step.meta)
            self._sign(step, fields.get("signature"))
        elif kind.endswith("_call"):
            self._call(step, fields)

    def _call(self, step: _Step, fields: dict[str, Any]) -> None:
        call_id = text_of(fields.get("id"))
        hosted = step.type != "function_call"
        name = text_of(fields.get("name")) or step.type.removesuffix("_call")
        step.part = self.parts.open(
            ToolCallStart,
            name=name,
            call_id=call_id or f"call_{self.parts.step}_{self.parts.next_part}",
            id_source="provider" if call_id else "synthetic",
            executor="provider" if hosted else "server",
            meta=step.meta | ({"native": True} if hosted else {}),
        )
        step.part.place = step.meta["index"]
        self._sign(step, fields.get("signature"))

    def _delta(self, value: dict[str, Any]) -> None:
        delta, index = obj(value.get("delta")), _index(value)
        step = self._steps.get(index)
        if step is None:
            step = self._steps[index] = _Step("model_output", index, {})
        kind = delta.get("type")
        text = delta.get("text")
        if kind == "text" and isinstance(text, str):
            if step.type != "model_output":
                self._stray(text)
                return
            self._text(step).delta(text)
            self._cite(step, delta)
            if not _TEXT_FIELDS.issuperset(delta):
                self.keep_extras(delta, _TEXT_FIELDS)
        elif kind == "thought_summary" and step.part is not None:
            step.part.delta(texts_of(delta.get("content")) or text_of(text))
        elif kind in ("thought_signature", "signature") and step.part is not None:
            self._sign(step, delta.get("signature"))
        elif kind == "arguments_delta" and step.part is not None and _is_call(step):
            step.part.delta(arguments_text(delta))
        elif kind == "text_annotation_delta" and step.type == "model_output":
            self._cite(step, delta)
        elif kind in ("image", "audio", "video", "document"):
            self._file(step, str(kind), delta)
        elif kind == step.type and step.type.endswith(("_call", "_result")):
            self._hosted(step, delta)
        else:
            self.raw("step.delta", value)

    def _stray(self, text: str) -> None:
        """Text that came in a step of another kind."""
        step = self._steps.get("stray")
        if step is None:
            step = self._steps["stray"] = _Step("model_output", None, {})
        self._text(step).delta(text)

    def _text(self, step: _Step) -> OpenPart:
        """The open text of an output, or the summary of a thought."""
        if step.part is None:
            step.part = self.parts.open(TextStart, meta=step.meta)
            step.told = True
        return step.part

    def _sign(self, step: _Step, signature: Any) -> None:
        if isinstance(signature, str) and signature and step.part is not None:
            step.signature += signature
            step.part.attr("signature", step.signature)

    def _cite(self, step: _Step, delta: dict[str, Any]) -> None:
        for source in map(obj, items(delta.get("annotations"))):
            self._text(step).attr(
                "citation",
                citation(
                    source,
                    url=source.get("url") or source.get("source"),
                    title=source.get("title"),
                    start=source.get("start_index"),
                    end=source.get("end_index"),
                    unit="byte",
                ),
            )

    def _hosted(self, step: _Step, delta: dict[str, Any]) -> None:
        """A hosted tool's step in pieces: objects grow, lists grow, the rest is replaced."""
        for name, value in delta.items():
            before = step.fields.get(name)
            if isinstance(value, dict) and isinstance(before, dict):
                step.fields[name] = {**before, **value}
            elif isinstance(value, list) and isinstance(before, list):
                step.fields[name] = [*before, *value]
            elif value is not None:
                step.fields[name] = value
        self._sign(step, delta.get("signature"))

    def _file(self, step: _Step, kind: str, delta: dict[str, Any]) -> None:
        if step.part is not None and isinstance(step.part.start, TextStart):
            step.part.end()
            step.part = None
        step.told = True
        self.parts.whole(
            FileStart,
            text_of(delta.get("data")),
            media="image" if kind == "image" else "audio" if kind == "audio" else "file",
            media_type=text_of(delta.get("mime_type")) or "application/octet-stream",
            url=text_of(delta.get("uri")) or None,
            meta=step.meta,
        )

    def _stop(self, value: dict[str, Any]) -> None:
        step = self._steps.pop(_index(value), None)
        if step is not None:
            self._end_step(step)

    def _end_step(self, step: _Step, status: PartStatus = "complete") -> None:
        part = step.part
        if part is not None:
            if isinstance(part.start, ToolCallStart):
                whole = arguments_text(step.fields)
                if whole.strip("{} "):
                    if part.size:
                        part.final = whole
                    else:
                        part.delta(whole)
                if part.start.executor == "provider":
                    part.attr("meta", (part.meta or {}) | {"step": step.fields})
            part.end(status)
        elif step.type.endswith("_result"):
            name = text_of(step.fields.get("name")) or step.type
            self.parts.open(
                ProviderResultStart,
                call_id=text_of(step.fields.get("call_id")),
                name=name,
                content=step.fields,
                meta=step.meta,
            ).end(status)
        elif step.type != "model_output":
            self.parts.open(OpaqueStart, name=step.type, payload=step.fields, meta=step.meta).end(
                status
            )


def _is_call(step: _Step) -> bool:
    return step.part is not None and isinstance(step.part.start, ToolCallStart)


def _index(value: dict[str, Any]) -> int:
    index = value.get("index")
    return index if type(index) is int else 0


def _resume(response_id: str, after: Cursor | None, target: Target) -> Call | None:
    """Re-attach to a background response after the event id that was read last."""
    return resume(response_id, after if isinstance(after, str) else None, target)


#: The Interactions API of AI Studio.
DIALECT = PayloadDialect("gemini-interactions", build, InteractionsDecoder, resume=_resume)
