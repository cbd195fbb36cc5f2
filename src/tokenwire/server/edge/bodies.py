"""Request bodies to typed values: what a client may say, and nothing else.

Always true: an unknown field, a wrong type or a text over its limit is an `InputError` or
`LimitError` that names the field; nothing of a body reaches a URL, a header or a key of a provider.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from tokenwire.errors import InputError, LimitError, UnknownModelError
from tokenwire.events.message import (
    FilePart,
    Message,
    ReasoningPart,
    TextPart,
    require_content,
    user,
)
from tokenwire.events.names import THREAD
from tokenwire.events.request import OutputSchema, Request, ToolSpec
from tokenwire.events.validation import input_error
from tokenwire.relay.conversation.queue import WhileBusy
from tokenwire.server.settings import Settings

__all__ = [
    "ApprovalBody",
    "CancelBody",
    "CreateRun",
    "HowToAnswer",
    "ToolAnswerBody",
    "check_request",
    "choose_model",
    "read_body",
]

T = TypeVar("T")

#: How a conversation may be called.
Name = Annotated[str, Meta(pattern=rf"\A{THREAD.pattern}\Z")]
_MOST_METADATA = 16 << 10


OnDisconnect = Annotated[str, Meta(pattern=r"\A(continue|stop|stop:[0-9]{1,5})\Z")]


class _Body(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    pass


class HowToAnswer(_Body):
    """What may be said of an answer beside the conversation."""

    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    stop: Annotated[list[str], Meta(max_length=16)] | None = None
    seed: int | None = None
    reasoning: str | int | None = None
    metadata: dict[str, Any] | None = None
    #: ``continue``, ``stop``, or ``stop:SECONDS`` to wait that long for another reader.
    on_disconnect: Annotated[str, Meta(pattern=r"\A(continue|stop|stop:[0-9]{1,5})\Z")] | None = (
        None
    )

    def __post_init__(self) -> None:
        if self.metadata and len(msgspec.json.encode(self.metadata)) > _MOST_METADATA:
            raise LimitError("'metadata' is too large", limit="metadata", most=_MOST_METADATA)

    def applied_to(self, request: Request) -> Request:
        """``request``, answered so."""
        names = ("temperature", "top_p", "max_tokens", "stop", "seed", "reasoning")
        options = {name: getattr(self, name) for name in names}
        return msgspec.structs.replace(
            request, **{name: value for name, value in options.items() if value is not None}
        )


class TokenBudget(msgspec.Struct, forbid_unknown_fields=True):
    """Tokens, in and out."""

    tokens: Annotated[int, Meta(ge=1, le=10**15)]


class CreateRun(HowToAnswer):
    """``POST /v1/runs``: a prompt or messages, and how to answer."""

    model: str | None = None
    prompt: str | None = None
    messages: list[Message] | None = None
    system: str | None = None
    tools: Annotated[list[ToolSpec], Meta(max_length=128)] | None = None
    tool_choice: str | None = None
    parallel_tool_calls: bool | None = None
    output: OutputSchema | None = None
    thread: Name | None = None
    #: What of the thread the model is given: ``thread`` (as the server is set), ``all``,
    #: ``last:TURNS``, ``tokens:NUMBER``, or ``none``.
    history: str | None = None
    while_busy: WhileBusy | None = None
    #: The turn to continue, where it is not the newest; empty: none, a branch of its own.
    parent: str | None = None
    #: The turn in whose place this one comes: edited, or without a question answered again.
    replaces: str | None = None
    #: Seconds until an approval of this run expires, where the server or the tool allow more.
    approval_timeout: Annotated[float, Meta(gt=0)] | None = None
    #: What this run may use, where its budgets allow more: ``{"tokens": 1000}``, or ``$0.05``.
    budget: TokenBudget | Annotated[str, Meta(pattern=r"\A\$[0-9]+(\.[0-9]+)?\Z")] | None = None

    @property
    def budget_text(self) -> str | None:
        """The budget as `tokenwire.relay.runs.Runs.start` takes it."""
        budget = self.budget
        return str(budget.tokens) if isinstance(budget, TokenBudget) else budget

    def request(self, settings: Settings) -> Request:
        """The model's request, with every limit checked."""
        is_again = self.replaces is not None and self.prompt is None and self.messages is None
        if not is_again and (self.prompt is None) == (self.messages is None):
            raise InputError("give either 'prompt' or 'messages'", field="prompt")
        if self.parent is not None and self.replaces is not None:
            raise InputError("give either 'parent' or 'replaces'", field="replaces")
        messages = [user(self.prompt)] if self.prompt is not None else self.messages or []
        request = Request(
            messages=messages,
            system=self.system,
            tools=_client_tools(self.tools),
            tool_choice=self.tool_choice,
            parallel_tool_calls=self.parallel_tool_calls,
            output=self.output,
        )
        request = self.applied_to(request)
        return request if is_again else check_request(request, settings)


