"""How a request starts a run: within the quotas, alone or as a turn of its conversation.

Always true: every wire starts runs here and nowhere else; a request that is refused has started
nothing, and nothing of it waits.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, cast

import msgspec
from starlette.requests import Request
from starlette.types import Receive

from tokenwire.errors import BusyError, ConflictError, GoneError, InputError, NotFoundError
from tokenwire.events.message import Message
from tokenwire.events.names import THREAD, checked_principal
from tokenwire.events.principal import parts_of
from tokenwire.events.request import Request as ModelRequest
from tokenwire.relay.conversation.conversations import Reply
from tokenwire.relay.conversation.history import policy_of
from tokenwire.relay.conversation.posted import Continuation, key_of_turn
from tokenwire.relay.conversation.queue import WHILE_BUSY, WhileBusy
from tokenwire.relay.description import RunInfo, RunMeta
from tokenwire.relay.starts.start import scoped
from tokenwire.run.stream import new_run_id
from tokenwire.server.access.quotas import Count
from tokenwire.server.edge.auth import Identity, Role
from tokenwire.server.edge.bodies import choose_model
from tokenwire.server.edge.connections import Waker
from tokenwire.server.edge.disconnect import watch_disconnect
from tokenwire.server.edge.problems import HTTPProblem
from tokenwire.server.state import State
from tokenwire.server.tokens.grant import thread_to_start, within
from tokenwire.turns import turns

__all__ = [
    "Start",
    "ThreadQuery",
    "admitted",
    "query_of",
    "query_with_thread",
    "say",
    "say_and_wait",
    "start_run",
    "thread_query",
    "until_started",
]

_KEY = re.compile(r"[\x21-\x7e]{1,255}")
#: Seconds between two looks whether a turn that waits has begun.
_LOOK_SECONDS = 0.1


class Start(msgspec.Struct, kw_only=True):
    """How a run is started. ``model``, ``on_disconnect``: None is the server's default."""

    model: str | None
    identity: Identity
    key: str | None = None
    thread: str | None = None
    on_disconnect: str | None = None
    metadata: dict[str, Any] | None = None
    run_id: str | None = None
    tools: bool = True
    approval_timeout: float | None = None
    budget: str | None = None

    def __post_init__(self) -> None:
        # Before anything of the conversation is read: a token may be for another.
        self.thread = thread_to_start(self.thread)

    @property
    def principal(self) -> str:
        """Whose run it will be."""
        return self.identity.principal


class ThreadQuery(msgspec.Struct, kw_only=True, frozen=True):
    """What a request says of its conversation. ``history``: None, where the request brings the
    whole conversation itself; else how much of what the server stores the model is given
    (`policy_of`; ``thread``: as the conversation or the server is set). ``while_busy``: None is
    the conversation's, or the server's.
    ``thread``: of wires that name none themselves."""

    history: str | None = None
    while_busy: WhileBusy | None = None
    thread: str | None = None

    @property
    def policy(self) -> str | None:
        """How much the model is given; None: as the conversation or server is set."""
        return None if self.history == "thread" else self.history


def thread_query(
    history: str | None, while_busy: str | None = None, thread: str | None = None
) -> ThreadQuery:
    """What was said of the conversation. Raises `InputError`."""
    if history == "none":
        history = None
    if history is not None and history != "thread":
        policy_of(history)
    if while_busy is not None and while_busy not in WHILE_BUSY:
        raise InputError(f"'while_busy' must be one of {', '.join(WHILE_BUSY)}", field="while_busy")
    if while_busy is not None and history is None:
        raise InputError("'while_busy' needs 'history=thread'", field="while_busy")
    if thread is not None and not THREAD.fullmatch(thread):
        raise InputError("a thread has 1 to 128 of the characters A-Z a-z 0-9 _ . : @ -")
    return ThreadQuery(
        history=history, while_busy=cast("WhileBusy | None", while_busy), thread=thread
    )


def query_of(request: Request) -> ThreadQuery:
    """The ``?history=``, ``?while_busy=`` and ``?thread=`` of a request."""
    query = request.query_params
    return thread_query(query.get("history"), query.get("while_busy"), query.get("thread"))


def query_with_thread(request: Request) -> ThreadQuery:
    """`query_of` for a wire whose body names no conversation. Raises `InputError` where the
    ``?thread=`` would count for nothing."""
    query = query_of(request)
    if query.thread is not None and query.history is None:
        raise InputError("'thread' needs 'history=thread'", field="thread")
    return query


