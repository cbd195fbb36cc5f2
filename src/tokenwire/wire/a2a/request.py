"""A2A's requests as ours: messages to an agent, and answers to a task that waits.

Always true: a decision on an approval is an exact word or a field, never guessed from a sentence,
but for a question in words, whose answer the sentence is;
fields that a newer client adds are tolerated, those that would choose a provider's address or key
are refused.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Container
from typing import Any, cast

import msgspec

from tokenwire.errors import InputError
from tokenwire.events.fold import Fold
from tokenwire.events.message import FilePart, Message, Part, TextPart
from tokenwire.wire.chunk_encoder import dumps_text
from tokenwire.wire.fields import (
    ClientToolResult,
    Decision,
    Fields,
    media_part,
    one_name,
    plain,
    refuse_routing,
)

__all__ = [
    "ANSWER",
    "INPUT",
    "METHODS",
    "QUESTION",
    "A2AMessage",
    "decisions_of",
    "parse_message",
]

#: The methods of JSON-RPC.
METHODS = (
    "SendMessage",
    "SendStreamingMessage",
    "GetTask",
    "ListTasks",
    "CancelTask",
    "SubscribeToTask",
    "CreateTaskPushNotificationConfig",
    "GetTaskPushNotificationConfig",
    "ListTaskPushNotificationConfigs",
    "DeleteTaskPushNotificationConfig",
    "GetExtendedAgentCard",
)
#: A question in words: the name of its approval, and the fields of its arguments.
INPUT, QUESTION, ANSWER = "input", "question", "answer"
_YES = frozenset({"approve", "approved", "yes"})
_NO = frozenset({"deny", "denied", "reject", "rejected", "no"})
_MOST_HISTORY = 1 << 31


class A2AMessage(msgspec.Struct, kw_only=True):
    """``SendMessageRequest``. ``data``: the values of its data parts; ``history_length``: None: as
    much as there is; ``push``: the configuration of its notifications."""

    message: Message
    message_id: str
    task: str | None = None
    context: str | None = None
    text: str = ""
    data: list[Any] = []
    model: str | None = None
    metadata: dict[str, Any] | None = None
    history_length: int | None = None
    returns_at_once: bool = False
    push: Fields | None = None


def parse_message(value: Any, tenant: str | None = None) -> A2AMessage:
    """The parameters of ``SendMessage``. ``tenant``: the agent that the path names. Raises
    `InputError`."""
    body = Fields(value)
    refuse_routing(body)
    message = body.object("message")
    if message is None:
        raise body.fail("message", "is missing")
    message_id = message.need("messageId")
    if len(message_id) > 256 or not message_id.isprintable():
        raise message.fail("messageId", "must have at most 256 printable characters")
    role = message.text("role") or "ROLE_USER"
    if role not in ("ROLE_USER", "ROLE_UNSPECIFIED"):
        raise message.fail("role", "must be ROLE_USER")
    parts = message.objects("parts", required=True)
    if not parts:
        raise message.fail("parts", "must not be empty")
    content = [_part(part) for part in parts]
    metadata = body.object("metadata")
    if metadata is not None:
        refuse_routing(metadata)
    configuration = body.object("configuration") or Fields({})
    return A2AMessage(
        message=Message(role="user", content=plain(content), id=message_id),
        message_id=message_id,
        task=message.text("taskId") or None,
        context=one_name(message, "contextId") if message.text("contextId") else None,
        text="".join(p.text("text") or "" for p in parts if p.has("text")).strip(),
        data=[p.raw("data") for p in parts if "data" in p.value],
        model=tenant or body.text("tenant") or (metadata.text("model") if metadata else None),
        metadata=metadata.value if metadata is not None else None,
        history_length=history_length(configuration),
        returns_at_once=configuration.flag("returnImmediately"),
        push=configuration.object("taskPushNotificationConfig"),
    )


def history_length(fields: Fields) -> int | None:
    """How many messages of its history a task may have. Raises `InputError`."""
    return fields.whole("historyLength", 0, _MOST_HISTORY)


def _part(part: Fields) -> Part:
    kinds = [name for name in ("text", "raw", "url", "data") if name in part.value]
    if len(kinds) != 1:
        raise part.fail(kinds[1] if kinds else "text", "or one of raw, url, data must be there")
    media_type, name = part.text("mediaType") or None, part.text("filename") or None
    if kinds[0] == "text":
        return TextPart(text=part.text("text", required=True) or "")
    if kinds[0] == "data":
        return TextPart(text=dumps_text(part.raw("data")))
    if kinds[0] == "url":
        return media_part(part.need("url"), media_type, name)
    return FilePart(
        media_type=media_type or "application/octet-stream", data=_base64(part), name=name
    )


def _base64(part: Fields) -> str:
    text = part.need("raw").translate(str.maketrans("-_", "+/")).rstrip("=")
    try:
        return base64.b64encode(
            base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
        ).decode()
    except (ValueError, binascii.Error):
        raise part.fail("raw", "is not base64") from None


def decisions_of(body: A2AMessage, fold: Fold) -> list[Decision | ClientToolResult]:
    """What a message to a task that waits decides, or gives. Raises `InputError` for one that says
    neither, before anything is recorded."""
    questions = {tool.approval_id for tool in fold.tools.values() if tool.approval_id}
    approvals = [name for name in fold.waiting if name in questions]
    calls = [name for name in fold.waiting if name not in questions]
    decisions: list[Decision | ClientToolResult] = []
    for value in body.data:
        for entry in cast("list[Any]", value) if isinstance(value, list) else [value]:
            decisions += _of_data(entry, approvals, calls, questions, {*calls, *_done(fold)})
    if decisions:
        return decisions
    if body.data:
        raise InputError(_how(approvals, calls), field="message.parts")
    if len(calls) == 1 and not approvals and body.text:
        return [ClientToolResult(calls[0], body.text)]
    question = _question_of(approvals, fold) if not calls and body.text else None
    if question is not None:
        return [Decision(approvals[0], True, None, {**question, ANSWER: body.text})]
    word = body.text.rstrip(".!").lower()
    if len(approvals) == 1 and not calls and word in _YES | _NO:
        return [Decision(approvals[0], word in _YES)]
    raise InputError(_how(approvals, calls), field="message.parts")


def _question_of(approvals: list[str], fold: Fold) -> dict[str, Any] | None:
    """The arguments of the one approval that is a question in words, as a remote agent's is."""
    if len(approvals) != 1:
        return None
    for tool in fold.tools.values():
        if tool.approval_id == approvals[0] and tool.name == INPUT:
            arguments = tool.approval_arguments
            if isinstance(arguments, dict) and set(arguments) == {QUESTION, ANSWER}:
                return cast("dict[str, Any]", arguments)
    return None


