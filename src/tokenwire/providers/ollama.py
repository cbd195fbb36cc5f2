"""Ollama's own wire: ``/api/chat`` and ``/api/generate``, one JSON object a line.

Always true: a call's arguments come whole, as an object; ``done: true`` is the end marker; counts
are told once, with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import msgspec

from tokenwire.errors import InputError, ProviderError
from tokenwire.events.message import (
    FilePart,
    Message,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from tokenwire.events.model import (
    Event,
    FileStart,
    FinishReason,
    PartDelta,
    PartStart,
    ReasoningStart,
    ResponseStart,
    TextDelta,
    TextStart,
    ToolCallStart,
    Usage,
)
from tokenwire.events.request import Request
from tokenwire.framing.sse import Frame
from tokenwire.providers.base import Call, Cursor, Target, effort_of
from tokenwire.providers.decoding.decoder import PayloadDecoder
from tokenwire.providers.decoding.faults import sure_fault_in
from tokenwire.providers.decoding.parts import OpenPart
from tokenwire.providers.decoding.reasons import reason_of, word_of
from tokenwire.providers.decoding.values import (
    arguments_text,
    decode,
    index_of,
    items,
    obj,
    text_of,
    texts_of,
    tokens_of,
)
from tokenwire.providers.failures import from_response
from tokenwire.providers.history import (
    arguments_object,
    as_words,
    base64_of,
    meta_of,
    result_text,
    system_text,
    turns,
    whole_calls,
)
from tokenwire.providers.summary import OBJECT_ARGUMENTS

__all__ = ["DIALECT", "OllamaDecoder", "OllamaDialect"]

_FINISH: dict[str, FinishReason] = {"stop": "stop", "length": "length"}
#: Other names of ``thinking``.
_THOUGHTS = ("reasoning", "reasoning_content", "reasoning_text")
_MESSAGE_FIELDS = frozenset(
    {"role", "content", "thinking", "images", "tool_calls", "tool_name", "name", *_THOUGHTS}
)
_COUNTS = ("prompt_eval_count", "eval_count")
_SKIPPED = frozenset({"model", "created_at", "message", "response", "thinking", "done"})


#: After this many lines in a row that were not ordinary, the typed decode is no longer tried.
_MOST_MISSES = 16
#: Bytes of a line that can be read again with each piece of it.
_SHORT_LINE = 2000


class _Piece(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    content: str
    role: str | None = None
    thinking: Literal[""] | None = None
    images: None = None
    tool_calls: None = None


class _Line(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A line that adds to the text and holds nothing else."""

    message: _Piece
    done: Literal[False]
    model: str | None = None
    created_at: str | None = None


