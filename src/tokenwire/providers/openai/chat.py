"""OpenAI Chat Completions, and all servers that are compatible with it: bytes to events.

Always true: an ordinary chunk takes one typed decode; whatever does not fit it goes the general
way and gives the same events; null means absent; what the parts say wins over the finish reason;
the stream is over at ``[DONE]``, or at its end when every choice has its finish reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import msgspec

from tokenwire.errors import ProviderError
from tokenwire.events.model import (
    PartDelta,
    ReasoningDelta,
    ResponseStart,
    TextDelta,
    ToolCallDelta,
    Usage,
)
from tokenwire.events.request import Request
from tokenwire.framing.sse import Frame
from tokenwire.providers.base import Call, Cursor, Target
from tokenwire.providers.decoding.counts import merged
from tokenwire.providers.decoding.decoder import PayloadDecoder
from tokenwire.providers.decoding.faults import coded_fault_in, fault_in, sure_fault_in
from tokenwire.providers.decoding.life import says_life
from tokenwire.providers.decoding.reasons import reason_of, word_of
from tokenwire.providers.decoding.values import (
    arguments_in,
    arguments_text,
    citation,
    dump,
    index_of,
    items,
    obj,
    rest_of,
    text_of,
    texts_of,
)
from tokenwire.providers.failures import error_event, from_object, from_response
from tokenwire.providers.openai.chat_choice import OpenChoice, open_choice
from tokenwire.providers.openai.chat_chunk import (
    FINISH_REASONS,
    KNOWN_FIELDS,
    REASONING_FIELDS,
    Delta,
    citation_of,
    decode_chunk,
    usage_beside,
    usage_of,
)
from tokenwire.providers.openai.chat_plain import COUNTS, plain_chunk
from tokenwire.providers.openai.chat_request import build

__all__ = ["DIALECT", "ChatDecoder", "OpenAIChat"]

#: After this many chunks in a row that were not ordinary, the typed decode is no longer tried.
_MOST_MISSES = 16
#: Fields of a whole message that deltas never repeat.
_OWN_FIELDS = frozenset({"annotations", "images", "audio"})
_THINKING_BLOCKS = ("thinking", "reasoning", "reasoning_text", "summary_text")
_TOP_LEVEL_EXTRAS = ("prompt_filter_results", "moderation", "timings", "copilot_usage")


class ChatDecoder(PayloadDecoder):
    """One response of this wire; see `tokenwire.providers.base.Decoder`."""

    dialect = "openai-chat"
    passing: ClassVar[frozenset[bytes]] = frozenset({b"created", b"obfuscation", b"p"})
    counting: ClassVar[frozenset[bytes]] = COUNTS

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._first = open_choice(self.parts, 0, self.quirks)
        self._others: dict[int, OpenChoice] | None = None
        self._cumulative = "cumulative_deltas" in self.quirks
        self._misses = _MOST_MISSES if self._cumulative else 0
        self._started = False
        #: Counts that a server repeats with every chunk; the last ones count.
        self._latest_usage: Usage | None = None
        self._cited: set[str] | None = None
        self._filters: dict[int, Any] | None = None

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
            part.pieces.append(content)  # type: ignore[union-attr]
            return True
        if thought:
            part = choice.reasoning
            if part is None or calls:
                return False
            self.parts.out.append(ReasoningDelta(part=part.number, text=thought))
            part.pieces.append(thought)  # type: ignore[union-attr]
            return True
        if calls:
            call = calls[0]
            slot = choice.slots.known(call.index)
            piece = call.function.arguments
            if slot is None or call.function.name or (piece and piece[0] == "{"):
                return False
            if piece:
                part = slot.part
                self.parts.out.append(ToolCallDelta(part=part.number, text=piece))
                part.size += len(piece) if piece.isascii() else len(piece.encode())
                part.pieces.append(piece)  # type: ignore[union-attr]
            return True
        return False

    def plain_frame(self, frame: Frame) -> PartDelta | None:
        """The delta of a chunk that adds to one text, as `_ordinary` or `payload` gives it."""
        choice = self._first
        if not self._started or self._cumulative or choice.tags is not None:
            return None
        try:
            if self._misses < _MOST_MISSES:
                return choice.plain(decode_chunk(frame.data).choices[0].delta)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            pass
        return plain_chunk(frame.data, choice, self._filters and self._filters.get(0))

    # --- the general way -----------------------------------------------------------------------

    def payload(self, value: dict[str, Any], event: str) -> None:
        """One chunk, or a whole completion, of any shape that servers send."""
        if self.parts.loose:
            self._misses = _MOST_MISSES  # half a character waits for its other half
        if "choices" not in value:
            inner = next(
                (i for k in ("result", "data") if "choices" in (i := obj(value.get(k)))), None
            )
            value = value if inner is None else inner  # a gateway's envelope
        choices = items(value.get("choices"))
        fault = sure_fault_in(value) or self._other_fault(value)
        is_known = "choices" in value or bool(value.get("usage")) or event == "error"
        if fault is None and not is_known:
            self.unknown(event, value)
            return
        if not self._started:
            self._start(value)
        for name in _TOP_LEVEL_EXTRAS:
            if value.get(name):
                self.raw(name, value[name])
        self._cite_sources(value)
        self._counted(value.get("usage") or usage_beside(value))
        for position, choice in enumerate(choices):
            if isinstance(choice, dict):
                self._one(choice, position)
                fault = fault or _error_of(choice)
        if self.terminal_seen or not choices:
            self.count(self._latest_usage)
        if fault is not None or (event == "error" and not choices):
            self.fail(error_event(from_object(fault or value), raw=value.get("error") or value))

    def _other_fault(self, value: dict[str, Any]) -> Any:
        """An error where this wire's own relatives put it."""
        groq = obj(value.get("x_groq")).get("error")
        if groq:
            return {"error": groq if isinstance(groq, dict) else {"message": groq}}
        if not value.get("choices") and coded_fault_in(value) is not None:
            return value
        if value.get("choices") or value.get("usage") or says_life(None, value):
            return None
        return fault_in(value)

    def done(self) -> None:
        """``[DONE]``: nothing follows."""
        self.terminal_seen = self.closed = True
        self._end_parts()

    def ended(self) -> None:
        """The end of the bytes: good when every choice has finished."""
        self.count(self._latest_usage)
        if self.terminal_seen and not self.failed:
            self._end_parts()

    def _start(self, value: dict[str, Any]) -> None:
        response_id, model = text_of(value.get("id")), text_of(value.get("model"))
        if response_id or model:
            self.parts.out.append(ResponseStart(id=response_id or None, model=model or None))
            self._started = True
        elif value.get("choices"):
            self._started = True

    def _choice(self, index: int) -> OpenChoice:
        if index == 0:
            return self._first
        self._others = self._others or {}
        choice = self._others.get(index)
        if choice is None:
            choice = self._others[index] = open_choice(self.parts, index, self.quirks)
            self.terminal_seen = False
        return choice

    def _choices(self) -> list[OpenChoice]:
        return [self._first, *(self._others or {}).values()]

    def _one(self, value: dict[str, Any], position: int) -> None:
        index = index_of(value.get("index"))
        choice = self._choice(position if index is None else index)
        choice.seen = True
        delta, message = obj(value.get("delta")), obj(value.get("message"))
        if delta:
            choice.has_deltas = choice.has_deltas or any(v for k, v in delta.items() if k != "role")
            self._delta(choice, delta)
        if message and (not delta or value.get("finish_reason")):
            if choice.has_deltas:
                self._repeated(choice, message)
            else:
                self._delta(choice, message)
        elif not delta and text_of(value.get("text")):
            choice.has_deltas = True
            self._delta(choice, {"content": value["text"]})  # the legacy wire's chunk
        self._counted(value.get("usage"))
        self._logprobs(choice, obj(value.get("logprobs")))
        self._content_filter(choice, value.get("content_filter_results"))
        reason = word_of(value.get("finish_reason"))
        if reason is not None:
            self._finished(choice, reason, value)

    def _repeated(self, choice: OpenChoice, message: dict[str, Any]) -> None:
        """The whole message after its deltas: only what they left out is new."""
        self._delta(choice, self._missing(choice, message))
        for position, call in enumerate(map(obj, items(message.get("tool_calls")))):
            function = obj(call.get("function"))
            arguments = arguments_text(function) or None
            call_id, name = text_of(call.get("id")), text_of(function.get("name"))
            if choice.slots.whole(position, call_id, name, arguments) is None:
                self._call(choice, call)

    def _missing(self, choice: OpenChoice, message: dict[str, Any]) -> dict[str, Any]:
        """What a whole message adds to its deltas; one that contradicts them is kept as it is."""
        rest = {k: v for k, v in message.items() if k in _OWN_FIELDS}
        name = next((k for k in REASONING_FIELDS if message.get(k)), "reasoning_content")
        refusal = choice.refusal.text if choice.refusal is not None else ""
        texts = (
            ("content", "".join(map("".join, choice.spoken or ()))),
            (name, "".join(map("".join, choice.thoughts or ()))),
            ("refusal", refusal),
        )
        for field, before in texts:
            value = message.get(field)
            if not before or not value:
                rest[field] = value
            elif choice.tags is not None or choice.call is not None:
                continue  # what was shown is not what was sent
            elif (piece := rest_of(before, _words_in(value))) is None:
                self.raw("message", {field: value})
            else:
                rest[field] = piece
        return rest

    def _thought(self, choice: OpenChoice, delta: dict[str, Any]) -> None:
        """Reasoning, under whichever name a server sends it."""
        details = [d for d in items(delta.get("reasoning_details")) if isinstance(d, dict)]
        thought = ""
        for name in REASONING_FIELDS:
            value = delta.get(name)
            if value and not thought:
                thought = texts_of(value)
                if not thought and isinstance(value, dict | list):
                    self._unread(name, value)
                if self._cumulative:
                    thought = choice.new_text("reasoning", thought)
        if not thought:
            thought = "".join(text_of(d.get("text") or d.get("summary")) for d in details)
        if thought:
            choice.think(thought)
        for detail in details:
            choice.detail(detail)
        for block in items(delta.get("thinking_blocks")):
            signature = obj(block).get("signature")
            if signature:
                choice.think("").attr("signature", signature)
            if obj(block).get("type") == "redacted_thinking":
                self.raw("thinking_blocks", block)
        if not KNOWN_FIELDS.issuperset(delta):
            self.keep_extras(delta, KNOWN_FIELDS)

    def _unread(self, name: str, value: Any) -> None:
        """Something of the reasoning that cannot be shown; it is kept, unless it only signs."""
        if name != "thinking_blocks":
            self.raw(name, value)

    def _delta(self, choice: OpenChoice, delta: dict[str, Any]) -> None:
        self._thought(choice, delta)
        content = delta.get("content")
        if isinstance(content, int | float):
            content = dump(content)  # a server that writes an answer in JSON as a value of it
        if isinstance(content, str):
            choice.add_content(choice.new_text("content", content) if self._cumulative else content)
        else:
            for block in [content] if isinstance(content, dict) else items(content):
                self._block(choice, block)
        refusal = text_of(delta.get("refusal"))
        if refusal:
            choice.refuse(refusal)
        calls = delta.get("tool_calls")
        for call in [calls] if isinstance(calls, dict) else items(calls):
            if isinstance(call, dict):
                self._call(choice, call)
        if delta.get("function_call") and choice.slots.are_of(-1):  # else the same in both forms
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
            choice.add_content(block)
            return
        value = obj(block)
        kind = value.get("type")
        if kind in _THINKING_BLOCKS:
            text = texts_of(value)
            if text:
                choice.think(text)
            if value.get("signature") and choice.reasoning is not None:
                choice.reasoning.attr("signature", value["signature"])
        elif kind in ("image_url", "image"):
            choice.show(value)
        elif isinstance(value.get("text"), str):
            choice.add_content(value["text"])
        elif kind == "reference" and choice.text is not None:
            choice.cite(citation(value, source=dump(value.get("reference_ids"))))
        elif value:
            self.raw("content", value)

    def _call(self, choice: OpenChoice, call: dict[str, Any]) -> None:
        if choice.reasoning is not None:
            choice.end_reasoning()
        custom = obj(call.get("custom"))
        function = custom or obj(call.get("function")) or call
        arguments = arguments_in(function)
        as_object = arguments is not None and not isinstance(arguments, str)
        slot = choice.slots.piece(
            index_of(call.get("index")),
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
        if not results or (self._filters or {}).get(choice.index) == results:
            return
        self._filters = self._filters or {}
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
            cited = self._cited = set() if self._cited is None else self._cited
            if key not in cited:
                cited.add(key)
                self._first.cite(citation_of(source, fields))

    def _finished(self, choice: OpenChoice, raw: str, value: dict[str, Any]) -> None:
        reason = reason_of(raw, FINISH_REASONS)
        if reason == "stop" and choice.slots.all:
            reason = "tool_calls"
        elif reason == "stop" and choice.refusal is not None:
            reason = "refusal"
        native = value.get("native_finish_reason")
        details = {"native": native} if native and native != raw else None
        self.finish_reason(reason, raw, details=details, choice=choice.index)
        choice.finished = True
        self.terminal_seen = all(c.finished for c in self._choices() if c.seen)

    def _counted(self, value: Any) -> None:
        """Note the counts of this chunk; they are emitted once the answer is over."""
        usage = usage_of(value)
        if usage is not None:
            self._latest_usage = merged(self._latest_usage, usage)

    def _end_parts(self) -> None:
        """Ends in good order. Arguments that the length limit cut are truncated, not wrong."""
        for choice in self._choices():
            choice.end()
            word = self.parts.finish_word(choice.index) or ""
            is_cut = reason_of(word, FINISH_REASONS) in ("length", "context_overflow")
            doubt = choice.slots.claim()
            for slot in choice.slots.all:
                part = slot.part
                if not slot.name:
                    part.end("invalid", error="the call has no name")
                elif doubt and part.open and part.lacks_arguments:
                    part.end("invalid", error=doubt)
                elif part.open and is_cut and part.arguments is not None:
                    error = (
                        part.lacks_arguments
                        or part.format != "json"
                        or part.arguments.resolve(part.final)[1]
                    )
                    part.end("truncated" if error else "complete")
                else:
                    part.end()
        for part in list(self.parts.open_parts.values()):
            part.end()


def _words_in(content: Any) -> str:
    """The text of a whole content, without the thinking among its blocks."""
    if isinstance(content, str):
        return content
    blocks = [content] if isinstance(content, dict) else items(content)
    return "".join(texts_of(b) for b in blocks if obj(b).get("type") not in _THINKING_BLOCKS)


def _error_of(choice: dict[str, Any]) -> Any:
    """The error inside of a choice, wherever a server puts it."""
    for holder in (choice, obj(choice.get("delta")), obj(choice.get("message"))):
        if holder.get("error"):
            return holder["error"]
    return None


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
