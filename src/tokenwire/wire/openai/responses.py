"""Responses API stream events, as OpenAI's clients read them, and the response object itself.

Always true: ``sequence_number`` is 0, 1, 2, ... over the whole run, so ``starting_after`` gives
exactly the rest; every item that is added is done before the one terminal event
(``response.completed``, ``.incomplete`` or ``.failed``). Tool calls that the server runs are not
sent. The wire cannot retract text: a step that restarts after visible output fails the stream; the
response object has the new text. Of a part of more than a million characters, the events that would
only repeat it (``output_text.done``, ``content_part.done`` and their like) are left out.
"""

from __future__ import annotations

from typing import Any, ClassVar

from tokenwire.events.codec import AnyEvent
from tokenwire.events.fold import Fold, PartState
from tokenwire.events.model import (
    PartAttr,
    PartDelta,
    PartEnd,
    PartStart,
    RunEnd,
    RunStart,
    StepReset,
    ToolCallEnd,
)
from tokenwire.events.reasons import Ending
from tokenwire.wire.base import Steady, text_of
from tokenwire.wire.chunk_encoder import GAP, Chunk, ChunkEncoder, Common, dumps, dumps_text
from tokenwire.wire.failure import Failure, fold_ending, fold_failure
from tokenwire.wire.place import Place
from tokenwire.wire.view import PartView

__all__ = ["OpenAIResponsesEncoder", "response_object"]

_FILTERED = {"content_filter", "refusal"}
#: Our codes -> the wire's, which is an enumeration: its clients accept no others.
_ERRORS = {
    "rate_limited": "rate_limit_exceeded",
    "bad_request": "invalid_prompt",
    "limit_exceeded": "invalid_prompt",
    "provider_bad_request": "invalid_prompt",
    "context_overflow": "invalid_prompt",
}
#: Characters of a part beyond which its end says it once more, in its item, and not three times.
MOST_REPEATED = 1 << 20
_PREFIX = {"text": "msg", "refusal": "msg", "reasoning": "rs", "tool-call": "fc"}


