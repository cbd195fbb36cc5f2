"""The state of a fold: parts, steps and tool calls, and the message part of each part."""

from __future__ import annotations

from typing import Any, cast

import msgspec

from tokenwire.events.message import (
    FilePart,
    OpaquePart,
    Part,
    ProviderResultPart,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from tokenwire.events.model import Usage
from tokenwire.events.parts import Agent, Event

__all__ = [
    "USAGE_COUNTS",
    "ApprovalState",
    "PartState",
    "SteerState",
    "StepState",
    "ToolState",
    "message_part",
    "own_fields",
    "result_part",
]


#: Pieces of a part's text before they are joined.
_MOST_PIECES = 64


class PartState(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One part so far. ``pieces`` are joined when read, so that long parts stay cheap."""

    part: int
    kind: str
    step: int = 0
    choice: int = 0
    #: The text so far, joined now and then: one piece per token takes ten times the memory.
    pieces: list[str] = []
    status: str = "open"
    #: From its start, attributes and end: name, call_id, signature, citations, ...
    attrs: dict[str, Any] = {}
    agent: Agent | None = None

    @property
    def is_answer(self) -> bool:
        """Whether the root agent (or, without agents, the model) says it."""
        return self.agent is None or self.agent.parent is None

    def add(self, text: str) -> None:
        """Add text. Linear overall: the longer the text, the rarer the pieces are joined."""
        pieces = self.pieces
        pieces.append(text)
        if len(pieces) > _MOST_PIECES and len(pieces) > len(pieces[0]) >> 6:
            self.pieces = ["".join(pieces)]

    @property
    def text(self) -> str:
        """The text so far."""
        if len(self.pieces) > 1:
            self.pieces = ["".join(self.pieces)]
        return self.pieces[0] if self.pieces else ""


#: The token counts of `Usage`, by field.
USAGE_COUNTS = (
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
)


class StepState(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One step: a call of a model, what an agent says itself, or a task of an agent."""

    step: int
    kind: str = "model"
    name: str | None = None
    agent: Agent | None = None
    operation: int | None = None
    attempt: int = 1
    provider: str | None = None
    dialect: str | None = None
    model: str | None = None
    response_id: str | None = None
    request_id: str | None = None
    resumable: bool = False
    parts: list[int] = []
    finish: dict[str, Any] | None = None
    usage: dict[str, int] = {}
    status: str = "open"
    terminal_seen: bool = False
    #: Of the newest attempt: its provider began to answer; its counts are somebody's estimate; the
    #: id of a response that it is to read again, until it does.
    is_answered: bool = False
    is_estimated: bool = False
    rereads: str | None = None

    def count(self, event: Usage) -> None:
        """Add what the provider, or an estimate, says of the newest attempt."""
        self.is_answered, self.is_estimated = True, event.source == "estimated"
        for name in USAGE_COUNTS:
            count = getattr(event, name)
            if count is not None:
                more = self.usage.get(name, 0) if event.mode == "increment" else 0
                self.usage[name] = more + count

    def begin_response(self, response_id: str | None) -> bool:
        """The provider begins to answer. Whether this is another response than the one that was to
        be read again, so that nobody says what that one cost."""
        is_other = self.rereads is not None and response_id != self.rereads
        self.is_answered, self.rereads = True, None
        return is_other

    def is_unreported(self, *, is_billed: bool | None = None) -> bool:
        """Whether the newest attempt cost more than its provider said, or may have. ``is_billed``:
        None where only an answer says that."""
        if self.usage and self.is_estimated:
            return True
        if self.kind != "model":
            return False
        if self.rereads is not None:
            return True
        if not (self.is_answered if is_billed is None else is_billed):
            return False
        if not self.usage:
            return True
        # A count on the way is that of the text so far, or of the request alone.
        return not self.terminal_seen and (bool(self.parts) or "input_tokens" not in self.usage)

    def spend(self, total: dict[str, int], *, is_billed: bool) -> bool:
        """Add the attempt, which begins again, to a ``total``; whether it may have cost more.
        A response that its provider keeps is read again, and counted then."""
        is_unknown = False
        if self.resumable:
            self.rereads = self.response_id or self.rereads
        else:
            is_unknown = self.is_unreported(is_billed=is_billed)
            for name, count in self.usage.items():
                total[name] = total.get(name, 0) + count
        self.usage, self.is_answered, self.is_estimated = {}, False, False
        return is_unknown


class SteerState(msgspec.Struct):
    """What a person said while the answer was written. ``id``: of the turn; ``step``: the step
    after whose calls it stands."""

    id: str
    text: str
    step: int


class ToolState(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One tool call: its start, approval and result."""

    call_id: str
    name: str = ""
    step: int = 0
    started: bool = False
    idempotent: bool = False
    #: Those that it was started with, where its start says them.
    arguments: Any = None
    done: bool = False
    content: Any = None
    error: str | None = None
    approval_id: str | None = None
    approved: bool | None = None
    approval_arguments: Any = None
    approval_reason: str | None = None


class ApprovalState(msgspec.Struct, omit_defaults=True):
    """A question to a person. ``requested``, ``expires``: Unix milliseconds; ``reason``: why it is
    asked; ``by``: who decided; ``seq``: the place of the question in the run."""

    seq: int = 0
    requested: int = 0
    expires: int | None = None
    reason: str | None = None
    by: str | None = None


def message_part(state: PartState, dialect: str | None) -> Part:
    attrs = state.attrs
    meta = {dialect or "provider": attrs["meta"]} if attrs.get("meta") else None
    signature = attrs.get("signature")
    if state.kind == "text":
        citations = attrs.get("citations")
        if isinstance(citations, list):
            citations = citations.copy()  # the part may get more; the message stays as it is
        return TextPart(text=state.text, citations=citations, signature=signature, meta=meta)
    if state.kind == "reasoning":
        return ReasoningPart(
            text=state.text,
            summary=attrs.get("summary", False),
            signature=signature,
            encrypted=attrs.get("encrypted"),
            meta=meta,
        )
    if state.kind == "refusal":
        return RefusalPart(text=state.text, meta=meta)
    if state.kind == "tool-call":
        status = state.status if state.status != "open" else "truncated"
        return ToolCallPart(
            call_id=attrs.get("call_id", ""),
            name=attrs.get("name", ""),
            arguments=state.text or _dumps(attrs.get("arguments", {})),
            executor=attrs.get("executor", "server"),
            format=attrs.get("format", "json"),
            signature=signature,
            status=cast(Any, status),
            meta=meta,
        )
    if state.kind == "provider-result":
        return ProviderResultPart(
            call_id=attrs.get("call_id", ""),
            name=attrs.get("name", ""),
            content=attrs.get("content") if attrs.get("content") is not None else state.text,
            meta=meta,
        )
    if state.kind == "file":
        return FilePart(
            media_type=attrs.get("media_type", "application/octet-stream"),
            data=state.text or None,
            url=attrs.get("url"),
            name=attrs.get("name"),
            meta=meta,
        )
    return OpaquePart(
        name=attrs.get("name", ""), payload=attrs.get("payload"), signature=signature, meta=meta
    )


def result_part(tool: ToolState) -> ToolResultPart:
    return ToolResultPart(
        call_id=tool.call_id,
        content=tool.content,
        name=tool.name,
        is_error=tool.error is not None,
    )


def _dumps(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def own_fields(event: Event) -> dict[str, Any]:
    """What an event says beside its type, number and time."""
    fields = cast(dict[str, Any], msgspec.to_builtins(event))
    return {k: v for k, v in fields.items() if k not in ("type", "seq", "t")}
