"""``/langgraph``: what the clients of LangGraph's server send, below one prefix.

Always true: a client that is given ``.../langgraph`` as its ``apiUrl`` needs nothing else; what is
not there is refused by its name in the form of that server's errors.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from tokenwire.server.access.misses import count_misses
from tokenwire.server.edge.guard import RequestInfo
from tokenwire.server.routes.langgraph import commands, runs, thread_stream, threads
from tokenwire.server.routes.langgraph.caller import Caller
from tokenwire.server.routes.langgraph.errors import langgraph_form
from tokenwire.server.routes.support import route
from tokenwire.server.state import State

__all__ = ["PREFIX", "routes"]

PREFIX = "/langgraph"


def routes(state: State) -> list[BaseRoute]:
    """Threads, runs and assistants."""
    state.error_forms[PREFIX] = langgraph_form
    state.cors_exposed += ", Content-Location"
    thread, run = f"{PREFIX}/threads/{{thread}}", f"{PREFIX}/threads/{{thread}}/runs"
    state.media_patterns.append(re.compile(f"{PREFIX}(/threads/[^/]+)?/runs(/stream|/wait)?"))
    state.media_patterns.append(re.compile(f"{PREFIX}/threads/[^/]+/commands"))
    entries: list[BaseRoute] = []

    def add(path: str, method: str, action: Action, *roles: str) -> None:
        if roles:
            state.roles.add(method, path, *roles)  # type: ignore[arg-type]
        entries.append(_route(state, path, action, method))

    add(f"{PREFIX}/info", "GET", threads.info)
    add(f"{PREFIX}/assistants/search", "POST", threads.search_assistants, "read")
    add(f"{PREFIX}/assistants/{{assistant:path}}", "GET", threads.show_assistant)
    add(f"{PREFIX}/threads", "POST", threads.create)
    add(f"{PREFIX}/threads/search", "POST", threads.search, "read")
    add(thread, "GET", threads.show)
    add(thread, "DELETE", threads.delete_thread)
    add(f"{thread}/state", "GET", threads.show_state)
    add(f"{thread}/state/checkpoint", "POST", threads.state_at, "read")
    add(f"{thread}/state/{{checkpoint}}", "GET", threads.state_at)
    add(f"{thread}/history", "POST", threads.history, "read")
    for base in (run, f"{PREFIX}/runs"):
        for path, action in (
            ("/stream", runs.begin_and_stream),
            ("/wait", runs.begin_and_wait),
            ("", runs.begin_run),
        ):
            add(base + path, "POST", action, "write", "approve")
        add(f"{base}/{{run}}/stream", "GET", runs.stream)
    add(f"{thread}/stream/events", "POST", thread_stream.stream_events, "read")
    add(f"{thread}/commands", "POST", commands.command, "write", "approve")
    add(run, "GET", runs.list_runs)
    add(f"{run}/{{run}}", "GET", runs.show_run)
    add(f"{run}/{{run}}", "DELETE", runs.delete_run)
    add(f"{run}/{{run}}/join", "GET", runs.join)
    add(f"{run}/{{run}}/cancel", "POST", runs.cancel_run)
    return entries


Action = Callable[[Caller], Awaitable[Response]]


def _route(state: State, path: str, action: Action, method: str) -> Route:
    async def handler(state: State, request: Request, info: RequestInfo) -> Response:
        async with count_misses(state, info):
            return await action(Caller(state, request, info))

    handler.__doc__ = action.__doc__
    handler.__name__ = f"langgraph_{action.__name__}"
    return route(state, path, handler, method)
