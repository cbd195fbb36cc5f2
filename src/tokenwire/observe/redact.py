"""What must not be shown or logged, taken out of a text.

Always true: the result holds no registered secret, no key that looks like one, no credentials of a
URL, no ``Authorization`` value, and no path of a file on this machine.
"""

from __future__ import annotations

import re

__all__ = ["forget_secrets", "keep_secret", "redact"]

#: Values known to be secret, longest first, so that none hides inside another.
_known: list[str] = []
_LEAST = 6
#: First folders of a machine's file system; a URL's path begins otherwise.
_ROOTS = "home|root|usr|var|tmp|etc|opt|work|srv|mnt|data|run|app|Users|private|Library|Volumes"

_PATTERNS: list[tuple[re.Pattern[str], str]] = [
    (
        re.compile(
            r"(?i)\b(authorization|x-api-key|api[_-]?key)(\"?'?\s*[:=]\s*\"?'?)"
            r"(?:(?:bearer|basic)\s+)?[^\s\"',;}]+"
        ),
        r"\1\2[redacted]",
    ),
    (re.compile(r"(?i)\bbearer\s+[a-z0-9._~+/=-]{6,}"), "Bearer [redacted]"),
    (re.compile(r"\b(?:sk|pk|rk|gsk|xai|hf)[-_][A-Za-z0-9_*.-]{6,}"), "[redacted]"),
    (re.compile(r"\b(?:gh[opsu]_|github_pat_|AKIA|AIza)[A-Za-z0-9_-]{10,}"), "[redacted]"),
    (re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*://)[^/\s@]+@"), r"\1[redacted]@"),
    (re.compile(rf"(?<![\w:/.])/(?:{_ROOTS})(?:/[\w.@+~-]+)+/?"), "[path]"),
    (re.compile(r"\b[A-Za-z]:\\[\w.\\ -]+"), "[path]"),
]


def keep_secret(value: str | None) -> None:
    """Never show ``value`` in a redacted text from now on."""
    if value and len(value) >= _LEAST and value not in _known:
        _known.append(value)
        _known.sort(key=len, reverse=True)


def forget_secrets() -> None:
    """Forget the registered values (the patterns stay)."""
    _known.clear()


def redact(text: str, *, most: int | None = None) -> str:
    """``text`` without secrets, at most ``most`` characters long."""
    for secret in _known:
        if secret in text:
            text = text.replace(secret, "[redacted]")
    for pattern, instead in _PATTERNS:
        text = pattern.sub(instead, text)
    if most is not None and len(text) > most:
        text = text[: most - 1] + "…"
    return text
