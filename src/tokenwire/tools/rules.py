"""What a rule of the user says: a plain yes or no.

Always true: a coroutine, which says nothing before it is awaited, never counts as a yes.
"""

from __future__ import annotations

import inspect
from typing import Any

__all__ = ["verdict"]


def verdict(value: Any) -> bool:
    """The truth of what a rule returned. Raises `TypeError` for an awaitable."""
    if inspect.isawaitable(value):
        if inspect.iscoroutine(value):
            value.close()
        raise TypeError("a rule must be a plain function, not an async one")
    return bool(value)
