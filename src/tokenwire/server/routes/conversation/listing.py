"""``GET /v1/threads?live=``: the list of a person's conversations, as it changes.

Always true: a reader hears of its own list and of no other; what it gets, and how it comes back,
`tokenwire.relay.thread_list.stream` says.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from tokenwire.errors import InputError
from tokenwire.relay.thread_list.stream import ListStream
from tokenwire.server.edge.guard import RequestInfo
from tokenwire.server.feeds.respond import live_of, page, stream_response
from tokenwire.server.state import State

__all__ = ["followed", "open_list", "subject_of"]


async def open_list(state: State, principal: str, after: str | None) -> ListStream:
    """The stream of a list after a cursor. Raises `CursorError`, `LogError`."""
    stream = ListStream(state.store, state.runs.worker.lists, principal)
    try:
        await stream.begin(after)
    except BaseException:
        stream.close()
        raise
    return stream


def subject_of(principal: str) -> str:
    """What is read, for the counts of readers."""
    return f"conversations of {principal}"


async def followed(state: State, request: Request, info: RequestInfo) -> Response:
    """``GET /v1/threads?live=``: what changes in the list, after ``Last-Event-ID`` or ``?after=``;
    without either first a snapshot. ``live=sse``: a stream; ``long-poll``: one JSON page as soon as
    there is something; ``no``: what is there."""
    query = request.query_params
    unknown = set(query) - {"after", "live"}
    if unknown:
        name = min(unknown)
        raise InputError(f"'{name}' does not go with 'live'", field=name)
    live = live_of(query["live"])
    after = request.headers.get("last-event-id") or query.get("after") or None
    stream = await open_list(state, info.principal, after)
    subject = subject_of(info.principal)
    if live == "sse":
        return stream_response(state, stream, info, subject)
    receive = request.receive if live == "long-poll" else None
    return await page(state, stream, info, subject, receive)
