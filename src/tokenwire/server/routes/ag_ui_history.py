"""The conversation that is kept for a TanStack page: told in pages, and gone on with.

Always true: a message keeps its id from page to page; a page's cursor counts from the start of the
conversation, so what is said meanwhile does not move it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from tokenwire.errors import GoneError, InputError, NotFoundError
from tokenwire.events.codec import decode
from tokenwire.events.message import Message
from tokenwire.relay.record import json_of
from tokenwire.relay.takeover.ladder import read_run
from tokenwire.server.routes.support import ENDED, folded
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
    told: dict[str, Any] = {"messages": [], "activeRun": None, "interrupts": None}
    found = await state.runs.thread(thread, principal=principal)
    if not found:
        return told
    newest = found[0]
    try:
        snapshot = await state.runs.snapshot(newest.id, principal=principal)
        fold, _ = await folded(state, newest.id, principal)
    except (NotFoundError, GoneError):
        return told
    messages = msgspec.convert(snapshot["input"], list[Message])
    client_run = (newest.metadata or {}).get("ag_ui_run", newest.id)
    if fold.state == "waiting":
        pending = await _pending(state, newest.id, fold.waiting)
        told["interrupts"] = {"runId": client_run, "pending": pending}
    elif fold.state not in ENDED:
        told["activeRun"] = {"runId": client_run}
    if told["activeRun"] is None:
        # A run under way is joined from its start; told here too, its answer would stand twice.
        messages += fold.history()
    # Not ids that the stream of a run gives to its messages.
    whole = tanstack_messages(messages, f"{newest.id}-kept")
    end = len(whole) if end is None else min(end, len(whole))
    start = 0 if most is None else max(0, end - most)
    told["messages"] = whole[start:end]
    told["page"] = {"truncated": True, "cursor": str(start)} if start else {"truncated": False}
    return told


async def _pending(state: State, run: str, waiting: list[str]) -> list[dict[str, Any]]:
    """What the run waits for, as its own stream said it."""
    encoder = AGUIEncoder(tanstack=True)
    for record in (await read_run(state.log, run)).records:
        encoder.skip(decode(json_of(record)))
    return encoder.interrupts(list(waiting))


async def knows(state: State, run: str, principal: str) -> bool:
    """Whether the run was started already."""
    try:
        await state.runs.info(run, principal=principal)
    except (NotFoundError, GoneError):
        return False
    return True


async def with_stored(state: State, asked: AGUIRequest, principal: str) -> list[Message]:
    """The kept conversation, gone on with by what was posted: after it, or, where it begins with a
    message that is kept (asked again, or edited), in its place."""
    posted = asked.request.messages
    found = await state.runs.thread(asked.thread, principal=principal)
    if not found or not posted:
        return posted
    try:
        snapshot = await state.runs.snapshot(found[0].id, principal=principal)
    except (NotFoundError, GoneError):
        return posted
    kept = msgspec.convert([*snapshot["input"], *snapshot["messages"]], list[Message])
    ids = [message.id for message in kept]
    first = posted[0].id
    return [*(kept[: ids.index(first)] if first is not None and first in ids else kept), *posted]


def _count(text: str | None, name: str, least: int) -> int | None:
    if text is None:
        return None
    if not text.isdigit() or len(text) > 9 or int(text) < least:
        raise InputError(f"'{name}' must be a whole number from {least} on", field=name)
    return min(int(text), _MOST_LIMIT)
