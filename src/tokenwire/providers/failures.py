"""A provider's refusal to one of our typed errors: from an HTTP answer, or from inside a stream.

Always true: the message is made here from the class, the status and the provider's own short
codes; the provider's prose never is part of it, and what is kept of it for debugging has keys,
addresses with passwords and file paths taken out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

import msgspec

from tokenwire.errors import (
    AuthenticationError,
    BadRequestError,
    ContentFilterError,
    ContextOverflowError,
    ModelNotFoundError,
    OverloadedError,
    PermissionDeniedError,
    ProtocolError,
    ProviderError,
    RateLimitError,
)
from tokenwire.events.model import Error
from tokenwire.framing.retry_after import http_date, seconds_after

__all__ = ["error_event", "from_object", "from_response", "raised", "redact", "retry_after"]

_MOST_KEPT = 500  # characters of a provider's prose that are stored
_SHORT = re.compile(r"[A-Za-z][A-Za-z0-9_.\-]{0,63}")
_REQUEST_ID = re.compile(r"[A-Za-z0-9_.:\-/+=]{1,160}")
_REQUEST_ID_HEADERS = (
    "x-request-id",
    "request-id",
    "x-amzn-requestid",
    "apim-request-id",
    "x-goog-request-id",
    "x-generation-id",
    "cf-ray",
)

#: The first row of which a word occurs in the provider's codes or (where it says so) its prose.
_BY_CODE: tuple[tuple[type[ProviderError], tuple[str, ...]], ...] = (
    (
        ContextOverflowError,
        (
            "context_length",
            "contextlength",
            "context_window",
            "contextwindow",
            "context_size",
            "context_overflow",
            "context_limit",
            "prompt_too_long",
            "input_too_long",
            "prompt_tokens_exceeded",
        ),
    ),
    (ContentFilterError, ("content_filter", "content_policy", "responsibleai", "moderation")),
    (
        AuthenticationError,
        (
            "authentication",
            "invalid_api_key",
            "api_key_invalid",
            "unauthenticated",
            "unauthorized",
            "unrecognizedclient",
            "invalidsignature",
            "expiredtoken",
        ),
    ),
    (
        RateLimitError,
        (
            "rate_limit",
            "resource_exhausted",
            "throttling",
            "too_many_requests",
            "quota",
            "toomanyrequests",
        ),
    ),
    (OverloadedError, ("overloaded", "unavailable", "engine_overloaded", "modelnotready")),
    (
        ModelNotFoundError,
        ("model_not_found", "not_found", "resourcenotfound", "invalid_model", "unknown_model"),
    ),
    (PermissionDeniedError, ("permission", "accessdenied", "forbidden", "billing", "payment")),
    (OverloadedError, ("server_error", "api_error", "internal", "timeout", "deadline_exceeded")),
    (BadRequestError, ("invalid_request", "invalid_argument", "validation", "failed_precondition")),
)
#: How gateways and servers say that a conversation is too long for the model.
_OVERFLOW = re.compile(
    r"maximum context length|context[ _-]?(?:window|length|size|limit)"
    r"|prompt (?:is )?too (?:long|large)|prompt length .{0,60}exceed|maximum prompt length"
    r"|input (?:is |was )?too (?:long|large)|too many (?:input |prompt |total )?tokens"
    r"|input (?:tokens?|length)\b.{0,60}(?:exceed|longer than|too (?:long|large)|limit|maximum)"
    r"|(?:prompt|input|token)s? (?:token )?count\b.{0,60}exceed"
    r"|exceed(?:s|ed|ing)? (?:the |your |its )?(?:model(?:'s)? )?(?:token limit|max(?:imum)? "
    r"(?:allowed )?(?:number of )?(?:input |prompt |model )?(?:tokens|length|context))"
    r"|maximum number of (?:input |prompt )?tokens|max(?:imum)?[ _]model[ _]len"
    r"|longer than the (?:maximum )?(?:model|context)|range of input length"
    r"|inputs`? tokens|must have less than \d+ tokens|exceeds? the (?:available )?context"
    r"|reduce the length of (?:the |your )?(?:messages|prompt|input|conversation)",
    re.I,
)
#: Says of tokens that they are too many for a span of time, not for a context.
_PER_TIME = re.compile(
    r"per (?:minute|second|hour|day)|rate.?limit|throttl|\b[TR]P[MDS]\b|please wait|try again in",
    re.I,
)
_BY_PROSE: tuple[tuple[type[ProviderError], re.Pattern[str]], ...] = (
    (ContentFilterError, re.compile(r"content (?:filter|management|policy)|was flagged", re.I)),
    (AuthenticationError, re.compile(r"api key (?:is )?(?:not valid|invalid|expired)", re.I)),
    (
        ModelNotFoundError,
        re.compile(r"model\b.{0,120}(?:does not exist|not found|is not a valid model)", re.I),
    ),
)
_BY_STATUS: dict[int, type[ProviderError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    402: PermissionDeniedError,
    403: PermissionDeniedError,
    404: ModelNotFoundError,
    408: OverloadedError,
    409: OverloadedError,
    413: BadRequestError,
    415: BadRequestError,
    422: BadRequestError,
    424: OverloadedError,
    425: OverloadedError,
    429: RateLimitError,
    498: OverloadedError,
    529: OverloadedError,
}
_SAYS: dict[type[ProviderError], str] = {
    ContextOverflowError: "the conversation is longer than the model's context; shorten it",
    ContentFilterError: "the provider's content filter refused the request or the answer",
    AuthenticationError: "the provider refused the API key; check the configured key",
    RateLimitError: "the provider's rate limit or quota is used up; try again later",
    OverloadedError: "the provider is overloaded or down; try again later",
    ModelNotFoundError: "the provider has no such model or address; check the model's name",
    PermissionDeniedError: "the API key may not use this model, or its account needs attention",
    BadRequestError: "the provider refused the request",
    ProtocolError: "the provider's answer is not the promised stream",
    ProviderError: "the provider reported an error",
}

_BY_OUR_CODE: dict[str, type[ProviderError]] = {kind.code: kind for kind in _SAYS}

_SECRETS = re.compile(
    r"(?P<url>://)[^\s/@]+@"
    r"|(?P<auth>\b(?:bearer|basic)\s+)[A-Za-z0-9._~+/=\-]{6,}"
    r"|(?P<param>[?&](?:api[_-]?key|key|token|sig|signature)=)[^\s&\"']+"
    r"|\b(?:sk|pk|rk|gsk|xai|hf|key|pplx|csk|fw|nvapi|AIza|AKIA|ASIA|ghp|gho|ghu|glpat)[-_]?"
    r"[A-Za-z0-9*][A-Za-z0-9*_\-]{10,}"
    r"|\beyJ[A-Za-z0-9_\-]{10,}(?:\.[A-Za-z0-9_\-]+)*"
    r"|\b[A-Fa-f0-9]{32,}\b"
    r"|(?P<path>(?<![\w:/.])/(?:home|root|usr|var|etc|opt|srv|tmp|app|Users|mnt)/)[^\s\"',:]*",
    re.I,
)


def redact(text: str) -> str:
    """The text without keys, tokens, passwords in addresses and file paths."""

    def hide(match: re.Match[str]) -> str:
        prefix = match["url"] or match["auth"] or match["param"]
        if match["url"]:
            return f"{prefix}[hidden]@"
        return f"{prefix or ''}[hidden]"

    return _SECRETS.sub(hide, text)


def from_response(status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
    """The typed error of a non-2xx answer of any server."""
    try:
        value: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        text = body[:4000].decode("utf-8", "replace").strip()
        value = None if text.startswith("<") else text  # a page says nothing, a line may
    if 300 <= status < 400:
        error = ProtocolError(
            f"the provider answered with a redirect ({status}), which is never followed; "
            "check the configured base URL",
            status=status,
        )
        error.request_id = _request_id(headers, value)
        return error
    return from_object(value, status=status, headers=headers)


def from_object(
    value: Any, *, status: int | None = None, headers: Mapping[str, str] | None = None
) -> ProviderError:
    """The typed error of an error object: any provider's shape, bare or wrapped in a list or in
    ``{"error": ...}``; without a status, a numeric code in the object counts as one."""
    headers = headers or {}
    fault = _unwrap(value)
    codes, prose = _codes(fault, headers), _prose(fault)
    if status is None:
        status = _status_in(fault)
    kind = _classify(status, codes, prose)
    words = [c for c in codes if _SHORT.fullmatch(c)]
    where = fault.get("param")
    note = ", ".join(([str(status)] if status else []) + words[:2])
    message = _SAYS[kind] + (f" ({note})" if note else "")
    if isinstance(where, str) and re.fullmatch(r"[A-Za-z_][\w.\[\]]{0,63}", where):
        message += f" at '{where}'"
    exhausted = any(w in c.lower() for c in codes for w in ("insufficient_quota", "billing"))
    is_final = issubclass(kind, BadRequestError)  # whatever a gateway advises
    details: dict[str, Any] = {}
    if prose and kind in (BadRequestError, ContextOverflowError, ModelNotFoundError):
        details["provider_message"] = redact(prose)[:_MOST_KEPT]
    return kind(
        message,
        status=status,
        retry_after=retry_after(headers, fault),
        request_id=_request_id(headers, value),
        should_retry=False if exhausted or is_final else _should_retry(headers),
        provider_code=words[0] if words else None,
        **details,
    )


def error_event(error: ProviderError, *, raw: Any = None, after_output: bool = False) -> Error:
    """The error as an event of a stream; ``raw`` is the provider's object, redacted here."""
    return Error(
        scope="parse" if isinstance(error, ProtocolError) else "provider",
        code=error.code,
        message=error.message,
        retryable=error.retryable if error.should_retry is None else error.should_retry,
        http_status=error.http_status,
        after_output=after_output,
        retry_after=error.retry_after,
        request_id=error.request_id,
        raw=None if raw is None else _redacted(raw, 0),
    )


