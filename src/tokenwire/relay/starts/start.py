"""The start of a run: one description, stored once.

Always true: nothing is created before everything is checked; one idempotency key starts one run,
and ``before_start`` is called once for it in this process, however often the request comes; a run
that does anything was created while who started it might write in its conversation.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

import msgspec

from tokenwire.errors import (
    BusyError,
    ConflictError,
    GoneError,
    InputError,
    NotFoundError,
    TokenwireError,
)
from tokenwire.events.message import Message
from tokenwire.events.names import checked_thread
from tokenwire.log.base import LogInfo
from tokenwire.observe import tracing
from tokenwire.relay.conversation.scope import scope_of
from tokenwire.relay.description import (
    RunInfo,
    RunMeta,
    checked_meta,
    info_of,
    meta_of,
    scope_of_run,
)
from tokenwire.relay.members.access import Access
from tokenwire.relay.members.members import Members
from tokenwire.relay.readers import ON_DISCONNECT
from tokenwire.relay.starts.request import StartRequest, reviewed
from tokenwire.relay.worker import Worker
from tokenwire.run.hooks.hook import Hook
from tokenwire.run.plan import Plan
from tokenwire.run.stream import new_run_id

__all__ = ["RUN_ID", "Starts", "scoped"]

RUN_ID = re.compile(r"[A-Za-z0-9_-]{16,64}")
#: So begin the logs of Durable Streams, which no run may be called.
_STREAMS = "ds_"


class Starts:
    """The starts of one process."""

    def __init__(self, worker: Worker, members: Members) -> None:
        self._worker, self._members = worker, members
        hooks = worker.hooks
        self._hook: Hook | None = hooks.before_start if hooks is not None else None
        #: One start at a time for each idempotency key, where a hook is to be called once.
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def start(self, run: str, meta: RunMeta, *, key: str | None) -> RunInfo:
        """The run, new or (by its key) an existing one. Raises as `Runs.start` does."""
        meta, access = await self._placed(meta)
        signature = self.checked(run, meta)
        async with self.once(meta.principal, key):
            if self._hook is not None and key is not None:
                info = await self.of_key(meta, key, signature)
                if info is not None:
                    return info
            changed = await self.reviewed(run, meta, key)
            return await self.begin(run, changed, key=key, signature=signature, access=access)

    async def placed(self, meta: RunMeta) -> RunMeta:
        """The description with the conversation that its principal means. Raises `NotFoundError`
        for one of others, and `RoleError` for a member who may not write there."""
        return (await self._placed(meta))[0]

    async def _placed(self, meta: RunMeta) -> tuple[RunMeta, Access | None]:
        """The same, and the right to write there; None where nobody can lose it."""
        checked_thread(meta.thread)
        if meta.thread is None or not meta.principal:
            return meta, None
        access = await self._members.enter(meta.principal, meta.thread, "write")
        is_own = access.scope == scope_of(meta.principal, access.thread)
        scope = None if is_own else access.scope
        placed = msgspec.structs.replace(meta, thread=access.thread, scope=scope)
        return placed, access if access.id is not None else None

    def checked(self, run: str, meta: RunMeta) -> str:
        """The signature of a request that may start a run; it notes the agent's version in
        ``meta``. Raises as `start`, for what no process can start."""
        if self._worker.draining:
            raise BusyError("this server is stopping; retry", retry_after=2)
        if not ON_DISCONNECT.fullmatch(meta.on_disconnect):
            raise InputError("on_disconnect must be 'continue', 'stop' or 'stop:SECONDS'")
        checked_thread(meta.thread)
        if not RUN_ID.fullmatch(run) or run.startswith(_STREAMS):
            raise InputError("a run id has 16 to 64 of the characters A-Z a-z 0-9 _ -")
        meta.agent = self._version(meta.model)
        # The same request is the same, whatever its budgets are by then.
        same = msgspec.structs.replace(meta, budgets=None)
        return hashlib.sha256(checked_meta(same)).hexdigest()

    def check_plan(self, run: str, meta: RunMeta) -> None:
        """Raise as `begin` would where this process cannot start the run; nothing is created."""
        meta = msgspec.structs.replace(meta, agent=self._version(meta.model))
        self._worker.complete(meta)
        self._worker.plan(run, meta)

    @asynccontextmanager
    async def once(self, principal: str, key: str | None) -> AsyncIterator[None]:
        """One start at a time for an idempotency key, where a hook is to be called once."""
        name = scoped(principal, key)
        if self._hook is None or name is None:
            yield
            return
        lock = self._locks.setdefault(name, asyncio.Lock())
        async with lock:
            yield

    async def of_key(self, meta: RunMeta, key: str, signature: str) -> RunInfo | None:
        """The run that the key names already. Raises `KeyReusedError` for another request."""
        name, store = scoped(meta.principal, key) or "", self._worker.store
        named = await store.named(name)
        try:
            if named is None:
                return None
            await store.describe(named)
        except (NotFoundError, GoneError):
            return None  # another process is about to create it, or it was erased
        return await self._repeat(new_run_id(), meta, name, signature)

    async def reviewed(self, run: str, meta: RunMeta, key: str | None) -> RunMeta:
        """The description as ``before_start`` changes it, checked again."""
        hook = self._hook
        if hook is None:
            return meta
        worker = self._worker
        request = StartRequest(run, meta, key=key, limits=meta.limits, app=worker.app)
        changed = await reviewed(hook, request)
        try:
            if changed.model != meta.model and not worker.serves(changed.model):
                raise InputError(f"the model '{changed.model[:80]}' is not served here")
            changed.agent = self._version(changed.model)
            checked_meta(changed)
            if changed.model != meta.model:
                worker.plan(run, changed)
        except TokenwireError as error:  # a mistake of the application, not of the caller
            raise hook.failure(run, error) from error
        if key is not None and changed.request.messages != meta.request.messages:
            changed.received = meta.request.messages
        return changed

    def _version(self, model: str) -> str | None:
        """The version of the agent of this name; None for a model."""
        agent = self._worker.agents.get(model)
        return agent.version if agent is not None else None

    async def begin(
        self,
        run: str,
        meta: RunMeta,
        *,
        key: str | None,
        signature: str,
        before: list[Message] | None = None,
        is_only: bool = True,
        access: Access | None = None,
    ) -> RunInfo:
        """Create a run of this process, or describe the one that ``key`` names. ``before``: the
        messages of its conversation, which ``meta`` only names. ``is_only``: no other process may
        be creating the very same run. ``access``: the right by which it was asked for, which must
        still be there."""
        worker, whole = self._worker, meta
        meta.agent = self._version(meta.model)
        worker.complete(meta)
        if before:
            request = meta.request
            request = msgspec.structs.replace(request, messages=[*before, *request.messages])
            whole = msgspec.structs.replace(meta, request=request)
        plan = worker.plan(run, whole)
        name = scoped(meta.principal, key)
        # Before it is stored: another worker that takes it over reads there what it is to link to.
        meta.trace, is_new = tracing.open_run(plan.started(), meta.trace), False
        try:
            info, encoded = await self._create(run, meta, name, signature, plan, is_only=is_only)
            is_new = info.meta == encoded
        finally:
            if not is_new:
                tracing.forget_run(run)
        if not is_new:
            return await _existing(info, self._worker)
        if access is not None:
            await self._confirm(run, access)
        worker.adopt(plan, info.epoch, meta.on_disconnect)
        return info_of(info, meta)

    async def _confirm(self, run: str, access: Access) -> None:
        """Take back a run that was created after the removal of who started it, before it does
        anything. Raises `NotFoundError`, and `RoleError` where they may only read now."""
        worker = self._worker
        current = await self._members.in_scope(access.scope, access.principal)
        if current is not None and current.permits("write"):
            return
        if worker.outbox is not None:
            await worker.outbox.forget(run)
        await worker.store.delete(run)
        worker.feeds.announce_run(access.scope, run)
        if current is None:
            raise NotFoundError("no such conversation", what="thread")
        current.require("write")

    async def _create(
        self,
        run: str,
        meta: RunMeta,
        name: str | None,
        signature: str,
        plan: Plan | None,
        *,
        is_only: bool = True,
    ) -> tuple[LogInfo, bytes]:
        worker = self._worker
        meta.nonce = secrets.token_hex(8)
        encoded = msgspec.json.encode(meta)
        outbox = worker.outbox
        noted = plan is not None and outbox is not None and await outbox.expect(run)
        try:
            info = await worker.store.create(
                run,
                owner=worker.owner,
                meta=encoded,
                thread=scope_of_run(meta),
                key=name,
                key_hash=signature,
                lease=worker.lease,
            )
        except Exception as error:
            # The run of another process that created the very same one is to be told of.
            is_there = isinstance(error, ConflictError) and not is_only
            if noted and outbox is not None and not is_there:
                await outbox.forget(run)
            raise
        # Also where the key names a run of the caller's own id.
        if info.meta != encoded and noted and outbox is not None and info.log != run:
            await outbox.forget(run)
        return info, encoded

    async def _repeat(self, run: str, meta: RunMeta, name: str, signature: str) -> RunInfo:
        """The run that the key names already. Raises `KeyReusedError` for another request."""
        info, encoded = await self._create(run, meta, name, signature, None)
        if info.meta == encoded:  # that run was erased at this very moment
            await self._worker.store.delete(run)
            raise BusyError("the run of this idempotency key was erased; retry", retry_after=1)
        return await _existing(info, self._worker)


async def _existing(info: LogInfo, worker: Worker) -> RunInfo:
    existing = info_of(info, meta_of(info), waiting=await worker.waits(info))
    existing.created_now = False
    return existing


def scoped(principal: str, name: str | None) -> str | None:
    """A caller's name for something, separate from other principals' names."""
    return None if name is None else scope_of(principal, name)
