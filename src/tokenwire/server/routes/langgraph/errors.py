"""Errors as LangGraph's server writes them: ``{"detail": ...}``.

Always true: our own form of an error stands beside the sentence, so a program need not read that.
"""

from __future__ import annotations

from typing import Any

from tokenwire.server.edge.problems import native_form

__all__ = ["langgraph_form"]


def langgraph_form(
    code: str, message: str, status: int, request_id: str, details: dict[str, Any]
) -> dict[str, Any]:
    """The body of an error. ``message`` is what the clients of the streaming protocol read."""
    own = native_form(code, message, status, request_id, details)
    return {"detail": message, "message": message, **own}
