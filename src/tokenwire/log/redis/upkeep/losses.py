"""Logs that Redis has lost: their owners put them back, and until then nobody hears that they do
not exist.

Always true: a log that this process owns is put back, and never reported missing; one whose lease
was over before it was lost may have been another's, have ended or been erased since, and is not
(unless the server of its lease was gone before that ended, and nobody could take it over); for so
long as an owner elsewhere may take to put its own back, a server that is another one than before,
or was started anew, is believed in nothing that it lacks.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

from tokenwire.errors import LogError, StoreUnavailableError, TokenwireError
from tokenwire.log.base import Appended
from tokenwire.log.redis.appending.owned import Owned, clock, missing
from tokenwire.log.redis.connection import Address, Connection, ReplyError
from tokenwire.log.redis.create import Creations
from tokenwire.log.redis.described import info_of
from tokenwire.log.redis.upkeep.parts import Parts
from tokenwire.log.tail import Tails

__all__ = ["Losses"]

#: Owners look for their logs every third of the store's timeout, and put back what was missing
#: twice; so many timeouts, with time for the records, are enough for that.
TIMEOUTS = 2


class _Life(NamedTuple):
    """What answered over a connection: the server's run id, when that was seen first, when it was
    started at the latest (by `clock`), and until when owners may put back what it lacks."""

    wire: Connection
    run_id: str
    since: float
    start: float
    until: float


class Losses:
    """Puts back logs of a store of ``parts``."""

    def __init__(self, parts: Parts, creations: Creations, tails: Tails) -> None:
        self._link, self._key, self._owned = parts.link, parts.key, parts.owned
        self._owner, self._index = parts.owner, parts.index
        self._creations, self._tails = creations, tails
        #: Who writes the records of a log again that was put back.
        self.listeners: list[Callable[[str], None]] = []
        #: By address in a cluster, where each server has logs of its own; else of the one in use.
        self._lives: dict[Address | None, _Life] = {}
        #: How often a server was another one than before, or one that was started anew.
        self._changes = 0

    # --- putting back ----------------------------------------------------------------------------

    async def restore(self, log: str) -> Appended | TokenwireError:
        """Put back a log of ours that is missing, or its claim; the outcome of an append to it:
        ``gap`` says from where to write again."""
        owned = self._owned.get(log)
        if owned is not None and not await self._is_still_ours(log, owned):
            self._tails.forget(log)
            return Appended("fenced", 0, owned.epoch)
        if owned is not None and await self._reclaim(log, owned):
            await self._index.lease(log, owned.lease)
        answer = await self._owner(log, "describe")
        if answer[0] != "ok":
            return missing(answer[0])
        state = info_of(log, answer)
        if owned is not None:
            owned.bytes = owned.noted = state.bytes
        ours = owned is not None and state.epoch == owned.epoch and state.owner == owned.owner
        return Appended("gap" if ours else "fenced", state.tail, state.epoch)

    async def _reclaim(self, log: str, owned: Owned) -> bool:
        """Put back our claim on a log that is there, or else the log; whether it is ours now."""
        start = clock()
        values = (owned.owner, owned.nonce, int(owned.lease * 1000), owned.epoch)
        answer = await self._owner(log, "reclaim", *values, wait=True)
        if answer[0] == "ok":
            owned.lease_start = start
            return True
        if self._owned.get(log) is not owned:  # it was taken over or erased, as we hear now
            return False
        return await self._creations.put_back(log, owned) is not None

    async def _is_still_ours(self, log: str, owned: Owned) -> bool:
        """Whether no other process can have had a log that is missing since we had it."""
        if clock() < owned.lease_end:
            return True
        life = await self._life(self._key(log, "meta"))
        return life is not None and owned.lease_start < life.start <= owned.lease_end

    async def put_back(self, log: str) -> bool:
        """`restore` a log that nobody appends to now, and let its owner write its records again;
        whether it is ours."""
        outcome = await self.restore(log)
        is_ours = isinstance(outcome, Appended) and outcome.status == "gap"
        if is_ours:
            self.write_again(log)
        return is_ours

    def write_again(self, log: str) -> None:
        """Let the owner of ``log``, which is of this process, write again what it lacks."""
        self._tails.forget(log)
        for call in self.listeners:
            call(log)

    async def settle(self, log: str, erase: Callable[[str, bytes], None]) -> None:
        """`put_back` a log that is missing, or ``erase`` what is known of it."""
        try:
            if not await self.put_back(log):
                erase(log, b"erase")
        except LogError:
            pass  # it is looked for again

    # --- what is missing -------------------------------------------------------------------------

    async def note(self) -> None:
        """Remember which server this is."""
        if self._link.settings.kind != "cluster":
            await self.seconds(self._index.probe)

    async def error(self, log: str, status: str) -> TokenwireError:
        """What a reader of a log hears whose state is ``status``, and not ``ok``."""
        if status == "none":
            wait = 1.0 if log in self._owned else await self.seconds(self._key(log, "meta"))
            if wait:
                return _not_yet(wait)
        return missing(status)

    async def not_yet(self, log: str) -> TokenwireError | None:
        """What a reader hears of a log that may be shorter than it was; None where it is not."""
        wait = await self.seconds(self._key(log, "meta"))
        return _not_yet(wait) if wait else None

    async def seconds(self, key: str) -> float:
        """For how long owners may still put back what the server of ``key`` has lost."""
        life = await self._life(key)
        return 0.0 if life is None else max(0.0, life.until - time.monotonic())

    async def changes(self, log: str) -> int:
        """How often a server was another one than before: it may have less of its logs than their
        owners know. That of ``log`` is looked at."""
        await self._life(self._key(log, "meta"))
        return self._changes

    async def _life(self, key: str) -> _Life | None:
        """That of the server of ``key``; None where it does not answer."""
        nodes, kind = self._link.nodes, self._link.settings.kind
        try:
            if nodes is None:
                return None
            address = await nodes.find(key)
            wire = await nodes.connection(address, "main")
            place = address if kind == "cluster" else None
            life = self._lives.get(place)
            if life is None or life.wire is not wire:
                life = self._lives[place] = await self._look(address, wire, life)
        except (OSError, ReplyError, LogError):
            return None
        return life

    async def _look(self, address: Address, wire: Connection, life: _Life | None) -> _Life:
        """Ask the server over a new connection whether it is the one before."""
        text: Any = await self._link.ask(address, "INFO", "server")
        fields = dict(line.split(":", 1) for line in text.decode().splitlines() if ":" in line)
        run_id, uptime = fields.get("run_id", ""), int(fields.get("uptime_in_seconds", "0"))
        now, until = time.monotonic(), 0.0
        if life is not None and life.run_id == run_id:
            return life._replace(wire=wire)
        self._changes += bool(self._lives)
        if life is not None:
            # One that was up before took its place just now, as far as is known here.
            is_young = uptime < now - life.since
            window = TIMEOUTS * self._link.settings.timeout
            until = now + window - (uptime if is_young else 0.0)
        return _Life(wire, run_id, now, clock() - uptime, until)


def _not_yet(wait: float) -> TokenwireError:
    return StoreUnavailableError(
        "Redis was started anew and lacks this run; its worker may be about to put it back",
        retry_after=min(1.0, wait),
    )
