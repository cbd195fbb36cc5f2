"""The routes of other clients' wires, described: AI SDK, AG-UI and TanStack AI, OpenAI,
Anthropic."""

from __future__ import annotations

from tokenwire.server.openapi import shapes
from tokenwire.server.openapi.conversation import IN_THREAD, THREAD_PARAMS
from tokenwire.server.openapi.native import AFTER, KEY, LAST_EVENT_ID
from tokenwire.server.openapi.operation import (
    LINES,
    Operation,
    Socket,
    answer,
    body,
    header,
    query,
    stream,
)
from tokenwire.server.openapi.problems import START
from tokenwire.wire.ai_sdk.parts import COMPAT
from tokenwire.wire.catalogue import WIRES

__all__ = ["OPERATIONS", "SOCKETS"]

_RUN = ("unknown_run", "gone")
_COMPAT = query("compat", "The release of the AI SDK to write for.", enum=list(COMPAT))
_UI = stream("The answer as UI message chunks", "UIMessageChunk")
_NONE_ACTIVE = answer(204, "No run is active")
_LIMIT = query("limit", "The newest so many messages.", type="integer", minimum=1)
_BEFORE = query("before", "Older ones than this: the `cursor` of the last page.")

_AI_SDK: dict[tuple[str, str], Operation] = {
    ("POST", "/api/chat"): Operation(
        summary="Ask, as `useChat` does",
        tag="AI SDK",
        text="A message that answers what a run waits for continues that run.",
        params=(KEY, LAST_EVENT_ID, _COMPAT, *THREAD_PARAMS),
        body=body("UIChatRequest"),
        answers=(_UI,),
        problems=(*START, *_RUN),
    ),
    ("GET", "/api/chat/{chat}/stream"): Operation(
        summary="Resume the answer under way",
        tag="AI SDK",
        params=(LAST_EVENT_ID, AFTER, _COMPAT),
        answers=(_UI, _NONE_ACTIVE),
        problems=("bad_request", "bad_cursor", *_RUN),
    ),
    ("POST", "/api/chat/{chat}/stop"): Operation(
        summary="Stop the answer under way",
        tag="AI SDK",
        answers=(answer(202, "It is cancelled", shapes.RunName), _NONE_ACTIVE),
        problems=_RUN,
    ),
    ("POST", "/api/chat/{chat}/approval"): Operation(
        summary="Approve or reject a tool call",
        tag="AI SDK",
        text="For releases of the AI SDK that have no approvals of their own.",
        body=body("UIApproval"),
        answers=(answer(202, "Recorded", shapes.ApprovedIn),),
        problems=("conflict", *_RUN),
    ),
    ("GET", "/v1/runs/{run}/wires/{wire}"): Operation(
        summary="Any run in any wire",
        tag="Runs",
        text=f"To look at it. The wires: {', '.join(f'`{name}`' for name in WIRES)}, and those "
        "that are installed.",
        params=(LAST_EVENT_ID, AFTER),
        answers=(stream("The run in that wire", "AnyChunk"),),
        problems=("bad_request", "bad_cursor", *_RUN),
    ),
}

_STREAM = query("stream", "Events, or lines.", enum=["sse", "ndjson"])

_AG_UI: dict[tuple[str, str], Operation] = {
    ("POST", "/ag-ui"): Operation(
        summary="Run an agent, as AG-UI and TanStack AI do",
        tag="AG-UI",
        text="The same `runId` names the same run.",
        params=(
            LAST_EVENT_ID,
            header("X-Run-Id", "The body's `runId`; TanStack AI sends it."),
            _STREAM,
            query(
                "history",
                "`server`: what is posted continues the stored conversation, by its newest run; "
                "`thread`, `all`, `last:TURNS` or `tokens:NUMBER`: turn by turn.",
            ),
            THREAD_PARAMS[1],
        ),
        body=body("AGUIRequest"),
        answers=(
            stream("The run's events", "AGUIEvent"),
            stream("The same in lines", "AGUIEvent", LINES),
        ),
        problems=(*START, *_RUN),
    ),
    ("GET", "/ag-ui"): Operation(
        summary="Join a run, or read a conversation",
        tag="AG-UI",
        params=(
            query("runId", "The run to join."),
            query("threadId", "The conversation to read."),
            query("offset", "Continue after this event; `-1`: from the start."),
            _STREAM,
            _LIMIT,
            _BEFORE,
            LAST_EVENT_ID,
        ),
        answers=(
            stream("The run's events", "AGUIEvent"),
            stream("The same in lines", "AGUIEvent", LINES),
            answer(200, "The conversation", shapes.AGUIConversation),
        ),
        problems=("bad_request", "bad_cursor", *_RUN),
    ),
}