class OpenAIResponsesEncoder(ChunkEncoder):
    """Events to ``response.*`` events.

    ``starting_after``: the last ``sequence_number`` that the reader has; it gets those above.
    ``echo``: fields of the request that the response object repeats.
    """

    name: ClassVar[str] = "openai-responses"

    def __init__(
        self,
        *,
        starting_after: int | None = None,
        tools: frozenset[str] | None = None,
        echo: Chunk | None = None,
        place: Place | None = None,
    ) -> None:
        super().__init__(place=place)
        self.starting_after = -1 if starting_after is None else starting_after
        self.tools = tools
        self.echo = echo
        self._sequence = 0
        self._items: dict[int, Chunk] = {}  # part -> its item, done or not
        self._texts: dict[int, list[str]] = {}
        self._calls = False

    def chunks(self, event: AnyEvent) -> list[Chunk]:
        """The chunks that the reader does not have yet."""
        return [c for c in super().chunks(event) if c["sequence_number"] > self.starting_after]

    def steady(self, delta: PartDelta) -> Steady | None:
        """What the deltas that follow ``delta`` look like: each has a number at its end."""
        steady = super().steady(delta) if self._sequence > self.starting_after else None
        if steady is None:
            return None
        take, end = steady.take, b"}\n\n"

        def take_numbered(text: bytes, count: int) -> None:
            take(text, count)
            self._sequence += count

        steady.tail = steady.tail.removesuffix(end) + b',"sequence_number":'
        steady.number, steady.end, steady.take = self._sequence, end, take_numbered
        return steady

    def heartbeat(self) -> bytes:
        """A comment line alone: OpenAI's reader takes a blank line after an id for an event."""
        return b": keep-alive\n"

    def _frame(self, chunk: Chunk, frame_id: str | None) -> bytes:
        name = chunk["type"].encode("ascii")
        head = b"id: %b\n" % frame_id.encode("ascii") if frame_id is not None else b""
        return b"%bevent: %b\ndata: %b\n\n" % (head, name, dumps(chunk))

    # --- events to chunks ------------------------------------------------------------------------

    def _render(self, event: AnyEvent) -> list[Chunk]:
        self.view.apply(event)
        chunks = self._render_event(event)
        for chunk in chunks:
            chunk["sequence_number"] = self._sequence
            self._sequence += 1
        return chunks

    def _render_event(self, event: AnyEvent) -> list[Chunk]:
        view = self.view
        if isinstance(event, PartDelta):
            part = view.open.get(event.part)
            return self._delta(part, event.text) if part is not None and event.text else []
        if isinstance(event, PartStart | PartAttr):
            part = view.open.get(event.part)
            return self._open(part) if part is not None and part.kind != "reasoning" else []
        if isinstance(event, PartEnd):
            return self._end(event)
        if isinstance(event, RunStart):
            self._read_metadata(event)
            return [
                {"type": "response.created", "response": self._response("in_progress")},
                {"type": "response.in_progress", "response": self._response("in_progress")},
            ]
        if isinstance(event, StepReset):
            if self._items.keys().isdisjoint(view.void_parts(event)):
                return []
            self.ended = True
            text = "The answer was started again; the words before are void. Get the response."
            failed = self._response("failed", error={"code": "server_error", "message": text})
            return [{"type": "response.failed", "response": failed}]
        if isinstance(event, RunEnd):
            return self._run_end(event)
        return []

    def _read_metadata(self, event: RunStart) -> None:
        metadata = event.metadata or {}
        if self.tools is None:
            names = metadata.get("tools")
            self.tools = frozenset(names) if isinstance(names, list) else frozenset()
        if self.echo is None:
            echo = metadata.get("echo")
            self.echo = echo if isinstance(echo, dict) else {}

    def _response(self, status: str, **fields: Any) -> Chunk:
        output = [item for item in self._items.values() if item.get("status") != "in_progress"]
        return _response(
            f"resp_{self.view.run}",
            self.view.time,
            self.view.model,
            status,
            output,
            {**(self.echo or {}), **fields},
        )

    def _place_of(self, part: PartView) -> Chunk:
        place: Chunk = {"item_id": self._items[part.part]["id"], "output_index": part.index}
        if part.kind == "reasoning" and part.summary:
            place["summary_index"] = 0
        elif part.kind != "tool-call":
            place["content_index"] = 0
        return place

    def _open(self, part: PartView) -> list[Chunk]:
        if part.announced or part.kind not in _PREFIX:
            return []
        name = f"{_PREFIX[part.kind]}_{self.view.run}_{part.part}"
        if part.kind == "tool-call":
            if not (part.call_id and part.name):
                return []
            if not (part.is_clients or part.name in (self.tools or ())):
                return []
            self._calls = True
        part.announced, part.index = True, len(self._items)
        item = _item(part.kind, name, "in_progress", "", part.call_id, part.name, part.summary)
        if "content" in item:
            item["content"] = []
        if "summary" in item:
            item["summary"] = []
        self._items[part.part] = item
        self._texts[part.part] = []
        added = {"type": "response.output_item.added", "output_index": part.index, "item": item}
        chunks: list[Chunk] = [added]
        if part.kind == "reasoning" and part.summary:
            empty: Chunk = {"type": "summary_text", "text": ""}
            kind = "response.reasoning_summary_part.added"
            chunks.append({"type": kind, **self._place_of(part), "part": empty})
        elif part.kind != "tool-call":
            kind = "response.content_part.added"
            chunks.append({"type": kind, **self._place_of(part), "part": _content(part.kind, "")})
        elif part.pieces:
            chunks += self._delta(part, part.text)
        return chunks

    def _delta(self, part: PartView, text: str) -> list[Chunk]:
        chunks = self._open(part) if part.kind == "reasoning" else []
        if not part.announced:
            return chunks
        self._texts[part.part].append(text)
        return [*chunks, self._piece(part, text)]

    def _piece(self, part: PartView, text: str) -> Chunk:
        chunk = {"type": f"{_stream(part)}.delta", **self._place_of(part), "delta": text}
        if part.kind == "text":
            chunk["logprobs"] = []
        return chunk

    def _common(self, part: PartView) -> Common | None:
        texts = self._texts.get(part.part)
        if not part.announced or texts is None:
            return None
        return self._piece(part, GAP), lambda text: texts.append(text_of(text))

    def _end(self, event: PartEnd) -> list[Chunk]:
        part = self.view.parts.get(event.part)
        if part is None or part.kind not in _PREFIX:
            return []
        if isinstance(event, ToolCallEnd):
            part.call_id = part.call_id or f"call-{part.part}"
        chunks = [] if part.kind == "reasoning" else self._open(part)
        missing = part.missing(event.text)
        encrypted = part.attrs.get("encrypted") if part.kind == "reasoning" else None
        if part.kind == "reasoning" and (missing or encrypted):
            chunks += self._open(part)
        if not part.announced:
            return chunks
        if isinstance(event, ToolCallEnd):
            if not part.text and event.arguments is not None:
                chunks += self._delta(part, dumps_text(event.arguments))
        elif missing:
            chunks += self._delta(part, missing)
        text = event.text if event.text is not None else "".join(self._texts[part.part])
        return [*chunks, *self._done(part, text, event.status == "complete", encrypted)]

    def _done(self, part: PartView, text: str, whole: bool, encrypted: Any) -> list[Chunk]:
        place, kind = self._place_of(part), _stream(part)
        status = "completed" if whole else "incomplete"
        name = self._items[part.part]["id"]
        item = _item(part.kind, name, status, text, part.call_id, part.name, part.summary)
        if isinstance(encrypted, str):
            item["encrypted_content"] = encrypted
        self._items[part.part] = item
        done: Chunk = {"type": "response.output_item.done", "output_index": part.index}
        done["item"] = item
        self._texts.pop(part.part, None)
        if len(text) > MOST_REPEATED:
            return [done]
        final: Chunk = {"type": f"{kind}.done", **place}
        chunks: list[Chunk] = [final]
        if part.kind == "tool-call":
            final |= {"arguments": item["arguments"], "name": part.name}
        elif part.kind == "refusal":
            final["refusal"] = text
        else:
            final["text"] = text
        if part.kind == "text":
            final["logprobs"] = []
        if part.kind == "reasoning" and part.summary:
            content = {"type": "summary_text", "text": text}
            chunks.append(
                {"type": "response.reasoning_summary_part.done", **place, "part": content}
            )
        elif part.kind != "tool-call":
            content = _content(part.kind, text)
            chunks.append({"type": "response.content_part.done", **place, "part": content})
        return [*chunks, done]

    def _run_end(self, event: RunEnd) -> list[Chunk]:
        view = self.view
        ending = view.ending(event)
        failure = view.failure(event) if ending == "failed" else None
        status, fields = _status(ending, view.reason, failure)
        fields["usage"] = _usage(view.usage)
        kind = {"completed": "response.completed", "failed": "response.failed"}
        return [
            {
                "type": kind.get(status, "response.incomplete"),
                "response": self._response(status, **fields),
            }
        ]


