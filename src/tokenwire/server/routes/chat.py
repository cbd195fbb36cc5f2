"""``GET /chat/stream?prompt=``: the plain route of tutorials, safe for a browser's EventSource.

Always true: one `EventSource` pays for one answer. Its first bytes carry an ``id`` with the run, so
every reconnect names the run it was reading, and gets the rest, or 204 (which stops it) after the
end or for an unknown run; only a request without an id starts a run.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from tokenwire.errors import CursorError, GoneError, InputError, NotFoundError
from tokenwire.events.reasons import OUTCOMES
from tokenwire.events.request import Request as ModelRequest
from tokenwire.relay.conversation.posted import Continuation
from tokenwire.relay.description import RunInfo
from tokenwire.server.edge.bodies import CreateRun, read_body
from tokenwire.server.edge.guard import RequestInfo
from tokenwire.server.edge.respond import offset_of, run_response
from tokenwire.server.starts.start import Start, say, start_run, thread_query, until_started
from tokenwire.server.state import State
from tokenwire.wire.token_sse import TokenEncoder

__all__ = ["chat_get_on", "routes"]


def chat_get_on(state: State) -> bool:
    """Whether the route is served: by itself only where nobody else can reach it."""
    setting = state.settings.chat_get
    if setting == "auto":
        return state.settings.loopback and not state.auth.on and state.hosted is None
    return setting == "on"


def routes(state: State) -> list[BaseRoute]:
    """The route, when it is on."""

    async def endpoint(request: Request) -> Response:
        return await chat(state, request, request.scope["tokenwire"])

    return [Route("/chat/stream", endpoint, methods=["GET"])] if chat_get_on(state) else []


async def chat(state: State, request: Request, info: RequestInfo) -> Response:
    """The answer as ``token`` events, then ``done`` or ``error``."""
    if request.method == "HEAD":
        raise HTTPException(405, headers={"allow": "GET"})
    last_id = request.headers.get("last-event-id", "")
    if last_id:
        return await _resume(state, last_id, info.principal)
    query = request.query_params
    unknown = set(query) - {"prompt", "model", "thread", "history", "while_busy"}
    if unknown:
        raise InputError(f"unknown parameter '{min(unknown)}'", field=min(unknown))
    if not query.get("prompt"):
        raise InputError(
            "missing query parameter 'prompt', e.g. /chat/stream?prompt=Hello", field="prompt"
        )
    body = read_body({"prompt": query["prompt"]}, CreateRun)
    how = Start(model=query.get("model"), identity=info.identity, thread=query.get("thread"))
    run = await _started(state, body.request(state.settings), how, query)
    return await _stream(state, run.id, None, info.principal)


async def _started(
    state: State, request: ModelRequest, how: Start, query: Mapping[str, str]
) -> RunInfo:
    """The run of a question: alone, or as the next turn of its thread."""
    history = query.get("history", "thread" if how.thread is not None else None)
    thread_rule = thread_query(history, query.get("while_busy"), how.thread)
    if thread_rule.history is None or how.thread is None:
        if thread_rule.history is not None:
            raise InputError("'history' needs a 'thread'", field="thread")
        return await start_run(
            state, request, model=how.model, identity=how.identity, thread=how.thread
        )
    rule = thread_rule.while_busy
    if rule is None:
        rule = (await state.conversations.rules(how.principal, how.thread)).while_busy
    if rule != "parallel":
        # An EventSource that is cut before its first bytes asks again: no turn of its may wait.
        thread_rule = msgspec.structs.replace(thread_rule, while_busy="reject")
    following = Continuation(messages=request.messages, follows_head=True)
    reply = await say(state, request, how, thread_rule, following)
    return await until_started(state, reply, how)


async def _resume(state: State, last_id: str, principal: str) -> Response:
    run, _, cursor = last_id.partition(":")
    try:
        info = await state.runs.info(run, principal=principal)
        if info.state in OUTCOMES and offset_of(cursor) >= info.tail:
            return Response(status_code=204)
        return await _stream(state, run, cursor, principal)
    except (NotFoundError, GoneError, CursorError, ValueError):
        # Whatever it was, it is gone, and reconnecting must not start a paid run.
        return Response(status_code=204)


async def _stream(state: State, run: str, cursor: str | None, principal: str) -> Response:
    after = None if cursor in (None, "", "0") else cursor
    retry = b"retry: %d\n" % state.settings.retry_ms
    return await run_response(
        state,
        run,
        encoder=TokenEncoder(run),
        after=after,
        principal=principal,
        headers={"tokenwire-run": run},
        preamble=b": ok\n%bid: %b:%b\n\n" % (retry, run.encode(), (cursor or "0").encode()),
    )
