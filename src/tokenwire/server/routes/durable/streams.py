"""Durable Streams of one's own under ``/ds/v1/stream``: create, append, read, fork, delete.

Always true: a stream belongs to the principal that made it, and others hear what they would hear
of one that is not there; no name reaches a header, a file or a log other than encoded.
"""

from __future__ import annotations

import re
import time
from datetime import datetime
from urllib.parse import quote, unquote

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from tokenwire.durable.rules import Answer, Append, Create, Refusal
from tokenwire.durable.service import DurableStreams
from tokenwire.durable.sources import StreamSource
from tokenwire.durable.store import owner_of
from tokenwire.durable.subscriptions.signer import load_key_file
from tokenwire.durable.usage import Quota
from tokenwire.errors import InputError
from tokenwire.relay.webhooks.post import Targets
from tokenwire.server.edge.guard import RequestInfo
from tokenwire.server.edge.problems import json_response, native_form
from tokenwire.server.routes.durable import subscriptions as routes_subscriptions
from tokenwire.server.routes.durable.read import head, read_counted
from tokenwire.server.routes.support import route
from tokenwire.server.state import State
from tokenwire.wire.durable import position_of, whole_number

__all__ = ["ROOT", "answer_options", "cors_headers", "routes"]

ROOT = "/ds/v1/stream"
_METHODS = ("GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS")
#: The most bytes of one append.
_MOST_BODY = 16 << 20
#: Characters of a stream's path.
_MOST_PATH = 1024
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
#: Paths that are not for streams: runs are read there, and the protocol keeps one for itself.
_RESERVED = ("runs", "__ds")
_HEADERS = (
    "Stream-Next-Offset, Stream-Cursor, Stream-Up-To-Date, Stream-Closed, Stream-TTL, "
    "Stream-Expires-At, Producer-Epoch, Producer-Seq, Producer-Expected-Seq, "
    "Producer-Received-Seq, ETag, Stream-SSE-Data-Encoding, Stream-End-Reason"
)
_SENT = (
    "Stream-TTL, Stream-Expires-At, Stream-Closed, Stream-Seq, Stream-Forked-From, "
    "Stream-Fork-Offset, Stream-Fork-Sub-Offset, Producer-Id, Producer-Epoch, Producer-Seq, "
    "If-None-Match"
)


def routes(state: State) -> list[BaseRoute]:
    """Every path under the root that is not a run's."""
    state.raw_bodies[ROOT + "/"] = _MOST_BODY
    targets = Targets(state.settings.durable_streams_webhooks)
    key = load_key_file(state.settings.durable_streams_webhook_key) if targets else None
    quota = Quota(state.settings.durable_streams_count, state.settings.durable_streams_bytes)
    state.durable = DurableStreams(targets, key, quota)
    state.services.append(state.durable)
    return [
        *routes_subscriptions.routes(state, ROOT),
        route(state, ROOT + "/{path:path}", own_stream, *_METHODS),
    ]


def cors_headers(state: State) -> None:
    """Let pages of allowed origins send and read the protocol's headers."""
    state.cors_exposed += ", " + _HEADERS
    state.cors_headers += ", " + _SENT


def answer_options(methods: str) -> Response:
    """``OPTIONS``: what a path takes."""
    headers = {
        "allow": methods,
        "access-control-allow-methods": methods,
        "access-control-allow-headers": f"Content-Type, Authorization, {_SENT}",
        "access-control-expose-headers": _HEADERS,
    }
    return Response(status_code=204, headers=headers)


async def own_stream(state: State, request: Request, info: RequestInfo) -> Response:
    """A read-write stream."""
    if request.method == "OPTIONS":
        return answer_options("GET, HEAD, PUT, POST, DELETE, OPTIONS")
    try:
        return await _own_stream(state, request, info)
    except Refusal as refusal:
        body = native_form(refusal.code, refusal.message, refusal.http_status, info.id, {})
        return json_response(body, refusal.http_status, refusal.headers)


