"""The AI SDK's chat routes: start, resume, stop, and its WebSocket.

``POST /api/chat``, ``GET /api/chat/{id}/stream`` (204: no run is active),
``POST /api/chat/{id}/stop``, ``POST /api/chat/{id}/approval`` (for versions without approvals of
their own), ``WS /api/chat/ws``; and ``GET /v1/runs/{run}/wires/{wire}``.

Always true: a request that answers a waiting run continues that run and starts none; an invalid
request starts nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable
from functools import partial

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, WebSocketRoute
from starlette.types import Receive

from tokenwire.errors import ConflictError, CursorError, GoneError, InputError, NotFoundError
from tokenwire.events.message import Message
from tokenwire.events.reasons import OUTCOMES
from tokenwire.relay.description import RunInfo
from tokenwire.relay.replay import Wait
from tokenwire.server.edge.bodies import HowToAnswer, check_request, read_body
from tokenwire.server.edge.guard import RequestInfo
from tokenwire.server.edge.problems import json_response
from tokenwire.server.own_wires.response import own_response
from tokenwire.server.routes.ai_sdk_history import compat_of, with_stored
from tokenwire.server.routes.resume import Resume, resume_of, start_in_conversation
from tokenwire.server.routes.runs import count_misses, run_id
from tokenwire.server.routes.support import (
    OPENAI_PREAMBLE,
    folded,
    place_of,
    resolved_ids,
    route,
    wire_response,
)
from tokenwire.server.sockets.ai_sdk import UISocket
from tokenwire.server.sockets.base import SocketEndpoint
from tokenwire.server.starts.start import Start, ThreadQuery, query_of, say_and_wait, start_run
from tokenwire.server.state import State
from tokenwire.wire.ai_sdk.encoder import UIMessageEncoder
from tokenwire.wire.ai_sdk.parts import Compat
from tokenwire.wire.ai_sdk.request import UIRequest, parse_ui_request
from tokenwire.wire.catalogue import encoder_for
from tokenwire.wire.fields import Fields, one_name
from tokenwire.wire.place import Place

__all__ = ["Resumption", "begin", "find_active", "resume_waiting", "routes"]

#: Of a chat's runs, how many a place may belong to.
_MAX_THREAD_RUNS = 20


def routes(state: State) -> list[BaseRoute]:
    """All of ``/api/chat``."""
    state.media_paths.add("/api/chat")
    state.cors_exposed += ", X-Vercel-AI-UI-Message-Stream"
    state.roles.add("POST", "/api/chat", "write", "approve")
    state.roles.add("POST", "/api/chat/{chat}/approval", "approve")
    return [
        route(state, "/api/chat", chat, "POST"),
        route(state, "/api/chat/{chat}/stream", stream, "GET"),
        route(state, "/api/chat/{chat}/stop", stop, "POST"),
        route(state, "/api/chat/{chat}/approval", approval, "POST"),
        route(state, "/v1/runs/{run}/wires/{wire}", in_wire, "GET"),
        WebSocketRoute("/api/chat/ws", _socket(state)),
    ]


def _socket(state: State) -> SocketEndpoint:
    return SocketEndpoint(partial(UISocket, state, begin=begin, active=find_active))


class Resumption:
    """A waiting run that a request continues: which, from where, and what is resolved by now."""

    def __init__(self, run: str, wait: Wait, resolved_ids: set[str]) -> None:
        self.run, self.wait, self.resolved_ids = run, wait, resolved_ids


async def chat(state: State, request: Request, info: RequestInfo) -> Response:
    """``POST /api/chat``: the answer as a UI message stream."""
    body = parse_ui_request(info.json)
    key = request.headers.get("idempotency-key")

    async def find_run(place: Place) -> RunInfo | None:
        return await _run_of(state, body.chat, place, info.principal)

    resume = await resume_of(state, request, info, find_run)
    if resume is not None:
        return await _resumed(state, request, info, resume)
    run, encoder, place = await begin(
        state,
        body,
        info,
        key,
        compat_of(state, request),
        query_of(request),
        request.receive,
    )
    return await wire_response(state, run, encoder, principal=info.principal, place=place)


async def _resumed(state: State, request: Request, info: RequestInfo, resume: Resume) -> Response:
    """The rest of a run, in the wire of its start."""
    run, place = resume.run, resume.place
    compat = compat_of(state, request, (run.metadata or {}).get("ui_compat"))
    fold = await state.runs.fold(run.id, principal=info.principal)
    encoder = UIMessageEncoder(compat=compat, resolved_ids=resolved_ids(fold), place=place)
    return await wire_response(state, run.id, encoder, principal=info.principal, place=place)


async def begin(
    state: State,
    body: UIRequest,
    info: RequestInfo,
    key: str | None,
    compat: Compat,
    query: ThreadQuery | None = None,
    receive: Receive | None = None,
) -> tuple[str, UIMessageEncoder, Place | None]:
    """Start the run of a request, or continue the one that it answers. With the history of a
    ``query`` what is new in the request is a turn of the conversation that the server stores."""
    compat = body.compat or compat
    how = read_body(body.how, HowToAnswer, at="tokenwire")
    resumption = await resume_waiting(state, body, info)
    if resumption is not None:
        place = Place(cursor=resumption.wait.cursor, offset=resumption.wait.offset)
        encoder = UIMessageEncoder(compat=compat, resolved_ids=resumption.resolved_ids)
        return resumption.run, encoder, place
    posted = body.request.messages

    # A reader that resumes without naming its release gets the wire of the start.
    metadata = {**(how.metadata or {}), "ui_compat": compat}
    if query is not None and query.history is not None:
        run = await say_and_wait(
            state,
            check_request(how.applied_to(body.request), state.settings),
            Start(
                model=body.model,
                identity=info.identity,
                key=key,
                thread=body.chat,
                metadata=metadata,
                on_disconnect=how.on_disconnect,
            ),
            query,
            posted,
            receive,
            edited=body.edited,
            regenerates=body.regenerates,
        )
        return run.id, UIMessageEncoder(compat=compat), None

    async def start(messages: list[Message]) -> RunInfo:
        body.request.messages = messages
        return await start_run(
            state,
            check_request(how.applied_to(body.request), state.settings),
            model=body.model,
            identity=info.identity,
            key=key,
            thread=body.chat,
            metadata=metadata,
            on_disconnect=how.on_disconnect,
        )

    async def complete() -> list[Message]:
        return await with_stored(state, body.chat, posted, info.principal)

    if body.is_last_only:
        run = await start_in_conversation(
            state, posted, complete, start, key=key, principal=info.principal
        )
    else:
        run = await start(posted)
    return run.id, UIMessageEncoder(compat=compat, message_id=body.continues), None


async def resume_waiting(state: State, body: UIRequest, info: RequestInfo) -> Resumption | None:
    """Record the answers of a waiting run; None when the message answers no run of ours. Raises
    `RoleError` before it records any."""
    if body.run is None or not (body.answers or body.outputs):
        return None
    try:
        fold, waits = await folded(state, body.run, info.principal)
    except NotFoundError:
        return None  # a message of another backend: its conversation continues in a new run
    resolved = resolved_ids(fold)
    answer_ids = {a.approval_id for a in body.answers} | {o.call_id for o in body.outputs}
    wait = next((w for w in reversed(waits) if answer_ids & set(w.pending)), None)
    if wait is None:
        return None
    open_ids = {name for w in waits for name in w.pending} - resolved
    answers = [answer for answer in body.answers if answer.approval_id in open_ids]
    outputs = [output for output in body.outputs if output.call_id in open_ids]
    if answers:
        info.identity.require("approve")
    if outputs:
        info.identity.require("write")
    for answer in answers:
        await _first_wins(
            state.runs.approve(
                body.run,
                answer.approval_id,
                approved=answer.approved,
                reason=answer.reason,
                by=info.by,
                principal=info.principal,
            )
        )
    for output in outputs:
        await _first_wins(
            state.runs.answer_tool(
                body.run,
                output.call_id,
                content=output.content,
                by=info.by,
                principal=info.principal,
            )
        )
    return Resumption(body.run, wait, resolved | answer_ids)


async def _first_wins(answering: Awaitable[object]) -> None:
    try:
        await answering
    except ConflictError:
        pass  # another tab was quicker, or the run ended; what counts is in this stream


async def stream(state: State, request: Request, info: RequestInfo) -> Response:
    """``GET /api/chat/{id}/stream``: the whole stream of the active run; or, with ``after`` or
    ``Last-Event-ID``, only what follows that frame. 204: no run is active."""
    text = request.headers.get("last-event-id") or request.query_params.get("after")
    place = place_of(text)
    chat_id = request.path_params["chat"]
    async with count_misses(state, info):
        if place is None:
            run = await find_active(state, chat_id, info.principal)
        else:
            run = await _run_of(state, chat_id, place, info.principal)
        if run is None:
            return Response(status_code=204)
        compat = compat_of(state, request, (run.metadata or {}).get("ui_compat"))
        fold = await state.runs.fold(run.id, principal=info.principal)
        encoder = UIMessageEncoder(compat=compat, resolved_ids=resolved_ids(fold), place=place)
        return await wire_response(state, run.id, encoder, principal=info.principal, place=place)


async def find_active(state: State, chat_id: str, principal: str) -> RunInfo | None:
    """The chat's newest run, if it is active."""
    runs = await state.runs.thread(chat_id, principal=principal, most=1)
    return runs[0] if runs and runs[0].state not in OUTCOMES else None


