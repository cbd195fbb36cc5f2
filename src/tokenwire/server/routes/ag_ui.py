"""``POST /ag-ui`` for AG-UI clients and for TanStack AI, and TanStack's ``GET`` and ``WS /ag-ui``.

``X-Run-Id`` identifies a TanStack client. It posts the same body again after a cut, with the id of
the last event received. ``?stream=ndjson`` answers in lines instead of events.

Always true: the client's run id names one run of its principal: the same request resumes that run
and never starts another; answers to an interrupt go to the run that waits for them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import partial
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, WebSocketRoute

from tokenwire.errors import ConflictError, CursorError, GoneError, InputError, NotFoundError
from tokenwire.events.fold import Fold
from tokenwire.events.message import ToolResultPart
from tokenwire.relay.documents.names import RunName, read_name, set_name
from tokenwire.relay.replay import Wait
from tokenwire.relay.starts.start import RUN_ID
from tokenwire.server.edge.bodies import check_request
from tokenwire.server.edge.guard import RequestInfo
from tokenwire.server.edge.problems import json_response
from tokenwire.server.routes.ag_ui_history import hydrate, knows, with_stored
from tokenwire.server.routes.runs import count_misses
from tokenwire.server.routes.support import (
    folded,
    place_of,
    resolved_ids,
    route,
    wire_response,
)
from tokenwire.server.sockets.ag_ui import AGUISocket, Stream
from tokenwire.server.sockets.base import SocketEndpoint
from tokenwire.server.starts.start import (
    Start,
    ThreadQuery,
    say_and_wait,
    start_run,
    thread_query,
)
from tokenwire.server.state import State
from tokenwire.wire.ag_ui.encoder import AGUIEncoder
from tokenwire.wire.ag_ui.request import AGUIRequest, Resume, parse_ag_ui_request
from tokenwire.wire.ag_ui.tanstack import AGUILinesEncoder
from tokenwire.wire.place import Place

__all__ = ["routes", "run_name"]

#: Of a thread's runs, how many may still be waiting for what a request answers.
_MAX_THREAD_RUNS = 5


def routes(state: State) -> list[BaseRoute]:
    """``/ag-ui``, over HTTP and as a WebSocket."""
    state.media_paths.add("/ag-ui")
    state.roles.add("POST", "/ag-ui", "write", "approve")
    return [
        route(state, "/ag-ui", answer, "POST"),
        route(state, "/ag-ui", look, "GET"),
        WebSocketRoute("/ag-ui", _socket(state)),
    ]


def run_name(principal: str, client_run: str) -> str:
    """Our run id for a client's: the same every time, and nobody else's."""
    digest = hashlib.sha256(f"{principal}\0{client_run}".encode()).hexdigest()
    return f"agui_{digest[:32]}"


async def answer(state: State, request: Request, info: RequestInfo) -> Response:
    """``POST /ag-ui``: start the run, continue it, or resume reading it."""
    body = parse_ag_ui_request(info.json)
    client_run = request.headers.get("x-run-id")
    if client_run is not None and client_run != body.run:
        raise InputError("'X-Run-Id' differs from the body's runId", field="X-Run-Id")
    how = _How(
        tanstack=client_run is not None,
        lines=_wants_lines(request),
        is_stored=request.query_params.get("history") == "server",
        query=_query(request.query_params),
    )
    place = place_of(request.headers.get("last-event-id"))
    return await _respond(state, await _begin(state, body, info, how, place), info)


class _How(msgspec.Struct, frozen=True):
    """The form of a client's stream. ``is_stored``: what it posts is appended to the conversation
    that the server stores; so it is with the history of a ``query``, turn by turn."""

    tanstack: bool
    lines: bool
    is_stored: bool = False
    query: ThreadQuery = ThreadQuery()

    @property
    def encoder(self) -> type[AGUIEncoder]:
        return AGUILinesEncoder if self.lines else AGUIEncoder


def _query(query: Mapping[str, str]) -> ThreadQuery:
    history = query.get("history")
    return thread_query(None if history == "server" else history, query.get("while_busy"))


def _wants_lines(request: Request) -> bool:
    """Newline-delimited JSON instead of an event stream."""
    framing = request.query_params.get("stream", "")
    if framing not in ("", "sse", "ndjson"):
        raise InputError("'stream' must be sse or ndjson", field="stream")
    return framing == "ndjson" or "application/x-ndjson" in request.headers.get("accept", "")


async def _respond(state: State, stream: Stream, info: RequestInfo) -> Response:
    run, encoder, place = stream
    # A line without an event is nothing to the readers of lines.
    preamble = b"\n" if isinstance(encoder, AGUILinesEncoder) else None
    return await wire_response(
        state, run, encoder, principal=info.principal, place=place, preamble=preamble
    )


async def _begin(
    state: State, body: AGUIRequest, info: RequestInfo, how: _How, place: Place | None
) -> Stream:
    principal = info.principal
    alias = await read_name(state.store, run_name(principal, body.run))
    name = run_name(principal, body.run)
    if place is not None:
        await _check_place(state, alias.run if alias is not None else name, place, principal)
    if alias is None and place is None:
        alias = await _resume_waiting(state, body, info)
    if alias is not None:
        return _continue(body.thread, body.run, alias, how, place)
    is_ours = how.is_stored or how.query.history is not None
    if is_ours and await knows(state, name, principal):
        run = await state.runs.info(name, principal=principal)
        run.created_now = False
    elif how.query.history is not None:
        how_to_start = Start(
            model=body.model,
            identity=info.identity,
            key=f"agui:{body.run}",
            thread=body.thread,
            run_id=name,
            metadata={"ag_ui_run": body.run},
        )
        posted, checked = body.request.messages, check_request(body.request, state.settings)
        run = await say_and_wait(state, checked, how_to_start, how.query, posted, None)
    else:
        if how.is_stored:
            body.request.messages = await with_stored(state, body, principal)
        run = await start_run(
            state,
            check_request(body.request, state.settings),
            model=body.model,
            identity=info.identity,
            key=f"agui:{body.run}",
            thread=body.thread,
            run_id=name,
            metadata={"ag_ui_run": body.run},
        )
    fold, _ = await folded(state, run.id, principal) if not run.created_now else (None, [])
    encoder = how.encoder(
        thread_id=body.thread,
        run_id=body.run,
        history=body.messages if not is_ours else None,
        tanstack=how.tanstack,
        resolved_ids=resolved_ids(fold) if fold is not None and fold.status != "waiting" else (),
        place=place,
    )
    return run.id, encoder, place


async def _check_place(state: State, run: str, place: Place, principal: str) -> None:
    """Raise `CursorError` before anything is started, unless the run holds the place."""
    try:
        await state.runs.check_cursor(run, place.cursor, principal=principal)
    except (NotFoundError, GoneError):
        raise CursorError(
            "this request cannot resume: its run is unknown; omit 'Last-Event-ID' to start it"
        ) from None


def _continue(
    thread: str, client_run: str, alias: RunName, how: _How, place: Place | None
) -> Stream:
    encoder = how.encoder(
        thread_id=thread,
        run_id=client_run,
        tanstack=how.tanstack,
        is_continuation=place is None,
        resolved_ids=set(alias.resolved_ids),
        place=place,
    )
    return alias.run, encoder, place or Place(cursor=alias.cursor, offset=alias.offset)


async def _resume_waiting(state: State, body: AGUIRequest, info: RequestInfo) -> RunName | None:
    """Record a request's answers in the run of its thread that waits for them. Raises `RoleError`
    before it records any, and `ConflictError` for an interrupt that no run of the thread had."""
    principal = info.principal
    resumes = {entry.interrupt: entry for entry in body.resume}
    results = {output.call_id: output for output in body.outputs}
    names = {*resumes, *results}
    if not names:
        return None
    for run in (await state.runs.thread(body.thread, principal=principal))[:_MAX_THREAD_RUNS]:
        fold, waits = await folded(state, run.id, principal)
        wait = next((w for w in reversed(waits) if names & set(w.pending)), None)
        # What a person decides too late is no new question: the client reads what became of it.
        # A result is part of its conversation, which goes on in a new run.
        has_ended = fold.outcome is not None
        if wait is None or (has_ended and not resumes.keys() & set(wait.pending)):
            continue
        finished_ids = resolved_ids(fold)
        answered = names if has_ended else names - finished_ids
        answered = [name for name in wait.pending if name in answered]
        for name in answered:
            is_approval = name in resumes and _is_approval(fold, name)
            info.identity.require("approve" if is_approval else "write")
        for name in [] if has_ended else answered:
            if name in resumes:
                await _answer(state, run.id, resumes[name], fold, info)
            else:
                await _result(state, run.id, results[name], info)
        alias = RunName(run.id, wait.cursor, wait.offset, sorted(finished_ids | names))
        await set_name(state.store, run_name(principal, body.run), alias)
        return alias
    if resumes:
        raise ConflictError(
            f"no run of this thread has asked for '{next(iter(resumes))[:80]}'; ask without "
            "'resume'",
            reason="nothing_waits",
        )
    return None


def _is_approval(fold: Fold, name: str) -> bool:
    return any(tool.approval_id == name for tool in fold.tools.values())


async def _answer(state: State, run: str, entry: Resume, fold: Fold, info: RequestInfo) -> None:
    by, principal = info.by, info.principal
    try:
        if not _is_approval(fold, entry.interrupt):
            content = entry.payload if entry.resolved else {"error": "cancelled by the person"}
            await state.runs.answer_tool(
                run, entry.interrupt, content=content, by=by, principal=principal
            )
            return
        payload = entry.payload if isinstance(entry.payload, dict) else {}
        approved = payload.get("approved", entry.payload is None or entry.payload is True)
        edited = payload.get("editedArgs", payload.get("arguments"))
        if edited is not None and not isinstance(edited, dict):  # not the original ones instead
            raise InputError("the edited arguments are not an object", field="editedArgs")
        await state.runs.approve(
            run,
            entry.interrupt,
            approved=entry.resolved and approved is True,
            reason=payload.get("reason") if isinstance(payload.get("reason"), str) else None,
            arguments=edited,
            by=by,
            principal=principal,
        )
    except ConflictError:
        pass  # answered elsewhere, or too late; what counts is in this stream


async def _result(state: State, run: str, output: ToolResultPart, info: RequestInfo) -> None:
    content: Any = output.content
    if isinstance(content, str):
        try:
            content = msgspec.json.decode(content)
        except msgspec.DecodeError:
            pass  # plain text is a result as well
    try:
        await state.runs.answer_tool(
            run, output.call_id, content=content, by=info.by, principal=info.principal
        )
    except ConflictError:
        pass


async def look(state: State, request: Request, info: RequestInfo) -> Response:
    """``GET /ag-ui?runId=&offset=-1`` joins a run from its start; ``?threadId=`` returns the
    conversation so far (``limit``, ``before``: a page of it), the active run and what it waits
    for."""
    query = request.query_params
    client_run, thread = query.get("runId"), query.get("threadId")
    async with count_misses(state, info):
        if client_run:
            text = request.headers.get("last-event-id") or query.get("offset") or "-1"
            lines = _wants_lines(request)
            stream = await _join(state, client_run, text, info.principal, lines=lines)
            return await _respond(state, stream, info)
        if thread:
            conversation = await hydrate(
                state, thread, info.principal, limit=query.get("limit"), before=query.get("before")
            )
            return json_response(conversation)
    raise InputError("give 'runId' to join a run or 'threadId' to read a conversation")


async def _join(
    state: State, client_run: str, offset: str, principal: str, *, lines: bool
) -> Stream:
    place = place_of(None if offset == "-1" else offset)
    how = _How(tanstack=True, lines=lines)
    alias = await read_name(state.store, run_name(principal, client_run))
    if alias is not None:
        fold, _ = await folded(state, alias.run, principal)
        return _continue(fold.thread or alias.run, client_run, alias, how, place)
    run = run_name(principal, client_run)
    if RUN_ID.fullmatch(client_run) and not await knows(state, run, principal):
        run = client_run  # of another member, by the id that it has here
    fold, waits = await folded(state, run, principal)
    encoder = how.encoder(
        thread_id=fold.thread,
        run_id=client_run,
        tanstack=True,
        resolved_ids=_resolved_before(fold, waits),
        place=place,
    )
    return run, encoder, place


def _resolved_before(fold: Fold, waits: list[Wait]) -> set[str]:
    # A joined run shows its own part: up to the first wait, which another run id continued.
    return set() if waits else resolved_ids(fold)


# --- the same over a WebSocket --------------------------------------------------------------------


def _socket(state: State) -> SocketEndpoint:
    return SocketEndpoint(partial(AGUISocket, state, begin=_turn, join=_join_rest, stop=_stop))


async def _turn(state: State, value: Any, info: RequestInfo, query: dict[str, str]) -> Stream:
    how = _How(
        tanstack=True,
        lines=True,
        is_stored=query.get("history") == "server",
        query=_query(query),
    )
    return await _begin(state, parse_ag_ui_request(value), info, how, None)


async def _join_rest(state: State, client_run: str, offset: str, principal: str) -> Stream:
    return await _join(state, client_run, offset, principal, lines=True)


async def _stop(state: State, client_run: str, info: RequestInfo) -> None:
    info.identity.require("write")
    principal = info.principal
    alias = await read_name(state.store, run_name(principal, client_run))
    run = alias.run if alias is not None else run_name(principal, client_run)
    await state.runs.cancel(run, principal=principal, by=info.by)
