"""Conversations on the server: a turn goes on with what its thread holds, one at a time by policy.

Always true: what a turn is given is in the store, not with a client; `admission` says why a turn
that was accepted becomes one run; every access names a principal, whose own conversation it is.

In an app of your own::

    conversations = Conversations(runs)
    question = [user("And then?")]
    meta = RunMeta(model="demo", request=Request(messages=question), thread="chat-1")
    reply = await conversations.say(meta, Continuation(messages=question, follows_head=True))
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec

from tokenwire.errors import (
    ConflictError,
    GoneError,
    KeyReusedError,
    LimitError,
    NotFoundError,
)
from tokenwire.events.message import Message, require_content
from tokenwire.events.principal import parts_of
from tokenwire.observe import tracing
from tokenwire.relay.conversation.admission import Admission, Begins, Change, Content
from tokenwire.relay.conversation.errors import HistoryConflictError, ThreadBusyError
from tokenwire.relay.conversation.history import Turn, policy_of
from tokenwire.relay.conversation.interruption import interrupt
from tokenwire.relay.conversation.posted import Continuation, continuation, key_of_turn
from tokenwire.relay.conversation.promoter import Promoter
from tokenwire.relay.conversation.queue import Entry, Past, Queue, WhileBusy, action
from tokenwire.relay.conversation.rules import ThreadRules, read_rules
from tokenwire.relay.conversation.summary import Summarise
from tokenwire.relay.conversation.turns import Turns
from tokenwire.relay.conversation.words import text_of, words_of
from tokenwire.relay.description import RunInfo, RunMeta, meta_of, scope_of_run
from tokenwire.relay.members.roster import MemberRole
from tokenwire.run.stream import new_run_id

if TYPE_CHECKING:
    from tokenwire.relay.runs import Runs

__all__ = ["Conversations", "Reply"]

_EDIT_TRIES = 8


class Reply(msgspec.Struct, kw_only=True):
    """What became of a turn. ``run``: its id, from the beginning; ``info``: its run, once it has
    begun; ``position``: its place in the queue until then, from 1. ``is_repeated``: this very turn
    was there already; ``while_busy``: the rule that it came under, unless it is a repetition;
    ``steers``: the run under way that was given it as words between its steps; should that end
    before, the turn gets its own."""

    run: str
    info: RunInfo | None = None
    position: int | None = None
    is_repeated: bool = False
    steers: str | None = None
    while_busy: WhileBusy | None = None


class Conversations:
    """The conversations of ``runs``. ``policy``: how much of one a model is given (`policy_of`),
    and ``while_busy``: what a turn does while another one is under way, where neither the request
    nor the conversation says;
    ``summarise``: makes the text in place of turns that fall out of a budget of tokens;
    ``begins``: is told of turns that waited and become runs. Methods raise `LogError` when the
    store does not answer."""

    def __init__(
        self,
        runs: Runs,
        *,
        policy: str = "all",
        while_busy: WhileBusy = "parallel",
        summarise: Summarise | None = None,
        begins: Begins | None = None,
    ) -> None:
        self._runs, self._store = runs, runs.store
        self._rules = ThreadRules(history=str(policy_of(policy)), while_busy=while_busy)
        self._members = runs.members
        self.admission = Admission(runs.worker, runs.starts, runs.members, summarise, begins)
        runs.members.on_removed = self.admission.drop_of
        self._promoter = Promoter(runs.worker, self.admission)

    def open(self) -> None:
        """Begin to start what waits; ``runs`` is open."""
        self._promoter.open()

    async def aclose(self) -> None:
        """Stop, before ``runs`` is closed."""
        await self._promoter.aclose()

    # --- reading -------------------------------------------------------------------------------

    async def turns(self, principal: str, thread: str, role: MemberRole = "read") -> Turns:
        """The turns of a conversation."""
        access = await self._members.enter(principal, thread, role)
        return Turns(self._store, access.scope)

    async def queue(self, principal: str, thread: str, *, waits: bool = True) -> Queue:
        """Head and queue of a conversation, up to date; unless it ``waits``, a turn may be starting
        for which a summary is being made."""
        access = await self._members.enter(principal, thread)
        _, queue = await self.admission.settled(access.scope, waits=waits)
        return queue

    async def own_rules(self, principal: str, thread: str) -> ThreadRules:
        """The rules that a conversation sets itself."""
        access = await self._members.enter(principal, thread)
        return await read_rules(self._store, access.scope)

    async def rules(self, principal: str, thread: str) -> ThreadRules:
        """The rules of a turn whose request names none: the conversation's, else the server's."""
        return self.in_force(await self.own_rules(principal, thread))

    def in_force(self, rules: ThreadRules) -> ThreadRules:
        """The ``rules`` of a conversation, and the server's where it sets none."""
        return rules.over(self._rules)

    async def page(
        self, principal: str, thread: str, *, most: int, before: str | None = None
    ) -> tuple[list[Turn], str | None]:
        """The newest ``most`` turns of the conversation's branch, oldest first; ``before``: of
        those older than this turn. And the turn to name as ``before`` for older ones, if there are
        any. Raises `NotFoundError` for an unknown turn."""
        turns = await self.turns(principal, thread)
        if before is None:
            start = (await self.queue(principal, thread)).head
        else:
            turn = await turns.get(before)
            if turn is None:
                raise NotFoundError("no such turn in this conversation", what="turn")
            start = turn.parent
        page = await turns.branch(start, most=most + 1)
        if len(page) > most:
            return page[1:], page[1].run
        return page, None

    # --- how it goes on --------------------------------------------------------------------------

    async def after(
        self,
        principal: str,
        thread: str,
        posted: list[Message],
        *,
        edited: str | None = None,
        regenerates: bool = False,
    ) -> Continuation:
        """How a posted transcript, or its end, continues the conversation (`continuation`)."""
        if not regenerates and not any(message.id for message in posted):
            return Continuation(messages=posted, follows_head=True)
        queue = await self.queue(principal, thread)
        turns = await (await self.turns(principal, thread)).all(queue.head, *queue.open)
        return continuation(turns, posted, head=queue.head, edited=edited, regenerates=regenerates)

    async def instead(
        self, principal: str, thread: str, run: str, messages: list[Message] | None
    ) -> Continuation:
        """How the conversation goes on in another branch than with ``run``: with other
        ``messages`` (an edit), or with the same (the answer is made anew). Raises
        `NotFoundError`."""
        turn = await (await self.turns(principal, thread, "write")).get(run)
        if turn is None or turn.is_erased:
            raise NotFoundError("no such turn in this conversation", what="turn")
        return Continuation(messages=messages or turn.messages, parent=turn.parent)

    async def behind(
        self, principal: str, thread: str, run: str, messages: list[Message]
    ) -> Continuation:
        """How the conversation goes on after the turn of ``run``. Raises `NotFoundError`."""
        turn = await (await self.turns(principal, thread, "write")).get(run)
        if turn is None:
            raise NotFoundError("no such turn in this conversation", what="turn")
        return Continuation(messages=messages, parent=run)

    async def set_head(self, principal: str, thread: str, run: str) -> Queue:
        """Choose the branch that ends with ``run``: the next turn continues it, on every device.
        Raises `NotFoundError`."""
        access = await self._members.enter(principal, thread, "write")
        turn = await Turns(self._store, access.scope).get(run)
        if turn is None or turn.is_erased:
            raise NotFoundError("no such turn in this conversation", what="turn")
        return await self.admission.change(
            access.scope, lambda queue: msgspec.structs.replace(queue, head=run)
        )

    # --- saying --------------------------------------------------------------------------------

    async def say(
        self,
        meta: RunMeta,
        following: Continuation,
        *,
        run_id: str | None = None,
        key: str | None = None,
        policy: str | None = None,
        while_busy: WhileBusy | None = None,
        by: str | None = None,
    ) -> Reply:
        """Go on with the conversation ``meta.thread``, as ``following`` says; ``meta``: how it is
        answered. ``policy``, ``while_busy``: default as `rules` says. The rest as `Runs.start`,
        which says what is raised; and `ThreadBusyError`, and `LimitError` for a full queue."""
        meta = await self._runs.starts.placed(meta)
        if following.repeats is not None:
            info = await self._runs.info(following.repeats, principal=meta.principal)
            info.created_now = False
            return Reply(run=info.id, info=info, is_repeated=True)
        require_content(following.messages)
        request = msgspec.structs.replace(meta.request, messages=following.messages)
        meta = msgspec.structs.replace(meta, request=request)
        run = run_id or new_run_id()
        rules = ThreadRules(history=policy, while_busy=while_busy)
        if policy is None or while_busy is None:
            rules = rules.over(await self.rules(meta.principal, meta.thread or ""))
        # Two requests with one new message, at once: it is one turn.
        by_message = key_of_turn(meta.thread or "", following) if key is None else None
        if by_message is None:
            return await self._say(meta, following, run, key, rules, by)
        try:
            return await self._say(meta, following, run, by_message, rules, by)
        except KeyReusedError as error:
            raise HistoryConflictError(
                "another message of this id is stored; read the conversation again",
                field="messages",
            ) from error

    async def _say(
        self,
        meta: RunMeta,
        following: Continuation,
        run: str,
        key: str | None,
        rules: ThreadRules,
        by: str | None,
    ) -> Reply:
        starts, by = self._runs.starts, by or parts_of(meta.principal)[0] or None
        signature = starts.checked(run, meta)
        starts.check_plan(run, meta)  # what cannot start is refused now, not in its turn
        async with starts.once(meta.principal, key):
            repeated = await self._of_key(meta, key, signature, by)
            if repeated is not None:
                return repeated
            access = await self._members.enter(meta.principal, meta.thread or "", "write")
            revised = await starts.reviewed(run, meta, key)
            content = Content(
                meta=msgspec.structs.replace(revised, trace=tracing.above()),
                original=meta if revised is not meta else None,
                signature=signature,
                member=access.member,
                policy=str(policy_of(rules.history or "all")),
                parent=following.parent,
                follows_head=following.follows_head,
            )
            entry = Entry(
                run=run,
                content=f"{run}.0",
                text=text_of(content.meta.request.messages),
                key=key,
                by=by,
                created=time.time(),
            )
            reply = await self._admit(entry, content, rules.while_busy or "parallel")
            reply.while_busy = None if reply.is_repeated else rules.while_busy
            return reply

    async def _of_key(
        self, meta: RunMeta, key: str | None, signature: str, by: str | None
    ) -> Reply | None:
        """The turn that an idempotency key names already, whether it has begun or not. Raises
        `KeyReusedError`."""
        if key is None:
            return None
        info = await self._runs.starts.of_key(meta, key, signature)
        if info is not None:
            return Reply(run=info.id, info=info, is_repeated=True)
        scope = scope_of_run(meta) or ""
        _, queue = await self.admission.settled(scope)
        same = queue.of_key(key, by)
        if isinstance(same, Past):
            return _past(same, signature)
        if not isinstance(same, Entry):
            return None
        await self.admission.check_same(scope, same, signature)
        reply = await self._reply(same.run, meta.principal, queue, is_repeated=True)
        reply.steers = same.steers if reply.info is None else None
        return reply

    async def _admit(self, entry: Entry, content: Content, while_busy: WhileBusy) -> Reply:
        meta, admission = content.meta, self.admission
        scope = scope_of_run(meta) or ""
        what = "start"
        same: Entry | Past | str | None = None

        def change(queue: Queue) -> Queue | None:
            nonlocal what, same
            same = queue.of_key(entry.key, entry.by)
            if same is not None:
                return None
            what = action(queue, while_busy)
            if what == "start":
                return admission.starting(queue, entry)
            if what != "steer":
                return queue.add(entry, first=what == "interrupt")
            if target is None or queue.open != [target]:
                raise ThreadBusyError("the answer cannot be steered now", reason="cannot_steer")
            return queue.add(msgspec.structs.replace(entry, steers=target))

        target = None
        if while_busy == "steer":
            target = await self._steerable(scope, content)
        await admission.keep(scope, entry.content, content)
        try:
            queue = await admission.change(scope, change)
        except (ThreadBusyError, LimitError):
            await admission.drop(scope, entry.content)
            raise
        if same is not None:
            await admission.drop(scope, entry.content)
            reply = await self._of_key(meta, entry.key, content.signature, entry.by)
            run = same if isinstance(same, str) else same.run
            return reply or await self._reply(run, meta.principal, queue, is_repeated=True)
        if what == "steer" and target is not None:
            await self._runs.steer(
                target,
                entry.run,
                words_of(content.meta.request.messages),
                by=entry.by,
                principal=meta.principal,
            )
            return Reply(run=entry.run, steers=target, position=1)
        if what == "interrupt":
            queue = await interrupt(
                self._runs, admission, scope, queue, entry.run, principal=meta.principal
            )
        reply = await self._reply(entry.run, meta.principal, queue)
        if what == "start" and reply.info is None:
            # They were removed; or its key is that of a run that was started without the queue.
            await self._members.enter(meta.principal, meta.thread or "", "write")
            reply = await self._of_key(meta, entry.key, content.signature, entry.by) or reply
        return reply

    async def _steerable(self, scope: str, content: Content) -> str | None:
        """The run under way that takes words between its steps: one that works, and is a model's
        own. None where there is none, or the turn is more than words."""
        _, queue = await self.admission.settled(scope)
        if len(queue.open) != 1 or not words_of(content.meta.request.messages):
            return None
        run = queue.open[0]
        try:  # by its log, as another process may own it
            fold = await self._runs.fold(run, principal=content.meta.principal)
            meta = meta_of(await self._store.describe(run))
        except (NotFoundError, GoneError):
            return None
        is_models = meta.agent is None and meta.prepare is None and meta.remote is None
        return run if fold.status == "running" and is_models else None

    async def _reply(
        self, run: str, principal: str, queue: Queue, *, is_repeated: bool = False
    ) -> Reply:
        info = await self._info(run, principal)
        position = None
        if info is None:
            runs = [entry.run for entry in queue.waiting]
            position = runs.index(run) + 1 if run in runs else 1
        elif is_repeated:
            info.created_now = False
        return Reply(run=run, info=info, position=position, is_repeated=is_repeated)

    async def _info(self, run: str, principal: str) -> RunInfo | None:
        try:
            return await self._runs.info(run, principal=principal)
        except NotFoundError:
            return None

    # --- the queue -----------------------------------------------------------------------------

    @asynccontextmanager
    async def _waiting(self, scope: str, run: str) -> AsyncIterator[None]:
        """A turn that is not in the queue any more has begun: a conflict, and no unknown turn."""
        try:
            yield
        except NotFoundError:
            if await Turns(self._store, scope).get(run) is None:
                raise
            raise ConflictError("this turn has begun; it waits no more") from None

    async def waiting(
        self, principal: str, thread: str, run: str
    ) -> tuple[Entry, list[Message], Queue]:
        """A turn that waits, all that it asks (as the caller sent it), and the queue. Raises
        `NotFoundError`, and `ConflictError` when the turn has begun."""
        access, admission = await self._members.enter(principal, thread), self.admission
        scope = access.scope
        for _ in range(_EDIT_TRIES):
            _, queue = await admission.settled(scope)
            async with self._waiting(scope, run):
                entry = queue.entry(run)
            content = await admission.content(scope, entry)
            if content is not None:
                return entry, (content.original or content.meta).request.messages, queue
        raise ConflictError("this turn is being edited elsewhere; look at it again")

    async def edit(self, principal: str, thread: str, run: str, messages: list[Message]) -> Queue:
        """Replace what a turn asks that waits, which ``before_start`` sees as it saw the first
        words. Raises what that refuses with, `NotFoundError`, `ConflictError` when the turn has
        begun, and `RoleError` for the turn of another member, unless an owner edits it."""
        require_content(messages)
        access, admission = await self._members.enter(principal, thread, "write"), self.admission
        scope = access.scope
        for _ in range(_EDIT_TRIES):
            _, queue = await admission.settled(scope)
            async with self._waiting(scope, run):
                entry = queue.entry_for(run, access)
            content = await admission.content(scope, entry)
            if content is None:
                continue  # it has begun meanwhile, or was edited elsewhere
            original = content.original or content.meta
            request = msgspec.structs.replace(original.request, messages=messages)
            original = msgspec.structs.replace(original, request=request)
            content.meta = await self._runs.starts.reviewed(run, original, entry.key)
            content.original = original if content.meta is not original else None
            edited = msgspec.structs.replace(
                entry,
                content=f"{run}.{secrets.token_hex(4)}",
                text=text_of(content.meta.request.messages),
                edits=entry.edits + 1,
            )
            await admission.keep(scope, edited.content, content)
            try:
                async with self._waiting(scope, run):
                    queue = await admission.change(scope, _swap(entry, edited))
            except (NotFoundError, ConflictError):
                await admission.drop(scope, edited.content)
                raise
            if edited in queue.waiting:
                await admission.drop(scope, entry.content)
                return queue
            await admission.drop(scope, edited.content)
        raise ConflictError("this turn is being edited elsewhere; look at it again")

    async def withdraw(self, principal: str, thread: str, run: str) -> Queue:
        """Drop a turn that waits. Raises as `edit`."""
        access = await self._members.enter(principal, thread, "write")
        scope = access.scope
        dropped: list[Entry] = []

        def change(queue: Queue) -> Queue:
            dropped[:] = [queue.entry_for(run, access)]
            return queue.closed(dropped[0], signature)

        async with self._waiting(scope, run):
            _, queue = await self.admission.settled(scope)
            content = await self.admission.content(scope, queue.entry(run))
            signature = content.signature if content is not None else ""
            queue = await self.admission.change(scope, change)
        for entry in dropped:
            await self.admission.drop(scope, entry.content)
        return queue

    async def send_now(self, principal: str, thread: str, run: str) -> Reply:
        """Let a turn that waits interrupt the one under way. Raises as `edit`."""
        access = await self._members.enter(principal, thread, "write")
        scope = access.scope

        def change(queue: Queue) -> Queue:
            return queue.without(run).add(queue.entry_for(run, access), first=True)

        async with self._waiting(scope, run):
            queue = await self.admission.change(scope, change)
        runs, admission = self._runs, self.admission
        queue = await interrupt(runs, admission, scope, queue, run, principal=principal)
        return await self._reply(run, principal, queue)


def _past(past: Past, signature: str) -> Reply:
    """What a turn that came again is answered, whose first copy has no run of its own."""
    if past.signature != signature:
        raise KeyReusedError("this idempotency key was used with another request")
    if past.steers is None:
        raise ConflictError("this turn was withdrawn before it began", reason="withdrawn")
    return Reply(run=past.run, steers=past.steers, position=1, is_repeated=True)


def _swap(old: Entry, new: Entry) -> Change:
    return lambda queue: queue.swap(old, new)
