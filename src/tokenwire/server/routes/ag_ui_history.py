"""The conversation that the server stores for a TanStack page: read in pages, and continued.

Always true: a message keeps its id from page to page; a page's cursor counts from the start of the
conversation, so new messages do not move it.
"""

from __future__ import annotations

import asyncio
from typing import Any

from tokenwire.errors import GoneError, InputError, NotFoundError
from tokenwire.events.message import Message
from tokenwire.events.reasons import OUTCOMES
from tokenwire.events.validation import whole_number
from tokenwire.relay.replay import Replay
from tokenwire.server.state import State
from tokenwire.wire.ag_ui.encoder import AGUIEncoder
from tokenwire.wire.ag_ui.request import AGUIRequest
from tokenwire.wire.ag_ui.tanstack import tanstack_messages

__all__ = ["hydrate", "knows", "with_stored"]

_MOST_LIMIT = 10_000


async def hydrate(
    state: State, thread: str, principal: str, *, limit: str | None, before: str | None
) -> dict[str, Any]:
    """``{messages, activeRun, interrupts, page}``. ``limit``: the newest so many messages;
    ``before``: of those that a page's cursor says are older."""
    most, end = _count(limit, "limit", 1), _count(before, "before", 0)
    conversation: dict[str, Any] = {"messages": [], "activeRun": None, "interrupts": None}
    runs = await state.runs.thread(thread, principal=principal)
    if not runs:
        return conversation
    newest = runs[0]
    try:
        snapshot = await state.runs.snapshot(newest.id, principal=principal)
        replay = await state.runs.replay(newest.id, principal=principal)
    except (NotFoundError, GoneError):
        return conversation
    messages, fold = snapshot.input.copy(), replay.fold
    is_own = newest.principal == principal  # the names of other members mean nothing here
    client_run = (newest.metadata or {}).get("ag_ui_run", newest.id) if is_own else newest.id
    if fold.status == "waiting":
        pending = await asyncio.to_thread(_pending, replay)  # it may be the largest run
        conversation["interrupts"] = {"runId": client_run, "pending": pending}
    elif fold.status not in OUTCOMES:
        conversation["activeRun"] = {"runId": client_run}
    if conversation["activeRun"] is None:
        # An active run is joined from its start; included here too, its answer would stand twice.
        messages += fold.history()
    # Not ids that the stream of a run gives to its messages.
    all_messages = tanstack_messages(messages, f"{newest.id}-kept")
    end = len(all_messages) if end is None else min(end, len(all_messages))
    start = 0 if most is None else max(0, end - most)
    conversation["messages"] = all_messages[start:end]
    conversation["page"] = (
        {"truncated": True, "cursor": str(start)} if start else {"truncated": False}
    )
    return conversation


def _pending(replay: Replay) -> list[dict[str, Any]]:
    """What the run waits for, as its own stream shows it."""
    encoder = AGUIEncoder(tanstack=True)
    for event in replay.events():
        encoder.skip(event)
    return encoder.interrupts(list(replay.fold.waiting))


async def knows(state: State, run: str, principal: str) -> bool:
    """Whether the run exists."""
    try:
        await state.runs.info(run, principal=principal)
    except (NotFoundError, GoneError):
        return False
    return True


async def with_stored(state: State, body: AGUIRequest, principal: str) -> list[Message]:
    """The stored conversation with the posted messages: appended, or, where they begin with a
    stored message (regenerated, or edited), in its place."""
    posted = body.request.messages
    runs = await state.runs.thread(body.thread, principal=principal)
    if not runs or not posted:
        return posted
    try:
        snapshot = await state.runs.snapshot(runs[0].id, principal=principal)
    except (NotFoundError, GoneError):
        return posted
    stored = [*snapshot.input, *snapshot.messages]
    ids = [message.id for message in stored]
    first = posted[0].id
    return [
        *(stored[: ids.index(first)] if first is not None and first in ids else stored),
        *posted,
    ]


def _count(text: str | None, name: str, least: int) -> int | None:
    if text is None:
        return None
    number = whole_number(text)
    if number is None or number < least:
        raise InputError(f"'{name}' must be a whole number from {least} on", field=name)
    return min(number, _MOST_LIMIT)
