"""A provider's words for what went wrong, as one of our typed errors.

Always true: the class follows from the provider's own code first and the HTTP status second; the
message is ours and safe to show, the provider's text travels only as ``raw`` or ``details``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokenwire.errors import (
    AuthenticationError,
    BadRequestError,
    ContentFilterError,
    ContextOverflowError,
    ModelNotFoundError,
    OverloadedError,
    PermissionDeniedError,
    ProviderError,
    RateLimitError,
)
from tokenwire.events.model import Error
from tokenwire.providers.assembly import load, obj, text_of

__all__ = ["http_error", "stream_error"]

_WORDS: tuple[tuple[type[ProviderError], tuple[str, ...]], ...] = (
    (ContextOverflowError, ("context_length", "context_window", "context window", "too long")),
    (ContentFilterError, ("content_filter", "content_policy", "safety", "blocked", "prohibited")),
    (ModelNotFoundError, ("model_not_found", "not_found", "resourcenotfound", "not found")),
    (RateLimitError, ("rate_limit", "throttl", "resource_exhausted", "quota", "too_many")),
    (AuthenticationError, ("authentication", "unauthenticated", "api_key", "unauthorized")),
    (PermissionDeniedError, ("permission", "access_denied", "accessdenied", "forbidden")),
    (
        OverloadedError,
        ("overload", "unavailable", "server_error", "api_error", "internal", "timeout"),
    ),
    (BadRequestError, ("invalid_request", "invalid_argument", "validation", "bad_request")),
)
_STATUS: dict[int, type[ProviderError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: ModelNotFoundError,
    408: OverloadedError,
    413: ContextOverflowError,
    422: BadRequestError,
    429: RateLimitError,
}
_SAYS: dict[type[ProviderError], str] = {
    ContextOverflowError: "the conversation is longer than the model's context",
    ContentFilterError: "the provider's content filter stopped the request",
    ModelNotFoundError: "the provider has no such model",
    RateLimitError: "the provider's rate limit was reached; try again later",
    AuthenticationError: "the provider refused the API key",
    PermissionDeniedError: "the API key may not use this model",
    OverloadedError: "the provider is overloaded or failed; try again later",
    BadRequestError: "the provider refused the request",
    ProviderError: "the provider reported an error",
}


def _class_of(words: list[str], status: int | None) -> type[ProviderError]:
    for word in words:
        lower = word.lower()
        for cls, parts in _WORDS:
            if any(part in lower for part in parts):
                return cls
    if status is not None:
        return _STATUS.get(status, OverloadedError if status >= 500 else ProviderError)
    return ProviderError


def _parse(value: Any) -> tuple[list[str], str]:
    """The words of an error object, most telling first, and the provider's code."""
    error = obj(value)
    inner = error.get("error")
    if isinstance(inner, dict):
        error = {**error, **obj(inner)}
    words = [text_of(error.get(k)) for k in ("code", "status", "type", "__type", "reason")]
    found = [w for w in words if w and w != "error"]
    message = text_of(error.get("message")) or text_of(inner)
    if "too long" in message or ("context" in message.lower() and "length" in message.lower()):
        found.insert(0, "context_length")
    return found or ([message] if message else []), found[0] if found else ""


def stream_error(
    value: Any, *, name: str = "", request_id: str | None = None, status: int | None = None
) -> Error:
    """An error object met inside a stream that began well."""
    words, code = _parse(value)
    given = obj(obj(value).get("error")).get("code")
    if status is None and isinstance(given, int) and 400 <= given < 600:
        status = given
    cls = _class_of([*words, name] if name else words, status)
    return Error(
        scope="provider",
        code=cls.code,
        message=_SAYS[cls] + (f" ({code or name})" if code or name else ""),
        retryable=cls.retryable,
        http_status=status or cls.http_status,
        request_id=request_id,
        raw=value,
    )


def http_error(
    status: int, headers: Mapping[str, str], body: bytes, *, provider: str = "the provider"
) -> ProviderError:
    """The typed error of an answer that is not 2xx."""
    try:
        value = load(body)
    except ValueError:
        value = None
    if isinstance(value, list) and value:  # Gemini without server-sent events
        value = value[0]
    words, code = _parse(value)
    cls = _class_of(words, status)
    name = headers.get("x-amzn-errortype", "").partition(":")[0]
    if name and cls in (ProviderError, BadRequestError):
        cls = _class_of([name], status)
    again = headers.get("x-should-retry")
    return cls(
        f"{_SAYS[cls]} (HTTP {status})",
        status=status,
        retry_after=_seconds(headers),
        request_id=next(
            (
                headers[h]
                for h in ("request-id", "x-request-id", "x-amzn-requestid", "x-goog-request-id")
                if h in headers
            ),
            None,
        ),
        should_retry=None if again is None else again == "true",
        provider_code=code or name or None,
    )


def _seconds(headers: Mapping[str, str]) -> float | None:
    for name, scale in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) / scale
        except ValueError:
            continue
        if 0 <= seconds < 86400:
            return seconds
    return None