def raised(event: Error) -> ProviderError:
    """The error that an event describes, to raise where nothing is visible yet."""
    kind = _BY_OUR_CODE.get(event.code, ProviderError)
    return kind(
        event.message,
        retry_after=event.retry_after,
        request_id=event.request_id,
        should_retry=event.retryable,
    )


def retry_after(headers: Mapping[str, str], fault: Mapping[str, Any] | None = None) -> float | None:
    """Seconds to wait, from ``retry-after-ms``, ``retry-after`` (seconds, a duration, or a date
    measured against the answer's own ``date``), Google's ``RetryInfo``, or the object itself."""
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return max(0.0, milliseconds / 1000)
    now = http_date(headers.get("date", ""))
    seconds = seconds_after(headers.get("retry-after", ""), now)
    if seconds is not None:
        return seconds
    fault = fault or {}
    delays = [d.get("retryDelay") for d in _list(fault.get("details")) if isinstance(d, dict)]
    for delay in (*delays, fault.get("retry_after"), fault.get("retryAfter")):
        is_number = isinstance(delay, int | float) and not isinstance(delay, bool)
        text = str(delay) if is_number else delay
        if isinstance(text, str) and (seconds := seconds_after(text, now)) is not None:
            return seconds
    return None


def _unwrap(value: Any) -> dict[str, Any]:
    """The object that has the message: the innermost ``error``."""
    for _ in range(4):
        if isinstance(value, list) and value:
            value = value[0]
        elif isinstance(value, dict) and isinstance(value.get("error"), dict | list):
            value = value["error"]
        elif isinstance(value, dict) and isinstance(value.get("error"), str):
            return {"message": value["error"], **{k: v for k, v in value.items() if k != "error"}}
        else:
            break
    if isinstance(value, str):
        return {"message": value}
    return cast(dict[str, Any], value) if isinstance(value, dict) else {}


