"""``attach-tokens`` of runs and conversations: issue, refresh, and revoke tokens and tickets.

Always true: nothing is issued for a run that its sender does not see; what a token is sent with is
what it may be refreshed to, or less.
"""

from __future__ import annotations

import time
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from tokenwire.errors import InputError
from tokenwire.events.names import THREAD
from tokenwire.server.access.misses import count_misses, run_id
from tokenwire.server.edge.bodies import read_body
from tokenwire.server.edge.problems import json_response
from tokenwire.server.edge.request_info import RequestInfo
from tokenwire.server.routes.support import route
from tokenwire.server.state import State
from tokenwire.server.tokens.targets import run_target, thread_target
from tokenwire.server.tokens.tokens import MOST_TTL, TICKET_SECONDS, TTL, Target

__all__ = ["IssueBody", "run_routes", "thread_routes"]

_Seconds = Annotated[int, Meta(ge=0, le=MOST_TTL)]


class IssueBody(msgspec.Struct, forbid_unknown_fields=True):
    """``ttl``, ``refresh``: seconds. ``ticket``: for one request, in its address."""

    scopes: Annotated[list[str], Meta(max_length=8)] = msgspec.field(
        default_factory=lambda: ["read"]
    )
    ttl: Annotated[int, Meta(ge=1, le=MOST_TTL)] = TTL
    refresh: _Seconds = MOST_TTL
    ticket: bool = False


def run_routes(state: State) -> list[BaseRoute]:
    """``/v1/runs/{run}/attach-tokens``."""
    path = "/v1/runs/{run}/attach-tokens"
    _open_to_readers(state, path)
    return [
        route(state, path, attach_token, "POST"),
        route(state, path, revoke_tokens, "DELETE"),
    ]


def thread_routes(state: State) -> list[BaseRoute]:
    """``/v1/threads/{thread}/attach-tokens``."""
    path = "/v1/threads/{thread}/attach-tokens"
    _open_to_readers(state, path)
    return [
        route(state, path, thread_token, "POST"),
        route(state, path, revoke_thread_tokens, "DELETE"),
    ]


def _open_to_readers(state: State, path: str) -> None:
    """Who may read may issue, and end, what reads; scopes are held to the issuer's roles."""
    state.roles.add("POST", path, "read")
    state.roles.add("DELETE", path, "read")


async def attach_token(state: State, request: Request, info: RequestInfo) -> Response:
    """``POST /v1/runs/{run}/attach-tokens``: a token for this run, with ``scopes``, ``ttl`` and
    ``refresh`` in seconds, or with ``ticket`` one for an `EventSource`; without a body one that
    reads its events for ten minutes, and only that."""
    target = await _run(state, request, info)
    if not info.body:
        if info.identity.grant is not None or target.is_shared:
            return await _issued(state, info, target, IssueBody(refresh=0))
        token, seconds = await state.identify.sessions.attach_token(info.identity, target.name)
        return json_response({"token": token, "run": target.name, "expires_in": seconds}, 201)
    return await _issued(state, info, target, read_body(info.json, IssueBody))


async def thread_token(state: State, request: Request, info: RequestInfo) -> Response:
    """``POST /v1/threads/{thread}/attach-tokens``: the same for a conversation, with all of its
    runs, also later ones; without a body it reads for ten minutes."""
    body = read_body(info.json, IssueBody) if info.body else IssueBody(refresh=0)
    return await _issued(state, info, await _thread(state, request, info), body)


async def revoke_tokens(state: State, request: Request, info: RequestInfo) -> Response:
    """``DELETE /v1/runs/{run}/attach-tokens``: end all tokens for this run; sent with a token, end
    that one."""
    return await _revoked(state, info, await _run(state, request, info))


async def revoke_thread_tokens(state: State, request: Request, info: RequestInfo) -> Response:
    """``DELETE /v1/threads/{thread}/attach-tokens``: end all tokens for this conversation; sent
    with a token, end that one."""
    return await _revoked(state, info, await _thread(state, request, info))


async def _issued(state: State, info: RequestInfo, target: Target, body: IssueBody) -> Response:
    text, grant = await state.identify.tokens.issue(
        info.identity,
        target,
        scopes=body.scopes,
        ttl=body.ttl,
        refresh=body.refresh,
        is_ticket=body.ticket,
    )
    seconds = max(0, grant.ends - int(time.time()))
    answer: dict[str, Any] = {
        "ticket" if body.ticket else "token": text,
        target.kind: target.name,
        "scopes": grant.scopes,
        "expires_in": min(seconds, TICKET_SECONDS) if body.ticket else seconds,
    }
    return json_response(answer, 201)


async def _revoked(state: State, info: RequestInfo, target: Target) -> Response:
    tokens, grant = state.identify.tokens, info.identity.grant
    if grant is not None:
        await tokens.revoke_one(grant)
    else:
        await tokens.revoke(target.kind, info.principal, target.name)
    return Response(status_code=204)


async def _run(state: State, request: Request, info: RequestInfo) -> Target:
    run = run_id(request)
    async with count_misses(state, info):
        return await run_target(state.runs, run, info.principal)


async def _thread(state: State, request: Request, info: RequestInfo) -> Target:
    thread: str = request.path_params["thread"]
    if not THREAD.fullmatch(thread):
        raise InputError("a thread has 1 to 128 of the characters A-Z a-z 0-9 _ . : @ -")
    async with count_misses(state, info):
        return await thread_target(state.runs.members, thread, info.principal)
