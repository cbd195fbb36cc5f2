"""A2A 1.0: the agent card, JSON-RPC at ``POST /a2a``, and REST below it.

Always true: both bindings read the same parameters and do the same; ``/a2a/{agent}/...`` is the
same for the agent or model of that name, which A2A calls a tenant.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from tokenwire.errors import TokenwireError
from tokenwire.server.access.misses import count_misses
from tokenwire.server.edge.guard import RequestInfo
from tokenwire.server.routes.a2a import push, tasks
from tokenwire.server.routes.a2a.card import card_of
from tokenwire.server.routes.a2a.errors import (
    A2AProblem,
    rest_form,
    rpc_error,
    rpc_form,
    rpc_status,
)
from tokenwire.server.routes.a2a.list_tasks import list_tasks, parse_list
from tokenwire.server.routes.a2a.tasks import Caller
from tokenwire.server.routes.support import route
from tokenwire.server.state import State
from tokenwire.wire.a2a.request import A2AMessage, history_length, parse_message
from tokenwire.wire.fields import Fields

__all__ = ["routes"]

CARD = "/.well-known/agent-card.json"
_JSON = "application/a2a+json"


def routes(state: State) -> list[BaseRoute]:
    """The card, and ``/a2a`` with what is below it."""
    state.public_paths.add(CARD)
    state.error_forms["/a2a"] = rpc_form
    state.error_forms["/a2a/"] = rest_form
    state.error_statuses["/a2a"] = {400: rpc_status(400)}  # a body that is no JSON
    state.cors_headers += ", A2A-Version, A2A-Extensions"
    state.roles.add("POST", "/a2a", "read", "write", "approve")
    state.media_paths.add("/a2a")
    entries: list[BaseRoute] = [
        route(state, CARD, card, "GET"),
        route(state, "/a2a", rpc, "POST"),
    ]
    for base in ("/a2a", "/a2a/{tenant:path}"):
        send, stream = f"{base}/message:send", f"{base}/message:stream"
        one = f"{base}/tasks/{{task}}"
        for path in (send, stream):
            state.roles.add("POST", path, "write", "approve")
        state.roles.add("POST", f"{one}:subscribe", "read")
        configs = f"{one}/pushNotificationConfigs"
        state.roles.add("DELETE", f"{configs}/{{config}}", "write")
        entries += [
            route(state, send, rest_send, "POST"),
            route(state, stream, rest_stream, "POST"),
            route(state, f"{base}/tasks", rest_list, "GET"),
            route(state, f"{one}:cancel", rest_cancel, "POST"),
            route(state, f"{one}:subscribe", rest_subscribe, "GET", "POST"),
            route(state, configs, rest_configs, "GET", "POST"),
            route(state, f"{configs}/{{config}}", rest_config, "GET", "DELETE"),
            route(state, one, rest_get, "GET"),
            route(state, f"{base}/extendedAgentCard", extended_card, "GET"),
        ]
    for name in state.model_names:
        state.media_paths |= {f"/a2a/{name}/message:{word}" for word in ("send", "stream")}
    return entries


async def card(state: State, request: Request, info: RequestInfo) -> Response:
    """``GET /.well-known/agent-card.json``."""
    return _json(card_of(state, info), "application/json")


async def extended_card(state: State, request: Request, info: RequestInfo) -> Response:
    """``GET /a2a/extendedAgentCard``: with every agent and model that the caller may use."""
    return _json(card_of(state, info, extended=True))


def _json(value: Any, media_type: str = _JSON) -> Response:
    return Response(msgspec.json.encode(value), media_type=media_type)


def _check_version(request: Request) -> None:
    """Raise ``VersionNotSupportedError`` for a client that speaks another release."""
    version = request.headers.get("a2a-version") or request.query_params.get("A2A-Version") or "1.0"
    if version.split(".")[0] != "1":
        raise A2AProblem(
            400, "version_not_supported", f"A2A {version[:20]!r} is not supported; send 1.0"
        )


# --- JSON-RPC ------------------------------------------------------------------------------------


async def rpc(state: State, request: Request, info: RequestInfo) -> Response:
    """``POST /a2a``: one JSON-RPC request; its answer, or a stream of them."""
    value = info.json
    rpc_id = value.get("id") if isinstance(value, dict) else None
    if isinstance(rpc_id, bool) or not isinstance(rpc_id, str | int):
        rpc_id = None
    try:
        async with count_misses(state, info):
            if not info.body:
                raise A2AProblem(400, "not_json", "the body is empty; send a JSON-RPC request")
            method, params = _call_of(value)
            _check_version(request)
            caller = Caller(state, request, info, True, rpc_id)
            if "id" not in value:
                await _notified(caller, method, params)
                return Response(status_code=204)
            return await _METHODS[method](caller, params)
    except TokenwireError as error:
        if _is_notification(value):
            return Response(status_code=204)
        return rpc_error(error, info.id, rpc_id)


def _is_notification(value: Any) -> bool:
    """Whether nobody wants to read an answer: a whole call without an ``id``."""
    is_call = isinstance(value, dict) and value.get("jsonrpc") == "2.0" and "id" not in value
    return is_call and isinstance(value.get("method"), str)


async def _notified(caller: Caller, method: str, params: Fields) -> None:
    """Do what a notification of JSON-RPC says, which gets no answer: whatever it reads, nobody
    reads."""
    if method in ("SendMessage", "SendStreamingMessage"):
        _require(caller, "write", "approve")
        await _sent(caller, parse_message(params.value))
    elif method == "CancelTask":
        _require(caller, "write")
        await tasks.request_cancel(caller, params.need("id"))
    elif method.startswith(("Create", "Delete")):
        await _METHODS[method](caller, params)


def _call_of(value: Any) -> tuple[str, Fields]:
    """The method and the parameters of a request. Raises ``InvalidRequestError``."""
    is_call = isinstance(value, dict) and value.get("jsonrpc") == "2.0"
    method = value.get("method") if is_call else None
    if not isinstance(method, str):
        raise A2AProblem(400, "invalid_request", "the body must be one JSON-RPC 2.0 request")
    request_id = value.get("id")
    if isinstance(request_id, bool) or not isinstance(request_id, str | int | None):
        raise A2AProblem(400, "invalid_request", "'id' must be a string, an integer or null")
    if method not in _METHODS:
        raise A2AProblem(404, "unknown_method", f"unknown method '{method[:80]}'")
    params = value.get("params")
    return method, Fields({} if params is None else params, "")


def _result(caller: Caller, value: Any) -> Response:
    if not caller.is_rpc:
        return _json(value)
    body = {"jsonrpc": "2.0", "id": caller.rpc_id, "result": value}
    return _json(body, "application/json")


async def _send(caller: Caller, params: Fields, tenant: str | None = None) -> Response:
    _require(caller, "write", "approve")
    body = parse_message(params.value, tenant)
    message = await _sent(caller, body)
    return _result(caller, {"task": await tasks.sent_task(caller, message, body)})


async def _stream(caller: Caller, params: Fields, tenant: str | None = None) -> Response:
    _require(caller, "write", "approve")
    message = await _sent(caller, parse_message(params.value, tenant))
    return await tasks.sent_stream(caller, message)


async def _sent(caller: Caller, body: A2AMessage) -> tasks.Sent:
    """What became of a message, whose task the client hears of from now on, where it wants to."""
    config = push.parse_config(caller, body.push) if body.push is not None else None
    message = await tasks.send(caller, body)
    if config is not None and caller.state.push is not None:
        await caller.state.push.put(message.run.id, config)
    return message


async def _get(caller: Caller, params: Fields) -> Response:
    _require(caller, "read")
    return _result(caller, await tasks.get(caller, params.need("id"), history_length(params)))


async def _list(caller: Caller, params: Fields) -> Response:
    _require(caller, "read")
    return _result(caller, await list_tasks(caller, parse_list(params)))


async def _cancel(caller: Caller, params: Fields) -> Response:
    _require(caller, "write")
    return _result(caller, await tasks.cancel(caller, params.need("id")))


async def _subscribe(caller: Caller, params: Fields) -> Response:
    _require(caller, "read")
    return await tasks.subscribe(caller, params.need("id"))


async def _card(caller: Caller, params: Fields) -> Response:
    return _result(caller, card_of(caller.state, caller.info, extended=True))


async def _create_push(caller: Caller, params: Fields) -> Response:
    _require(caller, "write")
    task = params.need("taskId")
    return _result(caller, await push.create_config(caller, task, params))


async def _get_push(caller: Caller, params: Fields) -> Response:
    _require(caller, "read")
    task, name = params.need("taskId"), params.need("id")
    return _result(caller, await push.get_config(caller, task, name))


async def _list_push(caller: Caller, params: Fields) -> Response:
    _require(caller, "read")
    return _result(caller, await push.list_configs(caller, params.need("taskId")))


async def _delete_push(caller: Caller, params: Fields) -> Response:
    _require(caller, "write")
    task, name = params.need("taskId"), params.need("id")
    return _result(caller, await push.delete_config(caller, task, name))


def _require(caller: Caller, *roles: Any) -> None:
    """Raise `RoleError` without one of ``roles``."""
    identity = caller.info.identity
    if not any(identity.permits(role) for role in roles):
        identity.require(roles[0])


_METHODS: dict[str, Callable[[Caller, Fields], Awaitable[Response]]] = {
    "SendMessage": _send,
    "SendStreamingMessage": _stream,
    "GetTask": _get,
    "ListTasks": _list,
    "CancelTask": _cancel,
    "SubscribeToTask": _subscribe,
    "GetExtendedAgentCard": _card,
    "CreateTaskPushNotificationConfig": _create_push,
    "GetTaskPushNotificationConfig": _get_push,
    "ListTaskPushNotificationConfigs": _list_push,
    "DeleteTaskPushNotificationConfig": _delete_push,
}


# --- REST ----------------------------------------------------------------------------------------


def _caller(state: State, request: Request, info: RequestInfo) -> Caller:
    _check_version(request)
    return Caller(state, request, info)


async def rest_send(state: State, request: Request, info: RequestInfo) -> Response:
    """``POST /a2a/message:send``: the task, when it has ended or waits."""
    async with count_misses(state, info):
        tenant = request.path_params.get("tenant")
        return await _send(_caller(state, request, info), Fields(info.json), tenant)


async def rest_stream(state: State, request: Request, info: RequestInfo) -> Response:
    """``POST /a2a/message:stream``: the task, then its changes."""
    async with count_misses(state, info):
        tenant = request.path_params.get("tenant")
        return await _stream(_caller(state, request, info), Fields(info.json), tenant)


async def rest_get(state: State, request: Request, info: RequestInfo) -> Response:
    """``GET /a2a/tasks/{task}``: the task now."""
    async with count_misses(state, info):
        params = _query(request, id=request.path_params["task"])
        return await _get(_caller(state, request, info), params)


async def rest_list(state: State, request: Request, info: RequestInfo) -> Response:
    """``GET /a2a/tasks``: the caller's tasks, in pages."""
    async with count_misses(state, info):
        return await _list(_caller(state, request, info), _query(request))


