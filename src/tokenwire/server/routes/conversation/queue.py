"""``/v1/threads/{thread}/queue``: turns that wait: listed, edited, withdrawn, sent at once.

Always true: a turn that has begun can be none of these: 409; whoever waits elsewhere sees the same
queue.
"""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from tokenwire.errors import InputError
from tokenwire.events.message import Message, user
from tokenwire.events.request import Request as ModelRequest
from tokenwire.server.edge.bodies import check_request, read_body
from tokenwire.server.edge.guard import RequestInfo
from tokenwire.server.edge.problems import json_response
from tokenwire.server.routes.conversation.turns import (
    entry_of,
    of_thread,
    queue_of,
    thread_of,
)
from tokenwire.server.routes.runs import count_misses, run_id
from tokenwire.server.routes.support import route
from tokenwire.server.runs import describe
from tokenwire.server.state import State

__all__ = ["EditBody", "routes"]


class EditBody(msgspec.Struct, forbid_unknown_fields=True):
    """``PUT .../queue/{run}``: either of them."""

    prompt: str | None = None
    messages: list[Message] | None = None


def routes(state: State) -> list[BaseRoute]:
    """The queue of a thread."""
    queue = "/v1/threads/{thread}/queue"
    one = queue + "/{run}"
    state.media_paths.add(queue)
    state.roles.add("DELETE", one, "write")
    return [
        route(state, queue, of_thread(listed), "GET"),
        route(state, one, of_thread(entry), "GET"),
        route(state, one, of_thread(edit), "PUT"),
        route(state, one, of_thread(withdraw), "DELETE"),
        route(state, one + "/now", of_thread(send_now), "POST"),
    ]


async def listed(state: State, request: Request, info: RequestInfo) -> Response:
    """``GET /v1/threads/{thread}/queue``: the turns that wait, in their order, and the ``head``."""
    thread = thread_of(request)
    queue = await state.conversations.queue(info.principal, thread, waits=False)
    return json_response({"thread": thread, **queue_of(queue)})


async def entry(state: State, request: Request, info: RequestInfo) -> Response:
    """``GET .../queue/{run}``: a turn that waits, with the ``messages`` that it asks, and its
    ``position`` from 1. 409 once it has begun."""
    thread, run = thread_of(request), run_id(request)
    async with count_misses(state, info):
        waiting, messages, queue = await state.conversations.waiting(info.principal, thread, run)
    position = [one.run for one in queue.waiting].index(run) + 1
    return json_response({**entry_of(waiting), "position": position, "messages": messages})


async def edit(state: State, request: Request, info: RequestInfo) -> Response:
    """``PUT .../queue/{run}`` with a ``prompt`` or ``messages``: what the turn asks instead."""
    thread, body = thread_of(request), read_body(info.json, EditBody)
    if (body.prompt is None) == (body.messages is None):
        raise InputError("give either 'prompt' or 'messages'", field="prompt")
    messages = [user(body.prompt)] if body.prompt is not None else body.messages or []
    checked = check_request(ModelRequest(messages=messages), state.settings)
    async with count_misses(state, info):
        queue = await state.conversations.edit(
            info.principal, thread, run_id(request), checked.messages
        )
    return json_response({"thread": thread, **queue_of(queue)})


async def withdraw(state: State, request: Request, info: RequestInfo) -> Response:
    """``DELETE .../queue/{run}``: the turn will not be answered."""
    thread = thread_of(request)
    async with count_misses(state, info):
        queue = await state.conversations.withdraw(info.principal, thread, run_id(request))
    return json_response({"thread": thread, **queue_of(queue)})


async def send_now(state: State, request: Request, info: RequestInfo) -> Response:
    """``POST .../queue/{run}/now``: stop the turn under way, and answer this one. 201 with its run;
    202 while the other one still ends."""
    thread = thread_of(request)
    async with count_misses(state, info):
        reply = await state.conversations.send_now(info.principal, thread, run_id(request))
    if reply.info is None:
        return json_response({"id": reply.run, "state": "queued", "position": reply.position}, 202)
    return json_response(describe(reply.info, info.mount), 201)
