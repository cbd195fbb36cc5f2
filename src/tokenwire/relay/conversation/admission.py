"""How a turn gets its run: head and queue by compare and swap, and the creation by whoever sees it.

Always true: a turn that was accepted becomes one run, never two, whichever process dies; it gets
the id that it has had from the beginning; no lease of a conversation exists; while a summary is
made, only turns of the same conversation wait.

Two processes at once::

    A   swap: starting = a          create run a                    swap: head = a, open = [a]
    B                    sees it:   create run a (it is there)      the same swap (it is done)
                         and then its own turn waits, or starts beside, as ``while_busy`` says
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from weakref import WeakValueDictionary

import msgspec

from tokenwire.errors import (
    AgentChangedError,
    ConflictError,
    GoneError,
    KeyReusedError,
    NotFoundError,
    UnknownModelError,
)
from tokenwire.events.message import Message
from tokenwire.log.base import Store
from tokenwire.relay.conversation.history import (
    History,
    messages_of_turns,
    policy_of,
    selection,
)
from tokenwire.relay.conversation.queue import STATE, Entry, Queue
from tokenwire.relay.conversation.rules import forget_rules
from tokenwire.relay.conversation.summary import SUMMARY_SECONDS, Summarise, summary_of
from tokenwire.relay.conversation.turns import Turns
from tokenwire.relay.description import RunMeta, meta_of
from tokenwire.relay.feed.segment import forget_feed
from tokenwire.relay.feed.state import CONVERSATION
from tokenwire.relay.members.members import Members
from tokenwire.relay.members.roster import MemberRole
from tokenwire.relay.replay import read_run
from tokenwire.relay.starts.start import Starts
from tokenwire.relay.worker import Worker

__all__ = ["Admission", "Begins", "Content", "forget_conversation"]

_log = logging.getLogger("tokenwire.relay")

#: The documents of a conversation beside `STATE`: which conversations may have something to
#: start; and, a kind for each conversation, the requests of turns without a run.
_PENDING, _CONTENT = "conversation-pending", "conversation-content:"
#: Seconds for which a turn that is starting is left to the process that starts it, and between two
#: looks at it; and how much longer where a summary may have to be made.
_HELP_SECONDS, _LOOK_SECONDS = 0.5, 0.02
#: Conversations that one look promotes.
_MOST_PENDING = 10_000
#: Seconds for which a note of a conversation stays where there is nothing to start: less than
#: those between two looks of `tokenwire.relay.conversation.promoter`.
_NOTE_SECONDS = 1.0

#: What a change makes of a queue; None: nothing is to be changed.
Change = Callable[[Queue], Queue | None]
#: Told of principal and run of a turn that waited, before it becomes a run.
Begins = Callable[[str, str], Awaitable[None]]


class Content(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The request of a turn that has no run yet, as the application wants it. ``signature``: of
    what the caller sent, for its idempotency key; ``member``: the membership of who asks, None in a
    turn from before turns named one; ``parent``: the turn that it continues, unless it
    ``follows_head``; ``policy``: how much of the conversation the model is given; ``original``:
    the request as it came, where the application wants another one."""

    meta: RunMeta
    original: RunMeta | None = None
    signature: str = ""
    member: str | None = None
    policy: str = "all"
    parent: str | None = None
    follows_head: bool = True


