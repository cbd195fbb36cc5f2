"""Runs of LangGraph's clients: started, resumed after an interrupt, joined, awaited, cancelled.

Always true: an answer to an interrupt goes on with the run that waits for it, under its id; what a
request decides is recorded before its stream begins; a stream is joined at the place that its
reader names, in whichever modes.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import msgspec
from starlette.responses import Response

from tokenwire.errors import ConflictError, InputError
from tokenwire.events.fold import Fold
from tokenwire.events.request import Request as ModelRequest
from tokenwire.relay.commands import not_taken
from tokenwire.relay.conversation.posted import Continuation
from tokenwire.relay.description import RunInfo
from tokenwire.relay.replay import Wait
from tokenwire.server.edge.bodies import check_request
from tokenwire.server.edge.problems import json_response
from tokenwire.server.routes.langgraph.caller import Caller
from tokenwire.server.routes.langgraph.thread_state import messages_before, moment, run_status
from tokenwire.server.routes.runs import delete
from tokenwire.server.routes.support import finished, folded, resolved_ids, wire_response
from tokenwire.server.routes.waiting.record import record_decision, require_roles
from tokenwire.server.starts.start import Start, ThreadQuery, say, start_run, until_started
from tokenwire.wire.chunk_encoder import Chunk
from tokenwire.wire.langgraph.encoder import LangGraphEncoder
from tokenwire.wire.langgraph.messages import answer_messages
from tokenwire.wire.langgraph.request import (
    RunRequest,
    answers_of,
    parse_modes,
    parse_run,
)
from tokenwire.wire.langgraph.state import (
    INPUT,
    ROOT,
    failure_of_fold,
    interrupts_of,
    values_of,
)
from tokenwire.wire.place import Place

__all__ = [
    "begin",
    "begin_and_stream",
    "begin_and_wait",
    "begin_run",
    "cancel_run",
    "delete_run",
    "join",
    "list_runs",
    "resume",
    "show_run",
    "stream",
    "waiting_run",
]

_FLAGS = {"": False, "0": False, "false": False, "1": True, "true": True}
#: Runs of a thread among which the one that waits is looked for.
_MOST_RUNS = 5


# --- starting -------------------------------------------------------------------------------------


async def begin(caller: Caller, body: RunRequest) -> tuple[RunInfo, Place | None]:
    """The run of a request, and, of one that was resumed, the place where it waited."""
    if body.has_command:
        resumed = await resume(caller, body)
        wait = resumed.wait
        return resumed.run, Place(cursor=wait.cursor, offset=wait.offset)
    caller.info.identity.require("write")
    state, thread = caller.state, caller.thread
    if not body.messages and body.checkpoint is None:
        raise InputError(
            "nothing to do; give 'input.messages', 'command.resume' or a 'checkpoint'",
            field="input",
        )
    how = Start(
        model=body.model,
        identity=caller.info.identity,
        thread=thread,
        on_disconnect=body.on_disconnect,
        metadata=body.metadata,
    )
    if how.thread is None:
        if body.checkpoint is not None:
            raise InputError("'checkpoint' needs a thread", field="checkpoint")
        request = check_request(ModelRequest(messages=body.messages), state.settings)
        run = await start_run(
            state,
            request,
            model=how.model,
            identity=how.identity,
            on_disconnect=how.on_disconnect,
            metadata=how.metadata,
        )
        return run, None
    following = await _following(caller, body, how.thread)
    request = check_request(ModelRequest(messages=following.messages), state.settings)
    query = ThreadQuery(history="thread", while_busy=await _while_busy(caller, body, how.thread))
    reply = await say(state, request, how, query, following)
    return await until_started(state, reply, how, caller.request.receive), None


async def _following(caller: Caller, body: RunRequest, thread: str) -> Continuation:
    """How the thread goes on: after its newest turn, or from a checkpoint."""
    conversations, principal = caller.state.conversations, caller.principal
    if body.checkpoint is None:
        return await conversations.after(principal, thread, body.messages)
    run = body.checkpoint.removesuffix(INPUT)
    if body.checkpoint == ROOT:
        return Continuation(messages=_needed(body), parent=None)
    if run == body.checkpoint:
        return await conversations.behind(principal, thread, run, _needed(body))
    regeneration = await conversations.instead(principal, thread, run, None)
    regeneration.messages = [*regeneration.messages, *body.messages]
    return regeneration


def _needed(body: RunRequest) -> list[Any]:
    if not body.messages:
        raise InputError(
            "nothing to answer at this checkpoint; give 'input.messages'", field="input"
        )
    return body.messages


async def _while_busy(caller: Caller, body: RunRequest, thread: str) -> Any:
    """A run that waits for a person is not busy to these clients: what is said goes before it."""
    runs = await caller.state.runs.thread(thread, principal=caller.principal, most=_MOST_RUNS)
    if any(run.state == "waiting" for run in runs):
        return "interrupt"
    return body.while_busy or "queue"


# --- interrupts -----------------------------------------------------------------------------------


class Resumed(msgspec.Struct, frozen=True):
    """A run that has its answers, and where it waited. ``is_taken``: it has taken all of them; its
    process, another one, may be about to."""

    run: RunInfo
    wait: Wait
    is_taken: bool


async def resume(caller: Caller, body: RunRequest, *, all_count: bool = False) -> Resumed:
    """Record the answers of a command in the run of the thread that waits. Raises `RoleError`
    before it records any, and `ConflictError` where the run ended, or went on, without one.
    ``all_count``: also where another answer was first; else that one counts, and is what the run
    then shows."""
    thread, principal = caller.thread, caller.principal
    if thread is None:
        raise InputError("'command' needs a thread", field="command")
    run = await waiting_run(caller, thread)
    if body.checkpoint is not None and body.checkpoint != run.id:
        raise InputError(
            f"an answer goes on from the state that waits, '{run.id}'", field="checkpoint"
        )
    fold, waits = await folded(caller.state, run.id, principal)
    answers = answers_of(body.resume, fold)
    require_roles(caller.info, answers)
    late: list[ConflictError] = []
    is_taken = True
    for answer in answers:
        try:
            is_taken &= await record_decision(caller.state, caller.info, principal, run.id, answer)
        except ConflictError as error:
            if "reason" in error.details:
                late.append(error)
            elif all_count:
                other = f"the interrupt '{answer.name[:80]}' has another answer"
                late.append(ConflictError(other, reason="nothing_waits"))
            # Else it was decided elsewhere; the first decision counts.
    if late:
        raise late[0]
    return Resumed(run, waits[-1], is_taken)


async def waiting_run(caller: Caller, thread: str) -> RunInfo:
    """The run of a thread that waits for an answer. Raises `ConflictError`."""
    runs = await caller.state.runs.thread(thread, principal=caller.principal, most=_MOST_RUNS)
    for run in runs:
        if run.state == "waiting":
            return run
    raise ConflictError("no run of this thread waits for an answer", reason="nothing_waits")


# --- streams --------------------------------------------------------------------------------------


async def begin_and_stream(caller: Caller) -> Response:
    """``POST .../runs/stream``."""
    body = parse_run(caller.info.json)
    run, place = await begin(caller, body)
    answer_ids = await _answered(caller, run, body) if place is not None else set[str]()
    return await _stream(
        caller, run, body.modes, subgraphs=body.subgraphs, place=place, answer_ids=answer_ids
    )


async def _answered(caller: Caller, run: RunInfo, body: RunRequest) -> set[str]:
    """What a command answers: the log may not have it yet."""
    fold = await caller.state.runs.fold(run.id, principal=caller.principal)
    try:
        return {answer.name for answer in answers_of(body.resume, fold)}
    except InputError:
        return set()  # it has gone on to the next question


async def stream(caller: Caller) -> Response:
    """``GET .../runs/{run}/stream``: joined at ``Last-Event-ID``, or from its start."""
    query = caller.request.query_params
    if _FLAGS.get(query.get("cancel_on_disconnect", "").lower(), True):
        raise InputError(
            "'cancel_on_disconnect' is not supported; 'on_disconnect' of the run is",
            field="cancel_on_disconnect",
        )
    modes = [one for text in query.getlist("stream_mode") for one in text.split(",")]
    run = await caller.run()
    subgraphs = _FLAGS.get(query.get("subgraphs", "").lower(), True)
    return await _stream(
        caller,
        run,
        parse_modes(modes) if modes else ["values", "messages-tuple"],
        subgraphs=subgraphs,
        place=caller.place,
    )


async def _stream(
    caller: Caller,
    run: RunInfo,
    modes: list[str],
    *,
    subgraphs: bool,
    place: Place | None,
    answer_ids: set[str] | None = None,
) -> Response:
    state, principal = caller.state, caller.principal
    if place is not None:
        await state.runs.check_cursor(run.id, place.cursor, principal=principal)
    resolved = answer_ids or set()
    if not run.created_now or place is not None or answer_ids is None:
        resolved |= resolved_ids(await state.runs.fold(run.id, principal=principal))
    encoder = LangGraphEncoder(
        modes=modes,
        subgraphs=subgraphs,
        history=await messages_before(state, run, principal),
        resolved_ids=resolved,
        place=place,
    )
    query: dict[str, Any] = {"stream_mode": modes}
    if subgraphs:
        query["subgraphs"] = "true"
    path = _path(caller, run)
    headers = {
        "content-location": path,
        # For the clients of this server: below their `apiUrl`.
        "location": f"{path}/stream?{urlencode(query, doseq=True)}",
    }
    return await wire_response(
        state, run.id, encoder, principal=principal, place=place, headers=headers
    )


def _path(caller: Caller, run: RunInfo) -> str:
    thread = caller.thread or run.thread
    return f"/threads/{thread}/runs/{run.id}" if thread is not None else f"/runs/{run.id}"


# --- without a stream -----------------------------------------------------------------------------


async def begin_run(caller: Caller) -> Response:
    """``POST .../runs``: in the background."""
    body = parse_run(caller.info.json)
    run, _ = await begin(caller, body)
    headers = {"content-location": _path(caller, run)}
    return json_response(run_object(caller, run), headers=headers)


async def begin_and_wait(caller: Caller) -> Response:
    """``POST .../runs/wait``: the values when the run has ended, or waits."""
    body = parse_run(caller.info.json)
    run, place = await begin(caller, body)
    answer_ids = await _answered(caller, run, body) if place is not None else set[str]()
    return await _settled(caller, run, answer_ids)


async def join(caller: Caller) -> Response:
    """``GET .../runs/{run}/join``: the values when the run has ended, or waits."""
    return await _settled(caller, await caller.run())


async def _settled(caller: Caller, run: RunInfo, answer_ids: set[str] | None = None) -> Response:
    """The values when the run has ended, or waits for something else than was ``answered``."""

    def is_enough(fold: Fold) -> bool:
        return bool(fold.waiting) and not set(fold.waiting) & (answer_ids or set())

    fold = await finished(
        caller.state, caller.request, run.id, caller.principal, is_enough=is_enough
    )
    name = not_taken(fold, sorted(answer_ids or ()))
    if name is not None:
        raise ConflictError(
            f"the run ended before it took the answer to '{name[:80]}'", reason="run_ended"
        )
    before = await messages_before(caller.state, run, caller.principal)
    values = values_of([*before, *answer_messages(fold)], fold.shared)
    failure = failure_of_fold(fold)
    if failure is not None:
        values = {"__error__": failure}
    elif fold.waiting:
        values["__interrupt__"] = interrupts_of(fold, fold.waiting)
    return json_response(values, headers={"content-location": _path(caller, run)})


async def show_run(caller: Caller) -> Response:
    """``GET .../runs/{run}``."""
    run = await caller.run()
    fold: Fold | None = None
    if run.state == "incomplete":
        fold = await caller.state.runs.fold(run.id, principal=caller.principal)
    return json_response(run_object(caller, run, fold))


async def list_runs(caller: Caller) -> Response:
    """``GET .../runs``: the newest first."""
    state, principal, thread = caller.state, caller.principal, caller.thread or ""
    limit, offset = caller.count("limit", 10, 1, 1000), caller.count("offset", 0, 0, 10_000)
    if caller.request.query_params.get("status"):
        raise InputError("'status' is not supported", field="status")
    runs = await state.runs.thread(thread, principal=principal, most=limit + offset)
    return json_response([run_object(caller, run) for run in runs[offset:]])


async def cancel_run(caller: Caller) -> Response:
    """``POST .../runs/{run}/cancel``; with ``wait=1`` when it has ended."""
    query = caller.request.query_params
    if query.get("action", "interrupt") != "interrupt":
        raise InputError("'action' must be interrupt; a run is not rolled back", field="action")
    run = await caller.run()
    await caller.state.runs.cancel(run.id, principal=caller.principal, by=caller.info.by)
    if _FLAGS.get(query.get("wait", "").lower(), True):
        await finished(caller.state, caller.request, run.id, caller.principal)
        return Response(status_code=204)
    return json_response({}, 202)


async def delete_run(caller: Caller) -> Response:
    """``DELETE .../runs/{run}``: the run and its turn."""
    await caller.run()
    return await delete(caller.state, caller.request, caller.info)


def run_object(caller: Caller, run: RunInfo, fold: Fold | None = None) -> Chunk:
    """A run as these clients read it."""
    created = moment(run.created)
    return {
        "run_id": run.id,
        "thread_id": run.thread or caller.thread,
        "assistant_id": run.model,
        "created_at": created,
        "updated_at": created,
        "status": run_status(run, fold),
        "metadata": run.metadata or {},
        "multitask_strategy": None,
        "kwargs": {},
    }
