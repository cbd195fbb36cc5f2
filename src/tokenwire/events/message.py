"""Messages: the content of a conversation, independent of the provider.

Always true: the parts keep byte for byte what a provider must receive again (signatures, encrypted
payloads, item ids), under ``meta`` keyed by dialect where only that dialect can read it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, cast

import msgspec

from tokenwire.errors import InputError
from tokenwire.events.validation import input_error

__all__ = [
    "FilePart",
    "Message",
    "OpaquePart",
    "Part",
    "ProviderResultPart",
    "ReasoningPart",
    "RefusalPart",
    "Role",
    "TextPart",
    "ToolCallPart",
    "ToolResultPart",
    "assistant",
    "messages_of",
    "require_content",
    "steered",
    "system",
    "user",
]

Role = Literal["system", "developer", "user", "assistant", "tool"]


#: The metadata of what a person said while an answer was written: the run of that.
_STEERS = "tokenwire.steers"


class _Part(msgspec.Struct, kw_only=True, omit_defaults=True):
    #: Facts of one dialect, by its name: ``{"anthropic": {...}}``; returned to it unchanged.
    meta: dict[str, Any] | None = None


class TextPart(_Part, tag="text"):
    text: str
    citations: list[dict[str, Any]] | None = None
    signature: str | None = None


class ReasoningPart(_Part, tag="reasoning"):
    text: str = ""
    summary: bool = False
    signature: str | None = None
    encrypted: str | None = None


class RefusalPart(_Part, tag="refusal"):
    text: str


class ToolCallPart(_Part, tag="tool-call"):
    """``arguments``: the JSON text as the model wrote it."""

    call_id: str
    name: str
    arguments: str = "{}"
    executor: Literal["server", "client", "provider"] = "server"
    format: Literal["json", "text"] = "json"
    signature: str | None = None
    status: Literal["complete", "truncated", "invalid", "discarded"] = "complete"


class ToolResultPart(_Part, tag="tool-result"):
    """``content``: text, or any JSON value."""

    call_id: str
    content: Any = None
    name: str = ""
    is_error: bool = False


class ProviderResultPart(_Part, tag="provider-result"):
    call_id: str = ""
    name: str = ""
    content: Any = None


class FilePart(_Part, tag="file"):
    """``data`` is base64 text; or a ``url``, which the provider fetches, never this library."""

    media_type: str = "application/octet-stream"
    data: str | None = None
    url: str | None = None
    name: str | None = None


class OpaquePart(_Part, tag="opaque"):
    name: str = ""
    payload: Any = None
    signature: str | None = None


Part = (
    TextPart
    | ReasoningPart
    | RefusalPart
    | ToolCallPart
    | ToolResultPart
    | ProviderResultPart
    | FilePart
    | OpaquePart
)


class Message(msgspec.Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One message. ``content`` may be text, for a message of one text part. ``role``: ``system``,
    ``developer``, ``user``, ``assistant`` or ``tool``. ``id`` and ``metadata`` (JSON values) are
    the caller's; no provider receives them."""

    role: Role
    content: str | list[Part] = ""
    id: str | None = None
    metadata: dict[str, Any] | None = None

    @property
    def steered_run(self) -> str | None:
        """The run into which a person said it while that was under way; None for any other."""
        run = self.metadata.get(_STEERS) if self.metadata is not None else None
        return run if isinstance(run, str) else None

    @property
    def parts(self) -> list[Part]:
        """The parts; plain text is one text part."""
        if isinstance(self.content, str):
            return [TextPart(text=self.content)] if self.content else []
        return self.content

    @property
    def text(self) -> str:
        """All text parts joined; no reasoning, no refusals."""
        return "".join(p.text for p in self.parts if isinstance(p, TextPart))

    @property
    def tool_calls(self) -> list[ToolCallPart]:
        """The tool calls, in the model's order."""
        return [p for p in self.parts if isinstance(p, ToolCallPart)]


def user(text: str) -> Message:
    """A user's message of one text part, ``text``."""
    return Message(role="user", content=text)


def steered(text: str, name: str | None, run: str) -> Message:
    """What a person said while ``run`` was under way, under the id ``name``."""
    return Message(role="user", content=text, id=name, metadata={_STEERS: run})


def system(text: str) -> Message:
    """A system message of one text part, ``text``."""
    return Message(role="system", content=text)


def assistant(text: str) -> Message:
    """An assistant's message of one text part, ``text``."""
    return Message(role="assistant", content=text)


def messages_of(prompt: object) -> list[Message]:
    """A prompt as messages: a text, a `Message`, or a list of messages or their JSON objects.
    Raises `InputError` that names the first invalid one."""
    if isinstance(prompt, str):
        return [user(prompt)]
    if isinstance(prompt, Message):
        return [prompt]
    if isinstance(prompt, dict):
        prompt = [cast(object, prompt)]
    if isinstance(prompt, bytes) or not isinstance(prompt, Iterable):
        raise InputError(
            f"the prompt must be a text, a message or a list of messages, not {prompt!r:.80}"
        )
    messages: list[Message] = []
    for number, item in enumerate(cast(Iterable[object], prompt)):
        if isinstance(item, Message):
            messages.append(item)
            continue
        try:
            messages.append(msgspec.convert(item, Message))
        except msgspec.ValidationError as error:
            raise input_error(error, at=f"messages[{number}]") from error
    return messages


def require_content(messages: list[Message]) -> None:
    """Raises `InputError` for a conversation without any content."""
    if not messages:
        raise InputError("expected at least one message", field="messages")
    if not any(message.parts for message in messages):
        raise InputError("the prompt is empty", field="prompt")