class Admission:
    """The queues of a store, and the ``starts`` that create their runs; ``members``: whose turn is
    answered must still be one when it begins. Methods take the name of
    a conversation (`scope_of`) and raise `LogError`."""

    def __init__(
        self,
        worker: Worker,
        starts: Starts,
        members: Members,
        summarise: Summarise | None = None,
        begins: Begins | None = None,
    ) -> None:
        self._worker, self._store, self._begins = worker, worker.store, begins
        self._starts, self._members = starts, members
        self._summarise = summarise
        #: Turns that this process has begun to start.
        self._mine: set[str] = set()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        #: Notes of conversations without anything to start, and since when they were seen here.
        self._idle: dict[str, tuple[bytes, float]] = {}

    # --- reading -------------------------------------------------------------------------------

    async def settled(self, scope: str, *, waits: bool = True) -> tuple[bytes | None, Queue]:
        """The queue as it is stored, and as a value, after what was to be done for it: a turn that
        is starting has its run, runs that have ended are not open, and a run that was started
        without the queue is its head. Unless it ``waits``, a turn that is being prepared may be
        starting still."""
        while True:
            data, queue = await self._stored(scope)
            if queue.starting is not None:
                if queue.starting.is_preparing and not waits:
                    return data, queue
                if self._is_anothers(queue.starting):
                    await asyncio.sleep(_LOOK_SECONDS)
                    continue
                if not await self._finish(scope, data, queue, queue.starting):
                    return data, queue  # only a process with that model or agent can
                continue
            current = await self._refreshed(scope, queue)
            if current == queue:
                return data, queue
            encoded = current.encoded()
            if await self._store.swap_document(STATE, scope, data, encoded):
                self._tell(scope, queue, current)
                return encoded, current

    async def _stored(self, scope: str) -> tuple[bytes | None, Queue]:
        data = await self._store.document(STATE, scope)
        return data, msgspec.json.decode(data, type=Queue) if data is not None else Queue()

    async def pending(self) -> list[str]:
        """Conversations that may have a turn to start."""
        if not await self._store.count_documents(_PENDING):
            return []
        return list(await self._store.documents(_PENDING, most=_MOST_PENDING))

    async def is_pending(self, scope: str) -> bool:
        """Whether a conversation may have a turn to start."""
        return await self._store.document(_PENDING, scope) is not None

    async def content(self, scope: str, entry: Entry) -> Content | None:
        """The request of a turn; None when its run is there."""
        data = await self._store.document(_CONTENT + scope, entry.content)
        return msgspec.json.decode(data, type=Content) if data is not None else None

    # --- changing ------------------------------------------------------------------------------

    async def change(self, scope: str, change: Change) -> Queue:
        """Change the queue: ``change`` is asked again where somebody else was quicker. The first
        turn of a queue that nothing precedes is started before it is asked, so that nobody
        overtakes it. What it raises is raised."""
        while True:
            data, queue = await self.settled(scope)
            if await self._promoted(scope, data, queue):
                continue
            changed = change(queue)
            if changed is None:
                return queue
            if changed.starting is not None or changed.waiting:
                # Before the change: who looks for turns to start must find the conversation.
                await self._note(scope)
            if not await self._store.swap_document(STATE, scope, data, changed.encoded()):
                continue
            self._tell(scope, queue, changed)
            if changed.waiting and await self._store.document(_PENDING, scope) is None:
                await self._note(scope)  # somebody saw the queue empty meanwhile
            if changed.starting is not None:
                _, changed = await self.settled(scope)
            return changed

    async def promote(self, scope: str) -> None:
        """Start the first turn of the queue if none is under way."""
        note = await self._store.document(_PENDING, scope)
        while True:
            data, queue = await self.settled(scope)
            if not await self._promoted(scope, data, queue):
                break
        if note is None or queue.waiting or queue.starting is not None:
            self._idle.pop(scope, None)
        elif self._is_stale(scope, note):
            await self._store.swap_document(_PENDING, scope, note, None)
            _, queue = await self._stored(scope)
            if queue.waiting or queue.starting is not None:
                await self._note(scope)

    async def keep(self, scope: str, name: str, content: Content) -> None:
        """Store the request of a turn, before the turn is in the queue."""
        await self._store.set_document(_CONTENT + scope, name, msgspec.json.encode(content))

    async def check_same(self, scope: str, entry: Entry, signature: str) -> None:
        """Raise `KeyReusedError` where the turn of a key that comes again asks something else."""
        earlier = await self.content(scope, entry)
        if earlier is not None and earlier.signature != signature:
            raise KeyReusedError("this idempotency key was used with another request")

    async def drop_of(self, scope: str, principal: str) -> None:
        """Drop the turns of ``principal`` that wait, and whose membership has ended; not those that
        were given to an answer under way, which are dropped in their turn if it did not take
        them. One that is starting has its run, or never will, when this returns; one that is being
        prepared never will, as its author is asked for afterwards."""
        is_first = True
        while True:
            data, queue = await self._stored(scope)
            changed = queue
            if data is None:
                return
            if is_first and queue.starting is not None and not queue.starting.is_preparing:
                is_first = False
                content = await self.content(scope, queue.starting)
                if content is None or content.meta.principal == principal:
                    await self.settled(scope)
                    continue
            dropped: list[Entry] = []
            for entry in queue.waiting:
                content = await self.content(scope, entry) if entry.steers is None else None
                if content is None or content.meta.principal != principal:
                    continue
                if not await self._is_member(scope, content):
                    changed = changed.closed(entry, content.signature)
                    dropped.append(entry)
            if not dropped:
                return
            if await self._store.swap_document(STATE, scope, data, changed.encoded()):
                self._tell(scope, queue, changed)
                for entry in dropped:
                    await self.drop(scope, entry.content)
                return

    async def drop(self, scope: str, name: str) -> None:
        """Erase the request of a turn that has its run, or will have none."""
        await self._store.set_document(_CONTENT + scope, name, None)

    # --- inside --------------------------------------------------------------------------------

    def _is_anothers(self, entry: Entry) -> bool:
        """Whether a process that lives is probably creating this run now. If two do it is created
        once all the same; a summary would be made twice."""
        patience = _HELP_SECONDS + (SUMMARY_SECONDS if entry.is_preparing else 0.0)
        age = time.time() - entry.since
        return entry.run not in self._mine and 0 <= age < patience

    def starting(self, queue: Queue, entry: Entry) -> Queue:
        """``queue`` with ``entry`` about to start, here unless this process dies."""
        self._mine.add(entry.run)
        prepares = self._summarise is not None
        return queue.start(msgspec.structs.replace(entry, since=time.time(), is_preparing=prepares))

    async def _prepared(self, scope: str, run: str) -> bytes | None:
        """The queue, as stored, in which the turn has all that its model is given: nobody else
        prepares it from now on. None where somebody else was quicker."""
        while True:
            data, queue = await self._stored(scope)
            changed = queue.prepared(run, time.time())
            if changed is None:
                self._mine.discard(run)
                return None
            encoded = changed.encoded()
            if await self._store.swap_document(STATE, scope, data, encoded):
                self._mine.add(run)
                return encoded

    def _tell(self, scope: str, before: Queue, after: Queue) -> None:
        """Head and queue were changed. A run that is open no more may have ended unseen."""
        feeds = self._worker.feeds
        for run in before.open:
            if run not in after.open:
                feeds.announce_run(scope, run)
        if before.waiting != after.waiting or before.head != after.head:
            feeds.announce_queue(scope)

    def _is_stale(self, scope: str, note: bytes) -> bool:
        """Whether a note was there for a while, and nothing to start. Whoever writes one changes
        the queue right after, and may die before it could write the note again."""
        now = time.monotonic()
        earlier, since = self._idle.get(scope, (b"", now))
        if earlier == note and now - since >= _NOTE_SECONDS:
            del self._idle[scope]
            return True
        if earlier != note:
            if len(self._idle) >= _MOST_PENDING:
                self._idle.clear()
            self._idle[scope] = note, now
        return False

    async def _note(self, scope: str) -> None:
        await self._store.set_document(_PENDING, scope, secrets.token_hex(8).encode())

    async def _promoted(self, scope: str, data: bytes | None, queue: Queue) -> bool:
        """Whether something changed: the first turn that waits is starting, here or elsewhere."""
        if queue.open or queue.starting is not None or not queue.waiting or self._worker.draining:
            return False
        entry = queue.waiting[0]
        if entry.steers is not None and await self._was_steered(entry.steers, entry.run):
            content = await self.content(scope, entry)
            signature = content.signature if content is not None else ""
            changed = queue.closed(entry, signature, steers=entry.steers)
            if await self._store.swap_document(STATE, scope, data, changed.encoded()):
                self._tell(scope, queue, changed)
                await self.drop(scope, entry.content)
            return True
        content = await self.content(scope, entry)
        if content is not None and not await self._is_member(scope, content, "write"):
            # They were removed while it waited, or may only read now.
            changed = queue.closed(entry, content.signature)
            if await self._store.swap_document(STATE, scope, data, changed.encoded()):
                self._tell(scope, queue, changed)
                await self.drop(scope, entry.content)
            return True
        if content is not None and not self._can_start(entry.run, content):
            return False
        if self._begins is not None and content is not None:
            await self._begins(content.meta.principal, entry.run)
        await self._store.swap_document(STATE, scope, data, self.starting(queue, entry).encoded())
        return True

    async def _is_member(self, scope: str, content: Content, role: MemberRole = "read") -> bool:
        """Whether who asks has ``role`` by the very membership by which they asked."""
        access = await self._members.in_scope(scope, content.meta.principal)
        if access is None or content.member not in (None, access.member):
            return False
        return access.permits(role)

    async def _was_steered(self, run: str, turn: str) -> bool:
        """Whether a run that has ended has taken the words of a turn."""
        try:
            fold = (await read_run(self._store, run)).fold
        except (NotFoundError, GoneError):
            return False
        return any(steer.id == turn for steer in fold.steers)

    def _can_start(self, run: str, content: Content) -> bool:
        try:
            self._starts.check_plan(run, content.meta)
        except (UnknownModelError, AgentChangedError) as error:
            _log.info("turn %s cannot start here: %s", run, error)
            return False
        return True

    async def _finish(self, scope: str, data: bytes | None, queue: Queue, entry: Entry) -> bool:
        """Create the run of the turn that is starting, or see that it is there; whether the queue
        may be read again."""
        content = await self.content(scope, entry)
        run: str | None = entry.run
        if content is not None:
            if self._worker.draining or not self._can_start(entry.run, content):
                return False
            # One at a time: the other one may be about to create it.
            async with self._locks.setdefault(entry.run, asyncio.Lock()):
                if entry.is_preparing and (await self._stored(scope))[0] != data:
                    return True  # that one did it
                if not await self._exists(entry.run):
                    before = await self._before(scope, queue, entry, content)
                    if entry.is_preparing:
                        data = await self._prepared(scope, entry.run)
                        if data is None:
                            return True
                    run = await self._create(scope, entry, content, before)
        elif not await self._exists(entry.run):
            run = None
        changed = queue.started(run).encoded()
        if await self._store.swap_document(STATE, scope, data, changed):
            await self.drop(scope, entry.content)
        self._mine.discard(entry.run)
        return True

    async def _before(
        self, scope: str, queue: Queue, entry: Entry, content: Content
    ) -> list[Message]:
        """What the model of a turn is given before it, by the conversation as it is now, which is
        noted in ``content``."""
        parent = queue.head if content.follows_head else content.parent
        turns = Turns(self._store, scope)
        policy = policy_of(content.policy)
        branch = await turns.branch(parent, most=policy.most if policy.kind == "last" else None)
        selected = selection(branch, policy)
        summary = await summary_of(self._summarise, selected, entry.run)
        unanswered = [turn.run for turn in selected.turns if turn.outcome is None]
        content.meta.history = History(
            parent=parent,
            turns=[turn.run for turn in selected.turns],
            unanswered=unanswered,
            omitted=selected.omitted,
            summary=summary.text,
            policy=content.policy,
            summary_error=summary.error,
        )
        return messages_of_turns(selected.turns, summary.text, unanswered)

    async def _create(
        self, scope: str, entry: Entry, content: Content, before: list[Message]
    ) -> str | None:
        """The run of the turn; None where its key is that of a run elsewhere, or where who asks was
        removed before it could begin."""
        # After it is known to be starting, for which a removal waits (`drop_of`): none comes
        # between. Who helps out creates it all the same, as the other may be about to.
        is_mine = entry.run in self._mine
        if is_mine and not await self._is_member(scope, content, "write"):
            return entry.run if await self._exists(entry.run) else None
        try:
            info = await self._starts.begin(
                entry.run,
                content.meta,
                key=entry.key,
                signature=content.signature,
                before=before,
                is_only=False,
            )
        except ConflictError:
            return entry.run  # another process was quicker
        except KeyReusedError:
            return None  # a run without the queue was, meanwhile
        return entry.run if info.id == entry.run else None

    async def _exists(self, run: str) -> bool:
        try:
            await self._store.describe(run)
        except (NotFoundError, GoneError):
            return False
        return True

    async def _is_open(self, run: str) -> bool:
        try:
            return (await self._store.describe(run)).closed is None
        except (NotFoundError, GoneError):
            return False

    async def _refreshed(self, scope: str, queue: Queue) -> Queue:
        """The queue without runs that have ended, and with the newest run of its thread."""
        still_open = [run for run in queue.open if await self._is_open(run)]
        head = queue.head
        newest = (await self._store.thread(scope, most=1) or [None])[0]
        if newest is not None and newest != head and newest not in queue.open:
            try:
                info = await self._store.describe(newest)
            except (NotFoundError, GoneError):
                info = None  # the index is in another place, and may be behind
            if info is not None and info.meta and meta_of(info).history is None:
                head = newest  # a request that brought the whole conversation itself
                still_open += [newest] if info.closed is None else []
        return msgspec.structs.replace(queue, head=head, open=still_open)


async def forget_conversation(store: Store, scope: str) -> None:
    """Erase what is kept of a conversation beside its runs: head, queue, rules, copies, feed.
    Raises `LogError`."""
    await forget_feed(store, CONVERSATION, scope)
    await forget_rules(store, scope)
    await store.set_document(STATE, scope, None)
    await store.set_document(_PENDING, scope, None)
    while names := list(await store.documents(_CONTENT + scope)):
        for name in names:
            await store.set_document(_CONTENT + scope, name, None)
    await Turns(store, scope).forget()
