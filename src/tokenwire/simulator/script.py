"""A simulated model's request, and the steps of its answer, as plain values.

Always true: nothing here does I/O or reads a clock; the same question and seed give the same
script; joining the pieces of a text gives the text.
"""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Iterator
from itertools import islice
from typing import Any

import msgspec

__all__ = [
    "Ask",
    "Call",
    "Cut",
    "Fail",
    "PaceHint",
    "Reason",
    "Refuse",
    "Say",
    "Script",
    "SentFile",
    "Stall",
    "Step",
    "ToolResult",
    "ToolSpec",
    "Turn",
    "compact",
    "grouped",
    "identifier",
    "pieces",
    "text_of",
]

#: A token-like piece: the space before a word and at most twelve characters of it.
_PIECE = re.compile(r"\s*[^\s]{1,12}|\s+")


class ToolSpec(msgspec.Struct, frozen=True):
    """A tool as the caller declared it."""

    name: str
    parameters: dict[str, Any] = {}
    description: str = ""


class ToolResult(msgspec.Struct, frozen=True):
    """What the caller says that a tool answered."""

    call_id: str
    content: str
    name: str = ""
    is_error: bool = False


class SentFile(msgspec.Struct, frozen=True):
    """A file that came with a message, as far as the wire tells. ``size`` in bytes; None for one
    that was sent by its address."""

    name: str
    type: str
    size: int | None


class Turn(msgspec.Struct, frozen=True):
    """One message of the conversation, whatever wire it came on."""

    role: str
    text: str = ""
    results: list[ToolResult] = []
    calls: list[str] = []
    files: list[SentFile] = []

    @property
    def asks(self) -> bool:
        """Whether a person says something in it."""
        return self.role == "user" and bool(self.text or self.files)


class Ask(msgspec.Struct, kw_only=True):
    """A request, with the differences between wires taken out."""

    model: str
    turns: list[Turn]
    stream: bool = False
    tools: list[ToolSpec] = []
    tool_choice: str = "auto"
    schema: dict[str, Any] | None = None
    json_mode: bool = False
    max_tokens: int | None = None
    stop: list[str] = []
    seed: int | None = None
    include_usage: bool = False
    wants_reasoning: bool = False
    #: Wire-specific facts that its writer needs again: ``background``, ``store``, ...
    extra: dict[str, Any] = {}

    @property
    def prompt(self) -> str:
        """The text of the last user message."""
        asking = self._asking
        return asking.text if asking else ""

    @property
    def files(self) -> list[SentFile]:
        """The files of the last user message."""
        asking = self._asking
        return asking.files if asking else []

    @property
    def _asking(self) -> Turn | None:
        return next((turn for turn in reversed(self.turns) if turn.asks), None)

    @property
    def results(self) -> list[ToolResult]:
        """Tool results that came after the last words of the user, oldest first."""
        results: list[ToolResult] = []
        for turn in reversed(self.turns):
            if turn.asks:
                break
            results[:0] = turn.results
        return results

    @property
    def called(self) -> list[str]:
        """Names of the tools called since the last words of the user, oldest first."""
        names: list[str] = []
        for turn in reversed(self.turns):
            if turn.asks:
                break
            names[:0] = turn.calls
        return names

    def input_tokens(self) -> int:
        """A plausible count of what was sent."""
        characters = sum(
            len(turn.text) + sum(len(result.content) for result in turn.results)
            for turn in self.turns
        )
        return max(1, characters // 4 + 3 * len(self.turns))


class Reason(msgspec.Struct, frozen=True):
    """Visible thinking."""

    text: str


class Say(msgspec.Struct, frozen=True):
    """Text of the answer; ``parts`` fixes the pieces where they matter."""

    text: str
    parts: tuple[str, ...] | None = None


class Refuse(msgspec.Struct, frozen=True):
    """The model says no, in the wire's own way."""

    text: str


class Call(msgspec.Struct, frozen=True):
    """A tool call."""

    name: str
    arguments: dict[str, Any]
    id: str = ""

    @property
    def text(self) -> str:
        """The arguments as JSON."""
        return compact(self.arguments).decode()


class Fail(msgspec.Struct, frozen=True):
    """An error of the provider in the middle of the stream."""

    message: str
    code: str = "server_error"


class Stall(msgspec.Struct, frozen=True):
    """Silence until the client goes away."""


class Cut(msgspec.Struct, frozen=True):
    """The connection is closed without the end of the answer."""


Step = Reason | Say | Refuse | Call | Fail | Stall | Cut


class PaceHint(msgspec.Struct, frozen=True):
    """A script's own rhythm, where the point of it is the rhythm."""

    rate: float | None = None
    #: Faster than this only when the settings are; for answers that would take for ever.
    least_rate: float = 0.0
    ttft: float | None = None
    jitter: float | None = None
    tokens_per_chunk: int | None = None


class Script(msgspec.Struct, kw_only=True):
    """The whole answer: steps, why it ends, how fast it comes."""

    steps: list[Step]
    #: ``stop``, ``length``, ``tool_calls``, ``content_filter`` or ``refusal``.
    finish: str = "stop"
    pace: PaceHint = PaceHint()
    faults: str = ""
    name: str = ""
    #: The size is the point of it: the caller's limit of tokens does not apply.
    whole: bool = False


def pieces(text: str) -> list[str]:
    """Cut text into token-like pieces; joined they are the text again."""
    return _PIECE.findall(text)


def grouped(parts: list[str] | tuple[str, ...], size: int) -> Iterator[tuple[str, int]]:
    """Join ``size`` pieces at a time; each comes with the number of pieces in it."""
    if size <= 1:
        for part in parts:
            yield part, 1
        return
    source = iter(parts)
    while batch := list(islice(source, size)):
        yield "".join(batch), len(batch)


def compact(value: Any) -> bytes:
    """JSON without spaces; the characters stay as they are."""
    return msgspec.json.encode(value)


def identifier(prefix: str, *sources: object, length: int = 24) -> str:
    """A stable id made from ``sources``: the same ones give the same id."""
    draw = random.Random(zlib.crc32(repr(sources).encode()))
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
    return prefix + "".join(draw.choices(alphabet, k=length))


def text_of(content: Any) -> str:
    """The text of a message's content, a string or a list of parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(
            part.get("text") or part.get("refusal") or ""
            for part in content
            if isinstance(part, dict)
        )
    return ""