async def _own_stream(state: State, request: Request, info: RequestInfo) -> Response:
    streams, owner, now = state.durable.streams, owner_of(info.principal), time.time()
    path = _checked(request.path_params["path"])
    if request.method == "PUT":
        answer = await streams.create(owner, path, _create(request, info), now)
        return _created(request, answer)
    if request.method == "POST":
        answer = await streams.append(owner, path, _append(request, info), now)
        return Response(status_code=answer.status, headers=answer.headers)
    if request.method == "DELETE":
        await streams.delete(owner, path, now)
        return Response(status_code=204)
    stream = await streams.find(owner, path, now)
    source = StreamSource(streams, stream)
    if request.method == "HEAD":
        extra: dict[str, str] = {}
        if stream.entry.ttl is not None:
            extra["stream-ttl"] = str(stream.entry.ttl)
        if stream.entry.expires_text is not None:
            extra["stream-expires-at"] = stream.entry.expires_text
        return await head(source, extra)
    await streams.touch(owner, stream, now)
    return await read_counted(state, request, source, stream.entry.log, info.principal)


def _checked(path: str) -> str:
    if not path or path.partition("/")[0] in _RESERVED:
        raise Refusal(404, "no such stream")
    if len(path) > _MOST_PATH or _CONTROL.search(path):
        raise InputError(
            f"a stream's path has at most {_MOST_PATH} characters, none of them a control "
            "character",
            field="path",
        )
    return path


def _created(request: Request, answer: Answer) -> Response:
    host = request.headers.get("host", "")
    scheme = "https" if request.scope["tokenwire"].secure else "http"
    # As it was sent, and so encoded: the decoded path may hold anything.
    path = request.scope["raw_path"].partition(b"?")[0].decode("ascii", "replace")
    headers = {**answer.headers, "location": f"{scheme}://{host}{path}"}
    return Response(status_code=answer.status, headers=headers)


def _create(request: Request, info: RequestInfo) -> Create:
    headers = request.headers
    ttl, expires = headers.get("stream-ttl"), headers.get("stream-expires-at")
    if ttl is not None and expires is not None:
        raise InputError("give 'Stream-TTL' or 'Stream-Expires-At', not both")
    source, sub = headers.get("stream-forked-from"), headers.get("stream-fork-sub-offset")
    at = headers.get("stream-fork-offset")
    if source is None and (sub is not None or at is not None):
        raise InputError("'Stream-Forked-From' is needed to fork")
    creation = Create(
        content_type=_content_type(headers.get("content-type")),
        body=info.body,
        ttl=whole_number(ttl, "Stream-TTL") if ttl is not None else None,
        expires_at=_moment(expires) if expires is not None else None,
        expires_text=expires,
        closed=_is_true(headers.get("stream-closed")),
    )
    if source is not None:
        creation.source = _path_of(source, info.mount)
        creation.fork_at = position_of(at) if at is not None and at != "-1" else None
        if at == "-1":
            creation.fork_at = 0
        creation.fork_sub = whole_number(sub, "Stream-Fork-Sub-Offset") if sub is not None else 0
    return creation


def _append(request: Request, info: RequestInfo) -> Append:
    headers = request.headers
    values = [headers.get(f"producer-{name}") for name in ("id", "epoch", "seq")]
    producer: tuple[str, int, int] | None = None
    if any(value is not None for value in values):
        name, epoch, seq = values
        if not name or epoch is None or seq is None:
            raise InputError("Producer-Id, Producer-Epoch and Producer-Seq go together")
        producer = (name, whole_number(epoch, "Producer-Epoch"), whole_number(seq, "Producer-Seq"))
    return Append(
        content_type=_content_type(headers.get("content-type")),
        body=info.body,
        close=_is_true(headers.get("stream-closed")),
        seq=headers.get("stream-seq"),
        producer=producer,
    )


def _content_type(value: str | None) -> str | None:
    return value.strip() or None if value is not None else None


def _is_true(value: str | None) -> bool:
    return value is not None and value.lower() == "true"


def _path_of(source: str, mount: str) -> str:
    """The stream that a fork names: a path under our root, with or without the ``/ds`` before, and
    with what is before that in the application."""
    short = ROOT.removeprefix("/ds")
    for prefix in (f"{quote(mount)}{ROOT}/", f"{ROOT}/", f"{short}/"):
        if source.startswith(prefix):
            return unquote(source.removeprefix(prefix))
    raise Refusal(404, "the stream to fork does not exist")


def _moment(text: str) -> float:
    if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", text):
        raise InputError("'Stream-Expires-At' must be an RFC 3339 time", field="Stream-Expires-At")
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise InputError(
            "'Stream-Expires-At' must be an RFC 3339 time", field="Stream-Expires-At"
        ) from None