def _stream(part: PartView) -> str:
    if part.kind == "reasoning":
        return "response.reasoning_summary_text" if part.summary else "response.reasoning_text"
    names = {"tool-call": "function_call_arguments", "refusal": "refusal", "text": "output_text"}
    return f"response.{names[part.kind]}"


def _content(kind: str, text: str) -> Chunk:
    if kind == "reasoning":
        return {"type": "reasoning_text", "text": text}
    if kind == "refusal":
        return {"type": "refusal", "refusal": text}
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _item(
    kind: str, name: str, status: str, text: str, call_id: str, tool: str, summary: bool
) -> Chunk:
    if kind == "tool-call":
        return {
            "type": "function_call",
            "id": name,
            "call_id": call_id,
            "name": tool,
            "arguments": text,
            "status": status,
        }
    if kind == "reasoning":
        content = {"type": "summary_text" if summary else "reasoning_text", "text": text}
        item: Chunk = {"type": "reasoning", "id": name, "status": status, "summary": []}
        item["summary" if summary else "content"] = [content]
        return item
    return {
        "type": "message",
        "id": name,
        "role": "assistant",
        "status": status,
        "content": [_content(kind, text)],
    }


def _status(ending: Ending, reason: str, failure: Failure | None) -> tuple[str, Chunk]:
    if ending == "cancelled":
        return "cancelled", {}
    if failure is not None:
        return "failed", {"error": _error(failure)}
    if ending == "cut":
        word = "content_filter" if reason in _FILTERED else "max_output_tokens"
        return "incomplete", {"incomplete_details": {"reason": word}}
    return "completed", {}


