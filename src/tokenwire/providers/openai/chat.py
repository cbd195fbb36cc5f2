"""OpenAI Chat Completions, and all servers that are compatible with it: bytes to events.

Always true: an ordinary chunk takes one typed decode; whatever does not fit it goes the general
way and gives the same events; null means absent; what the parts say wins over the finish reason;
the stream is over at ``[DONE]``, or at its end when every choice has its finish reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from tokenwire.errors import ProviderError
from tokenwire.events.model import (
    ReasoningDelta,
    ResponseStart,
    TextDelta,
    ToolCallDelta,
    Usage,
)
from tokenwire.events.request import Request
from tokenwire.framing.sse import Frame
from tokenwire.providers.base import Call, Cursor, Target
from tokenwire.providers.decoding.decoder import PayloadDecoder
from tokenwire.providers.decoding.parts import (
    citation,
    dump,
    items,
    number,
    obj,
    parse_arguments,
    text_of,
)
from tokenwire.providers.failures import error_event, from_object, from_response
from tokenwire.providers.openai.chat_choice import OpenChoice
from tokenwire.providers.openai.chat_chunk import (
    CUT_SHORT,
    FINISH_REASONS,
    Delta,
    citation_of,
    decode_chunk,
    usage_of,
)
from tokenwire.providers.openai.chat_request import build
from tokenwire.providers.openai.schema_call import READING

__all__ = ["DIALECT", "ChatDecoder", "OpenAIChat"]

#: After this many chunks in a row that were not ordinary, the typed decode is no longer tried.
_MOST_MISSES = 16
_TOP_LEVEL_EXTRAS = ("prompt_filter_results", "moderation", "timings", "copilot_usage")


class ChatDecoder(PayloadDecoder):
    """One response of this wire; see `tokenwire.providers.base.Decoder`."""

    dialect = "openai-chat"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._choices: dict[int, OpenChoice] = {}
        self._first = self._choice(0)
        self._misses = 0
        self._started = False
        self._usage: Usage | None = None
        self._cited: set[str] = set()
        self._filters: dict[int, Any] = {}

    # --- the fast way --------------------------------------------------------------------------

    def _frame(self, frame: Frame, *, last: bool = False) -> None:
        if self._started and self._misses < _MOST_MISSES and not self.closed:
            try:
                chunk = decode_chunk(frame.data)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                self._misses += 1
            else:
                self._misses = 0
                if self._ordinary(chunk.choices[0].delta):
                    self.payloads += 1
                    return
        super()._frame(frame, last=last)

    def _ordinary(self, delta: Delta) -> bool:
        """Give the events of an ordinary delta; False when it needs the general way."""
        choice = self._first
        content = delta.content
        thought = delta.reasoning_content or delta.reasoning
        calls = delta.tool_calls
        if content:
            part = choice.text
            if part is None or thought or calls or choice.tags is not None:
                return False
            self.parts.out.append(TextDelta(part=part.number, text=content))
            part.size += len(content) if content.isascii() else len(content.encode())
            return True
        if thought:
            part = choice.reasoning
            if part is None or calls:
                return False
            self.parts.out.append(ReasoningDelta(part=part.number, text=thought))
            part.size += len(thought) if thought.isascii() else len(thought.encode())
            return True
        if calls:
            call = calls[0]
            slot = choice.slots.known(call.index)
            piece = call.function.arguments
            if slot is None or call.function.name:
                return False
            if piece:
                part = slot.part
                self.parts.out.append(ToolCallDelta(part=part.number, text=piece))
                part.size += len(piece) if piece.isascii() else len(piece.encode())
                part.pieces.append(piece)  # type: ignore[union-attr]
        return True

    # --- the general way -----------------------------------------------------------------------

    def payload(self, value: dict[str, Any], event: str) -> None:
        """One chunk, or a whole completion, of any shape that servers send."""
        if not self._started:
            self._start(value)
        for name in _TOP_LEVEL_EXTRAS:
            if value.get(name):
                self.raw(name, value[name])
        self._cite_sources(value)
        choices = items(value.get("choices"))
        for position, choice in enumerate(choices):
            if isinstance(choice, dict):
                self._one(choice, position)
        self._count(value.get("usage") or obj(value.get("x_groq")).get("usage"))
        error = value.get("error")
        if error is None and obj(value.get("x_groq")).get("error"):
            error = {"message": value["x_groq"]["error"]}
        if error or (event == "error" and not choices):
            refusal = from_object({"error": error} if error else value)
            self.fail(error_event(refusal, raw=error or value))
        elif not choices and not value.get("usage") and "choices" not in value:
            self.raw(event if event != "message" else None, value)

    def done(self) -> None:
        """``[DONE]``: nothing follows."""
        self.terminal_seen = self.closed = True
        self._end_parts()

    def ended(self) -> None:
        """The end of the bytes: good when every choice has finished."""
        if self.terminal_seen:
            self._end_parts()

    def _start(self, value: dict[str, Any]) -> None:
        response_id, model = text_of(value.get("id")), text_of(value.get("model"))
        if response_id or model:
            self.parts.out.append(ResponseStart(id=response_id or None, model=model or None))
            self._started = True
        elif value.get("choices"):
            self._started = True

    def _choice(self, index: int) -> OpenChoice:
        choice = self._choices.get(index)
        if choice is None:
            choice = self._choices[index] = OpenChoice(
                self.parts,
                index,
                think_tags="think_tags" in self.quirks,
                call_in_text=READING in self.quirks,
            )
            if index:
                self.terminal_seen = False
        return choice

    def _one(self, value: dict[str, Any], position: int) -> None:
        index = number(value.get("index"))
        choice = self._choice(position if index is None else index)
        choice.seen = True
        delta = value.get("delta")
        self._delta(choice, obj(delta if isinstance(delta, dict) else value.get("message")))
        self._count(value.get("usage"))
        self._logprobs(choice, obj(value.get("logprobs")))
        self._content_filter(choice, value.get("content_filter_results"))
        reason = value.get("finish_reason")
        if isinstance(reason, str) and reason:
            self._finished(choice, reason, value)

    def _delta(self, choice: OpenChoice, delta: dict[str, Any]) -> None:
        details = [d for d in items(delta.get("reasoning_details")) if isinstance(d, dict)]
        thought = text_of(delta.get("reasoning_content")) or text_of(delta.get("reasoning"))
        if not thought:
            thought = "".join(text_of(d.get("text") or d.get("summary")) for d in details)
        if thought:
            choice.think(thought)
        for detail in details:
            choice.detail(detail)
        content = delta.get("content")
        if isinstance(content, str):
            choice.said(content)
        else:
            for block in items(content):
                self._block(choice, block)
        refusal = text_of(delta.get("refusal"))
        if refusal:
            choice.refuse(refusal)
        for call in items(delta.get("tool_calls")):
            if isinstance(call, dict):
                self._call(choice, call)
        if delta.get("function_call"):
            self._call(choice, {"index": -1, "function": delta["function_call"]})
        for annotation in items(delta.get("annotations")):
            source = obj(obj(annotation).get("url_citation")) or obj(annotation)
            choice.cite(citation_of(annotation, source))
        for image in items(delta.get("images")):
            choice.show(obj(image))
        if delta.get("audio"):
            choice.sound(obj(delta["audio"]))
        if delta.get("provider_metadata"):
            self.raw("provider_metadata", delta["provider_metadata"])

    def _block(self, choice: OpenChoice, block: Any) -> None:
        """One element of a content that comes as a list."""
        if isinstance(block, str):
            choice.say(block)
            return
        value = obj(block)
        kind = value.get("type")
        if kind == "thinking":
            inner = value.get("thinking")
            text = inner if isinstance(inner, str) else ""
            text += "".join(text_of(obj(t).get("text")) for t in items(inner))
            if text:
                choice.think(text)
            if value.get("signature") and choice.reasoning is not None:
                choice.reasoning.attr("signature", value["signature"])
        elif kind in ("image_url", "image"):
            choice.show(value)
        elif isinstance(value.get("text"), str):
            if value["text"]:
                choice.say(value["text"])
        elif kind == "reference" and choice.text is not None:
            choice.cite(citation(value, source=dump(value.get("reference_ids"))))
        elif value:
            self.raw("content", value)

    def _call(self, choice: OpenChoice, call: dict[str, Any]) -> None:
        if choice.reasoning is not None:
            choice.end_reasoning()
        custom = obj(call.get("custom"))
        function = custom or obj(call.get("function"))
        arguments = function.get("input") if custom else function.get("arguments")
        as_object = arguments is not None and not isinstance(arguments, str)
        slot = choice.slots.piece(
            number(call.get("index")),
            text_of(call.get("id")),
            text_of(function.get("name")),
            dump(arguments) if as_object else arguments,
            form="text" if custom else "json",
            meta={"arguments": "object"} if as_object else None,
        )
        signature = obj(obj(call.get("extra_content")).get("google")).get("thought_signature")
        if signature:
            slot.part.attr("signature", signature)

    def _logprobs(self, choice: OpenChoice, logprobs: dict[str, Any]) -> None:
        for name, part in (("content", choice.text), ("refusal", choice.refusal)):
            if items(logprobs.get(name)) and part is not None:
                part.attr("logprobs", logprobs[name])

    def _content_filter(self, choice: OpenChoice, results: Any) -> None:
        if not results or self._filters.get(choice.index) == results:
            return
        self._filters[choice.index] = results
        if choice.text is not None:
            choice.text.attr("meta", {"content_filter_results": results})
        else:
            self.raw("content_filter_results", results)

    def _cite_sources(self, value: dict[str, Any]) -> None:
        """Emit each source once; search servers repeat them in every chunk."""
        for source in items(value.get("search_results")) or items(value.get("citations")):
            fields = {"url": source} if isinstance(source, str) else obj(source)
            key = text_of(fields.get("url")) or dump(fields)
            if key not in self._cited:
                self._cited.add(key)
                self._first.cite(citation_of(source, fields))

    def _finished(self, choice: OpenChoice, raw: str, value: dict[str, Any]) -> None:
        reason = FINISH_REASONS.get(raw.lower(), "other")
        if reason == "stop" and choice.slots.all:
            reason = "tool_calls"
        elif reason == "stop" and choice.refusal is not None:
            reason = "refusal"
        native = value.get("native_finish_reason")
        details = {"native": native} if native and native != raw else None
        self.finish_reason(reason, raw, details=details, choice=choice.index)
        choice.finished = True
        self.terminal_seen = all(c.finished for c in self._choices.values() if c.seen)

    def _count(self, value: Any) -> None:
        usage = usage_of(value)
        if usage is not None and usage != self._usage:
            self._usage = usage
            self.parts.out.append(usage)

    def _end_parts(self) -> None:
        """Ends in good order. Arguments that the length limit cut are truncated, not wrong."""
        for choice in self._choices.values():
            choice.end()
            for slot in choice.slots.all:
                part = slot.part
                if not slot.name:
                    part.end("invalid", error="the call has no name")
                elif part.open and self.parts.finish_reasons.get(choice.index) in CUT_SHORT:
                    _, error = parse_arguments(part.text) if part.format == "json" else (None, "")
                    part.end("complete" if error is None else "truncated")
                else:
                    part.end()
        for part in list(self.parts.open_parts.values()):
            part.end()


class OpenAIChat:
    """The dialect ``openai-chat``."""

    name = "openai-chat"

    def build(self, request: Request, target: Target) -> Call:
        """The HTTP request that sends ``request`` and streams the answer."""
        return build(request, target)

    def decoder(
        self,
        *,
        step: int = 1,
        first_part: int = 0,
        quirks: frozenset[str] = frozenset(),
        content_type: str | None = None,
    ) -> ChatDecoder:
        """A new decoder."""
        return ChatDecoder(
            step=step, first_part=first_part, quirks=quirks, content_type=content_type
        )

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        """The typed error of a non-2xx answer."""
        return from_response(status, headers, body)

    def resume(self, response_id: str, after: Cursor | None, target: Target) -> Call | None:
        """This wire keeps no response."""
        return None


DIALECT = OpenAIChat()
