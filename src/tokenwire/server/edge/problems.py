"""Errors to responses: ``{"error": {"code", "message", "request_id"}}`` and the right status.

Always true: the message is redacted, one line, and at most 500 characters; an error that is not
ours tells the client nothing but its request id; a wire with a form of its own gives it for its
paths.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.responses import Response

from tokenwire.errors import BusyError, ProviderError, TokenwireError
from tokenwire.events.validation import quoted
from tokenwire.observe.redact import redact

__all__ = [
    "ErrorForm",
    "HTTPProblem",
    "error_fields",
    "error_response",
    "http_error",
    "json_response",
    "message_of",
    "native_form",
]

_MOST_TEXT = 500
#: Seconds that a client may be asked to wait; a provider may say anything.
_LONGEST_WAIT = 86_400.0
#: Characters of a message that are looked at at all.
_MOST_QUOTED = 16 << 10
#: Details that help a program, and never hold content.
_SHOWN = (
    "epoch",
    "field",
    "limit",
    "most",
    "next",
    "reason",
    "retry_after",
    "role",
    "tail",
    "what",
)
_log = logging.getLogger("tokenwire.server")

#: ``(code, message, status, request_id, details) -> JSON object`` of a wire's error.
ErrorForm = Callable[[str, str, int, str, dict[str, Any]], dict[str, Any]]


class HTTPProblem(TokenwireError):
    """A request that HTTP itself refuses: a wrong host, method, media type, or a slow body."""

    def __init__(self, status: int, code: str, message: str, **details: Any) -> None:
        super().__init__(message, **details)
        self.code = code  # type: ignore[misc]
        self.http_status = status  # type: ignore[misc]


def json_response(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON response."""
    return Response(
        msgspec.json.encode(value), status, headers=headers, media_type="application/json"
    )


def native_form(
    code: str, message: str, status: int, request_id: str, details: dict[str, Any]
) -> dict[str, Any]:
    """Our own form."""
    error: dict[str, Any] = {"code": code, "message": message, "request_id": request_id}
    return {"error": {**error, **{k: _detail(details[k]) for k in _SHOWN if k in details}}}


def _detail(value: Any) -> Any:
    return quoted(redact(value, most=_MOST_TEXT)) if isinstance(value, str) else value


def message_of(error: TokenwireError) -> str:
    """What a client may read of ``error``; what is quoted in it came from outside."""
    message = error.message[: _MOST_QUOTED + 1]
    line = "".join(c if c.isprintable() else " " for c in message)
    return redact(line, most=_MOST_TEXT)


def error_fields(error: TokenwireError, request_id: str) -> dict[str, Any]:
    """What our own form says of ``error``, for a message inside a stream."""
    message = message_of(error)
    return native_form(error.code, message, error.http_status, request_id, error.details)["error"]


def _whole_seconds(wait: float) -> int:
    """``Retry-After`` knows no fractions; never 0, never earlier than ``wait``."""
    return max(1, math.ceil(min(wait, _LONGEST_WAIT))) if wait == wait else 1


def error_response(
    error: BaseException, request_id: str, form: ErrorForm = native_form
) -> Response:
    """The response that says ``error``."""
    headers: dict[str, str] = {}
    if isinstance(error, TokenwireError):
        code, status, details = error.code, error.http_status, error.details
        message = message_of(error)
        wait = details.get("retry_after")
        if isinstance(error, ProviderError):
            wait = error.retry_after if wait is None else wait
            if not (error.retryable if error.should_retry is None else error.should_retry):
                headers["x-should-retry"] = "false"  # SDKs repeat a 5xx that says nothing
        if wait is not None or isinstance(error, BusyError):
            headers["retry-after"] = str(_whole_seconds(float(wait or 1)))
        if status in (408, 413, 431):
            headers["connection"] = "close"  # the rest of the request is not read
        if status == 401:
            headers["www-authenticate"] = "Bearer"
    elif isinstance(error, HTTPException):
        status, details = error.status_code, {}
        code = {404: "not_found", 405: "method_not_allowed"}.get(status, "bad_request")
        message = {
            404: "unknown path; docs/reference/http.md lists the routes",
            405: "method not allowed on this path",
        }.get(status, "malformed request")
        headers.update(error.headers or {})
    else:
        _log.error("request %s failed", request_id, exc_info=error)
        code, status, details = "internal", 500, {}
        message = "internal error; the server's log has the details under this request id"
    return json_response(form(code, message, status, request_id, details), status, headers)


class _Detail(dict[str, Any]):
    """The detail of an `HTTPException`: FastAPI answers with it as JSON, Starlette as text."""

    def encode(self, *_: str) -> bytes:
        """The text that Starlette sends."""
        return msgspec.json.encode(self)


def http_error(error: TokenwireError) -> TokenwireError:
    """The same error, which is an `HTTPException` as well: raised in a route of any Starlette or
    FastAPI application it is an answer of its status, with its code and message in ``detail``."""
    if isinstance(error, HTTPException):
        return error
    kind = type(error)
    both = type(kind.__name__, (kind, HTTPException), {"__module__": kind.__module__})
    raised = both.__new__(both)
    raised.__dict__.update(error.__dict__)
    raised.args = error.args
    response = error_response(error, "")
    names = ("retry-after", "www-authenticate", "x-should-retry")
    raised.status_code = response.status_code
    raised.headers = {k: v for k, v in response.headers.items() if k in names} or None
    raised.detail = _Detail(  # type: ignore[assignment]
        {k: v for k, v in error_fields(error, "").items() if k != "request_id"}
    )
    return raised
