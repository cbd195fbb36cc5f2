"""A run's description as the routes return it."""

from __future__ import annotations

from typing import Any

from tokenwire.relay.description import RunInfo

__all__ = ["describe"]


def describe(info: RunInfo, mount: str) -> dict[str, Any]:
    """A `RunInfo` as JSON; ``mount``: the prefix that paths have in the application."""
    fields = {
        "id": info.id,
        "state": info.state,
        "tail": info.tail,
        "model": info.model,
        "thread": info.thread,
        "created": info.created,
        "metadata": info.metadata,
        "events": f"{mount}/v1/runs/{info.id}/events",
    }
    return {k: v for k, v in fields.items() if v is not None}
