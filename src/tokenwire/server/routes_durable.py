"""Durable Streams under ``/ds``: runs as read-only streams, streams of one's own, and the pointers
that the AI SDK transport asks for.

``/ds/v1/stream/runs/{id}`` has a run's events, ``{id}.ui`` and ``{id}.agui`` its chunks for those
clients. With ``--durable-streams readwrite`` every other path under ``/ds/v1/stream`` can be
created, appended to, read, forked and deleted.

Always true: a run's stream cannot be written to here; streams belong to the principal that made
them.
"""

from __future__ import annotations

import re
import time
from datetime import datetime

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from tokenwire.errors import ConfigError, InputError
from tokenwire.server.bodies import check_request
from tokenwire.server.ds_read import SSEResponse, head, read
from tokenwire.server.ds_sources import RunSource, StreamSource
from tokenwire.server.ds_store import KeptStreams
from tokenwire.server.ds_streams import Answer, Append, Create, Refusal
from tokenwire.server.guard import RequestInfo
from tokenwire.server.problems import HTTPProblem, json_response, native_form
from tokenwire.server.routes_runs import count_misses, start_run
from tokenwire.server.routes_ui import find_active
from tokenwire.server.state import State
from tokenwire.server.wire_support import route
from tokenwire.wire.durable import position_of, whole_number
from tokenwire.wire.ui_request import parse_ui_request

__all__ = ["routes"]

ROOT = "/ds/v1/stream"
_METHODS = ("GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS")
_VIEW = re.compile(r"(.+)\.(ui|agui)")
#: The most bytes of one append.
_MOST_BODY = 16 << 20
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
    """``/ds``, as far as the settings open it."""
    if state.settings.durable_streams == "off":
        return []
    state.cors_exposed += ", " + _HEADERS
    state.cors_headers += ", " + _SENT
    found: list[BaseRoute] = [
        route(state, ROOT + "/runs/{run}", run_stream, *_METHODS),
        route(state, "/ds/chat", chat, "POST"),
        route(state, "/ds/chat/{chat}/stream", reconnect, "GET"),
    ]
    if state.settings.durable_streams == "readwrite":
        state.raw_bodies[ROOT + "/"] = _MOST_BODY
        if state.settings.workers > 1:
            raise ConfigError("--durable-streams readwrite needs --workers 1")
        found.append(route(state, ROOT + "/{path:path}", own_stream, *_METHODS))
    return found


# --- runs --------------------------------------------------------------------------------------


async def run_stream(state: State, request: Request, info: RequestInfo) -> Response:
    """A run as a stream: read only."""
    if request.method == "OPTIONS":
        return _options("GET, HEAD, OPTIONS")
    if request.method not in ("GET", "HEAD"):
        raise HTTPProblem(405, "method_not_allowed", "a run's stream is written by the run alone")
    name = request.path_params["run"]
    match = _VIEW.fullmatch(name)
    run, view = (match[1], match[2]) if match is not None else (name, "")
    async with count_misses(state, info):
        await state.runs.info(run, principal=info.principal)
        source = RunSource(state, run, view)
        if request.method == "HEAD":
            return await head(source, {})
        release = state.limits.attach(run, info.principal)
        try:
            response = await read(state, request, source)
        except BaseException:
            release()
            raise
        if isinstance(response, SSEResponse):
            response.release = release
        else:
            release()
        return response  # type: ignore[return-value]


def _options(methods: str) -> Response:
    headers = {
        "allow": methods,
        "access-control-allow-methods": methods,
        "access-control-allow-headers": f"Content-Type, Authorization, {_SENT}",
        "access-control-expose-headers": _HEADERS,
    }
    return Response(status_code=204, headers=headers)


# --- pointers ----------------------------------------------------------------------------------


async def chat(state: State, request: Request, info: RequestInfo) -> Response:
    """``POST /ds/chat``: start the answer and say where its stream is."""
    asked = parse_ui_request(info.json)
    run = await start_run(
        state,
        check_request(asked.request, state.settings),
        model=asked.model,
        principal=info.principal,
        key=request.headers.get("idempotency-key"),
        thread=asked.chat,
    )
    return _pointer(request, run.id, 201)


async def reconnect(state: State, request: Request, info: RequestInfo) -> Response:
    """``GET /ds/chat/{id}/stream``: where the answer under way is; 204 when there is none."""
    async with count_misses(state, info):
        run = await find_active(state, request.path_params["chat"], info.principal)
    return _pointer(request, run, 200) if run is not None else Response(status_code=204)


