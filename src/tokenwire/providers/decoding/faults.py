"""Failures that do not look like the wire on which they come.

Always true: a payload counts as a failure only where its wire knows nothing in it, or where it
carries a sign that no success has; a status of 0, 200 or ``ok`` is no failure.
"""

from __future__ import annotations

import re
from typing import Any, cast

from tokenwire.providers.decoding.reasons import reason_of
from tokenwire.providers.decoding.values import items, obj, text_of

__all__ = ["FAILING", "coded_fault_in", "fault_in", "says_error", "sure_fault_in", "wire_of"]

_GOOD = frozenset({"", "0", "00000", "200", "201", "ok", "success", "succeeded", "none", "null"})
_GOOD |= {"false", "no", "no_error"}
#: Words of a state in which nothing has failed yet.
_WAITING = re.compile(
    r"(?<![a-z])(?:queue|wait|pending|process|progress|running|start|load|warm|init|sched|stream"
    r"|ready|accept|activ|ok(?![a-z])|success|complet|done|finish|thinking|generating|working)",
    re.I,
)
#: Words that a failure has, whatever else is said; read in a message that stands alone.
FAILING = re.compile(
    r"full|exceed|limit|fail|error|invalid|denied|cannot|can't|unable|\bnot?\b|refus|reject|expired"
    r"|time?d? ?-?out|unavailable|too many|abort|cancel|forbidden|unauthor",
    re.I,
)
#: Kinds of payload that tell how it goes; what they say is no failure.
_ASIDE = re.compile(
    r"stat(?:us|e|istics|s)|progress|info|log|notice|queue|warning|debug|meta|event|update|notif|ping"
    r"|heartbeat|trace|metric|usage|comment|system",
    re.I,
)
#: Beside these, a lone message is a failure and not an event of its own.
_BESIDE = frozenset(
    {"message", "msg", "request_id", "requestid", "id", "sid", "log_id", "trace_id", "traceid"}
    | {"timestamp", "path", "documentation_url", "type", "object", "data", "result", "param"}
    | {"event", "title", "instance", "detail", "logid", "time"}
)
_MESSAGES = ("message", "msg", "Message", "error_msg", "error_message", "errmsg", "errorMessage")
_CODES = ("error_code", "errcode", "errorCode", "err_code", "ErrorCode", "errno", "err_no")
_CODES += ("ret_code", "retcode", "ret")
_STATUSES = ("status_code", "statusCode", "http_code", "http_status", "status", "code")
#: Names that only a failure has, and what they hold: an error, its prose, or that there is one.
_ERROR_NAME = re.compile(
    r"^(?:is|has|last|api|inner)?_?-?(?:err|errs|errors?|exceptions?|faults?|failures?|failed)"
    r"(?:_?-?(?:msg|message|type|text|info|detail|details|description|list|code|name|reason|str))?\Z",
    re.I,
)
#: Where an object is told about another one.
_INNER = ("response", "Response", "body", "data", "header", "status", "meta", "result", "payload")
_INNER += ("ResponseMetadata", "detail", "output", "event")
_KINDS = ("type", "object", "event", "__type")


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
    kind = next((k for name in _KINDS if (k := text_of(value.get(name)))), "").lower()
    fault = _signs_in(value, kind)
    if fault is not None:
        return fault
    if ("." in kind and not kind.startswith("chat.completion")) or "event_type" in value:
        return None  # an event of a newer version
    if any(_is_bad(value.get(name)) for name in _CODES):
        return value
    if any(_is_http_failure(value.get(name)) for name in _STATUSES):
        return value
    states = (text_of(value.get(name)) for name in ("status", "state"))
    if any(map(_is_bad_state, states)) and (not kind or _has_message(value)):
        return value
    for name in _INNER:
        inner = obj(value.get(name))
        if inner and (_signs_in(inner, "") is not None or _has_bad_number(inner)):
            return {"error": inner}
    if kind and "." not in kind:
        return value if _is_message_of(kind, value) else None
    if text_of(value.get("reason")) and value.keys() <= _BESIDE | {"reason"}:
        return {"error": {"message": value["reason"]}}
    detail = value.get("detail")
    if detail and not (isinstance(detail, str) and _goes_on(detail)):
        return value
    return value if _is_message(value) else None