class _Words(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    content: str = ""
    thinking: str = ""
    role: str | None = None
    images: None = None
    tool_calls: None = None


class _PlainLine(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A line of either endpoint that says something and holds nothing else."""

    done: Literal[False]
    message: _Words = _Words()
    response: str = ""
    thinking: str = ""
    model: str | None = None
    created_at: str | None = None


_decode_line = msgspec.json.Decoder(_Line).decode
_decode_plain = msgspec.json.Decoder(_PlainLine).decode


class OllamaDecoder(PayloadDecoder):
    """One response of ``/api/chat`` or ``/api/generate``."""

    dialect: ClassVar[str] = "ollama"
    passing: ClassVar[frozenset[bytes]] = frozenset({b"created_at"})

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.parts.texts = []
        self._open: OpenPart | None = None
        self._begun = False
        self._calls = 0
        #: The text to which the last line added.
        self._row: OpenPart | None = None
        self._misses = 0
        #: How often a long open line is still looked at, so that the work stays linear.
        self._most_looks = 64

    def _frame(self, frame: Frame, *, last: bool = False) -> None:
        row = self._row
        if row is None or frame.event != "message" or not self._add(row, frame.data):
            super()._frame(frame, last=last)

    def _feed(self, data: bytes) -> list[Event]:
        events = super()._feed(data)
        if data[-1:] == b"}" and not self.closed and self._most_looks:
            line = self.reader.open_line
            self._most_looks -= len(line) > _SHORT_LINE
            if line and _is_end(line):  # its line end need not come
                self._frame(Frame(line))
                events += self.parts.take()
        return events

    def _add(self, part: OpenPart, data: bytes) -> bool:
        """Give the event of one more ordinary line of a text; False when it needs the general
        way."""
        pieces = part.pieces
        if pieces is None or self.parts.loose or self.closed:
            return False
        try:
            text = _decode_line(data).message.content
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            self._misses += 1
            return False
        self._misses = 0
        if not text:
            return False
        self.payloads += 1
        self.parts.out.append(TextDelta(part=part.number, text=text))
        pieces.append(text)
        return True

    def plain_frame(self, frame: Frame) -> PartDelta | None:
        """The delta of a line that adds to the open text or reasoning alone."""
        part = self._open
        if part is None or frame.event != "message" or not self._begun:
            return None
        try:
            line = _decode_plain(frame.data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        message = line.message
        texts = (message.content, line.response), (message.thinking, line.thinking)
        said, thought = (list(filter(None, pair)) for pair in texts)
        kind = ReasoningStart if thought else TextStart
        if len(said) + len(thought) != 1 or type(part.start) is not kind:
            return None
        return part.plain([*said, *thought][0])

    def payload(self, value: dict[str, Any], event: str) -> None:
        self._row = None
        fault = sure_fault_in(value)
        if fault is not None:
            self.fail_with(fault, raw=value)
            return
        message = obj(value.get("message"))
        is_empty = not message and not isinstance(value.get("response"), str)
        if (is_empty and "done" not in value) or "type" in value:
            self.unknown(event, value)
            return
        if not self._begun:
            self._begun = True
            self.parts.out.append(ResponseStart(model=text_of(value.get("model")) or None))
        # Thinking first: a line that carries both is the seam between them.
        thought = message.get("thinking") or value.get("thinking")
        if not thought and len(message) > 2:
            thought = next((message[name] for name in _THOUGHTS if message.get(name)), None)
        if thought:
            self._text(ReasoningStart, texts_of(thought))
        content = message.get("content") or value.get("response")
        text = content if isinstance(content, str) else texts_of(content)
        if text and value.get("done") is True and text.startswith(self.parts.text):
            text = text[len(self.parts.text) :]  # a whole answer after its pieces
        self._text(TextStart, text)
        for image in items(message.get("images")):
            self._close()
            self.parts.whole(FileStart, text_of(image), media="image", media_type="image/png")
        for call in items(message.get("tool_calls")):
            self._call(obj(call))
        if not _MESSAGE_FIELDS.issuperset(message):
            self.keep_extras(message, _MESSAGE_FIELDS)
        logprobs = items(value.get("logprobs"))
        if logprobs and self._open is not None:
            self._open.attr("logprobs", logprobs)
        if value.get("done") is True:
            self._over(value)
        elif text and self._open is not None and self._misses < _MOST_MISSES:
            self._row = self._open

    def _text(self, kind: type[PartStart], text: Any) -> None:
        if not isinstance(text, str) or not text:
            return
        if self._open is None or type(self._open.start) is not kind:
            self._close()
            self._open = self.parts.open(kind)
        self._open.delta(text)

    def _close(self) -> None:
        if self._open is not None:
            self._open.end()
            self._open = None

    def _call(self, call: dict[str, Any]) -> None:
        self._close()
        function = obj(call.get("function")) or call
        call_id = text_of(call.get("id"))
        meta: dict[str, Any] = dict(OBJECT_ARGUMENTS)
        if call_id:
            meta["id"] = call_id
        self._calls += 1
        part = self.parts.open(
            ToolCallStart,
            name=text_of(function.get("name")),
            call_id=call_id or f"call_{self.parts.step}_{self.parts.next_part}",
            id_source="provider" if call_id else "synthetic",
            meta=meta,
        )
        part.place = index_of(function.get("index", call.get("index")))
        part.delta(arguments_text(function) or "{}")
        part.end()

    def _over(self, value: dict[str, Any]) -> None:
        self._close()
        counts = {k: value[k] for k in _COUNTS if value.get(k) is not None}
        if counts:
            self.count(
                Usage(
                    input_tokens=tokens_of(counts.get("prompt_eval_count")),
                    output_tokens=tokens_of(counts.get("eval_count")),
                    raw=counts,
                )
            )
        raw = word_of(value.get("done_reason"))
        # Older servers give no reason; then what was said is the answer.
        reason = reason_of(raw, _FINISH) if raw else "stop" if self.parts.shown else "other"
        if reason == "stop" and self._calls:
            reason = "tool_calls"
        skipped = _SKIPPED | {"done_reason", *_COUNTS}
        details = {k: v for k, v in value.items() if k not in skipped and v is not None}
        self.finish_reason(reason, raw, details=details or None)
        self.terminal_seen = self.closed = True


def _is_end(line: bytes) -> bool:
    """Whether a line is whole and the last one."""
    try:
        return obj(decode(line)).get("done") is True
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False


class OllamaDialect:
    """``/api/chat`` of an Ollama server; decodes ``/api/generate`` as well."""

    name = "ollama"

    def build(self, request: Request, target: Target) -> Call:
        """The HTTP request that sends ``request`` and streams the answer."""
        if request.tool_choice not in (None, "auto", "none"):
            raise InputError("Ollama cannot force a tool call; use tool_choice 'auto' or 'none'")
        body: dict[str, Any] = {
            "model": target.model,
            "messages": _messages(request),
            "stream": True,
        }
        options: dict[str, Any] = {}
        for name, value in (
            ("temperature", request.temperature),
            ("top_p", request.top_p),
            ("num_predict", request.max_tokens),
            ("stop", request.stop),
            ("seed", request.seed),
        ):
            if value is not None:
                options[name] = value
        if options:
            body["options"] = options
        if request.tools and request.tool_choice != "none":
            body["tools"] = [
                tool.native
                or {
                    "type": "function",
                    "function": {
                        "name": tool.name,
                        "description": tool.description,
                        "parameters": tool.parameters or {"type": "object", "properties": {}},
                    },
                }
                for tool in request.tools
            ]
        if request.output is not None:
            body["format"] = request.output.schema
        if request.reasoning is not None:
            levels = {"none": False, "low": "low", "medium": "medium", "high": "high"}
            # Only gpt-oss knows levels; other models know on and off.
            level = levels.get(effort_of(request.reasoning), True)
            body["think"] = level if "gpt-oss" in target.model or level is False else True
        body |= request.extra or {}
        headers = {"content-type": "application/json", "accept": "application/x-ndjson"}
        if target.api_key:
            headers["authorization"] = f"Bearer {target.api_key}"
        base = target.base_url.removesuffix("/v1").removesuffix("/api")
        return Call(
            url=f"{base}/api/chat",
            headers=target.headers_over(headers),
            body=msgspec.json.encode(body),
        )

    def decoder(
        self,
        *,
        step: int = 1,
        first_part: int = 0,
        quirks: frozenset[str] = frozenset(),
        content_type: str | None = None,
    ) -> OllamaDecoder:
        """A new decoder."""
        return OllamaDecoder(
            step=step, first_part=first_part, quirks=quirks, content_type=content_type
        )

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        """The typed error of a non-2xx answer."""
        return from_response(status, headers, body)

    def resume(self, response_id: str, after: Cursor | None, target: Target) -> Call | None:
        """Ollama keeps no response that could be re-attached to."""
        return None


def _messages(request: Request) -> list[dict[str, Any]]:
    messages = turns(request)
    calls = whole_calls(messages)
    calls_by_id = {p.call_id: p for m in messages for p in m.tool_calls}
    system = system_text(request)
    entries: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    for message in messages:
        if message.role == "assistant":
            entry = _assistant(message, calls)
            if entry is not None:
                entries.append(entry)
            continue
        for part in message.parts:
            if isinstance(part, ToolResultPart):
                entries.append(_result(part, calls_by_id.get(part.call_id)))
        if message.role == "user" and any(
            isinstance(p, TextPart | FilePart) for p in message.parts
        ):
            entries.append(_user(message))
    return entries


def _user(message: Message) -> dict[str, Any]:
    parts = [as_words(part) for part in message.parts]
    text = "".join(p.text for p in parts if isinstance(p, TextPart))
    entry: dict[str, Any] = {"role": "user", "content": text}
    images: list[str] = []
    for part in parts:
        if isinstance(part, FilePart):
            if not part.media_type.startswith("image/"):
                raise InputError(f"Ollama does not accept {part.media_type} files")
            images.append(base64_of(part, "Ollama"))
    return entry | ({"images": images} if images else {})


def _assistant(message: Message, calls: set[str]) -> dict[str, Any] | None:
    entry: dict[str, Any] = {"role": "assistant", "content": message.text}
    thinking = "".join(p.text for p in message.parts if isinstance(p, ReasoningPart))
    if thinking:
        entry["thinking"] = thinking
    own_calls = [p for p in message.tool_calls if p.executor != "provider" and p.call_id in calls]
    if own_calls:
        entry["tool_calls"] = [_tool_call(p) for p in own_calls]
    return entry if entry["content"] or thinking or own_calls else None


def _tool_call(part: ToolCallPart) -> dict[str, Any]:
    provider_id = meta_of(part, "ollama").get("id")
    function = {"name": part.name, "arguments": arguments_object(part)}
    return ({"id": provider_id} if provider_id else {}) | {"function": function}


def _result(part: ToolResultPart, call: ToolCallPart | None) -> dict[str, Any]:
    entry: dict[str, Any] = {"role": "tool", "content": result_text(part)}
    name = part.name or (call.name if call is not None else "")
    if name:
        entry["tool_name"] = name
    provider_id = meta_of(call, "ollama").get("id") if call is not None else None
    return entry | ({"tool_call_id": provider_id} if provider_id else {})


DIALECT = OllamaDialect()
