"""What stands in the way of a turn.

Always true: each is a conflict with what the store holds; asking again unchanged does not help
before that has changed.
"""

from __future__ import annotations

from tokenwire.errors import ConflictError

__all__ = ["HistoryConflictError", "ThreadBusyError"]


class HistoryConflictError(ConflictError):
    """A posted message has the id of a stored one, and another content or place. ``message``: what
    is wrong; ``details``: more of it, by name."""

    code = "history_conflict"


class ThreadBusyError(ConflictError):
    """A turn of the conversation is under way, and the request may not wait for its end.
    ``message``: what is wrong; ``details``: more of it, such as the ``reason``."""

    code = "thread_busy"
