"""What is open in one choice of a Chat Completions answer: its text, reasoning, calls and media.

Always true: text and reasoning take turns, each turn a part of its own; a part is opened by its
first piece; reasoning details are joined and emitted once, when their part ends.
"""

from __future__ import annotations

from typing import Any

from tokenwire.events.model import (
    FileStart,
    PartDelta,
    ReasoningDelta,
    ReasoningStart,
    RefusalStart,
    TextDelta,
    TextStart,
    ToolCallDelta,
)
from tokenwire.providers.decoding.parts import OpenPart, Parts
from tokenwire.providers.decoding.slots import Slots
from tokenwire.providers.decoding.values import obj, text_of
from tokenwire.providers.openai.chat_chunk import Delta
from tokenwire.providers.openai.schema_call import READING, CallText, Piece
from tokenwire.providers.openai.think_tags import Kind, ThinkSplitter

__all__ = ["OpenChoice", "open_choice"]


class OpenChoice:
    """One choice while it is written."""

    __slots__ = (
        "__weakref__",
        "_parts",
        "_slots",
        "audio",
        "call",
        "cumulative",
        "details",
        "finished",
        "has_deltas",
        "has_reasoning",
        "has_text",
        "index",
        "reasoning",
        "refusal",
        "seen",
        "spoken",
        "tags",
        "text",
        "thoughts",
        "to_cite",
    )

    def __init__(
        self, parts: Parts, index: int, tags: ThinkSplitter | None, *, call_in_text: bool = False
    ) -> None:
        self._parts = parts
        self.index = index
        self._slots: Slots | None = None
        self.tags = tags
        #: Reads the text as a tool call, where the request forced one by a schema.
        self.call = CallText() if call_in_text else None
        self.text: OpenPart | None = None
        self.reasoning: OpenPart | None = None
        self.refusal: OpenPart | None = None
        self.audio: OpenPart | None = None
        # Made when they are needed, which most answers do not.
        self.details: list[dict[str, Any]] | None = None
        #: Citations that came before the text that they decorate.
        self.to_cite: list[dict[str, Any]] | None = None
        self.finished = False
        self.seen = False
        #: A delta came: a whole ``message`` after it repeats what it says.
        self.has_deltas = self.has_text = self.has_reasoning = False
        #: The pieces of each text, and of each reasoning.
        self.spoken: list[list[str]] | None = None
        self.thoughts: list[list[str]] | None = None
        #: What each field has said, where each delta repeats the text so far.
        self.cumulative: dict[str, str] | None = None

    @property
    def slots(self) -> Slots:
        """The calls. What is said after one stands after it."""
        slots = self._slots
        if slots is None:
            slots = self._slots = Slots(self._parts, self.index, text=self)
        return slots

    def plain(self, delta: Delta) -> PartDelta | None:
        """The one event of an ordinary delta of an open part."""
        content, calls = delta.content, delta.tool_calls
        thought = delta.reasoning_content or delta.reasoning
        if content:
            part = None if thought or calls else self.text
            return None if part is None else TextDelta(part=part.number, text=content)
        if thought:
            part = None if calls else self.reasoning
            return None if part is None else ReasoningDelta(part=part.number, text=thought)
        slot = self.slots.known(calls[0].index) if calls else None
        if slot is None or not calls:
            return None
        function = calls[0].function
        piece = function.arguments
        if not piece or piece[0] == "{" or function.name:
            return None
        return ToolCallDelta(part=slot.part.number, text=piece)

    def say(self, piece: str) -> None:
        """A piece of text."""
        if self.call is not None:
            self._called(self.call.feed(piece))
        else:
            self._say(piece)

    def _say(self, piece: str) -> None:
        if self.text is None:
            self.end_reasoning()
            self.has_text = True
            self.text = self._parts.open(TextStart, choice=self.index)
            self.spoken = _with_text(self.spoken, self.text)
            citations, self.to_cite = self.to_cite, None
            for value in citations or ():
                self.text.attr("citation", value)
        self.text.delta(piece)

    def think(self, piece: str) -> OpenPart:
        """A piece of reasoning, or only its part when the piece is empty."""
        if self.reasoning is None:
            self.end_text()
            self.has_reasoning = True
            self.reasoning = self._parts.open(ReasoningStart, choice=self.index)
            self.thoughts = _with_text(self.thoughts, self.reasoning)
        self.reasoning.delta(piece)
        return self.reasoning

    def new_text(self, field: str, text: str) -> str:
        """What a field that repeats its text so far adds to it."""
        if self.cumulative is None:
            self.cumulative = {}
        before = self.cumulative.get(field, "")
        if before.startswith(text):
            return ""
        if not text.startswith(before):
            self.cumulative[field] = before + text
            return text
        self.cumulative[field] = text
        return text[len(before) :]

    def add_content(self, content: str) -> None:
        """Content, which may hold reasoning between tags where the server is such."""
        if self.tags is None:
            if content:
                self.say(content)
            return
        self._split(self.tags.feed(content))

    def refuse(self, piece: str) -> None:
        """A piece of a refusal."""
        if self.refusal is None:
            self.refusal = self._parts.open(RefusalStart, choice=self.index).keep()
        self.refusal.delta(piece)

    def end_text(self) -> None:
        """Text is over: something else has begun."""
        if self.text is not None:
            self.text.end()
            self.text = None

    def end_reasoning(self) -> None:
        """Reasoning is over: something else begins."""
        part, self.reasoning = self.reasoning, None
        if part is None:
            return
        if self.details:
            part.attr("meta", {"reasoning_details": self.details})
            self.details = None
        part.end()

    def end(self) -> None:
        """Nothing more will be said."""
        if self.tags is not None:
            self._split(self.tags.finish())
        if self.call is not None:
            self._called(self.call.finish())
            if self.call.problem is not None:
                status, why = self.call.problem
                self.slots.all[-1].part.end(status, error=why)
        self.end_reasoning()
        self.text = self.refusal = self.audio = None

    def cite(self, value: dict[str, Any]) -> None:
        """A citation of the text, or of the text to come."""
        if self.text is not None:
            self.text.attr("citation", value)
        else:
            self.to_cite = self.to_cite or []
            self.to_cite.append(value)

    def detail(self, detail: dict[str, Any]) -> None:
        """Keep a reasoning detail: whole for the way back, its proofs as attributes."""
        if not any(detail.get(k) for k in ("text", "summary", "data", "signature")):
            return
        part = self.think("")
        if detail.get("signature"):
            part.attr("signature", detail["signature"])
        if detail.get("type") == "reasoning.encrypted" and detail.get("data"):
            part.attr("encrypted", detail["data"])
        last = self.details[-1] if self.details else None
        same = last is not None and all(last.get(k) == detail.get(k) for k in ("type", "index"))
        if last is None or not same or detail.get("data") or last.get("signature"):
            self.details = self.details or []
            self.details.append(dict(detail))
            return
        for key, value in detail.items():
            if key in ("text", "summary") and isinstance(last.get(key), str):
                last[key] += text_of(value)
            elif value is not None:
                last[key] = value

    def show(self, image: dict[str, Any]) -> None:
        """An image that the model made, whole."""
        inner = image.get("image_url")
        url = inner if isinstance(inner, str) else text_of(obj(inner).get("url"))
        head, comma, data = url.partition(",")
        if url.startswith("data:") and comma:
            media_type = head[5:].partition(";")[0] or "image/png"
            self._parts.whole(
                FileStart, data, choice=self.index, media="image", media_type=media_type
            )
        elif url:
            self._parts.whole(
                FileStart, choice=self.index, media="image", media_type="image/*", url=url
            )

    def sound(self, audio: dict[str, Any]) -> None:
        """A piece of speech and of its transcript."""
        if self.audio is None:
            meta = {"id": audio["id"]} if audio.get("id") else None
            self.audio = self._parts.open(
                FileStart, choice=self.index, media="audio", media_type="audio/pcm", meta=meta
            )
        self.audio.delta(text_of(audio.get("data")))
        if text_of(audio.get("transcript")):
            self.say(audio["transcript"])

    def _called(self, pieces: list[Piece]) -> None:
        for kind, piece in pieces:
            if kind == "text":
                self._say(piece)
            elif kind == "name":
                self.end_reasoning()
                self.slots.piece(None, None, piece, None)
            else:
                self.slots.piece(None, None, None, piece)

    def _split(self, pieces: list[tuple[Kind, str]]) -> None:
        for kind, piece in pieces:
            if kind == "text":
                self.say(piece)
            else:
                self.think(piece)


def open_choice(parts: Parts, index: int, quirks: frozenset[str]) -> OpenChoice:
    """A choice of a server with these quirks."""
    begins_open = "think_open" in quirks
    has_tags = begins_open or "think_tags" in quirks
    tags = ThinkSplitter(begins_open=begins_open) if has_tags else None
    return OpenChoice(parts, index, tags, call_in_text=READING in quirks)


def _with_text(texts: list[list[str]] | None, part: OpenPart) -> list[list[str]]:
    """``texts`` and the pieces of ``part``, which are kept from now on."""
    texts = texts or []
    texts.append(part.keep().pieces or [])
    part.pieces = texts[-1]
    return texts
