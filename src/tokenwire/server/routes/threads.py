"""``/v1/threads``: a person's conversations, over `tokenwire.relay.threads`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from tokenwire.errors import InputError
from tokenwire.events.names import THREAD
from tokenwire.events.reasons import OUTCOMES
from tokenwire.events.validation import whole_number
from tokenwire.relay.conversation.queue import WhileBusy
from tokenwire.relay.conversation.rules import ThreadRules
from tokenwire.relay.conversation.scope import parts_of_scope
from tokenwire.relay.thread_list.entries import ThreadInfo
from tokenwire.relay.threads import MOST_THREADS, MOST_TITLE
from tokenwire.server.edge.bodies import read_body
from tokenwire.server.edge.guard import RequestInfo
from tokenwire.server.edge.problems import json_response
from tokenwire.server.routes.ai_sdk_history import compat_of, ui_messages
from tokenwire.server.routes.conversation import events, listing, members, queue, turns
from tokenwire.server.routes.conversation.turns import queue_of
from tokenwire.server.runs import describe
from tokenwire.server.state import State
from tokenwire.server.tokens.routes import thread_routes

__all__ = ["NamedThread", "ThreadBody", "routes"]

#: Runs of a thread that a page has unless ``limit`` says otherwise.
_USUAL_RUNS = 100
#: Runs of an erased thread that the quotas may still list.
_MOST_COUNTED = 1000


class ThreadBody(msgspec.Struct, forbid_unknown_fields=True):
    """``PUT /v1/threads/{thread}``: a title, and the rules of turns whose request names none (null:
    as the server is set). What is not there stays."""

    title: Annotated[str, msgspec.Meta(max_length=MOST_TITLE)] | msgspec.UnsetType = msgspec.UNSET
    history: str | msgspec.UnsetType | None = msgspec.UNSET
    while_busy: WhileBusy | msgspec.UnsetType | None = msgspec.UNSET


class NamedThread(ThreadInfo, kw_only=True, omit_defaults=True):
    """The conversation, and the ``rules`` that it sets itself."""

    rules: ThreadRules | None = None


def routes(state: State) -> list[BaseRoute]:
    """``/v1/threads``, and a thread's turns and queue."""

    def route(path: str, handler: Callable[..., Awaitable[Response]], method: str) -> Route:
        async def endpoint(request: Request) -> Response:
            return await handler(state, request, request.scope["tokenwire"])

        endpoint.__doc__ = handler.__doc__

        return Route(path, endpoint, methods=[method], name=f"thread_{handler.__name__}")

    one = "/v1/threads/{thread}"
    return [
        route("/v1/threads", listed, "GET"),
        route(one, show, "GET"),
        route(one, name_it, "PUT"),
        route(one, erase, "DELETE"),
        *thread_routes(state),
        *turns.routes(state),
        *queue.routes(state),
        *members.routes(state),
        *events.routes(state),
    ]


async def listed(state: State, request: Request, info: RequestInfo) -> Response:
    """``GET /v1/threads``: this principal's conversations, newest first, in pages: ``limit`` of
    them, ``before`` the thread that the last page named as ``next``. With how long each is kept:
    ``retention`` seconds after its last use, what the store's ``durability`` is, and ``reader``,
    which stands for the principal. With ``live`` the list as it changes
    (`tokenwire.server.routes.conversation.listing`)."""
    if "live" in request.query_params:
        return await listing.followed(state, request, info)
    limit, before = _limit(request), request.query_params.get("before")
    listed = await state.threads.page(info.principal, limit, before)
    page: dict[str, Any] = {
        "threads": listed.threads,
        "retention": state.settings.retention,
        "durability": state.store.durability,
        "reader": info.reader,
    }
    if listed.next is not None:
        page["next"] = listed.next
    return json_response(page)


def _thread(request: Request) -> str:
    thread: str = request.path_params["thread"]
    if not THREAD.fullmatch(thread):
        raise InputError("a thread has 1 to 128 of the characters A-Z a-z 0-9 _ . : @ -")
    return thread


