"""Messages in the JSON form of the conventions for generative AI, for those who ask for them.

Always true: no registered secret, nothing that looks like a key, no bytes of a file and no query of
a URL is in it; what it makes is of bounded size, and says when something was left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, cast

import msgspec

from tokenwire.events.fold import Fold
from tokenwire.events.message import (
    FilePart,
    Message,
    Part,
    ProviderResultPart,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from tokenwire.events.request import Request
from tokenwire.observe.redact import redact

__all__ = ["FINISH_REASONS", "MODES", "Content", "encoded", "messages_of_answer", "value_of"]

#: The values of ``OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT``: (on spans, on events).
MODES: Final[dict[str, tuple[bool, bool]]] = {
    "NO_CONTENT": (False, False),
    "SPAN_ONLY": (True, False),
    "EVENT_ONLY": (False, True),
    "SPAN_AND_EVENT": (True, True),
}
#: Ours in the conventions' words, where they have another one.
FINISH_REASONS: Final = {"tool_calls": "tool_call"}
#: Characters of one text, and of all texts of one attribute.
MOST_TEXT, MOST_TOTAL = 8_000, 64_000
_MOST_ITEMS, _DEEPEST = 200, 12
_SECRET_ENDS = ("authorization", "password", "passwd", "secret", "key", "token", "cookie")
_SYSTEM = ("system", "developer")


class Content(msgspec.Struct, kw_only=True):
    """Of one answer: ``is_cut`` when something was left out, the oldest messages first."""

    system: list[dict[str, Any]]
    input: list[dict[str, Any]]
    output: list[dict[str, Any]]
    is_cut: bool


class _Cutter:
    """Cleans values and counts what it lets through."""

    def __init__(self) -> None:
        self.room = MOST_TOTAL
        self.is_cut = False

    def text(self, text: str) -> str:
        most = min(MOST_TEXT, max(self.room, 0))
        if len(text) > most:
            self.is_cut = True
        cleaned = redact(text, most=most) if most else ""
        self.room -= len(cleaned)
        return cleaned

    def value(self, value: Any, depth: int = 0) -> Any:
        """A JSON value, as far as it is one."""
        if isinstance(value, str):
            return self.text(value)
        if value is None or isinstance(value, bool | int | float):
            self.room -= 8
            return value
        if depth >= _DEEPEST or self.room <= 0:
            self.is_cut = True
            return None
        if isinstance(value, Mapping):
            items = list(cast(Mapping[Any, Any], value).items())
            self.is_cut = self.is_cut or len(items) > _MOST_ITEMS
            return {
                self.text(str(name)): self._item(str(name), item, depth + 1)
                for name, item in items[:_MOST_ITEMS]
            }
        if isinstance(value, Iterable):
            members = list(cast(Iterable[Any], value))
            self.is_cut = self.is_cut or len(members) > _MOST_ITEMS
            return [self.value(item, depth + 1) for item in members[:_MOST_ITEMS]]
        return self.text(str(value))

    def _item(self, name: str, item: Any, depth: int) -> Any:
        is_secret = isinstance(item, str) and name.lower().endswith(_SECRET_ENDS)
        return "[redacted]" if is_secret else self.value(item, depth)

    def part(self, part: Part) -> dict[str, Any] | None:
        """A part in the conventions' form; None for what has none."""
        if isinstance(part, TextPart | RefusalPart):
            return {"type": "text", "content": self.text(part.text)}
        if isinstance(part, ReasoningPart):
            return {"type": "reasoning", "content": self.text(part.text)} if part.text else None
        if isinstance(part, ToolCallPart):
            arguments = self.value(_parsed(part.arguments))
            kind = "server_tool_call" if part.executor == "provider" else "tool_call"
            named = {"type": kind, "id": part.call_id, "name": part.name}
            if kind == "tool_call":
                return {**named, "arguments": arguments}
            return {**named, "server_tool_call": {"type": part.name, "arguments": arguments}}
        if isinstance(part, ToolResultPart):
            response = self.value(part.content)
            return {"type": "tool_call_response", "id": part.call_id, "response": response}
        if isinstance(part, ProviderResultPart):
            response = {"type": part.name, "content": self.value(part.content)}
            named = {"type": "server_tool_call_response", "id": part.call_id, "name": part.name}
            return {**named, "server_tool_call_response": response}
        if isinstance(part, FilePart):
            return self._file(part)
        return None

    def _file(self, part: FilePart) -> dict[str, Any]:
        kind = part.media_type.partition("/")[0]
        modality = kind if kind in ("image", "video", "audio") else "document"
        about = {"mime_type": part.media_type, "modality": modality}
        if part.url is not None and not part.url.startswith("data:"):
            return {"type": "uri", **about, "uri": self.text(part.url.partition("?")[0])}
        self.is_cut = True  # its bytes
        return {"type": "blob", **about, "content": ""}

    def message(self, message: Message) -> dict[str, Any]:
        parts = [self.part(part) for part in message.parts]
        return {"role": message.role, "parts": [part for part in parts if part is not None]}


def messages_of_answer(request: Request, state: Fold) -> Content:
    """What was asked and what came of it: the newest messages where not all have room."""
    instructions, asked, answer = _Cutter(), _Cutter(), _Cutter()
    system: list[dict[str, Any]] = []
    if request.system:
        system.append({"type": "text", "content": instructions.text(request.system)})
    messages: list[dict[str, Any]] = []
    for message in reversed(request.messages):
        if asked.room <= 0 or len(messages) >= _MOST_ITEMS:
            asked.is_cut = True
            break
        messages.append(asked.message(message))
    messages.reverse()
    for message in [m for m in messages if m["role"] in _SYSTEM]:
        system += message["parts"]
    output = answer.message(state.message())
    # Deprecated in the newest conventions, and required by readers of the earlier ones.
    reason = state.finish_reason or state.status
    output["finish_reason"] = FINISH_REASONS.get(reason, reason)
    return Content(
        system=system,
        input=[m for m in messages if m["role"] not in _SYSTEM],
        output=[output],
        is_cut=instructions.is_cut or asked.is_cut or answer.is_cut,
    )


def value_of(value: Any) -> tuple[Any, bool]:
    """A tool's arguments or result, cleaned, and whether something was left out."""
    cutter = _Cutter()
    return cutter.value(value), cutter.is_cut


def encoded(value: Any) -> str:
    """As the text of an attribute."""
    return msgspec.json.encode(value).decode()


def _parsed(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return text