def _error(failure: Failure) -> Chunk:
    return {"code": _ERRORS.get(failure.code, "server_error"), "message": failure.message}


def _usage(usage: dict[str, int]) -> Chunk | None:
    """The counts; None where the provider gave none."""
    if not usage:
        return None
    input_tokens, output_tokens = usage.get("input_tokens", 0), usage.get("output_tokens", 0)
    return {
        "input_tokens": input_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.get("cached_input_tokens", 0),
            "cache_write_tokens": usage.get("cache_write_tokens", 0),
        },
        "output_tokens": output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.get("reasoning_tokens", 0)},
        "total_tokens": usage.get("total_tokens") or input_tokens + output_tokens,
    }


def _response(
    name: str, time: int, model: str | None, status: str, output: list[Chunk], fields: Chunk
) -> Chunk:
    # The nulls are part of this object's form: its clients' types name these fields as nullable.
    return {
        "id": name,
        "object": "response",
        "created_at": time // 1000,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "model": model or "",
        "output": output,
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "temperature": None,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": None,
        "truncation": "disabled",
        "usage": None,
        "metadata": {},
        **fields,
    }


def response_object(
    fold: Fold, *, tools: frozenset[str] = frozenset(), echo: Chunk | None = None
) -> Chunk:
    """The ``response`` object of a run, finished or not."""
    output = [
        _item_of(fold, part)
        for step in fold.steps
        for part in (fold.parts[p] for p in step.parts)
        if _is_visible(part, tools)
    ]
    if fold.outcome is None:
        return _response(
            f"resp_{fold.run}", fold.time, fold.model, "in_progress", output, dict(echo or {})
        )
    reason = fold.finish_reason or "stop"
    status, fields = _status(fold_ending(fold), reason, fold_failure(fold))
    fields = {**(echo or {}), **fields, "usage": _usage(fold.usage)}
    return _response(f"resp_{fold.run}", fold.time, fold.model, status, output, fields)


def _is_visible(part: PartState, tools: frozenset[str]) -> bool:
    if not part.is_answer and part.kind != "tool-call":
        return False
    if part.kind == "tool-call":
        return part.attrs.get("executor") == "client" or part.attrs.get("name") in tools
    if part.kind == "reasoning":
        return bool(part.text or part.attrs.get("encrypted"))
    return part.kind in ("text", "refusal")


def _item_of(fold: Fold, part: PartState) -> Chunk:
    attrs = part.attrs
    text = part.text
    if part.kind == "tool-call" and not text:
        text = dumps_text(attrs.get("arguments", {}))
    words = {"complete": "completed", "open": "in_progress"}
    item = _item(
        part.kind,
        f"{_PREFIX[part.kind]}_{fold.run}_{part.part}",
        words.get(part.status, "incomplete"),
        text,
        attrs.get("call_id") or f"call-{part.part}",
        attrs.get("name", ""),
        bool(attrs.get("summary")),
    )
    if part.kind == "reasoning" and isinstance(attrs.get("encrypted"), str):
        item["encrypted_content"] = attrs["encrypted"]
    return item
