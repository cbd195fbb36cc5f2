"""Anthropic Messages: its stream to events (also as served by Vertex and Bedrock).

Always true: a block's events carry the block's own type and index in ``meta``; blocks that this
version does not know are kept whole as ``opaque`` parts; a ``stop_reason`` or ``message_stop`` is
the end marker, since gateways leave out either.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal

import msgspec

from tokenwire.events.model import (
    FinishReason,
    Heartbeat,
    OpaqueStart,
    PartDelta,
    PartStatus,
    ProviderResultStart,
    ReasoningStart,
    ResponseStart,
    TextStart,
    ToolCallStart,
)
from tokenwire.framing.sse import Frame
from tokenwire.providers.anthropic.blocks import Block, RepeatedCall
from tokenwire.providers.anthropic.details import DELTA_FIELDS, citation_of, kind_of, usage_of
from tokenwire.providers.anthropic.request import build
from tokenwire.providers.decoding.counts import joined
from tokenwire.providers.decoding.decoder import PayloadDecoder
from tokenwire.providers.decoding.faults import sure_fault_in
from tokenwire.providers.decoding.parts import OpenPart
from tokenwire.providers.decoding.reasons import reason_of, word_of
from tokenwire.providers.decoding.values import (
    arguments_in,
    dump,
    items,
    obj,
    text_of,
    texts_of,
)
from tokenwire.providers.dialect import PayloadDialect

__all__ = ["DIALECT", "AnthropicDecoder"]

_FINISH: dict[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "pause_turn": "pause",
    "refusal": "refusal",
    "model_context_window_exceeded": "context_overflow",
}
#: The kinds of block to which these deltas belong.
_OWN_DELTAS = {"text_delta": "text", "thinking_delta": "thinking"}
_TOOL_BLOCKS = frozenset({"tool_use", "server_tool_use", "mcp_tool_use"})


class _Delta(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    type: Literal["text_delta", "input_json_delta", "thinking_delta"]
    text: str = ""
    partial_json: str = ""
    thinking: str = ""


class _Ordinary(msgspec.Struct, gc=False):
    """The 99 % payload; whatever does not fit it goes the general way."""

    type: Literal["content_block_delta"]
    index: int
    delta: _Delta


_decode_ordinary = msgspec.json.Decoder(_Ordinary).decode


class AnthropicDecoder(PayloadDecoder):
    """One response of the Messages API."""

    dialect: ClassVar[str] = "anthropic"

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.parts.texts = []
        self._blocks: dict[Any, Block] = {}
        self._usage: dict[str, Any] = {}
        self._ended_calls: dict[str, list[tuple[str, Any]]] = {}
        #: Text, or thinking, that came in a block of another kind.
        self._strays: dict[str, Block] = {}
        self._lost_arguments = False
        #: Calls whose blocks have ended without arguments.
        self._bare: dict[Any, Block] = {}
        self._request_id: str | None = None
        self._handlers: dict[str, Callable[[dict[str, Any]], None]] = {
            "content_block_delta": self._delta,
            "content_block_start": self._start,
            "content_block_stop": self._stop,
            "message_start": self._message_start,
            "message_delta": self._message_delta,
            "message_stop": self._message_stop,
            "message": self._message,
            "ping": self._ping,
            "error": self._error,
        }

    def _frame(self, frame: Frame, *, last: bool = False) -> None:
        if frame.event == "content_block_delta" and not self.closed:
            try:
                payload = _decode_ordinary(frame.data)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                pass
            else:
                block = self._blocks.get(payload.index)
                delta = payload.delta
                if block is not None and block.delta == delta.type and block.part is not None:
                    self.payloads += 1
                    block.part.delta(delta.text or delta.partial_json or delta.thinking)
                    return
        super()._frame(frame, last=last)

    def plain_frame(self, frame: Frame) -> PartDelta | None:
        """The delta of an open text or thinking; arguments are looked at one by one."""
        if frame.event != "content_block_delta":
            return None
        try:
            payload = _decode_ordinary(frame.data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        block, delta = self._blocks.get(payload.index), payload.delta
        text = delta.text or delta.partial_json or delta.thinking
        if block is None or block.delta != delta.type or block.part is None or not text:
            return None
        return block.part.plain(text)

    def payload(self, value: dict[str, Any], event: str) -> None:
        kind = value.get("type")
        if event.startswith("exception:"):
            self.fail_with({"__type": event.partition(":")[2], **value}, raw=value)
            return
        handler = self._handlers.get(kind if isinstance(kind, str) else event)
        fault = sure_fault_in(value)
        if fault is not None and not (event == "message_start" or kind == "message_start"):
            self.fail_with(fault, raw=value, request_id=self._request_id)
        elif handler is not None and (isinstance(kind, str) or event != "message"):
            handler(value)
        elif isinstance(value.get("content"), list | str) and "stop_reason" in value:
            self._message(value)  # a whole response that does not say its type
        else:
            self.unknown(kind if isinstance(kind, str) else event, value)

    def ended(self) -> None:
        self._end_strays()
        for block in self._blocks.values():
            if block.content_block is not None:
                self._end_block(block, "complete" if self.terminal_seen else "truncated")

    # --- one method per payload ----------------------------------------------------------------

    def _message_start(self, value: dict[str, Any]) -> None:
        message = obj(value.get("message"))
        self._request_id = text_of(value.get("request_id")) or None
        self.parts.out.append(
            ResponseStart(
                id=text_of(message.get("id")) or None,
                model=text_of(message.get("model")) or None,
                request_id=self._request_id,
            )
        )
        self._count(message.get("usage"))

    def _start(self, value: dict[str, Any]) -> None:
        index = value.get("index")
        block = obj(value.get("content_block"))
        if not isinstance(index, int | str | None):
            index = None
        before = self._blocks.get(index)
        if before is not None:
            call_id = text_of(block.get("id"))
            if call_id and before.part is not None and before.part.call_id == call_id:
                return  # the same start again
            self._stop({"index": index})
        self._end_strays()
        self._blocks[index] = self._open(block, index)

    def _open(self, block: dict[str, Any], index: Any) -> Block:
        kind = text_of(block.get("type"))
        meta: dict[str, Any] = {"type": kind, "index": index}
        if kind == "text":
            state = Block(self.parts.open(TextStart, meta=meta), "text_delta")
            self._text(state, block.get("text"))
            for entry in items(block.get("citations")):
                self._citation(state, entry)
            return state
        if kind == "thinking":
            state = Block(self.parts.open(ReasoningStart, meta=meta), "thinking_delta")
            self._text(state, block.get("thinking"))
            self._signature(state, block.get("signature"))
            return state
        if kind in _TOOL_BLOCKS:
            return self._open_tool(block, meta)
        return Block(None, content_block=dict(block) | {"type": kind, "index": index})

    def _open_tool(self, block: dict[str, Any], meta: dict[str, Any]) -> Block:
        skipped = ("type", "id", "name", "input", "arguments", "args", "parameters", "index")
        meta |= {k: v for k, v in block.items() if k not in skipped}
        call_id = text_of(block.get("id"))
        if call_id in self._ended_calls and meta["type"] == "tool_use":
            repetition = Block(None)
            repetition.repeats = RepeatedCall(block)
            return repetition
        tool = Block(
            self.parts.open(
                ToolCallStart,
                name=text_of(block.get("name")),
                call_id=call_id or f"call_{self.parts.step}_{self.parts.next_part}",
                id_source="provider" if call_id else "synthetic",
                executor="server" if meta["type"] == "tool_use" else "provider",
                meta=meta,
            ),
            "input_json_delta",
        )
        tool.input = arguments_in(block)
        return tool

    def _delta(self, value: dict[str, Any]) -> None:
        delta = obj(value.get("delta"))
        kind = text_of(delta.get("type")) or kind_of(delta)
        if not DELTA_FIELDS.issuperset(delta):
            self.keep_extras(delta, DELTA_FIELDS)
        index = value.get("index")
        block = self._blocks.get(index) if isinstance(index, int | str | None) else None
        if block is None and kind == "input_json_delta" and isinstance(index, int | str):
            block = self._bare.get(index)  # it came after the end of its block
        if block is None:
            block = self._unannounced(kind, index)
        if block is not None and block.repeats is not None and kind == "input_json_delta":
            block.repeats.arguments.append(text_of(delta.get("partial_json")))
            return
        if kind == "input_json_delta" and (block is None or block.delta != kind):
            block = self._only_call()
        if kind in _OWN_DELTAS and (block is None or block.delta != kind):
            block = self._stray(kind)
        if block is None or (block.part is None and block.content_block is None):
            self.raw("content_block_delta", value)
        elif kind == "text_delta":
            self._text(block, delta.get("text"))
        elif kind == "input_json_delta" and block.delta == kind:
            self._text(block, delta.get("partial_json"))
        elif kind == "thinking_delta":
            self._text(block, delta.get("thinking"))
        elif kind == "signature_delta":
            self._signature(block, delta.get("signature"))
        elif kind == "citations_delta":
            self._citation(block, delta.get("citation"))
        elif kind == "compaction_delta" and block.content_block is not None:
            block.content.append(text_of(delta.get("content")))
            extra = {k: v for k, v in delta.items() if k not in ("type", "content")}
            block.content_block.update({k: v for k, v in extra.items() if v is not None})
        else:
            self.raw("content_block_delta", value)

    def _only_call(self) -> Block | None:
        """The block of arguments whose index is no call's: the one that is open. Where that is not
        clear, no call may run without the arguments that were lost."""
        calls = [b for b in self._blocks.values() if b.delta == "input_json_delta"]
        if len(calls) == 1:
            return calls[0]
        self._lost_arguments = True
        if self._bare:
            self.fail_unclaimed()
        return None

    def _stray(self, kind: str) -> Block:
        """The block of text, or thinking, that came in a block of another kind."""
        stray = self._strays.get(kind)
        if stray is None:
            self._end_strays()
            stray = self._strays[kind] = self._open({"type": _OWN_DELTAS[kind]}, None)
        return stray

    def _end_strays(self) -> None:
        strays, self._strays = self._strays, {}
        for stray in strays.values():
            if stray.part is not None:
                stray.part.end()

    def _unannounced(self, kind: Any, index: Any) -> Block | None:
        """A delta of a block whose start never came: text and thinking can be read anyway."""
        if not isinstance(kind, str) or kind not in _OWN_DELTAS:
            return None
        if not isinstance(index, int | str | None):
            return None
        block = self._blocks[index] = self._open({"type": _OWN_DELTAS[kind]}, index)
        return block

    def _stop(self, value: dict[str, Any]) -> None:
        index = value.get("index")
        block = self._blocks.pop(index, None) if isinstance(index, int | str | None) else None
        if block is None:
            return
        if block.content_block is not None:
            self._end_block(block)
        elif block.repeats is not None:
            self._end_repeated(block.repeats, index)
        elif block.part is not None:
            part = block.part
            if block.delta == "input_json_delta":
                self._end_call(block, part)
            part.end()

    def _end_call(self, block: Block, part: OpenPart) -> None:
        """The end of a tool's arguments, which may have come whole at the start as well."""
        if self.reason == "length" and not part.size and not block.input:
            part.end("truncated")  # the limit cut it before its arguments
        elif self._lost_arguments and not part.size and not block.input:
            part.end("invalid", error="its arguments came for a block that is no call")
        elif not part.size and not block.input:
            self._bare[(part.meta or {}).get("index")] = block
        if block.input and not part.size:
            part.delta(block.input if isinstance(block.input, str) else dump(block.input))
        elif block.input and isinstance(block.input, dict):
            part.final = dump(block.input)
        if part.call_id and part.arguments is not None:
            value = part.arguments.resolve(part.final)[0]
            self._ended_calls.setdefault(part.call_id, []).append((part.name, value))

    def _end_repeated(self, call: RepeatedCall, index: Any) -> None:
        """A call whose id came before: emitted only if it is another one."""
        call_id = text_of(call.block.get("id"))
        if call.value in self._ended_calls.get(call_id, ()):
            return
        for block in self._bare.values():  # empty arguments, then the real ones
            part = block.part
            if part is not None and part.open and part.is_bare and part.call_id == call_id:
                part.delta("".join(call.arguments) or dump(call.block.get("input") or {}))
                return
        self._ended_calls.setdefault(call_id, []).append(call.value)
        part = self.parts.open(
            ToolCallStart,
            name=call.name,
            call_id=call_id,
            id_source="provider",
            meta={"type": "tool_use", "index": index},
        )
        part.delta("".join(call.arguments) or dump(call.block.get("input") or {}))
        part.end()

    def _end_block(self, block: Block, status: PartStatus = "complete") -> None:
        fields = dict(block.content_block or {})
        index, kind = fields.pop("index", None), text_of(fields.get("type"))
        meta = {"type": kind, "index": index}
        if kind.endswith("_tool_result"):
            call_id, content = text_of(fields.get("tool_use_id")), fields.get("content")
            skipped = ("type", "tool_use_id", "content")
            meta |= {k: v for k, v in fields.items() if k not in skipped}
            part = self.parts.open(
                ProviderResultStart, call_id=call_id, name=kind, content=content, meta=meta
            )
            part.end(status)
            return
        if block.content:
            fields["content"] = "".join(block.content)
        self.parts.open(OpaqueStart, name=kind, payload=fields, meta=meta).end(status)

    def _message_delta(self, value: dict[str, Any]) -> None:
        delta = obj(value.get("delta"))
        raw = word_of(delta.get("stop_reason"))
        if raw is not None:
            details = {k: v for k, v in delta.items() if k != "stop_reason" and v is not None}
            if value.get("context_management"):
                details["context_management"] = value["context_management"]
            stop = obj(delta.get("stop_details"))
            self.finish_reason(
                reason_of(raw, _FINISH),
                raw,
                message=text_of(stop.get("explanation")) or None,
                details=details or None,
            )
            self.terminal_seen = True
        self._count(value.get("usage"))

    def _message_stop(self, value: dict[str, Any]) -> None:
        self.terminal_seen = self.closed = True
        self._end_strays()
        self._stop_all()
        metrics = value.get("amazon-bedrock-invocationMetrics")
        if self.usage is None:
            self._count(metrics)

    def _stop_all(self) -> None:
        for index in list(self._blocks):
            self._stop({"index": index})

    def _message(self, value: dict[str, Any]) -> None:
        """A whole response in place of a stream."""
        self._message_start({"message": value})
        content = value.get("content")
        if isinstance(content, str):
            content = [{"type": "text", "text": content}]
        blocks = [content] if isinstance(content, dict) else items(content)
        if self.parts.shown:
            blocks = self._missing(blocks)
        self._stop_all()
        for index, block in enumerate(blocks):
            self._start({"index": index, "content_block": block})
            self._stop({"index": index})
        self._message_delta({"delta": {k: value.get(k) for k in ("stop_reason", "stop_sequence")}})
        self._message_stop({})

    def _missing(self, blocks: list[Any]) -> list[Any]:
        """What a whole message adds to the blocks that came before it."""
        whole = "".join(texts_of(b) for b in blocks if obj(b).get("type") == "text")
        rest = self.missing_text(whole)
        calls = [b for b in blocks if obj(b).get("type") == "tool_use"]
        return [*([{"type": "text", "text": rest}] if rest else ()), *calls]

    def _ping(self, value: dict[str, Any]) -> None:
        self.parts.out.append(Heartbeat(source="provider"))

    def _error(self, value: dict[str, Any]) -> None:
        self.fail_with(value, request_id=self._request_id)

    # --- pieces --------------------------------------------------------------------------------

    def _text(self, block: Block, text: Any) -> None:
        if isinstance(text, str) and block.part is not None:
            block.part.delta(text)

    def _signature(self, block: Block, signature: Any) -> None:
        if isinstance(signature, str) and signature and block.part is not None:
            block.signature += signature
            block.part.attr("signature", block.signature)

    def _citation(self, block: Block, source: Any) -> None:
        if block.part is None or not isinstance(source, dict):
            return
        block.part.attr("citation", citation_of(source))

    def _count(self, value: Any) -> None:
        usage = obj(value)
        if not usage:
            return
        raw = self._usage = joined(self._usage, usage) or {}
        self.count(usage_of(raw))


#: The Messages API, direct or by way of Vertex (quirk ``vertex``) or Bedrock (``bedrock``).
DIALECT = PayloadDialect("anthropic", build, AnthropicDecoder)
