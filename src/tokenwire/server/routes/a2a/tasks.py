"""A2A's operations, whatever their binding: a run is a task, a conversation a context.

Always true: one ``messageId`` of a principal starts one run, and answers one wait; what a message
decides is recorded before anybody reads that it was; a task is the fold of its stream.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from tokenwire.errors import ConflictError, CursorError, InputError, NotFoundError
from tokenwire.events.codec import AnyEvent
from tokenwire.events.fold import Fold
from tokenwire.events.reasons import OUTCOMES
from tokenwire.events.request import Request as ModelRequest
from tokenwire.relay.commands import not_taken
from tokenwire.relay.description import RunInfo
from tokenwire.relay.documents.names import RunName, read_name, set_name
from tokenwire.server.access.misses import is_run_id
from tokenwire.server.edge.bodies import check_request
from tokenwire.server.edge.request_info import RequestInfo
from tokenwire.server.edge.respond import STREAM_HEADERS
from tokenwire.server.routes.a2a.errors import not_cancelable, unsupported
from tokenwire.server.routes.support import finished, place_of, resolved_ids, wire_response
from tokenwire.server.routes.waiting.record import record_decision, require_roles
from tokenwire.server.starts.start import Start, ThreadQuery, say_and_wait
from tokenwire.server.state import State
from tokenwire.server.tokens.grant import thread_to_start
from tokenwire.wire.a2a.encoder import A2AEncoder
from tokenwire.wire.a2a.request import A2AMessage, decisions_of
from tokenwire.wire.a2a.task import message_of, with_cursor
from tokenwire.wire.catalogue import EVERY_WAIT
from tokenwire.wire.place import Place

__all__ = ["Caller", "Sent", "cancel", "get", "send", "sent_stream", "sent_task", "subscribe"]

Json = dict[str, Any]


class Caller(msgspec.Struct, frozen=True):
    """One request of a binding. ``rpc_id``: of JSON-RPC, where ``is_rpc``."""

    state: State
    request: Request
    info: RequestInfo
    is_rpc: bool = False
    rpc_id: str | int | None = None

    @property
    def principal(self) -> str:
        """Whose request it is."""
        return self.info.principal

    @property
    def place(self) -> Place | None:
        """The place in a run after which the client misses it. Raises `CursorError`."""
        return place_of(self.request.headers.get("last-event-id"))


class Sent(msgspec.Struct, frozen=True):
    """What became of a message. ``answers``: the approvals and calls that it answers, in a run
    that went on with it; ``is_new``: the run has just been started."""

    run: RunInfo
    answers: frozenset[str] = frozenset()
    is_new: bool = False


# --- messages ------------------------------------------------------------------------------------


def _digest(principal: str, message_id: str) -> str:
    return hashlib.sha256(f"{principal}\0{message_id}".encode()).hexdigest()[:32]


async def send(caller: Caller, body: A2AMessage) -> Sent:
    """Start the task of a message, or answer the task that it names."""
    if body.task is not None:
        return await _answer(caller, body, body.task)
    caller.info.identity.require("write")
    state, principal = caller.state, caller.principal
    digest = _digest(principal, body.message_id)
    key = f"a2a:{digest}"
    if caller.place is not None:
        run = await state.runs.named(key, principal=principal)
        if run is None:
            raise CursorError("this message started no task; omit 'Last-Event-ID' to start it")
        return Sent(run)
    # A message that comes again without a context names the context of the first time.
    context = thread_to_start(body.context) or f"ctx-{digest}"
    request = check_request(ModelRequest(messages=[body.message]), state.settings)
    run = await say_and_wait(
        state,
        request,
        Start(model=body.model, identity=caller.info.identity, key=key, thread=context),
        ThreadQuery(history="thread"),
        [body.message],
        caller.request.receive,
    )
    return Sent(run, is_new=run.created_now)


async def _answer(caller: Caller, body: A2AMessage, task: str) -> Sent:
    """Record what a message to a task that waits decides. Raises `RoleError` before it records
    anything."""
    state, principal = caller.state, caller.principal
    info = await find(caller, task)
    if body.context is not None and body.context != (info.thread or info.id):
        raise InputError("'contextId' is not that of the task", field="message.contextId")
    name = f"a2a_{_digest(principal, body.message_id)}"
    fold = await state.runs.fold(task, principal=principal)
    content = hashlib.sha256(msgspec.json.encode(body.message)).hexdigest()
    earlier = await read_name(state.store, name)
    if earlier is not None and earlier.run == task:
        if earlier.content not in (None, content):
            raise InputError(
                "another message with this id has answered the task; send a new id",
                field="message.messageId",
            )
        answers = frozenset(earlier.resolved_ids)
        if not answers & set(fold.waiting):
            return Sent(info, answers)
    if fold.outcome is not None:
        raise unsupported("the task has ended; send the message without 'taskId' in its context")
    if not fold.waiting:
        raise unsupported(
            "the task is under way and waits for nothing; send the message without 'taskId' in its "
            "context, where it is the next task"
        )
    decisions = decisions_of(body, fold)
    require_roles(caller.info, decisions)
    names = sorted({decision.name for decision in decisions})
    # Before the decisions: a repetition after a crash in between records what is still open.
    await set_name(state.store, name, RunName(task, str(info.tail), info.tail, names, content))
    late: list[ConflictError] = []
    for decision in decisions:
        try:
            await record_decision(state, caller.info, caller.principal, task, decision)
        except ConflictError as error:
            late.append(error)
    for error in late:
        if "reason" in error.details:
            raise unsupported(error.message, reason=error.details["reason"])
        # Decided elsewhere: the first decision counts, and is what the task then shows.
    return Sent(info, frozenset(names))


def _check_taken(message: Sent, fold: Fold) -> None:
    """Raise ``UnsupportedOperationError`` where the task has ended without what the message
    answers."""
    if (name := not_taken(fold, sorted(message.answers))) is not None:
        raise unsupported(
            f"the task ended before it took the answer to '{name[:80]}'", reason="run_ended"
        )


async def sent_task(caller: Caller, message: Sent, body: A2AMessage) -> Json:
    """The task of a message: at once, or when it has ended or waits for another answer."""

    def is_settled(fold: Fold) -> bool:
        is_open = bool(message.answers & set(fold.waiting))
        return not is_open and (body.returns_at_once or bool(fold.waiting))

    task, fold = await _read(caller, message.run, is_settled)
    _check_taken(message, fold)
    return _shown(task, body.history_length)


async def sent_stream(caller: Caller, message: Sent) -> Response:
    """The stream of a message's task: of a new one from its start, of one that was answered from
    the answer on; in each case up to its end, or the next wait."""
    state, run = caller.state, message.run
    if caller.place is not None or message.answers:
        return await _from_place(caller, run, message=message, ends_at_wait=True)
    resolved: set[str] = set()
    if not message.is_new:
        resolved = resolved_ids(await state.runs.fold(run.id, principal=caller.principal))
    encoder = await _encoder(caller, run, resolved_ids=resolved)
    return await wire_response(state, run.id, encoder, principal=caller.principal)


# --- tasks ---------------------------------------------------------------------------------------


async def find(caller: Caller, task: str) -> RunInfo:
    """The run of a task. Raises `NotFoundError`; what cannot be an id is an unknown run."""
    if not is_run_id(task):
        raise NotFoundError("no such run")
    return await caller.state.runs.info(task, principal=caller.principal)


async def get(caller: Caller, task: str, history: int | None) -> Json:
    """The task now."""
    return _shown((await _read(caller, await find(caller, task), lambda _: True))[0], history)


async def cancel(caller: Caller, task: str) -> Json:
    """Cancel a task; the task as it ended. Raises ``TaskNotCancelableError`` for one that has."""
    info = await request_cancel(caller, task)
    return (await _read(caller, info, lambda _: False))[0]


async def request_cancel(caller: Caller, task: str) -> RunInfo:
    """Cancel a task, and do not wait for its end. Raises as `cancel`."""
    info = await find(caller, task)
    if info.state in OUTCOMES:
        raise not_cancelable()
    await caller.state.runs.cancel(task, principal=caller.principal, by=caller.info.by)
    return info


async def subscribe(caller: Caller, task: str) -> Response:
    """The task first, as of the client's place or as it is now; then what follows, to its end."""
    return await _from_place(caller, await find(caller, task))


