"""Requests that come again: ``Last-Event-ID`` on a POST, and ``Idempotency-Key``.

Always true: a request with a ``Last-Event-ID`` starts nothing. It resumes the run that its
``Idempotency-Key`` names, or that the id itself names (``RUN:cursor``), or it is refused. A
repetition names the run of the first request, whatever the conversation has become meanwhile.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
from starlette.requests import Request

from tokenwire.errors import CursorError, GoneError, KeyReusedError, NotFoundError
from tokenwire.events.message import Message
from tokenwire.relay.description import RunInfo
from tokenwire.server.edge.guard import RequestInfo
from tokenwire.server.routes.support import place_of
from tokenwire.server.state import State
from tokenwire.wire.place import Place

__all__ = ["Resume", "resume_of", "start_in_conversation"]

#: The messages of a request, after those of the conversation that the server stores.
Complete = Callable[[], Awaitable[list[Message]]]

#: Finds the run of a place by what else the request says; None where there is none.
FindRun = Callable[[Place], Awaitable[RunInfo | None]]


class Resume(msgspec.Struct, frozen=True):
    """A run, and the place after which its reader misses it."""

    run: RunInfo
    place: Place


async def resume_of(
    state: State, request: Request, info: RequestInfo, find_run: FindRun | None = None
) -> Resume | None:
    """What the request resumes; None without a ``Last-Event-ID``. Raises `CursorError` when it can
    resume nothing, or the run does not hold that very place."""
    text = request.headers.get("last-event-id")
    if not text:
        return None
    name, _, cursor = text.rpartition(":")
    place = place_of(cursor)
    key = request.headers.get("idempotency-key")
    run = await state.runs.named(key, principal=info.principal) if key else None
    if place is None or (run is not None and name not in ("", run.id)):
        raise CursorError("invalid 'Last-Event-ID'; send the id of the last event received")
    if run is None and name:
        run = await _run(state, name, info.principal)
    if run is None and find_run is not None:
        run = await find_run(place)
    if run is None:
        raise CursorError(
            "this request cannot resume: send the 'Idempotency-Key' of the request that started "
            "the run, or omit 'Last-Event-ID' to start one"
        )
    await state.runs.check_cursor(run.id, place.cursor, principal=info.principal)
    return Resume(run, place)


async def _run(state: State, name: str, principal: str) -> RunInfo | None:
    try:
        return await state.runs.info(name, principal=principal)
    except (NotFoundError, GoneError):
        return None


async def start_in_conversation(
    state: State,
    posted: list[Message],
    complete: Complete,
    start: Callable[[list[Message]], Awaitable[RunInfo]],
    *,
    key: str | None,
    principal: str,
) -> RunInfo:
    """``start`` the run of a request that posted the end of a conversation; ``complete`` adds what
    the server stores. With a ``key`` that has a run, what it stored then counts: the conversation
    may hold that very run by now. Raises `KeyReusedError` for other messages."""
    before = await _messages_before(state, posted, key, principal)
    messages = [*before, *posted] if before is not None else await complete()
    try:
        return await start(messages)
    except KeyReusedError:
        if before is not None:
            raise
        # The same request was started while this one read the conversation.
        before = await _messages_before(state, posted, key, principal)
        if before is None:
            raise
        return await start([*before, *posted])


async def _messages_before(
    state: State, posted: list[Message], key: str | None, principal: str
) -> list[Message] | None:
    """Those of the run that ``key`` names, without as many as were posted; None without one."""
    run = await state.runs.named(key, principal=principal) if key else None
    if run is None:
        return None
    try:
        received = await state.runs.received(run.id, principal=principal)
    except (NotFoundError, GoneError):
        return None
    return received[: max(0, len(received) - len(posted))]