def _done(fold: Fold) -> set[str]:
    """Calls that have their result."""
    return {name for name, tool in fold.tools.items() if tool.done}


def _how(approvals: list[str], calls: list[str]) -> str:
    forms: list[str] = []
    if approvals:
        forms.append('{"approvalId": ..., "approved": true}')
    if calls:
        forms.append('{"callId": ..., "content": ...}')
    words = ", or the one word approve or deny" if len(approvals) == 1 and not calls else ""
    return f"the task waits for an answer: send a data part {' or '.join(forms)}{words}"


def _of_data(
    value: Any,
    approvals: list[str],
    calls: list[str],
    questions: Container[str],
    results: Container[str],
) -> list[Decision | ClientToolResult]:
    """``questions``: every approval of the task; ``results``: every call that waits for a result or
    has it. An answer to one of these that comes later than another is no error."""
    entry = Fields(value, "message.parts.data")
    if entry.has("callId") or (len(calls) == 1 and not approvals and "content" in entry.value):
        name = entry.text("callId") or calls[0]
        if name not in results:
            raise entry.fail("callId", "must name a call of this task that waits for a result")
        if "content" not in entry.value:
            raise entry.fail("content", "is missing")
        return [ClientToolResult(name, entry.raw("content"))]
    if not entry.has("approved"):
        raise InputError(_how(approvals, calls), field="message.parts")
    name = entry.text("approvalId") or (approvals[0] if len(approvals) == 1 else "")
    if name not in questions:
        raise entry.fail("approvalId", "must name an approval of this task")
    edited = entry.object("arguments")
    return [
        Decision(
            name,
            entry.flag("approved"),
            entry.text("reason"),
            edited.value if edited is not None else None,
        )
    ]
