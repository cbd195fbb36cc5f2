"""The native routes: start, read, cancel, answer and erase a run.

Always true: closing a connection stops nothing; a foreign run and an unknown one give the same
answer; a request with an ``Idempotency-Key`` starts at most one run.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from tokenwire.errors import CursorError, InputError
from tokenwire.events.message import Message
from tokenwire.events.principal import parts_of
from tokenwire.relay.conversation.conversations import Reply
from tokenwire.relay.conversation.posted import Continuation
from tokenwire.server.access.misses import count_misses, run_id
from tokenwire.server.edge.auth import Identity
from tokenwire.server.edge.bodies import (
    ApprovalBody,
    CancelBody,
    CreateRun,
    ToolAnswerBody,
    read_body,
)
from tokenwire.server.edge.guard import RequestInfo
from tokenwire.server.edge.json_page import long_poll, page
from tokenwire.server.edge.problems import json_response
from tokenwire.server.edge.respond import run_response
from tokenwire.server.edge.whole import whole_answer
from tokenwire.server.routes.resume import resume_of
from tokenwire.server.routes.waiting.inbox import routes as waiting_routes
from tokenwire.server.runs import describe
from tokenwire.server.starts.start import (
    Start,
    ThreadQuery,
    query_of,
    say,
    start_run,
    thread_query,
)
from tokenwire.server.state import State
from tokenwire.server.tokens.grant import thread_to_start
from tokenwire.server.tokens.routes import run_routes
from tokenwire.wire.native import NativeEncoder

__all__ = ["begin", "count_misses", "describe", "routes"]


def routes(state: State) -> list[BaseRoute]:
    """``/v1/runs`` and what is under it."""

    def route(path: str, handler: Callable[..., Awaitable[Response]], method: str) -> Route:
        async def endpoint(request: Request) -> Response:
            return await handler(state, request, request.scope["tokenwire"])

        endpoint.__doc__ = handler.__doc__

        return Route(path, endpoint, methods=[method], name=handler.__name__)

    one = "/v1/runs/{run}"
    state.roles.add("POST", one + "/approvals/{approval}", "approve")
    return [
        route("/v1/runs", create, "POST"),
        route(one, snapshot, "GET"),
        route(one, delete, "DELETE"),
        route(one + "/info", describe_run, "GET"),
        route(one + "/events", events, "GET"),
        route(one + "/cancel", cancel, "POST"),
        route(one + "/approvals/{approval}", approve, "POST"),
        route(one + "/tools/{call}", answer_tool, "POST"),
        *run_routes(state),
        *waiting_routes(state),
    ]


async def create(state: State, request: Request, info: RequestInfo) -> Response:
    """``POST /v1/runs``: 201 and the run's location; the stream to an event-stream reader."""
    body = read_body(info.json, CreateRun)
    resume = await resume_of(state, request, info)
    if resume is not None and resume.place.frames is not None:
        raise CursorError("this id is of another wire; send an id of the native wire")
    key = request.headers.get("idempotency-key")
    reply: Reply | None = None
    if resume is not None and key is None:
        run = resume.run
        run.created_now = False
    else:
        reply = await begin(state, body, info.identity, key, query_of(request))
        if reply.info is None:
            return waits(reply, body.thread or "", info.mount)
        run = reply.info
    status = 201 if run.created_now else 200
    headers = {"location": f"{info.mount}/v1/runs/{run.id}", "tokenwire-run": run.id}
    if "text/event-stream" in request.headers.get("accept", ""):
        after = resume.place.cursor if resume is not None else None
        return await run_response(
            state,
            run.id,
            encoder=NativeEncoder(),
            after=after,
            principal=info.principal,
            status=status,
            headers=headers,
        )
    description = describe(run, info.mount)
    if reply is not None and reply.while_busy is not None:
        description["while_busy"] = reply.while_busy
    return json_response(description, status, headers)


async def begin(
    state: State, body: CreateRun, identity: Identity, key: str | None, query: ThreadQuery
) -> Reply:
    """Start the run of a body: alone, or as the next turn of its thread. A ``prompt`` in a thread
    continues it; ``messages`` are the whole conversation, unless ``history`` says otherwise."""
    body.thread = thread_to_start(body.thread)
    request = body.request(state.settings)
    history = body.history or query.history
    is_turn = body.parent is not None or body.replaces is not None
    if history is None and body.thread is not None and (is_turn or body.messages is None):
        history = "thread"
    query = thread_query(history, body.while_busy or query.while_busy)
    how = Start(
        model=body.model,
        identity=identity,
        key=key,
        thread=body.thread,
        on_disconnect=body.on_disconnect,
        metadata=body.metadata,
        approval_timeout=body.approval_timeout,
        budget=body.budget_text,
    )
    if query.history is not None and body.thread is not None:
        following = await _following(state, body, request.messages, how.principal)
        return await say(state, request, how, query, following)
    if is_turn:
        raise InputError("'parent' and 'replaces' need a 'thread' with its history", field="thread")
    run = await start_run(
        state,
        request,
        model=body.model,
        identity=identity,
        key=key,
        thread=body.thread,
        metadata=body.metadata,
        on_disconnect=body.on_disconnect,
        approval_timeout=body.approval_timeout,
        budget=body.budget_text,
    )
    return Reply(run=run.id, info=run)


