"""Conversations: their runs, their titles, and the list that a person sees.

Always true: a thread is its principal's own, name included; its entry in the list is a small
document beside the runs, so that a conversation without a title is still listed; erasing a thread
erases its runs.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from tokenwire.errors import InputError, LimitError, NotFoundError
from tokenwire.server.bodies import THREAD, read_body
from tokenwire.server.guard import RequestInfo
from tokenwire.server.problems import json_response
from tokenwire.server.run_info import ENDED, describe
from tokenwire.server.state import State

__all__ = ["routes", "touch"]

_KIND = "thread"
_MOST_THREADS = 1000


class _Title(msgspec.Struct, forbid_unknown_fields=True):
    title: Annotated[str, msgspec.Meta(max_length=200)]


class _Entry(msgspec.Struct, omit_defaults=True):
    """What is kept of a thread. Times are Unix seconds."""

    updated: float = 0.0
    title: str | None = None


def routes(state: State) -> list[BaseRoute]:
    """``/v1/threads``."""

    def route(path: str, handler: Callable[..., Awaitable[Response]], method: str) -> Route:
        async def endpoint(request: Request) -> Response:
            return await handler(state, request, request.scope["tokenwire"])

        return Route(path, endpoint, methods=[method], name=f"thread_{handler.__name__}")

    one = "/v1/threads/{thread}"
    return [
        route("/v1/threads", listed, "GET"),
        route(one, show, "GET"),
        route(one, name_it, "PUT"),
        route(one, erase, "DELETE"),
    ]


async def touch(state: State, principal: str, thread: str) -> None:
    """A run was started in ``thread``: it goes to the top of the list."""
    entry = await _entry(state, principal, thread) or _Entry()
    entry.updated = time.time()
    try:
        await _keep(state, principal, thread, entry)
    except LimitError:
        return  # the run is what counts; the list is full


async def listed(state: State, request: Request, info: RequestInfo) -> Response:
    """``GET /v1/threads``: this principal's conversations, newest first."""
    prefix = _name(info.principal, "")
    found = await state.log.documents(_KIND, prefix=prefix, most=_MOST_THREADS)
    threads: list[dict[str, Any]] = []
    for name, data in found.items():
        entry = msgspec.json.decode(data, type=_Entry)
        shown = {"thread": name[len(prefix) :], "title": entry.title, "updated": entry.updated}
        threads.append({k: v for k, v in shown.items() if v is not None})
    threads.sort(key=lambda thread: -thread["updated"])
    return json_response({"threads": threads})


async def show(state: State, request: Request, info: RequestInfo) -> Response:
    """``GET /v1/threads/{thread}``: its runs, newest first, and which one is under way."""
    thread = request.path_params["thread"]
    found = await state.runs.thread(thread, principal=info.principal)
    entry = await _entry(state, info.principal, thread)
    active = next((run.id for run in found if run.state not in ENDED), None)
    shown: dict[str, Any] = {
        "thread": thread,
        "active": active,
        "runs": [describe(run) for run in found],
    }
    if entry is not None and entry.title is not None:
        shown["title"] = entry.title
    return json_response(shown)


async def name_it(state: State, request: Request, info: RequestInfo) -> Response:
    """``PUT /v1/threads/{thread}`` with a ``title``."""
    thread = request.path_params["thread"]
    if not THREAD.fullmatch(thread):
        raise InputError("a thread has 1 to 128 of the characters A-Z a-z 0-9 _ . : @ -")
    body = read_body(info.json, _Title)
    entry = await _entry(state, info.principal, thread) or _Entry(updated=time.time())
    entry.title = body.title
    await _keep(state, info.principal, thread, entry)
    return json_response({"thread": thread, "title": entry.title, "updated": entry.updated})


async def erase(state: State, request: Request, info: RequestInfo) -> Response:
    """``DELETE /v1/threads/{thread}``: the conversation and all of its runs."""
    thread = request.path_params["thread"]
    while found := await state.runs.thread(thread, principal=info.principal):
        for run in found:
            try:
                await state.runs.delete(run.id, principal=info.principal)
            except NotFoundError:
                continue  # somebody else erased it meanwhile
            state.limits.give_back(info.principal, run.id)
    await state.log.set_document(_KIND, _name(info.principal, thread), None)
    return Response(status_code=204)


def _name(principal: str, thread: str) -> str:
    return f"{principal}\x1f{thread}"


async def _entry(state: State, principal: str, thread: str) -> _Entry | None:
    name = _name(principal, thread)
    # Names that begin with this one come along; the exact one is among the first few.
    data = (await state.log.documents(_KIND, prefix=name, most=_MOST_THREADS)).get(name)
    return None if data is None else msgspec.json.decode(data, type=_Entry)


async def _keep(state: State, principal: str, thread: str, entry: _Entry) -> None:
    known = await state.log.documents(_KIND, prefix=_name(principal, ""), most=_MOST_THREADS + 1)
    name = _name(principal, thread)
    if name not in known and len(known) >= _MOST_THREADS:
        raise LimitError(
            f"more than {_MOST_THREADS} threads; erase some",
            limit="threads",
            most=_MOST_THREADS,
        )
    await state.log.set_document(_KIND, name, msgspec.json.encode(entry))
