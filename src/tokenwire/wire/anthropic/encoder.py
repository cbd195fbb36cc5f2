"""Messages stream events, as Anthropic's clients read them, and the whole message.

Always true: ``message_start`` first, ``message_stop`` or ``error`` last, never both; blocks are
numbered from 0 in the order of their starts and every one is stopped. Tool calls that the
server runs are not sent. The wire cannot retract text: a step that restarts after visible output
ends the stream with an ``error``. A reader that resumes gets ``message_start`` and the starts of
open blocks, renumbered, then the rest.
"""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec

from tokenwire.events.codec import AnyEvent
from tokenwire.events.fold import Fold
from tokenwire.events.message import OpaquePart, ReasoningPart, RefusalPart, TextPart, ToolCallPart
from tokenwire.events.model import (
    OpaqueEnd,
    PartAttr,
    PartDelta,
    PartEnd,
    PartStart,
    RunEnd,
    RunStart,
    StepReset,
    ToolCallEnd,
)
from tokenwire.events.reasons import CUT_REASONS, Ending
from tokenwire.wire.chunk_encoder import GAP, Chunk, ChunkEncoder, Common, dumps, dumps_text
from tokenwire.wire.failure import fold_ending
from tokenwire.wire.place import Place
from tokenwire.wire.view import PartView

__all__ = ["AnthropicEncoder", "error_body", "message_object"]

STOP_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "context_overflow": "model_context_window_exceeded",
    "tool_calls": "tool_use",
    "refusal": "refusal",
    "content_filter": "refusal",
    "pause": "pause_turn",
}
#: HTTP status -> the wire's error type.
_ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


_CODES = {"overloaded": "overloaded_error", "rate_limited": "rate_limit_error"}


def error_body(message: str, kind: str) -> Chunk:
    """The wire's error, of a response or of a stream."""
    return {"type": "error", "error": {"type": kind, "message": message}}


def error_type(status: int) -> str:
    """The wire's error type for an HTTP status."""
    return _ERRORS.get(status, "invalid_request_error" if status < 500 else "api_error")