def _signs_in(value: dict[str, Any], kind: str) -> Any:
    """The failure of a payload that has what only failures have."""
    sure = sure_fault_in(value)
    if sure is not None:
        return sure
    errors = value.get("errors") or value.get("Errors")
    if errors:
        first = items(errors)[0] if items(errors) else errors
        return {"error": first} if isinstance(first, dict | str) else value
    for name in ("response", "Response", "body", "data"):
        inner = obj(value.get(name))
        inner_error = inner.get("error") or inner.get("Error")
        if inner_error:
            return {"error": inner_error}
    inner = _inner_fault(value, kind)
    if inner is not None:
        return inner
    if any(says_error(text_of(value.get(name)).lower()) for name in _KINDS):
        return value
    if value.get("success") is False or value.get("ok") is False:
        return value
    named = [k for k, v in value.items() if k.endswith(("Exception", "Error")) and obj(v)]
    if named:
        return {"__type": named[0], **obj(value[named[0]])}
    return None


def _inner_fault(value: dict[str, Any], kind: str) -> Any:
    """The failure under a name of its own: of another wire's choice, of a header, or of a word."""
    for choice in items(value.get("choices")):
        for holder in (obj(choice), obj(obj(choice).get("delta")), obj(obj(choice).get("message"))):
            if holder.get("error"):
                return {"error": holder["error"]}
    header = obj(value.get("header"))
    if _is_bad(header.get("code")):
        return {"error": header}
    if value.get("error") in ({}, []) and not kind:
        return value
    for name, fault in value.items():
        if name == "error" and fault is True:
            return value
        if not _ERROR_NAME.match(name) or not _is_told(fault) or "." in kind:
            continue
        if isinstance(fault, str) and _says_good(value):
            continue
        if isinstance(fault, str):
            beside = {k: v for k, v in value.items() if k in _MESSAGES or k in _STATUSES}
            prose = " " in fault.strip() or not beside
            return {"error": {"message": fault, **beside}} if prose else value
        if isinstance(fault, dict):
            prose = text_of(fault.get("faultstring"))
            return {"error": {"message": prose, **fault} if prose else fault}
        return value
    return None


def _says_good(value: dict[str, Any]) -> bool:
    """Whether a code says that there is no error, whatever prose stands beside it."""
    codes = [value[name] for name in (*_CODES, "code") if value.get(name) is not None]
    return bool(codes) and not any(map(_is_bad, codes))


def _is_told(fault: Any) -> bool:
    """Whether the value of an error's name says that there is one."""
    return bool(fault) and not (isinstance(fault, str) and fault.strip().lower() in _GOOD)


def _is_bad_state(state: str) -> bool:
    word = state.strip()
    if not word or word.lower() in _GOOD or _WAITING.search(word):
        return False
    return reason_of(word) in ("error", "cancelled")


def _has_bad_number(value: dict[str, Any]) -> bool:
    return any(_is_bad(value.get(name)) for name in _CODES) or any(
        _is_http_failure(value.get(name)) for name in _STATUSES
    )


def _has_message(value: dict[str, Any]) -> bool:
    return any(isinstance(value.get(name), str) and value[name] for name in _MESSAGES)


def _goes_on(text: str) -> bool:
    """Whether a message says that the answer is on its way."""
    return bool(_WAITING.search(text)) and not FAILING.search(text)


def _is_message(value: dict[str, Any]) -> bool:
    """Whether the payload is a message with a code, or hardly more than a message."""
    if not _has_message(value):
        return False
    if _is_bad(value.get("code")):
        return True
    words = next(value[name] for name in _MESSAGES if text_of(value.get(name)))
    if _goes_on(words):
        return False
    return all(k.lower() in _BESIDE or k in _MESSAGES or v is None for k, v in value.items())


def _is_message_of(kind: str, value: dict[str, Any]) -> bool:
    """Whether a message with a kind of its own is a failure: its code, its kind or its words say
    so, and it is not of a kind that only tells how it goes."""
    if not _has_message(value):
        return False
    if _is_bad(value.get("code")) or reason_of(kind) in ("error", "cancelled", "content_filter"):
        return True
    words = next(value[name] for name in _MESSAGES if text_of(value.get(name)))
    return not _ASIDE.search(kind) and not _goes_on(words) and _is_message(value)


def says_error(kind: str) -> bool:
    """Whether the name of a kind, in small letters, is that of a failure."""
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
