"""Schemas of what LangGraph's clients send and read, by their names in the document."""

from __future__ import annotations

from typing import Any

from tokenwire.events.names import THREAD
from tokenwire.wire.langgraph.channels import CHANNELS
from tokenwire.wire.langgraph.command import COMMANDS
from tokenwire.wire.langgraph.encoder import STREAM_MODES

__all__ = ["BODIES", "SHAPES"]

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_MAYBE_TEXT: Schema = {"type": ["string", "null"]}
_OBJECT: Schema = {"type": "object"}
_FLAG: Schema = {"type": ["boolean", "null"]}
_THREAD: Schema = {"type": "string", "pattern": f"^{THREAD.pattern}$"}
_MODE: Schema = {"enum": list(STREAM_MODES)}


def _object(required: list[str], properties: Schema, about: str = "") -> Schema:
    schema: Schema = {"type": "object", "required": required, "properties": properties}
    return {"description": about, **schema} if about else schema


_CHECKPOINT: Schema = {
    "anyOf": [
        _object(
            [],
            {"checkpoint_id": _MAYBE_TEXT, "checkpoint_ns": {"enum": ["", None]}},
        ),
        {"type": "null"},
    ]
}
_MESSAGE: Schema = {
    "description": "A message of LangChain's.",
    "anyOf": [_TEXT, _object(["type"], {"type": _TEXT, "content": {}, "id": _MAYBE_TEXT})],
}
_RUN: Schema = _object(
    [],
    {
        "assistant_id": {"description": "A model or an agent of the server.", **_MAYBE_TEXT},
        "input": {
            "anyOf": [
                {
                    **_object([], {"messages": {"type": "array", "items": _MESSAGE}}),
                    "additionalProperties": False,
                },
                {"type": "null"},
            ]
        },
        "command": {"anyOf": [_object(["resume"], {"resume": {}}), {"type": "null"}]},
        "stream_mode": {"anyOf": [_MODE, {"type": "array", "items": _MODE}, {"type": "null"}]},
        "stream_subgraphs": _FLAG,
        "on_disconnect": {"enum": ["cancel", "continue", None]},
        "multitask_strategy": {"enum": ["enqueue", "reject", "interrupt", None]},
        "checkpoint": _CHECKPOINT,
        "checkpoint_id": _MAYBE_TEXT,
        "metadata": {"type": ["object", "null"]},
    },
    "What a run is given, or the answer to its interrupt.",
)

BODIES: dict[str, Schema] = {
    "LangGraphRunRequest": _RUN,
    "LangGraphThreadRequest": _object(
        [],
        {
            "thread_id": {"anyOf": [_THREAD, {"type": "null"}]},
            "if_exists": {"enum": ["raise", "do_nothing", None]},
            "metadata": {"type": ["object", "null"]},
        },
    ),
    "LangGraphSearch": _object(
        [],
        {
            "limit": {"type": ["integer", "null"], "minimum": 1, "maximum": 1000},
            "offset": {"type": ["integer", "null"], "minimum": 0, "maximum": 1000},
        },
    ),
    "LangGraphHistoryRequest": _object(
        [],
        {
            "limit": {"type": ["integer", "null"], "minimum": 1, "maximum": 1000},
            "before": {"anyOf": [_TEXT, _OBJECT, {"type": "null"}]},
            "checkpoint": _CHECKPOINT,
        },
    ),
    "LangGraphCheckpoint": _object(["checkpoint"], {"checkpoint": _CHECKPOINT}),
    "LangGraphCommand": _object(
        ["id", "method"],
        {
            "id": {"type": "integer", "minimum": 0},
            "method": {"enum": list(COMMANDS)},
            "params": {"type": ["object", "null"]},
        },
        "A command of the Agent Streaming Protocol.",
    ),
    "LangGraphChannels": {
        **_object(
            ["channels"],
            {
                "channels": {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": 100,
                    "items": {
                        "anyOf": [
                            {"enum": list(CHANNELS)},
                            {"type": "string", "pattern": "^custom:.+$"},
                        ]
                    },
                },
                "namespaces": {
                    "type": ["array", "null"],
                    "maxItems": 100,
                    "items": {"type": "array", "maxItems": 100, "items": _TEXT},
                },
                "depth": {"type": ["integer", "null"], "minimum": 0, "maximum": 1000},
                "since": {"type": ["integer", "null"], "minimum": 0, "maximum": 1 << 53},
            },
        ),
        "additionalProperties": False,
    },
}

SHAPES: dict[str, Schema] = {
    "LangGraphThread": _object(
        ["thread_id", "created_at", "updated_at", "metadata", "status"],
        {
            "thread_id": _TEXT,
            "status": {"enum": ["idle", "busy", "interrupted", "error"]},
            "values": {"type": ["object", "null"]},
        },
    ),
    "LangGraphState": _object(
        ["values", "next", "tasks", "checkpoint", "parent_checkpoint", "metadata"],
        {
            "values": _OBJECT,
            "next": {"type": "array", "items": _TEXT},
            "tasks": {"type": "array", "items": _OBJECT},
        },
    ),
    "LangGraphRun": _object(
        ["run_id", "thread_id", "assistant_id", "status", "created_at"],
        {
            "run_id": _TEXT,
            "status": {"enum": ["running", "interrupted", "success", "error"]},
            "assistant_id": _TEXT,
        },
    ),
    "LangGraphValues": _object([], {}, "The values of the thread, or `__error__`."),
    "LangGraphAssistant": _object(
        ["assistant_id", "graph_id", "name"], {"assistant_id": _TEXT, "graph_id": _TEXT}
    ),
    "LangGraphInfo": _object(["version"], {"version": _TEXT}),
    "LangGraphPart": {"description": "What an event holds; its name says what that is."},
    "LangGraphCommandResult": _object(
        ["type", "id"],
        {
            "type": {"enum": ["success", "error"]},
            "id": {"type": ["integer", "null"]},
            "result": _OBJECT,
            "error": _TEXT,
            "message": _TEXT,
        },
    ),
    "LangGraphProblem": _object(
        ["detail", "message", "error"],
        {
            "detail": _TEXT,
            "message": _TEXT,
            "error": _object(["code", "message", "request_id"], {"code": _TEXT, "message": _TEXT}),
        },
        "An error of LangGraph's server.",
    ),
}
