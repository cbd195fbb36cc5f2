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
    ContextOverflowError,
    ModelNotFoundError,
    OverloadedError,
    ProtocolError,
    ProviderError,
    RateLimitError,
)
from tokenwire.events.model import Error
from tokenwire.framing.retry_after import http_date, seconds_after
from tokenwire.providers.failure_words import (
    BY_CODE,
    BY_NUMBER,
    BY_PROSE,
    BY_STATUS,
    BY_WORDS,
    OVERFLOW,
    PER_TIME,
    SAYS,
)

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

_BY_OUR_CODE: dict[str, type[ProviderError]] = {kind.code: kind for kind in SAYS}

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
        status = _status_in(fault) or _status_of(prose)
    kind = _numbered(fault) or _classify(status, codes, prose)
    if kind is ProviderError and isinstance(fault.get("loc"), list):
        kind = BadRequestError  # a server's own check of the request
    words = [c for c in codes if _SHORT.fullmatch(c)]
    number = next((n for k in (*BY_NUMBER, "code") if (n := _short_number(fault.get(k)))), None)
    where = fault.get("param")
    numbers = [n for n in (str(status) if status else None, number) if n]
    note = ", ".join([*dict.fromkeys(numbers), *words[:2]])
    message = SAYS[kind] + (f" ({note})" if note else "")
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
        provider_code=words[0] if words else number,
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


_MESSAGE_KEYS = (
    *("message", "detail", "Message", "msg", "error_msg", "error_message", "errmsg"),
    *("errorMessage", "status_msg", "error_description", "title", "description", "err_msg"),
    *("ret_msg", "faultstring", "statusMessage", "status_message", "statusText", "reason", "text"),
)


def _unwrap(value: Any) -> dict[str, Any]:
    """The object that has the message: the innermost ``error``."""
    outer: dict[str, Any] = {}
    for _ in range(6):
        if isinstance(value, list) and value:
            value = value[0]
            continue
        if not isinstance(value, dict):
            break
        fields = cast(dict[str, Any], value)
        inner = next((v for k in _WRAPPERS if (v := fields.get(k)) and _is_wrapped(k, v)), None)
        if inner is None:
            break
        outer |= {k: v for k, v in fields.items() if k in _OUTER}
        value = {"message": inner} if isinstance(inner, str) else inner
    if isinstance(value, str):
        value = {"message": value}
    fields = cast(dict[str, Any], value) if isinstance(value, dict) else {}
    return {**{k: v for k, v in outer.items() if k not in fields}, **fields}


_WRAPPERS = ("error", "errors", "Error", "Errors", "base_resp", "Response", "response", "detail")
_WRAPPERS += ("data", "fault", "err", "exception", "failure", "status")
#: Wrappers that are prose when they are text.
_PROSE = frozenset({"error", "err", "exception", "failure"})
#: What an outer object may say of its inner error.
_OUTER = ("code", "type", "status", "status_code", "error_type", "request_id", "message", "msg")


def _is_wrapped(key: str, value: Any) -> bool:
    if isinstance(value, str):
        return key in _PROSE
    if isinstance(value, list):
        return key in ("error", "errors", "detail")
    if key in ("Response", "response"):
        return isinstance(value, dict) and bool(value.get("error") or value.get("Error"))
    if key in ("data", "status"):
        names = ("error", "Error", "message", "msg", "code")
        return isinstance(value, dict) and any(value.get(name) for name in names)
    return isinstance(value, dict)


def _numbered(fault: dict[str, Any]) -> type[ProviderError] | None:
    """The class of an error that a service numbers in its own way."""
    for name, kinds in BY_NUMBER.items():
        code = fault.get(name)
        code = int(code) if isinstance(code, str) and code.isdecimal() else code
        if isinstance(code, int) and code in kinds:
            return kinds[code]
    return None


_CODE_KEYS = (
    *("code", "type", "status", "reason", "error_type", "__type", "error_code", "errorCode"),
    *("Code", "err_code", "errcode"),
)


def _codes(fault: dict[str, Any], headers: Mapping[str, str]) -> list[str]:
    candidates = [fault.get(k) for k in _CODE_KEYS]
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
    for key in _MESSAGE_KEYS:
        value = fault.get(key)
        if value:
            texts.append(value if isinstance(value, str) else str(value))
    for key in ("result", "content"):
        if isinstance(fault.get(key), str):
            texts.append(fault[key])
    metadata = fault.get("metadata")
    if isinstance(metadata, dict) and isinstance(metadata.get("raw"), str):
        texts.append(metadata["raw"])  # a gateway's copy of what its own provider answered
    return " ".join(texts)[:4000]


def _short_number(value: Any) -> str | None:
    text = str(value) if isinstance(value, int | str) and not isinstance(value, bool) else ""
    return text if text.isdecimal() and 0 < len(text) < 8 else None


_STATUS_KEYS = ("status_code", "statusCode", "http_code", "http_status", "code", "status")
_STATUS_KEYS += ("error_code", "errorCode", "err_code", "errno", "ret_code")
#: A status that an error's prose begins with, or names as such.
_STATUS_IN_PROSE = re.compile(
    r"^\W*(?:http(?:/[\d.]+)?\W{1,3})?(?:error|status)?(?: code)?\W{0,3}([45]\d\d)\b"
    r"|\b(?:error|status|http)(?: code)?[ :=]{1,3}([45]\d\d)\b",
    re.I,
)


def _status_in(fault: dict[str, Any]) -> int | None:
    for key in _STATUS_KEYS:
        value = fault.get(key)
        if isinstance(value, str) and value.isdecimal() and len(value) == 3:
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and 400 <= value < 600:
            return value
    return None


def _status_of(prose: str) -> int | None:
    match = _STATUS_IN_PROSE.search(prose)
    return int(match[1] or match[2]) if match is not None else None


def _classify(status: int | None, codes: list[str], prose: str) -> type[ProviderError]:
    client_fault = status is None or 400 <= status < 500
    # Gateways report a conversation that is too long as a failure of their own; to ask again would
    # be in vain.
    is_overflow = bool(OVERFLOW.search(prose)) and not PER_TIME.search(prose)
    if is_overflow and status not in (401, 403, 429):
        return ContextOverflowError
    if client_fault and status not in (401, 429):
        for kind, pattern in BY_PROSE:
            if pattern.search(prose):
                return kind
    joined = " ".join(codes).lower()
    for kind, words in BY_CODE:
        if any(word in joined for word in words):
            by_status = BY_STATUS.get(status or 0)
            # A status that is precise beats a code that is vague.
            if by_status in (AuthenticationError, RateLimitError) and kind is BadRequestError:
                return by_status
            return kind
    if status is None:
        kinds = (kind for kind, pattern in BY_WORDS if pattern.search(prose))
        return next(kinds, ProviderError)
    if status >= 500:
        return OverloadedError
    return BY_STATUS.get(status, BadRequestError if status >= 400 else ProviderError)


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
