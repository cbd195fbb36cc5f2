"""Token counts of one answer as they are reported, often more than once.

Always true: a later number replaces an earlier one, but 0 and absence replace nothing; only a
report that counts the input is believed when it says that none of it was cached; counts that are
all absent are no report.
"""

from __future__ import annotations

from typing import Any

import msgspec

from tokenwire.events.fold import USAGE_COUNTS
from tokenwire.events.model import Usage

__all__ = ["joined", "merged"]

_DETAILS = frozenset({"cached_input_tokens", "cache_write_tokens"})
_INPUT = ("input_tokens", "prompt_tokens", "promptTokenCount", "inputTokens")


def merged(before: Usage | None, usage: Usage | None) -> Usage | None:
    """The counts known after ``usage``; None when nobody has counted."""
    if usage is None:
        return before
    counts = {name: _count(usage, name) for name in USAGE_COUNTS}
    if all(count is None for count in counts.values()):
        return before
    if before is not None:
        believed = bool(counts["input_tokens"])
        for name, count in counts.items():
            if count is None or (count == 0 and not (believed and name in _DETAILS)):
                earlier = _count(before, name)
                counts[name] = count if earlier is None else earlier
    raw = joined(before.raw if before is not None else None, usage.raw)
    return msgspec.structs.replace(usage, raw=raw, **counts)


def joined(before: dict[str, Any] | None, raw: dict[str, Any] | None) -> dict[str, Any] | None:
    """The provider's own report after ``raw``: what says nothing erases nothing."""
    if not before or raw is None:
        return raw if raw is not None else before
    believed = any(raw.get(name) for name in _INPUT)
    news = {k: v for k, v in raw.items() if k not in before or not _is_nothing(k, v, believed)}
    return {**before, **news}


def _is_nothing(key: str, value: Any, believed: bool) -> bool:
    if value is None:
        return True
    is_zero = value == 0 and isinstance(value, int | float) and not isinstance(value, bool)
    return is_zero and not (believed and "cache" in key.lower())


def _count(usage: Usage, name: str) -> int | None:
    count: int | None = getattr(usage, name)
    return None if count is None or count < 0 else count
