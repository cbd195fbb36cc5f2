"""The routes of what waits for a person, and of links by which it is decided, described."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from tokenwire.relay.waiting.inbox import MOST_PAGE, Waiting, WaitingPage
from tokenwire.server.openapi.operation import (
    EVENT_STREAM,
    Answer,
    Operation,
    answer,
    body,
    query,
)
from tokenwire.server.routes.waiting.inbox import ApprovalLink, LinkBody, LinkList
from tokenwire.server.tokens.approval_links import LINK_PATH

__all__ = ["OPERATIONS"]

_LINKS = "/v1/runs/{run}/approvals/{approval}/links"
_UNKNOWN = ("unknown_run", "gone")
_TEXT = {"type": "string"}


class InboxEvent(msgspec.Struct, omit_defaults=True):
    """One event: ``waiting`` of a ``snapshot``; the entry of a ``waiting-added``; the three ids of
    a ``waiting-removed``; the ``reason`` of a ``reconnect``."""

    waiting: list[Waiting] | None = None
    run: str | None = None
    approval: str | None = None
    call: str | None = None
    reason: str | None = None


class LinkDecision(msgspec.Struct):
    """What the reader of a link decides; a link for one decision needs none."""

    decision: Literal["approve", "deny"] | None = None
    reason: str | None = None


class LinkAnswer(msgspec.Struct, omit_defaults=True):
    """What became of a link. ``decision``: what was decided, if anything; the rest of one that is
    ``open``."""

    state: str
    decision: str | None = None
    taken: bool | None = None
    tool: str | None = None
    arguments: Any = None
    choice: str | None = None
    run: str | None = None
    expires: float | None = None


def _both(status: int, text: str) -> tuple[Answer, Answer]:
    """The page, and the same as JSON for who accepts that only."""
    page = Answer(status=status, text=text, type=_TEXT, content="text/html")
    return page, answer(status, text, LinkAnswer)


OPERATIONS: dict[tuple[str, str], Operation] = {
    ("GET", "/v1/waiting"): Operation(
        summary="What waits for the caller",
        tag="Approvals",
        text="Calls of tools and questions of agents that the caller may decide about, what waits "
        "longest first.",
        params=(
            query("limit", "So many of a page.", type="integer", minimum=1, maximum=MOST_PAGE),
            query("after", "The `next` of the page before."),
            query("thread", "Of this conversation only."),
            query("tool", "Of this tool only."),
        ),
        answers=(answer(200, "A page of it", WaitingPage),),
        problems=("bad_request",),
    ),
    ("GET", "/v1/waiting/events"): Operation(
        summary="What waits for the caller, live",
        tag="Approvals",
        text="First `snapshot` with all that waits, then `waiting-added` and `waiting-removed`; "
        "`reconnect` asks to come back. Without a cursor: who comes back gets a snapshot again.",
        params=(
            query("thread", "Of this conversation only."),
            query("tool", "Of this tool only."),
            query("live", "`no`: the snapshot alone.", enum=["sse", "no"]),
        ),
        answers=(Answer(status=200, text="Its events", items=InboxEvent, content=EVENT_STREAM),),
        problems=("bad_request", "busy"),
    ),
    ("POST", _LINKS): Operation(
        summary="A link that decides about an approval",
        tag="Approvals",
        text="For a mail or a chat: it opens a page with the call and a form. It needs no login, "
        "decides once, and is dead for any other call. Its address is said here only.",
        body=body(LinkBody, required=False),
        answers=(answer(201, "The link", ApprovalLink),),
        problems=("bad_request", "conflict", *_UNKNOWN),
    ),
    ("GET", _LINKS): Operation(
        summary="The links of an approval",
        tag="Approvals",
        answers=(answer(200, "Who made them, and what became of them", LinkList),),
        problems=_UNKNOWN,
    ),
    ("DELETE", _LINKS): Operation(
        summary="Revoke all links of an approval",
        tag="Approvals",
        answers=(answer(204, "They decide nothing any more"),),
        problems=_UNKNOWN,
    ),
    ("DELETE", _LINKS + "/{link}"): Operation(
        summary="Revoke a link",
        tag="Approvals",
        answers=(answer(204, "It decides nothing any more"),),
        problems=_UNKNOWN,
    ),
    ("GET", LINK_PATH + "{token}"): Operation(
        summary="The page of an approval link",
        tag="Approvals",
        text="Decides nothing, whoever opens it.",
        answers=(
            *_both(200, "The call, and a form"),
            *_both(404, "It is no link of this server"),
            *_both(410, "It is over, and the page says why"),
        ),
        access="none",
    ),
    ("POST", LINK_PATH + "{token}"): Operation(
        summary="Decide by an approval link",
        tag="Approvals",
        text="Once. The path itself is the right to it, so no cookie and no origin matters. The "
        "page sends a form; JSON is taken as well.",
        body=body(LinkDecision, required=False),
        answers=(
            *_both(200, "It is decided"),
            *_both(404, "It is no link of this server"),
            *_both(410, "It is over, and the page says why"),
        ),
        problems=("bad_request",),
        access="none",
        raw=True,
    ),
}
