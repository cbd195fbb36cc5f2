"""``/v1/threads/{thread}/turns`` and ``/head``: what was said, in pages, and which branch counts.

Always true: a page ends where the next one goes on, whatever is said meanwhile; the chosen branch
is the same on every device.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from tokenwire.errors import InputError
from tokenwire.events.names import THREAD
from tokenwire.events.validation import whole_number
from tokenwire.relay.conversation.history import Turn
from tokenwire.relay.conversation.queue import Entry, Queue
from tokenwire.server.edge.bodies import read_body
from tokenwire.server.edge.guard import RequestInfo
from tokenwire.server.edge.problems import json_response
from tokenwire.server.routes.runs import count_misses
from tokenwire.server.routes.support import route
from tokenwire.server.state import State
from tokenwire.server.tokens.grant import within

__all__ = ["MOST_TURNS", "HeadBody", "entry_of", "of_thread", "queue_of", "routes", "thread_of"]

Handler = Callable[[State, Request, RequestInfo], Awaitable[Response]]

#: Turns of a page, and at most.
_USUAL_TURNS, MOST_TURNS = 50, 500


class HeadBody(msgspec.Struct, forbid_unknown_fields=True):
    """``PUT .../head``: the newest turn of the branch."""

    run: str


def routes(state: State) -> list[BaseRoute]:
    """The turns of a thread."""
    one = "/v1/threads/{thread}"
    return [
        route(state, one + "/turns", of_thread(turns), "GET"),
        route(state, one + "/head", of_thread(set_head), "PUT"),
    ]


def of_thread(handler: Handler) -> Handler:
    """``handler`` under no grant: a token has been held to its own conversation by the path, all
    that these routes read and change is of that one, and the tasks of a turn that begins here
    outlive the token."""

    @functools.wraps(handler)
    async def ungranted(state: State, request: Request, info: RequestInfo) -> Response:
        with within(None):
            return await handler(state, request, info)

    return ungranted


def thread_of(request: Request) -> str:
    """The thread of the path."""
    thread: str = request.path_params["thread"]
    if not THREAD.fullmatch(thread):
        raise InputError("a thread has 1 to 128 of the characters A-Z a-z 0-9 _ . : @ -")
    return thread


async def turns(state: State, request: Request, info: RequestInfo) -> Response:
    """``GET /v1/threads/{thread}/turns``: the newest turns of its branch, oldest first: ``limit``
    of them, ``before`` the turn that the last page named as ``next``."""
    thread, query = thread_of(request), request.query_params
    most = whole_number(query.get("limit", str(_USUAL_TURNS)))
    if most is None or not 1 <= most <= MOST_TURNS:
        raise InputError(f"'limit' must be a whole number from 1 to {MOST_TURNS}", field="limit")
    async with count_misses(state, info):
        page, following = await state.conversations.page(
            info.principal, thread, most=most, before=query.get("before")
        )
    body: dict[str, Any] = {"thread": thread, "turns": [_turn(turn) for turn in page]}
    return json_response(body | ({"next": following} if following is not None else {}))


async def set_head(state: State, request: Request, info: RequestInfo) -> Response:
    """``PUT /v1/threads/{thread}/head`` with a ``run``: the branch that ends with it is the one
    that goes on, on every device."""
    thread, body = thread_of(request), read_body(info.json, HeadBody)
    async with count_misses(state, info):
        queue = await state.conversations.set_head(info.principal, thread, body.run)
    return json_response({"thread": thread, **queue_of(queue)})


def _turn(turn: Turn) -> dict[str, Any]:
    fields = {
        "run": turn.run,
        "parent": turn.parent,
        "state": turn.outcome or "running",
        "created": turn.created,
        "by": turn.by,
        "messages": turn.messages,
        "answer": turn.answer,
    }
    return {name: value for name, value in fields.items() if value is not None}


def queue_of(queue: Queue) -> dict[str, Any]:
    """Head and queue as the routes return them."""
    body: dict[str, Any] = {"queue": [entry_of(entry) for entry in queue.waiting]}
    return body | ({"head": queue.head} if queue.head is not None else {})


def entry_of(entry: Entry) -> dict[str, Any]:
    """A turn that waits as the routes return it."""
    fields = {
        "id": entry.run,
        "text": entry.text,
        "by": entry.by,
        "created": entry.created,
        "edits": entry.edits,
        "steers": entry.steers,
    }
    return {name: value for name, value in fields.items() if value is not None}
