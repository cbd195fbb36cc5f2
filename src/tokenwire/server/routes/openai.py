"""OpenAI-compatible routes: ``/v1/chat/completions``, ``/v1/responses``.

Tools that a request brings are the caller's: the answer ends with their calls, as it does at
OpenAI. Every stream is a run of ours, so it can be read again: chat by ``Idempotency-Key`` and
``Last-Event-ID``, responses by ``GET /v1/responses/{id}?stream=true&starting_after=N``.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from tokenwire.errors import InputError, NotFoundError
from tokenwire.events.message import Message
from tokenwire.events.validation import whole_number
from tokenwire.relay.description import RunInfo
from tokenwire.server.edge.bodies import check_request
from tokenwire.server.edge.guard import RequestInfo
from tokenwire.server.edge.problems import json_response
from tokenwire.server.edge.whole import whole_answer
from tokenwire.server.routes.head import ProviderHead
from tokenwire.server.routes.resume import Resume, resume_of, start_in_conversation
from tokenwire.server.routes.runs import count_misses
from tokenwire.server.routes.support import (
    OPENAI_PREAMBLE,
    dropped_header,
    finished,
    folded,
    raise_failure,
    route,
    unknown_model_is_404,
    wire_response,
)
from tokenwire.server.starts.start import Start, query_with_thread, say_and_wait, start_run
from tokenwire.server.state import State
from tokenwire.wire.openai.chat import OpenAIChatEncoder, completion, error_kind, error_object
from tokenwire.wire.openai.chat_request import OpenAIRequest, parse_chat
from tokenwire.wire.openai.responses import OpenAIResponsesEncoder, response_object
from tokenwire.wire.openai.responses_request import parse_responses

__all__ = ["openai_form", "routes"]

_PREFIX = "resp_"
_CODES = {"unknown_model": "model_not_found", "not_authenticated": "invalid_api_key"}


def routes(state: State) -> list[BaseRoute]:
    """Chat completions and responses, and the form of their errors."""
    state.error_forms["/v1/chat/completions"] = openai_form
    state.error_forms["/v1/responses"] = openai_form
    state.media_paths |= {"/v1/chat/completions", "/v1/responses"}
    state.cors_families |= {"x-stainless-", "openai-"}
    state.cors_exposed += ", Tokenwire-Dropped-Fields"
    one = "/v1/responses/{response}"
    return [
        route(state, "/v1/chat/completions", chat, "POST"),
        route(state, "/v1/responses", create, "POST"),
        route(state, one, retrieve, "GET"),
        route(state, one, erase, "DELETE"),
        route(state, one + "/cancel", cancel, "POST"),
    ]


def openai_form(
    code: str, message: str, status: int, request_id: str, details: dict[str, Any]
) -> dict[str, Any]:
    """OpenAI's error body."""
    field = details.get("field")
    return {
        "error": error_object(message, error_kind(status), _CODES.get(code, code), field or None)
    }


async def chat(state: State, request: Request, info: RequestInfo) -> Response:
    """``POST /v1/chat/completions``."""
    body = parse_chat(info.json, unknown=state.settings.unknown_fields)
    resume = await resume_of(state, request, info)
    started = await _start(state, request, body, info, {}, resume)
    run, headers = started.id, dropped_header(state, body.request.passed, started.model)
    if body.stream:
        place = resume.place if resume is not None else None
        encoder = OpenAIChatEncoder(include_usage=body.include_usage, tools=body.tools, place=place)
        return await wire_response(
            state,
            run,
            encoder,
            principal=info.principal,
            place=place,
            headers=headers,
            preamble=OPENAI_PREAMBLE,
            head=ProviderHead() if place is None else None,
        )
    fold = await finished(state, request, run, info.principal)
    raise_failure(fold)
    return json_response(completion(fold, tools=body.tools), 200, {"tokenwire-run": run, **headers})


