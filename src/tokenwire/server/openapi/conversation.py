"""The routes of a conversation's turns, queue and members, described; and what each start of a run
may say of its conversation."""

from __future__ import annotations

from typing import Literal

import msgspec

from tokenwire.events.message import Message
from tokenwire.events.model import RunStatus
from tokenwire.relay.conversation.queue import WHILE_BUSY, WhileBusy
from tokenwire.relay.thread_list.entries import ThreadInfo
from tokenwire.server.feeds.respond import LIVE
from tokenwire.server.openapi.operation import (
    EVENT_STREAM,
    Answer,
    Operation,
    answer,
    body,
    header,
    query,
)
from tokenwire.server.openapi.shapes import QueuedTurn
from tokenwire.server.routes.conversation.events import RUNS
from tokenwire.server.routes.conversation.members import (
    AcceptBody,
    InviteBody,
    InviteDescription,
    MemberBody,
    MemberList,
)
from tokenwire.server.routes.conversation.queue import EditBody
from tokenwire.server.routes.conversation.turns import MOST_TURNS, HeadBody
from tokenwire.server.runs import RunDescription

__all__ = [
    "IN_THREAD",
    "LIST_EVENTS",
    "OPERATIONS",
    "THREAD_PARAMS",
    "ListEventPage",
    "QueuedRun",
]

_HISTORY = query(
    "history",
    "How much of its thread the model is given: `thread` (as the server is set), `all`, "
    "`last:TURNS`, `tokens:NUMBER`, or `none`. What is posted is then only appended.",
)
_WHILE_BUSY = query(
    "while_busy",
    "What the turn does while another one of its thread is under way; with `history` only.",
    enum=list(WHILE_BUSY),
)
#: What a start of a run may say of its conversation, where the body names that.
THREAD_PARAMS = (_HISTORY, _WHILE_BUSY)
#: The same on wires that know no conversation.
IN_THREAD = (*THREAD_PARAMS, query("thread", "The conversation, with `history`."))
_UNKNOWN = ("unknown_run", "gone")


class QueuedRun(msgspec.Struct):
    """A turn that waits: the ``id`` that its run will have, its place in the ``queue``; or one that
    was given to the ``run`` under way, as words between its steps. ``while_busy``: by which
    rule."""

    id: str
    state: Literal["queued", "steering"]
    position: int
    run: str | None = None
    thread: str | None = None
    queue: str | None = None
    while_busy: WhileBusy | None = None


class TurnQueue(msgspec.Struct, omit_defaults=True):
    """What waits, in its order; ``head``: the turn that the next one continues."""

    thread: str
    queue: list[QueuedTurn]
    head: str | None = None


class WaitingTurn(QueuedTurn, kw_only=True, omit_defaults=True):
    """A turn that waits, with all that it asks; ``position``: its place in the queue, from 1."""

    position: int
    messages: list[Message]


class OneTurn(msgspec.Struct, omit_defaults=True):
    """What was asked, and what ``run`` answered; ``parent``: the turn before it; ``by``: the plain
    id of who asked."""

    run: str
    state: RunStatus
    created: float
    messages: list[Message]
    answer: list[Message]
    parent: str | None = None
    by: str | None = None


class TurnPage(msgspec.Struct, omit_defaults=True):
    """Turns of the conversation's branch, oldest first; ``next``: ask for older ones with
    ``before``."""

    thread: str
    turns: list[OneTurn]
    next: str | None = None


class CreatedInvite(msgspec.Struct):
    """An invitation: its ``token`` is said this once; ``invite``: its name, for revoking it;
    ``thread``: the id by which whoever joins reaches the conversation; ``expires_in``: seconds."""

    token: str
    invite: str
    thread: str
    role: Literal["read", "write", "approve"]
    expires_in: int
    uses: int


class OpenInvites(msgspec.Struct):
    """The invitations that may still be accepted."""

    invites: list[InviteDescription]


class ThreadEvent(msgspec.Struct, omit_defaults=True):
    """What happened, at the Unix millisecond ``at``, by a person, if one is known. Further fields
    are those of its ``type``."""

    type: str
    thread: str | None = None
    at: int | None = None
    by: str | None = None


class ThreadEventAt(msgspec.Struct, omit_defaults=True):
    """An event; one that only passes has no cursor."""

    event: ThreadEvent
    cursor: str | None = None


class ThreadEventPage(msgspec.Struct):
    """Some events. ``next``: the cursor to ask for the next page with; ``reader`` stands for the
    principal, the same text for the same one."""

    events: list[ThreadEventAt]
    next: str
    reader: str


class ListEvent(msgspec.Struct, omit_defaults=True):
    """What changed in the list of conversations, at the Unix millisecond ``at``. ``snapshot``:
    ``threads``, the newest, and ``next`` where there are more; ``thread``: ``entry`` is how it
    stands in the list now; ``thread-gone``: it does not any more; ``reset``: ``reason``."""

    type: str
    at: int | None = None
    thread: str | None = None
    entry: ThreadInfo | None = None
    threads: list[ThreadInfo] | None = None
    next: str | None = None
    reason: str | None = None


class ListEventAt(msgspec.Struct, omit_defaults=True):
    """An event; ``reset`` has no cursor."""

    event: ListEvent
    cursor: str | None = None


class ListEventPage(msgspec.Struct):
    """Some events. ``next``: the cursor to ask for the next page with; ``reader`` stands for the
    principal, the same text for the same one."""

    events: list[ListEventAt]
    next: str
    reader: str


#: A stream of them.
LIST_EVENTS = Answer(status=200, text="What changes", items=ListEvent, content=EVENT_STREAM)
EVENTS = Answer(status=200, text="The events", items=ThreadEvent, content=EVENT_STREAM)

