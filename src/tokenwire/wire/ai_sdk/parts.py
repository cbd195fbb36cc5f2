"""UI message chunks of what is not text: tools, approvals, sources, application data.

Pure functions of one event, used by `tokenwire.wire.ai_sdk.encoder`.
"""

from __future__ import annotations

from typing import Any, Literal

from tokenwire.events.codec import AnyEvent
from tokenwire.events.model import (
    ApprovalAnswer,
    ApprovalRequest,
    Data,
    PartAttr,
    PartStatus,
    RunBudget,
    RunProgress,
    StepEnd,
    StepStart,
    ToolError,
    ToolOutput,
    ToolProgress,
    ToolResult,
)
from tokenwire.wire.chunk_encoder import Chunk, budget_fields, clean
from tokenwire.wire.view import PartView

__all__ = [
    "COMPAT",
    "NOT_COMPLETE",
    "Compat",
    "approval_chunks",
    "side_facts",
    "signed_facts",
    "source_chunks",
    "task_chunk",
]

Compat = Literal["5", "common", "6", "7"]
COMPAT: tuple[Compat, ...] = ("5", "common", "6", "7")

NOT_COMPLETE: dict[PartStatus, str] = {
    "truncated": "The call was cut off before its end.",
    "invalid": "The call's arguments are not valid.",
    "discarded": "The call was discarded.",
}


def side_facts(event: AnyEvent, calls: set[str], compat: Compat) -> list[Chunk]:
    """Tools, approvals and data. ``calls``: the tool parts that the client has; a result of any
    other would fail its stream."""
    if isinstance(event, ToolResult | ToolError):
        return [_result(event, compat)] if event.call_id in calls else []
    if isinstance(event, ApprovalRequest | ApprovalAnswer):
        return approval_chunks(event, compat) if event.call_id in calls else []
    if isinstance(event, ToolProgress | ToolOutput):
        data: Chunk = {"toolCallId": event.call_id}
        if isinstance(event, ToolOutput):
            data["text"] = event.text
        else:
            data |= clean(fraction=event.fraction, message=event.message)
        return [{"type": "data-tool-progress", "data": data, "transient": True}]
    if isinstance(event, RunProgress):
        data = clean(fraction=event.fraction, message=event.message)
        return [{"type": "data-progress", "id": "progress", "data": data}]
    if isinstance(event, RunBudget):
        return [{"type": "data-budget", "id": "budget", "data": budget_fields(event)}]
    if isinstance(event, Data):
        head = clean(
            type=f"data-{event.name}", id=event.id, transient=True if event.transient else None
        )
        # `data` is required, whatever the application gave.
        return [{**head, "data": event.payload}]
    return []


def steering_chunk(name: str, parts: list[Chunk], compat: Compat) -> Chunk:
    """What a person said between two steps, as chunk and as part of the message: 7 has a word for
    it; for the others it is data."""
    if compat == "7":
        return {"type": "steering-message", "id": name, "parts": parts}
    return {"type": "data-steering", "id": name, "data": {"parts": parts}}


def task_chunk(event: StepStart | StepEnd, start: StepStart) -> Chunk:
    """A task of an agent: one data part, replaced when the task ends."""
    data: Chunk = clean(name=start.name, step=start.step, status="running")
    if isinstance(event, StepEnd):
        data |= {"status": event.status, "size": event.size}
    return {"type": "data-step", "id": f"step-{start.step}", "data": data}


def _result(event: ToolResult | ToolError, compat: Compat) -> Chunk:
    if isinstance(event, ToolResult):
        output = event.content if event.content is not None else ""
        return {"type": "tool-output-available", "toolCallId": event.call_id, "output": output}
    if event.code == "denied" and compat in ("6", "7"):
        return {"type": "tool-output-denied", "toolCallId": event.call_id}
    return {
        "type": "tool-output-error",
        "toolCallId": event.call_id,
        "errorText": event.message,
    }


def approval_chunks(event: ApprovalRequest | ApprovalAnswer, compat: Compat) -> list[Chunk]:
    """A question to a person and its answer: own chunks from 6 on, a data part before."""
    names: Chunk = {"approvalId": event.approval_id, "toolCallId": event.call_id}
    if isinstance(event, ApprovalRequest):
        if compat in ("6", "7"):
            return [{"type": "tool-approval-request", **names}]
        question = clean(toolName=event.name, input=event.arguments, reason=event.reason)
        return [{"type": "data-approval", "id": event.approval_id, "data": {**names, **question}}]
    answer = clean(approved=event.approved, reason=event.reason)
    if compat == "7":
        approval = {"approvalId": event.approval_id}
        return [{"type": "tool-approval-response", **approval, **answer}]
    if compat == "6":
        return []  # the client gave the answer; this version has no chunk for it
    return [{"type": "data-approval", "id": event.approval_id, "data": {**names, **answer}}]


def signed_facts(part: PartView) -> dict[str, Any]:
    """What the provider must get back with this part; comes back in the client's history."""
    return clean(
        signature=part.attrs.get("signature"),
        encrypted=part.attrs.get("encrypted"),
        meta=part.meta,
    )


def source_chunks(event: PartAttr) -> list[Chunk]:
    """A citation as a source: by its address, or else as a document."""
    value: dict[str, Any] = event.value
    url, title = value.get("url"), value.get("title")
    if isinstance(url, str) and url:
        title = title if isinstance(title, str) else None
        return [clean(type="source-url", sourceId=f"s{event.seq}", url=url, title=title)]
    title = title or value.get("document_title") or value.get("filename")
    if isinstance(title, str) and title:
        media_type = str(value.get("media_type") or "text/plain")
        source = {"type": "source-document", "sourceId": f"s{event.seq}"}
        return [{**source, "mediaType": media_type, "title": title}]
    return []
