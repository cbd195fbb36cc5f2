"""OpenAI Responses: its stream to events (also of servers that speak the same wire).

Always true: an output item's parts carry its type, index and id in ``meta``; the text of a ``done``
is checked against the deltas and wins; an item that never streamed is read from the item itself,
or from the final response; ``cursor`` is the last ``sequence_number``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import msgspec

from tokenwire.events.model import (
    FinishReason,
    Heartbeat,
    PartDelta,
    PartStart,
    ReasoningStart,
    RefusalStart,
    ResponseStart,
    TextDelta,
    TextStart,
    Usage,
)
from tokenwire.framing.sse import Frame
from tokenwire.providers.base import Call, Cursor, Target
from tokenwire.providers.decoding.decoder import PayloadDecoder
from tokenwire.providers.decoding.faults import sure_fault_in
from tokenwire.providers.decoding.parts import OpenPart
from tokenwire.providers.decoding.payloads import PayloadReader
from tokenwire.providers.decoding.reasons import FAILURES, reason_of, word_of
from tokenwire.providers.decoding.values import (
    arguments_text,
    citation,
    dump,
    items,
    obj,
    text_of,
    tokens_of,
)
from tokenwire.providers.dialect import PayloadDialect
from tokenwire.providers.openai.responses_delta import (
    ARGUMENTS,
    TEXT_DELTA,
    decode_delta,
    decode_plain,
)
from tokenwire.providers.openai.responses_items import Item, Items
from tokenwire.providers.openai.responses_request import build, resume

__all__ = ["DIALECT", "ResponsesDecoder"]

_INCOMPLETE: dict[str, FinishReason] = {
    "max_output_tokens": "length",
    "max_tokens": "length",
    "content_filter": "content_filter",
}
_KINDS: dict[str, tuple[type[PartStart], str]] = {
    "output_text": (TextStart, "content"),
    "text": (TextStart, "content"),
    "refusal": (RefusalStart, "content"),
    "reasoning_text": (ReasoningStart, "content"),
    "summary_text": (ReasoningStart, "summary"),
}


_DELTA_FIELDS = frozenset(
    {"type", "delta", "item_id", "output_index", "content_index", "summary_index", "logprobs"}
    | {"sequence_number", "obfuscation", "response_id", "event_id", "p"}
)


#: Events that hold a piece of text, and the group of its part.
_PLAIN_TEXTS = {
    TEXT_DELTA: "content",
    "response.refusal.delta": "content",
    "response.reasoning_text.delta": "content",
    "response.reasoning_summary_text.delta": "summary",
}

#: After this many deltas in a row that were not ordinary, the typed decode is no longer tried.
_MOST_MISSES = 16


class ResponsesDecoder(PayloadDecoder):
    """One response of the Responses API; `reattach` continues it on a new connection."""

    dialect: ClassVar[str] = "openai-responses"
    passing: ClassVar[frozenset[bytes]] = frozenset({b"sequence_number", b"obfuscation"})

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.items = Items(self.parts)
        self.parts.hold_calls()  # the final response tells each call once more
        #: The last ``sequence_number``: what ``starting_after`` of a re-attached stream is.
        self.cursor: int | None = None
        self.response_id: str | None = None
        self.resumable = False
        self._skip_to: int | None = None
        #: The text to which the last payload added, and the ids and indexes that name it.
        self._row: tuple[OpenPart, str, int, int] | None = None
        self._misses = 0
        handlers: dict[str, Callable[[dict[str, Any]], None]] = {
            "response.output_text.delta": partial(self._text_delta, kind="output_text"),
            "response.refusal.delta": partial(self._text_delta, kind="refusal"),
            "response.reasoning_text.delta": partial(self._text_delta, kind="reasoning_text"),
            "response.reasoning_summary_text.delta": partial(self._text_delta, kind="summary_text"),
            "response.output_text.done": partial(self._text_done, kind="output_text"),
            "response.refusal.done": partial(self._text_done, kind="refusal"),
            "response.reasoning_text.done": partial(self._text_done, kind="reasoning_text"),
            "response.reasoning_summary_text.done": partial(self._text_done, kind="summary_text"),
            "response.output_text.annotation.added": self._annotation,
            "response.output_item.added": self._item_added,
            "response.output_item.done": self._item_done,
            "response.image_generation_call.partial_image": self._partial_image,
            "error": self._error,
        }
        for name in ("content_part", "reasoning_part", "reasoning_summary_part"):
            handlers[f"response.{name}.added"] = self._content_added
            handlers[f"response.{name}.done"] = self._content_done
        for name in ARGUMENTS:
            handlers[name] = self._arguments_delta
            handlers[f"{name.removesuffix('.delta')}.done"] = self._arguments_done
        for name in ("created", "queued", "in_progress"):
            handlers[f"response.{name}"] = self._begin
        for name in ("completed", "incomplete", "failed", "cancelled", "done"):
            handlers[f"response.{name}"] = self._over
        for name in ("keepalive", "ping"):
            handlers[name] = self._heartbeat
        self._handlers = handlers

    def _frame(self, frame: Frame, *, last: bool = False) -> None:
        row = self._row
        if row is None or frame.event != TEXT_DELTA or not self._add(row, frame.data):
            super()._frame(frame, last=last)

    def _add(self, row: tuple[OpenPart, str, int, int], data: bytes) -> bool:
        """Give the event of one more ordinary delta of a text; False when it needs the general
        way."""
        part, item_id, output_index, content_index = row
        pieces = part.pieces
        if pieces is None or self.parts.loose or self.failed or self.closed:
            return False
        try:
            value = decode_delta(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            self._misses += 1
            return False
        self._misses = 0
        if (
            not value.delta
            or value.item_id != item_id
            or value.output_index != output_index
            or value.content_index != content_index
        ):
            return False
        self.payloads += 1
        if value.sequence_number is not None:
            self.cursor = value.sequence_number
        self.parts.out.append(TextDelta(part=part.number, text=value.delta))
        pieces.append(value.delta)
        return True

    def plain_frame(self, frame: Frame) -> PartDelta | None:
        """The delta of an open text or call, whose item has the very names that its events have."""
        if self._skip_to is not None:
            return None
        try:
            value = decode_plain(frame.data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        kind, text = value.type, value.delta
        if frame.event not in (kind, "message") or not text:
            return None
        names = {"type": kind, "item_id": value.item_id, "output_index": value.output_index}
        item = self.items.find(names)
        if item is None:
            return None
        group = _PLAIN_TEXTS.get(kind)
        if group is None:
            return item.call.plain(text) if item.call is not None and kind in ARGUMENTS else None
        index = value.summary_index if value.content_index < 0 else value.content_index
        part = item.contents.get((group, index))
        return None if part is None else part.plain(text)

    def payload(self, value: dict[str, Any], event: str) -> None:
        self._row = None
        cursor = value.get("sequence_number")
        if type(cursor) is int:
            if self._skip_to is not None and cursor <= self._skip_to:
                return
            self.cursor = cursor
        kind = value.get("type")
        if not isinstance(kind, str):
            kind = event
        handler = self._handlers.get(kind)
        if self.failed and handler != self._over:
            return  # only the end of the response still counts
        if handler is not None:
            handler(value)
        elif value.get("object") == "response":
            self._whole(value)
        elif sure_fault_in(value) is not None:
            self._error(value)
        elif _is_failed_end(kind, value):
            self._over(value)
        elif not self._status(kind, value):
            self.unknown(kind, value)

    def done(self) -> None:
        """``[DONE]``: nothing follows on this connection; a response that the provider keeps may go
        on, on another."""
        self.closed = not self.resumable

    def reattach(self) -> None:
        """Continue on a new connection, requested with ``starting_after`` = `cursor`; events before
        it are not emitted twice."""
        self.reader, self._comments = PayloadReader(), 0
        self._skip_to = self.cursor
        self._row = None  # the ordinary way of a delta does not look for what is sent twice

    # --- the response --------------------------------------------------------------------------

    def _begin(self, value: dict[str, Any]) -> None:
        response = obj(value.get("response"))
        response_id = text_of(response.get("id")) or None
        if response_id is None or self.response_id == response_id:
            return
        self.response_id = response_id
        self.resumable = response.get("background") is True
        model = text_of(response.get("model")) or None
        self.parts.out.append(ResponseStart(id=response_id, model=model, resumable=self.resumable))

    def _over(self, value: dict[str, Any]) -> None:
        response = obj(value.get("response"))
        self._begin(value)  # some servers give the response its lasting id only now
        self.items.complete(items(response.get("output")), self._missing_contents)
        self.items.claim()
        self.items.close()
        for pieces in self.items.unclaimed():
            self.raw("arguments", {"delta": "".join(pieces)})
        usage = obj(response.get("usage"))
        if usage:
            self._count(usage)
        status = response.get("status")
        status = status if isinstance(status, str) else word_of(status) or ""
        status = status.strip() if status.strip() not in ("COMPLETED", "Completed") else "completed"
        if not status:
            status = text_of(value.get("type")).partition(".")[2] or "completed"
        details = obj(response.get("incomplete_details"))
        self.terminal_seen = True
        error = response.get("error")
        if status == "failed" or (error and status != "incomplete"):
            self.finish_reason("error", status)
            self.fail_with(error or {"error": {}}, request_id=None)
            return
        reason: FinishReason = "tool_calls" if self.items.calls else "stop"
        if status == "incomplete":
            word = word_of(details.get("reason"))
            reason = reason_of(word, _INCOMPLETE) if word is not None else "other"
            reason = "other" if reason in ("stop", "tool_calls") else reason
            self.unfinished = True
        elif status not in ("completed", "done"):
            reason = reason_of(status)
            self.unfinished = True
        elif self.items.refused and not self.items.calls:
            reason = "refusal"
        self.finish_reason(reason, status, details=details or None)
        self.closed = True

    def _whole(self, value: dict[str, Any]) -> None:
        """A whole response in place of a stream."""
        self._over({"response": value})

    def _error(self, value: dict[str, Any]) -> None:
        fault = value.get("error")
        fault = fault if isinstance(fault, dict | str | list) and fault else value
        code = obj(fault).get("code") or obj(fault).get("type")
        if fault is value and code == "error":
            fault = {k: v for k, v in value.items() if k != "type"}
        self.fail_with(fault, raw=value)
        self.closed = False  # `response.failed` follows, and says how it ended

    def _heartbeat(self, value: dict[str, Any]) -> None:
        self.parts.out.append(Heartbeat(source="provider"))

    def _count(self, raw: dict[str, Any]) -> None:
        cached = obj(raw.get("input_tokens_details")).get("cached_tokens")
        reasoning = obj(raw.get("output_tokens_details")).get("reasoning_tokens")
        self.count(
            Usage(
                input_tokens=tokens_of(raw.get("input_tokens")),
                output_tokens=tokens_of(raw.get("output_tokens")),
                total_tokens=tokens_of(raw.get("total_tokens")),
                cached_input_tokens=tokens_of(cached),
                reasoning_tokens=tokens_of(reasoning),
                raw=raw,
            )
        )

    # --- items ---------------------------------------------------------------------------------

    def _item_added(self, value: dict[str, Any]) -> None:
        self.items.added(value, obj(value.get("item")))

    def _item_done(self, value: dict[str, Any]) -> None:
        item = self.items.of(value, obj(value.get("item")))
        self.items.done(item, obj(value.get("item")), self._missing_contents)

    def _missing_contents(self, item: Item, fields: dict[str, Any]) -> None:
        """Emit the texts that only the item itself holds, or that its deltas left incomplete."""
        for group in ("summary", "content"):
            # Matched by order: servers number what they stream otherwise than what they list.
            indexes = [index for name, index in item.contents if name == group]
            following = max(indexes, default=-1) + 1
            listed = fields.get(group)
            if isinstance(listed, str) and listed:
                kind = "output_text" if item.type == "message" else "reasoning_text"
                listed = [{"type": kind if group == "content" else "summary_text", "text": listed}]
            for place, content in enumerate(items(listed)):
                index = indexes[place] if place < len(indexes) else following + place - len(indexes)
                self._content(item, group, index, obj(content), last=True)

    def _content(
        self, item: Item, group: str, index: int, content: dict[str, Any], *, last: bool
    ) -> None:
        kind = _KINDS.get(text_of(content.get("type")))
        if kind is None:
            if last:
                self.raw("content", content)
            return
        cls, group = kind
        part = item.contents.get((group, index))
        if part is None:
            part = self._open(item, cls, group, index)
        if not part.open:
            return
        text = content.get("refusal") if cls is RefusalStart else content.get("text")
        if isinstance(text, str):
            item.agree(part, text)
        cited = item.annotations.get(index, 0)
        for annotation in items(content.get("annotations"))[cited:]:
            self._cite(item, part, index, obj(annotation))
        logprobs = items(content.get("logprobs"))
        if logprobs and "logprobs" not in part.attrs_seen:
            part.attr("logprobs", logprobs)
        if last:
            item.finish_content(part)

    def _open(self, item: Item, cls: type[PartStart], group: str, index: int) -> OpenPart:
        fields: dict[str, Any] = {"summary": True} if group == "summary" else {}
        if cls is RefusalStart:
            self.items.refused = True
        return self.items.open_content(item, cls, group, index, fields)

    def _content_added(self, value: dict[str, Any]) -> None:
        part = obj(value.get("part"))
        if text_of(part.get("type")) not in _KINDS:
            self.raw(text_of(value.get("type")), value)
            return
        self._content(self.items.of(value), "content", _index(value), part, last=False)

    def _content_done(self, value: dict[str, Any]) -> None:
        part = obj(value.get("part"))
        self._content(self.items.of(value), "content", _index(value), part, last=True)

    # --- deltas --------------------------------------------------------------------------------

    def _text_delta(self, value: dict[str, Any], kind: str) -> None:
        delta = value.get("delta")
        if not isinstance(delta, str):
            return
        cls, group = _KINDS[kind]
        item = self.items.find(value) or self.items.of(value)
        index = value.get("content_index")
        if type(index) is not int:
            index = _index(value)
        part = item.contents.get((group, index))
        if part is None:
            part = self._open(item, cls, group, index)
        part.delta(delta)
        if not _DELTA_FIELDS.issuperset(value):
            self.keep_extras(value, _DELTA_FIELDS)
        logprobs = value.get("logprobs")
        if logprobs and isinstance(logprobs, list):
            part.attr("logprobs", logprobs)
        place = value.get("output_index")
        is_tried = kind == "output_text" and self._misses < _MOST_MISSES and self._skip_to is None
        if is_tried and type(place) is int:
            self._row = part, text_of(value.get("item_id")), place, index

    def _text_done(self, value: dict[str, Any], kind: str) -> None:
        _, group = _KINDS[kind]
        part = self.items.of(value).contents.get((group, _index(value)))
        text = value.get("refusal" if kind == "refusal" else "text")
        item = self.items.of(value)
        if part is None and isinstance(text, str) and text:
            part = self._open(item, _KINDS[kind][0], group, _index(value))
        if part is not None and isinstance(text, str):
            item.agree(part, text)

    def _annotation(self, value: dict[str, Any]) -> None:
        item, index = self.items.of(value), _index(value)
        part = item.contents.get(("content", index))
        if part is None:
            part = self._open(item, TextStart, "content", index)
        self._cite(item, part, index, obj(value.get("annotation")))

    def _cite(self, item: Item, part: OpenPart, index: int, source: dict[str, Any]) -> None:
        item.annotations[index] = item.annotations.get(index, 0) + 1
        part.attr(
            "citation",
            citation(
                source,
                url=source.get("url"),
                title=source.get("title") or source.get("filename"),
                source=source.get("file_id"),
                start=source.get("start_index", source.get("index")),
                end=source.get("end_index"),
                unit="char",
            ),
        )

    def _arguments_delta(self, value: dict[str, Any]) -> None:
        item = self.items.find(value)
        delta = value.get("delta")
        if isinstance(delta, dict):
            delta = dump(delta)
        if item is None or item.call is None:
            self.items.wait(value, text_of(delta))
        elif isinstance(delta, str):
            item.call.delta(delta)

    def _arguments_done(self, value: dict[str, Any]) -> None:
        item = self.items.find(value)
        text = arguments_text(value) or text_of(value.get("code"))
        if item is not None and item.call is not None and isinstance(text, str):
            item.agree(item.call, text)

    def _partial_image(self, value: dict[str, Any]) -> None:
        self.items.partial_image(self.items.of(value), value)

    def _status(self, kind: str, value: dict[str, Any]) -> bool:
        """``response.web_search_call.searching``: how far a hosted tool is."""
        words = kind.split(".")
        if len(words) != 3 or words[0] != "response":
            return False
        item = self.items.find(value)
        if item is None or item.type != words[1]:
            return False
        if item.call is not None:
            item.call.attr("status", words[2])
        return True


def _is_failed_end(kind: str, value: dict[str, Any]) -> bool:
    """Whether an event that is not known says that the response ended without success."""
    name, dot, word = kind.partition(".")
    is_response = name == "response" and dot and isinstance(value.get("response"), dict)
    return bool(is_response) and "." not in word and reason_of(word) in FAILURES


def _index(value: dict[str, Any]) -> int:
    index = value.get("content_index", value.get("summary_index"))
    return index if type(index) is int else 0


def _resume(response_id: str, after: Cursor | None, target: Target) -> Call | None:
    """Re-attach to a background response after the ``sequence_number`` that was read last."""
    return resume(response_id, after if isinstance(after, int) else None, target)


#: The Responses API.
DIALECT = PayloadDialect("openai-responses", build, ResponsesDecoder, resume=_resume)
