"""The routes of other clients' wires, described: AI SDK, AG-UI and TanStack AI, OpenAI,
Anthropic."""

from __future__ import annotations

from typing import Any

from tokenwire.server.openapi import shapes
from tokenwire.server.openapi.conversation import IN_THREAD, THREAD_PARAMS
from tokenwire.server.openapi.native import AFTER, KEY, LAST_EVENT_ID
from tokenwire.server.openapi.operation import (
    LINES,
    Answer,
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

_A2A_COMMON = ("bad_request", "version_not_supported", *_RUN)
_A2A_START = (*START, *_A2A_COMMON, "unsupported_operation")


def _a2a(text: str, kind: str) -> Answer:
    return Answer(status=200, text=text, type=kind, content="application/a2a+json")


_TASK = _a2a("The task", "A2ATask")
_VERSION = header("A2A-Version", "The release that the client speaks: `1.0`.", enum=["1.0"])
_HISTORY = query("historyLength", "At most so many messages.", type="integer", minimum=0)
_CHANGES = stream("The task, then its changes", "A2AResponse")


def _of_messages(base: str) -> dict[tuple[str, str], Operation]:
    """Messages below ``base``."""
    named = " to the agent or model that the path names" if "{" in base else ""
    return {
        ("POST", f"{base}/message:send"): Operation(
            summary=f"Send a message{named}; the task when it has ended or waits",
            params=(_VERSION,),
            body=body("A2ASendRequest"),
            answers=(_a2a("The task", "A2ASent"),),
            problems=_A2A_START,
            tag="A2A",
            form="a2a",
        ),
        ("POST", f"{base}/message:stream"): Operation(
            summary=f"Send a message{named}; the task, then its changes",
            params=(LAST_EVENT_ID, _VERSION),
            body=body("A2ASendRequest"),
            answers=(_CHANGES,),
            problems=_A2A_START,
            tag="A2A",
            form="a2a",
        ),
    }


def _of_push(path: str) -> dict[tuple[str, str], Operation]:
    """Push notification configurations of a task."""
    problems = (*_A2A_COMMON, "push_not_supported")
    one = _a2a("The configuration", "A2APush")

    def operation(summary: str, answer: Answer, **more: Any) -> Operation:
        return Operation(
            summary=summary,
            params=(_VERSION,),
            answers=(answer,),
            problems=(*problems, *more.pop("problems", ())),
            tag="A2A",
            form="a2a",
            **more,
        )

    return {
        ("GET", path): operation("The caller's configurations", _a2a("All", "A2APushes")),
        ("POST", path): operation(
            "Notify an address of the task's changes",
            one,
            body=body("A2APush"),
            problems=("conflict",),
        ),
        ("GET", f"{path}/{{config}}"): operation("One configuration", one),
        ("DELETE", f"{path}/{{config}}"): operation(
            "Remove a configuration", _a2a("Nothing", "A2ANothing")
        ),
    }


def _of_tasks(base: str) -> dict[tuple[str, str], Operation]:
    """Tasks below ``base``."""
    subscribe = Operation(
        summary="The task, then its changes",
        text="With `Last-Event-ID`, a cursor from an event's metadata, what the client misses.",
        params=(LAST_EVENT_ID, _VERSION),
        answers=(_CHANGES,),
        problems=(*_A2A_COMMON, "bad_cursor", "unsupported_operation"),
        tag="A2A",
        form="a2a",
    )
    return {
        ("GET", f"{base}/tasks"): Operation(
            summary="The caller's tasks, in pages",
            params=(
                query("contextId", "Of this conversation."),
                query("status", "In this state."),
                query("pageSize", "1 to 100.", type="integer", minimum=1, maximum=100),
                query("pageToken", "The `nextPageToken` of the last page."),
                query("includeArtifacts", "With what was answered.", enum=["true", "false"]),
                query("statusTimestampAfter", "Changed since this time."),
                _HISTORY,
                _VERSION,
            ),
            answers=(_a2a("The tasks", "A2ATasks"),),
            problems=(*_A2A_COMMON, "forbidden"),
            tag="A2A",
            form="a2a",
        ),
        ("GET", f"{base}/tasks/{{task}}"): Operation(
            summary="A task now",
            params=(_HISTORY, _VERSION),
            answers=(_TASK,),
            problems=_A2A_COMMON,
            tag="A2A",
            form="a2a",
        ),
        ("POST", f"{base}/tasks/{{task}}:cancel"): Operation(
            summary="Cancel a task; the task as it ended",
            params=(_VERSION,),
            body=body({"type": "object"}, required=False),
            answers=(_TASK,),
            problems=(*_A2A_COMMON, "task_not_cancelable", "conflict"),
            tag="A2A",
            form="a2a",
        ),
        **_of_push(f"{base}/tasks/{{task}}/pushNotificationConfigs"),
        ("GET", f"{base}/extendedAgentCard"): Operation(
            summary="The agent card with every agent and model",
            answers=(_a2a("The card", "A2ACard"),),
            tag="A2A",
            form="a2a",
        ),
        ("GET", f"{base}/tasks/{{task}}:subscribe"): subscribe,
        ("POST", f"{base}/tasks/{{task}}:subscribe"): subscribe,
    }


_A2A: dict[tuple[str, str], Operation] = {
    ("GET", "/.well-known/agent-card.json"): Operation(
        summary="The agent card",
        tag="A2A",
        answers=(answer(200, "The card", "A2ACard"),),
        access="none",
    ),
    ("POST", "/a2a"): Operation(
        summary="A2A's JSON-RPC binding",
        tag="A2A",
        text="Errors of the protocol are answers with status 200.",
        params=(LAST_EVENT_ID, _VERSION),
        body=body("A2ACall"),
        answers=(
            answer(200, "The answer", "A2AAnswer"),
            stream("Answers, each with a change", "A2AAnswer"),
            answer(204, "A notification, which has no `id`"),
        ),
        problems=("budget", "unpriced"),
        form="rpc",
    ),
    **_of_messages("/a2a"),
    **_of_messages("/a2a/{tenant}"),
    **_of_tasks("/a2a"),
    **_of_tasks("/a2a/{tenant}"),
}

OPERATIONS = {**_AI_SDK, **_AG_UI, **_OPENAI, **_ANTHROPIC, **_A2A}

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
