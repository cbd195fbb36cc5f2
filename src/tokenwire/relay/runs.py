"""Runs on a log: start, follow, stop, answer, hand over. The one door for servers and for apps.

Always true: a run belongs to the process that holds its lease, a connection to whoever reads;
closing a connection stops nothing (unless the run was started so); an unknown run and somebody
else's give the same error; the same idempotency key starts one run.

In an app of your own::

    runs = Runs(open_log("sqlite:///chats.db"))
    await runs.open()
    info = await runs.start(Request(messages=[user("Hello")]), model="demo", thread="chat-1")
    follower = await runs.follow(info.id)
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import re
import secrets
import socket
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from tokenwire.errors import (
    BusyError,
    ConflictError,
    InputError,
    LogError,
    NotFoundError,
    TokenwireError,
)
from tokenwire.events.fold import Fold
from tokenwire.events.model import ApprovalAnswer, Control, RunClaim, ToolResult
from tokenwire.events.request import Request
from tokenwire.log.base import Log, StreamInfo
from tokenwire.relay.follow import Follower, open_follower
from tokenwire.relay.owned import Owned, encode_command
from tokenwire.relay.produce import Producer, ProducerLimits
from tokenwire.relay.readers import ON_DISCONNECT, Readers
from tokenwire.relay.run_info import RunInfo, RunMeta, info_of, meta_of
from tokenwire.relay.takeover import Taken, ending, read_run, start_of, write_end
from tokenwire.relay.tending import tend
from tokenwire.run.asking import stop_rule
from tokenwire.run.deadlines import Deadlines
from tokenwire.run.inbox import Inbox
from tokenwire.run.loop import Loop, Plan
from tokenwire.run.recover import RetryPolicy
from tokenwire.run.stream import new_run_id
from tokenwire.run.tool_phase import LoopLimits
from tokenwire.tools.check import check_edited

if TYPE_CHECKING:
    from tokenwire.providers.http import HttpClient
    from tokenwire.providers.registry import Registry
    from tokenwire.tools.registry import ToolSet

__all__ = ["Follower", "RunInfo", "Runs"]

_log = logging.getLogger("tokenwire.relay")

LEASE = 15.0
_ID = re.compile(r"[A-Za-z0-9_-]{16,64}")


class Runs:
    """All runs of one process on one log. `open` it before use, `aclose` it after.

    ``models``: names of the models whose lost runs may be taken over here (default: all that the
    registry knows); others, and runs with tools that are not here, are left to processes that have
    them, for ``leave_for`` seconds (default: the total deadline), and then ended. ``limits`` are
    of a run's tool loop, ``bounds`` of its log.
    """

    def __init__(
        self,
        log: Log,
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
        fallbacks: dict[str, list[str]] | None = None,
        models: Iterable[str] | None = None,
        leave_for: float | None = None,
        bounds: ProducerLimits | None = None,
    ) -> None:
        self.log = log
        self._registry = registry
        self.tools = tools
        #: host:pid:random; the pid lets a restarted server on the same host see that we are gone.
        self.owner = owner or f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._http = http
        self._own_http = http is None
        self._deadlines = deadlines or Deadlines()
        self._retry = retry or RetryPolicy()
        self._limits = limits or LoopLimits()
        self._stop_when = stop_rule(stop_when)
        self._bounds = bounds
        self.lease = lease
        self._fallbacks = fallbacks or {}
        self._models = None if models is None else frozenset(models)
        #: Seconds that a lost run which cannot go on here is left to others, before it is ended.
        self.leave_for = self._deadlines.total if leave_for is None else leave_for
        self.owned: dict[str, Owned] = {}
        self._readers = Readers()
        self._tender: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self.draining = False

    # --- life ----------------------------------------------------------------------------------

    async def open(self, *, take_over: bool = True) -> None:
        """Start the log and the tending of leases and orphans."""
        from tokenwire.providers.http import HttpClient

        await self.log.start()
        if self._registry is None:
            from tokenwire.providers.registry import Registry

            self._registry = Registry()
        if self._http is None:
            self._http = HttpClient()
        self._tender = asyncio.create_task(tend(self, take_over=take_over and self.log.shared))

    async def drain(self, seconds: float = 8.0) -> None:
        """Accept nothing new. On a shared log, give the tools that are at work ``seconds`` to
        finish, as nobody could tell whether they did, and hand all runs over; on a log of this
        process only, give the answers ``seconds`` to end, and end the rest as ``interrupted``."""
        self.draining = True
        all_owned = list(self.owned.values())
        if self.log.shared:
            await _let_tools_finish(all_owned, seconds)
        elif waiting := [o.task for o in all_owned if o.state != "waiting"]:
            await asyncio.wait(waiting, timeout=seconds)
        for owned in all_owned:
            await owned.stop()
            try:
                if self.log.shared:
                    await self.log.release(owned.run, epoch=owned.producer.epoch)
                else:
                    await self._interrupt(owned)
            except LogError as error:
                _log.warning("run %s could not be let go: %s", owned.run, error)

    async def _interrupt(self, owned: Owned) -> None:
        """An honest end for a run that nobody can go on with."""
        taken = await read_run(self.log, owned.run)
        events = ending(taken, "interrupted")
        start = start_of(owned.run, owned.loop.plan)
        await write_end(self.log, taken, events, epoch=owned.producer.epoch, start=start)

    async def aclose(self) -> None:
        """Stop tending, let go of all runs and of the log."""
        if self._tender is not None:
            self._tender.cancel()
            await asyncio.wait([self._tender])
        await self.drain(0.0)
        self._readers.close()
        if self._own_http and self._http is not None:
            await self._http.aclose()
        await self.log.close()

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
    ) -> RunInfo:
        """Start an answer. ``key``: the same key of the same principal names the same run for as
        long as the log keeps it; with another request it raises `KeyReusedError`.

        ``on_disconnect``: ``continue``, ``stop``, or ``stop:N`` seconds after the last reader left.
        ``tools``: whether the server's tools may be used. Raises `UnknownModelError`,
        `ConfigError` before anything is created, `BusyError` while draining.
        """
        if self.draining:
            raise BusyError("this server is stopping; start the run again", retry_after=2)
        if not ON_DISCONNECT.fullmatch(on_disconnect):
            raise InputError("on_disconnect must be 'continue', 'stop' or 'stop:SECONDS'")
        run = run_id or new_run_id()
        if not _ID.fullmatch(run):
            raise InputError("a run id has 16 to 64 of the characters A-Z a-z 0-9 _ -")
        meta = RunMeta(
            model=model,
            request=request,
            principal=principal,
            thread=thread,
            metadata=metadata,
            on_disconnect=on_disconnect,
            tools=tools,
        )
        plan = self.plan(run, meta)
        asked = msgspec.json.encode(meta)
        meta.tool_names = self.tool_names(principal) if tools else []
        meta.nonce = secrets.token_hex(8)
        encoded = msgspec.json.encode(meta)
        info = await self.log.create(
            run,
            owner=self.owner,
            meta=encoded,
            thread=_scoped(principal, thread),
            key=_scoped(principal, key),
            key_hash=hashlib.sha256(asked).hexdigest(),
            lease=self.lease,
        )
        if info.meta != encoded:  # also where the key names a run of the caller's own id
            found = info_of(info, meta_of(info), waiting=self._is_waiting(info.stream))
            found.created_now = False
            return found
        self.adopt(plan, info.epoch, on_disconnect)
        return info_of(info, meta)

    def serves(self, model: str) -> bool:
        """Whether lost runs of this model may be taken over here."""
        return self._models is None or model in self._models

    def tool_names(self, principal: str) -> list[str]:
        """The tools of this process that a principal may use."""
        return self.tools.allowed(principal).names if self.tools is not None else []

    def plan(self, run: str, meta: RunMeta) -> Plan:
        """What a run needs to know, from what its log keeps. Raises `UnknownModelError`."""
        if self._registry is None:
            raise ConflictError("open the runs first: await runs.open()")
        names = [meta.model, *self._fallbacks.get(meta.model, [])]
        return Plan(
            run=run,
            request=meta.request,
            candidates=[self._registry.resolve(name) for name in names],
            model=meta.model,
            thread=meta.thread,
            metadata=meta.metadata,
            principal=meta.principal,
            deadlines=self._deadlines,
            retry=self._retry,
            limits=self._limits,
            tools=self.tools if meta.tools else None,
            stop_when=self._stop_when,
        )

    def adopt(self, plan: Plan, epoch: int, policy: str, taken: Taken | None = None) -> Owned:
        """Own a run from now on; ``taken`` when another worker began it."""
        if self._http is None:
            raise ConflictError("open the runs first: await runs.open()")
        inbox = Inbox()
        records = taken.records if taken else None
        producer = Producer(self.log, plan.run, epoch, records=records, limits=self._bounds)
        first = []
        order = fold = None
        if taken is not None and taken.records:  # else: lost before its first record, so it is new
            order, fold = taken.order, taken.fold
            host = self.owner.partition(":")[0]
            claim = RunClaim(epoch=epoch, owner=host, reason="lost", t=taken.now())
            order.check(claim)
            fold.apply(claim)
            first = [claim]
        loop = Loop(plan, self._http, inbox, order=order, fold=fold)
        loop.sink = producer
        owned = Owned(self.log, loop, inbox, producer, ended=self._ended, first=list(first))
        self.owned[plan.run] = owned
        self._readers.own(plan.run, policy, inbox.put)
        return owned

    def _ended(self, owned: Owned) -> None:
        if self.owned.get(owned.run) is owned:
            del self.owned[owned.run]
            self._readers.disown(owned.run)

    # --- reading -------------------------------------------------------------------------------

    async def info(self, run: str, *, principal: str = "") -> RunInfo:
        """A run's description. Raises `NotFoundError` for an unknown run and for a foreign one."""
        info, meta = await self._checked(run, principal)
        waiting = self._is_waiting(run)
        if not waiting and info.closed is None and run not in self.owned:
            waiting = (await read_run(self.log, run)).fold.state == "waiting"
        return info_of(info, meta, waiting=waiting)

    async def follow(
        self, run: str, *, after: str | int | None = None, principal: str = ""
    ) -> Follower:
        """A reader from after ``after`` (a cursor) on. Raises `CursorError`, `NotFoundError`."""
        await self._checked(run, principal)
        self._readers.came(run)
        try:
            left = self._readers.left
            follower = await open_follower(self.log, run, after, closed=lambda: left(run))
        except BaseException:
            self._readers.left(run)
            raise
        self._readers.stay(run)
        return follower

    async def check_cursor(self, run: str, cursor: str, *, principal: str = "") -> None:
        """Raise `CursorError` unless the run's log holds the very record of ``cursor``. Nobody
        becomes a reader by it, so nobody leaves as one either."""
        await self._checked(run, principal)
        (await open_follower(self.log, run, cursor)).close()

    async def snapshot(self, run: str, *, principal: str = "") -> dict[str, Any]:
        """The run so far: its description and the folded message."""
        info, meta = await self._checked(run, principal)
        owned = self.owned.get(run)
        if owned is not None and owned.producer.tail == owned.loop.fold.seq:
            fold, tail = owned.loop.fold, owned.producer.tail
            cursor = None
        else:
            taken = await read_run(self.log, run)
            fold, tail = taken.fold, len(taken.records)
        if tail:
            page = await self.log.read(run, after=tail - 1, most=1)
            cursor = f"{tail}-{page.records[0][:16].decode()}" if page.records else None
        else:
            cursor = None
        described = info_of(info, meta)
        described.state, described.tail = fold.state, tail
        return {
            **msgspec.to_builtins(described),
            "cursor": cursor,
            "message": msgspec.to_builtins(fold.message()),
            "messages": msgspec.to_builtins(fold.history()),
            "input": msgspec.to_builtins(meta.request.messages),
            "finish_reason": fold.finish_reason,
            "usage": fold.usage,
            "error": fold.error,
            "waiting": fold.waiting,
            "tools": msgspec.to_builtins(list(fold.tools.values())),
        }

    async def thread(self, thread: str, *, principal: str = "") -> list[RunInfo]:
        """The thread's runs of this principal, newest first."""
        found: list[RunInfo] = []
        for run in await self.log.thread(_scoped(principal, thread) or ""):
            try:
                info, meta = await self._checked(run, principal)
            except TokenwireError:
                continue  # expired between the index and the look
            found.append(info_of(info, meta, waiting=self._is_waiting(run)))
        return found

    # --- commands ------------------------------------------------------------------------------

    async def cancel(
        self, run: str, *, principal: str = "", by: str | None = None, reason: str | None = None
    ) -> RunInfo:
        """Stop a run, wherever its worker is. A run that has ended stays as it is."""
        info, meta = await self._checked(run, principal)
        if info.closed is None:
            await self._command(run, Control(command="cancel", by=by, reason=reason))
        return info_of(info, meta, waiting=self._is_waiting(run))

    async def answer_approval(
        self,
        run: str,
        approval_id: str,
        *,
        approved: bool,
        by: str | None = None,
        reason: str | None = None,
        arguments: dict[str, Any] | None = None,
        principal: str = "",
    ) -> None:
        """Answer an approval; the first answer wins. Raises `NotFoundError` for an approval that
        was never asked for, `ConflictError` for one that has its answer, and `InputError` for
        edited arguments that the tool would not take; then the question stays open."""
        info, _ = await self._checked(run, principal)
        fold = await self._state(run)
        tool = next((t for t in fold.tools.values() if t.approval_id == approval_id), None)
        if tool is None:
            raise NotFoundError("this run has not asked for such an approval")
        if tool.approved is not None or tool.done or info.closed is not None:
            raise ConflictError("this approval has its answer; the first one counts")
        if approved and arguments is not None:
            check_edited(self.tools, tool.name, arguments)
        answer = ApprovalAnswer(
            approval_id=approval_id,
            call_id=tool.call_id,
            approved=approved,
            by=by,
            reason=reason,
            arguments=arguments,
        )
        await self._command(run, answer)

    async def answer_tool(
        self,
        run: str,
        call_id: str,
        *,
        content: Any,
        by: str | None = None,
        principal: str = "",
    ) -> None:
        """The result of a tool that runs on the client; the first answer wins."""
        info, meta = await self._checked(run, principal)
        fold = await self._state(run)
        parts = fold.parts.values()
        call = next((p for p in parts if p.attrs.get("call_id") == call_id), None)
        if call is None:
            raise NotFoundError("this run has no such tool call")
        tools = self.tools if meta.tools else None
        ours = tools.get(call.attrs.get("name", "")) if tools is not None else None
        if ours is not None and ours.executor == "server" and ours.allows(principal):
            raise ConflictError("this tool runs on the server; only it can give its result")
        tool = fold.tools.get(call_id)
        if info.closed is not None or (tool is not None and tool.done):
            raise ConflictError("this call has its result; the first one counts")
        await self._command(run, ToolResult(call_id=call_id, content=content, by=by))

    async def delete(self, run: str, *, principal: str = "") -> None:
        """Stop a run and erase everything kept of it."""
        await self._checked(run, principal)
        owned = self.owned.get(run)
        if owned is not None:
            await owned.stop()
        await self.log.delete(run)

    async def _command(self, run: str, command: Control | ApprovalAnswer | ToolResult) -> None:
        await self.log.command(run, encode_command(command))
        owned = self.owned.get(run)
        if owned is not None:
            await owned.check_commands()

    async def _state(self, run: str) -> Any:
        owned = self.owned.get(run)
        return owned.loop.fold if owned is not None else (await read_run(self.log, run)).fold

    async def _checked(self, run: str, principal: str) -> tuple[StreamInfo, RunMeta]:
        unknown = NotFoundError("there is no such run")  # one answer for unknown and foreign
        if not _ID.fullmatch(run):
            raise unknown
        try:
            info = await self.log.describe(run)
        except NotFoundError:
            raise unknown from None
        meta = meta_of(info)
        if meta.principal != principal:
            raise unknown
        return info, meta

    def _is_waiting(self, run: str) -> bool:
        owned = self.owned.get(run)
        return owned is not None and owned.state == "waiting"


async def _let_tools_finish(all_owned: list[Owned], seconds: float) -> None:
    busy = [owned for owned in all_owned if owned.in_tool]
    for owned in busy:
        owned.loop.leaving = True
    end = time.monotonic() + seconds
    while (busy := [owned for owned in busy if owned.in_tool]) and time.monotonic() < end:
        await asyncio.wait([owned.task for owned in busy], timeout=0.02)


def _scoped(principal: str, name: str | None) -> str | None:
    """A caller's name of something, apart from other principals' names."""
    return None if name is None else f"{principal}\x1f{name}"
