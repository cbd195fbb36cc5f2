"""``POST /ag-ui`` for AG-UI clients and for TanStack AI, and TanStack's ``GET /ag-ui``.

A TanStack client is known by its ``X-Run-Id``. It posts the same body again after a cut, with the
id of the last event it saw.

Always true: the client's run id names one run of its principal: the same request comes back to that
run and never starts another; answers to an interrupt go to the run that asked.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from tokenwire.errors import ConflictError, GoneError, InputError, NotFoundError
from tokenwire.events.codec import decode
from tokenwire.events.message import Message, ToolResultPart
from tokenwire.relay.record import json_of
from tokenwire.relay.takeover import read_run
from tokenwire.server.bodies import check_request
from tokenwire.server.guard import RequestInfo
from tokenwire.server.problems import json_response
from tokenwire.server.routes_runs import count_misses, start_run
from tokenwire.server.state import State
from tokenwire.server.wire_support import (
    ENDED,
    Waited,
    answered_names,
    folded,
    place_of,
    route,
    wire_response,
)
from tokenwire.wire.ag_ui import AGUIEncoder
from tokenwire.wire.ag_ui_request import AGUIRequest, Resume, parse_ag_ui_request
from tokenwire.wire.frames import Place
from tokenwire.wire.tanstack import tanstack_messages

__all__ = ["routes", "run_name"]

#: Documents that say which run, and from where, a client's later run id stands for.
_ALIASES = "ag-ui-run"
#: Of a thread's runs, how many may still be waiting for what a request answers.
_MOST_LOOKED_AT = 5


class _Alias(msgspec.Struct):
    run: str
    cursor: str
    offset: int
    answered: list[str]


def routes(state: State) -> list[BaseRoute]:
    """``/ag-ui``."""
    state.media_paths.add("/ag-ui")
    return [route(state, "/ag-ui", answer, "POST"), route(state, "/ag-ui", look, "GET")]


def run_name(principal: str, client_run: str) -> str:
    """Our run id for a client's: the same every time, and nobody else's."""
    digest = hashlib.sha256(f"{principal}\0{client_run}".encode()).hexdigest()
    return f"agui_{digest[:32]}"


async def answer(state: State, request: Request, info: RequestInfo) -> Response:
    """``POST /ag-ui``: start the run, or go on with it, or come back to it."""
    asked = parse_ag_ui_request(info.json)
    client_run = request.headers.get("x-run-id")
    tanstack = client_run is not None
    if tanstack and client_run != asked.run:
        raise InputError("'X-Run-Id' differs from the body's runId", field="X-Run-Id")
    place = place_of(request.headers.get("last-event-id"))
    alias = await _alias(state, info.principal, asked.run) or await _going_on(
        state, asked, info.principal
    )
    if alias is not None:
        return await _continue(state, asked.thread, asked.run, alias, info, tanstack, place)
    run = await start_run(
        state,
        check_request(asked.request, state.settings),
        model=asked.model,
        principal=info.principal,
        key=f"agui:{asked.run}",
        thread=asked.thread,
        run_id=run_name(info.principal, asked.run),
        metadata={"ag_ui_run": asked.run},
    )
    fold, _ = await folded(state, run.id, info.principal) if not run.created_now else (None, [])
    encoder = AGUIEncoder(
        thread_id=asked.thread,
        run_id=asked.run,
        history=asked.messages,
        tanstack=tanstack,
        answered=answered_names(fold) if fold is not None and fold.state != "waiting" else (),
        place=place,
    )
    return await wire_response(state, run.id, encoder, principal=info.principal, place=place)


async def _continue(
    state: State,
    thread: str,
    client_run: str,
    alias: _Alias,
    info: RequestInfo,
    tanstack: bool,
    place: Place | None,
) -> Response:
    encoder = AGUIEncoder(
        thread_id=thread,
        run_id=client_run,
        tanstack=tanstack,
        again=place is None,
        answered=set(alias.answered),
        place=place,
    )
    place = place or Place(cursor=alias.cursor, offset=alias.offset)
    return await wire_response(state, alias.run, encoder, principal=info.principal, place=place)


async def _alias(state: State, principal: str, client_run: str) -> _Alias | None:
    name = run_name(principal, client_run)
    data = (await state.log.documents(_ALIASES, prefix=name, most=1)).get(name)
    return msgspec.json.decode(data, type=_Alias) if data else None


async def _going_on(state: State, asked: AGUIRequest, principal: str) -> _Alias | None:
    """Hand a request's answers to the run of its thread that waits for them."""
    given = {entry.interrupt: entry for entry in asked.resume}
    results = {output.call_id: output for output in asked.outputs}
    names = {*given, *results}
    if not names:
        return None
    for run in (await state.runs.thread(asked.thread, principal=principal))[:_MOST_LOOKED_AT]:
        fold, waits = await folded(state, run.id, principal)
        wait = next((w for w in reversed(waits) if names & set(w.pending)), None)
        if wait is None or fold.outcome is not None:
            continue
        done = answered_names(fold)
        for name in wait.pending:
            if name in done:
                continue
            if name in given:
                await _answer(state, run.id, given[name], fold.tools, principal)
            elif name in results:
                await _result(state, run.id, results[name], principal)
        alias = _Alias(run.id, wait.cursor, wait.offset, sorted(done | names))
        document = run_name(principal, asked.run)
        await state.log.set_document(_ALIASES, document, msgspec.json.encode(alias))
        return alias
    return None


