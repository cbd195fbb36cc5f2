"""The legacy completions wire: a prompt in, text out (OpenAI, vLLM, llama.cpp).

Always true: each choice is one text part; a ``finish_reason`` or ``[DONE]`` is the end marker.
"""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec

from tokenwire.errors import InputError
from tokenwire.events.message import TextPart
from tokenwire.events.model import PartDelta, ResponseStart, TextStart, Usage
from tokenwire.events.request import Request
from tokenwire.framing.sse import Frame
from tokenwire.providers.base import Call, Target
from tokenwire.providers.decoding.counts import merged
from tokenwire.providers.decoding.decoder import PayloadDecoder
from tokenwire.providers.decoding.faults import sure_fault_in
from tokenwire.providers.decoding.parts import OpenPart
from tokenwire.providers.decoding.reasons import reason_of, word_of
from tokenwire.providers.decoding.values import items, number, obj, text_of, texts_of
from tokenwire.providers.dialect import PayloadDialect
from tokenwire.providers.openai.chat_chunk import usage_of

__all__ = ["DIALECT", "CompletionsDecoder"]


_FIELDS = frozenset(
    {"index", "text", "delta", "message", "logprobs", "finish_reason", "stop_reason", "error"}
    | {"matched_stop", "native_finish_reason", "token_ids", "prompt_text", "content_filter_results"}
)


class _PlainChoice(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    text: str
    index: int = 0
    logprobs: None = None
    finish_reason: None = None
    stop_reason: None = None
    matched_stop: None = None
    native_finish_reason: None = None


class _PlainChunk(msgspec.Struct, gc=False):
    """A chunk that adds to one choice and holds nothing else that counts."""

    choices: tuple[_PlainChoice]
    id: str | None = None
    usage: None = None
    error: None = None
    base_resp: None = None


_decode_plain = msgspec.json.Decoder(_PlainChunk).decode


class CompletionsDecoder(PayloadDecoder):
    """One response of ``/completions``."""

    dialect: ClassVar[str] = "completions"
    passing: ClassVar[frozenset[bytes]] = frozenset({b"created"})

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.parts.texts = []
        self._choices: dict[int, OpenPart] = {}
        self._id: str | None = None
        self._usage: Usage | None = None

    def plain_frame(self, frame: Frame) -> PartDelta | None:
        """The delta of an open choice."""
        try:
            value = _decode_plain(frame.data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        choice = value.choices[0]
        part = self._choices.get(choice.index)
        if part is None or not choice.text or (value.id and self._id is None):
            return None
        return part.plain(choice.text)

    def payload(self, value: dict[str, Any], event: str) -> None:
        fault = sure_fault_in(value)
        if fault is None and value.get("choices") is None and not value.get("usage"):
            self.unknown(event, value)
            return
        response_id = text_of(value.get("id"))
        if response_id and self._id is None:
            self._id = response_id
            self.parts.out.append(
                ResponseStart(id=response_id, model=text_of(value.get("model")) or None)
            )
        for entry in map(obj, items(value.get("choices"))):
            self._choice(entry)
            fault = fault or entry.get("error")
        self._usage = merged(self._usage, usage_of(value.get("usage")))
        if self.terminal_seen or not value.get("choices"):
            self.count(self._usage)
        if fault is not None:
            self.fail_with(fault, raw=value)

    def ended(self) -> None:
        """The end of the bytes."""
        self.count(self._usage)

    def done(self) -> None:
        self.terminal_seen = self.closed = True

    def _choice(self, entry: dict[str, Any]) -> None:
        index = number(entry.get("index")) or 0
        chat = obj(entry.get("delta")) or obj(entry.get("message"))
        text = text_of(entry.get("text")) or texts_of(chat.get("content"))
        if entry.get("message") and not entry.get("text") and not entry.get("delta") and not index:
            text = self.missing_text(text)
        part = self._choices.get(index)
        logprobs = entry.get("logprobs")
        if part is None and (text or logprobs):
            part = self._choices[index] = self.parts.open(TextStart, choice=index)
        if part is not None:
            part.delta(text)
            if logprobs:
                part.attr("logprobs", [logprobs])
        if not _FIELDS.issuperset(entry):
            self.keep_extras(entry, _FIELDS)
        raw = word_of(entry.get("finish_reason"))
        if raw is not None:
            details = {"stop_reason": entry["stop_reason"]} if entry.get("stop_reason") else None
            self.finish_reason(reason_of(raw), raw, details=details, choice=index)
            self.terminal_seen = True


def build(request: Request, target: Target) -> Call:
    """The HTTP request that sends ``request`` and streams the answer."""
    for name in ("tools", "output", "reasoning"):
        if getattr(request, name):
            raise InputError(f"the completions wire does not accept '{name}'; use a chat model")
    for message in request.messages:
        if any(not isinstance(p, TextPart) for p in message.parts):
            raise InputError("the completions wire accepts text only; use a chat model")
    texts = [request.system or "", *(m.text for m in request.messages)]
    body: dict[str, Any] = {
        "model": target.model,
        "prompt": "\n\n".join(t for t in texts if t),
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    for name, value in (
        ("temperature", request.temperature),
        ("top_p", request.top_p),
        ("max_tokens", request.max_tokens),
        ("stop", request.stop),
        ("seed", request.seed),
    ):
        if value is not None:
            body[name] = value
    body |= request.extra or {}
    headers = {"content-type": "application/json", "accept": "text/event-stream"}
    if target.api_key:
        headers["authorization"] = f"Bearer {target.api_key}"
    return Call(
        url=f"{target.base_url}/completions",
        headers=target.headers_over(headers),
        body=msgspec.json.encode(body),
    )


#: ``/completions``: text models only, no tools, files or structured output.
DIALECT = PayloadDialect("completions", build, CompletionsDecoder)
