"""Removes secrets and paths from a text before it is shown or logged.

Always true: the result contains no registered secret, nothing that looks like a key, no credentials
of a URL, no ``Authorization`` value, and no path of a file on this machine.
"""

from __future__ import annotations

import re

__all__ = ["forget_secrets", "keep_secret", "redact"]

#: Registered secrets, longest first, so that none is hidden inside another.
_secrets: list[str] = []
_LEAST = 6
#: So many times what is shown is searched; the rest could only come up when that shrinks.
_SEARCHED = 4
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
    (re.compile(r"\b(?:access|attach|ticket)_[A-Za-z0-9_-]{40,}"), "[redacted]"),
    (re.compile(r"\b(?:gh[opsu]_|github_pat_|AKIA|AIza)[A-Za-z0-9_-]{10,}"), "[redacted]"),
    (re.compile(r"://[^/\s@]+@"), "://[redacted]@"),
    (re.compile(rf"(?<![\w:/.])/(?:{_ROOTS})(?:/[\w.@+~-]+)+/?"), "[path]"),
    (re.compile(r"\b[A-Za-z]:\\[\w.\\ -]+"), "[path]"),
]


def _first(text: str, most: int) -> str:
    """The beginning of a longer text, without the word that the cut goes through: half a secret
    would not be recognised as one."""
    if len(text) <= most:
        return text
    words = text[: most + 1].rsplit(None, 1)
    return f"{words[0]} …" if len(words) == 2 else "…"


def keep_secret(value: str | None) -> None:
    """Register ``value`` as a secret of at least 6 characters for `redact`."""
    if value and len(value) >= _LEAST and value not in _secrets:
        _secrets.append(value)
        _secrets.sort(key=len, reverse=True)


def forget_secrets() -> None:
    """Remove the registered secrets (the patterns stay)."""
    _secrets.clear()


def redact(text: str, *, most: int | None = None) -> str:
    """``text`` without secrets, at most ``most`` characters long. A long one is cut before it is
    searched, so that what is quoted from outside costs no more than what is shown."""
    if most is not None:
        text = _first(text, _SEARCHED * most)
    for secret in _secrets:
        if secret in text:
            text = text.replace(secret, "[redacted]")
    for pattern, instead in _PATTERNS:
        text = pattern.sub(instead, text)
    if most is not None and len(text) > most:
        text = text[: most - 1] + "…"
    return text
