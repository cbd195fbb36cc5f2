"""States of encoders, kept for a while: who comes back to a long run skips its newest part only.

Always true: a state is used only for an encoder that was made with the same options, and only while
the log has the very record behind which it was taken; the bytes are those of a reader for whom
everything was skipped. A state is the process's own, bounded in bytes, and gone ten minutes after
its last use.
"""

from __future__ import annotations

import asyncio
import pickle
from collections import OrderedDict

import msgspec

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

#: A run, and the encoder before its first event: what kind it is, and its options.
_Key = tuple[str, bytes]


class _Entry(msgspec.Struct):
    """The states of one run and encoder, by offset: ``(check of the record there, state)``."""

    states: OrderedDict[int, tuple[bytes, bytes]]
    last_use: float
    size: int


class EncoderStates:
    """The states that this process keeps."""

    def __init__(self, *, every: int = EVERY) -> None:
        self.every = every
        self._entries: OrderedDict[_Key, _Entry] = OrderedDict()
        self._size = 0
        self._timer: asyncio.TimerHandle | None = None

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
            self._timer = loop.call_later(_SECONDS, self._prune, loop)

    def _prune(self, loop: asyncio.AbstractEventLoop) -> None:
        oldest = loop.time() - _SECONDS
        for key in [key for key, entry in self._entries.items() if entry.last_use <= oldest]:
            self._forget(key)
        self._timer = loop.call_later(_SECONDS / 4, self._prune, loop) if self._entries else None

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
