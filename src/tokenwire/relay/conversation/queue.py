"""The head and the queue of a conversation as one value, and what a new turn may do there.

Always true: pure; the value changes as a whole, by compare and swap, so that of two devices one
comes first for everybody; a turn is in exactly one place: the queue, `Queue.starting`, or a run;
the first of the queue starts before any later turn that may not run beside it.
"""

from __future__ import annotations

import secrets
from typing import Literal

import msgspec

from tokenwire.errors import ConflictError, LimitError, NotFoundError
from tokenwire.events.principal import parts_of
from tokenwire.relay.conversation.errors import ThreadBusyError
from tokenwire.relay.members.access import Access

__all__ = [
    "MOST_QUEUED",
    "STATE",
    "WHILE_BUSY",
    "Action",
    "Entry",
    "Past",
    "Queue",
    "WhileBusy",
    "action",
]

#: The documents with head and queue of a conversation.
STATE = "conversation"

WhileBusy = Literal["queue", "reject", "interrupt", "steer", "parallel"]
#: What may happen to a turn that comes while another one is under way.
WHILE_BUSY: tuple[WhileBusy, ...] = ("queue", "reject", "interrupt", "steer", "parallel")
#: Turns that may wait in one conversation.
MOST_QUEUED = 32

Action = Literal["start", "queue", "interrupt", "steer"]


