"""Chat completion chunks, as OpenAI's clients read them, and the whole completion for clients that
do not stream.

Always true: one ``finish_reason``, then usage if requested, then ``[DONE]``; an error is an object
with ``error`` in place of a finish, because a truncated answer must not look like a complete one.
Tool calls that the server runs are not sent (the client would run them again). The wire cannot
retract text: when a step restarts after visible output, the stream ends with an error; the answer
without streaming has the new text.
"""

from __future__ import annotations

from typing import Any, ClassVar

from tokenwire.events.codec import AnyEvent
from tokenwire.events.fold import Fold
from tokenwire.events.message import ReasoningPart, RefusalPart, TextPart, ToolCallPart
from tokenwire.events.model import (
    PartAttr,
    PartDelta,
    PartEnd,
    PartStart,
    RunEnd,
    RunStart,
    StepReset,
    TextDelta,
    ToolCallEnd,
)
from tokenwire.events.reasons import Ending
from tokenwire.wire.chunk_encoder import (
    GAP,
    Chunk,
    ChunkEncoder,
    Common,
    clean,
    dumps,
    dumps_text,
)
from tokenwire.wire.failure import fold_ending
from tokenwire.wire.place import Place
from tokenwire.wire.view import PartView

__all__ = [
    "FINISH_REASONS",
    "OpenAIChatEncoder",
    "completion",
    "error_kind",
    "error_object",
    "usage_object",
]

#: Our finish reasons of complete answers -> the wire's.
FINISH_REASONS = {"stop": "stop", "tool_calls": "tool_calls", "refusal": "stop"}
_KINDS = {
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    404: "invalid_request_error",
    429: "rate_limit_error",
}
_FIELDS = {"text": "content", "refusal": "refusal", "reasoning": "reasoning_content"}
RESET = "The answer was started again; the words before are void. Ask again or read the run."


class OpenAIChatEncoder(ChunkEncoder):
    """Events to ``chat.completion.chunk`` objects.

    ``tools``: names of the caller's own tools (default: what the run's metadata says).
    """

    name: ClassVar[str] = "openai-chat"

    def __init__(
        self,
        *,
        include_usage: bool = False,
        tools: frozenset[str] | None = None,
        place: Place | None = None,
    ) -> None:
        super().__init__(place=place)
        self.include_usage = include_usage
        self.tools = tools
        self._index = 0
        #: The parts of which the client has something.
        self._shown: set[int] = set()
        self._calls = False
        self._head = b""

    def encode(self, event: AnyEvent, cursor: str) -> bytes:
        """The chunk of ``event``; text, the common case, takes a short path."""
        if type(event) is TextDelta and self._head and not self.ended and self._place is None:
            part = self.view.open.get(event.part)
            if part is not None and event.text:
                part.add(event.text)
                self._shown.add(event.part)
                return b'id: %b\n%b"choices":[{"index":0,"delta":{"content":%b}}]}\n\n' % (
                    cursor.encode("ascii"),
                    self._head,
                    dumps(event.text),
                )
        return super().encode(event, cursor)

    def heartbeat(self) -> bytes:
        """A comment line alone: OpenAI's reader takes a blank line after an id for an event."""
        return b": keep-alive\n"

    def finish(self) -> bytes:
        """The sentinel."""
        return b"data: [DONE]\n\n"

    # --- events to chunks ------------------------------------------------------------------------

    def _render(self, event: AnyEvent) -> list[Chunk]:
        view = self.view
        view.apply(event)
        if isinstance(event, PartDelta):
            return self._delta(event)
        if isinstance(event, PartStart | PartAttr):
            part = view.open.get(event.part)
            if isinstance(event, PartAttr) and event.name == "logprobs":
                return self._logprobs(part, event.value)
            return self._open_call(part) if part is not None else []
        if isinstance(event, PartEnd):
            return self._end(event)
        if isinstance(event, RunStart):
            names = view.metadata.get("tools")
            if self.tools is None:
                self.tools = frozenset(names) if isinstance(names, list) else frozenset()
            self._head = b"data: " + dumps(self._base())[:-1] + b","
            return [self._chunk({"role": "assistant"})]
        if isinstance(event, StepReset):
            if self._shown.isdisjoint(view.void_parts(event)):
                return []
            self.ended = True
            return [{"error": error_object(RESET, "server_error", "step_reset")}]
        if isinstance(event, RunEnd):
            return self._run_end(event)
        return []

    def _base(self) -> Chunk:
        view = self.view
        return {
            "id": f"chatcmpl-{view.run}",
            "object": "chat.completion.chunk",
            "created": view.time // 1000,
            "model": view.model or "",
        }

    def _chunk(self, delta: Chunk, finish: str | None = None) -> Chunk:
        choice: Chunk = {"index": 0, "delta": delta}
        if finish is not None:
            choice["finish_reason"] = finish
        return {**self._base(), "choices": [choice]}

    def _delta(self, event: PartDelta) -> list[Chunk]:
        part = self.view.open.get(event.part)
        if part is None or not event.text:
            return []
        field = _FIELDS.get(part.kind)
        if field is not None:
            self._shown.add(event.part)
            return [self._chunk({field: event.text})]
        return self._arguments(part) if part.announced else []

    def _common(self, part: PartView) -> Common | None:
        field = _FIELDS.get(part.kind)
        if field is not None:
            return self._chunk({field: GAP}), None
        if part.kind == "tool-call" and part.announced:
            return self._more_arguments(part.index, GAP), part.sent
        return None

    def _logprobs(self, part: PartView | None, value: Any) -> list[Chunk]:
        if part is None or part.kind not in ("text", "refusal") or not isinstance(value, list):
            return []
        chunk = self._chunk({})
        name = "content" if part.kind == "text" else "refusal"
        chunk["choices"][0]["logprobs"] = {"content": None, "refusal": None, name: value}
        return [chunk]

    def _open_call(self, part: PartView) -> list[Chunk]:
        if part.kind != "tool-call" or part.announced or not (part.call_id and part.name):
            return []
        if not (part.is_clients or part.name in (self.tools or ())):
            return []
        part.announced = self._calls = True
        self._shown.add(part.part)
        part.index = self._index
        self._index += 1
        call = {
            "index": part.index,
            "id": part.call_id,
            "type": "function",
            "function": {"name": part.name, "arguments": ""},
        }
        return [self._chunk({"tool_calls": [call]}), *self._arguments(part)]

    def _arguments(self, part: PartView) -> list[Chunk]:
        text = "".join(part.pieces[part.pieces_sent :])
        part.pieces_sent = len(part.pieces)
        return [self._more_arguments(part.index, text)] if text else []

    def _more_arguments(self, index: int, text: str) -> Chunk:
        return self._chunk({"tool_calls": [{"index": index, "function": {"arguments": text}}]})

    def _end(self, event: PartEnd) -> list[Chunk]:
        part = self.view.parts.get(event.part)
        if part is None:
            return []
        field = _FIELDS.get(part.kind)
        if field is not None:
            missing = part.missing(event.text)
            return [self._chunk({field: missing})] if missing else []
        if isinstance(event, ToolCallEnd):
            part.call_id = part.call_id or f"call-{part.part}"
            chunks = self._open_call(part)
            if part.announced and not part.text and event.arguments is not None:
                chunks.append(self._more_arguments(part.index, dumps_text(event.arguments)))
            return chunks
        return []

    def _run_end(self, event: RunEnd) -> list[Chunk]:
        view = self.view
        ending = view.ending(event)
        if ending in ("failed", "cancelled"):
            failure = view.failure(event)
            kind = error_kind(failure.http_status)
            return [{"error": error_object(failure.message, kind, failure.code)}]
        word = finish_word(view.reason, ending, calls=self._calls)
        chunks = [self._chunk({}, word)]
        if self.include_usage:
            chunks.append({**self._base(), "choices": [], "usage": usage_object(view.usage)})
        return chunks


