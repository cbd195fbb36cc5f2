"""Bedrock Converse: its stream to events (binary event stream, or one payload a line).

Always true: a payload is read the same whether its name came as a header or as the one key of an
object; ``messageStop`` is the end marker, and the usage that follows it is still told.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from tokenwire.events.model import (
    FinishReason,
    OpaqueStart,
    PartStart,
    ProviderResultStart,
    ReasoningStart,
    ResponseStart,
    TextStart,
    ToolCallStart,
    Usage,
)
from tokenwire.providers.bedrock.converse_request import build
from tokenwire.providers.decoding.decoder import PayloadDecoder
from tokenwire.providers.decoding.faults import sure_fault_in
from tokenwire.providers.decoding.parts import OpenPart
from tokenwire.providers.decoding.reasons import reason_of, word_of
from tokenwire.providers.decoding.values import (
    arguments_in,
    arguments_text,
    citation,
    items,
    obj,
    text_of,
    texts_of,
    tokens_of,
)
from tokenwire.providers.dialect import PayloadDialect

__all__ = ["DIALECT", "ConverseDecoder"]

_FINISH: dict[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
    "model_context_window_exceeded": "context_overflow",
    "malformed_tool_use": "malformed_tool_call",
    "malformed_model_output": "error",
}


_DELTA_FIELDS = frozenset({"text", "toolUse", "reasoningContent", "citation", "toolResult", "p"})


class ConverseDecoder(PayloadDecoder):
    """One response of ConverseStream (or of a Nova model by way of InvokeModel)."""

    dialect: ClassVar[str] = "bedrock-converse"

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.parts.texts = []
        self._blocks: dict[Any, OpenPart] = {}
        #: A call has ended as complete, without arguments.
        self._bare_ended = False
        self._signatures: dict[int, str] = {}
        self._handlers: dict[str, Callable[[dict[str, Any]], None]] = {
            "contentBlockDelta": self._delta,
            "contentBlockStart": self._start,
            "contentBlockStop": self._stop,
            "messageStart": self._message_start,
            "messageStop": self._message_stop,
            "metadata": self._metadata,
        }

    def payload(self, value: dict[str, Any], event: str) -> None:
        if event.startswith("exception:"):
            self.fail_with({"__type": event.partition(":")[2], **value}, raw=value)
            return
        handler = self._handlers.get(event)
        fault = sure_fault_in(value)
        if fault is not None:
            self.fail_with(fault, raw=value)
            return
        if handler is not None:
            handler(value)
            return
        known = False
        for name, inner in value.items():
            handler = self._handlers.get(name)
            if handler is not None:
                known = True
                handler(obj(inner))
            elif name.endswith("Exception") and isinstance(inner, dict):
                self.fail_with({"__type": name, **inner}, raw=value)
                return
        if known:
            return
        if "output" in value and "stopReason" in value:
            self._whole(value)
        else:
            self.unknown(event, value)

    # --- blocks --------------------------------------------------------------------------------

    def _message_start(self, value: dict[str, Any]) -> None:
        self.parts.out.append(ResponseStart())

    def _call_at(self, index: int) -> OpenPart | None:
        """The call of a piece of arguments: the one at its index, or the only one that is open.
        Where that is not clear, no call may run without the arguments that were lost."""
        part = self._blocks.get(index)
        if part is not None and type(part.start) is ToolCallStart:
            return part
        calls = [p for p in self._blocks.values() if type(p.start) is ToolCallStart]
        if len(calls) == 1:
            return calls[0]
        for call in calls:
            if not call.size:
                call.end("invalid", error="its arguments came for a block that is no call")
        if self._bare_ended:
            self.fail_unclaimed()
        return None

    def _of_kind(self, index: int, kind: type[PartStart]) -> OpenPart | None:
        """The open block of an index if it is of this kind. Text, or reasoning, that comes in the
        block of a call, or of a result, gets a block of its own beside it."""
        part = self._blocks.get(index)
        if part is None or type(part.start) is kind:
            return part
        if type(part.start) not in (ToolCallStart, ProviderResultStart):
            return None
        stray = self._blocks.get((index, kind))
        if stray is None:
            stray = self._blocks[index, kind] = self.parts.open(kind, meta={"index": index})
        return stray

    def _begin(self, index: int, kind: type[PartStart], **fields: Any) -> OpenPart:
        before = self._blocks.pop(index, None)
        if before is not None:
            before.end()
        meta = {"index": index, **(fields.pop("meta", None) or {})}
        part = self._blocks[index] = self.parts.open(kind, meta=meta, **fields)
        part.place = index
        return part

    def _start(self, value: dict[str, Any]) -> None:
        index, start = _index(value), obj(value.get("start"))
        tool = obj(start.get("toolUse"))
        if tool:
            call_id = text_of(tool.get("toolUseId"))
            before = self._blocks.get(index)
            if before is not None and call_id and before.call_id == call_id:
                return  # the same start again
            kind = text_of(tool.get("type"))
            self._begin(
                index,
                ToolCallStart,
                name=text_of(tool.get("name")),
                call_id=call_id or f"call_{self.parts.step}_{self.parts.next_part}",
                id_source="provider" if call_id else "synthetic",
                executor="provider" if kind == "server_tool_use" else "server",
                meta={"type": kind} if kind else None,
            ).delta(arguments_text(tool))
            return
        result = obj(start.get("toolResult"))
        if result:
            self._begin(
                index,
                ProviderResultStart,
                call_id=text_of(result.get("toolUseId")),
                name=text_of(result.get("type")),
                content=result,
            )
        elif start:
            self.raw("contentBlockStart", value)

    def _delta(self, value: dict[str, Any]) -> None:
        index, delta = _index(value), obj(value.get("delta"))
        if not _DELTA_FIELDS.issuperset(delta):
            self.keep_extras(delta, _DELTA_FIELDS)
        text = delta.get("text")
        if isinstance(text, str):
            part = self._of_kind(index, TextStart)
            if part is None:
                if not text:
                    return
                part = self._begin(index, TextStart)
            part.delta(text)
        elif isinstance(delta.get("toolUse"), dict):
            part = self._call_at(index)
            if part is not None:
                part.delta(arguments_text(delta["toolUse"]))
            else:
                self.raw("contentBlockDelta", value)
        elif isinstance(delta.get("reasoningContent"), dict):
            self._reasoning(index, delta["reasoningContent"])
        elif isinstance(delta.get("citation"), dict):
            self._cite(index, delta["citation"])
        elif isinstance(delta.get("toolResult"), list) and index in self._blocks:
            for content in delta["toolResult"]:
                self._blocks[index].delta(text_of(obj(content).get("text")))
        else:
            self.raw("contentBlockDelta", value)

    def _reasoning(self, index: int, content: dict[str, Any]) -> None:
        redacted = content.get("redactedContent")
        if isinstance(redacted, str):
            before = self._blocks.pop(index, None)
            if before is not None:
                before.end()
            payload = {"reasoningContent": {"redactedContent": redacted}}
            self.parts.whole(
                OpaqueStart, name="redacted_reasoning", payload=payload, meta={"index": index}
            )
            return
        part = self._of_kind(index, ReasoningStart)
        if part is None:
            part = self._begin(index, ReasoningStart)
        part.delta(texts_of(content) or texts_of(content.get("reasoningText")))
        signature = text_of(content.get("signature"))
        if signature:
            whole = self._signatures.get(part.number, "") + signature
            self._signatures[part.number] = whole
            part.attr("signature", whole)

    def _cite(self, index: int, entry: dict[str, Any]) -> None:
        part = self._blocks.get(index)
        if part is None:
            part = self._begin(index, TextStart)
        location = obj(entry.get("location"))
        place = next((obj(v) for v in location.values() if isinstance(v, dict)), {})
        source = next((obj(v) for v in items(entry.get("sourceContent"))), {})
        part.attr(
            "citation",
            citation(
                entry,
                title=entry.get("title"),
                source=entry.get("source"),
                text=source.get("text"),
                url=place.get("url"),
                start=place.get("start"),
                end=place.get("end"),
                unit=next(iter(location), None),
            ),
        )

    def _stop(self, value: dict[str, Any]) -> None:
        part = self._blocks.pop(_index(value), None)
        if part is not None:
            is_call = type(part.start) is ToolCallStart
            self._bare_ended = self._bare_ended or (is_call and part.lacks_arguments)
            part.end()

    # --- the end -------------------------------------------------------------------------------

    def _message_stop(self, value: dict[str, Any]) -> None:
        raw = word_of(value.get("stopReason"))
        is_cut = raw is not None and reason_of(raw, _FINISH) == "length"
        for part in self._blocks.values():  # the limit may have cut a call before its arguments
            part.end("truncated" if is_cut and part.lacks_arguments else "complete")
        self._blocks.clear()
        details = {k: v for k, v in value.items() if k not in ("stopReason", "p") and v is not None}
        reason = reason_of(raw, _FINISH) if raw else "other"
        self.finish_reason(reason, raw, details=details or None)
        self.terminal_seen = True

    def _metadata(self, value: dict[str, Any]) -> None:
        raw = obj(value.get("usage"))
        if raw:
            self._count(raw)
        rest = {k: v for k, v in value.items() if k in ("trace", "performanceConfig") and v}
        if rest:
            self.raw("metadata", rest)
        self.closed = self.closed or self.terminal_seen  # it is the last event of a stream

    def _count(self, raw: dict[str, Any]) -> None:
        cached = tokens_of(raw.get("cacheReadInputTokens", raw.get("cacheReadInputTokenCount")))
        cache_writes = tokens_of(
            raw.get("cacheWriteInputTokens", raw.get("cacheWriteInputTokenCount"))
        )
        fresh = tokens_of(raw.get("inputTokens"))
        self.count(
            Usage(
                input_tokens=None if fresh is None else fresh + (cached or 0) + (cache_writes or 0),
                output_tokens=tokens_of(raw.get("outputTokens")),
                total_tokens=tokens_of(raw.get("totalTokens")),
                cached_input_tokens=cached,
                cache_write_tokens=cache_writes,
                raw=raw,
            )
        )

    def _whole(self, value: dict[str, Any]) -> None:
        """A whole response in place of a stream."""
        self._message_start({})
        content = items(obj(obj(value.get("output")).get("message")).get("content"))
        if self.parts.shown:
            rest = self.missing_text("".join(text_of(obj(b).get("text")) for b in content))
            calls = [b for b in content if isinstance(obj(b).get("toolUse"), dict)]
            content = [*([{"text": rest}] if rest else ()), *calls]
        for part in self._blocks.values():
            part.end()
        self._blocks.clear()
        for index, block in enumerate(map(obj, content)):
            if isinstance(block.get("toolUse"), dict):
                tool = block["toolUse"]
                bare = {k: v for k, v in tool.items() if k != "input"}
                self._start({"contentBlockIndex": index, "start": {"toolUse": bare}})
                part = self._blocks.get(index)
                if part is not None:
                    part.patched = obj(arguments_in(tool))
            elif isinstance(block.get("reasoningContent"), dict):
                reasoning = block["reasoningContent"]
                self._reasoning(index, obj(reasoning.get("reasoningText")) or reasoning)
            else:
                self._delta({"contentBlockIndex": index, "delta": block})
            self._stop({"contentBlockIndex": index})
        self._metadata(value)
        self._message_stop({"stopReason": value.get("stopReason")})


def _index(value: dict[str, Any]) -> int:
    index = value.get("contentBlockIndex")
    return index if type(index) is int else 0


#: ``converse-stream`` of Bedrock, with an API key.
DIALECT = PayloadDialect("bedrock-converse", build, ConverseDecoder)