class AnthropicEncoder(ChunkEncoder):
    """Events to message stream events. ``tools``: names of the caller's own tools."""

    name: ClassVar[str] = "anthropic"

    def __init__(self, *, tools: frozenset[str] | None = None, place: Place | None = None) -> None:
        super().__init__(place=place)
        self.tools = tools
        self._next = 0
        self._blocks: dict[int, int] = {}  # part -> index, until it is stopped
        self._calls = False
        #: The parts of which the client has something.
        self._shown: set[int] = set()
        # What the client has open: index -> start; and how indexes are numbered for it.
        self._open: dict[int, Chunk] = {}
        self._shift: dict[int, int] = {}
        self._base = 0

    def heartbeat(self) -> bytes:
        """The wire's own keep-alive."""
        return b'event: ping\ndata: {"type":"ping"}\n\n'

    def _frame(self, chunk: Chunk, frame_id: str | None) -> bytes:
        name = chunk["type"].encode("ascii")
        head = b"id: %b\n" % frame_id.encode("ascii") if frame_id is not None else b""
        return b"%bevent: %b\ndata: %b\n\n" % (head, name, dumps(chunk))

    # --- what the client has ---------------------------------------------------------------------

    def _track(self, chunk: Chunk) -> None:
        if chunk["type"] == "content_block_start":
            self._open[chunk["index"]] = chunk
        elif chunk["type"] == "content_block_stop":
            self._open.pop(chunk["index"], None)

    def _client_names(self, chunk: Chunk) -> Chunk:
        index = chunk.get("index")
        if index is None or not self._base:
            return chunk
        return {**chunk, "index": self._shift.get(index, index - self._base)}

    def _reopened_parts(self) -> list[Chunk]:
        chunks = [self._message_start()]
        for number, (index, start) in enumerate(sorted(self._open.items())):
            self._shift[index] = number
            chunks.append({**start, "index": number})
        self._base = self._next - len(self._open)
        return chunks

    # --- events to chunks ------------------------------------------------------------------------

    def _render(self, event: AnyEvent) -> list[Chunk]:
        view = self.view
        view.apply(event)
        if isinstance(event, PartDelta):
            return self._delta(event)
        if isinstance(event, PartStart | PartAttr):
            part = view.open.get(event.part)
            if part is None:
                return []
            return self._open_block(part) if part.kind in ("text", "refusal", "tool-call") else []
        if isinstance(event, PartEnd):
            return self._end(event)
        if isinstance(event, RunStart):
            names = view.metadata.get("tools")
            if self.tools is None:
                self.tools = frozenset(names) if isinstance(names, list) else frozenset()
            return [self._message_start()]
        if isinstance(event, StepReset):
            self._blocks.clear()
            if self._shown.isdisjoint(view.void_parts(event)):
                return []
            self.ended = True
            text = "The answer was started again; the words before are void. Ask again."
            return [error_body(text, "api_error")]
        if isinstance(event, RunEnd):
            return self._run_end(event)
        return []

    def _message_start(self) -> Chunk:
        message = {
            "id": f"msg_{self.view.run}",
            "type": "message",
            "role": "assistant",
            "model": self.view.model or "",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 0, "output_tokens": 0},
        }
        return {"type": "message_start", "message": message}

    def _block(self, part: PartView, block: Chunk) -> Chunk:
        part.announced = True
        self._shown.add(part.part)
        index = self._blocks[part.part] = self._next
        self._next += 1
        return {"type": "content_block_start", "index": index, "content_block": block}

    def _open_block(self, part: PartView) -> list[Chunk]:
        if part.announced:
            return []
        if part.kind in ("text", "refusal"):
            return [self._block(part, {"type": "text", "text": ""})]
        if part.kind == "reasoning":
            return [self._block(part, {"type": "thinking", "thinking": "", "signature": ""})]
        if not (part.call_id and part.name):
            return []
        if not (part.is_clients or part.name in (self.tools or ())):
            return []
        self._calls = True
        block = {"type": "tool_use", "id": part.call_id, "name": part.name, "input": {}}
        return [self._block(part, block), *self._arguments(part)]

    def _arguments(self, part: PartView) -> list[Chunk]:
        text = "".join(part.pieces[part.pieces_sent :])
        part.pieces_sent = len(part.pieces)
        return [self._piece(part, "input_json_delta", "partial_json", text)] if text else []

    def _piece(self, part: PartView, kind: str, field: str, text: str) -> Chunk:
        delta = {"type": kind, field: text}
        return {"type": "content_block_delta", "index": self._blocks[part.part], "delta": delta}

    def _text_piece(self, part: PartView, text: str) -> Chunk:
        if part.kind == "reasoning":
            return self._piece(part, "thinking_delta", "thinking", text)
        return self._piece(part, "text_delta", "text", text)

    def _delta(self, event: PartDelta) -> list[Chunk]:
        part = self.view.open.get(event.part)
        if part is None or not event.text:
            return []
        if part.kind in ("text", "refusal", "reasoning"):
            return [*self._open_block(part), self._text_piece(part, event.text)]
        return self._arguments(part) if part.kind == "tool-call" and part.announced else []

    def _common(self, part: PartView) -> Common | None:
        if not part.announced:
            return None
        if part.kind in ("text", "refusal", "reasoning"):
            return self._text_piece(part, GAP), None
        if part.kind == "tool-call":
            return self._piece(part, "input_json_delta", "partial_json", GAP), part.sent
        return None

    def _end(self, event: PartEnd) -> list[Chunk]:
        part = self.view.parts.get(event.part)
        if part is None:
            return []
        chunks: list[Chunk] = []
        if part.kind in ("text", "refusal", "reasoning"):
            missing = part.missing(event.text)
            signature = part.attrs.get("signature") if part.kind == "reasoning" else None
            if missing or signature:
                chunks = self._open_block(part)
            if missing:
                chunks.append(self._text_piece(part, missing))
            if isinstance(signature, str):
                chunks.append(self._piece(part, "signature_delta", "signature", signature))
        elif isinstance(event, ToolCallEnd):
            part.call_id = part.call_id or f"call-{part.part}"
            chunks = self._open_block(part)
            if part.announced and not part.text and event.arguments is not None:
                text = dumps_text(event.arguments)
                chunks.append(self._piece(part, "input_json_delta", "partial_json", text))
        elif isinstance(event, OpaqueEnd) and part.name == "redacted_thinking":
            data = part.payload if isinstance(part.payload, str) else dumps_text(part.payload)
            chunks = [self._block(part, {"type": "redacted_thinking", "data": data})]
        if part.announced:
            index = self._blocks.pop(part.part)
            chunks.append({"type": "content_block_stop", "index": index})
        return chunks

    def _run_end(self, event: RunEnd) -> list[Chunk]:
        view = self.view
        ending = view.ending(event)
        if ending in ("failed", "cancelled"):
            failure = view.failure(event)
            kind = _CODES.get(failure.code) or error_type(failure.http_status)
            return [error_body(failure.message, kind)]
        word = stop_reason(view.reason, ending, calls=self._calls)
        delta = {"stop_reason": word, "stop_sequence": None}
        usage = usage_counts(view.usage)
        return [
            {"type": "message_delta", "delta": delta, "usage": usage},
            {"type": "message_stop"},
        ]


