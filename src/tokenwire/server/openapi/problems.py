"""The codes of errors: their statuses, and which of them every route of a kind has.

Always true: a code that a description names is in `STATUS`; one code has one status, ``busy``
apart (429 for a quota, 503 for a server that is full).
"""

from __future__ import annotations

from tokenwire.errors import (
    BusyError,
    ConflictError,
    CursorError,
    FencedError,
    ForbiddenError,
    GoneError,
    InputError,
    KeyReusedError,
    LimitError,
    LogError,
    LogLimitError,
    NotAuthenticatedError,
    NotFoundError,
    RoleError,
    StoreDamagedError,
    StoreFullError,
    StoreUnavailableError,
    TokenwireError,
    UnknownModelError,
)
from tokenwire.relay.conversation.errors import HistoryConflictError, ThreadBusyError
from tokenwire.relay.spending.budgets import BudgetError
from tokenwire.server.openapi.operation import Operation

__all__ = ["PROVIDER", "START", "STATUS", "codes_of"]

_ERRORS: tuple[type[TokenwireError], ...] = (
    BudgetError,
    BusyError,
    ConflictError,
    CursorError,
    FencedError,
    ForbiddenError,
    GoneError,
    HistoryConflictError,
    InputError,
    KeyReusedError,
    LimitError,
    LogError,
    LogLimitError,
    NotAuthenticatedError,
    NotFoundError,
    RoleError,
    StoreDamagedError,
    StoreFullError,
    StoreUnavailableError,
    ThreadBusyError,
    TokenwireError,
    UnknownModelError,
)

#: The status of each code.
STATUS: dict[str, int] = {
    **{error.code: error.http_status for error in _ERRORS},
    "unpriced": 402,
    "not_found": 404,
    "model_not_found": 404,
    "usage_off": 404,
    "method_not_allowed": 405,
    "timeout": 408,
    "precondition_failed": 412,
    "other_reader": 412,
    "unsupported_media_type": 415,
    "wrong_host": 421,
    "unsupported_operation": 400,
    "task_not_cancelable": 400,
    "push_not_supported": 400,
    "version_not_supported": 400,
    "headers_too_large": 431,
    # What the subscriptions of Durable Streams say.
    "INVALID_REQUEST": 400,
    "WEBHOOK_URL_REJECTED": 400,
    "TOKEN_INVALID": 401,
    "TOKEN_EXPIRED": 401,
    "NOT_FOUND": 404,
    "SUBSCRIPTION_NOT_FOUND": 404,
    "SUBSCRIPTION_ALREADY_EXISTS": 409,
    "ALREADY_CLAIMED": 409,
    "FENCED": 409,
    "INVALID_OFFSET": 409,
    "NO_PENDING_WORK": 409,
    "LIMIT_EXCEEDED": 429,
}

_ALWAYS = ("wrong_host", "busy", "headers_too_large", "internal")
_STORE = ("store_error", "store_full", "store_unavailable", "store_damaged", "fenced")
_CHANGING = ("bad_request", "forbidden", "timeout", "limit_exceeded", "unsupported_media_type")

#: What a request can hear that starts a run.
START = (
    "budget",
    "unpriced",
    "unknown_model",
    "bad_cursor",
    "idempotency_key_reused",
    "conflict",
    "history_conflict",
    "thread_busy",
    "unknown_run",
    "gone",
    "log_limit",
)
#: What a request can hear that waits for a provider, beside: statuses, whose codes are many.
PROVIDER = (400, 404, 413, 422, 429, 502, 503, 504)


def codes_of(method: str, path: str, operation: Operation) -> dict[int, list[str]]:
    """The codes that an operation may answer with, by status."""
    codes = {*_ALWAYS, *operation.problems}
    if operation.access != "none":
        codes |= {*_STORE, "not_authenticated", "other_reader", "role_required"}
    if operation.access == "token":
        codes -= {"not_authenticated", "other_reader", "role_required"}
    if method not in ("GET", "HEAD", "OPTIONS"):
        codes |= {*_CHANGING}
    if operation.costly:
        codes |= {"forbidden"}
    if "{" in path:
        codes |= {"not_found"}
    by_status: dict[int, list[str]] = {}
    for code in sorted(codes):
        by_status.setdefault(STATUS[code], []).append(code)
    by_status.setdefault(503, []).append("busy")
    return dict(sorted(by_status.items()))
