"""What a remote agent reports as an error, in our types.

Always true: pure; a server's own text is shown only where the protocol means it for the caller, and
at most 500 characters of it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from tokenwire.errors import (
    AuthenticationError,
    BadRequestError,
    OverloadedError,
    PermissionDeniedError,
    ProtocolError,
    ProviderError,
    RateLimitError,
)

__all__ = ["error_of", "is_cut", "protocol_error", "reason_of"]

_REASONS = {
    -32001: "TASK_NOT_FOUND",
    -32002: "TASK_NOT_CANCELABLE",
    -32004: "UNSUPPORTED_OPERATION",
    -32601: "METHOD_NOT_FOUND",
    -32602: "INVALID_PARAMS",
    -32603: "INTERNAL_ERROR",
}
_INVALID = ("INVALID_PARAMS", "CONTENT_TYPE_NOT_SUPPORTED", "INVALID_REQUEST")


def protocol_error(message: str) -> ProtocolError:
    """What is not A2A."""
    return ProtocolError(message)


def reason_of(error: ProviderError) -> str:
    """The protocol's name of an error; empty for others."""
    return error.provider_code or ""


def is_cut(error: ProviderError) -> bool:
    """Whether a stream that failed so may be resumed."""
    return error.code in ("network", "truncated", "timeout", "overloaded", "rate_limited") or (
        error.status is not None and error.status >= 500
    )


def error_of(status: int, body: bytes, host: str) -> ProviderError:
    """The error of a response with this HTTP ``status`` and ``body``."""
    number, reason, words = _read(body)
    reason = reason or _REASONS.get(number, "")
    if not reason and status == 404:
        reason = "METHOD_NOT_FOUND"
    facts: dict[str, Any] = {"status": status, "provider_code": reason or None}
    if 300 <= status < 400:
        return ProviderError(f"{host} redirects to another address; configure that one", **facts)
    suffix = f": {words}" if words else ""
    if status == 401:
        return AuthenticationError(f"{host} did not accept the credentials{suffix}", **facts)
    if status == 403:
        return PermissionDeniedError(f"{host} does not permit this{suffix}", **facts)
    if status == 429:
        return RateLimitError(f"{host} limits the rate of requests{suffix}", **facts)
    if status in (502, 503, 504, 529):
        return OverloadedError(f"{host} is not available (HTTP {status}){suffix}", **facts)
    if reason in _INVALID or (status == 400 and not reason):
        return BadRequestError(f"{host} refused the request{suffix}", **facts)
    what = reason or f"HTTP {status}"
    return ProviderError(f"{host} failed ({what}){suffix}", **facts)


def _read(body: bytes) -> tuple[int, str, str]:
    """Number, reason and words of an error of JSON-RPC, or of a ``google.rpc.Status``."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return 0, "", ""
    error = value.get("error") if isinstance(value, dict) else None
    if not isinstance(error, dict):
        return 0, "", ""
    details = error.get("data") or error.get("details")
    reason = ""
    for detail in details if isinstance(details, list) else []:
        if isinstance(detail, dict) and isinstance(detail.get("reason"), str):
            reason = reason or detail["reason"]
    number, words = error.get("code"), error.get("message")
    return (
        number if isinstance(number, int) else 0,
        reason[:80],
        words[:500] if isinstance(words, str) else "",
    )
