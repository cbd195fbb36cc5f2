"""``/v1/producers``: a worker outside of the server writes a run over HTTP.

Always true: a request whose body is not whole, or is refused, has written nothing; a run that
another principal started, or that a token is not for, looks as if it did not exist.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from tokenwire.errors import InputError, LimitError
from tokenwire.events.message import Message, user
from tokenwire.events.model import Error
from tokenwire.events.request import Request as ModelRequest
from tokenwire.events.validation import whole_number
from tokenwire.relay import Store
from tokenwire.relay.description import Remote, RunMeta
from tokenwire.relay.produce.contract import ProducerLimits
from tokenwire.relay.remote.state import Finish, RemoteState
from tokenwire.run.stream import new_run_id
from tokenwire.server.access.misses import count_misses, run_id
from tokenwire.server.edge.bodies import Name, check_request, read_body
from tokenwire.server.edge.connections import Waker
from tokenwire.server.edge.disconnect import watch_disconnect
from tokenwire.server.edge.guard import RequestInfo
from tokenwire.server.edge.problems import json_response
from tokenwire.server.routes.support import route
from tokenwire.server.starts.start import admitted
from tokenwire.server.state import State
from tokenwire.server.tokens.grant import current_grant, thread_to_start, within

__all__ = ["AppendBody", "ClaimBody", "CommandPage", "FinishBody", "RenewBody", "StartBody"]
__all__ += ["routes"]

Lease = Annotated[float, Meta(ge=1, le=300)]
Epoch = Annotated[int, Meta(ge=1, le=1 << 53)]
Offset = Annotated[int, Meta(ge=1, le=1 << 53)]
LEASE = 30.0
#: Seconds between two looks at the mailbox, should a wake-up be lost.
_LOOK = 5.0
_MOST_METADATA = 16 << 10


class _Body(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    pass


class StartBody(_Body):
    """``POST /v1/producers``: what the run answers. ``model``: a name for readers; ``lease``:
    seconds; ``takeover``: seconds after its end in which another producer may go on."""

    prompt: str | None = None
    messages: list[Message] | None = None
    model: Annotated[str, Meta(min_length=1, max_length=128)] = "remote"
    thread: Name | None = None
    metadata: dict[str, Any] | None = None
    lease: Lease = LEASE
    takeover: Annotated[float, Meta(ge=0, le=86_400)] = 0.0


class AppendBody(_Body):
    """``POST .../events``: ``events``, of which the first one goes to the offset ``first``."""

    epoch: Epoch
    first: Offset
    events: Annotated[list[dict[str, Any]], Meta(min_length=1, max_length=1000)]


class RenewBody(_Body):
    """``POST .../renew``."""

    epoch: Epoch
    lease: Lease = LEASE


class ClaimBody(_Body):
    """``POST .../claim``. ``epoch``: of the producer in whose place this one comes at once."""

    epoch: Epoch | None = None
    lease: Lease = LEASE


class ErrorBody(_Body):
    """What readers are told of a failure."""

    message: Annotated[str, Meta(min_length=1, max_length=2000)]
    code: Annotated[str, Meta(pattern=r"\A[a-z0-9_]{1,64}\Z")] = "producer_failed"
    retryable: bool = False


class FinishBody(_Body):
    """``POST .../finish``. ``first``: the offset of the first event that this writes."""

    epoch: Epoch
    first: Offset
    outcome: Literal["complete", "incomplete", "cancelled", "error", "interrupted"] = "complete"
    reason: Annotated[str, Meta(max_length=200)] | None = None
    error: ErrorBody | None = None

    def __post_init__(self) -> None:
        if (self.outcome == "error") != (self.error is not None):
            raise InputError("'error' belongs to the outcome 'error'", field="error")


class CommandPage(msgspec.Struct):
    """What was sent to the run after the number that the request named. ``after``: for the next
    request; ``state``: of the run; ``epoch``: of its producer."""

    commands: list[dict[str, Any]]
    after: int
    state: str
    cancelled: bool
    epoch: int


class _Producers:
    """Has `State.producers` from the start of the server on."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def start(self, store: Store) -> None:
        from tokenwire.relay.remote.runs import RemoteRuns

        settings = self._state.settings
        limits = ProducerLimits(records=settings.run_events, bytes=settings.run_bytes)
        self._state.producers = RemoteRuns(self._state.runs, limits)

    async def stop(self) -> None:
        pass


def routes(state: State) -> list[BaseRoute]:
    """``/v1/producers`` and what is under it."""
    every, one = "/v1/producers", "/v1/producers/{run}"
    state.media_paths.add(every)
    state.services.append(_Producers(state))
    state.roles.add("POST", every, "write", "produce")
    for path in ("/events", "/renew", "/claim", "/finish"):
        state.roles.add("POST", one + path, "write", "produce")
    for path in ("", "/commands"):
        state.roles.add("GET", one + path, "write", "produce")
    return [
        route(state, every, start, "POST"),
        route(state, one, describe, "GET"),
        route(state, one + "/events", append, "POST"),
        route(state, one + "/renew", renew, "POST"),
        route(state, one + "/claim", claim, "POST"),
        route(state, one + "/finish", finish, "POST"),
        route(state, one + "/commands", commands, "GET"),
    ]


