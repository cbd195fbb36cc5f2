"""States of encoders, kept for a while: who comes back to a long run skips its newest part only.

Always true: a state is used only for an encoder that was made with the same options, and only while
the log has the very record behind which it was taken; the bytes are those of a reader for whom
everything was skipped. A state is the process's own, bounded in bytes, and gone ten minutes after
its last use, or with its run: at once where that is erased by this process, else at the next look.
"""

from __future__ import annotations

import asyncio
import pickle
from collections import OrderedDict

import msgspec

from tokenwire.errors import GoneError, LogError, NotFoundError
from tokenwire.relay import Store
from tokenwire.relay.follow import Batch, Follower
from tokenwire.relay.record import CHECK
from tokenwire.server.edge.encoding.batches import BatchEncoder
from tokenwire.wire.chunk_encoder import ChunkEncoder
from tokenwire.wire.own import AnyEncoder

__all__ = ["EVERY", "EncoderStates", "Keeper"]

#: Records between two states of one run: some 4 ms of skipping.
EVERY = 4096
#: States that are kept of one run and encoder, the newest; bytes of one state, and of all.
_MOST_STATES, _MOST_BYTES, _ALL_BYTES = 16, 2 << 20, 32 << 20
#: Seconds for which a state is kept without use.
_SECONDS = 600.0
#: Seconds between two looks whether the runs are there, and runs that one look asks about.
_LOOK_SECONDS, _MOST_LOOKED = 1.0, 64

#: A run, and the encoder before its first event: what kind it is, and its options.
_Key = tuple[str, bytes]


class _Entry(msgspec.Struct):
    """The states of one run and encoder, by offset: ``(check of the record there, state)``."""

    states: OrderedDict[int, tuple[bytes, bytes]]
    last_use: float
    size: int


class EncoderStates:
    """The states that this process keeps; one of the server's services."""

    def __init__(self, *, every: int = EVERY) -> None:
        self.every = every
        #: Of the runs, which another process may erase; None where no run is looked for.
        self.store: Store | None = None
        self._look: asyncio.Task[None] | None = None
        self._entries: OrderedDict[_Key, _Entry] = OrderedDict()
        self._size = 0
        self._timer: asyncio.TimerHandle | None = None
        #: Where the next look begins.
        self._looked = 0

    def __len__(self) -> int:
        return sum(len(entry.states) for entry in self._entries.values())

    async def begin(self, encoder: AnyEncoder, follower: Follower) -> Keeper | None:
        """Begin as near to the follower's place as a state is kept; the ``encoder``, which has seen
        no event, gets that state. None where no state of this encoder can be kept, and where the
        run is short."""
        at = follower.after
        key = _key(encoder, follower.run) if at > self.every else None
        if key is None or not isinstance(encoder, ChunkEncoder):
            follower.rewind()
            return None
        entry = self._entries.get(key)
        # (A reader whose place is early may have kept the newest one.)
        for offset in sorted(entry.states, reverse=True) if entry is not None else ():
            if entry is None or offset > at:
                continue
            check, data = entry.states[offset]
            if await follower.rewind_to(offset, check):
                # (This process wrote it, and nobody else can.)
                encoder.set_state(pickle.loads(data))  # noqa: S301
                entry.last_use = asyncio.get_running_loop().time()
                return Keeper(self, key, encoder, offset)
            self._forget(key)  # a failover took that branch of the run
            break
        follower.rewind()
        return Keeper(self, key, encoder, 0)

    def keep(self, key: _Key, offset: int, check: bytes, data: bytes) -> None:
        """Keep the state ``data`` after the record at ``offset``, whose check is ``check``."""
        loop = asyncio.get_running_loop()
        entry = self._entries.setdefault(key, _Entry(OrderedDict(), 0.0, 0))
        self._entries.move_to_end(key)
        entry.last_use = loop.time()
        if offset not in entry.states:
            entry.states[offset] = check, data
            self._resize(entry, len(data))
        if len(entry.states) > _MOST_STATES:
            self._resize(entry, -len(entry.states.pop(min(entry.states))[1]))
        while self._size > _ALL_BYTES:
            self._forget(next(iter(self._entries)))
        if self._timer is None:
            self._timer = loop.call_later(_LOOK_SECONDS, self._prune, loop)

    def erase(self, run: str) -> None:
        """The run was erased: nothing of it stays."""
        for key in [key for key in self._entries if key[0] == run]:
            self._forget(key)

    async def forget_expired(self, runs: list[str], threads: list[str]) -> None:
        """The same of ``runs`` that went by the retention."""
        for run in runs:
            self.erase(run)

    async def start(self, store: Store) -> None:
        """Look for runs that others erase from ``store``."""
        self.store = store

    async def stop(self) -> None:
        """Look no more, and keep nothing."""
        self.store = None
        if self._timer is not None:
            self._timer.cancel()
        self._timer, look = None, self._look
        if look is not None:
            look.cancel()
            await asyncio.gather(look, return_exceptions=True)
        for key in list(self._entries):
            self._forget(key)

    def _prune(self, loop: asyncio.AbstractEventLoop) -> None:
        oldest = loop.time() - _SECONDS
        for key in [key for key, entry in self._entries.items() if entry.last_use <= oldest]:
            self._forget(key)
        if self._entries and self.store is not None and (self._look is None or self._look.done()):
            self._look = loop.create_task(self._look_at(self.store))
        self._timer = None
        if self._entries:
            self._timer = loop.call_later(_LOOK_SECONDS, self._prune, loop)

    async def _look_at(self, store: Store) -> None:
        """Whether the runs are there that were not looked at for the longest time."""
        runs = list(dict.fromkeys(run for run, _ in self._entries))
        start = self._looked % len(runs) if runs else 0
        turn = (runs[start:] + runs[:start])[:_MOST_LOOKED]
        self._looked = start + len(turn)
        for run in turn:
            try:
                await store.describe(run)
            except (NotFoundError, GoneError):
                self.erase(run)
            except LogError:
                return  # the next look asks again

    def _resize(self, entry: _Entry, change: int) -> None:
        entry.size += change
        self._size += change

    def _forget(self, key: _Key) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._size -= entry.size


class Keeper:
    """Keeps the states of one encoder while what its reader has seen is skipped."""

    __slots__ = ("_encoder", "_key", "_last", "_states")

    def __init__(
        self, states: EncoderStates, key: _Key, encoder: ChunkEncoder, offset: int
    ) -> None:
        self._states, self._key, self._encoder, self._last = states, key, encoder, offset

    def skipped(self, batch: Batch, batches: BatchEncoder) -> None:
        """All of ``batch`` was skipped."""
        offset = batch.first + len(batch.records) - 1
        if offset - self._last < self._states.every:
            return
        self._last = offset
        batches.settle(offset)
        data = _dump(self._encoder.state())
        if data is not None and len(data) <= _MOST_BYTES:
            self._states.keep(self._key, offset, batch.records[-1][:CHECK], data)
        else:
            self._last += 1 << 62  # it will not become smaller


def _key(encoder: AnyEncoder, run: str) -> _Key | None:
    if not isinstance(encoder, ChunkEncoder):
        return None  # another's: what it holds is not ours to copy
    data = _dump((type(encoder), encoder.state()))
    return None if data is None or len(data) > _MOST_BYTES else (run, data)


def _dump(value: object) -> bytes | None:
    """None for what has no copy."""
    try:
        return pickle.dumps(value)
    except (pickle.PicklingError, TypeError, AttributeError, RecursionError):
        return None
