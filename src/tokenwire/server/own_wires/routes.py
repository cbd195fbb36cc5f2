"""The routes of a wire of one's own: ``POST {path}`` starts a run, ``GET {path}/{run}`` reads one.

Always true: both are what the native routes are, but for the bytes of the answer: the same bodies,
quotas, keys and cursors.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from tokenwire.errors import CursorError
from tokenwire.server.edge.bodies import CreateRun, read_body
from tokenwire.server.edge.guard import RequestInfo
from tokenwire.server.openapi.conversation import THREAD_PARAMS, QueuedRun
from tokenwire.server.openapi.native import AFTER, KEY, LAST_EVENT_ID
from tokenwire.server.openapi.operation import Operation, answer, body, stream
from tokenwire.server.openapi.problems import START
from tokenwire.server.own_wires.response import own_response
from tokenwire.server.routes.resume import resume_of
from tokenwire.server.routes.runs import begin, count_misses, is_read, run_id, waits
from tokenwire.server.routes.support import route
from tokenwire.server.starts.start import query_of
from tokenwire.server.state import State
from tokenwire.wire.own import OwnEncoder, OwnWire

__all__ = ["own_routes"]


def own_routes(state: State, wire: OwnWire) -> list[BaseRoute]:
    """The routes of ``wire``, and their descriptions; none without a path."""
    if wire.path is None:
        return []
    one = wire.path + "/{run}"

    async def create(state: State, request: Request, info: RequestInfo) -> Response:
        asked = read_body(info.json, CreateRun)
        resume = await resume_of(state, request, info)
        if resume is not None and resume.place.frames is not None:
            raise CursorError("this id is of another wire; send an id of this one")
        key = request.headers.get("idempotency-key")
        if resume is not None and key is None:
            run = resume.run
        else:
            reply = await begin(state, asked, info.identity, key, query_of(request))
            if reply.info is None:
                return waits(reply, asked.thread or "", info.mount)
            run = reply.info
        after = resume.place.cursor if resume is not None else None
        return await own_response(state, wire, run.id, after, info.principal)

    async def read(state: State, request: Request, info: RequestInfo) -> Response:
        run = run_id(request)
        after = request.headers.get("last-event-id") or request.query_params.get("after") or None
        async with count_misses(state, info):
            response = await own_response(state, wire, run, after, info.principal)
        if after is not None and await is_read(state, run, max(response.skip, response.first)):
            response.discard()
            return Response(status_code=204)
        return response

    state.media_paths.add(wire.path)
    content = OwnEncoder(wire.encoder(), wire.name).content_type
    answered = stream("The answer in this wire", {}, content)
    tag = f"Wire {wire.name}"
    state.described["POST", wire.path] = Operation(
        summary="Start a run",
        tag=tag,
        params=(KEY, LAST_EVENT_ID, *THREAD_PARAMS),
        body=body(CreateRun),
        answers=(answered, answer(202, "The turn waits", QueuedRun)),
        problems=START,
    )
    state.described["GET", one] = Operation(
        summary="Read a run",
        tag=tag,
        params=(LAST_EVENT_ID, AFTER),
        answers=(answered, answer(204, "Nothing is left to read")),
        problems=("bad_cursor", "unknown_run", "gone"),
    )
    return [route(state, wire.path, create, "POST"), route(state, one, read, "GET")]
