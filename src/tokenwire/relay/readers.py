"""The readers of this process's runs, and the stop of a run after its last reader leaves.

A reader *leaves* when its person goes: the peer closed its connection. One that the server asks to
reconnect, or that has a page and asks for the next, *returns*: only if it does not come back within
`RETURN_SECONDS` has it left.

Always true: a run stops for lack of readers only when it was started with ``stop`` or ``stop:N``,
and never while it has one.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Callable

from tokenwire.events.model import Control
from tokenwire.log.base import Store
from tokenwire.relay.follow import Follower, open_follower

__all__ = ["ON_DISCONNECT", "RETURN_SECONDS", "Readers", "follow"]

#: For how long a reader may be between two connections.
RETURN_SECONDS = 30.0

#: The policies of a run: ``continue``, ``stop``, or ``stop:N`` seconds after the last reader left.
ON_DISCONNECT = re.compile(r"continue|stop|stop:[0-9]{1,5}")

Watching = Callable[[Follower], Awaitable[Callable[[], None]]]


class _Listening:
    """One who is to hear of a run's failure; called, it hears of none."""

    __slots__ = ("_readers", "_run", "fail")

    def __init__(self, readers: Readers, run: str, fail: Callable[[Exception], None]) -> None:
        self._readers, self._run, self.fail = readers, run, fail

    def __call__(self) -> None:
        self._readers.deafen(self._run, self)


class _Leaving:
    """What ends with a follower: called once, with whether its reader is about to come back."""

    __slots__ = ("_ends", "_readers", "_run")

    def __init__(self, readers: Readers | None, run: str) -> None:
        self._readers, self._run = readers, run
        self._ends: tuple[Callable[[], None], ...] = ()

    def add(self, end: Callable[[], None]) -> None:
        """Call ``end`` as well."""
        self._ends = (*self._ends, end)

    def __call__(self, returning: bool) -> None:
        ends, self._ends = self._ends, ()  # they have the follower, which has this
        for end in ends:
            end()
        if self._readers is not None:
            self._readers.leave(self._run, returning=returning)


class Readers:
    """Counts readers by run, and applies the policy of each run that this process owns."""

    def __init__(self) -> None:
        #: For how long a reader that returns is not missed.
        self.return_seconds = RETURN_SECONDS
        self._reading: Counter[str] = Counter()
        self._owned: dict[str, tuple[str, Callable[[Control], None]]] = {}
        self._stops: dict[str, asyncio.TimerHandle] = {}
        self._listeners: dict[str, list[_Listening]] = {}

    def listen(self, run: str, fail: Callable[[Exception], None]) -> Callable[[], None]:
        """Call ``fail`` when the run fails here without an end in its log; returns the call that
        ends this."""
        listening = _Listening(self, run, fail)
        self._listeners.setdefault(run, []).append(listening)
        return listening

    def deafen(self, run: str, listening: _Listening) -> None:
        """End what `listen` began."""
        listeners = self._listeners.get(run)
        if listeners is not None and listening in listeners:
            listeners.remove(listening)
            if not listeners:
                del self._listeners[run]

    def fail(self, run: str, error: Exception) -> None:
        """Tell everybody who reads ``run`` here: nothing that the log has would tell them."""
        for listening in list(self._listeners.get(run, ())):
            listening.fail(error)

    def own(self, run: str, policy: str, stop: Callable[[Control], None]) -> None:
        """Call ``stop`` when the last reader of ``run`` leaves, according to ``policy`` (one of
        `ON_DISCONNECT`)."""
        self._owned[run] = policy, stop

    def disown(self, run: str) -> None:
        """The run has ended, or belongs to another process."""
        self._owned.pop(run, None)
        self.stay(run)

    def join(self, run: str) -> None:
        """Count a reader; `stay` follows when its reading has begun."""
        self._reading[run] += 1

    def stay(self, run: str) -> None:
        """Cancel a scheduled stop."""
        timer = self._stops.pop(run, None)
        if timer is not None:
            timer.cancel()

    def leave(self, run: str, *, returning: bool = False) -> None:
        """Uncount a reader; the last one starts the run's policy. ``returning``: nobody left, the
        reader is about to come back, here or at another process."""
        self._reading[run] -= 1
        if self._reading[run] > 0:
            return
        del self._reading[run]
        policy, stop = self._owned.get(run, ("continue", None))
        if stop is None or policy == "continue" or run in self._stops:
            return
        seconds = float(policy.partition(":")[2] or 0)
        if returning:
            seconds = max(seconds, self.return_seconds)
        order = Control(command="cancel", by="on_disconnect", reason="the last reader left")
        self._stops[run] = asyncio.get_running_loop().call_later(seconds, stop, order)

    def close(self) -> None:
        """Cancel all scheduled stops."""
        for run in list(self._stops):
            self.stay(run)


async def follow(
    readers: Readers,
    store: Store,
    run: str,
    after: str | int | None,
    *,
    is_reader: bool = True,
    watch: Watching | None = None,
) -> Follower:
    """A follower of a run of whoever asks, who was checked before, after the cursor ``after``.
    ``watch``: bars it when its right to read ends, and returns the call that ends this; the rest as
    in `tokenwire.relay.runs.Runs.follow`."""
    if is_reader:
        readers.join(run)
    leave = _Leaving(readers if is_reader else None, run)
    follower = None
    try:
        follower = await open_follower(store, run, after, closed=leave)
        leave.add(readers.listen(run, follower.fail))
        if watch is not None:
            leave.add(await watch(follower))
    except BaseException:
        leave(returning=False) if follower is None else follower.close()
        raise
    if is_reader:
        readers.stay(run)
    return follower