def finish_word(reason: str, ending: Ending, *, calls: bool) -> str:
    """The wire's ``finish_reason``. ``calls``: the client has tool calls to run."""
    if ending == "cut":
        return "content_filter" if reason in ("content_filter", "refusal") else "length"
    word = FINISH_REASONS.get(reason, "stop")
    return "stop" if word == "tool_calls" and not calls else word


def error_kind(status: int) -> str:
    """The wire's error type for an HTTP status."""
    return _KINDS.get(status, "invalid_request_error" if status < 500 else "server_error")


def error_object(message: str, kind: str, code: str, param: str | None = None) -> Chunk:
    """The wire's error object. Here the nulls are part of the form."""
    return {"message": message, "type": kind, "param": param, "code": code}


def usage_object(usage: dict[str, int]) -> Chunk | None:
    """Token counts in the wire's words."""
    if not usage:
        return None
    input_tokens, output_tokens = usage.get("input_tokens", 0), usage.get("output_tokens", 0)
    counts: Chunk = {
        "prompt_tokens": input_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": usage.get("total_tokens") or input_tokens + output_tokens,
    }
    if "cached_input_tokens" in usage:
        counts["prompt_tokens_details"] = {"cached_tokens": usage["cached_input_tokens"]}
    if "reasoning_tokens" in usage:
        counts["completion_tokens_details"] = {"reasoning_tokens": usage["reasoning_tokens"]}
    return counts


def completion(fold: Fold, *, tools: frozenset[str] = frozenset()) -> Chunk:
    """The ``chat.completion`` object of a finished run."""
    parts: list[Any] = list(fold.message().parts)
    calls = [
        {
            "id": p.call_id,
            "type": "function",
            "function": {"name": p.name, "arguments": p.arguments},
        }
        for p in parts
        if isinstance(p, ToolCallPart) and (p.executor == "client" or p.name in tools)
    ]
    text = "".join(p.text for p in parts if isinstance(p, TextPart))
    refusal = "".join(p.text for p in parts if isinstance(p, RefusalPart))
    reasoning = "".join(p.text for p in parts if isinstance(p, ReasoningPart))
    message: Chunk = {
        "role": "assistant",
        "content": text if text or not (calls or refusal) else None,
        "refusal": refusal or None,
        **clean(tool_calls=calls or None, reasoning_content=reasoning or None),
    }
    word = finish_word(fold.finish_reason or "stop", fold_ending(fold), calls=bool(calls))
    return {
        "id": f"chatcmpl-{fold.run}",
        "object": "chat.completion",
        "created": fold.time // 1000,
        "model": fold.model or "",
        "choices": [
            {"index": 0, "message": message, "logprobs": _logprobs(fold), "finish_reason": word}
        ],
        "usage": usage_object(fold.usage),
    }


def _logprobs(fold: Fold) -> Chunk | None:
    """The log probabilities of a finished run's text, where its provider sent some."""
    lists: dict[str, list[Any]] = {"text": [], "refusal": []}
    for part in fold.parts.values():
        values = part.attrs.get("logprobs")
        if part.kind in lists and part.choice == 0 and part.is_answer and isinstance(values, list):
            lists[part.kind] += values
    if not any(lists.values()):
        return None
    return {"content": lists["text"] or None, "refusal": lists["refusal"] or None}