_OPENAI: dict[tuple[str, str], Operation] = {
    ("POST", "/v1/chat/completions"): Operation(
        summary="Create a chat completion",
        tag="OpenAI",
        params=(KEY, LAST_EVENT_ID, *IN_THREAD),
        body=body("OpenAIChatRequest"),
        answers=(
            answer(200, "The completion", "ChatCompletion", Tokenwire_Run="the run's id"),
            stream("Its chunks, then `[DONE]`", "ChatCompletionChunk"),
        ),
        problems=(*START, "model_not_found", *_RUN),
        form="openai",
    ),
    ("POST", "/v1/responses"): Operation(
        summary="Create a response",
        tag="OpenAI",
        params=(KEY, LAST_EVENT_ID, *IN_THREAD),
        body=body("OpenAIResponsesRequest"),
        answers=(
            answer(200, "The response", "Response", Tokenwire_Run="the run's id"),
            stream("Its events", "ResponseEvent"),
        ),
        problems=(*START, "model_not_found", *_RUN),
        form="openai",
    ),
    ("GET", "/v1/responses/{response}"): Operation(
        summary="A response so far",
        tag="OpenAI",
        params=(
            query("stream", "Its events instead.", enum=["true", "false"]),
            query(
                "starting_after",
                "Only events after this sequence number.",
                type="integer",
                minimum=0,
                maximum=10**15 - 1,
            ),
        ),
        answers=(
            answer(200, "The response", "Response"),
            stream("Its events", "ResponseEvent"),
        ),
        problems=("bad_request", "bad_cursor", *_RUN),
        form="openai",
    ),
    ("DELETE", "/v1/responses/{response}"): Operation(
        summary="Delete a response",
        tag="OpenAI",
        answers=(answer(200, "Deleted", shapes.Deleted),),
        problems=_RUN,
        form="openai",
    ),
    ("POST", "/v1/responses/{response}/cancel"): Operation(
        summary="Cancel a response",
        tag="OpenAI",
        answers=(answer(200, "The response", "Response"),),
        problems=_RUN,
        form="openai",
    ),
}

_ANTHROPIC: dict[tuple[str, str], Operation] = {
    ("POST", "/v1/messages"): Operation(
        summary="Create a message",
        tag="Anthropic",
        params=(KEY, LAST_EVENT_ID, *IN_THREAD),
        body=body("AnthropicRequest"),
        answers=(
            answer(200, "The message", "AnthropicMessage", Tokenwire_Run="the run's id"),
            stream("Its events", "AnthropicEvent"),
        ),
        problems=(*START, "model_not_found", *_RUN),
        form="anthropic",
    ),
    ("POST", "/v1/messages/count_tokens"): Operation(
        summary="Estimate the tokens of a request",
        tag="Anthropic",
        body=body("AnthropicCountRequest"),
        answers=(answer(200, "An estimate", shapes.TokenCount),),
        problems=("model_not_found",),
        form="anthropic",
    ),
}

OPERATIONS = {**_AI_SDK, **_AG_UI, **_OPENAI, **_ANTHROPIC}

SOCKETS: dict[str, Socket] = {
    "/api/chat/ws": Socket(
        summary="The AI SDK's chat over a WebSocket",
        text="For `WebSocketChatTransport` of `@tokenwire/client/ai`.",
    ),
    "/ag-ui": Socket(
        summary="AG-UI over a WebSocket, as TanStack AI speaks it",
        text="Each message you send is a `RunAgentInput`; each you get is an event.",
    ),
}
