"""Failures that do not look like the wire on which they come.

Always true: a payload counts as a failure only where its wire knows nothing in it, or where it
carries a sign that no success has; a status of 0, 200 or ``ok`` is no failure.
"""

from __future__ import annotations

from typing import Any, cast

from tokenwire.providers.decoding.values import items, obj, text_of

__all__ = ["coded_fault_in", "fault_in", "sure_fault_in", "wire_of"]

_GOOD = frozenset({"", "0", "00000", "200", "201", "ok", "success", "succeeded", "none", "null"})
_BAD_STATES = frozenset({"error", "failed", "failure", "fail", "exception"})
#: Beside these, a lone message is a failure and not an event of its own.
_BESIDE = frozenset(
    {"message", "msg", "request_id", "requestid", "id", "sid", "log_id", "trace_id", "traceid"}
    | {"timestamp", "path", "documentation_url", "type", "object", "data", "result", "param"}
)
_MESSAGES = ("message", "msg", "Message", "error_msg", "error_message", "errmsg", "errorMessage")
_CODES = ("error_code", "errcode", "errorCode", "err_code", "ErrorCode", "errno", "err_no")
_CODES += ("ret_code", "retcode", "ret")
#: Other names of an error object, or of its prose.
_ERROR_NAMES = ("err", "exception", "failure", "fault")
_STATUSES = ("status_code", "statusCode", "http_code", "http_status", "status", "code")


def sure_fault_in(value: dict[str, Any]) -> Any:
    """The failure that a payload carries whatever else is in it, or None."""
    if "error" in value and value["error"] and value["error"] is not True:
        return value
    if "base_resp" in value:
        base = obj(value["base_resp"])
        if _is_bad(base.get("status_code")):
            return {"base_resp": base}
    return None


def coded_fault_in(value: dict[str, Any]) -> Any:
    """The failure that a payload without content names by a code, or None."""
    return value if any(_is_bad(value.get(name)) for name in _CODES) else None


def fault_in(value: dict[str, Any]) -> Any:
    """The failure that a payload is of which the wire knows nothing, or None."""
    sure = sure_fault_in(value)
    if sure is not None:
        return sure
    if value.get("error") is True:
        return value
    errors = value.get("errors") or value.get("Errors")
    if errors:
        first = items(errors)[0] if items(errors) else errors
        return {"error": first} if isinstance(first, dict | str) else value
    for name in ("response", "Response", "body", "data"):
        inner = obj(value.get(name))
        inner_error = inner.get("error") or inner.get("Error")
        if inner_error:
            return {"error": inner_error}
    inner = _inner_fault(value)
    if inner is not None:
        return inner
    kind = (text_of(value.get("type")) or text_of(value.get("object"))).lower()
    if _says_error(kind) or _says_error(text_of(value.get("__type")).lower()):
        return value
    if value.get("success") is False or value.get("ok") is False:
        return value
    named = [k for k, v in value.items() if k.endswith(("Exception", "Error")) and obj(v)]
    if named:
        return {"__type": named[0], **obj(value[named[0]])}
    if "." in kind or "event_type" in value:
        return None  # an event of a newer version
    if any(_is_bad(value.get(name)) for name in _CODES):
        return value
    if any(_is_http_failure(value.get(name)) for name in _STATUSES):
        return value
    states = (text_of(value.get(name)).lower() for name in ("status", "state"))
    says_failed = any(state in _BAD_STATES for state in states)
    if says_failed and (not kind or _has_message(value)):
        return value
    if kind and not _has_message(value):
        return None
    if not kind and text_of(value.get("reason")) and value.keys() <= _BESIDE | {"reason"}:
        return {"error": {"message": value["reason"]}}
    return value if value.get("detail") or _is_message(value) else None


def _inner_fault(value: dict[str, Any]) -> Any:
    """The failure under a name of its own: of another wire's choice, of a header, or of a word."""
    for choice in items(value.get("choices")):
        for holder in (obj(choice), obj(obj(choice).get("delta")), obj(obj(choice).get("message"))):
            if holder.get("error"):
                return {"error": holder["error"]}
    header = obj(value.get("header"))
    if _is_bad(header.get("code")):
        return {"error": header}
    for name in _ERROR_NAMES:
        fault = value.get(name)
        if isinstance(fault, str) and fault.strip():
            return {"error": {"message": fault}}
        if obj(fault):
            prose = text_of(obj(fault).get("faultstring"))
            return {"error": {"message": prose, **obj(fault)} if prose else fault}
    return None


def _has_message(value: dict[str, Any]) -> bool:
    return any(isinstance(value.get(name), str) and value[name] for name in _MESSAGES)


def _is_message(value: dict[str, Any]) -> bool:
    """Whether the payload is a message with a code, or hardly more than a message."""
    if not _has_message(value):
        return False
    if _is_bad(value.get("code")):
        return True
    return all(k.lower() in _BESIDE or k in _MESSAGES or v is None for k, v in value.items())


def _says_error(kind: str) -> bool:
    return kind.endswith(("error", "exception", "failure")) or kind.startswith("error")


def _is_bad(code: Any) -> bool:
    if code is None or isinstance(code, bool | dict | list):
        return False
    return str(code).strip().lower() not in _GOOD


def _is_http_failure(status: Any) -> bool:
    if isinstance(status, str) and status.isdecimal() and len(status) == 3:
        status = int(status)
    return isinstance(status, int) and not isinstance(status, bool) and 400 <= status < 600


_ANTHROPIC = frozenset(
    {"message_start", "content_block_start", "content_block_delta", "content_block_stop"}
    | {"message_delta", "message_stop"}
)


def wire_of(value: dict[str, Any]) -> str | None:
    """The wire that a payload looks like, for a message about one that came by mistake."""
    kind = text_of(value.get("type"))
    if kind.startswith("response.") or value.get("object") == "response":
        return "openai-responses"
    if kind in _ANTHROPIC or (kind == "message" and isinstance(value.get("content"), list)):
        return "anthropic"
    if "candidates" in value or "usageMetadata" in value:
        return "gemini"
    if "event_type" in value:
        return "gemini-interactions"
    choices = items(value.get("choices"))
    if choices or text_of(value.get("object")).startswith("chat.completion"):
        first = cast(dict[str, Any], obj(choices[0] if choices else None))
        return "completions" if "text" in first else "openai-chat"
    if "done" in value and ("message" in value or "response" in value):
        return "ollama"
    if kind in ("message-start", "content-delta", "message-end"):
        return "cohere"
    if {"messageStart", "contentBlockDelta", "messageStop"} & set(value):
        return "bedrock-converse"
    return None