class Entry(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A turn that waits, or is about to start. ``run``: the id that its run has or will have;
    ``content``: the document with the request; ``text``: the beginning of what is asked;
    ``created``: Unix seconds; ``edits``: how often it was edited."""

    run: str
    content: str
    text: str = ""
    key: str | None = None
    by: str | None = None
    created: float = 0.0
    edits: int = 0
    #: Unix seconds at which it was about to start.
    since: float = 0.0
    #: It is about to start, and a summary of what its model is not given may be in the making;
    #: whether its author may still write is looked at after that.
    is_preparing: bool = False
    #: The run under way that was given this turn as words between its steps. Where it ended before
    #: it could take them, the turn has its own run like any other.
    steers: str | None = None


class Past(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A turn that had an idempotency key and has no run of its own: it was given to the run that it
    ``steers``, or withdrawn. ``signature``: of its request."""

    run: str
    key: str
    signature: str = ""
    steers: str | None = None


class Queue(msgspec.Struct, kw_only=True, omit_defaults=True):
    """``head``: the newest turn, which the next one continues; ``open``: runs that may be under
    way; ``waiting``: turns in their order; ``starting``: the one whose run is being created by
    whoever sees it. ``keys``: the newest idempotency keys whose runs have begun, and those runs;
    ``past``: the newest turns with a key that have no run of their own.
    ``nonce``: another one with each change, so that a swap has one winner."""

    head: str | None = None
    open: list[str] = []
    waiting: list[Entry] = []
    starting: Entry | None = None
    keys: dict[str, str] = {}
    past: list[Past] = []
    nonce: str = ""

    @property
    def is_busy(self) -> bool:
        """Whether a turn is under way, or waits to be."""
        return bool(self.open or self.waiting or self.starting is not None)

    def encoded(self) -> bytes:
        """The value as it is stored, unlike any other."""
        return msgspec.json.encode(msgspec.structs.replace(self, nonce=secrets.token_hex(8)))

    def holds(self, run: str) -> bool:
        """Whether the turn waits, or has begun."""
        entries = [*self.waiting, *([self.starting] if self.starting is not None else [])]
        return run in self.open or run == self.head or any(one.run == run for one in entries)

    def entry(self, run: str) -> Entry:
        """The turn that waits. Raises `NotFoundError`; `ConflictError` when it has begun."""
        if run in self.open or run == self.head or (self.starting and self.starting.run == run):
            raise ConflictError("this turn has begun; it waits no more")
        for entry in self.waiting:
            if entry.run == run and entry.steers is not None:
                raise ConflictError("this turn was given to the answer under way")
            if entry.run == run:
                return entry
        raise NotFoundError("no such turn waits in this conversation", what="queued_turn")

    def entry_for(self, run: str, access: Access) -> Entry:
        """The turn that waits, for who wants to change it: its author, or an owner. Raises as
        `entry`, and `RoleError`."""
        entry = self.entry(run)
        if entry.by != (parts_of(access.principal)[0] or None):
            access.require("own")
        return entry

    def of_key(self, key: str | None, by: str | None) -> Entry | Past | str | None:
        """The turn of an idempotency key of the member ``by``: its run, where that has begun a
        short while ago."""
        if key is None:
            return None
        entries = [*self.waiting, *([self.starting] if self.starting is not None else [])]
        waiting = next((entry for entry in entries if (entry.key, entry.by) == (key, by)), None)
        name = _key_of(key, by)
        past = next((one for one in self.past if one.key == name), None)
        return waiting or self.keys.get(name) or past

    def start(self, entry: Entry) -> Queue:
        """``entry`` is to be created next, by whoever sees it."""
        return msgspec.structs.replace(self.without(entry.run), starting=entry)

    def prepared(self, run: str, now: float) -> Queue | None:
        """The turn that is starting has all that its model is given, ``now`` in Unix seconds; None
        where no turn of this ``run`` is being prepared."""
        entry = self.starting
        if entry is None or entry.run != run or not entry.is_preparing:
            return None
        entry = msgspec.structs.replace(entry, is_preparing=False, since=now)
        return msgspec.structs.replace(self, starting=entry)

    def started(self, run: str | None) -> Queue:
        """The run of `starting` is there; None: it never will be."""
        if run is None:
            return msgspec.structs.replace(self, starting=None)
        keys = self.keys
        if self.starting is not None and self.starting.key is not None:
            name = _key_of(self.starting.key, self.starting.by)
            keys = dict([*keys.items(), (name, run)][-MOST_QUEUED:])
        still_open = [*self.open, run]
        return msgspec.structs.replace(self, starting=None, head=run, open=still_open, keys=keys)

    def add(self, entry: Entry, *, first: bool = False) -> Queue:
        """``entry`` waits; ``first``: before all others. Raises `LimitError`."""
        if len(self.waiting) >= MOST_QUEUED:
            raise LimitError(
                f"{MOST_QUEUED} turns wait in this conversation; cancel some",
                limit="queued_turns",
                most=MOST_QUEUED,
            )
        place = 0 if first else len(self.waiting)
        if entry.steers is not None:  # before what waits, after what came so before it
            place = sum(one.steers is not None for one in self.waiting)
        waiting = [*self.waiting[:place], entry, *self.waiting[place:]]
        return msgspec.structs.replace(self, waiting=waiting)

    def without(self, run: str) -> Queue:
        """The queue without a turn."""
        waiting = [one for one in self.waiting if one.run != run]
        return msgspec.structs.replace(self, waiting=waiting)

    def closed(self, entry: Entry, signature: str, *, steers: str | None = None) -> Queue:
        """A turn that waits gets no run of its own: it is withdrawn, or part of another one. Who
        sends it again, under its key, hears that."""
        past = self.past
        if entry.key is not None:
            key = _key_of(entry.key, entry.by)
            one = Past(run=entry.run, key=key, signature=signature, steers=steers)
            past = [*past, one][-MOST_QUEUED:]
        return msgspec.structs.replace(self.without(entry.run), past=past)

    def swap(self, old: Entry, new: Entry) -> Queue | None:
        """``new`` in the place of ``old``; None where that was changed meanwhile. Raises as
        `entry`."""
        if self.entry(old.run) != old:
            return None
        waiting = [new if one == old else one for one in self.waiting]
        return msgspec.structs.replace(self, waiting=waiting)


def _key_of(key: str, by: str | None) -> str:
    """The keys of two members are two, also where they are the same text."""
    return key if by is None else f"{by}\x1f{key}"


def action(queue: Queue, while_busy: WhileBusy) -> Action:
    """What a new turn does. Raises `ThreadBusyError` where it may do nothing."""
    if while_busy == "parallel" or not queue.is_busy:
        return "start"
    if while_busy == "reject":
        raise ThreadBusyError("a turn of this conversation is under way", reason="busy")
    return while_busy
