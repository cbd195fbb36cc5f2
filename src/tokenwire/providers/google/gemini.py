"""Gemini generateContent: its stream to events (AI Studio and Vertex; SSE, JSON array, lines).

Always true: neighbouring pieces of one kind are one part, but a thought signature ends its part, so
that signed and unsigned text never mix; a ``finishReason`` or a block of the prompt is the end
marker; usage is told once, with its last numbers.
"""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec

from tokenwire.events.model import (
    FileStart,
    FinishReason,
    OpaqueStart,
    PartDelta,
    PartStart,
    ProviderResultStart,
    ReasoningStart,
    ResponseStart,
    TextStart,
    ToolCallStart,
    Usage,
)
from tokenwire.framing.sse import Frame
from tokenwire.providers.decoding.counts import joined
from tokenwire.providers.decoding.decoder import PayloadDecoder
from tokenwire.providers.decoding.faults import sure_fault_in
from tokenwire.providers.decoding.parts import OpenPart
from tokenwire.providers.decoding.reasons import reason_of, word_of
from tokenwire.providers.decoding.values import (
    arguments_in,
    dump,
    items,
    number,
    obj,
    split_tail,
    text_of,
    tokens_of,
)
from tokenwire.providers.dialect import PayloadDialect
from tokenwire.providers.google.citations import cited, grounded
from tokenwire.providers.google.gemini_request import build
from tokenwire.providers.google.json_patches import PatchedObject
from tokenwire.providers.summary import OBJECT_ARGUMENTS

__all__ = ["DIALECT", "GeminiDecoder"]

_FINISH: dict[str, FinishReason] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
    "IMAGE_SAFETY": "content_filter",
    "IMAGE_PROHIBITED_CONTENT": "content_filter",
    "IMAGE_RECITATION": "content_filter",
    "MODEL_ARMOR": "content_filter",
    "LANGUAGE": "content_filter",
    "MODEL_ARMOR_BLOCKED": "content_filter",
    "MALFORMED_FUNCTION_CALL": "malformed_tool_call",
    "UNEXPECTED_TOOL_CALL": "malformed_tool_call",
    "TOO_MANY_TOOL_CALLS": "malformed_tool_call",
}
#: The only word of success; any other that nobody has listed is a failure.
_SUCCESS = "STOP"
#: Vertex numbers them when asked for integer enums.
_NUMBERED = (
    "FINISH_REASON_UNSPECIFIED",
    *("STOP", "MAX_TOKENS", "SAFETY", "RECITATION", "OTHER", "BLOCKLIST"),
    *("PROHIBITED_CONTENT", "SPII", "MALFORMED_FUNCTION_CALL"),
)
_VALUES = ("stringValue", "numberValue", "boolValue")
_SEEN = frozenset(
    {"content", "finishReason", "index", "safetyRatings", "finishMessage", "groundingMetadata"}
    | {"citationMetadata", "logprobsResult"}
)


_TEXT_FIELDS = frozenset(
    {"text", "thought", "thoughtSignature", "thought_signature", "partMetadata"}
)


