"""What the routes of the other wires share: resume inside a run, wait for its end, find where it
waits.

Always true: nothing here starts a run; every access to a run is checked against its principal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tokenwire.errors import BusyError, CursorError, ProviderError, UnknownModelError
from tokenwire.events.codec import AnyEvent
from tokenwire.events.fold import Fold
from tokenwire.events.request import PassedFields
from tokenwire.providers.routing.passing import dropped_fields
from tokenwire.relay.replay import Wait
from tokenwire.server.edge.disconnect import watch_disconnect
from tokenwire.server.edge.guard import RequestInfo
from tokenwire.server.edge.problems import HTTPProblem
from tokenwire.server.edge.request_info import identity_of
from tokenwire.server.edge.respond import Head, RunResponse, run_response
from tokenwire.server.state import State
from tokenwire.wire.chunk_encoder import ChunkEncoder
from tokenwire.wire.failure import Failure, fold_failure
from tokenwire.wire.place import Place, split_cursor

__all__ = [
    "OPENAI_PREAMBLE",
    "dropped_header",
    "finished",
    "folded",
    "place_of",
    "raise_failure",
    "resolved_ids",
    "route",
    "run_failure",
    "unknown_model_is_404",
    "wire_response",
]

#: Records of a batch after which the loop is left to others.
_MANY = 64

#: OpenAI's and Anthropic's readers take a blank line after `retry` for an event.
OPENAI_PREAMBLE = b": ok\n"

Handler = Callable[[State, Request, RequestInfo], Awaitable[Response]]


def route(state: State, path: str, handler: Handler, *methods: str) -> Route:
    """A route whose handler gets the server's state and the guard's findings."""

    async def endpoint(request: Request) -> Response:
        return await handler(state, request, request.scope["tokenwire"])

    endpoint.__doc__ = handler.__doc__

    return Route(path, endpoint, methods=list(methods), name=handler.__name__)


@contextmanager
def unknown_model_is_404() -> Iterator[None]:
    """For wires whose clients expect 404 for an unknown model."""
    try:
        yield
    except UnknownModelError as error:
        raise HTTPProblem(404, error.code, error.message, **error.details) from None


def place_of(text: str | None) -> Place | None:
    """The place that a frame's id names, as a client sent it back. Raises `CursorError`."""
    if not text:
        return None
    place = split_cursor(text)
    if place is None or (place.frames is not None and place.offset == 0):
        raise CursorError("invalid cursor; send the id of the last event received, or omit it")
    return place


async def wire_response(
    state: State,
    run: str,
    encoder: ChunkEncoder,
    *,
    principal: str,
    place: Place | None = None,
    headers: Mapping[str, str] | None = None,
    preamble: bytes | None = None,
    when_ended: Callable[[], bytes] | None = None,
    head: Head | None = None,
) -> RunResponse:
    """The run in ``encoder``'s wire, from ``place`` on; the rest as in `run_response`."""
    after = place.after if place is not None else None
    if place is not None and place.frames is not None:
        # The log is followed from before the event, so the event's own check is verified here.
        await state.runs.check_cursor(run, place.cursor, principal=principal)
    return await run_response(
        state,
        run,
        encoder=encoder,
        after=after if after != "0" else None,
        principal=principal,
        headers={"tokenwire-run": run, **(headers or {})},
        preamble=preamble,
        when_ended=when_ended,
        head=head,
    )


async def finished(
    state: State,
    request: Request,
    run: str,
    principal: str,
    *,
    take: Callable[[str, AnyEvent], None] | None = None,
    is_enough: Callable[[Fold], bool] | None = None,
) -> Fold:
    """The run's fold once it has ended, or, where all there is was read, ``is_enough`` says so;
    ``take`` gets each event with its cursor. A client that leaves meanwhile is a reader that
    leaves: the run's ``on_disconnect`` decides what follows. Raises `BusyError` when the server
    stops before, and `NotAuthenticatedError` when the key of the request counts no more."""
    fold = Fold()
    follower = await state.runs.follow(run, principal=principal)
    is_gone = is_late = False

    def leave() -> None:
        nonlocal is_gone
        is_gone = True
        follower.poke()

    def give_up() -> None:
        nonlocal is_late
        is_late = True
        follower.poke()

    def drain() -> None:
        asyncio.get_running_loop().call_later(state.settings.drain_seconds - 0.5, give_up)

    watch = watch_disconnect(request.receive, leave)
    state.on_drain.append(drain)
    try:
        with state.connections.waiting(follower, identity_of(request.scope)) as connection:
            while (batch := await follower.next()) is not None:
                if is_gone:
                    raise HTTPProblem(499, "client_gone", "the client closed its connection")
                connection.check()
                for cursor, event in batch.events():
                    fold.apply(event)
                    if take is not None:
                        take(cursor, event)
                is_near = is_enough is not None and bool(batch.records) and is_enough(fold)
                if is_near and follower.after >= (await state.store.describe(run)).tail:
                    break
                if is_late and not batch.records:
                    raise BusyError("the server is stopping; retry", retry_after=1)
                if len(batch.records) >= _MANY:  # the store may not have made it wait
                    await asyncio.sleep(0)
    finally:
        state.on_drain.remove(drain)
        watch.cancel()
        follower.close(returning=not is_gone)
    return fold


def run_failure(failure: Failure) -> ProviderError:
    """``failure`` as an error to answer with, where nothing has been sent yet."""
    error = ProviderError(
        failure.message, retry_after=failure.retry_after, should_retry=failure.retryable
    )
    error.code = failure.code  # type: ignore[misc]
    error.http_status = failure.http_status  # type: ignore[misc]
    return error


def dropped_header(state: State, passed: PassedFields | None, model: str) -> dict[str, str]:
    """The header that names the fields of a request that went nowhere."""
    if passed is None:
        return {}
    dialect = None if model in state.agents else state.registry.resolve(model)[0].name
    names = dropped_fields(dialect, passed)
    return {"tokenwire-dropped-fields": ", ".join(names)[:1000]} if names else {}


def raise_failure(fold: Fold) -> None:
    """Raise the error of a run that has no answer to show."""
    failure = fold_failure(fold)
    if failure is not None:
        raise run_failure(failure)


async def folded(state: State, run: str, principal: str) -> tuple[Fold, list[Wait]]:
    """The run so far, and every place where it waited. Raises `NotFoundError`."""
    replay = await state.runs.replay(run, principal=principal)
    return replay.fold, replay.waits()


def resolved_ids(fold: Fold) -> set[str]:
    """Approvals and calls that have their answer."""
    names = {call_id for call_id, tool in fold.tools.items() if tool.done}
    names |= {
        tool.approval_id
        for tool in fold.tools.values()
        if tool.approval_id and tool.approved is not None
    }
    if fold.outcome is not None:  # a run that ended waits for nobody
        names |= {tool.approval_id for tool in fold.tools.values() if tool.approval_id}
        names |= set(fold.tools)
        names |= {p.attrs.get("call_id", "") for p in fold.parts.values() if p.kind == "tool-call"}
    return names
