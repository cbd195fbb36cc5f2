"""Quotas: how many runs, how often, how many readers, and how many wrong guesses.

Always true: what is counted is given back on every path; a refusal is a `BusyError` that says how
long to wait; nothing here waits, and the time is passed in by a clock that never goes back.
"""

from __future__ import annotations

import ipaddress
import math
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from functools import lru_cache

from tokenwire.errors import BusyError
from tokenwire.events.principal import PrincipalLimits
from tokenwire.relay.census import Census
from tokenwire.server.settings import Settings

__all__ = ["Bucket", "Limits", "network_of"]

#: Buckets of the longest silent are forgotten beyond this many (each is a few hundred bytes).
_MOST_BUCKETS = 10_000


@lru_cache(maxsize=_MOST_BUCKETS)
def network_of(address: str) -> str:
    """What counts as one client: an IPv4 address, or the /64 of an IPv6 one."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.IPv6Network((int(parsed) >> 64 << 64, 64)))
    return str(parsed)


class Bucket:
    """A token bucket: ``burst`` at once, refilled at ``rate`` a second."""

    __slots__ = ("burst", "level", "rate", "then")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.rate, self.burst, self.level, self.then = rate, burst, burst, now

    def take(self, now: float) -> float:
        """0 when one could be taken, else the seconds until one can."""
        self.level = min(self.burst, self.level + (now - self.then) * self.rate)
        self.then = now
        if self.level >= 1:
            self.level -= 1
            return 0.0
        return (1 - self.level) / self.rate if self.rate else 60.0


class _Attached:
    """The call that gives back a reader's place."""

    __slots__ = ("_limits", "_principal", "_run")

    def __init__(self, limits: Limits, run: str, principal: str) -> None:
        self._limits, self._run, self._principal = limits, run, principal

    def __call__(self) -> None:
        self._limits.detach(self._run, self._principal)


class Limits:
    """The counters of one process. ``keys_on``: whether principals are told apart."""

    def __init__(
        self,
        settings: Settings,
        *,
        keys_on: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock

        def choose(value: int | None, with_keys: int) -> int | None:
            return value if value is not None else (with_keys if keys_on else None)

        self.readers_per_run = choose(settings.readers_per_run, 32)
        self.readers_per_principal = choose(settings.readers_per_principal, 20)
        self._bounds = PrincipalLimits(
            runs=choose(settings.runs_per_principal, 4),
            waiting_runs=choose(settings.waiting_runs_per_principal, 20),
            starts_per_minute=choose(settings.starts_per_minute, 30),
        )
        self.starts_burst = settings.starts_burst
        self.runs = settings.runs
        self.waiting_runs = settings.waiting_runs
        self.bad_attach_per_minute = settings.bad_attach_per_minute
        self.wrong_keys_per_minute = settings.wrong_keys_per_minute
        self.refused: Counter[str] = Counter()
        self._readers: Counter[str] = Counter()
        self._reading: Counter[str] = Counter()
        self._reserved: Counter[str] = Counter()
        self._starts: OrderedDict[str, Bucket] = OrderedDict()
        self._misses: OrderedDict[str, Bucket] = OrderedDict()
        self._wrong_keys: OrderedDict[str, Bucket] = OrderedDict()

    def attach(self, run: str, principal: str) -> Callable[[], None]:
        """Count a reader of ``run``; returns the call that gives it back."""
        if self.readers_per_run is not None and self._readers[run] >= self.readers_per_run:
            raise self._busy("readers_per_run", f"this run has {self.readers_per_run} readers", 5)
        most = self.readers_per_principal
        if most is not None and self._reading[principal] >= most:
            raise self._busy("readers_per_principal", f"you already read {most} streams", 5)
        self._readers[run] += 1
        self._reading[principal] += 1

        return _Attached(self, run, principal)

    def detach(self, run: str, principal: str) -> None:
        """One reader less."""
        for counter, key in ((self._readers, run), (self._reading, principal)):
            counter[key] -= 1
            if not counter[key]:
                del counter[key]

    def admit(self, principal: str, census: Census, bounds: PrincipalLimits | None = None) -> None:
        """Reserve a place for a run of ``principal``, within ``bounds`` (default: the settings'),
        or raise. Afterwards call `give_back`, whether it was started (then the census counts it)
        or not. The store counts them as well, for all processes; what this one sees is refused
        without asking it."""
        if bounds is None:
            bounds = self._bounds
        most, most_waiting = bounds.runs, bounds.waiting_runs
        limits = [] if most is None else [most - self._reserved[principal]]
        limits += [] if most_waiting is None else [most_waiting]
        own = census.of(principal, below=min(limits, default=math.inf))
        if most is not None and own.running + self._reserved[principal] >= most:
            raise self._busy("runs_per_principal", f"you already have {most} runs in progress", 5)
        if most_waiting is not None and own.waiting >= most_waiting:
            message = f"{most_waiting} of your runs wait for an answer; answer or cancel one"
            raise self._busy("waiting_runs_per_principal", message, 60)
        reserved = self._reserved.total()
        everybody = census.total(below=min(self.runs - reserved, self.waiting_runs))
        if everybody.running + reserved >= self.runs:
            raise self._busy("runs", "the server is full", 5)
        if everybody.waiting >= self.waiting_runs:
            raise self._busy("waiting_runs", "too many runs wait for an answer", 60)
        per_minute = bounds.starts_per_minute
        if per_minute is not None:
            bucket = self._bucket(self._starts, principal, per_minute, self.starts_burst)
            wait = bucket.take(self._clock()) if per_minute else 60.0
            if wait:
                message = f"more than {per_minute} runs a minute"
                raise self._busy("starts_per_minute", message, wait)
        self._reserved[principal] += 1

    def give_back(self, principal: str) -> None:
        """The reserved place is not needed any more."""
        self._reserved[principal] -= 1
        if not self._reserved[principal]:
            del self._reserved[principal]

    def refund(self, principal: str) -> None:
        """A start that `admit` counted was refused elsewhere."""
        bucket = self._starts.get(principal)
        if bucket is not None:
            bucket.level += 1

    def missed(self, address: str) -> None:
        """An unknown run or a bad cursor was asked for. Raises when it happens too often."""
        per_minute = self.bad_attach_per_minute
        network = network_of(address)
        wait = self._bucket(self._misses, network, per_minute, per_minute).take(self._clock())
        if wait:
            raise self._busy("bad_attach_per_minute", "too many requests for unknown runs", wait)

    def wrong_key(self, address: str) -> None:
        """A wrong key was sent. Raises when it happens too often. Right keys are not asked."""
        per_minute = self.wrong_keys_per_minute
        network = network_of(address)
        wait = self._bucket(self._wrong_keys, network, per_minute, per_minute).take(self._clock())
        if wait:
            raise self._busy("wrong_keys_per_minute", "too many wrong API keys", wait)

    def _bucket(
        self, buckets: OrderedDict[str, Bucket], key: str, per_minute: int, burst: int
    ) -> Bucket:
        bucket = buckets.get(key)
        if bucket is None:
            bucket = buckets[key] = Bucket(per_minute / 60, max(1, burst), self._clock())
            if len(buckets) > _MOST_BUCKETS:
                buckets.popitem(last=False)
        bucket.rate = per_minute / 60  # it may have other limits by now
        buckets.move_to_end(key)
        return bucket

    def _busy(self, limit: str, what: str, wait: float) -> BusyError:
        self.refused[limit] += 1
        retry_after = max(1, round(wait + 0.5))
        return BusyError(
            f"{what}; try again in {retry_after} s", limit=limit, retry_after=retry_after
        )
