"""What the routes answer with, where no type of the code is that answer already."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from tokenwire.events.model import Reconnect
from tokenwire.relay.conversation.queue import WhileBusy
from tokenwire.relay.conversation.rules import ThreadRules
from tokenwire.relay.description import RunSnapshot
from tokenwire.relay.members.roster import MemberRole
from tokenwire.relay.thread_list.entries import ThreadInfo
from tokenwire.server.runs import RunDescription

__all__ = [
    "Approved",
    "AttachToken",
    "EventAt",
    "EventPage",
    "Health",
    "Model",
    "Models",
    "ProbeEvent",
    "Problem",
    "QueuedTurn",
    "Reconnect",
    "SessionBegun",
    "Snapshot",
    "Thread",
    "ThreadPage",
    "ToolAnswered",
    "UIConversation",
]


class Problem(msgspec.Struct):
    """Why a request was refused."""

    error: ProblemError


class ProblemError(msgspec.Struct, omit_defaults=True):
    """``code`` is for programs, ``message`` for people; ``request_id`` is in the server's log too.
    ``field``: which value is wrong; ``limit`` and ``most``: which limit, and what it allows;
    ``retry_after``: seconds; ``what``: the kind of what was not found."""

    code: str
    message: str
    request_id: str | None = None
    field: str | None = None
    limit: str | None = None
    most: float | None = None
    reason: str | None = None
    retry_after: float | None = None
    tail: int | None = None
    what: str | None = None


class Snapshot(RunSnapshot, kw_only=True, omit_defaults=True):
    """A run so far. ``cursor``: read its ``events`` after it; ``message``: the answer as one
    message; ``messages``: as the conversation goes on with it; ``input``: the request's."""

    events: str


class EventAt(msgspec.Struct):
    """An event of a run (`Event`), and its cursor."""

    cursor: str
    event: dict[str, Any]


class EventPage(msgspec.Struct):
    """Some events. ``next``: the cursor to ask for the next page with; ``closed``: the run has
    ended, and nothing follows."""

    events: list[EventAt]
    next: str
    closed: bool


class Approved(msgspec.Struct):
    """An answer that was recorded. ``taken``: the run has it; false where the run's process, which
    is another, has not taken it yet: it may end without it, and repeating the request says so."""

    id: str
    approved: bool
    taken: bool


class ToolAnswered(msgspec.Struct):
    """A result that was recorded; ``taken`` as of an approval."""

    id: str
    call_id: str
    taken: bool


class AttachToken(msgspec.Struct, omit_defaults=True):
    """A token, or a ticket; ``expires_in``: seconds; ``scopes``: of one that was made with a
    body."""

    expires_in: float
    token: str | None = None
    ticket: str | None = None
    run: str | None = None
    thread: str | None = None
    scopes: list[str] | None = None


class ThreadPage(msgspec.Struct, omit_defaults=True):
    """Conversations, newest first. ``retention``: seconds that each is kept after its last use;
    ``durability``: what the store outlives; ``reader``: stands for the principal; ``next``: ask for
    the next page with ``before``."""

    threads: list[ThreadInfo]
    retention: float
    durability: str
    reader: str
    next: str | None = None


class QueuedTurn(msgspec.Struct, omit_defaults=True):
    """A turn that waits. ``text``: the beginning of what it asks; ``by``: who asked; ``created``:
    Unix seconds; ``edits``: how often it was edited; ``steers``: the run that was given it."""

    id: str
    text: str
    created: float
    edits: int
    by: str | None = None
    steers: str | None = None


class Thread(msgspec.Struct, omit_defaults=True):
    """A conversation: its runs, newest first; ``active``: the run that is under way; ``head``: the
    turn that the next one continues; ``queue``: turns that wait; ``next``: ask for the next page
    with ``before``. ``history``, ``while_busy``: the rules of a turn whose request names none;
    ``rules``: those of them that the conversation sets itself. ``id``, ``role``: of a shared one,
    by what all members reach it, and what the reader may do."""

    thread: str
    active: str | None
    runs: list[RunDescription]
    next: str | None = None
    title: str | None = None
    head: str | None = None
    queue: list[QueuedTurn] | None = None
    history: str | None = None
    while_busy: WhileBusy | None = None
    rules: ThreadRules | None = None
    id: str | None = None
    role: MemberRole | None = None


class Page(msgspec.Struct, omit_defaults=True):
    """Whether older messages are left out; ``cursor``: ask for them with ``before``."""

    truncated: bool
    cursor: str | None = None


class UIConversation(msgspec.Struct, omit_defaults=True):
    """A conversation as the AI SDK's messages; ``active``: the run that is under way."""

    thread: str
    messages: list[dict[str, Any]]
    page: Page
    active: str | None = None


class AGUIConversation(msgspec.Struct, omit_defaults=True):
    """A conversation as TanStack AI reads it."""

    messages: list[dict[str, Any]]
    activeRun: dict[str, Any] | None  # noqa: N815 - the wire's own name
    interrupts: dict[str, Any] | None
    page: Page | None = None


class Model(msgspec.Struct, omit_defaults=True):
    """A model or an agent; ``default``: of requests that name none."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    agent: bool = False
    default: bool = False


class Models(msgspec.Struct):
    """What requests may name."""

    object: Literal["list"]
    data: list[Model]


class Health(msgspec.Struct):
    """``ok``, or why not."""

    status: str
    version: str


class SessionBegun(msgspec.Struct):
    """Whose session it is; ``expires_in``: seconds."""

    principal: str
    expires_in: float


class RunName(msgspec.Struct):
    """The run that a command went to."""

    run: str


class ApprovedIn(msgspec.Struct):
    """The run, and the answer that was recorded; ``taken`` as of an approval."""

    run: str
    approved: bool
    taken: bool


class StreamPointer(msgspec.Struct):
    """Where the stream of an answer is."""

    streamUrl: str  # noqa: N815 - the wire's own name


class TokenCount(msgspec.Struct):
    """An estimate of the tokens of a request."""

    input_tokens: int
    estimate: bool


class Deleted(msgspec.Struct):
    """A response that was deleted."""

    id: str
    object: Literal["response"]
    deleted: bool


class ProbeEvent(msgspec.Struct):
    """An event: ``type`` is ``seen``, ``burst``, ``burst-end``, ``tick`` or ``end``, and has
    further fields; ``at``: seconds since the request arrived (not in a ``burst``); ``n``: the
    number of a ``tick`` or ``burst``."""

    type: str
    at: float | msgspec.UnsetType = msgspec.UNSET
    n: int | msgspec.UnsetType = msgspec.UNSET