async def _from_place(
    caller: Caller,
    info: RunInfo,
    *,
    message: Sent | None = None,
    ends_at_wait: bool = False,
) -> Response:
    """A stream that begins with the task, at the client's place or, without one, as soon as it
    shows that what the ``message`` answers is."""
    state, principal, place = caller.state, caller.principal, caller.place
    answers = message.answers if message is not None else frozenset[str]()
    if place is not None and place.offset == 0:  # the client has nothing
        encoder = await _encoder(caller, info, resolved_ids=EVERY_WAIT)
        return await wire_response(state, info.id, encoder, principal=principal)
    if place is not None:
        await state.runs.check_cursor(info.id, place.cursor, principal=principal)
        reader = await _encoder(caller, info, keeps=True, place=place)
        replay = await state.runs.replay(info.id, principal=principal)
        task, fold = reader.task_at(replay.events(), place), replay.fold
        cursor = reader.resume_id
    else:
        task, fold = await _read(caller, info, lambda fold: not answers & set(fold.waiting))
        if message is not None:
            _check_taken(message, fold)
        cursor = task["metadata"]["tokenwire"]["cursor"]
        place = Place(cursor=cursor, offset=int(cursor.partition("-")[0]))
        if fold.outcome is not None and not ends_at_wait:
            raise unsupported(
                "the task has ended; GetTask returns it, and SubscribeToTask with the last cursor "
                "as 'Last-Event-ID' what a client misses"
            )
    more: Json = {"resolved_ids": resolved_ids(fold) | answers if ends_at_wait else EVERY_WAIT}
    encoder = await _encoder(caller, info, is_task_sent=True, place=place, **more)
    preamble = b": ok\nretry: %d\n\n" % state.connections.retry_ms
    preamble += encoder.frame({"task": task}, cursor)
    state_name = task["status"]["state"]
    if ends_at_wait and state_name == "TASK_STATE_INPUT_REQUIRED" and fold.seq <= place.offset:
        headers = {**STREAM_HEADERS, "tokenwire-run": info.id}
        return Response(preamble, media_type="text/event-stream", headers=headers)
    return await wire_response(
        state, info.id, encoder, principal=principal, place=place, preamble=preamble
    )


