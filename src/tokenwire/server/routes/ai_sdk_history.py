"""The conversation that the server stores, for `useChat`: read in pages, and continued.

Always true: a message keeps its id from page to page; a page's cursor counts from the start of the
conversation, so new messages do not move it; an answer that is being written is left to the stream
that resumes it.
"""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request

from tokenwire.errors import GoneError, InputError, NotFoundError
from tokenwire.events.message import Message
from tokenwire.events.reasons import OUTCOMES
from tokenwire.events.validation import whole_number
from tokenwire.relay.conversation.turns import with_history
from tokenwire.relay.description import RunInfo, meta_of
from tokenwire.relay.replay import Replay
from tokenwire.server.state import State
from tokenwire.wire.ai_sdk.messages import answer_message, stored_messages, with_extras
from tokenwire.wire.ai_sdk.parts import COMPAT, Compat

__all__ = ["compat_of", "ui_messages", "with_stored"]

_MOST_LIMIT = 10_000


async def ui_messages(
    state: State,
    thread: str,
    principal: str,
    *,
    compat: Compat,
    limit: str | None = None,
    before: str | None = None,
) -> dict[str, Any]:
    """``{thread, messages, active, page}``: the branch that was asked last. ``limit``: the newest
    so many messages; ``before``: of those that a page's cursor says are older."""
    most, end = _count(limit, "limit", 1), _count(before, "before", 0)
    messages: list[dict[str, Any]] = []
    active: str | None = None
    count = 0  # of the messages before the newest answer
    runs = await state.runs.thread(thread, principal=principal)
    for run in runs[:1]:
        try:
            request = await _request_of(state, run.id, principal)
            replay = await state.runs.replay(run.id, principal=principal)
        except (NotFoundError, GoneError):
            break
        messages = stored_messages(request, (run.id for run in runs), compat)
        count = len(messages)
        active = run.id if replay.fold.status not in OUTCOMES else None
        if active is None or replay.fold.status == "waiting":
            # In a thread: it may be the largest run, and the loop has others to serve.
            answer = await asyncio.to_thread(_answer, replay, compat)
            _append(messages, answer)
    end = len(messages) if end is None else min(end, len(messages))
    start = 0 if most is None else max(0, end - most)
    await _add_extras(state, messages, range(start, min(end, count)), runs[1:], principal, compat)
    page = {"truncated": True, "cursor": str(start)} if start else {"truncated": False}
    body: dict[str, Any] = {"thread": thread, "messages": messages[start:end], "page": page}
    return body | ({"active": active} if active else {})


async def _add_extras(
    state: State,
    messages: list[dict[str, Any]],
    shown: range,
    runs: list[RunInfo],
    principal: str,
    compat: Compat,
) -> None:
    """What an older answer showed beside its words is in its run only, for as long as that is
    stored. The answer of a run stands behind the message that asked it, and says the same."""
    open_places = {place for place in shown if messages[place]["role"] == "assistant"}
    for run in runs:
        if not open_places:
            return
        try:
            place = _place_of(await _request_of(state, run.id, principal), messages)
            if place not in open_places:
                continue
            replay = await state.runs.replay(run.id, principal=principal)
        except (NotFoundError, GoneError):
            continue
        answer = await asyncio.to_thread(_answer, replay, compat)
        if answer is not None and _says(messages[place], answer):
            with_extras(messages[place], answer)
            open_places.discard(place)


async def _request_of(state: State, run: str, principal: str) -> list[Message]:
    """The messages that a run was started with, without reading its log. Raises `NotFoundError`."""
    await state.runs.info(run, principal=principal)  # whether it may be read
    meta = meta_of(await state.store.describe(run))
    return (await with_history(state.store, run, meta)).request.messages


def _place_of(request: list[Message], messages: list[dict[str, Any]]) -> int | None:
    """Where the answer to ``request`` stands; None where the conversation has another branch."""
    if not request or request[-1].role != "user":
        return None
    count = len(stored_messages(request)) if request[-1].id is None else 1
    last = stored_messages(request[-1:])[0] | {"id": request[-1].id or f"kept-{count - 1}"}
    for place, message in enumerate(messages[:-1]):
        if message["id"] == last["id"] and message["parts"] == last["parts"]:
            return place + 1
    return None


def _says(message: dict[str, Any], answer: dict[str, Any]) -> bool:
    """Whether ``message`` is ``answer``, or begins with it where a later run continued it."""
    whole, first = (
        "".join(part["text"] for part in one["parts"] if part["type"] == "text")
        for one in (message, answer)
    )
    return whole.startswith(first) if first else not whole


def _answer(replay: Replay, compat: Compat) -> dict[str, Any] | None:
    return answer_message(replay.events(), compat)


def _append(messages: list[dict[str, Any]], answer: dict[str, Any] | None) -> None:
    """The answer of a run that continued the last message is part of that message."""
    if answer is None:
        return
    if messages and messages[-1]["role"] == "assistant":
        last = messages[-1]
        last["parts"] += answer["parts"]
        last["metadata"] = answer["metadata"]
    else:
        messages.append(answer)


async def with_stored(
    state: State, thread: str, posted: list[Message], principal: str
) -> list[Message]:
    """The stored conversation with the posted messages: appended, or, where they begin with a
    stored message (regenerated, edited, or sent again), in its place."""
    runs = await state.runs.thread(thread, principal=principal)
    if not runs or not posted:
        return posted
    try:
        snapshot = await state.runs.snapshot(runs[0].id, principal=principal)
    except (NotFoundError, GoneError):
        return posted
    stored = snapshot.input
    first, names = posted[0].id, [message.id for message in stored]
    if first is not None and first in names:
        return [*stored[: names.index(first)], *posted]
    if first == runs[0].id:
        return [*stored, *posted]  # the answer itself, which the client completed
    return [*stored, *snapshot.messages, *posted]


def compat_of(state: State, request: Request, before: str | None = None) -> Compat:
    """Which release the client is: ``?compat=``, or what it was ``before``, or the server's
    setting."""
    compat = request.query_params.get("compat") or before or state.settings.compat
    if compat not in COMPAT:
        raise InputError(f"'compat' must be one of {', '.join(COMPAT)}", field="compat")
    return compat


def _count(text: str | None, name: str, least: int) -> int | None:
    if text is None:
        return None
    number = whole_number(text)
    if number is None or number < least:
        raise InputError(f"'{name}' must be a whole number from {least} on", field=name)
    return min(number, _MOST_LIMIT)
