"""How a principal's conversation is called in the store: the one place that says whose it is.

Always true: two principals' conversations of one name are two; a name says its principal.
"""

from __future__ import annotations

__all__ = ["parts_of_scope", "principal_of", "scope_of", "thread_of"]

#: Between principal and thread; neither has it.
_BETWEEN = "\x1f"


def scope_of(principal: str, thread: str) -> str:
    """The name of ``thread`` of ``principal`` in the store, and of its documents."""
    return f"{principal}{_BETWEEN}{thread}"


def parts_of_scope(scope: str) -> tuple[str, str]:
    """Whose conversation it is, and what they call it."""
    return principal_of(scope), thread_of(scope)


def principal_of(scope: str) -> str:
    """Whose conversation it is."""
    return scope.partition(_BETWEEN)[0]


def thread_of(scope: str) -> str:
    """What its principal calls it."""
    return scope.partition(_BETWEEN)[2]
