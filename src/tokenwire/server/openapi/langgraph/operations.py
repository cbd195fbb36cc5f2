"""The routes below ``/langgraph``, described."""

from __future__ import annotations

from typing import Any

from tokenwire.server.openapi.native import LAST_EVENT_ID
from tokenwire.server.openapi.operation import Answer, Operation, answer, body, query, stream
from tokenwire.server.openapi.problems import START
from tokenwire.wire.langgraph.encoder import STREAM_MODES

__all__ = ["OPERATIONS"]

_BASE = "/langgraph"
_RUN = ("bad_request", "unknown_run", "gone")
_STREAM = stream("The run in the stream modes", "LangGraphPart")
_VALUES = answer(200, "The values, when the run has ended or waits", "LangGraphValues")
_THREAD = answer(200, "The thread", "LangGraphThread")
_STATE = answer(200, "The state", "LangGraphState")
_RUN_OBJECT = answer(200, "The run", "LangGraphRun")
_NUMBER: dict[str, Any] = {"type": "integer"}


def _list(kind: str) -> Answer:
    items = {"$ref": f"#/components/schemas/{kind}"}
    return answer(200, "A list", {"type": "array", "items": items})


def _of(summary: str, *answers: Answer, **more: Any) -> Operation:
    return Operation(summary=summary, tag="LangGraph", form="langgraph", answers=answers, **more)


def _starts(base: str) -> dict[tuple[str, str], Operation]:
    """Runs below ``base``."""
    more: dict[str, Any] = {"body": body("LangGraphRunRequest"), "problems": (*START, *_RUN)}
    return {
        ("POST", base): _of("Start a run in the background", _RUN_OBJECT, **more),
        ("POST", f"{base}/stream"): _of("Start or resume a run, and stream it", _STREAM, **more),
        ("POST", f"{base}/wait"): _of("Start or resume a run, and wait", _VALUES, **more),
        ("GET", f"{base}/{{run}}/stream"): _of(
            "Join a run",
            _STREAM,
            params=(
                LAST_EVENT_ID,
                query("stream_mode", "Repeat it for several.", enum=list(STREAM_MODES)),
                query("subgraphs", "With the words of subagents.", enum=["true", "false"]),
            ),
            problems=(*_RUN, "bad_cursor"),
        ),
    }


_ONE = f"{_BASE}/threads/{{thread}}"
_OF_RUN = f"{_ONE}/runs/{{run}}"

OPERATIONS: dict[tuple[str, str], Operation] = {
    ("GET", f"{_BASE}/info"): _of("What the server is", answer(200, "It", "LangGraphInfo")),
    ("POST", f"{_BASE}/assistants/search"): _of(
        "Models and agents",
        _list("LangGraphAssistant"),
        body=body("LangGraphSearch", required=False),
    ),
    ("GET", f"{_BASE}/assistants/{{assistant}}"): _of(
        "A model or an agent",
        answer(200, "It", "LangGraphAssistant"),
        problems=("unknown_run",),
    ),
    ("POST", f"{_BASE}/threads"): _of(
        "A thread",
        _THREAD,
        text="It begins with its first run; its metadata is not stored.",
        body=body("LangGraphThreadRequest", required=False),
        problems=(*_RUN, "conflict"),
    ),
    ("POST", f"{_BASE}/threads/search"): _of(
        "The caller's threads",
        _list("LangGraphThread"),
        body=body("LangGraphSearch", required=False),
        problems=_RUN,
    ),
    ("GET", _ONE): _of("A thread with its values", _THREAD, problems=_RUN),
    ("DELETE", _ONE): _of(
        "Erase a thread", answer(204, "It is erased"), problems=(*_RUN, "conflict")
    ),
    ("GET", f"{_ONE}/state"): _of("The newest state", _STATE, problems=_RUN),
    ("GET", f"{_ONE}/state/{{checkpoint}}"): _of(
        "The state at a checkpoint", _STATE, problems=_RUN
    ),
    ("POST", f"{_ONE}/state/checkpoint"): _of(
        "The state at a checkpoint", _STATE, body=body("LangGraphCheckpoint"), problems=_RUN
    ),
    ("POST", f"{_ONE}/history"): _of(
        "The states of all branches, the newest first",
        _list("LangGraphState"),
        body=body("LangGraphHistoryRequest", required=False),
        problems=_RUN,
    ),
    ("POST", f"{_ONE}/stream/events"): _of(
        "The events of a thread's runs, by channels",
        stream("The events, as the Agent Streaming Protocol has them", "LangGraphPart"),
        params=(query("live", "no: it ends with what is there.", enum=["sse", "no"]),),
        body=body("LangGraphChannels"),
        problems=(*_RUN, "bad_cursor"),
    ),
    ("POST", f"{_ONE}/commands"): _of(
        "A command of the Agent Streaming Protocol",
        answer(200, "What it did, or why not", "LangGraphCommandResult"),
        body=body("LangGraphCommand"),
        problems=(*START, *_RUN),
    ),
    **_starts(f"{_BASE}/runs"),
    **_starts(f"{_ONE}/runs"),
    ("GET", f"{_ONE}/runs"): _of(
        "The runs of a thread",
        _list("LangGraphRun"),
        params=(
            query("limit", "1 to 1,000.", **_NUMBER, minimum=1, maximum=1000),
            query("offset", "So many are left out.", **_NUMBER, minimum=0, maximum=10_000),
        ),
        problems=_RUN,
    ),
    ("GET", _OF_RUN): _of("A run", _RUN_OBJECT, problems=_RUN),
    ("DELETE", _OF_RUN): _of("Erase a run", answer(204, "Erased"), problems=(*_RUN, "conflict")),
    ("GET", f"{_OF_RUN}/join"): _of("Wait for a run", _VALUES, problems=_RUN),
    ("POST", f"{_OF_RUN}/cancel"): _of(
        "Cancel a run",
        answer(202, "It is cancelled", {"type": "object"}),
        answer(204, "It has ended"),
        params=(query("wait", "Until it has ended.", enum=["0", "1"]),),
        body=body({"type": "object"}, required=False),
        problems=(*_RUN, "conflict"),
    ),
}
