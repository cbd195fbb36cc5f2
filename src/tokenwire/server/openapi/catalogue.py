"""Every description, by method and path as a router has it (``{path:path}`` is ``{path}`` here)."""

from __future__ import annotations

import re
from collections.abc import Iterable

from starlette.routing import BaseRoute, Route, WebSocketRoute

from tokenwire.server.openapi import conversation, durable, native, producers, waiting, wires
from tokenwire.server.openapi.langgraph import operations as langgraph
from tokenwire.server.openapi.operation import Operation, Socket

__all__ = ["OPERATIONS", "PARAMETERS", "SOCKETS", "described", "plain_path"]

OPERATIONS: dict[tuple[str, str], Operation] = {
    **native.OPERATIONS,
    **conversation.OPERATIONS,
    **waiting.OPERATIONS,
    **wires.OPERATIONS,
    **langgraph.OPERATIONS,
    **producers.OPERATIONS,
    **durable.OPERATIONS,
}
SOCKETS: dict[str, Socket] = {**native.SOCKETS, **wires.SOCKETS}

#: What the parameters of paths are.
PARAMETERS: dict[str, str] = {
    "run": "The run's id.",
    "approval": "The id of the approval that the run waits for.",
    "call": "The id of the tool call.",
    "link": "The id of the link.",
    "token": "The signed end of a link's address.",
    "thread": "The conversation's name.",
    "chat": "The chat's id.",
    "model": "A model's name.",
    "wire": "The wire's name.",
    "response": "The response's id.",
    "assistant": "A model's or an agent's name.",
    "checkpoint": "The checkpoint's id.",
    "task": "The task's id, which is the run's.",
    "config": "The id of a push notification configuration.",
    "tenant": "An agent's or a model's name; it may hold slashes.",
    "path": "The stream's path; it may hold slashes.",
    "name": "The subscription's id.",
    "principal": "The plain id of a member; it may hold slashes.",
    "invite": "The invitation's name.",
    "whose": "`principal`, `tenant` or `thread`.",
    "owner": "A principal's or tenant's plain id, or a conversation; it may hold slashes.",
}
_CONVERTER = re.compile(r"\{(\w+):\w+\}")


def plain_path(path: str) -> str:
    """A router's path without its converters."""
    return _CONVERTER.sub(r"{\1}", path)


def described(
    routes: Iterable[BaseRoute], own: dict[tuple[str, str], Operation]
) -> tuple[dict[tuple[str, str], Operation], dict[str, Socket]]:
    """The operations and sockets of ``routes`` that have a description: those of this file, and
    ``own``."""
    operations: dict[tuple[str, str], Operation] = {}
    sockets: dict[str, Socket] = {}
    for route in routes:
        if isinstance(route, WebSocketRoute) and route.path in SOCKETS:
            sockets[route.path] = SOCKETS[route.path]
        elif isinstance(route, Route):
            path = plain_path(route.path)
            for method in sorted(route.methods or ()):
                operation = own.get((method, path)) or OPERATIONS.get((method, path))
                if operation is not None:
                    operations[method, path] = operation
    return operations, sockets
