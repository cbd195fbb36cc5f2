"""Conversations as the AI SDK's messages: what `useChat` is given when a page is loaded.

Always true: an answer is what the SDK's own reader makes of the answer's chunks; a step that was
started again stands there once, as its last attempt; nothing here is null.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from tokenwire.events.codec import AnyEvent
from tokenwire.events.message import (
    FilePart,
    Message,
    OpaquePart,
    Part,
    ProviderResultPart,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from tokenwire.wire.ai_sdk.encoder import UIMessageEncoder
from tokenwire.wire.ai_sdk.parts import NOT_COMPLETE, Compat, steering_chunk
from tokenwire.wire.chunk_encoder import Chunk, clean, dumps_text

__all__ = ["answer_message", "stored_messages", "with_extras"]

_STREAMED = {"text": "text", "reasoning": "reasoning"}
_SOURCES = ("source-url", "source-document")
_NOT_ALLOWED = "The person did not allow this call."


class _Everything:
    """Contains every name: no wait ends the chunks."""

    def __contains__(self, name: object) -> bool:
        return True


def answer_message(events: Iterable[AnyEvent], compat: Compat) -> dict[str, Any] | None:
    """The answer of a run, with what it waits for; None while it has no parts."""
    encoder = UIMessageEncoder(compat="7", resolved_ids=_Everything())
    answer = _Answer()
    for event in events:
        for chunk in encoder.chunks(event):
            answer.add(chunk)
    return answer.message(compat)


class _Answer:
    """One message as it grows, chunk by chunk."""

    def __init__(self) -> None:
        self.id = ""
        self.metadata: dict[str, Any] = {}
        self.parts: list[dict[str, Any]] = []
        self._open: dict[str, dict[str, Any]] = {}
        self._calls: dict[str, dict[str, Any]] = {}
        self._step = 0

    def message(self, compat: Compat) -> dict[str, Any] | None:
        """The message as the release reads it."""
        parts = [one for part in self.parts for one in _for_release(part, compat)]
        if all(part["type"] == "step-start" for part in parts):
            return None
        metadata = {"tokenwire": self.metadata}
        return {"id": self.id, "role": "assistant", "metadata": metadata, "parts": parts}

    def add(self, chunk: Chunk) -> None:
        """Apply one chunk."""
        kind = chunk["type"]
        facts = chunk.get("messageMetadata")
        if facts is not None:
            self.metadata |= facts["tokenwire"]
        if kind == "start":
            self.id = chunk["messageId"]
        elif kind == "start-step":
            self._step = len(self.parts)
            self.parts.append({"type": "step-start"})
        elif kind == "reset-step":
            del self.parts[self._step + 1 :]
            self._open.clear()
        elif kind.startswith("tool-"):
            self._tool(chunk)
        elif kind.startswith("data-"):
            self._data(chunk)
        elif kind in ("source-url", "source-document", "file", "steering-message"):
            self.parts.append(chunk)
        elif kind == "error":
            self.metadata |= {"outcome": "error", "error": chunk["errorText"]}
        elif kind == "abort":
            self.metadata["outcome"] = "cancelled"
        else:
            self._text(chunk)

    def _text(self, chunk: Chunk) -> None:
        kind, _, moment = chunk["type"].partition("-")
        if kind not in _STREAMED:
            return
        if moment == "start":
            part = {"type": kind, "text": "", "state": "streaming"}
            self._open[chunk["id"]] = part
            self.parts.append(part)
        part = self._open[chunk["id"]]
        part["text"] += chunk.get("delta", "")
        if "providerMetadata" in chunk:
            part["providerMetadata"] = chunk["providerMetadata"]
        if moment == "end":
            part["state"] = "done"

    def _data(self, chunk: Chunk) -> None:
        if chunk.get("transient"):
            return
        for part in self.parts:
            if "id" in chunk and (part["type"], part.get("id")) == (chunk["type"], chunk["id"]):
                part["data"] = chunk["data"]
                return
        self.parts.append(chunk)

    def _tool(self, chunk: Chunk) -> None:
        kind = chunk["type"]
        if kind == "tool-approval-response":
            for part in self._calls.values():
                if part.get("approval", {}).get("id") == chunk["approvalId"]:
                    answer = clean(approved=chunk["approved"], reason=chunk.get("reason"))
                    part["approval"] |= answer
                    part["state"] = "approval-responded"
            return
        call_id = chunk["toolCallId"]
        part = self._calls.get(call_id)
        if part is None or not any(part is one for one in self.parts):
            part = {"type": f"tool-{chunk.get('toolName', '')}", "toolCallId": call_id, "text": ""}
            self._calls[call_id] = part
            self.parts.append(part)
        if chunk.get("providerExecuted"):
            part["providerExecuted"] = True
        if kind == "tool-input-start":
            part["state"] = "input-streaming"
        elif kind == "tool-input-delta":
            part["text"] += chunk["inputTextDelta"]
        elif kind == "tool-input-available":
            part |= {"state": "input-available", "input": chunk["input"]}
            if "providerMetadata" in chunk:
                part["callProviderMetadata"] = chunk["providerMetadata"]
        elif kind == "tool-input-error":
            failed = {"rawInput": chunk["input"], "errorText": chunk["errorText"]}
            part |= {"state": "output-error", **failed}
        elif kind == "tool-approval-request":
            part |= {"state": "approval-requested", "approval": {"id": chunk["approvalId"]}}
        elif kind == "tool-output-available":
            part |= {"state": "output-available", "output": chunk["output"]}
        elif kind == "tool-output-error":
            part |= {"state": "output-error", "errorText": chunk["errorText"]}
        elif kind == "tool-output-denied":
            part["state"] = "output-denied"


def _for_release(part: dict[str, Any], compat: Compat) -> list[dict[str, Any]]:
    """A part as the release reads it: before 6 a call has no approval of its own."""
    if part["type"] == "steering-message":
        return [steering_chunk(part["id"], part["parts"], compat)]
    if "toolCallId" not in part:
        return [part]
    tool = {name: value for name, value in part.items() if name != "text"}
    approval = tool.get("approval")
    if approval is None:
        return [tool]
    if compat in ("6", "7"):
        if tool["state"].startswith("output-") and "approved" not in approval:
            approval["approved"] = tool["state"] != "output-denied"
        return [tool]
    del tool["approval"]
    names = {"approvalId": approval["id"], "toolCallId": tool["toolCallId"]}
    facts = {name: approval[name] for name in ("approved", "reason") if name in approval}
    question = {"toolName": tool["type"].removeprefix("tool-"), "input": tool.get("input")}
    if tool["state"] == "output-denied":
        tool |= {"state": "output-error", "errorText": approval.get("reason") or _NOT_ALLOWED}
    elif tool["state"].startswith("approval-"):
        tool["state"] = "input-available"
    data = {**names, **question, **facts}
    return [tool, {"type": "data-approval", "id": approval["id"], "data": data}]


def with_extras(message: dict[str, Any], answer: dict[str, Any]) -> None:
    """Give the stored ``message`` of an answer what only the run's events hold: data and sources,
    each in its step, before what is said there or after it, as in ``answer``."""
    parts: list[dict[str, Any]] = message["parts"]
    starts = [place for place, part in enumerate(parts) if part["type"] == "step-start"]
    before: dict[int, list[dict[str, Any]]] = {}
    step, is_said = -1, False
    for part in answer["parts"]:
        kind = part["type"]
        if kind == "step-start":
            step, is_said = step + 1, False
        elif kind == "data-steering":
            continue  # the stored message has it
        elif kind in _SOURCES or kind.startswith("data-"):
            if step < 0 and not is_said:
                place = 0
            elif not is_said and step < len(starts):
                place = starts[step] + 1
            else:
                place = starts[step + 1] if step + 1 < len(starts) else len(parts)
            before.setdefault(place, []).append(part)
        else:
            is_said = True
    message["parts"] = [
        one
        for place in range(len(parts) + 1)
        for one in (*before.get(place, ()), *parts[place : place + 1])
    ]


# --- stored messages ------------------------------------------------------------------------------


def stored_messages(
    messages: list[Message], runs: Iterable[str] = (), compat: Compat = "7"
) -> list[dict[str, Any]]:
    """Messages as a run keeps them, as the SDK's: the steps of an answer are one message, with what
    a person said between them, and a result stands in its call. ``runs``: ids of the thread's runs,
    whose messages name them. A message without an id gets one of its place, which it keeps while
    the conversation grows."""
    run_ids = set(runs)
    converted: list[dict[str, Any]] = []
    for message in messages:
        if message.role == "tool":
            _attach_results(converted, message)
            continue
        if message.steered_run is not None and converted[-1:] and _is_answer(converted[-1]):
            said = [one for part in message.parts for one in _part(part)]
            for one in said:
                one.pop("state", None)
            name = message.id or f"kept-{len(converted)}"
            converted[-1]["parts"].append(steering_chunk(name, said, compat))
            continue
        if message.role == "assistant":
            entry = converted[-1] if converted and converted[-1]["role"] == "assistant" else None
            step = [{"type": "step-start"}, *_step(message)]
            if entry is not None:
                entry["parts"] += step
                continue
        else:
            step = [one for part in message.parts for one in _part(part)]
        role = "system" if message.role == "developer" else message.role
        entry = {"id": message.id or f"kept-{len(converted)}", "role": role, "parts": step}
        if message.id in run_ids:
            entry["metadata"] = {"tokenwire": {"run": message.id}}
        converted.append(entry)
    return converted


def _is_answer(entry: dict[str, Any]) -> bool:
    return entry["role"] == "assistant"


def _step(message: Message) -> list[dict[str, Any]]:
    step: list[dict[str, Any]] = []
    for part in message.parts:
        if not isinstance(part, ProviderResultPart):
            step += _part(part)
            continue
        call = next((p for p in step if p.get("toolCallId") == part.call_id), None)
        if call is None:
            call = {"type": f"tool-{part.name or 'provider_tool'}", "toolCallId": part.call_id}
            step.append(call | {"input": {}})
            call = step[-1]
        output = part.content if part.content is not None else ""
        call |= {"state": "output-available", "output": output, "providerExecuted": True}
    return step


def _attach_results(converted: list[dict[str, Any]], message: Message) -> None:
    calls = {
        part["toolCallId"]: part
        for entry in converted
        for part in entry["parts"]
        if "toolCallId" in part
    }
    for result in message.parts:
        part = calls.get(result.call_id) if isinstance(result, ToolResultPart) else None
        if part is None or not isinstance(result, ToolResultPart):
            continue
        if result.is_error:
            part |= {"state": "output-error", "errorText": dumps_text(result.content)}
        else:
            output = result.content if result.content is not None else ""
            part |= {"state": "output-available", "output": output}


def _part(part: Part) -> list[dict[str, Any]]:
    if isinstance(part, TextPart):
        signed = clean(signature=part.signature)
        return [_signed({"type": "text", "text": part.text, "state": "done"}, signed)]
    if isinstance(part, RefusalPart):
        return [_signed({"type": "text", "text": part.text}, {"kind": "refusal"})]
    if isinstance(part, ReasoningPart):
        signed = clean(signature=part.signature, encrypted=part.encrypted)
        return [_signed({"type": "reasoning", "text": part.text, "state": "done"}, signed)]
    if isinstance(part, OpaquePart):
        opaque = clean(name=part.name or None, payload=part.payload)
        return [_signed({"type": "reasoning", "text": ""}, {"opaque": opaque})]
    if isinstance(part, FilePart):
        url = part.url or f"data:{part.media_type};base64,{part.data or ''}"
        return [clean(type="file", mediaType=part.media_type, url=url, filename=part.name)]
    if isinstance(part, ToolCallPart):
        return [_call(part)]
    return []


def _call(part: ToolCallPart) -> dict[str, Any]:
    call = clean(
        type=f"tool-{part.name}",
        toolCallId=part.call_id,
        providerExecuted=True if part.executor == "provider" else None,
    )
    if part.signature:
        call["callProviderMetadata"] = {"tokenwire": {"signature": part.signature}}
    if part.status != "complete":
        error = NOT_COMPLETE[part.status]
        return call | {"state": "output-error", "rawInput": part.arguments, "errorText": error}
    try:
        value = msgspec.json.decode(part.arguments)
    except msgspec.DecodeError:
        value = part.arguments
    return call | {"state": "input-available", "input": value}


def _signed(part: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
    return part | {"providerMetadata": {"tokenwire": facts}} if facts else part
