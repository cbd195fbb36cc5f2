"""Durable Streams, described: runs as streams, streams of one's own, and subscriptions.

Always true: what a path answers with 405 for every caller is in `REFUSED`, and has no description.
"""

from __future__ import annotations

from typing import Any

from tokenwire.server.openapi import shapes
from tokenwire.server.openapi.conversation import THREAD_PARAMS
from tokenwire.server.openapi.native import KEY, LAST_EVENT_ID
from tokenwire.server.openapi.operation import (
    Answer,
    Body,
    Operation,
    answer,
    body,
    header,
    query,
)
from tokenwire.server.openapi.problems import START

__all__ = ["OPERATIONS", "REFUSED"]

_RUN = ("unknown_run", "gone")
_BYTES: dict[str, Any] = {}
_OFFSET = query(
    "offset",
    "Read after this offset; `-1`: from the start; `now`: what comes.",
    type="string",
    pattern=r"\A(-1|now|[0-9]{16}_[0-9]{16})\Z",
)
_READ = (
    _OFFSET,
    query("live", "Wait for more.", enum=["sse", "long-poll"]),
    query("cursor", "The `Stream-Cursor` of the last answer."),
    header("If-None-Match", "The `ETag` of an earlier answer."),
    LAST_EVENT_ID,
)
_PLACE = {"Stream-Next-Offset": "the offset to go on from"}


def _bytes(status: int, text: str) -> Answer:
    """The bytes of a stream, of whatever type it is."""
    return Answer(status=status, text=text, type=_BYTES, content="*/*", headers=_PLACE)


_READS = (
    _bytes(200, "What is there"),
    Answer(
        status=200,
        text="Data and control events, as they come",
        items="DurableEvent",
        content="text/event-stream",
    ),
    Answer(status=204, text="Nothing came in time", headers=_PLACE),
    Answer(status=304, text="Nothing changed", headers=_PLACE),
)
_HEADS = (Answer(status=200, text="What it is, and where it ends", headers=_PLACE),)
_OPTIONS = Operation(
    summary="What the path takes",
    tag="Durable Streams",
    answers=(answer(204, "The methods", Allow="the methods"),),
    problems=("forbidden",),
)
_RUN_STREAM = "/ds/v1/stream/runs/{run}"
_OWN = "/ds/v1/stream/{path}"
_STREAM = ("bad_request", "not_found", "unknown_run", "gone")
_WRITE = (*_STREAM, "conflict", "fenced", "busy")
_LIFETIME = (
    header("Stream-TTL", "Seconds to keep it after its last use.", type="string"),
    header("Stream-Expires-At", "When it ends, in RFC 3339."),
    header("Stream-Closed", "Nothing more will be appended.", enum=["true"]),
)
_ANY_BODY = Body(type=_BYTES, content="*/*", required=False)

