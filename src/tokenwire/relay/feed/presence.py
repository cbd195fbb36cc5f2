"""Who has a conversation open, and who types: passing news, which no log keeps.

Always true: nothing here is promised: what a process does not tell in time is forgotten. Within
a process news arrives at once; between processes that share a store through one small document of
each, written when it has changed and looked at every second, so a second late; the people of a
process that was killed are there until its document is old.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

import msgspec

from tokenwire.errors import LogError
from tokenwire.log.base import Store

__all__ = ["Presence", "Seat"]

_log = logging.getLogger("tokenwire.relay")

_KIND = "thread-presence"
#: Seconds between two looks at what other processes say; after which they say it again though
#: nothing has changed; and after which a document is nobody's.
_LOOK, _REPEAT, _OLD = 1.0, 10.0, 30.0
#: Seconds for which somebody counts as there who left to come back.
_LINGER = 8.0
#: Seconds for which a person types who said so, and between two who say it again.
TYPING_SECONDS, _AGAIN = 6.0, 1.0
_MOST_PROCESSES = 1000


class _Here(msgspec.Struct, omit_defaults=True):
    """What a process says of one conversation: who has it open, and when (Unix seconds) who typed
    last."""

    people: list[str] = []
    typing: dict[str, float] = {}


class _Report(msgspec.Struct):
    """What a process says; ``at``: Unix seconds."""

    at: float
    threads: dict[str, _Here]


class Seat:
    """One stream of a conversation that hears of the others."""

    def __init__(
        self,
        presence: Presence,
        scope: str,
        person: str,
        wake: Callable[[], None],
        *,
        has_changed: bool,
    ) -> None:
        self._presence, self.scope, self.person, self._wake = presence, scope, person, wake
        self._has_changed = has_changed
        self._typing: dict[str, None] = {}

    def hear_presence(self) -> None:
        """Others came or went."""
        self._has_changed = True
        self._wake()

    def hear_typing(self, person: str) -> None:
        """Somebody types."""
        self._typing[person] = None
        self._wake()

    def news(self) -> tuple[list[str] | None, list[str]]:
        """The people that are there, if others are now than before; and who types."""
        typing, self._typing = list(self._typing), {}
        if not self._has_changed:
            return None, typing
        self._has_changed = False
        return self._presence.present(self.scope), typing

    def leave(self, *, returning: bool) -> None:
        """The stream has ended; ``returning``: its reader is about to come back."""
        self._presence.leave(self, returning=returning)


class Presence:
    """The people of one process's streams, and what other processes say of theirs."""

    def __init__(self, store: Store, owner: str) -> None:
        self._store, self._owner = store, owner
        self._seats: dict[str, set[Seat]] = {}
        #: Those who left to come back: until when.
        self._lingering: dict[tuple[str, str], float] = {}
        self._typing: dict[str, dict[str, float]] = {}
        self._others: dict[str, dict[str, _Here]] = {}
        self._people: dict[str, list[str]] = {}
        self._document: dict[str, _Here] = {}
        self._document_at = 0.0
        self._task: asyncio.Task[None] | None = None

    # --- here ----------------------------------------------------------------------------------

    def sit(
        self, scope: str, person: str, wake: Callable[[], None], *, has_changed: bool = True
    ) -> Seat:
        """``person`` opens a stream of the conversation, and first hears who is there if that
        ``has_changed`` for them."""
        seat = Seat(self, scope, person, wake, has_changed=has_changed)
        self._lingering.pop((scope, person), None)
        self._seats.setdefault(scope, set()).add(seat)
        self._changed(scope)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._work(), name="presence")
        return seat

    def leave(self, seat: Seat, *, returning: bool) -> None:
        """A stream of the conversation has ended."""
        seats = self._seats.get(seat.scope, set())
        seats.discard(seat)
        if not seats:
            self._seats.pop(seat.scope, None)
        if returning and all(other.person != seat.person for other in seats):
            self._lingering[seat.scope, seat.person] = time.monotonic() + _LINGER
        self._changed(seat.scope)

    def type(self, scope: str, person: str) -> None:
        """``person`` types in the conversation."""
        now = time.time()
        typing = self._typing.setdefault(scope, {})
        if 0 <= now - typing.get(person, 0.0) < _AGAIN:
            return
        typing[person] = now
        for seat in list(self._seats.get(scope, ())):
            seat.hear_typing(person)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._work(), name="presence")

    def present(self, scope: str) -> list[str]:
        """The people who have the conversation open, on all processes. Without keys they have no
        names."""
        people = set(self._here(scope).people)
        for threads in self._others.values():
            people.update(threads[scope].people if scope in threads else ())
        return sorted(people - {""})

    def _here(self, scope: str) -> _Here:
        people = {seat.person for seat in self._seats.get(scope, ())}
        people |= {person for of, person in self._lingering if of == scope}
        return _Here(sorted(people), dict(self._typing.get(scope, {})))

    def _changed(self, scope: str) -> None:
        there = self.present(scope)
        before = self._people.get(scope)
        if scope in self._seats:
            self._people[scope] = there
        else:
            self._people.pop(scope, None)
        if before is None or before == there:  # a first reader asks by itself
            return
        for seat in list(self._seats.get(scope, ())):
            seat.hear_presence()

    # --- other processes -----------------------------------------------------------------------

    async def aclose(self) -> None:
        """Say that nobody is here any more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        if self._store.shared and self._document:
            try:
                await self._store.set_document(_KIND, self._owner, None)
            except LogError as error:
                _log.info("presence could not be taken back: %s", error)

    async def _work(self) -> None:
        while self._seats or self._lingering or self._typing or self._document:
            self._forget()
            if self._store.shared:
                try:
                    await self._say()
                    await self._listen()
                except LogError as error:
                    _log.info("cannot publish presence: %s", error)
            await asyncio.sleep(_LOOK)

    def _forget(self) -> None:
        now = time.monotonic()
        for key, until in list(self._lingering.items()):
            if now >= until:
                del self._lingering[key]
                self._changed(key[0])
        before = time.time() - TYPING_SECONDS
        for scope, typing in list(self._typing.items()):
            for person, at in list(typing.items()):
                if at < before:
                    del typing[person]
            if not typing:
                del self._typing[scope]

    async def _say(self) -> None:
        scopes = {*self._seats, *self._typing, *(scope for scope, _ in self._lingering)}
        here = {scope: self._here(scope) for scope in scopes}
        now = time.monotonic()
        if here == self._document and (not here or now < self._document_at + _REPEAT):
            return
        data = msgspec.json.encode(_Report(time.time(), here)) if here else None
        await self._store.set_document(_KIND, self._owner, data)
        self._document, self._document_at = here, now

    async def _listen(self) -> None:
        before, others = self._others, {}
        now = time.time()
        for owner, data in (await self._store.documents(_KIND, most=_MOST_PROCESSES)).items():
            report = msgspec.json.decode(data, type=_Report)
            if owner == self._owner:
                continue
            if abs(now - report.at) > _OLD:
                await self._store.swap_document(_KIND, owner, data, None)
                continue
            others[owner] = report.threads
        self._others = others
        for scope, seats in list(self._seats.items()):
            self._changed(scope)
            for owner, threads in others.items():
                old = before.get(owner, {}).get(scope, _Here()).typing
                new = threads[scope].typing if scope in threads else {}
                for person, at in new.items():
                    if at != old.get(person) and now - at < TYPING_SECONDS:
                        for seat in list(seats):
                            seat.hear_typing(person)
