"""Subscriptions to Durable Streams under ``/ds/v1/stream/__ds``: make, read, claim, ack, release.

Always true: these paths are never streams; who acks or releases shows the token of a wake, which is
checked here and is no API key; everything else belongs to the principal that asks.
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from tokenwire.durable.store import owner_of
from tokenwire.durable.subscriptions import rules
from tokenwire.durable.subscriptions.config import Problem, invalid, parse_config, stream_paths
from tokenwire.durable.subscriptions.requests import Subscriptions
from tokenwire.errors import InputError
from tokenwire.server.edge.guard import RequestInfo, parse_json
from tokenwire.server.edge.problems import HTTPProblem, json_response
from tokenwire.server.routes.support import route
from tokenwire.server.state import State

__all__ = ["routes"]

#: Bodies are small: paths and offsets.
_MOST_BODY = 1 << 20
_MOST_NAME = 256
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_METHODS = ("GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS")

Handler = Callable[[State, Request, RequestInfo], Awaitable[Response]]


def routes(state: State, root: str) -> list[BaseRoute]:
    """The control paths below ``root``, which come before those of streams."""
    control = f"{root}/__ds"
    state.raw_bodies[control + "/"] = _MOST_BODY
    state.public_paths.add(f"{control}/jwks.json")  # webhooks check signatures with it
    one = control + "/subscriptions/{name}"
    state.own_tokens.append(
        re.compile(re.escape(control) + r"/subscriptions/[^/]+/(callback|ack|release)")
    )
    return [
        _route(state, f"{control}/jwks.json", GET=_jwks),
        _route(state, one, PUT=_put, GET=_get, DELETE=_delete),
        _route(state, one + "/streams", POST=_add_streams),
        _route(state, one + "/streams/{path:path}", DELETE=_remove_stream),
        _route(state, one + "/claim", POST=_claim),
        _route(state, one + "/callback", POST=_ack),
        _route(state, one + "/ack", POST=_ack),
        _route(state, one + "/release", POST=_release),
    ]


def _route(state: State, path: str, **handlers: Handler) -> BaseRoute:
    methods = ", ".join([*handlers, "OPTIONS"])

    async def answer(state: State, request: Request, info: RequestInfo) -> Response:
        if request.method == "OPTIONS":
            return Response(status_code=204, headers={"allow": methods})
        handler = handlers.get("GET" if request.method == "HEAD" else request.method)
        if handler is None:
            raise HTTPProblem(405, "method_not_allowed", f"method not allowed; use {methods}")
        try:
            return await handler(state, request, info)
        except Problem as problem:
            error = {"code": problem.code, "message": problem.message, **problem.more}
            body = {"error": {**error, "request_id": info.id}}
            headers = {"www-authenticate": "Bearer"} if problem.http_status == 401 else None
            return json_response(body, problem.http_status, headers)

    return route(state, path, answer, *_METHODS)


# --- requests ----------------------------------------------------------------------------------


async def _jwks(state: State, request: Request, info: RequestInfo) -> Response:
    signer = state.durable.subscriptions.signer
    if signer is None:
        raise Problem(404, "NOT_FOUND", "webhooks are off, so there are no keys")
    return Response(
        msgspec.json.encode(signer.jwks(time.time())),
        media_type="application/jwk-set+json",
        headers={"cache-control": "public, max-age=300"},
    )


async def _put(state: State, request: Request, info: RequestInfo) -> Response:
    subscriptions = _subscriptions(state)
    config = parse_config(_body(state, info))
    root = request.scope["path"].partition("/__ds/")[0]
    scheme = "https" if info.secure else "http"
    base = f"{scheme}://{request.headers.get('host', '')}{root}"
    owner = owner_of(info.principal)
    subscription, new = await subscriptions.put(owner, _name(request), config, base)
    return _shown(subscriptions, subscription, 201 if new else 200)


async def _get(state: State, request: Request, info: RequestInfo) -> Response:
    subscriptions = _subscriptions(state)
    subscription = await subscriptions.get(owner_of(info.principal), _name(request))
    return _shown(subscriptions, subscription, 200)


async def _delete(state: State, request: Request, info: RequestInfo) -> Response:
    await _subscriptions(state).delete(owner_of(info.principal), _name(request))
    return Response(status_code=204)


async def _add_streams(state: State, request: Request, info: RequestInfo) -> Response:
    paths = stream_paths(_body(state, info).get("streams"))
    if not paths:
        raise invalid("'streams' must name at least one stream")
    await _subscriptions(state).add_streams(owner_of(info.principal), _name(request), paths)
    return Response(status_code=204)


async def _remove_stream(state: State, request: Request, info: RequestInfo) -> Response:
    path = request.path_params["path"].strip("/")
    await _subscriptions(state).remove_stream(owner_of(info.principal), _name(request), path)
    return Response(status_code=204)


async def _claim(state: State, request: Request, info: RequestInfo) -> Response:
    worker = _body(state, info).get("worker")
    if not isinstance(worker, str) or not 0 < len(worker) <= _MOST_NAME:
        raise invalid(f"'worker' must be a name of at most {_MOST_NAME} characters")
    owner = owner_of(info.principal)
    return json_response(await _subscriptions(state).claim(owner, _name(request), worker))


async def _ack(state: State, request: Request, info: RequestInfo) -> Response:
    kind = "webhook" if request.scope["path"].endswith("/callback") else "pull-wake"
    token, body = _token(request), _body(state, info)
    return json_response(await _subscriptions(state).ack(kind, _name(request), token, body))


async def _release(state: State, request: Request, info: RequestInfo) -> Response:
    token, body = _token(request), _body(state, info)
    await _subscriptions(state).release(_name(request), token, body)
    return Response(status_code=204)


# --- their parts -------------------------------------------------------------------------------


def _subscriptions(state: State) -> Subscriptions:
    return state.durable.subscriptions


def _shown(subscriptions: Subscriptions, subscription: rules.Subscription, status: int) -> Response:
    signing: dict[str, str] | None = None
    if subscriptions.signer is not None:
        keys = f"{subscription.base}/__ds/jwks.json"
        signing = {"alg": "ed25519", "kid": subscriptions.signer.kid, "jwks_url": keys}
    return json_response(rules.serialize(subscription, signing), status)


def _name(request: Request) -> str:
    name: str = request.path_params["name"]
    if len(name) > _MOST_NAME or _CONTROL.search(name):
        raise invalid(
            f"a subscription's id has at most {_MOST_NAME} characters, none a control character"
        )
    return name


def _token(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Problem(
            401, "TOKEN_INVALID", "send the wake's token as 'Authorization: Bearer TOKEN'"
        )
    return token.strip()


def _body(state: State, info: RequestInfo) -> dict[str, Any]:
    kind = info.headers.get(b"content-type", b"").split(b";")[0].strip().lower()
    if kind != b"application/json":
        raise HTTPProblem(
            415, "unsupported_media_type", "send the body as Content-Type: application/json"
        )
    try:
        body = parse_json(info.body, state.settings.json_depth)
    except InputError as error:
        raise invalid(error.message) from error
    if not isinstance(body, dict):
        raise invalid("the body must be a JSON object")
    return body