async def start(state: State, request: Request, info: RequestInfo) -> Response:
    """``POST /v1/producers``: 201 and what its producer must know; 200 for a key that is known."""
    body = read_body(info.json, StartBody)
    if (body.prompt is None) == (body.messages is None):
        raise InputError("give either 'prompt' or 'messages'", field="prompt")
    if body.metadata and len(msgspec.json.encode(body.metadata)) > _MOST_METADATA:
        raise LimitError("'metadata' is too large", limit="metadata", most=_MOST_METADATA)
    thread = thread_to_start(body.thread, "produce")
    messages = [user(body.prompt)] if body.prompt is not None else body.messages or []
    model_request = check_request(ModelRequest(messages=messages), state.settings)
    meta = RunMeta(
        model=body.model,
        request=model_request,
        principal=info.principal,
        thread=thread,
        metadata=body.metadata,
        tools=False,
        remote=Remote(leave_for=body.takeover),
    )
    run, key, grant = new_run_id(), request.headers.get("idempotency-key"), current_grant()
    async with admitted(state, info.identity, key, run, "produce", thread=thread) as count:
        with within(None):
            current, is_new = await state.producers.start(run, meta, lease=body.lease, key=key)
        count.is_started, count.is_repeated = is_new, not is_new
    if grant is not None:
        grant.require_run(current.run, (thread,))
    if is_new and thread:
        await state.threads.touch(info.principal, thread, model_request.messages, current.run)
    headers = {"location": f"{info.mount}/v1/runs/{current.run}", "tokenwire-run": current.run}
    return json_response(current, 201 if is_new else 200, headers)


async def describe(state: State, request: Request, info: RequestInfo) -> Response:
    """``GET .../{run}``: where its next append goes, and whose it is."""
    async with count_misses(state, info):
        return _state(await state.producers.state(run_id(request), principal=info.principal))


async def append(state: State, request: Request, info: RequestInfo) -> Response:
    """``POST .../events``: all of them, or none."""
    body = read_body(info.json, AppendBody)
    async with count_misses(state, info):
        current = await state.producers.append(
            run_id(request),
            epoch=body.epoch,
            first=body.first,
            values=body.events,
            principal=info.principal,
        )
    return _state(current)


async def renew(state: State, request: Request, info: RequestInfo) -> Response:
    """``POST .../renew``: the lease begins again, unless the run is cancelled."""
    body = read_body(info.json, RenewBody)
    async with count_misses(state, info):
        current = await state.producers.renew(
            run_id(request), epoch=body.epoch, lease=body.lease, principal=info.principal
        )
    return _state(current)


async def claim(state: State, request: Request, info: RequestInfo) -> Response:
    """``POST .../claim``: a new epoch, which fences the producer before."""
    body = read_body(info.json, ClaimBody)
    async with count_misses(state, info):
        current = await state.producers.claim(
            run_id(request), epoch=body.epoch, lease=body.lease, principal=info.principal
        )
    return _state(current)


async def finish(state: State, request: Request, info: RequestInfo) -> Response:
    """``POST .../finish``: parts and steps that are open end, and the run."""
    body, error = read_body(info.json, FinishBody), None
    if body.error is not None:
        error = Error(
            scope="internal",
            code=body.error.code,
            message=body.error.message,
            retryable=body.error.retryable,
        )
    async with count_misses(state, info):
        current = await state.producers.finish(
            run_id(request),
            Finish(outcome=body.outcome, reason=body.reason, error=error),
            epoch=body.epoch,
            first=body.first,
            principal=info.principal,
        )
    return _state(current)


async def commands(state: State, request: Request, info: RequestInfo) -> Response:
    """``GET .../commands``: a long poll for what was sent to the run, ``after`` a number; it waits
    at most ``wait`` seconds, and no longer than its producer is the same. With ``epoch`` it is
    refused as fenced where that is another."""
    query = request.query_params
    unknown = set(query) - {"after", "wait", "epoch"}
    if unknown:
        raise InputError(f"unknown parameter '{min(unknown)[:80]}'", field=min(unknown)[:80])
    after, wait = (
        _number(query.get("after", "0"), "after"),
        _number(query.get("wait", "20"), "wait"),
    )
    epoch = _number(query["epoch"], "epoch") if "epoch" in query else None
    run, principal = run_id(request), info.principal
    async with count_misses(state, info):
        current = await state.producers.state(run, principal=principal, epoch=epoch)
    first = current.epoch
    waker, is_leaving = Waker(), False
    woken = waker.event

    def leave() -> None:
        nonlocal is_leaving
        is_leaving = True
        woken.set()

    release = state.limits.attach(run, principal)
    watch = watch_disconnect(request.receive, leave)
    unsubscribe = state.store.subscribe(run, woken.set)
    state.on_drain.append(leave)
    end = asyncio.get_running_loop().time() + min(wait, state.settings.long_poll_timeout)
    try:
        with state.connections.waiting(waker, info.identity) as connection:
            while True:
                woken.clear()
                mailbox = await state.store.commands(run, after=after)
                connection.check()
                remaining = end - asyncio.get_running_loop().time()
                is_over = remaining <= 0 or is_leaving or state.draining
                is_over = is_over or current.state != "running" or current.epoch != first
                if mailbox or is_over:
                    break
                try:
                    await asyncio.wait_for(woken.wait(), min(remaining, _LOOK))
                except TimeoutError:
                    pass
                current = await state.producers.state(run, principal=principal, epoch=epoch)
    finally:
        state.on_drain.remove(leave)
        unsubscribe()
        watch.cancel()
        release()
    items = [{"number": number, **msgspec.json.decode(data)} for number, data in mailbox]
    page = CommandPage(
        items,
        items[-1]["number"] if items else after,
        current.state,
        current.cancelled,
        current.epoch,
    )
    page.cancelled = page.cancelled or any(item.get("command") == "cancel" for item in items)
    return json_response(page)


def _number(text: str, field: str) -> int:
    number = whole_number(text)
    if number is None:
        raise InputError(f"'{field}' must be a whole number", field=field)
    return number


def _state(current: RemoteState) -> Response:
    return json_response(current)