def stop_reason(reason: str, ending: Ending, *, calls: bool) -> str:
    """The wire's word for how an answer ended. ``calls``: the client has tool calls to run."""
    if ending == "cut" and reason not in CUT_REASONS:
        return "max_tokens"  # a limit of ours (`max_steps`), for which this wire has no word
    word = STOP_REASONS.get(reason, "end_turn")
    return "end_turn" if word == "tool_use" and not calls else word


def usage_counts(usage: dict[str, int]) -> Chunk:
    """Token counts in the wire's words: there, cached input is counted apart."""
    cached, cache_writes = usage.get("cached_input_tokens", 0), usage.get("cache_write_tokens", 0)
    counts = {
        "input_tokens": max(0, usage.get("input_tokens", 0) - cached - cache_writes),
        "output_tokens": usage.get("output_tokens", 0),
    }
    if cached:
        counts["cache_read_input_tokens"] = cached
    if cache_writes:
        counts["cache_creation_input_tokens"] = cache_writes
    return counts


def message_object(fold: Fold, *, tools: frozenset[str] = frozenset()) -> Chunk:
    """The ``message`` object of a finished run."""
    blocks: list[Chunk] = []
    calls = False
    for part in fold.message().parts:
        if isinstance(part, TextPart | RefusalPart):
            blocks.append({"type": "text", "text": part.text})
        elif isinstance(part, ReasoningPart):
            signature = part.signature or ""
            blocks.append({"type": "thinking", "thinking": part.text, "signature": signature})
        elif isinstance(part, ToolCallPart) and (part.executor == "client" or part.name in tools):
            calls = True
            value: Any = msgspec.json.decode(part.arguments) if part.status == "complete" else {}
            block = {"type": "tool_use", "id": part.call_id, "name": part.name, "input": value}
            blocks.append(block)
        elif isinstance(part, OpaquePart) and part.name == "redacted_thinking":
            blocks.append({"type": "redacted_thinking", "data": dumps_text(part.payload)})
    word = stop_reason(fold.finish_reason or "stop", fold_ending(fold), calls=calls)
    return {
        "id": f"msg_{fold.run}",
        "type": "message",
        "role": "assistant",
        "model": fold.model or "",
        "content": blocks,
        "stop_reason": word,
        "stop_sequence": None,
        "usage": usage_counts(fold.usage),
    }