def _limit(request: Request, usual: int = MOST_THREADS) -> int:
    """How many entries of a list a page has."""
    number = whole_number(request.query_params.get("limit", str(usual)))
    if number is None or not 1 <= number <= MOST_THREADS:
        raise InputError(f"'limit' must be a whole number from 1 to {MOST_THREADS}", field="limit")
    return number


async def show(state: State, request: Request, info: RequestInfo) -> Response:
    """``GET /v1/threads/{thread}``: its runs, newest first, and which one is under way; with
    ``as=ui-messages`` the conversation as the AI SDK's messages."""
    thread, query = _thread(request), request.query_params
    if (form := query.get("as")) is not None:
        if form != "ui-messages":
            raise InputError("'as' must be ui-messages", field="as")
        compat = compat_of(state, request)
        limit, before = query.get("limit"), query.get("before")
        conversation = await ui_messages(
            state, thread, info.principal, compat=compat, limit=limit, before=before
        )
        return json_response(conversation)
    limit = _limit(request, _USUAL_RUNS)
    before = query.get("before")
    # Before the runs: a turn that leaves the queue meanwhile is among them.
    waiting = await state.conversations.queue(info.principal, thread, waits=False)
    # One more than the page, to know whether there are more.
    runs = await state.runs.thread(thread, principal=info.principal, most=limit + 1, before=before)
    active = next((run.id for run in runs if run.state not in OUTCOMES), None)
    page: dict[str, Any] = {
        "thread": thread,
        "active": active,
        "runs": [describe(run, info.mount) for run in runs[:limit]],
    }
    if len(runs) > limit:
        page["next"] = runs[limit - 1].id
    if waiting.waiting or waiting.head is not None:
        page |= queue_of(waiting)
    own = await state.conversations.own_rules(info.principal, thread)
    rules = state.conversations.in_force(own)
    page |= {"history": rules.history, "while_busy": rules.while_busy}
    if own != ThreadRules():
        page["rules"] = own
    title = await state.threads.title(info.principal, thread)
    if title:
        page["title"] = title
    access = await state.runs.members.enter(info.principal, thread)
    if access.id is not None:
        page |= {"id": access.id, "role": access.role}
    return json_response(page)


async def name_it(state: State, request: Request, info: RequestInfo) -> Response:
    """``PUT /v1/threads/{thread}`` with a ``title`` (an empty one gives the name back that the
    thread had by itself), ``history`` or ``while_busy``."""
    thread, threads = _thread(request), state.threads
    body = read_body(info.json, ThreadBody)
    title, history, while_busy = body.title, body.history, body.while_busy
    if title is history is while_busy is msgspec.UNSET:
        raise InputError("give a 'title', 'history' or 'while_busy'", field="title")
    rules = await threads.set_rules(info.principal, thread, history=history, while_busy=while_busy)
    if isinstance(title, str):
        named = await threads.rename(info.principal, thread, title.strip())
    else:
        named = await threads.info(info.principal, thread)
    return json_response(
        NamedThread(
            thread=thread,
            title=named.title,
            updated=named.updated,
            rules=rules if rules != ThreadRules() else None,
        )
    )


async def erase(state: State, request: Request, info: RequestInfo) -> Response:
    """``DELETE /v1/threads/{thread}``: the conversation and all of its runs."""
    thread = _thread(request)
    access = await state.runs.members.enter(info.principal, thread, "own")
    # First: a token must not start a run while the others are erased. Those of members end with
    # the memberships.
    for principal, name in {(info.principal, thread), parts_of_scope(access.scope)}:
        await state.identify.tokens.revoke("thread", principal, name)
    runs = await state.runs.thread(thread, principal=info.principal, most=_MOST_COUNTED)
    await state.quotas.before_erase(info.identity, runs)
    await state.threads.erase(thread, info.principal)
    if state.settling is not None:
        await state.settling.ledger.forget_threads([access.scope])
        await state.budgets.stored.forget_threads([access.scope])
    return Response(status_code=204)
