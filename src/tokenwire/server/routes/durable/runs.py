"""Durable Streams under ``/ds``: runs as read-only streams, streams of one's own, and the pointers
that the AI SDK transport asks for.

``/ds/v1/stream/runs/{id}`` has a run's events, ``{id}.ui`` and ``{id}.agui`` its chunks for those
clients. With ``--durable-streams readwrite`` every other path under ``/ds/v1/stream`` can be
created, appended to, read, forked and deleted.

Always true: a run's stream cannot be written to here; streams belong to the principal that made
them.
"""

from __future__ import annotations

import re
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from tokenwire.durable.sources import RunSource
from tokenwire.events.message import Message
from tokenwire.relay.description import RunInfo
from tokenwire.server.edge.bodies import check_request
from tokenwire.server.edge.guard import RequestInfo
from tokenwire.server.edge.problems import HTTPProblem, json_response
from tokenwire.server.routes.ai_sdk import find_active, resume_waiting
from tokenwire.server.routes.ai_sdk_history import with_stored
from tokenwire.server.routes.durable import streams as routes_streams
from tokenwire.server.routes.durable.read import ReadingRight, head, read_counted
from tokenwire.server.routes.durable.streams import ROOT, answer_options, cors_headers
from tokenwire.server.routes.resume import resume_of, start_in_conversation
from tokenwire.server.routes.runs import count_misses
from tokenwire.server.routes.support import route
from tokenwire.server.starts.start import Start, query_of, say_and_wait, start_run
from tokenwire.server.state import State
from tokenwire.wire.ai_sdk.request import parse_ui_request

__all__ = ["routes"]

_METHODS = ("GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS")
_VIEW = re.compile(r"(.+)\.(ui|agui)")


def routes(state: State) -> list[BaseRoute]:
    """``/ds``, as far as the settings open it."""
    if state.settings.durable_streams == "off":
        return []
    cors_headers(state)
    ours: list[BaseRoute] = [
        route(state, ROOT + "/runs/{run}", run_stream, *_METHODS),
        route(state, "/ds/chat", chat, "POST"),
        route(state, "/ds/chat/{chat}/stream", reconnect, "GET"),
    ]
    if state.settings.durable_streams == "readwrite":
        ours += routes_streams.routes(state)
    return ours


# --- runs --------------------------------------------------------------------------------------


async def run_stream(state: State, request: Request, info: RequestInfo) -> Response:
    """A run as a stream: read only."""
    if request.method == "OPTIONS":
        return answer_options("GET, HEAD, OPTIONS")
    if request.method not in ("GET", "HEAD"):
        raise HTTPProblem(405, "method_not_allowed", "a run's stream is read-only")
    name = request.path_params["run"]
    match = _VIEW.fullmatch(name)
    run, view = (match[1], match[2]) if match is not None else (name, "")
    async with count_misses(state, info):
        count = state.runs.members.watch.change_count
        run_info = await state.runs.info(run, principal=info.principal)
        source = RunSource(state.store, run, view, compat=state.settings.compat)
        if request.method == "HEAD":
            return await head(source, {})
        members, thread = state.runs.members, run_info.thread
        access = await members.enter(info.principal, thread) if thread is not None else None
        right = ReadingRight(access, count)
        return await read_counted(state, request, source, run, info.principal, right)


# --- pointers ----------------------------------------------------------------------------------


async def chat(state: State, request: Request, info: RequestInfo) -> Response:
    """``POST /ds/chat``: start the answer, or answer the run that waits; and say where its stream
    is."""
    body = parse_ui_request(info.json)
    resume = await resume_of(state, request, info)
    if resume is not None:
        return _pointer(request, resume.run.id, 200)
    resumption = await resume_waiting(state, body, info)
    if resumption is not None:
        return _pointer(request, resumption.run, 200)
    key, posted = request.headers.get("idempotency-key"), body.request.messages
    query = query_of(request)
    if query.history is not None:
        run = await say_and_wait(
            state,
            check_request(body.request, state.settings),
            Start(model=body.model, identity=info.identity, key=key, thread=body.chat),
            query,
            posted,
            request.receive,
            edited=body.edited,
            regenerates=body.regenerates,
        )
        return _pointer(request, run.id, 201 if run.created_now else 200)

    async def start(messages: list[Message]) -> RunInfo:
        body.request.messages = messages
        return await start_run(
            state,
            check_request(body.request, state.settings),
            model=body.model,
            identity=info.identity,
            key=key,
            thread=body.chat,
        )

    async def complete() -> list[Message]:
        return await with_stored(state, body.chat, posted, info.principal)

    if body.is_last_only:
        run = await start_in_conversation(
            state, posted, complete, start, key=key, principal=info.principal
        )
    else:
        run = await start(posted)
    return _pointer(request, run.id, 201 if run.created_now else 200)


async def reconnect(state: State, request: Request, info: RequestInfo) -> Response:
    """``GET /ds/chat/{id}/stream``: where the answer under way is; 204 when there is none."""
    async with count_misses(state, info):
        run = await find_active(state, request.path_params["chat"], info.principal)
    return _pointer(request, run.id, 200) if run is not None else Response(status_code=204)


def _pointer(request: Request, run: str, status: int) -> Response:
    # The guard has checked the host; the transport wants an absolute address.
    host = request.headers.get("host", "")
    info: RequestInfo = request.scope["tokenwire"]
    mount = quote(info.mount)
    url = f"{'https' if info.secure else 'http'}://{host}{mount}{ROOT}/runs/{run}.ui"
    return json_response({"streamUrl": url}, status, {"location": url, "tokenwire-run": run})