async def _start(
    state: State,
    request: Request,
    body: OpenAIRequest,
    info: RequestInfo,
    metadata: dict[str, Any],
    resume: Resume | None,
) -> RunInfo:
    key = request.headers.get("idempotency-key")
    if resume is not None and key is None:
        return resume.run
    metadata["tools"] = sorted(body.tools)
    posted, previous = body.request.messages, body.previous

    async def start(messages: list[Message]) -> RunInfo:
        body.request.messages = messages
        with unknown_model_is_404():
            return await start_run(
                state,
                check_request(body.request, state.settings),
                model=body.model,
                identity=info.identity,
                key=key,
                metadata=metadata,
                tools=False,
            )

    query = query_with_thread(request)
    if query.history is not None:
        if previous is not None:
            text = "'previous_response_id' and 'history' each name a conversation; send one of them"
            raise InputError(text, field="previous_response_id")
        how = Start(
            model=body.model,
            identity=info.identity,
            key=key,
            thread=query.thread,
            metadata=metadata,
            tools=False,
        )
        with unknown_model_is_404():
            checked = check_request(body.request, state.settings)
            return await say_and_wait(state, checked, how, query, posted, request.receive)
    if previous is None:
        return await start(posted)

    async def complete() -> list[Message]:
        return [*await _conversation(state, previous, info.principal), *posted]

    return await start_in_conversation(
        state, posted, complete, start, key=key, principal=info.principal
    )


async def create(state: State, request: Request, info: RequestInfo) -> Response:
    """``POST /v1/responses``."""
    body = parse_responses(info.json, unknown=state.settings.unknown_fields)
    resume = await resume_of(state, request, info)
    started = await _start(state, request, body, info, {"echo": body.echo}, resume)
    run, headers = started.id, dropped_header(state, body.request.passed, started.model)
    if body.stream:
        place = resume.place if resume is not None else None
        encoder = OpenAIResponsesEncoder(tools=body.tools, echo=body.echo, place=place)
        return await wire_response(
            state,
            run,
            encoder,
            principal=info.principal,
            place=place,
            headers=headers,
            preamble=OPENAI_PREAMBLE,
            head=ProviderHead() if place is None else None,
        )
    if body.background:
        fold, _ = await folded(state, run, info.principal)
        fold.run, fold.model = run, fold.model or body.model
    else:
        fold = await finished(state, request, run, info.principal)
        raise_failure(fold)
    value = response_object(fold, tools=body.tools, echo=body.echo)
    return json_response(value, 200, {"tokenwire-run": run, **headers})


async def _conversation(state: State, response: str, principal: str) -> list[Message]:
    """The conversation up to the end of an earlier response."""
    run = _run_of(response)
    try:
        snapshot = await state.runs.snapshot(run, principal=principal)
    except NotFoundError:
        raise InputError(
            f"response '{response[:80]}' not found", field="previous_response_id"
        ) from None
    return [*snapshot.input, *snapshot.messages]


def _run_of(response: str) -> str:
    if not response.startswith(_PREFIX):
        raise NotFoundError("response not found", what="response")
    return response.removeprefix(_PREFIX)


async def _object(state: State, run: str, principal: str) -> dict[str, Any]:
    info = await state.runs.info(run, principal=principal)
    fold, _ = await folded(state, run, principal)
    fold.run, fold.model = run, fold.model or info.model
    metadata = info.metadata or {}
    tools = frozenset(metadata.get("tools") or ())
    return response_object(fold, tools=tools, echo=metadata.get("echo"))


async def retrieve(state: State, request: Request, info: RequestInfo) -> Response:
    """``GET /v1/responses/{id}``: the response so far; with ``stream=true`` its events, after
    ``starting_after``."""
    run = _run_of(request.path_params["response"])
    async with count_misses(state, info):
        if request.query_params.get("stream") not in ("true", "1"):

            async def made() -> dict[str, Any]:
                return await _object(state, run, info.principal)

            return await whole_answer(state, request.scope, run, info.principal, made)
        text = request.query_params.get("starting_after")
        after = whole_number(text, 15) if text is not None else None
        if text is not None and after is None:
            raise InputError("'starting_after' must be a whole number", field="starting_after")
        encoder = OpenAIResponsesEncoder(starting_after=after)
        return await wire_response(
            state, run, encoder, principal=info.principal, preamble=OPENAI_PREAMBLE
        )


async def cancel(state: State, request: Request, info: RequestInfo) -> Response:
    """``POST /v1/responses/{id}/cancel``: the response, cancelled."""
    run = _run_of(request.path_params["response"])
    async with count_misses(state, info):
        await state.runs.cancel(run, principal=info.principal, by=info.by)
        await finished(state, request, run, info.principal)
        return json_response(await _object(state, run, info.principal))


async def erase(state: State, request: Request, info: RequestInfo) -> Response:
    """``DELETE /v1/responses/{id}``."""
    response = request.path_params["response"]
    run = _run_of(response)
    async with count_misses(state, info):
        run_info = await state.runs.info(run, principal=info.principal)
        await state.threads.check_owner(run_info, info.principal)
        await state.quotas.before_erase(info.identity, [run_info])
        await state.threads.erase_run(run, info.principal)
    return json_response({"id": response, "object": "response", "deleted": True})
