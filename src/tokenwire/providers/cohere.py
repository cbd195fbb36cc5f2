"""Cohere chat, version 2: its stream to events, and our request to its own.

Always true: the tool plan is reasoning whose ``meta`` type is ``tool_plan``; citations decorate the
text of their content index; ``message-end`` is the end marker.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import msgspec

from tokenwire.errors import InputError, ProviderError
from tokenwire.events.message import (
    FilePart,
    Message,
    ReasoningPart,
    TextPart,
    ToolResultPart,
)
from tokenwire.events.model import (
    FinishReason,
    PartDelta,
    PartStart,
    ReasoningStart,
    ResponseStart,
    TextStart,
    ToolCallStart,
    Usage,
)
from tokenwire.events.request import Request, ToolSpec
from tokenwire.framing.sse import Frame
from tokenwire.providers.base import Call, Cursor, Target
from tokenwire.providers.cohere_delta import ContentDelta, PlanDelta, decode_plain
from tokenwire.providers.decoding.decoder import PayloadDecoder
from tokenwire.providers.decoding.faults import sure_fault_in
from tokenwire.providers.decoding.parts import OpenPart
from tokenwire.providers.decoding.reasons import reason_of, word_of
from tokenwire.providers.decoding.values import (
    arguments_text as text_of_arguments,
)
from tokenwire.providers.decoding.values import (
    citation,
    index_of,
    items,
    obj,
    text_of,
    tokens_of,
)
from tokenwire.providers.failures import from_response
from tokenwire.providers.history import (
    arguments_text,
    as_words,
    meta_of,
    result_text,
    system_text,
    turns,
    whole_calls,
)

__all__ = ["DIALECT", "CohereDecoder", "CohereDialect"]

_FINISH: dict[str, FinishReason] = {
    "COMPLETE": "stop",
    "STOP_SEQUENCE": "stop",
    "MAX_TOKENS": "length",
    "TOOL_CALL": "tool_calls",
    "ERROR": "error",
    "ERROR_TOXIC": "content_filter",
    "ERROR_LIMIT": "context_overflow",
    "TIMEOUT": "error",
}


_CONTENT_FIELDS = frozenset({"type", "text", "thinking", "index"})
_MESSAGE_FIELDS = frozenset({"role", "content", "tool_plan", "tool_calls", "citations"})


class CohereDecoder(PayloadDecoder):
    """One response of ``/v2/chat``."""

    dialect: ClassVar[str] = "cohere"

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.parts.texts = []
        self._contents: dict[Any, OpenPart] = {}
        #: Calls that are open, or ended without arguments, which may still come.
        self._calls: dict[int, OpenPart] = {}
        self._lost_arguments = False
        self._plan: OpenPart | None = None
        self._handlers: dict[str, Callable[[dict[str, Any], dict[str, Any]], None]] = {
            "message-start": self._start,
            "content-start": self._content_start,
            "content-delta": self._content_delta,
            "content-end": self._content_end,
            "tool-plan-delta": self._tool_plan,
            "tool-call-start": self._call_start,
            "tool-call-delta": self._call_delta,
            "tool-call-end": self._call_end,
            "citation-start": self._citation,
            "citation-end": lambda value, message: None,
            "message-end": self._end,
        }

    def payload(self, value: dict[str, Any], event: str) -> None:
        kind = value.get("type")
        kind = kind if isinstance(kind, str) else event
        handler = self._handlers.get(kind)
        delta = obj(value.get("delta"))
        fault = sure_fault_in(value)
        if fault is not None or kind == "error":
            self.fail_with(fault or value, raw=value)
        elif handler is not None:
            handler(value, obj(delta.get("message")))
        elif "finish_reason" in value and isinstance(value.get("message"), dict):
            self._whole(value)
        else:
            self.unknown(kind, value)

    def plain_frame(self, frame: Frame) -> PartDelta | None:
        """The delta of an open text, plan or call."""
        try:
            value = decode_plain(frame.data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        if frame.event not in (value.__struct_config__.tag, "message"):
            return None
        if isinstance(value, ContentDelta):
            content, part = value.delta.message.content, self._contents.get(value.index)
            kind = "text" if content.thinking is None else "thinking"
            text = content.text if kind == "text" else content.thinking
            is_other = part is None or _kind(part) != kind
            if is_other or (content.text is not None and kind == "thinking"):
                return None
        elif isinstance(value, PlanDelta):
            text, part = value.delta.message.tool_plan, self._plan
        else:
            text = value.delta.message.tool_calls.function.arguments
            part = self._calls.get(value.index)
        return part.plain(text) if part is not None and text else None

    def _start(self, value: dict[str, Any], message: dict[str, Any]) -> None:
        self.parts.out.append(ResponseStart(id=text_of(value.get("id")) or None))

    # --- content -------------------------------------------------------------------------------

    def _content_start(self, value: dict[str, Any], message: dict[str, Any]) -> None:
        content = _content(message)
        kind: type[PartStart] = ReasoningStart if content.get("type") == "thinking" else TextStart
        self._end_plan()
        index = _index(value)
        before = self._contents.pop(index, None)
        if before is not None:
            before.end()
        part = self._contents[index] = self.parts.open(
            kind, meta={"type": text_of(content.get("type")) or "text", "index": index}
        )
        part.delta(text_of(content.get("thinking")) or text_of(content.get("text")))

    def _content_delta(self, value: dict[str, Any], message: dict[str, Any]) -> None:
        content = _content(message)
        part = self._contents.get(_index(value))
        kind = "thinking" if "thinking" in content else "text"
        if part is None or (content and _kind(part) != kind):
            self._content_start(value, {"content": {"type": kind}})
            part = self._contents[_index(value)]
        text = text_of(content.get("text")) or text_of(content.get("thinking"))
        part.delta(text)
        # A text that stands alone has no other field beside it.
        if (not text or len(content) > 1) and not _CONTENT_FIELDS.issuperset(content):
            self.keep_extras(content, _CONTENT_FIELDS)
        if (not text or len(message) > 1) and not _MESSAGE_FIELDS.issuperset(message):
            self.keep_extras(message, _MESSAGE_FIELDS)
        logprobs = obj(value.get("logprobs"))
        if logprobs:
            part.attr("logprobs", [logprobs])

    def _content_end(self, value: dict[str, Any], message: dict[str, Any]) -> None:
        part = self._contents.pop(_index(value), None)
        if part is not None:
            part.end()

    def _citation(self, value: dict[str, Any], message: dict[str, Any]) -> None:
        entry = obj(message.get("citations"))
        index = entry.get("content_index")
        part = self._contents.get(index if type(index) is int else 0)
        if part is None:
            part = next(iter(self._contents.values()), None)
        if part is None:
            self.raw("citation-start", value)
            return
        source = obj(next(iter(items(entry.get("sources"))), None))
        document = obj(source.get("document"))
        part.attr(
            "citation",
            citation(
                entry,
                text=entry.get("text"),
                start=entry.get("start"),
                end=entry.get("end"),
                unit="char",
                source=source.get("id"),
                title=document.get("title"),
                url=document.get("url"),
            ),
        )

    # --- tools ---------------------------------------------------------------------------------

    def _tool_plan(self, value: dict[str, Any], message: dict[str, Any]) -> None:
        text = text_of(message.get("tool_plan"))
        if self._plan is None and text:
            self._plan = self.parts.open(ReasoningStart, meta={"type": "tool_plan"})
        if self._plan is not None:
            self._plan.delta(text)

    def _end_plan(self) -> None:
        if self._plan is not None:
            self._plan.end()
            self._plan = None

    def _call_start(self, value: dict[str, Any], message: dict[str, Any]) -> None:
        self._end_plan()
        call = obj(message.get("tool_calls"))
        function = obj(call.get("function"))
        call_id = text_of(call.get("id"))
        before = self._calls.get(_index(value))
        if before is not None and call_id and before.call_id == call_id:
            return  # the same start again
        if before is not None:
            self._end_call(self._calls.pop(_index(value)))
        part = self._calls[_index(value)] = self.parts.open(
            ToolCallStart,
            name=text_of((function or call).get("name")),
            call_id=call_id or f"call_{self.parts.step}_{self.parts.next_part}",
            id_source="provider" if call_id else "synthetic",
        )
        part.place = _index(value)
        part.delta(text_of_arguments(function or call))

    def _call_delta(self, value: dict[str, Any], message: dict[str, Any]) -> None:
        part = self._calls.get(_index(value))
        if part is None:  # of the only call that lacks some; where that is not clear, of none
            bare = [p for p in self._calls.values() if not p.is_whole]
            if len(bare) != 1:
                self._lost_arguments = True
                self.raw("tool-call-delta", value)
                return
            part = bare[0]
        function = obj(obj(message.get("tool_calls")).get("function"))
        part.delta(text_of_arguments(function))

    def _call_end(self, value: dict[str, Any], message: dict[str, Any]) -> None:
        part = self._calls.get(_index(value))
        if part is not None and not part.lacks_arguments:
            self._end_call(self._calls.pop(_index(value)))

    def _end_call(self, part: OpenPart) -> None:
        if self._lost_arguments and part.lacks_arguments:
            part.end("invalid", error="its arguments came for an index that is no call")
        part.end()

    # --- the end -------------------------------------------------------------------------------

    def _end(self, value: dict[str, Any], message: dict[str, Any]) -> None:
        delta = obj(value.get("delta"))
        self._over(delta, text_of(delta.get("error")) or None)

    def _over(self, response: dict[str, Any], message: str | None) -> None:
        self._end_plan()
        for part in self._contents.values():
            part.end()
        for call in self._calls.values():
            self._end_call(call)
        usage = obj(response.get("usage"))
        if usage:
            counts = obj(usage.get("tokens")) or obj(usage.get("billed_units"))
            self.count(
                Usage(
                    input_tokens=tokens_of(counts.get("input_tokens")),
                    output_tokens=tokens_of(counts.get("output_tokens")),
                    cached_input_tokens=tokens_of(usage.get("cached_tokens")),
                    raw=usage,
                )
            )
        raw = word_of(response.get("finish_reason"))
        reason = reason_of(raw, _FINISH) if raw else "other"
        self.finish_reason(reason, raw, details={"error": message} if message else None)
        self.terminal_seen = True
        if reason == "error":
            self.fail_with({"error": {"code": raw, "message": message or ""}}, raw=response)
        self.closed = True

    def _whole(self, value: dict[str, Any]) -> None:
        """A whole response in place of a stream."""
        self._start(value, {})
        message = obj(value.get("message"))
        is_again = self.parts.shown
        if not is_again:
            self._tool_plan(value, message)
        for index, call in enumerate(items(message.get("tool_calls"))):
            self._call_start({"index": index}, {"tool_calls": call})
            self._call_end({"index": index}, {})
        listed = message.get("content")
        contents: list[Any] = listed if isinstance(listed, list) else [listed]
        if is_again:
            words = (text_of(_content({"content": c}).get("text")) for c in contents)
            rest = self.missing_text("".join(words))
            contents = [{"type": "text", "text": rest}] if rest else []
        for index, content in enumerate(contents):
            self._content_start({"index": index}, {"content": content})
        for entry in items(message.get("citations")):
            self._citation(value, {"citations": entry})
        self._over(value, None)


def _content(message: dict[str, Any]) -> dict[str, Any]:
    content = message.get("content")
    return {"type": "text", "text": content} if isinstance(content, str) else obj(content)


def _kind(part: OpenPart) -> str:
    return "thinking" if isinstance(part.start, ReasoningStart) else "text"


def _index(value: dict[str, Any]) -> int:
    return index_of(value.get("index")) or 0


class CohereDialect:
    """``/v2/chat``."""

    name = "cohere"

    def build(self, request: Request, target: Target) -> Call:
        """The HTTP request that sends ``request`` and streams the answer."""
        body: dict[str, Any] = {
            "model": target.model,
            "messages": _messages(request),
            "stream": True,
        }
        for name, value in (
            ("temperature", request.temperature),
            ("p", request.top_p),
            ("max_tokens", request.max_tokens),
            ("stop_sequences", request.stop),
            ("seed", request.seed),
        ):
            if value is not None:
                body[name] = value
        tools, choice = _choice(request)
        if tools:
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
                for tool in tools
            ]
        if choice is not None:
            body["tool_choice"] = choice
        if request.output is not None:
            body["response_format"] = {
                "type": "json_object",
                "json_schema": request.output.schema,
            }
        _thinking(request, body)
        body |= request.extra or {}
        headers = {"content-type": "application/json", "accept": "text/event-stream"}
        if target.api_key:
            headers["authorization"] = f"Bearer {target.api_key}"
        return Call(
            url=f"{target.base_url}/chat",
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
    ) -> CohereDecoder:
        """A new decoder."""
        return CohereDecoder(
            step=step, first_part=first_part, quirks=quirks, content_type=content_type
        )

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        """The typed error of a non-2xx answer."""
        return from_response(status, headers, body)

    def resume(self, response_id: str, after: Cursor | None, target: Target) -> Call | None:
        """Cohere keeps no response that could be re-attached to."""
        return None


def _choice(request: Request) -> tuple[list[ToolSpec], str | None]:
    """The tools, and whether one must be called. One that is named is the only one given."""
    tools, choice = request.tools or [], request.tool_choice
    if choice in (None, "auto"):
        return tools, None
    if choice in ("required", "none"):
        return tools, choice.upper()
    named = [tool for tool in tools if tool.name == choice]
    if not named:
        raise InputError(f"tool_choice is '{choice}', but no tool has that name")
    return named, "REQUIRED"


def _thinking(request: Request, body: dict[str, Any]) -> None:
    if request.reasoning is None:
        return
    if request.reasoning == "none":
        body["thinking"] = {"type": "disabled"}
    elif isinstance(request.reasoning, int):
        body["thinking"] = {"type": "enabled", "token_budget": request.reasoning}
    else:
        body["thinking"] = {"type": "enabled"}


def _messages(request: Request) -> list[dict[str, Any]]:
    messages = turns(request)
    calls = whole_calls(messages)
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
                entries.append(
                    {"role": "tool", "tool_call_id": part.call_id, "content": result_text(part)}
                )
        content = [c for p in message.parts if (c := _user_content(as_words(p))) is not None]
        if message.role == "user" and content:
            entries.append({"role": "user", "content": content})
    return entries


def _user_content(part: Any) -> dict[str, Any] | None:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    if not isinstance(part, FilePart):
        return None
    if not part.media_type.startswith("image/"):
        raise InputError(f"Cohere does not accept {part.media_type} files")
    url = part.url if part.data is None else f"data:{part.media_type};base64,{part.data}"
    return {"type": "image_url", "image_url": {"url": url}}


def _assistant(message: Message, calls: set[str]) -> dict[str, Any] | None:
    entry: dict[str, Any] = {"role": "assistant"}
    content: list[dict[str, Any]] = []
    for part in message.parts:
        if isinstance(part, ReasoningPart) and part.text:
            if meta_of(part, "cohere").get("type") == "tool_plan":
                entry["tool_plan"] = entry.get("tool_plan", "") + part.text
            elif "cohere" in (part.meta or {}):
                content.append({"type": "thinking", "thinking": part.text})
        elif isinstance(part, TextPart) and part.text:
            content.append({"type": "text", "text": part.text})
    if content:
        entry["content"] = content
    own_calls = [p for p in message.tool_calls if p.executor != "provider" and p.call_id in calls]
    if own_calls:
        entry["tool_calls"] = [
            {
                "id": p.call_id,
                "type": "function",
                "function": {"name": p.name, "arguments": arguments_text(p)},
            }
            for p in own_calls
        ]
    return entry if len(entry) > 1 else None


DIALECT = CohereDialect()
