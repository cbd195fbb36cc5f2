"""``POST /v1/messages`` for Anthropic's clients, streaming or not.

Tools that a request brings are the caller's: the answer ends with their calls.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from tokenwire.events.estimate import estimate_tokens
from tokenwire.server.edge.bodies import check_request, choose_model
from tokenwire.server.edge.guard import RequestInfo
from tokenwire.server.edge.problems import json_response
from tokenwire.server.routes.head import ProviderHead
from tokenwire.server.routes.resume import resume_of
from tokenwire.server.routes.support import (
    OPENAI_PREAMBLE,
    dropped_header,
    finished,
    raise_failure,
    route,
    unknown_model_is_404,
    wire_response,
)
from tokenwire.server.starts.start import Start, query_with_thread, say_and_wait, start_run
from tokenwire.server.state import State
from tokenwire.wire.anthropic.encoder import (
    AnthropicEncoder,
    error_body,
    error_type,
    message_object,
)
from tokenwire.wire.anthropic.request import parse_messages

__all__ = ["anthropic_form", "routes"]

_COUNT = "/v1/messages/count_tokens"


def routes(state: State) -> list[BaseRoute]:
    """``/v1/messages`` and the form of its errors."""
    state.error_forms["/v1/messages"] = anthropic_form
    for path in ("/v1/messages", _COUNT):
        state.media_paths.add(path)
        state.request_id_names[path] = b"request-id"
    state.cors_families |= {"x-stainless-", "anthropic-"}
    state.roles.add("POST", _COUNT, "read")
    state.cors_exposed += ", Request-Id"
    return [
        route(state, "/v1/messages", create, "POST"),
        route(state, _COUNT, count_tokens, "POST"),
    ]


def anthropic_form(
    code: str, message: str, status: int, request_id: str, details: dict[str, Any]
) -> dict[str, Any]:
    """Anthropic's error body."""
    return {**error_body(message, error_type(status)), "request_id": request_id}


async def count_tokens(state: State, request: Request, info: RequestInfo) -> Response:
    """``POST /v1/messages/count_tokens``: an estimate, and said to be one. Starts nothing."""
    body = parse_messages(info.json, is_count=True, unknown=state.settings.unknown_fields)
    with unknown_model_is_404():
        choose_model(body.model, state.model_names)
    tokens = estimate_tokens(check_request(body.request, state.settings))
    return json_response({"input_tokens": tokens, "estimate": True})


async def create(state: State, request: Request, info: RequestInfo) -> Response:
    """``POST /v1/messages``."""
    body = parse_messages(info.json, unknown=state.settings.unknown_fields)
    resume = await resume_of(state, request, info)
    key = request.headers.get("idempotency-key")
    query = query_with_thread(request)
    if resume is not None and key is None:
        run = resume.run
    elif query.history is not None:
        how = Start(
            model=body.model,
            identity=info.identity,
            key=key,
            thread=query.thread,
            metadata={"tools": sorted(body.tools)},
            tools=False,
        )
        posted, checked = body.request.messages, check_request(body.request, state.settings)
        with unknown_model_is_404():
            run = await say_and_wait(state, checked, how, query, posted, request.receive)
    else:
        with unknown_model_is_404():
            run = await start_run(
                state,
                check_request(body.request, state.settings),
                model=body.model,
                identity=info.identity,
                key=key,
                metadata={"tools": sorted(body.tools)},
                tools=False,
            )
    headers = dropped_header(state, body.request.passed, run.model)
    if body.stream:
        place = resume.place if resume is not None else None
        encoder = AnthropicEncoder(tools=body.tools, place=place)
        return await wire_response(
            state,
            run.id,
            encoder,
            principal=info.principal,
            place=place,
            headers=headers,
            preamble=OPENAI_PREAMBLE,
            head=ProviderHead() if place is None else None,
        )
    fold = await finished(state, request, run.id, info.principal)
    raise_failure(fold)
    return json_response(
        message_object(fold, tools=body.tools), 200, {"tokenwire-run": run.id, **headers}
    )
