"""Bodies of other clients' wires, as JSON Schemas: what their parsers take.

Always true: of OpenAI's and Anthropic's bodies the fields here are the parser's own list; those
that have no schema are known, and go where the policy for unknown fields sends them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tokenwire.events.names import THREAD
from tokenwire.wire.a2a.request import METHODS as A2A_METHODS
from tokenwire.wire.ai_sdk.parts import COMPAT
from tokenwire.wire.anthropic.request import MESSAGES_FIELDS
from tokenwire.wire.openai.chat_request import CHAT_FIELDS
from tokenwire.wire.openai.responses_request import RESPONSES_FIELDS
from tokenwire.wire.passing import FIELD_NAME

__all__ = ["BODIES", "CHUNKS"]

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_NAME: Schema = {"type": "string", "minLength": 1}
_FLAG: Schema = {"type": ["boolean", "null"]}
_ANY_OBJECT: Schema = {"type": "object"}
_ID: Schema = {"type": "string", "pattern": f"^{THREAD.pattern}$"}
_TOKENS: Schema = {"type": ["integer", "null"], "minimum": 1, "maximum": 1 << 53}


def _maybe(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _object(required: Iterable[str], properties: Schema, *, more: bool = True) -> Schema:
    schema: Schema = {"type": "object", "required": list(required), "properties": properties}
    return schema if more else {**schema, "additionalProperties": False}


def _known(names: Iterable[str], required: Iterable[str], properties: Schema) -> Schema:
    """An object of the fields that a parser knows, and of others with a plain name."""
    schema = _object(required, {name: properties.get(name, {}) for name in names})
    return {
        "description": "Other fields are passed to the provider, dropped or refused, as the "
        "server is set; those that would choose its model, address or tools are refused.",
        **schema,
        "propertyNames": {"pattern": f"^{FIELD_NAME.pattern}$"},
    }


def _number(most: float) -> Schema:
    return {"type": ["number", "null"], "minimum": 0, "maximum": most}


_PARTS: Schema = {"type": "array", "items": _object(["type"], {"type": _TEXT})}
_CONTENT: Schema = {"anyOf": [_TEXT, _PARTS]}
_STOP: Schema = {
    "anyOf": [_TEXT, {"type": "array", "items": _TEXT, "maxItems": 16}, {"type": "null"}]
}

_CHAT_MESSAGE: Schema = _object(
    ["role"],
    {
        "role": {"enum": ["system", "developer", "user", "assistant", "tool"]},
        "content": _maybe(_CONTENT),
        "tool_calls": {"type": ["array", "null"], "items": _ANY_OBJECT},
        "tool_call_id": {"type": ["string", "null"]},
    },
)
_FUNCTION: Schema = _object(
    ["name"],
    {
        "name": _NAME,
        "description": {"type": ["string", "null"]},
        "parameters": {"type": ["object", "null"]},
        "strict": _FLAG,
    },
)
_SAMPLING: Schema = {
    "model": _NAME,
    "stream": _FLAG,
    "temperature": _number(2),
    "top_p": _number(1),
    "parallel_tool_calls": _FLAG,
    "tool_choice": {
        "anyOf": [{"enum": ["auto", "none", "required"]}, _ANY_OBJECT, {"type": "null"}]
    },
    "metadata": {"type": ["object", "null"]},
}

_CHAT: Schema = _known(
    CHAT_FIELDS,
    ["model", "messages"],
    {
        **_SAMPLING,
        "messages": {"type": "array", "items": _CHAT_MESSAGE, "minItems": 1},
        "stream_options": _maybe(_object([], {"include_usage": _FLAG})),
        "max_tokens": _TOKENS,
        "max_completion_tokens": _TOKENS,
        "stop": _STOP,
        "seed": {"type": ["integer", "null"]},
        "n": {"enum": [1, None]},
        "tools": {
            "type": ["array", "null"],
            "items": _object(
                ["type", "function"], {"type": {"const": "function"}, "function": _FUNCTION}
            ),
        },
        "response_format": _maybe(
            _object(["type"], {"type": {"enum": ["text", "json_object", "json_schema"]}})
        ),
        "reasoning_effort": {"type": ["string", "null"]},
    },
)

_RESPONSES: Schema = _known(
    RESPONSES_FIELDS,
    ["model", "input"],
    {
        **_SAMPLING,
        "input": {
            "anyOf": [_NAME, {"type": "array", "items": _ANY_OBJECT, "minItems": 1}],
        },
        "instructions": {"type": ["string", "null"]},
        "background": _FLAG,
        "store": _FLAG,
        "max_output_tokens": _TOKENS,
        "tools": {
            "type": ["array", "null"],
            "items": {**_FUNCTION, "required": ["type", "name"]},
        },
        "reasoning": _maybe(_object([], {"effort": {"type": ["string", "null"]}})),
        "text": _maybe(_object([], {"format": _maybe(_ANY_OBJECT)})),
        "previous_response_id": {"type": ["string", "null"]},
    },
)


def _messages(required: list[str]) -> Schema:
    return _known(
        MESSAGES_FIELDS,
        required,
        {
            **{name: _SAMPLING[name] for name in ("model", "stream", "top_p", "metadata")},
            "temperature": _number(1),
            "messages": {
                "type": "array",
                "items": _object(
                    ["role", "content"],
                    {"role": {"enum": ["user", "assistant"]}, "content": _CONTENT},
                ),
                "minItems": 1,
            },
            "max_tokens": {"type": "integer", "minimum": 1, "maximum": 1 << 53},
            "system": _maybe(_CONTENT),
            "stop_sequences": {"type": ["array", "null"], "items": _TEXT, "maxItems": 16},
            "tools": {
                "type": ["array", "null"],
                "items": _object(
                    ["name", "input_schema"], {"name": _NAME, "input_schema": _ANY_OBJECT}
                ),
            },
            "tool_choice": _maybe(
                _object(["type"], {"type": {"enum": ["auto", "any", "tool", "none"]}})
            ),
            "thinking": _maybe(
                _object(["type"], {"type": {"enum": ["enabled", "adaptive", "disabled"]}})
            ),
        },
    )


_UI_MESSAGE: Schema = _object(
    ["role", "parts"],
    {
        "id": _TEXT,
        "role": {"enum": ["user", "assistant", "system"]},
        "parts": _PARTS,
    },
)
_UI: Schema = {
    "description": "`messages`, or the last `message` alone, which continues the stored ones.",
    **_object(
        ["id"],
        {
            "id": _ID,
            "messages": {"type": "array", "items": _UI_MESSAGE, "minItems": 1},
            "message": _UI_MESSAGE,
            "trigger": {"enum": ["submit-message", "regenerate-message", None]},
            "model": {"type": ["string", "null"]},
            "system": {"type": ["string", "null"]},
            "compat": {"enum": [*COMPAT, None]},
            "tokenwire": {"type": ["object", "null"]},
        },
    ),
}
_UI_APPROVAL: Schema = _object(
    ["approvalId", "approved"],
    {
        "approvalId": _ID,
        "approved": {"type": "boolean"},
        "reason": {"type": ["string", "null"]},
        "input": {"type": ["object", "null"]},
    },
    more=False,
)

_AG_UI: Schema = _object(
    ["threadId", "runId"],
    {
        "threadId": _ID,
        "runId": _ID,
        "messages": {
            "type": "array",
            "items": _object(
                ["role"],
                {
                    "id": _TEXT,
                    "role": {
                        "enum": [
                            "system",
                            "developer",
                            "user",
                            "assistant",
                            "tool",
                            "activity",
                            "reasoning",
                        ]
                    },
                },
            ),
        },
        "tools": {"type": ["array", "null"], "items": _object(["name"], {"name": _NAME})},
        "context": {"type": ["array", "null"], "items": _ANY_OBJECT},
        "resume": {
            "type": ["array", "null"],
            "items": _object(["interruptId"], {"interruptId": _NAME}),
        },
        "forwardedProps": {},
        "state": {},
    },
)

_A2A_PART: Schema = {
    "description": "One of `text`, `raw` (base64), `url` and `data`.",
    **_object(
        [],
        {
            "text": _TEXT,
            "raw": _TEXT,
            "url": _TEXT,
            "data": {},
            "mediaType": {"type": ["string", "null"]},
            "filename": {"type": ["string", "null"]},
        },
    ),
}
_A2A_SEND: Schema = {
    "description": "A2A's `SendMessageRequest`.",
    **_object(
        ["message"],
        {
            "message": _object(
                ["messageId", "parts"],
                {
                    "messageId": {"type": "string", "minLength": 1, "maxLength": 256},
                    "contextId": _maybe(_ID),
                    "taskId": {"type": ["string", "null"]},
                    "role": {"enum": ["ROLE_USER", None]},
                    "parts": {"type": "array", "items": _A2A_PART, "minItems": 1},
                },
            ),
            "configuration": _maybe(
                _object(
                    [],
                    {
                        "returnImmediately": _FLAG,
                        "historyLength": {"type": ["integer", "null"], "minimum": 0},
                    },
                )
            ),
            "metadata": {"type": ["object", "null"]},
            "tenant": {"type": ["string", "null"]},
        },
    ),
}
_A2A_CALL: Schema = {
    "description": "A JSON-RPC 2.0 request of A2A.",
    **_object(
        ["jsonrpc", "method"],
        {
            "jsonrpc": {"const": "2.0"},
            "id": {"type": ["string", "integer", "null"]},
            "method": {"enum": list(A2A_METHODS)},
            "params": {"type": ["object", "null"]},
        },
    ),
}

#: The request's body by the name that its schema has in the document.
BODIES: dict[str, Schema] = {
    "OpenAIChatRequest": _CHAT,
    "OpenAIResponsesRequest": _RESPONSES,
    "AnthropicRequest": _messages(["model", "messages", "max_tokens"]),
    "AnthropicCountRequest": _messages(["model", "messages"]),
    "UIChatRequest": _UI,
    "UIApproval": _UI_APPROVAL,
    "AGUIRequest": _AG_UI,
    "A2ASendRequest": _A2A_SEND,
    "A2ACall": _A2A_CALL,
}

_TYPED = _object(["type"], {"type": _TEXT})

#: What those wires answer with: the objects and chunks of their own documents.
CHUNKS: dict[str, Schema] = {
    "UIMessageChunk": {"description": "A chunk of the UI message stream v1.", **_TYPED},
    "AnyChunk": {"description": "An event of the wire that was asked for."},
    "AGUIEvent": {"description": "An event of AG-UI.", **_TYPED},
    "ChatCompletionChunk": {
        "description": "A `chat.completion.chunk`, or an object with `error`.",
        "type": "object",
    },
    "ChatCompletion": {
        "description": "A `chat.completion`.",
        **_object(
            ["id", "object", "created", "model", "choices"],
            {
                "id": _TEXT,
                "object": {"const": "chat.completion"},
                "created": {"type": "integer"},
                "model": _TEXT,
                "choices": {
                    "type": "array",
                    "items": _object(
                        ["index", "message", "finish_reason"],
                        {
                            "index": {"type": "integer"},
                            "message": _object(
                                ["role", "content"],
                                {
                                    "role": {"const": "assistant"},
                                    "content": {"type": ["string", "null"]},
                                    "refusal": {"type": ["string", "null"]},
                                    "tool_calls": {"type": "array", "items": _ANY_OBJECT},
                                },
                            ),
                            "finish_reason": _TEXT,
                        },
                    ),
                },
                "usage": {"type": ["object", "null"]},
            },
        ),
    },
    "Response": {
        "description": "A `response`.",
        **_object(
            ["id", "object", "status", "output"],
            {
                "id": _TEXT,
                "object": {"const": "response"},
                "status": _TEXT,
                "output": {"type": "array", "items": _TYPED},
            },
        ),
    },
    "ResponseEvent": {"description": "An event of a response.", **_TYPED},
    "AnthropicMessage": {
        "description": "A `message`.",
        **_object(
            ["id", "type", "role", "content", "stop_reason", "usage"],
            {
                "id": _TEXT,
                "type": {"const": "message"},
                "role": {"const": "assistant"},
                "model": _TEXT,
                "content": {"type": "array", "items": _TYPED},
                "stop_reason": {"type": ["string", "null"]},
                "usage": _ANY_OBJECT,
            },
        ),
    },
    "AnthropicEvent": {"description": "An event of a message stream.", **_TYPED},
    "A2ATask": {
        "description": "A `Task`.",
        **_object(["id", "contextId", "status"], {"id": _TEXT, "contextId": _TEXT}),
    },
    "A2ASent": _object(["task"], {"task": _ANY_OBJECT}),
    "A2ATasks": _object(
        ["tasks", "nextPageToken", "pageSize", "totalSize"],
        {
            "tasks": {"type": "array", "items": _ANY_OBJECT},
            "nextPageToken": _TEXT,
            "pageSize": {"type": "integer"},
            "totalSize": {"type": "integer"},
        },
    ),
    "A2APush": {
        "description": "A `TaskPushNotificationConfig`.",
        **_object(["url"], {"id": _TEXT, "url": _TEXT, "token": _TEXT}),
    },
    "A2APushes": _object(
        ["configs"], {"configs": {"type": "array", "items": _ANY_OBJECT}, "nextPageToken": _TEXT}
    ),
    "A2ANothing": _object([], {}),
    "A2ACard": {
        "description": "An `AgentCard`.",
        **_object(["name", "supportedInterfaces", "capabilities", "skills"], {"name": _TEXT}),
    },
    "A2AResponse": {
        "description": "A `StreamResponse`.",
        "type": "object",
        "minProperties": 1,
        "maxProperties": 1,
    },
    "A2AAnswer": {
        "description": "A JSON-RPC 2.0 response: `result`, or `error`.",
        **_object(["jsonrpc", "id"], {"jsonrpc": {"const": "2.0"}, "error": _ANY_OBJECT}),
    },
    "A2AProblem": {
        "description": "A `google.rpc.Status`.",
        **_object(
            ["error"],
            {
                "error": _object(
                    ["code", "status", "message", "details"],
                    {"code": {"type": "integer"}, "status": _TEXT, "message": _TEXT},
                )
            },
        ),
    },
    "OpenAIProblem": {
        "description": "OpenAI's error.",
        **_object(
            ["error"],
            {
                "error": _object(
                    ["message", "type", "param", "code"],
                    {
                        "message": _TEXT,
                        "type": _TEXT,
                        "param": {"type": ["string", "null"]},
                        "code": {"type": ["string", "null"]},
                    },
                )
            },
        ),
    },
    "AnthropicProblem": {
        "description": "Anthropic's error.",
        **_object(
            ["type", "error"],
            {
                "type": {"const": "error"},
                "error": _object(["type", "message"], {"type": _TEXT, "message": _TEXT}),
                "request_id": _TEXT,
            },
        ),
    },
}