class CancelBody(_Body):
    """``POST .../cancel``."""

    reason: Annotated[str, Meta(max_length=500)] | None = None


class ApprovalBody(_Body):
    """``POST .../approvals/{approval_id}``. ``arguments`` replaces the call's, when edited."""

    approved: bool
    reason: Annotated[str, Meta(max_length=2000)] | None = None
    arguments: dict[str, Any] | None = None


class ToolAnswerBody(_Body):
    """``POST .../tools/{call_id}``: what the client's tool gave."""

    content: Any


def read_body(value: Any, kind: type[T], *, at: str = "") -> T:
    """The parsed JSON as ``kind``; an absent body counts as ``{}``. ``at``: where in the body it
    stands, for errors."""
    try:
        return msgspec.convert({} if value is None else value, kind)
    except msgspec.ValidationError as error:
        raise input_error(error, at=at) from error


def check_request(request: Request, settings: Settings) -> Request:
    """``request`` again, or the error that says which limit it exceeds. For every wire."""
    require_content(request.messages)
    if len(request.messages) > settings.message_limit:
        most = settings.message_limit
        raise LimitError(f"more than {most} messages", limit="messages", most=most)
    media = 0
    texts = [request.system or ""]
    for message in request.messages:
        for part in message.parts:
            call_id = getattr(part, "call_id", None) or ""
            if not call_id.isprintable():
                raise InputError(
                    f"the id of a tool call may hold no control characters: {call_id[:80]!r}",
                    field="messages",
                )
            if isinstance(part, TextPart | ReasoningPart):
                texts.append(part.text)
            elif isinstance(part, FilePart) and part.data:
                media += len(part.data)
    most = settings.prompt_limit
    # A text's characters bound its bytes from below, so only long ones need to be encoded.
    if any(len(t) > most or len(t.encode()) > most for t in texts if len(t) * 4 > most):
        raise LimitError(f"a text has more than {most} bytes", limit="prompt", most=most)
    if media > settings.media_limit:
        raise LimitError(
            f"the files of this conversation have more than {settings.media_limit} characters of "
            "base64; send fewer or smaller ones, or begin a new conversation",
            limit="media",
            most=settings.media_limit,
        )
    return request


def choose_model(name: str | None, names: list[str]) -> str:
    """The model of a request: one of ``names``, the first by default."""
    if name is None:
        return names[0]
    if name not in names:
        models = ", ".join(names)
        raise UnknownModelError(
            f"unknown model '{name[:80]}'; choose one of {models}", field="model"
        )
    return name


def _client_tools(tools: list[ToolSpec] | None) -> list[ToolSpec] | None:
    """Tools that a request brings are run by its client (or the provider), never by the server."""
    if tools is None:
        return None
    client_tools: list[ToolSpec] = []
    for tool in tools:
        executor = "provider" if tool.executor == "provider" else "client"
        client_tools.append(msgspec.structs.replace(tool, executor=executor))
    return client_tools