_QUEUE = "/v1/threads/{thread}/queue"
_MEMBERS, _INVITES = "/v1/threads/{thread}/members", "/v1/threads/{thread}/invites"

OPERATIONS: dict[tuple[str, str], Operation] = {
    ("GET", "/v1/threads/{thread}/turns"): Operation(
        summary="The turns of a conversation",
        tag="Conversations",
        text="Those of the branch that counts: what was asked, and what was answered.",
        params=(
            query("limit", "So many of a page.", type="integer", minimum=1, maximum=MOST_TURNS),
            query("before", "Older ones than this: the `next` of the last page."),
        ),
        answers=(answer(200, "A page of them", TurnPage),),
        problems=("bad_request", *_UNKNOWN),
    ),
    ("GET", "/v1/threads/{thread}/events"): Operation(
        summary="A conversation as it happens",
        tag="Conversations",
        text="First a snapshot, then what happens: runs, queue, title, who is there. Each event is "
        "an SSE block with its JSON, which the guide of conversations lists; `id` is its cursor.",
        params=(
            header("Last-Event-ID", "Continue after this event."),
            query("after", "As Last-Event-ID, which counts more."),
            query("runs", "`full`: with the events of its runs.", enum=list(RUNS)),
            query("live", "One JSON page instead of a stream.", enum=list(LIVE)),
        ),
        answers=(EVENTS, answer(200, "A page of events", ThreadEventPage)),
        problems=("bad_request", "bad_cursor"),
    ),
    ("POST", "/v1/threads/{thread}/typing"): Operation(
        summary="Say that this person types",
        tag="Conversations",
        text="Whoever follows the conversation hears it, for some seconds. It is not stored.",
        answers=(answer(204, "It is told"),),
        problems=("bad_request",),
    ),
    ("PUT", "/v1/threads/{thread}/head"): Operation(
        summary="Choose a conversation's branch",
        tag="Conversations",
        text="The one that ends with `run`: the next turn continues it, on every device.",
        body=body(HeadBody),
        answers=(answer(200, "Head and queue", TurnQueue),),
        problems=_UNKNOWN,
    ),
    ("GET", _QUEUE): Operation(
        summary="The turns that wait",
        tag="Conversations",
        answers=(answer(200, "Head and queue", TurnQueue),),
        problems=("bad_request",),
    ),
    ("GET", _QUEUE + "/{run}"): Operation(
        summary="A turn that waits",
        tag="Conversations",
        text="What it asks, whole: the list has its beginning.",
        answers=(answer(200, "The turn", WaitingTurn),),
        problems=("bad_request", "conflict", *_UNKNOWN),
    ),
    ("PUT", _QUEUE + "/{run}"): Operation(
        summary="Edit a turn that waits",
        tag="Conversations",
        body=body(EditBody),
        answers=(answer(200, "Head and queue", TurnQueue),),
        problems=("conflict", *_UNKNOWN),
    ),
    ("DELETE", _QUEUE + "/{run}"): Operation(
        summary="Withdraw a turn that waits",
        tag="Conversations",
        answers=(answer(200, "Head and queue", TurnQueue),),
        problems=("conflict", *_UNKNOWN),
    ),
    ("POST", _QUEUE + "/{run}/now"): Operation(
        summary="Send a turn that waits now",
        tag="Conversations",
        text="The turn under way is stopped.",
        answers=(
            answer(201, "Its run", RunDescription),
            answer(202, "The other one still ends", QueuedRun),
        ),
        problems=("conflict", *_UNKNOWN),
    ),
    ("GET", _MEMBERS): Operation(
        summary="The members of a conversation",
        tag="Conversations",
        answers=(answer(200, "Who belongs to it", MemberList),),
        problems=("bad_request", "unknown_run"),
    ),
    ("PUT", _MEMBERS + "/{principal}"): Operation(
        summary="Add a member, or change a role",
        tag="Conversations",
        text="For owners. The answer's `id` is what the member calls the conversation.",
        body=body(MemberBody),
        answers=(answer(200, "Who belongs to it", MemberList),),
        problems=("conflict", "unknown_run"),
    ),
    ("DELETE", _MEMBERS + "/{principal}"): Operation(
        summary="Remove a member, or leave",
        tag="Conversations",
        text="Owners remove others, everybody may leave; the last owner may not. Open streams "
        "of the member end, and tokens.",
        answers=(answer(204, "No member any more"),),
        problems=("conflict", "unknown_run"),
    ),
    ("GET", _INVITES): Operation(
        summary="The open invitations to a conversation",
        tag="Conversations",
        answers=(answer(200, "Without their tokens", OpenInvites),),
        problems=("bad_request", "forbidden", "unknown_run"),
    ),
    ("POST", _INVITES): Operation(
        summary="Invite to a conversation",
        tag="Conversations",
        text="For owners: a token by which as many people as `uses` says join, each once.",
        body=body(InviteBody, required=False),
        answers=(answer(201, "The invitation", CreatedInvite),),
        problems=("conflict", "unknown_run"),
    ),
    ("DELETE", _INVITES + "/{invite}"): Operation(
        summary="Revoke an invitation",
        tag="Conversations",
        text="It admits nobody any more; who has joined stays.",
        answers=(answer(204, "Revoked"),),
        problems=("unknown_run",),
    ),
    ("POST", "/v1/invites/accept"): Operation(
        summary="Accept an invitation",
        tag="Conversations",
        text="Every invitation that does not count has the same answer.",
        body=body(AcceptBody),
        answers=(answer(200, "The conversation, and who belongs to it", MemberList),),
        problems=("unknown_run",),
    ),
}