async def _following(
    state: State, body: CreateRun, messages: list[Message], principal: str
) -> Continuation:
    """After which turn the messages of a body go on."""
    conversations, thread = state.conversations, body.thread or ""
    if body.replaces is not None:
        return await conversations.instead(principal, thread, body.replaces, messages)
    if body.parent == "":
        return Continuation(messages=messages)
    if body.parent is not None:
        return await conversations.behind(principal, thread, body.parent, messages)
    return await conversations.after(principal, thread, messages)


def waits(reply: Reply, thread: str, mount: str) -> Response:
    """202: the turn waits, under the id that its run will have; or it was given to the ``run``
    under way."""
    body = {
        "id": reply.run,
        "state": "queued" if reply.steers is None else "steering",
        **({} if reply.steers is None else {"run": reply.steers}),
        "thread": thread,
        "position": reply.position,
        **({} if reply.while_busy is None else {"while_busy": reply.while_busy}),
        "queue": f"{mount}/v1/threads/{thread}/queue/{reply.run}",
    }
    return json_response(body, 202, {"tokenwire-run": reply.run})


async def snapshot(state: State, request: Request, info: RequestInfo) -> Response:
    """``GET /v1/runs/{run}``: its state and its message so far."""
    run = run_id(request)

    async def made() -> dict[str, Any]:
        body = await state.runs.snapshot(run, principal=info.principal)
        starter = parts_of(body.principal)[0]
        by = {"principal": starter, "by": starter} if starter else {}
        return {
            **msgspec.to_builtins(body),
            **by,
            "events": f"{info.mount}/v1/runs/{run}/events",
        }

    async with count_misses(state, info):
        return await whole_answer(state, request.scope, run, info.principal, made)


async def describe_run(state: State, request: Request, info: RequestInfo) -> Response:
    """``GET /v1/runs/{run}/info``: the description alone, without reading the log."""
    run = run_id(request)
    async with count_misses(state, info):
        run_info = await state.runs.info(run, principal=info.principal)
    return json_response(describe(run_info, info.mount))


async def events(state: State, request: Request, info: RequestInfo) -> Response:
    """``GET /v1/runs/{run}/events``: the stream after ``Last-Event-ID`` or ``?after=``. With
    ``live=long-poll`` one JSON page as soon as there is something; ``live=no``: what is there.
    204, which stops an `EventSource`, to a reader that has the last event of a run that ended."""
    run = run_id(request)
    query = request.query_params
    unknown = set(query) - {"after", "live"}
    if unknown:
        raise InputError(f"unknown parameter '{min(unknown)}'", field=min(unknown))
    after = request.headers.get("last-event-id") or query.get("after") or None
    live = query.get("live", "sse")
    if live not in ("sse", "long-poll", "no"):
        raise InputError("'live' must be sse, long-poll or no", field="live")
    async with count_misses(state, info):
        if live == "no":
            return await page(state, run, after, info.principal)
        if live == "long-poll":
            return await long_poll(state, run, after, info.identity, request.receive)
        response = await run_response(
            state,
            run,
            encoder=NativeEncoder(),
            after=after,
            principal=info.principal,
            headers={"tokenwire-run": run},
        )
    if after is not None and await is_read(state, run, response.follower.after):
        response.discard()
        return Response(status_code=204)
    return response


async def is_read(state: State, run: str, offset: int) -> bool:
    """Whether the run has ended and its last event is the one at ``offset``."""
    log_info = await state.store.describe(run)
    return log_info.closed is not None and offset >= log_info.tail


async def cancel(state: State, request: Request, info: RequestInfo) -> Response:
    """``POST .../cancel``: 202; readers see the run end as ``cancelled``."""
    run = run_id(request)
    body = read_body(info.json, CancelBody)
    async with count_misses(state, info):
        run_info = await state.runs.cancel(
            run, principal=info.principal, by=info.by, reason=body.reason
        )
    return json_response(describe(run_info, info.mount), 202)


async def approve(state: State, request: Request, info: RequestInfo) -> Response:
    """``POST .../approvals/{approval}``: yes or no, perhaps with edited arguments; 202."""
    info.identity.require("approve")
    run = run_id(request)
    body = read_body(info.json, ApprovalBody)
    async with count_misses(state, info):
        is_taken = await state.runs.approve(
            run,
            request.path_params["approval"],
            approved=body.approved,
            by=info.by,
            reason=body.reason,
            arguments=body.arguments,
            principal=info.principal,
        )
    return json_response({"id": run, "approved": body.approved, "taken": is_taken}, 202)


async def answer_tool(state: State, request: Request, info: RequestInfo) -> Response:
    """``POST .../tools/{call}``: the result of a tool that the client ran; 202."""
    run = run_id(request)
    body = read_body(info.json, ToolAnswerBody)
    async with count_misses(state, info):
        is_taken = await state.runs.answer_tool(
            run,
            request.path_params["call"],
            content=body.content,
            by=info.by,
            principal=info.principal,
        )
    call = request.path_params["call"]
    return json_response({"id": run, "call_id": call, "taken": is_taken}, 202)


async def delete(state: State, request: Request, info: RequestInfo) -> Response:
    """``DELETE /v1/runs/{run}``: cancel the run and delete its log."""
    run = run_id(request)
    async with count_misses(state, info):
        run_info = await state.runs.info(run, principal=info.principal)
        await state.threads.check_owner(run_info, info.principal)
        await state.quotas.before_erase(info.identity, [run_info])
        await state.threads.erase_run(run, info.principal)
    return Response(status_code=204)
