"""A2A's errors: one table, in the form of JSON-RPC and in that of REST.

Always true: an error of the protocol has the code and reason that A2A gives it; a failure of HTTP
itself (a key, a quota, a full server) keeps its status on both bindings.
"""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.responses import Response

from tokenwire.errors import TokenwireError
from tokenwire.server.edge.problems import HTTPProblem, error_response

__all__ = [
    "A2AProblem",
    "no_push",
    "not_cancelable",
    "rest_form",
    "rpc_error",
    "rpc_form",
    "rpc_status",
    "unsupported",
]

_INFO = "type.googleapis.com/google.rpc.ErrorInfo"
_DOMAIN = "a2a-protocol.org"
#: Details of an error that are shown.
_SHOWN = ("field", "limit", "role", "reason", "retry_after")
#: What the JSON-RPC binding answers with 200, as its errors are its own.
_IN_RPC = frozenset({400, 404, 405, 409, 410, 422, 501})


class _Kind(msgspec.Struct, frozen=True):
    """``number``: of JSON-RPC; ``status``: of gRPC; ``http``: None: the error's own."""

    number: int
    reason: str
    status: str
    http: int | None = 400


_PARAMS = _Kind(-32602, "INVALID_PARAMS", "INVALID_ARGUMENT")
_TASK = _Kind(-32001, "TASK_NOT_FOUND", "NOT_FOUND", 404)
_UNSUPPORTED = _Kind(-32004, "UNSUPPORTED_OPERATION", "FAILED_PRECONDITION")
_INTERNAL = _Kind(-32603, "INTERNAL_ERROR", "INTERNAL", None)
_KINDS: dict[str, _Kind] = {
    "unknown_run": _TASK,
    "gone": _TASK,
    "task_not_cancelable": _Kind(-32002, "TASK_NOT_CANCELABLE", "FAILED_PRECONDITION"),
    "push_not_supported": _Kind(-32003, "PUSH_NOTIFICATION_NOT_SUPPORTED", "FAILED_PRECONDITION"),
    "unsupported_operation": _UNSUPPORTED,
    "thread_busy": _UNSUPPORTED,
    "conflict": _UNSUPPORTED,
    "version_not_supported": _Kind(-32009, "VERSION_NOT_SUPPORTED", "FAILED_PRECONDITION"),
    "invalid_request": _Kind(-32600, "INVALID_REQUEST", "INVALID_ARGUMENT"),
    "unknown_method": _Kind(-32601, "METHOD_NOT_FOUND", "NOT_FOUND", 404),
    "method_not_allowed": _Kind(-32601, "METHOD_NOT_FOUND", "NOT_FOUND", 405),
    "not_found": _Kind(-32601, "METHOD_NOT_FOUND", "NOT_FOUND", 404),
    "not_json": _Kind(-32700, "PARSE_ERROR", "INVALID_ARGUMENT"),
    "unsupported_media_type": _Kind(-32005, "CONTENT_TYPE_NOT_SUPPORTED", "INVALID_ARGUMENT", None),
}
_BY_STATUS = {
    401: "UNAUTHENTICATED",
    402: "RESOURCE_EXHAUSTED",
    403: "PERMISSION_DENIED",
    408: "DEADLINE_EXCEEDED",
    413: "RESOURCE_EXHAUSTED",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


def rpc_status(status: int) -> int:
    """The HTTP status of an error of the JSON-RPC binding: 200 where it is the protocol's own."""
    return 200 if status in _IN_RPC else status


class A2AProblem(HTTPProblem):
    """An error of the protocol itself."""


def unsupported(message: str, **details: Any) -> A2AProblem:
    """``UnsupportedOperationError``."""
    return A2AProblem(400, "unsupported_operation", message, **details)


def no_push() -> A2AProblem:
    """``PushNotificationNotSupportedError``."""
    return A2AProblem(400, "push_not_supported", "push notifications are not supported")


def not_cancelable() -> A2AProblem:
    """``TaskNotCancelableError``."""
    return A2AProblem(400, "task_not_cancelable", "the task has ended and cannot be cancelled")


def _kind(code: str, message: str, status: int) -> _Kind:
    if code == "bad_request" and message.startswith("the body is not valid JSON"):
        code = "not_json"
    kind = _KINDS.get(code)
    if kind is not None:
        return kind
    if status in _BY_STATUS:
        return _Kind(-32000, code.upper(), _BY_STATUS[status], None)
    return _PARAMS if status < 500 else _INTERNAL


def _facts(
    kind: _Kind, code: str, request_id: str, details: dict[str, Any]
) -> list[dict[str, Any]]:
    # The values of this map are texts.
    metadata = {"code": code, "requestId": request_id}
    metadata |= {
        n: str(details[n])
        for n in ("field", "limit", "role", "reason", "retry_after")
        if n in details
    }
    return [{"@type": _INFO, "reason": kind.reason, "domain": _DOMAIN, "metadata": metadata}]


def rest_form(
    code: str, message: str, status: int, request_id: str, details: dict[str, Any]
) -> dict[str, Any]:
    """REST's error body, a ``google.rpc.Status``."""
    kind = _kind(code, message, status)
    facts = _facts(kind, code, request_id, details)
    error = {"code": status, "status": kind.status, "message": message, "details": facts}
    return {"error": error}


def rpc_form(
    code: str,
    message: str,
    status: int,
    request_id: str,
    details: dict[str, Any],
    rpc_id: str | int | None = None,
) -> dict[str, Any]:
    """JSON-RPC's error response."""
    kind = _kind(code, message, status)
    data = _facts(kind, code, request_id, details)
    error = {"code": kind.number, "message": message, "data": data}
    return {"jsonrpc": "2.0", "id": rpc_id, "error": error}


def rpc_error(error: TokenwireError, request_id: str, rpc_id: str | int | None) -> Response:
    """The answer to the JSON-RPC request ``rpc_id``."""

    def form(
        code: str, message: str, status: int, request_id: str, details: dict[str, Any]
    ) -> dict[str, Any]:
        return rpc_form(code, message, status, request_id, details, rpc_id)

    response = error_response(error, request_id, form)
    response.status_code = rpc_status(response.status_code)
    return response
