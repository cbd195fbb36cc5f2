"""Models, health, metrics, and the page's session."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Annotated, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from tokenwire import __version__
from tokenwire.errors import (
    ForbiddenError,
    LogError,
    NotAuthenticatedError,
    NotFoundError,
    TokenwireError,
)
from tokenwire.observe.prometheus import exposition
from tokenwire.server.access.jwt_issuer import MOST_TOKEN
from tokenwire.server.edge.auth import Identity
from tokenwire.server.edge.bodies import choose_model, read_body
from tokenwire.server.edge.guard import RequestInfo
from tokenwire.server.edge.identify import check_reader
from tokenwire.server.edge.problems import json_response
from tokenwire.server.routes.openai import openai_form
from tokenwire.server.routes.support import unknown_model_is_404
from tokenwire.server.state import State

__all__ = ["SessionBody", "routes"]

_STARTED = time.time()


class SessionBody(msgspec.Struct, forbid_unknown_fields=True):
    """``POST /v1/session``: an API key, or a JSON Web Token."""

    key: Annotated[str, msgspec.Meta(max_length=MOST_TOKEN)]


def routes(state: State) -> list[BaseRoute]:
    """``/v1/models``, ``/livez``, ``/healthz``, ``/metrics``, ``/v1/session``."""
    state.roles.add("GET", "/metrics", "admin")
    state.error_forms["/v1/models"] = openai_form

    def route(path: str, handler: Callable[..., Awaitable[Response]], method: str) -> Route:
        async def endpoint(request: Request) -> Response:
            return await handler(state, request, request.scope["tokenwire"])

        endpoint.__doc__ = handler.__doc__

        return Route(path, endpoint, methods=[method], name=handler.__name__)

    return [
        route("/v1/models", models, "GET"),
        route("/v1/models/{model:path}", model, "GET"),
        route("/livez", alive, "GET"),
        route("/healthz", health, "GET"),
        route("/metrics", metrics, "GET"),
        route("/v1/session", sign_in, "POST"),
        route("/v1/session", sign_out, "DELETE"),
    ]


async def models(state: State, request: Request, info: RequestInfo) -> Response:
    """The models that requests may name, in the list form of OpenAI; the first is the default."""
    listed = [_entry(state, name) for name in _names(state, info)]
    return json_response({"object": "list", "data": listed})


async def model(state: State, request: Request, info: RequestInfo) -> Response:
    """One of them; its name may hold slashes and colons. Raises `HTTPProblem` (404)."""
    name = request.path_params["model"]
    with unknown_model_is_404():
        return json_response(_entry(state, choose_model(name, _names(state, info))))


def _names(state: State, info: RequestInfo) -> list[str]:
    """Models, and the agents that this principal may start."""
    hidden = {name for name, agent in state.agents.items() if not agent.allows(info.principal)}
    return [name for name in state.model_names if name not in hidden]


def _entry(state: State, name: str) -> dict[str, Any]:
    try:
        agent = name in state.agents
        provider = "tokenwire" if agent else state.registry.resolve(name)[1].provider
    except TokenwireError:
        provider = "unknown"
    entry: dict[str, Any] = {
        "id": name,
        "object": "model",
        "created": int(_STARTED),
        "owned_by": provider,
    }
    if name in state.agents:
        entry["agent"] = True
    if name == state.model:
        entry["default"] = True
    return entry


async def alive(state: State, request: Request, info: RequestInfo) -> Response:
    """200 while the event loop runs; it touches nothing else."""
    return json_response({"status": "ok", "version": __version__})


async def health(state: State, request: Request, info: RequestInfo) -> Response:
    """200 while runs can be started and read; 503 when stopping or when the store is down. It is
    200 as well while new runs are refused for a moment: readers shall still find the server."""
    status, code = "overloaded" if state.connections.check_overload() else "ok", 200
    if state.draining:
        status, code = "draining", 503
    else:
        try:
            await state.store.probe()
        except LogError as error:
            status, code = error.code, 503
    return json_response({"status": status, "version": __version__}, code)


async def metrics(state: State, request: Request, info: RequestInfo) -> Response:
    """Prometheus text, where the client library is installed. It counts the runs of everybody, so
    it is nothing for the principals of a tenant."""
    if info.identity.tenant is not None:
        raise ForbiddenError("the metrics are of all tenants; a principal of one cannot read them")
    if not state.settings.metrics:
        raise NotFoundError("metrics are off; enable them with --metrics", what="metrics")
    page = exposition(
        {
            "tokenwire_connections_open": len(state.connections),
            "tokenwire_runs_running": state.runs.census.total().running,
            "tokenwire_loop_lag_seconds": state.connections.lag,
            "tokenwire_overloaded": float(state.connections.check_overload() is not None),
            "tokenwire_starts_refused_overloaded": float(state.limits.refused["max_lag"]),
            "tokenwire_usage_counted": float(state.settling is not None),
            "tokenwire_budget_reserved_tokens": state.runs.worker.allowances.reserved_tokens,
        }
    )
    if page is None:
        raise NotFoundError(
            "metrics require prometheus-client; install tokenwire[metrics]", what="metrics"
        )
    data, kind = page
    return Response(data, headers={"content-type": kind})


async def sign_in(state: State, request: Request, info: RequestInfo) -> Response:
    """``POST /v1/session`` with a key: a cookie that scripts cannot read."""
    body = read_body(info.json, SessionBody)
    identify = state.identify
    identity = await identify.by_key(body.key, info.client) if state.auth.on else Identity()
    token, seconds = await identify.sessions.sign_in(identity)
    tenant = {"tenant": identity.tenant} if identity.tenant is not None else {}
    response = json_response({"principal": identity.user, **tenant, "expires_in": seconds})
    response.set_cookie(
        identify.sessions.cookie_name(secure=info.secure, mount=info.mount),
        token,
        max_age=seconds,
        httponly=True,
        samesite="lax",
        secure=info.secure,
    )
    return response


async def sign_out(state: State, request: Request, info: RequestInfo) -> Response:
    """``DELETE /v1/session``: end the session, on every server of the store, and what it has
    open: here at once, elsewhere within a minute. That of another person than the one who wrote
    the request stays."""
    sessions = state.identify.sessions
    session = state.identify.session_of(info)
    if session is not None:
        with suppress(NotAuthenticatedError):  # it is over
            info.identity = await sessions.check(session)
            check_reader(info)
    ended = await sessions.end(session) if session else None
    if ended is not None:
        for connection in state.connections:
            if connection.identity is not None and connection.identity.session == ended:
                connection.revoke()
    response = Response(status_code=204)
    response.delete_cookie(
        sessions.cookie_name(secure=info.secure, mount=info.mount),
        httponly=True,
        samesite="lax",
        secure=info.secure,
    )
    return response