@asynccontextmanager
async def admitted(
    state: State,
    identity: Identity,
    key: str | None,
    run_id: str,
    role: Role = "write",
    *,
    thread: str | None = None,
    model: str | None = None,
    following: Continuation | None = None,
    while_busy: WhileBusy | None = None,
) -> AsyncGenerator[Count]:
    """Within roles, budgets and quotas, or an error. The run counts on if it is started. One that
    comes again uses nothing up, and is not refused for what it has used up itself. ``model``: as
    requests name it; None where somebody else calls one; ``following``, ``while_busy``: of a
    turn."""
    identity.require(role)
    principal = identity.principal
    if state.draining:
        raise BusyError("the server is stopping; try again", retry_after=1)
    if key is not None and not _KEY.fullmatch(key):
        raise InputError("'Idempotency-Key' must be 1 to 255 printable ASCII characters")
    repeated = partial(_is_repeated, state, identity, key, run_id, thread, following)
    overload = state.connections.check_overload()
    if overload is not None:
        # A repetition starts nothing, nor does a turn that waits for the one under way.
        if not await repeated() and not (
            following is not None and await _adds_no_run(state, identity, thread, while_busy)
        ):
            state.limits.refused["max_lag"] += 1
            raise overload
    else:
        await turns().start()
    budgets = await state.budgets.admit(
        state.runs,
        state.settling,
        identity,
        thread=thread,
        is_repeated=repeated,
        target=_target(state, model),
    )
    async with AsyncExitStack() as held:
        try:
            count = await _counted(state, identity, run_id, held)
        except BusyError:
            if not await repeated():
                raise
            yield Count()
            return
        count.budgets = budgets
        try:
            yield count
        except BusyError:  # it was refused elsewhere
            state.limits.refund(principal)
            raise
        if count.is_repeated:
            state.limits.refund(principal)


def _target(state: State, model: str | None) -> tuple[str, str] | None:
    """Provider and name of a model; None for an agent, whose models are not known before."""
    if model is None or state.settling is None or model in state.agents:
        return None
    target = state.registry.resolve(model)[1]
    return target.provider, target.model


async def _counted(state: State, identity: Identity, run_id: str, held: AsyncExitStack) -> Count:
    """Count a run that is about to start, until ``held`` is closed if it was not started."""
    principal = identity.principal
    state.limits.admit(principal, state.runs.census, state.quotas.limits_of(identity))
    held.callback(state.limits.give_back, principal)
    try:
        return await held.enter_async_context(state.quotas.counted(identity, run_id))
    except BusyError:
        state.limits.refund(principal)
        raise


async def _is_repeated(
    state: State,
    identity: Identity,
    key: str | None,
    run_id: str,
    thread: str | None,
    following: Continuation | None,
) -> bool:
    """Whether the request names a run or a turn that is there: by its key, its id, or the id of a
    message."""
    principal, runs = identity.principal, state.runs
    if following is not None and following.repeats is not None:
        return True
    if key is None and following is not None and thread is not None:
        key = key_of_turn((await runs.members.enter(principal, thread)).thread, following)
    named = await runs.store.named(scoped(principal, key) or "") if key is not None else None
    try:
        return (await runs.info(named or run_id, principal=principal)).principal == principal
    except (NotFoundError, GoneError):
        pass
    if key is None or thread is None:
        return False
    by = identity.user or parts_of(principal)[0] or None
    queue = await state.conversations.queue(principal, thread, waits=False)
    return queue.of_key(key, by) is not None


async def _adds_no_run(
    state: State, identity: Identity, thread: str | None, while_busy: WhileBusy | None
) -> bool:
    """Whether a turn waits for the one under way in its conversation, goes into it, takes its place
    or is refused because of it."""
    if thread is None:
        return False
    principal, conversations = identity.principal, state.conversations
    if not (await conversations.queue(principal, thread, waits=False)).is_busy:
        return False
    rule = while_busy or (await conversations.rules(principal, thread)).while_busy
    return rule != "parallel"


