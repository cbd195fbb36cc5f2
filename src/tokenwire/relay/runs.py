"""Runs on a log: start, follow, stop, answer, hand over. The one entry point of servers and apps.

Always true: a run belongs to the process that holds its lease, a connection to its reader; closing
a connection stops nothing (unless the run's policy says so); an unknown run and another principal's
raise the same error; one idempotency key starts one run.

In an app of your own::

    async with Runs(open_store("sqlite:///chats.db")) as runs:
        info = await runs.start(Request(messages=[user("Hello")]), model="demo", thread="chat-1")
        follower = await runs.follow(info.id)
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from tokenwire.errors import ConflictError, GoneError, NotFoundError, TokenwireError
from tokenwire.events.fold import Fold
from tokenwire.events.message import Message
from tokenwire.events.model import Control
from tokenwire.events.names import checked_principal
from tokenwire.events.principal import parts_of
from tokenwire.events.request import Request
from tokenwire.log.base import LogInfo, Store
from tokenwire.observe.facts import RunEnded
from tokenwire.observe.hooks import report
from tokenwire.relay.census import Census
from tokenwire.relay.commands import (
    Answer,
    Command,
    approval_answer,
    check_first,
    check_taken,
    denials,
    encode_command,
    tool_answer,
)
from tokenwire.relay.conversation.scope import scope_of
from tokenwire.relay.conversation.turns import with_history
from tokenwire.relay.description import (
    RunInfo,
    RunMeta,
    RunSnapshot,
    info_of,
    snapshot_of,
)
from tokenwire.relay.documents.private import model_input
from tokenwire.relay.follow import Follower, open_follower
from tokenwire.relay.members.access import Access
from tokenwire.relay.members.checked import CheckedRun, checked_run, unknown_run
from tokenwire.relay.members.members import Members
from tokenwire.relay.members.roster import MemberRole
from tokenwire.relay.outbox import OnEnd, Outbox
from tokenwire.relay.owned import OwnedRun
from tokenwire.relay.produce.contract import ProducerLimits
from tokenwire.relay.readers import follow
from tokenwire.relay.record import cursor_of
from tokenwire.relay.replay import Replay, read_run
from tokenwire.relay.starts.start import Starts
from tokenwire.relay.takeover.tending import tend
from tokenwire.relay.webhooks.config import Webhooks
from tokenwire.relay.worker import LEASE, WAIT_TIMEOUT, Worker
from tokenwire.run.call.deadlines import Deadlines
from tokenwire.run.call.recover import RetryPolicy
from tokenwire.run.engine import AgentSpec
from tokenwire.run.hooks.hook import Hooks
from tokenwire.run.plan import LoopLimits
from tokenwire.run.stream import new_run_id

if TYPE_CHECKING:
    from tokenwire.providers.http.client import HttpClient
    from tokenwire.providers.registry import Registry
    from tokenwire.tools.registry import ToolSet

__all__ = ["Follower", "RunInfo", "RunSnapshot", "Runs"]


class Runs:
    """All runs of one process on one store. `open` it before use, `aclose` it after.

    ``store``: where the runs' logs are. ``registry``, ``http``: the models and the HTTP client;
    default its own. ``models``: the names whose lost runs it takes over (default: all that the
    registry resolves); it leaves other runs to other processes for ``leave_for`` seconds (default:
    the total deadline) and then ends them. ``fallbacks``: model -> models to try after it.
    ``agents``: by name, started and taken over like models; they receive ``app``. ``tools``: those
    of the server. ``stop_when``: ends a run's tool loop. ``deadlines``, ``retry``, ``limits`` (of
    the tool loop), ``bounds`` (of a log): for every run. ``owner``: a name of this process;
    ``lease``: seconds until others may take over its runs; ``wait_timeout``: seconds until a run
    that waits for a person or a client ends. ``on_end``: called with every ended run, at least
    once; ``webhooks``: addresses that hear of runs; ``prepare``: what each run of a model begins
    with (`tokenwire.agents.prepare.preparation_of`); ``hooks``: functions that may change or refuse
    a run before it starts, and its tool calls. These are the same in every process of a store.

    Methods take a ``run`` by its id; ``principal``: the caller, who sees their own runs only. Of a
    command, ``by`` and ``reason`` are for the log. An unknown run, and that of another principal,
    raises `NotFoundError`; a failing store raises `LogError`.
    """

    def __init__(
        self,
        store: Store,
        *,
        registry: Registry | None = None,
        tools: ToolSet | None = None,
        owner: str | None = None,
        http: HttpClient | None = None,
        deadlines: Deadlines | None = None,
        retry: RetryPolicy | None = None,
        limits: LoopLimits | None = None,
        stop_when: str | Iterable[str] | Callable[[Fold], bool] | None = None,
        lease: float = LEASE,
        fallbacks: Mapping[str, list[str]] | None = None,
        models: Iterable[str] | None = None,
        leave_for: float | None = None,
        bounds: ProducerLimits | None = None,
        wait_timeout: float = WAIT_TIMEOUT,
        agents: Mapping[str, AgentSpec] | None = None,
        app: object = None,
        on_end: OnEnd | None = None,
        prepare: AgentSpec | None = None,
        webhooks: Webhooks | None = None,
        hooks: Hooks | None = None,
    ) -> None:
        #: What works on the runs whose lease this process holds.
        self.worker = Worker(
            store,
            registry=registry,
            tools=tools,
            owner=owner,
            http=http,
            deadlines=deadlines,
            retry=retry,
            limits=limits,
            stop_when=stop_when,
            lease=lease,
            fallbacks=fallbacks,
            models=models,
            leave_for=leave_for,
            bounds=bounds,
            wait_timeout=wait_timeout,
            agents=agents,
            app=app,
            on_end=on_end,
            prepare=prepare,
            webhooks=webhooks,
            hooks=hooks,
        )
        #: Who may do what in which conversation.
        self.members = Members(store, self.worker.feeds)
        #: How a run begins.
        self.starts = Starts(self.worker, self.members)
        self.store = store
        self._tender: asyncio.Task[None] | None = None

    @property
    def owner(self) -> str:
        """The name of this process in the store."""
        return self.worker.owner

    @property
    def owned(self) -> dict[str, OwnedRun]:
        """The runs that this process works on, by id."""
        return self.worker.owned

    @property
    def census(self) -> Census:
        """How many runs this process owns, of each principal."""
        return self.worker.census

    @property
    def outbox(self) -> Outbox | None:
        """What calls ``on_end``; None without one."""
        return self.worker.outbox

    @property
    def draining(self) -> bool:
        """Whether `drain` was called: no run starts here any more."""
        return self.worker.draining

    # --- life ----------------------------------------------------------------------------------

    async def open(self, *, take_over: bool = True) -> None:
        """Start the store and the tending of leases; with ``take_over``, of lost runs as well."""
        await self.worker.open()
        tending = tend(self.worker, take_over=take_over)
        self._tender = asyncio.create_task(tending)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()

    async def drain(self, seconds: float = 8.0) -> None:
        """Accept no new runs. On a shared store, wait up to ``seconds`` for running tools, whose
        outcome would be unknown otherwise, and hand all runs over; on a store of this process only,
        wait up to ``seconds`` for the runs to end, and end the rest as ``interrupted``."""
        await self.worker.drain(seconds)

    async def aclose(self) -> None:
        """Stop tending, release all runs, close the store."""
        if self._tender is not None:
            self._tender.cancel()
            await asyncio.wait([self._tender])
        await self.members.watch.aclose()
        await self.worker.aclose()

    # --- start ---------------------------------------------------------------------------------

    async def start(
        self,
        request: Request,
        *,
        model: str,
        principal: str = "",
        thread: str | None = None,
        key: str | None = None,
        on_disconnect: str = "continue",
        metadata: dict[str, Any] | None = None,
        run_id: str | None = None,
        tools: bool = True,
        approval_timeout: float | None = None,
        budget: str | None = None,
    ) -> RunInfo:
        """Start a run of ``request`` on ``model``, in the conversation ``thread``, with
        ``metadata`` (JSON values) and ``run_id`` (default: a new one). ``key``: the same key of the
        same principal names the same run while the store keeps it; with another request it raises
        `KeyReusedError`. ``on_disconnect``: ``continue``, ``stop``, or ``stop:N`` seconds after
        the last reader left. ``tools``: whether the server's tools may be used.
        ``approval_timeout``: seconds until an approval expires, where server and tool allow more.
        ``budget``: what the run may use, as ``1000`` tokens or ``$0.05``. Raises
        `UnknownModelError`, `ConfigError` and `InputError` before anything is created, `BusyError`
        while draining."""
        meta = RunMeta(
            model=model,
            request=request,
            principal=checked_principal(principal),
            thread=thread,
            metadata=metadata,
            on_disconnect=on_disconnect,
            tools=tools,
            approval_timeout=approval_timeout,
            budget=self.worker.allowances.checked(budget),
        )
        return await self.starts.start(run_id or new_run_id(), meta, key=key)

    # --- reading -------------------------------------------------------------------------------

    async def info(self, run: str, *, principal: str = "") -> RunInfo:
        """A run's description. Raises `NotFoundError` also for another principal's."""
        return await self._info(await self._checked(run, principal))

    async def named(self, key: str, *, principal: str = "") -> RunInfo | None:
        """The run that the idempotency ``key`` of this principal started; None if there is none."""
        run = await self.store.named(scope_of(principal, key))
        try:
            return await self.info(run, principal=principal) if run is not None else None
        except (NotFoundError, GoneError):
            return None

    async def follow(
        self,
        run: str,
        *,
        after: str | int | None = None,
        principal: str = "",
        is_reader: bool = True,
    ) -> Follower:
        """A reader from after ``after`` (a cursor) on. Without ``is_reader`` it does not count for
        the run's ``on_disconnect``. Raises `CursorError`, `NotFoundError`."""
        count = self.members.watch.change_count
        access = (await self._checked(run, principal)).access
        watch, error = self.members.watch, unknown_run()
        return await follow(
            self.worker.readers,
            self.store,
            run,
            after,
            is_reader=is_reader,
            watch=lambda follower: watch.reader(access, partial(follower.bar, error), count),
        )

    async def check_cursor(self, run: str, cursor: str, *, principal: str = "") -> None:
        """Raise `CursorError` unless the run's log holds the very record of ``cursor``. No
        reader is counted."""
        await self._checked(run, principal)
        (await open_follower(self.store, run, cursor)).close()

    async def snapshot(self, run: str, *, principal: str = "") -> RunSnapshot:
        """The run so far: its description and the folded message."""
        info, meta, access = await self._checked(run, principal)
        meta = await with_history(self.store, run, meta)
        owned = self.owned.get(run)
        # From here to the return nothing waits: cursor, state and message are of one moment.
        if owned is not None:
            owned.loop.make_up()
        if owned is not None and owned.producer.tail == owned.loop.fold.seq:
            fold, tail, cursor = owned.loop.fold, owned.producer.tail, owned.producer.cursor
        else:
            replay = await read_run(self.store, run)
            fold, tail = replay.fold, len(replay.records)
            cursor = cursor_of(tail, replay.records[-1]) if tail else None
        thread = access.thread if access is not None else None
        return snapshot_of(info, meta, fold, tail=tail, cursor=cursor, thread=thread)

    async def replay(self, run: str, *, principal: str = "") -> Replay:
        """The run's log so far, read back. Raises `NotFoundError`."""
        await self._checked(run, principal)
        return await read_run(self.store, run)

    async def model_input(self, run: str, *, principal: str = "") -> list[Message]:
        """The conversation that the run's first model call receives: that of the request, or what
        a preparation made of it. It may hold what readers should not see; no route returns it.
        Raises `NotFoundError`."""
        return await model_input(self.store, run, (await self._checked(run, principal)).meta)

    async def received(self, run: str, *, principal: str = "") -> list[Message]:
        """The messages of the request that started the run, before the application changed them
        (where it had an idempotency key). Raises `NotFoundError`."""
        meta = (await self._checked(run, principal)).meta
        return meta.received if meta.received is not None else meta.request.messages

    async def fold(self, run: str, *, principal: str = "") -> Fold:
        """The run's state so far, to be read only: at hand where this process owns the run, else
        from its log. Raises `NotFoundError`."""
        await self._checked(run, principal)
        return await self._state(run)

    async def thread(
        self, thread: str, *, principal: str = "", most: int = 100, before: str | None = None
    ) -> list[RunInfo]:
        """The runs of the conversation ``thread``, newest first: at most ``most``, and only those
        older than the run ``before``. Raises `NotFoundError` when that run does not exist, and for
        a conversation of others."""
        access = await self.members.enter(principal, thread)
        if before is not None:
            await self._checked(before, principal)
        infos: list[RunInfo] = []
        for run in await self.store.thread(access.scope, most=most, before=before or ""):
            try:
                checked = await self._checked(run, principal, access=access)
            except TokenwireError:
                continue  # expired since the index was read
            infos.append(await self._info(checked))
        return infos

    # --- commands ------------------------------------------------------------------------------

    async def cancel(
        self, run: str, *, principal: str = "", by: str | None = None, reason: str | None = None
    ) -> RunInfo:
        """Cancel a run, wherever its worker is. An ended run stays as it is."""
        checked = await self._checked(run, principal, "write")
        if checked.info.closed is None:
            await self._command(run, Control(command="cancel", by=by, reason=reason))
        return await self._info(checked)

    async def steer(
        self, run: str, turn: str, text: str, *, by: str | None = None, principal: str = ""
    ) -> None:
        """Give the model of a run the ``text`` of a person before its next step, beside the results
        of tools: once, under the id ``turn``. Whether it came in time the run's log says. Raises
        `NotFoundError`."""
        await self._checked(run, principal, "write")
        await self._command(run, Control(command="steer", id=turn, text=text, by=by))

    async def approve(
        self,
        run: str,
        approval_id: str,
        *,
        approved: bool,
        by: str | None = None,
        reason: str | None = None,
        arguments: dict[str, Any] | None = None,
        principal: str = "",
        member: str | None = None,
    ) -> bool:
        """Record the decision on the approval ``approval_id``: ``approved`` or not; ``arguments``
        replaces the call's own. ``member``: the membership that must still be the principal's. The
        first decision wins. False where the run's process, another one, has not taken it yet.
        Raises `NotFoundError` for an approval that the run has not requested, `ConflictError` for
        one that is decided, and `InputError` for arguments that do not fit; it then stays open."""
        info = (await self._checked(run, principal, "approve")).info
        answer = approval_answer(
            await self._state(run),
            self.worker.tools,
            approval_id,
            has_ended=info.closed is not None,
            approved=approved,
            by=by,
            reason=reason,
            arguments=arguments,
        )
        # Once more, as the log may have been long: right before the decision is recorded.
        await checked_run(self.store, self.members, run, principal, "approve", member=member)
        is_taken = await self._answer(run, answer)
        if info.thread is not None:
            self.worker.feeds.announce_approval(info.thread, run, answer)
        return is_taken

    async def supersede(self, run: str, *, reason: str, principal: str = "") -> None:
        """Cancel a run in whose place ``principal`` wants another turn; approvals that it waits for
        are denied. Raises `NotFoundError`."""
        info = (await self._checked(run, principal, "write")).info
        by = parts_of(principal)[0] or None
        if info.closed is not None:
            return
        await self._command(run, Control(command="cancel", by=by, reason=reason))
        for answer in denials(await self._state(run), by=by, reason=reason):
            with suppress(ConflictError):
                await self._answer(run, answer)

    async def answer_tool(
        self,
        run: str,
        call_id: str,
        *,
        content: Any,
        by: str | None = None,
        principal: str = "",
    ) -> bool:
        """Record ``content``, any JSON value, as the result of the client tool's call ``call_id``;
        False as of `approve`. The first result wins: later ones raise `ConflictError`, as does a
        tool that runs on the server; `NotFoundError`: for a call that the run has not made."""
        info, meta, _ = await self._checked(run, principal, "write")
        answer = tool_answer(
            await self._state(run),
            self.worker.tools if meta.tools else None,
            call_id,
            has_ended=info.closed is not None,
            content=content,
            by=by,
            principal=meta.principal,
        )
        return await self._answer(run, answer)

    async def delete(self, run: str, *, principal: str = "") -> None:
        """Stop a run and erase everything stored for it."""
        info, meta, _ = await self._checked(run, principal, "own")
        owned = self.owned.get(run)
        if owned is not None:
            await owned.stop()
        abandoned, work = self.worker.abandoned, None
        if info.closed is None:
            work = await abandoned.of(run, meta.model, self.worker.http)
        if self.outbox is not None:
            await self.outbox.erasing(run)
        await self.worker.unlist(info, meta)
        await self.store.delete(run)
        abandoned.stop(work)
        if info.thread is not None:
            self.worker.feeds.announce_run(info.thread, run)
        if info.closed is None:
            seconds = max(0.0, time.time() - info.created)
            report(RunEnded(run, meta.model, "deleted", None, seconds, info.tail))

    async def _info(self, checked: CheckedRun) -> RunInfo:
        waiting = await self.worker.waits(checked.info)
        return info_of(checked.info, checked.meta, waiting=waiting, thread=checked.thread)

    async def _command(self, run: str, command: Command) -> None:
        await self.store.command(run, encode_command(command))
        owned = self.owned.get(run)
        if owned is not None:
            await owned.check_commands()

    async def _answer(self, run: str, answer: Answer) -> bool:
        """Record an answer; whether the run has it. Raises `ConflictError` for any but the first in
        the mailbox, and for one that a run ends without."""
        await self._command(run, answer)
        check_first(answer, await self.store.commands(run))
        return await check_taken(answer, self.store, run, lambda: self._state(run))

    async def _state(self, run: str) -> Fold:
        owned = self.owned.get(run)
        return owned.loop.fold if owned is not None else (await read_run(self.store, run)).fold

    async def described(self, run: str, *, principal: str = "") -> tuple[LogInfo, RunMeta]:
        """The run's log and its stored description, for who writes it from outside, which no other
        member of its conversation may. Raises `NotFoundError`."""
        checked = await self._checked(run, principal)
        if checked.meta.principal != principal:
            raise unknown_run()
        if checked.access is not None:
            checked.access.require("write")
        return checked.info, checked.meta

    async def _checked(
        self, run: str, principal: str, role: MemberRole = "read", *, access: Access | None = None
    ) -> CheckedRun:
        return await checked_run(self.store, self.members, run, principal, role, access)