async def _read(
    caller: Caller, info: RunInfo, is_enough: Callable[[Fold], bool]
) -> tuple[Json, Fold]:
    """The task when it has ended, or when all that there is was read and ``is_enough`` says so,
    with its cursor in its metadata."""
    encoder = await _encoder(caller, info, keeps=True)
    last = ""

    def take(cursor: str, event: AnyEvent) -> None:
        nonlocal last
        encoder.skip(event)
        last = cursor

    fold = await finished(
        caller.state, caller.request, info.id, caller.principal, take=take, is_enough=is_enough
    )
    return with_cursor({"task": encoder.task()}, last)["task"], fold


def _shown(task: Json, history: int | None) -> Json:
    """The task with at most ``history`` of its messages."""
    messages = task.get("history")
    if history is None or not messages or len(messages) <= history:
        return task
    limited = {**task, "history": messages[len(messages) - history :]}
    if not history:
        del limited["history"]
    return limited


async def _encoder(caller: Caller, info: RunInfo, **more: Any) -> A2AEncoder:
    context = info.thread or info.id
    received = await caller.state.runs.received(info.id, principal=caller.principal)
    history: list[Json] = []
    for number, message in enumerate(reversed(received)):
        if message.role != "user":
            break
        history.insert(0, message_of(message, f"{info.id}-input-{number}", info.id, context))
    return A2AEncoder(
        is_rpc=caller.is_rpc,
        request_id=caller.rpc_id,
        context_id=context,
        history=history,
        **more,
    )
