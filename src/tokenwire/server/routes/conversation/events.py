"""``/v1/threads/{thread}/events`` and ``/typing``: a conversation as it happens, on every device.

Always true: who may not read the conversation gets what its other routes answer; what a reader
gets, and how it comes back, `tokenwire.relay.feed.stream` says; typing is told and never stored.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from tokenwire.errors import InputError, NotFoundError
from tokenwire.events.principal import parts_of
from tokenwire.relay.conversation.scope import scope_of
from tokenwire.relay.feed.stream import ThreadStream
from tokenwire.relay.members.access import Access
from tokenwire.server.access.misses import count_misses
from tokenwire.server.edge.guard import RequestInfo
from tokenwire.server.feeds.respond import live_of, page, stream_response
from tokenwire.server.routes.conversation.turns import of_thread, thread_of
from tokenwire.server.routes.support import route
from tokenwire.server.state import State

__all__ = ["RUNS", "AboutThread", "open_thread", "routes", "type_in"]

#: Whose events a stream has beside the conversation's own: ``?runs=``.
RUNS = ("none", "full")


def routes(state: State) -> list[BaseRoute]:
    """The live routes of a thread."""
    one = "/v1/threads/{thread}"
    return [
        route(state, one + "/events", of_thread(events), "GET"),
        route(state, one + "/typing", of_thread(typing), "POST"),
    ]


class AboutThread:
    """What a conversation's events do not say themselves."""

    def __init__(self, state: State, access: Access) -> None:
        self._state, self._access = state, access

    async def title(self) -> str | None:
        """The title as it is now."""
        return await self._state.threads.title_of(self._access.scope)

    async def members(self) -> dict[str, str] | None:
        """Their roles by their ids; None where nobody was let in."""
        roster = await self._state.runs.members.roster(self._access.scope)
        if roster is None:
            return None
        return {parts_of(name)[0]: member.role for name, member in roster.members.items()}


async def open_thread(
    state: State,
    info: RequestInfo,
    thread: str,
    after: str | None,
    *,
    whole: bool,
    is_page: bool = False,
) -> ThreadStream:
    """The stream of a conversation after a cursor; ``is_page``: one that ends with what is there,
    or comes next. Raises `NotFoundError` for one of others, `CursorError`, `LogError`."""
    worker, members = state.runs.worker, state.runs.members
    changes = members.watch.change_count
    access = await members.enter(info.principal, thread)
    about = AboutThread(state, access)
    stream = ThreadStream(
        state.store, worker.feeds, worker.readers, access.scope, about, whole=whole, thread=thread
    )

    def end() -> None:
        stream.fail(NotFoundError("no such conversation", what="thread"))

    try:
        stream.on_close.append(await members.watch.reader(access, end, changes))
        await stream.begin(after)
        # A page after another says who is there when that changes, and does not end at once.
        stream.sit(worker.presence, info.by or "", hears_who=not (is_page and after))
    except BaseException:
        stream.close()
        raise
    return stream


async def type_in(state: State, info: RequestInfo, thread: str) -> None:
    """Tell those who follow the conversation that this person types. Raises `NotFoundError`,
    and `RoleError` for a member who may not write."""
    access = await state.runs.members.enter(info.principal, thread, "write")
    state.runs.worker.presence.type(access.scope, info.by or "")


async def events(state: State, request: Request, info: RequestInfo) -> Response:
    """``GET /v1/threads/{thread}/events``: what happens in the conversation, after
    ``Last-Event-ID`` or ``?after=``; without either first a snapshot. ``runs=full``: with the
    events of its runs. ``live=long-poll``: one JSON page as soon as there is something; ``no``:
    what is there."""
    thread, query = thread_of(request), request.query_params
    unknown = set(query) - {"after", "live", "runs"}
    if unknown:
        raise InputError(f"unknown parameter '{min(unknown)}'", field=min(unknown))
    live, runs = live_of(query.get("live", "sse")), query.get("runs", "none")
    if runs not in RUNS:
        raise InputError("'runs' must be none or full", field="runs")
    after = request.headers.get("last-event-id") or query.get("after") or None
    subject = scope_of(info.principal, thread)
    async with count_misses(state, info):
        stream = await open_thread(
            state, info, thread, after, whole=runs == "full", is_page=live != "sse"
        )
    if live == "sse":
        return stream_response(state, stream, info, subject)
    receive = request.receive if live == "long-poll" else None
    return await page(state, stream, info, subject, receive)


async def typing(state: State, request: Request, info: RequestInfo) -> Response:
    """``POST /v1/threads/{thread}/typing``: whoever has the conversation open hears that this
    person types, for some seconds; 204."""
    async with count_misses(state, info):
        await type_in(state, info, thread_of(request))
    return Response(status_code=204)