_STREAMS: dict[tuple[str, str], Operation] = {
    ("GET", _RUN_STREAM): Operation(
        summary="A run as a stream",
        tag="Durable Streams",
        text="Its events; of `{run}.ui` UI message chunks, of `{run}.agui` AG-UI events.",
        params=_READ,
        answers=_READS,
        problems=(*_STREAM, "bad_cursor"),
    ),
    ("HEAD", _RUN_STREAM): Operation(
        summary="Where a run's stream ends",
        tag="Durable Streams",
        answers=_HEADS,
        problems=_STREAM,
    ),
    ("OPTIONS", _RUN_STREAM): _OPTIONS,
    ("POST", "/ds/chat"): Operation(
        summary="Ask; the answer says where its stream is",
        tag="Durable Streams",
        params=(KEY, LAST_EVENT_ID, *THREAD_PARAMS),
        body=body("UIChatRequest"),
        answers=(
            answer(201, "A new run", shapes.StreamPointer, Location="its stream"),
            answer(200, "The run that was there", shapes.StreamPointer, Location="its stream"),
        ),
        problems=(*START, *_RUN),
    ),
    ("GET", "/ds/chat/{chat}/stream"): Operation(
        summary="Where the answer under way is",
        tag="Durable Streams",
        answers=(
            answer(200, "Its stream", shapes.StreamPointer, Location="its stream"),
            answer(204, "No run is active"),
        ),
        problems=_RUN,
    ),
    ("GET", _OWN): Operation(
        summary="Read a stream",
        tag="Durable Streams",
        params=_READ,
        answers=_READS,
        problems=_STREAM,
    ),
    ("HEAD", _OWN): Operation(
        summary="Where a stream ends", tag="Durable Streams", answers=_HEADS, problems=_STREAM
    ),
    ("PUT", _OWN): Operation(
        summary="Create a stream, or fork one",
        tag="Durable Streams",
        params=(
            *_LIFETIME,
            header("Stream-Forked-From", "The path of the stream to fork."),
            header("Stream-Fork-Offset", "Up to this offset."),
        ),
        body=_ANY_BODY,
        answers=(
            Answer(status=201, text="Created", headers=_PLACE),
            Answer(status=200, text="It was there with the same configuration", headers=_PLACE),
        ),
        problems=_WRITE,
        raw=True,
    ),
    ("POST", _OWN): Operation(
        summary="Append to a stream, or close it",
        tag="Durable Streams",
        params=(
            header("Stream-Closed", "Nothing more will be appended.", enum=["true"]),
            header("Stream-Seq", "Grows from append to append."),
            header("Producer-Id", "Who appends; its requests count once."),
            header("Producer-Epoch", "Its epoch.", type="string", pattern=r"\A[0-9]{1,15}\Z"),
            header(
                "Producer-Seq", "Its request's number.", type="string", pattern=r"\A[0-9]{1,15}\Z"
            ),
        ),
        body=_ANY_BODY,
        answers=(
            Answer(status=204, text="Appended", headers=_PLACE),
            Answer(status=200, text="Appended", headers=_PLACE),
        ),
        problems=_WRITE,
        raw=True,
    ),
    ("DELETE", _OWN): Operation(
        summary="Delete a stream",
        tag="Durable Streams",
        answers=(answer(204, "Deleted"),),
        problems=_WRITE,
        raw=True,
    ),
    ("OPTIONS", _OWN): _OPTIONS,
}

_CONTROL = "/ds/v1/stream/__ds"
_ONE = _CONTROL + "/subscriptions/{name}"
_MISSING = ("INVALID_REQUEST", "SUBSCRIPTION_NOT_FOUND")
_WAKE = (*_MISSING, "TOKEN_INVALID", "TOKEN_EXPIRED", "FENCED", "INVALID_OFFSET")
_TEXT: dict[str, Any] = {"type": "string"}
_PATHS: dict[str, Any] = {"type": "array", "items": _TEXT}
_CONFIG: dict[str, Any] = {
    "type": "object",
    "required": ["type"],
    "properties": {
        "type": {"enum": ["pull-wake", "webhook"]},
        "pattern": {"type": ["string", "null"]},
        "streams": _PATHS,
        "wake_stream": _TEXT,
        "webhook": {"type": "object", "required": ["url"], "properties": {"url": _TEXT}},
        "lease_ttl_ms": {"type": "integer", "minimum": 1000, "maximum": 600_000},
        "description": {"type": ["string", "null"], "maxLength": 1024},
    },
}
_SHOWN: dict[str, Any] = {
    "type": "object",
    "required": ["id", "type", "streams", "lease_ttl_ms", "created_at", "status"],
    "properties": {
        "id": _TEXT,
        "type": {"enum": ["pull-wake", "webhook"]},
        "pattern": {"type": ["string", "null"]},
        "streams": {"type": "array", "items": {"type": "object"}},
        "wake_stream": {"type": ["string", "null"]},
        "lease_ttl_ms": {"type": "integer"},
        "created_at": _TEXT,
        "status": {"enum": ["active", "failed"]},
        "description": {"type": ["string", "null"]},
    },
}
_GENERATION: dict[str, Any] = {"wake_id": _TEXT, "generation": {"type": "integer"}}
_ACK: dict[str, Any] = {
    "type": "object",
    "properties": {
        **_GENERATION,
        "acks": {"type": "array", "items": {"type": "object"}},
        "done": {"type": "boolean"},
    },
}
_CLAIMED: dict[str, Any] = {
    "type": "object",
    "required": ["wake_id", "generation", "token", "streams", "lease_ttl_ms"],
    "properties": {
        **_GENERATION,
        "token": _TEXT,
        "streams": {"type": "array", "items": {"type": "object"}},
        "lease_ttl_ms": {"type": "integer"},
    },
}
_ACKED: dict[str, Any] = {
    "type": "object",
    "required": ["ok", "next_wake"],
    "properties": {"ok": {"type": "boolean"}, "next_wake": {"type": "boolean"}},
}