def _codes(fault: dict[str, Any], headers: Mapping[str, str]) -> list[str]:
    candidates = [
        fault.get(k) for k in ("code", "type", "status", "reason", "error_type", "__type")
    ]
    for detail in _list(fault.get("details")):
        if isinstance(detail, dict):
            candidates.append(detail.get("reason"))
    inner = fault.get("innererror")
    if isinstance(inner, dict):
        candidates.append(inner.get("code"))
    aws = headers.get("x-amzn-errortype")
    candidates.append(aws.split(":")[0] if aws else None)
    words = [g for g in candidates if isinstance(g, str) and g and g != "error"]
    return list(dict.fromkeys(words))


def _prose(fault: dict[str, Any]) -> str:
    texts: list[str] = []
    for key in ("message", "detail", "Message", "msg", "error_msg", "error_message", "title"):
        value = fault.get(key)
        if value:
            texts.append(value if isinstance(value, str) else str(value))
    metadata = fault.get("metadata")
    if isinstance(metadata, dict) and isinstance(metadata.get("raw"), str):
        texts.append(metadata["raw"])  # a gateway's copy of what its own provider answered
    return " ".join(texts)[:4000]


def _status_in(fault: dict[str, Any]) -> int | None:
    for key in ("status_code", "code", "status"):
        value = fault.get(key)
        if isinstance(value, str) and value.isdecimal() and len(value) == 3:
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and 400 <= value < 600:
            return value
    return None