class _Shape(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    pass


class _PlainPart(_Shape):
    text: str
    thought: bool = False


class _PlainContent(_Shape):
    parts: tuple[_PlainPart]
    role: str | None = None


class _PlainCandidate(_Shape):
    content: _PlainContent
    index: int = 0


class _PlainPayload(_Shape):
    """A payload that adds to one text and holds nothing else but counts."""

    candidates: tuple[_PlainCandidate]
    usageMetadata: dict[str, Any] | None = None  # noqa: N815
    modelVersion: str | None = None  # noqa: N815
    responseId: str | None = None  # noqa: N815
    createTime: str | None = None  # noqa: N815


_decode_plain = msgspec.json.Decoder(_PlainPayload).decode


class _Candidate:
    """What is open of one candidate."""

    def __init__(self) -> None:
        self.part: OpenPart | None = None
        self.sealed = False  # its signature came; the next piece is another part
        self.call: OpenPart | None = None
        #: The call said that more of it follows.
        self.goes_on = False
        self.patches = PatchedObject()
        self.problem: str | None = None
        #: Halves of characters at the end of patched texts, by their path.
        self.tails: dict[str, str] = {}
        self.code_id = ""
        self.called = False
        self.details: dict[str, Any] = {}


class GeminiDecoder(PayloadDecoder):
    """One response of streamGenerateContent."""

    dialect: ClassVar[str] = "gemini"
    passing: ClassVar[frozenset[bytes]] = frozenset({b"createTime"})
    #: Each report of them replaces the one before.
    counting: ClassVar[frozenset[bytes]] = frozenset(
        {b"promptTokenCount", b"candidatesTokenCount", b"totalTokenCount", b"thoughtsTokenCount"}
        | {b"cachedContentTokenCount", b"toolUsePromptTokenCount"}
    )

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._candidates: dict[int, _Candidate] = {}
        self._usage: dict[str, Any] = {}
        self._last_usage: dict[str, Any] = {}
        self._id: str | None = None
        self._model: str | None = None

    def plain_frame(self, frame: Frame) -> PartDelta | None:
        """The delta of an open text or thought, of a payload that says who answers no sooner than
        another did."""
        try:
            value = _decode_plain(frame.data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        entry = value.candidates[0]
        candidate, piece = self._candidates.get(entry.index), entry.content.parts[0]
        part = candidate.part if candidate is not None else None
        if candidate is None or part is None or candidate.sealed or not piece.text:
            return None
        if (value.responseId and self._id is None) or (value.modelVersion and self._model is None):
            return None
        kind = ReasoningStart if piece.thought else TextStart
        return part.plain(piece.text) if type(part.start) is kind else None

    def payload(self, value: dict[str, Any], event: str) -> None:
        fault = sure_fault_in(value)
        if fault is not None:
            self.fail_with(fault, raw=value)
            return
        entries = value.get("candidates")
        feedback, usage = obj(value.get("promptFeedback")), value.get("usageMetadata")
        if entries is None and not feedback and not isinstance(usage, dict):
            self.unknown(event, value)
            return
        self._identify(value)
        for entry in [entries] if isinstance(entries, dict) else items(entries):
            self._candidate(obj(entry))
        if isinstance(usage, dict):
            self._usage = joined(self._usage, usage) or {}
            self._last_usage = usage
        if feedback:
            self._feedback(feedback)

    def ended(self) -> None:
        for candidate in self._candidates.values():
            if self.terminal_seen and not self.failed:
                self._close(candidate)
            if candidate.details:
                self.raw("candidate", candidate.details)
        if self._usage:
            self._count(self._usage)

    # --- candidates ----------------------------------------------------------------------------

    def _candidate(self, value: dict[str, Any]) -> None:
        choice = number(value.get("index")) or 0
        candidate = self._candidates.setdefault(choice, _Candidate())
        content = value.get("content")
        parts = obj(content).get("parts") if isinstance(content, dict) else content
        for part in items(parts) if isinstance(parts, list) else [parts]:
            if isinstance(part, str):
                self._part(candidate, {"text": part}, choice)
            elif isinstance(part, dict):
                self._part(candidate, part, choice)
        self._decorate(candidate, value)
        finish = value.get("finishReason")
        if isinstance(finish, int) and not isinstance(finish, bool):
            word = _NUMBERED[finish] if 0 <= finish < len(_NUMBERED) else "OTHER"
            raw = str(finish)
            candidate.details["finishReason"] = finish
        else:
            word = raw = word_of(finish) or ""
        if not word or word == "FINISH_REASON_UNSPECIFIED":
            return
        details, candidate.details = candidate.details, {}
        reason = _reason(word)
        if reason == "stop" and candidate.called:  # this wire says STOP for calls too
            reason = "tool_calls"
        self.finish_reason(
            reason,
            raw,
            message=text_of(value.get("finishMessage")) or None,
            details=details or None,
            choice=choice,
        )
        self.terminal_seen = True

    def _part(self, candidate: _Candidate, part: dict[str, Any], choice: int) -> None:
        signature = text_of(part.get("thoughtSignature") or part.get("thought_signature"))
        text = part.get("text")
        if isinstance(text, str):
            self._text(candidate, part, text, signature, choice)
            if len(part) > 1 and not _TEXT_FIELDS.issuperset(part):
                self.keep_extras(part, _TEXT_FIELDS)
        elif isinstance(part.get("functionCall"), dict):
            candidate.called = True
            self._function_call(candidate, part["functionCall"], signature, choice)
        else:
            self._close(candidate)
            other = self._other(candidate, part, choice)
            if signature:
                other.attr("signature", signature)
                if isinstance(other.start, FileStart | ProviderResultStart):
                    # Messages keep no signature of these; `meta` carries it back.
                    other.attr("meta", {**(other.meta or {}), "thoughtSignature": signature})
            other.end()

    def _text(
        self, candidate: _Candidate, part: dict[str, Any], text: str, signature: str, choice: int
    ) -> None:
        kind: type[PartStart] = ReasoningStart if part.get("thought") else TextStart
        if not text and signature:
            self._close(candidate)
            rest = {k: v for k, v in part.items() if not k.startswith("thought")}
            if part.get("thought"):
                rest["thought"] = True
            proof = self.parts.open(
                OpaqueStart,
                choice=choice,
                name="thought_signature",
                payload=rest,
                meta={"type": "text"},
            )
            proof.attr("signature", signature)
            proof.end()
            return
        if not text:
            return
        current = candidate.part
        if current is None or candidate.sealed or type(current.start) is not kind:
            self._close(candidate)
            name = "thought" if kind is ReasoningStart else "text"
            current = self.parts.open(kind, choice=choice, meta={"type": name})
            candidate.part = current
        current.delta(text)
        if signature:
            current.attr("signature", signature)
            candidate.sealed = True

    def _other(self, candidate: _Candidate, part: dict[str, Any], choice: int) -> OpenPart:
        for name in ("inlineData", "fileData"):
            if isinstance(part.get(name), dict):
                return self._file(part[name], choice, name)
        for name in ("executableCode", "toolCall"):
            if isinstance(part.get(name), dict):
                inner = part[name]
                candidate.code_id = text_of(inner.get("id")) or self._synthetic()
                tool = self.parts.open(
                    ToolCallStart,
                    choice=choice,
                    name="code_execution" if name == "executableCode" else _tool_type(inner),
                    call_id=candidate.code_id,
                    id_source="provider" if inner.get("id") else "synthetic",
                    executor="provider",
                    meta={"type": name, name: inner},
                )
                arguments = inner if name == "executableCode" else obj(inner.get("args"))
                tool.delta(dump(arguments))
                return tool
        for name in ("codeExecutionResult", "toolResponse"):
            if isinstance(part.get(name), dict):
                inner = part[name]
                return self.parts.open(
                    ProviderResultStart,
                    choice=choice,
                    call_id=text_of(inner.get("id")) or candidate.code_id,
                    name="code_execution" if name[0] == "c" else _tool_type(inner),
                    content=inner,
                    meta={"type": name},
                )
        rest = {k: v for k, v in part.items() if k not in ("thoughtSignature", "thought_signature")}
        name = next((k for k in rest if k != "thought"), "signature")
        return self.parts.open(
            OpaqueStart, choice=choice, name=name, payload=rest, meta={"type": name}
        )

    def _file(self, content: dict[str, Any], choice: int, name: str) -> OpenPart:
        media_type = text_of(content.get("mimeType")) or "application/octet-stream"
        family = media_type.partition("/")[0]
        file = self.parts.open(
            FileStart,
            choice=choice,
            media=family if family in ("image", "audio") else "file",
            media_type=media_type,
            name=text_of(content.get("displayName")) or None,
            url=text_of(content.get("fileUri")) or None,
            meta={"type": name},
        )
        file.delta(text_of(content.get("data")))
        return file

    # --- calls ---------------------------------------------------------------------------------

    def _function_call(
        self, candidate: _Candidate, function: dict[str, Any], signature: str, choice: int
    ) -> None:
        name, more = text_of(function.get("name")), function.get("willContinue") is True
        if name or candidate.call is None:
            self._close(candidate)
            if not name and not function:
                return
            call_id = text_of(function.get("id"))
            meta = {"type": "functionCall", **OBJECT_ARGUMENTS}
            candidate.call = self.parts.open(
                ToolCallStart,
                choice=choice,
                name=name,
                call_id=call_id or self._synthetic(),
                id_source="provider" if call_id else "synthetic",
                meta=meta | ({"id": call_id} if call_id else {}),
            )
            candidate.patches, candidate.problem = PatchedObject(), None
        call = candidate.call
        if signature:
            call.attr("signature", signature)
        arguments = arguments_in(function)
        for patch in items(function.get("partialArgs")):
            self._patch(candidate, call, obj(patch))
        if arguments is not None:
            call.delta(arguments if isinstance(arguments, str) else dump(arguments))
        candidate.goes_on = more
        if not more:
            self._end_call(candidate)

    def _patch(self, candidate: _Candidate, call: OpenPart, patch: dict[str, Any]) -> None:
        path, more = text_of(patch.get("jsonPath")), patch.get("willContinue") is True
        value = next((patch[k] for k in _VALUES if k in patch), None)
        if isinstance(value, str) and self.parts.loose:
            value, tail = split_tail(candidate.tails.pop(path, "") + value)
            candidate.tails[path] = tail
        call.patch(path, value, more=more)
        if candidate.problem is None:
            try:
                candidate.patches.set(path, value, more=more)
            except ValueError as error:
                candidate.problem = f"the arguments cannot be put together: {error}"

    def _end_call(self, candidate: _Candidate) -> None:
        call, candidate.call = candidate.call, None
        if call is None:
            return
        if candidate.problem is not None:
            call.end("invalid", arguments=None, error=candidate.problem)
        elif candidate.patches.count:
            value = candidate.patches.value()
            call.end(arguments=value, text=dump(value))
        elif candidate.goes_on and not call.size:
            call.end("truncated")  # what was to follow never came
        else:
            if not call.size:
                call.delta("{}")
            call.end()

    def _close(self, candidate: _Candidate) -> None:
        if candidate.part is not None:
            candidate.part.end()
            candidate.part, candidate.sealed = None, False
        self._end_call(candidate)

    def _synthetic(self) -> str:
        return f"call_{self.parts.step}_{self.parts.next_part}"

    # --- the rest ------------------------------------------------------------------------------

    def _decorate(self, candidate: _Candidate, value: dict[str, Any]) -> None:
        """Citations and log probabilities on the open text; everything else with the finish."""
        part = candidate.part
        grounding = obj(value.get("groundingMetadata"))
        sources = obj(value.get("citationMetadata"))
        citations = grounded(grounding) + cited(sources)
        if part is None or not isinstance(part.start, TextStart):
            if grounding:
                candidate.details["groundingMetadata"] = grounding
            if sources:
                candidate.details["citationMetadata"] = sources
        else:
            for entry in citations:
                part.attr("citation", entry)
            if grounding:
                candidate.details["groundingMetadata"] = grounding
        logprobs = obj(value.get("logprobsResult"))
        if logprobs:
            if part is not None:
                part.attr("logprobs", [logprobs])
            else:
                candidate.details["logprobsResult"] = logprobs
        for name, detail in value.items():
            if (name not in _SEEN or name == "safetyRatings") and detail is not None:
                candidate.details[name] = detail

    def _feedback(self, feedback: dict[str, Any]) -> None:
        blocked = feedback.get("blockReason")
        if not blocked or blocked == "BLOCK_REASON_UNSPECIFIED":
            self.raw("promptFeedback", feedback)
            return
        self.finish_reason(
            "content_filter",
            str(blocked),
            message=text_of(feedback.get("blockReasonMessage")) or None,
            details={"promptFeedback": feedback},
        )
        self.terminal_seen = True

    def _identify(self, value: dict[str, Any]) -> None:
        response_id = text_of(value.get("responseId")) or None
        model = text_of(value.get("modelVersion")) or None
        if (response_id and self._id is None) or (model and self._model is None):
            self._id, self._model = self._id or response_id, self._model or model
            self.parts.out.append(ResponseStart(id=self._id, model=self._model))

    def _count(self, raw: dict[str, Any]) -> None:
        answer, thoughts = (
            tokens_of(raw.get("candidatesTokenCount")),
            tokens_of(raw.get("thoughtsTokenCount")),
        )
        counted = [n for n in (answer, thoughts) if n is not None]
        self.count(
            Usage(
                input_tokens=tokens_of(raw.get("promptTokenCount")),
                output_tokens=sum(counted) if counted else None,
                total_tokens=tokens_of(raw.get("totalTokenCount")),
                cached_input_tokens=tokens_of(raw.get("cachedContentTokenCount")),
                reasoning_tokens=thoughts,
                raw=self._last_usage,
            )
        )


def _reason(word: str) -> FinishReason:
    reason = reason_of(word, _FINISH)
    return "error" if reason in ("other", "stop") and word.upper() != _SUCCESS else reason


def _tool_type(tool: dict[str, Any]) -> str:
    return text_of(tool.get("toolType")).lower() or "tool"


#: ``streamGenerateContent`` of AI Studio, or of Vertex (quirk ``vertex``).
DIALECT = PayloadDialect("gemini", build, GeminiDecoder)
