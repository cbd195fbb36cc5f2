"""A request to a model in our own terms, before a dialect turns it into its wire."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from tokenwire.errors import InputError
from tokenwire.events.message import Message, messages_of, require_content
from tokenwire.events.validation import input_error

__all__ = ["OutputSchema", "PassedFields", "Request", "ToolChoice", "ToolSpec", "request_of"]

#: ``auto``, ``none``, ``required``, or the name of the one tool that must be called.
ToolChoice = str


class ToolSpec(msgspec.Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A tool as the model sees it. ``parameters``: JSON Schema of an object."""

    name: str
    description: str = ""
    parameters: dict[str, Any] = {}
    strict: bool | None = None
    executor: Literal["server", "client", "provider"] = "server"
    #: A provider-run tool's own object, passed through: ``{"type": "web_search"}``.
    native: dict[str, Any] | None = None


class OutputSchema(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Structured output: the answer must be JSON that matches this schema."""

    schema: dict[str, Any]
    name: str = "answer"
    strict: bool = True


class PassedFields(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Fields of a caller's request that have no place in a `Request`: ``fields`` of the ``wire``
    ``openai-chat``, ``openai-responses`` or ``anthropic``; of no wire they go nowhere."""

    wire: str = ""
    fields: dict[str, Any] = {}


class Request(msgspec.Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One request to a model.

    ``messages``: the conversation; ``system``: system prompt; ``tools``: the tools that the model
    may call; ``tool_choice``: ``auto``, ``none``, ``required`` or a tool's name;
    ``parallel_tool_calls``: several in one step; ``output``: a JSON Schema for the answer.
    ``temperature`` 0 to 2; ``top_p`` 0 to 1; ``seed``: for repeatable answers; ``max_tokens`` of
    output; ``stop``: texts that end the answer; ``reasoning``: effort (``low``, ``medium``,
    ``high``) or a budget in tokens; ``extra``: fields merged into the provider's request body
    last; ``passed``: a caller's fields that a provider of the same wire gets as they are.
    """

    messages: list[Message]
    system: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    stop: list[str] | None = None
    seed: int | None = None
    tools: list[ToolSpec] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    output: OutputSchema | None = None
    reasoning: str | int | None = None
    extra: dict[str, Any] | None = None
    passed: PassedFields | None = None

    def __post_init__(self) -> None:
        if isinstance(self.messages, str):  # a list of letters otherwise
            self.messages = messages_of(self.messages)
        if isinstance(self.stop, str):
            self.stop = [self.stop]
        if isinstance(self.tools, str):
            raise InputError("'tools' must be a list of tools, not a text", field="tools")


class _Options(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The options of an answer that a caller may set, with their bounds."""

    system: str | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    stop: list[str] | None = None
    seed: int | None = None
    tool_choice: str | None = None
    parallel_tool_calls: bool | None = None
    reasoning: str | int | None = None
    extra: dict[str, Any] | None = None


def request_of(prompt: object, *, stop: object = None, **options: object) -> Request:
    """The request of a prompt (a text, a message or a conversation) and its options. Raises
    `InputError` that names the field."""
    messages = messages_of(prompt)
    require_content(messages)
    fields = {**options, "stop": [stop] if isinstance(stop, str) else stop}
    try:
        checked = msgspec.convert(fields, _Options)
    except msgspec.ValidationError as error:
        raise input_error(error) from error
    request = Request(messages=messages, **msgspec.structs.asdict(checked))
    try:
        msgspec.json.encode(request)
    except UnicodeEncodeError as error:
        raise InputError("text is not valid Unicode: it contains a lone surrogate") from error
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"the request cannot be encoded as JSON: {error}") from error
    return request
