"""Events of one answer to its facts: texts, tool calls, usage, and whether it is complete.

Always true: only the first choice counts; deltas give the same facts however they were cut; a tool
call's id is None when the provider gave none, its ``arguments`` are None unless they were whole.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tokenwire.events.fold import USAGE_COUNTS
from tokenwire.events.model import (
    Error,
    FileStart,
    Finish,
    PartAttr,
    PartDelta,
    PartEnd,
    PartStart,
    ProviderResultStart,
    ResponseStart,
    StepEnd,
    ToolCallEnd,
    ToolCallStart,
    Usage,
)

__all__ = ["OBJECT_ARGUMENTS", "facts"]

#: ``meta`` of a tool call whose provider sends arguments as an object, so that there is no text of
#: the model's own to keep: ``tool-call-start`` carries it, and ``arguments_raw`` is None.
OBJECT_ARGUMENTS = {"arguments": "object"}

#: Blocks that are neither said nor run: kept whole, but no tool's.
_NOT_HOSTED = frozenset({"redacted_thinking", "thought", "text"})


def facts(events: Iterable[Any]) -> dict[str, Any]:
    """``text``, ``reasoning``, ``refusal``, ``tool_calls``, ``finish_reason`` (the provider's own
    word), ``usage`` (our names; ``input_tokens`` as the provider counts them), ``provider_usage``
    (its own object), ``tokens`` (``input`` and ``output`` alone), ``model``, ``response_id``,
    ``server_items`` (tools that it ran itself, and their results), ``media`` (files that it made),
    ``citation_count``, ``tool_plan`` (Cohere's, which is no reasoning), ``block_reason`` (why the
    prompt was not answered: no finish reason, and not the end of a stream), ``choices`` (when there
    are several: the same of each), ``error`` and ``complete`` (the stream said itself that it was
    over)."""
    events = list(events)
    state, others = _State(0), _others(events)
    for event in events:
        state.see(event)
    more = {"choices": [state.as_choice(), *(o.as_choice() for o in others)]} if others else {}
    content = state.as_choice()
    del content["index"]
    return content | {
        "usage": state.our_usage(),
        "provider_usage": state.raw_usage or state.usage,
        "tokens": state.tokens(),
        "model": state.model,
        "response_id": state.response_id,
        "server_items": state.server_items(),
        "media": state.media(),
        "citation_count": state.citations,
        "tool_plan": state.joined("reasoning", plan=True),
        "block_reason": state.block_reason,
        "error": state.error,
        "complete": state.complete,
        **more,
    }


def _others(events: list[Any]) -> list[_State]:
    """The candidates after the first."""
    choices = {e.choice for e in events if isinstance(e, PartStart | Finish)} - {0}
    states = [_State(choice) for choice in sorted(choices)]
    for state in states:
        for event in events:
            state.see(event)
    return states


class _State:
    """The content of one candidate, and the facts of the whole answer."""

    def __init__(self, choice: int) -> None:
        self.choice = choice
        self.citations = 0
        self.starts: dict[int, PartStart] = {}
        self.texts: dict[int, list[str]] = {}
        self.ends: dict[int, PartEnd] = {}
        self.ids: dict[int, str] = {}
        self.names: dict[int, str] = {}
        self.finish_reason: Any = None
        self.block_reason: str | None = None
        self.usage: dict[str, int] | None = None
        self.raw_usage: dict[str, Any] | None = None
        self.model: str | None = None
        self.response_id: str | None = None
        self.error: dict[str, Any] | None = None
        self.complete = False

    def see(self, event: Any) -> None:
        if isinstance(event, PartDelta):
            if event.part in self.starts:
                self.texts[event.part].append(event.text)
        elif isinstance(event, PartStart):
            if event.choice == self.choice:
                self.starts[event.part] = event
                self.texts[event.part] = []
        elif isinstance(event, PartEnd):
            self.ends[event.part] = event
            if event.text is not None and event.part in self.starts:
                self.texts[event.part] = [event.text]
        elif isinstance(event, PartAttr):
            if event.name == "call_id":
                self.ids[event.part] = event.value
            elif event.name == "tool_name":
                self.names[event.part] = event.value
            elif event.name == "citation" and event.part in self.starts:
                self.citations += 1
        else:
            self._other(event)

    def _other(self, event: Any) -> None:
        if isinstance(event, Finish):
            if event.choice == self.choice:
                self._finish(event)
        elif isinstance(event, Usage):
            self._count(event)
        elif isinstance(event, ResponseStart):
            self.model = event.model or self.model
            self.response_id = event.id or self.response_id
        elif isinstance(event, Error):
            if self.error is None:
                error = {"scope": event.scope, "code": event.code, "message": event.message}
                self.error = error if event.raw is None else {**error, "raw": event.raw}
        elif isinstance(event, StepEnd):
            # A block ends an answer, but with no word of the wire that says so.
            blocked = self.block_reason is not None and self.finish_reason is None
            self.complete = event.terminal_seen and not blocked

    def _finish(self, event: Finish) -> None:
        details = event.details or {}
        if "promptFeedback" in details:
            self.block_reason = event.raw
        else:
            # Vertex numbers its reasons on request; the number itself is in the details.
            self.finish_reason = details.get("finishReason", event.raw)

    def _count(self, event: Usage) -> None:
        usage = self.usage or {}
        for name in USAGE_COUNTS:
            value = getattr(event, name)
            if value is not None:
                before = usage.get(name, 0) if event.mode == "increment" else 0
                usage[name] = before + value
        self.usage = usage or None
        self.raw_usage = event.raw or self.raw_usage

    def tokens(self) -> dict[str, int | None]:
        """The provider's own counts: where it counts what it cached, or thought, apart, these
        leave that out."""
        ours, raw = self.usage or {}, self.raw_usage or {}
        own_count = raw.get("input_tokens", raw.get("inputTokens"))
        output = ours.get("output_tokens")
        if "thoughtsTokenCount" in raw or "candidatesTokenCount" in raw:
            output = raw.get("candidatesTokenCount")
        return {
            "input": own_count if isinstance(own_count, int) else ours.get("input_tokens"),
            "output": output,
        }

    def our_usage(self) -> dict[str, int | None] | None:
        """Token counts under our names, or None when nothing was counted."""
        if self.usage is None:
            return None
        counted = self.tokens()
        both = {"input_tokens": counted["input"], "output_tokens": counted["output"]}
        return {**both, **{k: v for k, v in self.usage.items() if k not in both}}

    def server_items(self) -> list[dict[str, Any]]:
        """Calls of hosted tools and their results, by the provider's own types."""
        by_place: dict[Any, dict[str, Any]] = {}
        for part, start in self.starts.items():
            meta = start.meta or {}
            hosted = isinstance(start, ToolCallStart) and (
                start.executor == "provider" or meta.get("native")
            )
            if not hosted and start.kind not in ("provider-result", "opaque", "file"):
                continue
            kind, index = meta.get("type"), meta.get("index")
            if kind is None or index is None or kind in _NOT_HOSTED:
                continue
            item = by_place.setdefault((kind, index), {"type": kind})
            if meta.get("id"):
                item["id"] = meta["id"]
            elif isinstance(start, ToolCallStart):
                text = "".join(self.texts[part])
                end = self.ends.get(part)
                whole = isinstance(end, ToolCallEnd) and end.status == "complete"
                item |= {"id": start.call_id, "name": start.name, "arguments_raw": text}
                item["arguments"] = end.arguments if whole else None  # type: ignore[union-attr]
            elif isinstance(start, ProviderResultStart):
                item["tool_use_id"] = start.call_id
        return list(by_place.values())

    def as_choice(self) -> dict[str, Any]:
        return {
            "index": self.choice,
            "text": self.joined("text"),
            "reasoning": self.joined("reasoning"),
            "refusal": self.joined("refusal"),
            "tool_calls": self.tool_calls(),
            "finish_reason": self.finish_reason,
        }

    def joined(self, kind: str, *, plan: bool = False) -> str:
        return "".join(
            "".join(self.texts[part])
            for part, start in self.starts.items()
            if start.kind == kind and ((start.meta or {}).get("type") == "tool_plan") is plan
        )

    def media(self) -> list[dict[str, Any]]:
        files: list[dict[str, Any]] = []
        for part, start in self.starts.items():
            end = self.ends.get(part)
            if isinstance(start, FileStart) and not (end and end.status == "discarded"):
                size = sum(map(len, self.texts[part]))
                files.append({"mime": start.media_type, "base64_chars": size})
        return files

    def tool_calls(self) -> list[dict[str, Any]]:
        calls: list[dict[str, Any]] = []
        for part, start in self.starts.items():
            if not isinstance(start, ToolCallStart) or start.executor == "provider":
                continue
            if (start.meta or {}).get("native"):  # a hosted tool's own form, not a function
                continue
            end = self.ends.get(part)
            if end is not None and end.status == "discarded":
                continue
            whole = isinstance(end, ToolCallEnd) and end.status == "complete"
            raw = "".join(self.texts[part])
            if raw.strip() == "null":
                whole = False  # we run such a call with {}; what the model wrote is null
            provider_id = start.call_id if start.id_source == "provider" else None
            as_object = (start.meta or {}).get("arguments") == "object"
            calls.append(
                {
                    "id": self.ids.get(part, provider_id) or None,
                    "name": self.names.get(part, start.name),
                    "arguments": end.arguments if whole else None,  # type: ignore[union-attr]
                    "arguments_raw": None if as_object else raw,
                }
            )
        return calls