async def start_run(
    state: State,
    request: ModelRequest,
    *,
    model: str | None,
    identity: Identity,
    key: str | None = None,
    thread: str | None = None,
    on_disconnect: str | None = None,
    metadata: dict[str, Any] | None = None,
    run_id: str | None = None,
    tools: bool = True,
    approval_timeout: float | None = None,
    budget: str | None = None,
) -> RunInfo:
    """`Runs.start` within roles and quotas, for every wire. ``model``, ``on_disconnect``: None is
    the server's default."""
    thread = thread_to_start(thread)
    model_name, principal = choose_model(model, state.model_names), identity.principal
    run_id = run_id or new_run_id()
    meta = RunMeta(
        model=model_name,
        request=request,
        principal=checked_principal(principal),
        thread=thread,
        metadata=metadata,
        on_disconnect=on_disconnect or state.settings.on_disconnect,
        tools=tools,
        approval_timeout=approval_timeout,
        budget=state.runs.worker.allowances.checked(budget),
    )
    async with admitted(state, identity, key, run_id, thread=thread, model=model_name) as count:
        meta.budgets = count.budgets
        info = await state.runs.starts.start(run_id, meta, key=key)
        count.is_started, count.is_repeated = info.created_now, not info.created_now
    if info.created_now and thread:
        await state.threads.touch(principal, thread, request.messages, info.id)
    return info


async def say(
    state: State,
    request: ModelRequest,
    how: Start,
    query: ThreadQuery,
    following: Continuation,
) -> Reply:
    """`Conversations.say` within roles and quotas, in the thread of `how`."""
    if how.thread is None:
        raise InputError("'history' needs a 'thread'", field="thread")
    meta = RunMeta(
        model=choose_model(how.model, state.model_names),
        request=request,
        principal=how.principal,
        thread=how.thread,
        metadata=how.metadata,
        on_disconnect=how.on_disconnect or state.settings.on_disconnect,
        tools=how.tools,
        approval_timeout=how.approval_timeout,
        budget=state.runs.worker.allowances.checked(how.budget),
    )
    run_id = how.run_id or new_run_id()
    async with admitted(
        state,
        how.identity,
        how.key,
        run_id,
        thread=how.thread,
        model=meta.model,
        following=following,
        while_busy=query.while_busy,
    ) as count:
        meta.budgets = count.budgets
        with within(None):
            reply = await state.conversations.say(
                meta,
                following,
                run_id=run_id,
                key=how.key,
                policy=query.policy,
                while_busy=query.while_busy,
                by=how.identity.user or None,
            )
        # A turn that waits is no run yet, and is not counted.
        count.is_started = reply.info is not None and reply.info.created_now
        count.is_repeated = reply.is_repeated
    if not reply.is_repeated:
        await state.threads.touch(how.principal, how.thread, following.messages, reply.run)
    return reply


async def until_started(
    state: State, reply: Reply, how: Start, receive: Receive | None = None
) -> RunInfo:
    """The run of a turn, once it has begun: for wires that can only say an answer. The turn stays
    in the queue when the client leaves. Raises `ConflictError` for one that was withdrawn, and
    `NotAuthenticatedError` when the key of the request counts no more."""
    if reply.info is not None:
        return reply.info
    is_gone = asyncio.Event()
    watch = watch_disconnect(receive, is_gone.set) if receive is not None else None
    try:
        with state.connections.waiting(Waker(), how.identity) as connection:
            while True:
                connection.check()
                try:
                    return await state.runs.info(reply.run, principal=how.principal)
                except NotFoundError:
                    queue = await state.conversations.queue(
                        how.principal, how.thread or "", waits=False
                    )
                if not queue.holds(reply.run):
                    raise ConflictError(
                        "this turn was withdrawn before it began", reason="withdrawn"
                    )
                if state.draining:
                    raise BusyError("the server is stopping; the turn waits", retry_after=1)
                if is_gone.is_set():
                    raise HTTPProblem(499, "client_gone", "the client closed its connection")
                await asyncio.sleep(_LOOK_SECONDS)
    finally:
        if watch is not None:
            watch.cancel()


async def say_and_wait(
    state: State,
    request: ModelRequest,
    how: Start,
    query: ThreadQuery,
    posted: list[Message],
    receive: Receive | None,
    *,
    edited: str | None = None,
    regenerates: bool = False,
) -> RunInfo:
    """The run that answers ``posted``, the transcript of a wire's client or the end of it."""
    # A wire can say the answer to a turn, and not that it went into another one.
    while_busy = query.while_busy
    if while_busy is None and how.thread is not None:
        while_busy = (await state.conversations.rules(how.principal, how.thread)).while_busy
    if while_busy == "steer":
        query = msgspec.structs.replace(query, while_busy="reject")
    following = await state.conversations.after(
        how.principal, how.thread or "", posted, edited=edited, regenerates=regenerates
    )
    reply = await say(state, request, how, query, following)
    return await until_started(state, reply, how, receive)