async def rest_cancel(state: State, request: Request, info: RequestInfo) -> Response:
    """``POST /a2a/tasks/{task}:cancel``: the task as it ended."""
    async with count_misses(state, info):
        params = Fields({"id": request.path_params["task"]})
        return await _cancel(_caller(state, request, info), params)


async def rest_subscribe(state: State, request: Request, info: RequestInfo) -> Response:
    """``GET /a2a/tasks/{task}:subscribe``: the task, then its changes from now or from the
    client's cursor on."""
    async with count_misses(state, info):
        params = Fields({"id": request.path_params["task"]})
        return await _subscribe(_caller(state, request, info), params)


async def rest_configs(state: State, request: Request, info: RequestInfo) -> Response:
    """``GET``, ``POST /a2a/tasks/{task}/pushNotificationConfigs``: the caller's, and a new one."""
    async with count_misses(state, info):
        caller, task = _caller(state, request, info), {"taskId": request.path_params["task"]}
        if request.method == "POST":
            fields = Fields(info.json)
            return await _create_push(caller, Fields({**fields.value, **task}))
        return await _list_push(caller, Fields(task))


async def rest_config(state: State, request: Request, info: RequestInfo) -> Response:
    """``GET``, ``DELETE /a2a/tasks/{task}/pushNotificationConfigs/{config}``."""
    async with count_misses(state, info):
        names = {"taskId": request.path_params["task"], "id": request.path_params["config"]}
        run = _delete_push if request.method == "DELETE" else _get_push
        return await run(_caller(state, request, info), Fields(names))


def _query(request: Request, **more: str) -> Fields:
    """The query parameters with the types of their fields."""
    value: dict[str, Any] = dict(request.query_params)
    for name in ("pageSize", "historyLength"):
        text = value.get(name, "")
        if text.isascii() and text.isdigit() and len(text) < 12:
            value[name] = int(text)
    if value.get("includeArtifacts") in ("true", "false"):
        value["includeArtifacts"] = value["includeArtifacts"] == "true"
    return Fields({**value, **more})
