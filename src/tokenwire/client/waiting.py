"""What waits for the caller on a server, and links by which it is decided elsewhere, as values."""

from __future__ import annotations

from typing import Any, Literal, TypeVar

import msgspec

from tokenwire.errors import ServerProtocolError

__all__ = ["ApprovalLink", "Waiting", "WaitingPage", "value_of"]

T = TypeVar("T")


class Waiting(msgspec.Struct, kw_only=True):
    """A question that waits for a person. ``run``, ``approval``: the ids for `Client.approve`;
    ``call``: of the tool call; ``tool``, ``arguments``: what would be called; ``reason``: why it
    is asked, if that is said; ``model``: what asks, for ``principal``, in the conversation
    ``thread``; ``since``, ``expires``:
    Unix seconds, None for no end of its own; ``deciders``: the ids of those who may decide."""

    run: str
    approval: str
    call: str
    tool: str
    arguments: Any = None
    reason: str | None = None
    thread: str | None = None
    model: str = ""
    principal: str | None = None
    since: float = 0.0
    expires: float | None = None
    deciders: list[str] = []


class WaitingPage(msgspec.Struct, kw_only=True):
    """Some of what waits: ``waiting``, what waits longest first; ``next``: pass it as ``after``,
    None at the end."""

    waiting: list[Waiting]
    next: str | None = None


class ApprovalLink(msgspec.Struct, kw_only=True):
    """A link that decides about an approval, once. ``id``: its name; ``url``: its address;
    ``decision``: the only one that it offers, None for either; ``expires``: Unix seconds."""

    id: str
    url: str
    expires: float
    decision: Literal["approve", "deny"] | None = None


def value_of(value: Any, kind: type[T]) -> T:
    """The server's response as ``kind``. Raises `ServerProtocolError`."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise ServerProtocolError(f"the server's response is no {kind.__name__}") from error
