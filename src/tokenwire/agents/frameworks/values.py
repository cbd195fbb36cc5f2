"""What frameworks hand over, as values of ours: JSON, and names."""

from __future__ import annotations

from typing import Any

__all__ = ["plain", "title"]


def plain(value: Any) -> Any:
    """A value of the framework's or the user's as JSON; what JSON has no word for as its text."""
    from pydantic_core import from_json, to_json

    return from_json(to_json(value, fallback=str))


def title(name: str) -> str:
    """A name of the framework's, which may hold spaces, as one of an agent."""
    letters = "".join(c if c.isalnum() or c in "_.-" else "-" for c in name)
    return letters.strip("-._")[:64] or "agent"