def _classify(status: int | None, codes: list[str], prose: str) -> type[ProviderError]:
    client_fault = status is None or 400 <= status < 500
    # Gateways report a conversation that is too long as a failure of their own; to ask again would
    # be in vain.
    is_overflow = bool(_OVERFLOW.search(prose)) and not _PER_TIME.search(prose)
    if is_overflow and status not in (401, 403, 429):
        return ContextOverflowError
    if client_fault and status not in (401, 429):
        for kind, pattern in _BY_PROSE:
            if pattern.search(prose):
                return kind
    joined = " ".join(codes).lower()
    for kind, words in _BY_CODE:
        if any(word in joined for word in words):
            by_status = _BY_STATUS.get(status or 0)
            # A status that is precise beats a code that is vague.
            if by_status in (AuthenticationError, RateLimitError) and kind is BadRequestError:
                return by_status
            return kind
    if status is None:
        return ProviderError
    if status >= 500:
        return OverloadedError
    return _BY_STATUS.get(status, BadRequestError if status >= 400 else ProviderError)


def _should_retry(headers: Mapping[str, str]) -> bool | None:
    return {"true": True, "false": False}.get(headers.get("x-should-retry", "").lower())


def _request_id(headers: Mapping[str, str], value: Any) -> str | None:
    body = value.get("request_id") if isinstance(value, dict) else None
    for candidate in (*(headers.get(name) for name in _REQUEST_ID_HEADERS), body):
        if isinstance(candidate, str) and _REQUEST_ID.fullmatch(candidate):
            return candidate
    return None


def _redacted(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return redact(value[:2000])
    if depth > 8:
        return "[hidden]"
    if isinstance(value, dict):
        return {redact(str(k)): _redacted(v, depth + 1) for k, v in list(value.items())[:50]}
    if isinstance(value, list):
        return [_redacted(v, depth + 1) for v in value[:50]]
    return value


def _number(text: str | None) -> float | None:
    if text is None or not re.fullmatch(r"\s*\d{1,9}(?:\.\d{1,6})?\s*", text):
        return None
    return float(text)


def _list(value: Any) -> list[Any]:
    return cast(list[Any], value) if isinstance(value, list) else []