async def _answer(
    state: State, run: str, entry: Resume, tools: dict[str, Any], principal: str
) -> None:
    by = principal or None
    try:
        if not any(tool.approval_id == entry.interrupt for tool in tools.values()):
            content = entry.payload if entry.resolved else {"error": "cancelled by the person"}
            await state.runs.answer_tool(
                run, entry.interrupt, content=content, by=by, principal=principal
            )
            return
        payload = entry.payload if isinstance(entry.payload, dict) else {}
        approved = payload.get("approved", entry.payload is None or entry.payload is True)
        edited = payload.get("editedArgs", payload.get("arguments"))
        await state.runs.answer_approval(
            run,
            entry.interrupt,
            approved=entry.resolved and approved is True,
            reason=payload.get("reason") if isinstance(payload.get("reason"), str) else None,
            arguments=edited if isinstance(edited, dict) else None,
            by=by,
            principal=principal,
        )
    except ConflictError:
        pass  # answered elsewhere; the first answer counts and is what this stream tells


async def _result(state: State, run: str, output: ToolResultPart, principal: str) -> None:
    content: Any = output.content
    if isinstance(content, str):
        try:
            content = msgspec.json.decode(content)
        except msgspec.DecodeError:
            pass  # plain text is a result as well
    try:
        await state.runs.answer_tool(
            run, output.call_id, content=content, by=principal or None, principal=principal
        )
    except ConflictError:
        pass


async def look(state: State, request: Request, info: RequestInfo) -> Response:
    """``GET /ag-ui?runId=&offset=-1`` joins a run from its start; ``?threadId=`` tells the
    conversation so far, which run is under way and what it waits for."""
    client_run, thread = request.query_params.get("runId"), request.query_params.get("threadId")
    async with count_misses(state, info):
        if client_run:
            return await _join(state, request, client_run, info)
        if thread:
            return json_response(await _hydrate(state, thread, info.principal))
    raise InputError("give 'runId' to join a run or 'threadId' to read a conversation")


async def _join(state: State, request: Request, client_run: str, info: RequestInfo) -> Response:
    text = request.headers.get("last-event-id") or request.query_params.get("offset") or "-1"
    place = place_of(None if text == "-1" else text)
    alias = await _alias(state, info.principal, client_run)
    if alias is not None:
        fold, _ = await folded(state, alias.run, info.principal)
        thread = fold.thread or alias.run
        return await _continue(state, thread, client_run, alias, info, True, place)
    run = run_name(info.principal, client_run)
    fold, waits = await folded(state, run, info.principal)
    encoder = AGUIEncoder(
        thread_id=fold.thread,
        run_id=client_run,
        tanstack=True,
        answered=_answered_before(fold, waits),
        place=place,
    )
    return await wire_response(state, run, encoder, principal=info.principal, place=place)


def _answered_before(fold: Any, waits: list[Waited]) -> set[str]:
    # A joined run tells its own part: up to the first wait, which another run id went on from.
    return set() if waits else answered_names(fold)


async def _hydrate(state: State, thread: str, principal: str) -> dict[str, Any]:
    found = await state.runs.thread(thread, principal=principal)
    told: dict[str, Any] = {"messages": [], "activeRun": None, "interrupts": None}
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
    told["messages"] = tanstack_messages(messages, f"{newest.id}-kept")
    return told


async def _pending(state: State, run: str, waiting: list[str]) -> list[dict[str, Any]]:
    """What the run waits for, as its own stream said it."""
    encoder = AGUIEncoder(tanstack=True)
    for record in (await read_run(state.log, run)).records:
        encoder.skip(decode(json_of(record)))
    return encoder.interrupts(list(waiting))
