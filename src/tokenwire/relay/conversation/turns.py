"""The turns of a conversation in the store: read from their runs once, then from one document each.

Always true: a turn is what its run's log says; its document is only a copy, written when the run
has ended, so that the hundredth turn reads no hundred logs; the copy of an erased run is a place in
the tree without content.
"""

from __future__ import annotations

import asyncio

import msgspec

from tokenwire.errors import GoneError, NotFoundError
from tokenwire.events.message import Message
from tokenwire.events.principal import parts_of
from tokenwire.events.reasons import OUTCOMES
from tokenwire.log.base import Store
from tokenwire.relay.conversation.history import History, Turn, messages_of_turns
from tokenwire.relay.conversation.scope import principal_of
from tokenwire.relay.description import RunMeta, meta_of, scope_of_run
from tokenwire.relay.replay import read_run

__all__ = ["Turns", "named", "with_history"]

#: Turns that are read one by one; more are read as one list.
_FEW = 24
#: Turns of one conversation, of all its branches.
_MOST = 100_000


class Turns:
    """The turns of the conversation ``scope`` (`scope_of`). Methods raise `LogError`."""

    def __init__(self, store: Store, scope: str) -> None:
        self._store, self._scope = store, scope
        self._kind = f"turns:{scope}"
        self._copies: dict[str, Turn] | None = None

    async def get(self, run: str) -> Turn | None:
        """The turn of a run; None for one that is not, or is no run of this conversation."""
        if self._copies is not None and run in self._copies:
            return self._copies[run]
        data = None
        if self._copies is None:
            data = await self._store.document(self._kind, run)
        if data is not None:
            return self._decoded(data)
        return await self._read(run)

    async def branch(self, head: str | None, *, most: int | None = None) -> list[Turn]:
        """The turns from the beginning to ``head``, oldest first; at most the ``most`` newest.
        Erased ones are left out, and what came before them is not."""
        if head is not None and (most is None or most > _FEW):
            await self._load()
        turns: list[Turn] = []
        passed: set[str] = set()
        run = head
        while run is not None and run not in passed and (most is None or len(turns) < most):
            passed.add(run)
            turn = await self.get(run)
            if turn is None:
                break
            if not turn.is_erased:
                turns.append(turn)
            run = turn.parent
            if not len(passed) % 64:
                await asyncio.sleep(0)
        return turns[::-1]

    async def all(self, *runs: str | None) -> dict[str, Turn]:
        """Every turn that has a copy, and those of ``runs`` and what they continue."""
        await self._load()
        turns = dict(self._copies or {})
        for first in runs:
            run = first
            while run is not None and run not in turns:
                turn = await self.get(run)
                if turn is None:
                    break
                turns[run] = turn
                run = turn.parent
        return turns

    async def some(self, runs: list[str]) -> list[Turn]:
        """The turns of these runs that are still there, in their order."""
        if len(runs) > _FEW:
            await self._load()
        turns = [await self.get(run) for run in runs]
        return [turn for turn in turns if turn is not None and not turn.is_erased]

    async def erase(self, run: str, parent: str | None) -> None:
        """A run is about to be erased: its turn keeps only its place."""
        turn = Turn(run=run, parent=parent, is_erased=True)
        await self._store.set_document(self._kind, run, msgspec.json.encode(turn))

    async def forget(self) -> None:
        """Erase what is kept of the conversation's turns."""
        while names := list(await self._store.documents(self._kind)):
            for name in names:
                await self._store.set_document(self._kind, name, None)

    def _decoded(self, data: bytes) -> Turn:
        """A copy; one from before turns had an author is that of whoever began the conversation."""
        turn = msgspec.json.decode(data, type=Turn)
        if turn.by is None and not turn.is_erased:
            turn.by = parts_of(principal_of(self._scope))[0] or None
        return turn

    async def _load(self) -> None:
        if self._copies is not None:
            return
        documents = await self._store.documents(self._kind, most=_MOST)
        copies: dict[str, Turn] = {}
        for number, (name, data) in enumerate(documents.items()):
            copies[name] = self._decoded(data)
            if not number % 64:
                await asyncio.sleep(0)
        self._copies = copies

    async def _read(self, run: str) -> Turn | None:
        """The turn by its run's log, and a copy of it once the run has ended."""
        store = self._store
        try:
            info = await store.describe(run)
            if not info.meta:
                return None
            meta = meta_of(info)
            if scope_of_run(meta) != self._scope:
                return None
            turn = _turn_of(run, meta, info.created)
            if info.closed not in OUTCOMES:
                return turn
            answer = (await read_run(store, run)).fold.history()
        except (NotFoundError, GoneError):
            return None
        turn.outcome = info.closed
        turn.answer = [
            msgspec.structs.replace(m, id=run) if m.role == "assistant" else m for m in answer
        ]
        await self._copy(turn)
        if self._copies is not None:
            self._copies[run] = turn
        return turn

    async def _copy(self, turn: Turn) -> None:
        """Who erases the run meanwhile has written its place before, or erases the copy after."""
        store, run, data = self._store, turn.run, msgspec.json.encode(turn)
        if not await store.swap_document(self._kind, run, None, data):
            return
        try:
            await store.describe(run)
        except (NotFoundError, GoneError):
            await store.swap_document(self._kind, run, data, None)


def _turn_of(run: str, meta: RunMeta, created: float) -> Turn:
    history = meta.history or History()
    return Turn(
        run=run,
        parent=history.parent,
        messages=named(run, meta.request.messages),
        by=parts_of(meta.principal)[0] or None,
        created=created,
        first=history.turns[0] if history.turns else None,
        summary=history.summary,
        depth=history.omitted + len(history.turns),
    )


def named(run: str, messages: list[Message]) -> list[Message]:
    """``messages`` of the turn ``run``; a person's without an id has one of its place, by which a
    client that posts it again names it."""
    return [
        msgspec.structs.replace(message, id=f"{run}.{number}")
        if message.id is None and message.role == "user"
        else message
        for number, message in enumerate(messages)
    ]


async def with_history(store: Store, run: str, meta: RunMeta) -> RunMeta:
    """The description of ``run`` with the messages that its model was given, those of its
    conversation first. Turns that were erased since are not among them. Raises `LogError`."""
    history = meta.history
    scope = scope_of_run(meta)
    if history is None or scope is None:
        return meta
    before = await messages_before(store, scope, history)
    own = named(run, meta.request.messages)
    request = msgspec.structs.replace(meta.request, messages=[*before, *own])
    return msgspec.structs.replace(meta, request=request)


async def messages_before(store: Store, scope: str, history: History) -> list[Message]:
    """The messages of a conversation that a run was given before its own. Raises `LogError`."""
    turns = await Turns(store, scope).some(history.turns)
    return messages_of_turns(turns, history.summary, history.unanswered)