def _ack(summary: str) -> Operation:
    return Operation(
        summary=summary,
        tag="Subscriptions",
        text="`Authorization` has the token of the wake.",
        body=body(_ACK),
        answers=(answer(200, "Acknowledged", _ACKED),),
        problems=_WAKE,
        access="token",
        raw=True,
    )


_SUBSCRIPTIONS: dict[tuple[str, str], Operation] = {
    ("GET", _CONTROL + "/jwks.json"): Operation(
        summary="The keys that sign webhooks",
        tag="Subscriptions",
        answers=(
            Answer(
                status=200,
                text="A JWK set",
                type={"type": "object", "required": ["keys"]},
                content="application/jwk-set+json",
            ),
        ),
        problems=("NOT_FOUND",),
        access="none",
    ),
    ("PUT", _ONE): Operation(
        summary="Create a subscription",
        tag="Subscriptions",
        body=body(_CONFIG),
        answers=(answer(201, "Created", _SHOWN), answer(200, "It was there", _SHOWN)),
        problems=(
            "INVALID_REQUEST",
            "WEBHOOK_URL_REJECTED",
            "SUBSCRIPTION_ALREADY_EXISTS",
            "LIMIT_EXCEEDED",
        ),
        raw=True,
    ),
    ("GET", _ONE): Operation(
        summary="A subscription",
        tag="Subscriptions",
        answers=(answer(200, "The subscription", _SHOWN),),
        problems=_MISSING,
    ),
    ("DELETE", _ONE): Operation(
        summary="Delete a subscription",
        tag="Subscriptions",
        answers=(answer(204, "Deleted"),),
        problems=_MISSING,
        raw=True,
    ),
    ("POST", _ONE + "/streams"): Operation(
        summary="Follow more streams",
        tag="Subscriptions",
        body=body({"type": "object", "required": ["streams"], "properties": {"streams": _PATHS}}),
        answers=(answer(204, "Added"),),
        problems=_MISSING,
        raw=True,
    ),
    ("DELETE", _ONE + "/streams/{path}"): Operation(
        summary="Follow a stream no more",
        tag="Subscriptions",
        answers=(answer(204, "Removed"),),
        problems=_MISSING,
        raw=True,
    ),
    ("POST", _ONE + "/claim"): Operation(
        summary="Take the work of a wake",
        tag="Subscriptions",
        body=body(
            {
                "type": "object",
                "required": ["worker"],
                "properties": {"worker": {"type": "string", "minLength": 1, "maxLength": 256}},
            }
        ),
        answers=(answer(200, "The lease and its token", _CLAIMED),),
        problems=(*_MISSING, "NO_PENDING_WORK", "ALREADY_CLAIMED"),
        raw=True,
    ),
    ("POST", _ONE + "/ack"): _ack("Acknowledge as a worker"),
    ("POST", _ONE + "/callback"): _ack("Acknowledge as a webhook"),
    ("POST", _ONE + "/release"): Operation(
        summary="Return the work of a wake",
        tag="Subscriptions",
        text="`Authorization` has the token of the wake.",
        body=body({"type": "object", "properties": _GENERATION}),
        answers=(answer(204, "Returned"),),
        problems=_WAKE,
        access="token",
        raw=True,
    ),
}

OPERATIONS = {**_STREAMS, **_SUBSCRIPTIONS}

_CONTROLLED = {path for _, path in _SUBSCRIPTIONS}
_METHODS = ("GET", "HEAD", "PUT", "POST", "PATCH", "DELETE")
#: ``(method, path)`` that are answered with 405, or as another one is.
REFUSED: frozenset[tuple[str, str]] = frozenset(
    {(method, _RUN_STREAM) for method in ("PUT", "POST", "DELETE")}
    | {
        (method, path)
        for path in _CONTROLLED
        for method in (*_METHODS, "OPTIONS")
        if (method, path) not in _SUBSCRIPTIONS
    }
)
