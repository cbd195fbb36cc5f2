"""What `useChat` posts, as a request of ours: the conversation, and answers that a run waits for.

Always true: nothing is guessed: a message of an unknown role or shape is an `InputError` that names
it; parts that only concern the page (data, sources, steps) do not reach the model.
"""

from __future__ import annotations

from typing import Any, cast

import msgspec

from tokenwire.events.message import (
    Message,
    OpaquePart,
    Part,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    steered,
)
from tokenwire.events.request import Request
from tokenwire.wire.ai_sdk.parts import COMPAT, Compat
from tokenwire.wire.chunk_encoder import dumps_text
from tokenwire.wire.fields import Fields, media_part, one_name, plain, refuse_routing

__all__ = ["Answer", "ToolOutput", "UIRequest", "parse_ui_request"]

_ANSWERED = ("output-available", "output-error", "output-denied")


class Answer(msgspec.Struct, frozen=True):
    """A person's answer to an approval."""

    approval_id: str
    approved: bool
    reason: str | None = None


class ToolOutput(msgspec.Struct, frozen=True):
    """What a tool on the page gave."""

    call_id: str
    content: Any


class UIRequest(msgspec.Struct, kw_only=True):
    """``POST /api/chat``. ``continues``: the assistant message that the answer continues;
    ``run``: the run that wrote it, if the message names one; ``how``: the body's ``tokenwire``,
    unparsed; ``is_last_only``: the body has the last message alone, which continues the stored
    conversation. ``regenerates``: the last question is to be answered again; ``edited``: the id of
    the message that the body replaces."""

    chat: str
    request: Request
    model: str | None = None
    compat: Compat | None = None
    how: dict[str, Any] | None = None
    continues: str | None = None
    run: str | None = None
    answers: list[Answer] = []
    outputs: list[ToolOutput] = []
    is_last_only: bool = False
    regenerates: bool = False
    edited: str | None = None


def parse_ui_request(value: Any) -> UIRequest:
    """The body of ``POST /api/chat``. Raises `InputError`. Fields that an application adds with
    ``body`` are tolerated; of them ``model``, ``system``, ``compat`` and ``tokenwire`` count."""
    body = Fields(value)
    refuse_routing(body)
    chat = one_name(body, "id")
    trigger = body.text("trigger")
    if trigger not in (None, "submit-message", "regenerate-message"):
        raise body.fail("trigger", "must be submit-message or regenerate-message")
    compat = body.text("compat")
    if compat is not None and compat not in COMPAT:
        raise body.fail("compat", f"must be one of {', '.join(COMPAT)}")
    alone = body.object("message")
    messages = body.objects("messages", required=alone is None)
    if alone is not None:
        messages = [alone]
    if not messages:
        raise body.fail("messages", "must have at least one message")
    request = Request(
        messages=[m for message in messages for m in _messages(message)],
        system=body.text("system"),
    )
    how = body.object("tokenwire")
    ui_request = UIRequest(
        chat=chat,
        request=request,
        model=body.text("model"),
        compat=cast("Compat | None", compat),
        how=how.value if how is not None else None,
        is_last_only=len(messages) == 1,
        regenerates=trigger == "regenerate-message",
        edited=body.text("messageId") if trigger == "submit-message" else None,
    )
    last = messages[-1]
    if last.raw("role") == "assistant":
        ui_request.continues = last.text("id")
        ui_request.run = _run_of(last) or ui_request.continues
        for part in last.objects("parts"):
            _answers(part, ui_request)
    return ui_request


def _run_of(message: Fields) -> str | None:
    metadata = message.raw("metadata")
    ours = cast(dict[str, Any], metadata).get("tokenwire") if isinstance(metadata, dict) else None
    run = cast(dict[str, Any], ours).get("run") if isinstance(ours, dict) else None
    return run if isinstance(run, str) else None


def _is_tool(part: Fields) -> bool:
    kind = part.raw("type")
    return isinstance(kind, str) and (kind.startswith("tool-") or kind == "dynamic-tool")