def _pointer(request: Request, run: str, status: int) -> Response:
    # The guard has checked the host; the transport wants an absolute address.
    host = request.headers.get("host", "")
    secure = request.scope["tokenwire"].secure
    url = f"{'https' if secure else 'http'}://{host}{ROOT}/runs/{run}.ui"
    return json_response({"streamUrl": url}, status, {"location": url, "tokenwire-run": run})


# --- streams of one's own ----------------------------------------------------------------------


async def own_stream(state: State, request: Request, info: RequestInfo) -> Response:
    """A read-write stream."""
    kept: KeptStreams | None = state.extras.get("durable_streams")
    if kept is None:
        kept = state.extras["durable_streams"] = KeptStreams(state.log)
    path = request.path_params["path"]
    if not path or path.startswith(("runs/", "__ds/")):
        raise Refusal(404, "there is no such stream")
    key = f"{info.principal}\0{path}"
    now = time.time()
    try:
        if request.method == "OPTIONS":
            return _options("GET, HEAD, PUT, POST, DELETE, OPTIONS")
        if request.method == "PUT":
            return _created(request, await kept.create(key, _create(request, info), now))
        if request.method == "POST":
            return _answered(await kept.append(key, _append(request, info), now))
        if request.method == "DELETE":
            await kept.delete(key, now)
            return Response(status_code=204)
        stream = await kept.find(key, now)
        if request.method == "HEAD":
            extra: dict[str, str] = {}
            if stream.ttl is not None:
                extra["stream-ttl"] = str(stream.ttl)
            if stream.expires_text is not None:
                extra["stream-expires-at"] = stream.expires_text
            return await head(StreamSource(kept.streams, stream), extra)
        stream.touch(now)
        return await read(state, request, StreamSource(kept.streams, stream))  # type: ignore[return-value]
    except Refusal as refusal:
        body = native_form(refusal.code, refusal.message, refusal.http_status, info.id, {})
        return json_response(body, refusal.http_status, refusal.headers)


def _created(request: Request, answer: Answer) -> Response:
    host = request.headers.get("host", "")
    scheme = "https" if request.scope["tokenwire"].secure else "http"
    location = f"{scheme}://{host}{request.scope['path']}"
    headers = {**answer.headers, "location": location}
    return Response(status_code=answer.status, headers=headers)


def _answered(answer: Answer) -> Response:
    return Response(status_code=answer.status, headers=answer.headers)


def _create(request: Request, info: RequestInfo) -> Create:
    headers = request.headers
    ttl, expires = headers.get("stream-ttl"), headers.get("stream-expires-at")
    if ttl is not None and expires is not None:
        raise InputError("give 'Stream-TTL' or 'Stream-Expires-At', not both")
    source, sub = headers.get("stream-forked-from"), headers.get("stream-fork-sub-offset")
    at = headers.get("stream-fork-offset")
    if source is None and (sub is not None or at is not None):
        raise InputError("'Stream-Forked-From' is needed to fork")
    wanted = Create(
        content_type=_content_type(headers.get("content-type")),
        body=info.body,
        ttl=whole_number(ttl, "Stream-TTL") if ttl is not None else None,
        expires_at=_moment(expires) if expires is not None else None,
        expires_text=expires,
        closed=_is_true(headers.get("stream-closed")),
    )
    if source is not None:
        wanted.source = f"{info.principal}\0{_path_of(source)}"
        wanted.fork_at = position_of(at) if at is not None and at != "-1" else None
        if at == "-1":
            wanted.fork_at = 0
        wanted.fork_sub = whole_number(sub, "Stream-Fork-Sub-Offset") if sub is not None else 0
    return wanted


def _append(request: Request, info: RequestInfo) -> Append:
    headers = request.headers
    given = [headers.get(f"producer-{name}") for name in ("id", "epoch", "seq")]
    producer: tuple[str, int, int] | None = None
    if any(value is not None for value in given):
        name, epoch, seq = given
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


def _path_of(source: str) -> str:
    """The stream that a fork names: a path under our root, with or without the ``/ds`` before."""
    for prefix in (ROOT + "/", ROOT.removeprefix("/ds") + "/"):
        if source.startswith(prefix):
            return source.removeprefix(prefix)
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