async def _run_of(state: State, chat_id: str, place: Place, principal: str) -> RunInfo | None:
    """The run of the chat that gave a reader its place: the newest, unless another tab has asked
    something meanwhile. Raises `CursorError` when it is none of them; None for an unknown chat."""
    refused: CursorError | None = None
    for run in (await state.runs.thread(chat_id, principal=principal))[:_MAX_THREAD_RUNS]:
        try:
            await state.runs.check_cursor(run.id, place.cursor, principal=principal)
        except (NotFoundError, GoneError):
            continue
        except CursorError as error:
            refused = refused or error
        else:
            return run
    if refused is not None:
        raise refused
    return None


async def stop(state: State, request: Request, info: RequestInfo) -> Response:
    """``POST /api/chat/{id}/stop``: 202, and readers get ``abort``; 204 when no run is active."""
    run = await find_active(state, request.path_params["chat"], info.principal)
    if run is None:
        return Response(status_code=204)
    await state.runs.cancel(run.id, principal=info.principal, by=info.by)
    return json_response({"run": run.id}, 202)


async def approval(state: State, request: Request, info: RequestInfo) -> Response:
    """``POST /api/chat/{id}/approval``: ``{approvalId, approved, reason?, input?}``; 202. It is of
    the chat's newest run, which may have ended without it: 409."""
    info.identity.require("approve")
    body = Fields(info.json)
    body.only(("approvalId", "approved", "reason", "input"))
    approval_id = one_name(body, "approvalId")
    if not body.has("approved"):
        raise InputError("'approved' is missing", field="approved")
    async with count_misses(state, info):
        chat, principal = request.path_params["chat"], info.principal
        run = next(iter(await state.runs.thread(chat, principal=principal, most=1)), None)
        none_active = NotFoundError("no run is active in this chat", what="active_run")
        if run is None:
            raise none_active
        edited = body.object("input")
        try:
            is_taken = await state.runs.approve(
                run.id,
                approval_id,
                approved=body.flag("approved"),
                reason=body.text("reason"),
                arguments=edited.value if edited is not None else None,
                by=info.by,
                principal=principal,
            )
        except NotFoundError:
            if run.state in OUTCOMES:
                raise none_active from None
            raise
    fields = {"run": run.id, "approved": body.flag("approved"), "taken": is_taken}
    return json_response(fields, 202)


async def in_wire(state: State, request: Request, info: RequestInfo) -> Response:
    """``GET /v1/runs/{run}/wires/{wire}``: any run in any wire, to look at it."""
    after = request.headers.get("last-event-id") or request.query_params.get("after")
    name = request.path_params["wire"]
    if (own := state.own_wires.get(name)) is not None:
        async with count_misses(state, info):
            return await own_response(state, own, run_id(request), after, info.principal)
    place = place_of(after)
    encoder = encoder_for(name, place, state.own_wires)
    async with count_misses(state, info):
        return await wire_response(
            state,
            run_id(request),
            encoder,
            principal=info.principal,
            place=place,
            preamble=OPENAI_PREAMBLE,
        )