def _answers(part: Fields, request: UIRequest) -> None:
    if not _is_tool(part):
        return
    state = part.text("state")
    approval = part.object("approval")
    if state == "approval-responded" and approval is not None:
        answer = Answer(
            approval.need("id"), approval.flag("approved"), approval.text("reason") or None
        )
        request.answers.append(answer)
    elif state == "output-available":
        request.outputs.append(ToolOutput(part.need("toolCallId"), part.raw("output")))
    elif state == "output-error":
        error = part.text("errorText") or "the tool failed"
        request.outputs.append(ToolOutput(part.need("toolCallId"), {"error": error}))


def _messages(message: Fields) -> list[Message]:
    role = message.text("role", required=True)
    name = message.text("id")
    if role == "assistant":
        return _assistant(message, name)
    if role not in ("user", "system"):
        raise message.fail("role", "must be user, assistant or system")
    parts = [p for part in message.objects("parts", required=True) for p in _part(part)]
    return [Message(role=role, content=plain(parts), id=name)] if parts else []


def _assistant(message: Fields, name: str | None) -> list[Message]:
    """One message a step, each followed by the results of its calls."""
    messages: list[Message] = []
    parts: list[Part] = []
    results: list[Part] = []

    def close() -> None:
        if parts:
            messages.append(Message(role="assistant", content=plain(list(parts)), id=name))
        if results:
            messages.append(Message(role="tool", content=list(results)))
        parts.clear()
        results.clear()

    for part in message.objects("parts", required=True):
        kind = part.text("type", required=True)
        if kind == "step-start":
            close()
        elif kind in ("steering-message", "data-steering"):
            close()
            messages += _steering(part, name)
        elif kind == "data-step-reset":
            # What the page has discarded does not go back to the model.
            parts.clear()
            results.clear()
        elif _is_tool(part):
            _tool(part, parts, results)
        else:
            parts += _part(part)
    close()
    return messages


def _steering(part: Fields, run: str | None) -> list[Message]:
    """What a person said between two steps of the answer."""
    said = part.object("data") if part.has("data") else part
    parts = [one for piece in said.objects("parts") for one in _part(piece)] if said else []
    if not parts:
        return []
    message = steered("", part.text("id"), run or "")
    message.content = plain(parts)
    return [message]


def _tool(part: Fields, parts: list[Part], results: list[Part]) -> None:
    kind, state = part.need("type"), part.text("state")
    call_id = part.need("toolCallId")
    name = part.need("toolName") if kind == "dynamic-tool" else kind.removeprefix("tool-")
    if state in (None, "input-streaming"):
        return
    signed = _ours(part, "callProviderMetadata")
    parts.append(
        ToolCallPart(
            call_id=call_id,
            name=name,
            arguments=dumps_text(part.raw("input") if part.has("input") else {}),
            executor="provider" if part.flag("providerExecuted") else "server",
            signature=_text(signed.get("signature")),
        )
    )
    if state not in _ANSWERED:
        return
    failed = state != "output-available"
    content: Any = part.raw("output")
    if failed:
        content = part.text("errorText") or "The person did not allow this call."
    results.append(ToolResultPart(call_id=call_id, name=name, content=content, is_error=failed))


def _part(part: Fields) -> list[Part]:
    kind = part.text("type", required=True) or ""
    ours = _ours(part, "providerMetadata")
    if kind == "text":
        text = part.text("text", required=True) or ""
        if ours.get("kind") == "refusal":
            return [RefusalPart(text=text)]
        return [TextPart(text=text, signature=_text(ours.get("signature")))] if text else []
    if kind == "reasoning":
        opaque = ours.get("opaque")
        if isinstance(opaque, dict):
            saved = cast(dict[str, Any], opaque)
            return [OpaquePart(name=str(saved.get("name", "")), payload=saved.get("payload"))]
        return [
            ReasoningPart(
                text=part.text("text") or "",
                signature=_text(ours.get("signature")),
                encrypted=_text(ours.get("encrypted")),
            )
        ]
    if kind == "file":
        return [media_part(part.need("url"), part.text("mediaType"), part.text("filename"))]
    if kind.startswith(("source-", "data-")) or kind in ("step-start", "reasoning-file", "custom"):
        return []
    raise part.fail("type", f"'{kind[:40]}' is not a supported message part")


def _ours(part: Fields, name: str) -> dict[str, Any]:
    metadata = part.raw(name)
    ours = cast(dict[str, Any], metadata).get("tokenwire") if isinstance(metadata, dict) else None
    return cast(dict[str, Any], ours) if isinstance(ours, dict) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
