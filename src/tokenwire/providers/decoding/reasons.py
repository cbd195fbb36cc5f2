"""The words in which servers say why an answer ended, as ours.

Always true: ``"null"`` and its like are no reason; a word that nobody has listed is read by what it
contains, so that a failure with a new name is still a failure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

from tokenwire.events.model import FinishReason

__all__ = ["FAILURES", "is_partial", "reason_of", "word_of"]

#: Reasons with which an answer failed, whatever came before.
FAILURES = frozenset({"error", "cancelled"})

_NO_REASON = frozenset({"null", "none", "nil", "undefined", "unknown", "n/a", "not_finished"})
_NO_REASON |= {"unfinished", "in_progress", "finish_reason_unspecified", "unspecified"}

_WORDS: dict[str, FinishReason] = {
    "stop": "stop",
    "stopped": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "stop_sequence": "stop",
    "stop_token": "stop",
    "end_turn": "stop",
    "end": "stop",
    "done": "stop",
    "complete": "stop",
    "completed": "stop",
    "finish": "stop",
    "finished": "stop",
    "normal": "stop",
    "length": "length",
    "max_tokens": "length",
    "max_output_tokens": "length",
    "max_length": "length",
    "tool_calls": "tool_calls",
    "tool_call": "tool_calls",
    "tool_use": "tool_calls",
    "function_call": "tool_calls",
    "function_calls": "tool_calls",
    "content_filter": "content_filter",
    "refusal": "refusal",
    "model_length": "context_overflow",
    "model_context_window_exceeded": "context_overflow",
    "pause_turn": "pause",
    "pause": "pause",
    "malformed_function_call": "malformed_tool_call",
    "malformed_tool_call": "malformed_tool_call",
    "cancelled": "cancelled",
    "canceled": "cancelled",
    "abort": "cancelled",
    "aborted": "cancelled",
    "incomplete": "other",
}
#: Parts of words that nobody has listed, the first that occurs.
_PARTS: tuple[tuple[FinishReason, re.Pattern[str]], ...] = (
    ("malformed_tool_call", re.compile(r"(?:malformed|invalid)_?(?:function|tool)|tool_call_err")),
    ("context_overflow", re.compile(r"context_?(?:window|length|overflow|limit)")),
    (
        "content_filter",
        re.compile(r"filter|safety|sensitive|moderat|block|prohibited|guardrail|recitation"),
    ),
    (
        "error",
        re.compile(
            r"err(?:or)?(?![a-z])|error|fail|exception|time_?d?_?out|insufficient|overload|crash"
            r"|unavailable|malformed|disconnect|preempt|interrupt|exhausted|network|internal|kill"
            r"|shutdown|quota|rate_limit|oom|no_?response|invalid|lost|reset|reject|terminat"
            r"|expired|evict|stall|closed|capacity|busy|throttl|denied|unauthor|gateway"
            r"|bad_request|not_found|panic|deadline|dropped|overflow|unreachable|^[45]\d\d\Z"
        ),
    ),
    ("cancelled", re.compile(r"abort|cancel")),
    ("length", re.compile(r"max_?(?:output_?|new_?)?(?:token|length)|token_?limit|length")),
)
_PARTIAL = re.compile(
    r"^(?:[\d.]+|true)\Z|incomplete|unfinished|partial|truncat|cut[_-]?off|repetit|degraded|early"
)


#: Where an object that stands for a reason holds its word.
_REASON_KEYS = ("type", "reason", "finish_reason", "stop_reason", "value", "name", "code")


def word_of(value: object) -> str | None:
    """A finish reason as the server wrote it, or None for what means that there is none yet. A
    number or true says that the answer ended, but not how; an object or list may hold the word."""
    if value is None:
        return None
    if not isinstance(value, str):
        value = _word_in(value)
        if value is None:
            return None
    return None if not value.strip() or value.strip().lower() in _NO_REASON else value


def _word_in(value: object) -> str | None:
    """The word of a reason that is no text."""
    if isinstance(value, list) and value:
        value = value[0]
    if isinstance(value, dict):
        fields = cast(dict[str, Any], value)
        value = next((fields[k] for k in _REASON_KEYS if fields.get(k)), None)
    if isinstance(value, bool | int | float) and value and value != -1:
        return str(value).lower()
    return value if isinstance(value, str) else None


def is_partial(word: str | None) -> bool:
    """Whether a word without a meaning of ours says that the answer is not whole."""
    return word is not None and _PARTIAL.search(word.lower()) is not None


def reason_of(word: str, own: Mapping[str, FinishReason] | None = None) -> FinishReason:
    """The meaning of a finish reason; ``own`` are the wire's own words."""
    if own is not None and word in own:
        return own[word]
    plain = re.sub(r"[\s\-.]+", "_", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", word.strip())).lower()
    plain = plain.removeprefix("finish_reason_") or plain
    if own is not None and plain in own:
        return own[plain]
    reason = _WORDS.get(plain)
    if reason is not None:
        return reason
    for reason, parts in _PARTS:
        if parts.search(plain):
            return reason
    return "other"
