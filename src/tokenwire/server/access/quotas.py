"""How many runs and tokens a principal and a tenant may have, counted in the store.

Always true: what is counted is in the store before a run is, whichever process starts it, so that
all processes of a store together hold a limit; nothing is written when a run ends: whether one
still counts is read from its own log, so no count outlives a process that was killed; a run's
tokens are added once, in the act that takes the run off the list.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter
from collections.abc import AsyncGenerator, Collection
from contextlib import asynccontextmanager
from typing import NamedTuple

import msgspec

from tokenwire.errors import BusyError, GoneError, NotFoundError, StoreDamagedError
from tokenwire.events.codec import decode
from tokenwire.events.model import RunEnd
from tokenwire.events.principal import Principal, PrincipalLimits, parts_of
from tokenwire.relay import Store
from tokenwire.relay.description import RunInfo
from tokenwire.relay.record import json_of
from tokenwire.relay.replay import read_run, waits
from tokenwire.server.edge.auth import Identity
from tokenwire.server.settings import Settings

__all__ = ["Count", "Quotas"]

_KIND = "quota"
#: Seconds after which a run that is not in the store was never started.
_UNBORN = 60.0
_DAY = 86_400
#: Documents that one sweep looks at.
_MOST_SWEPT = 100_000


class _Counts(msgspec.Struct, array_like=True):
    """As the store has it. ``runs``: the runs that may be open, and since when (Unix seconds);
    ``level``, ``then``: of the bucket of starts; ``tokens``: of ``day`` (since 1970). ``change``:
    no two writes are the same, so that of two processes that count the same one swaps."""

    runs: dict[str, float]
    level: float
    then: float
    day: int = 0
    tokens: int = 0
    change: bytes = b""


class _Subject(NamedTuple):
    """Who is counted: the name of its document, what its limits are called, and what they are."""

    name: str
    whose: str
    limits: PrincipalLimits


class _Open(NamedTuple):
    """Of a subject's runs: those at work, those that wait, those that are over, and the tokens of
    these that were spent on ``day``."""

    running: int
    waiting: int
    over: list[str]
    tokens: int


class Count:
    """One run that is about to start; ``is_started``: it was; ``is_repeated``: it was there.
    ``budgets``: those in force for it, as `RunMeta.budgets` has them."""

    is_started: bool = False
    is_repeated: bool = False
    budgets: list[str] | None = None


class Quotas:
    """The limits of one server. ``store`` is set before the first run."""

    store: Store

    def __init__(self, settings: Settings, *, keys_on: bool) -> None:
        def choose(value: int | None, with_keys: int) -> int | None:
            return value if value is not None else (with_keys if keys_on else None)

        #: How many were refused, by limit.
        self.refused: Counter[str] = Counter()
        self._burst = settings.starts_burst
        self._of_principal = PrincipalLimits(
            runs=choose(settings.runs_per_principal, 4),
            waiting_runs=choose(settings.waiting_runs_per_principal, 20),
            starts_per_minute=choose(settings.starts_per_minute, 30),
            tokens_per_day=settings.tokens_per_day,
        )
        self._of_tenant = PrincipalLimits(
            runs=settings.runs_per_tenant,
            starts_per_minute=settings.starts_per_tenant,
            tokens_per_day=settings.tokens_per_tenant,
        )

    def limits_of(self, identity: Identity) -> PrincipalLimits:
        """What the principal may have: its own limits, else the server's."""
        return _merged(identity.limits, self._of_principal)

    @asynccontextmanager
    async def counted(self, identity: Identity, run: str) -> AsyncGenerator[Count]:
        """Count a run that is about to start, and no longer than this unless it was started.
        Raises `BusyError`, and then nothing was counted."""
        count, places = Count(), await self._count(identity, run)
        try:
            yield count
        finally:
            if not count.is_started:
                start = 1.0 if count.is_repeated else 0.0
                for subject, since in places:
                    await self._drop(subject, run, since, start)

    async def began(self, principal: str, run: str) -> None:
        """Count a run that waited in a queue as a turn, and is about to start: its start was
        counted when it came, so nothing refuses it now."""
        tenant = Principal.of(principal).tenant if principal else None
        for name in (_name("p", principal), *([_name("t", tenant)] if tenant else [])):
            while (data := await self.store.document(_KIND, name)) is not None:
                counts = msgspec.msgpack.decode(data, type=_Counts)
                # Another time than it had, so that the request which brought it takes nothing off.
                counts.runs[run] = max(time.time(), counts.runs.get(run, 0.0) + 1e-3)
                if await self._swap(name, data, counts):
                    break

    async def _count(self, identity: Identity, run: str) -> list[tuple[_Subject, float]]:
        """Where, and as begun when, the run was counted now."""
        places: list[tuple[_Subject, float]] = []
        try:
            for subject in self._subjects(identity):
                since = await self._take(subject, run)
                if since is not None:
                    places.append((subject, since))
        except BaseException as error:
            if isinstance(error, BusyError):
                self.refused[error.details["limit"]] += 1
            for subject, since in places:
                await self._drop(subject, run, since, start=1.0)
            raise
        return places

    async def before_erase(self, identity: Identity, runs: Collection[RunInfo]) -> None:
        """Take runs that are about to be erased off the list, and add their tokens: nothing says
        later how many they were. They count for who started them, whoever erases them."""
        for principal in {run.principal for run in runs}:
            started = [run.id for run in runs if run.principal == principal]
            is_own = principal == identity.principal
            for subject in self._subjects(identity) if is_own else _subjects_of(principal):
                await self._settle(subject, started)

    async def sweep(self) -> None:
        """Forget who has started nothing since yesterday and has no open run."""
        before = time.time() - _DAY
        for name, data in (await self.store.documents(_KIND, most=_MOST_SWEPT)).items():
            counts = msgspec.msgpack.decode(data, type=_Counts)
            if counts.then < before:
                state = await self._open(counts, counts.runs)
                if not state.running and not state.waiting:
                    await self.store.swap_document(_KIND, name, data, None)

    def _subjects(self, identity: Identity) -> list[_Subject]:
        name = _name("p", identity.principal)
        subjects = [_Subject(name, "principal", self.limits_of(identity))]
        if identity.tenant is not None:
            limits = _merged(identity.tenant_limits, self._of_tenant)
            subjects.append(_Subject(_name("t", identity.tenant), "tenant", limits))
        return [subject for subject in subjects if subject.limits != PrincipalLimits()]

    async def _take(self, subject: _Subject, run: str) -> float | None:
        """Since when the run counts; None where it was counted before: a request may name its run
        again."""
        limits = subject.limits
        while True:
            data, counts = await self._read(subject)
            open_runs = len(counts.runs)
            is_near = any(most is not None and open_runs >= most for most in _concurrent(limits))
            if is_near or limits.tokens_per_day is not None:
                state = await self._open(counts, counts.runs)
                _take_off(counts, state)
            else:
                state = _Open(open_runs, 0, [], 0)
            self._check(subject, counts, state)
            if limits.starts_per_minute is not None:
                counts.level -= 1
            is_new, now = run not in counts.runs, time.time()
            counts.runs.setdefault(run, now)
            if await self._swap(subject.name, data, counts):
                return now if is_new else None

    def _check(self, subject: _Subject, counts: _Counts, state: _Open) -> None:
        """Raise `BusyError` for the limit that one more run would exceed."""
        limits, whose = subject.limits, subject.whose
        if limits.tokens_per_day is not None and counts.tokens >= limits.tokens_per_day:
            wait = _DAY - time.time() % _DAY
            name = "tokens_per_day" if whose == "principal" else "tokens_per_tenant"
            raise _busy(name, f"the {limits.tokens_per_day} tokens of today are used", wait)
        if limits.runs is not None and state.running >= limits.runs:
            what = f"{limits.runs} runs of this {whose} are in progress"
            raise _busy(f"runs_per_{whose}", what, 5)
        if limits.waiting_runs is not None and state.waiting >= limits.waiting_runs:
            what = f"{limits.waiting_runs} runs of this {whose} wait for an answer"
            raise _busy(f"waiting_runs_per_{whose}", f"{what}; answer or cancel one", 60)
        if limits.starts_per_minute is not None and counts.level < 1:
            rate = limits.starts_per_minute / 60
            name = "starts_per_minute" if whose == "principal" else "starts_per_tenant"
            what = f"more than {limits.starts_per_minute} runs a minute"
            raise _busy(name, what, (1 - counts.level) / rate if rate else 60)

    async def _drop(self, subject: _Subject, run: str, since: float, start: float = 0.0) -> None:
        while True:
            data, counts = await self._read(subject)
            if counts.runs.get(run) != since:
                return  # it began meanwhile
            del counts.runs[run]
            counts.level += start
            if await self._swap(subject.name, data, counts):
                return

    async def _settle(self, subject: _Subject, runs: Collection[str]) -> None:
        while True:
            data, counts = await self._read(subject)
            listed = counts.runs.keys() & set(runs)
            if not listed:
                return
            if subject.limits.tokens_per_day is not None:
                counts.tokens += sum([await self._spent(run, counts.day) for run in listed])
            for run in listed:
                del counts.runs[run]
            if await self._swap(subject.name, data, counts):
                return

    async def _read(self, subject: _Subject) -> tuple[bytes | None, _Counts]:
        """The document, and the counts that it has now."""
        now, rate = time.time(), (subject.limits.starts_per_minute or 0) / 60
        burst = max(1, self._burst) if rate else 0
        data = await self.store.document(_KIND, subject.name)
        if data is None:
            return None, _Counts({}, burst, now, int(now // _DAY))
        counts = msgspec.msgpack.decode(data, type=_Counts)
        counts.level = min(burst, counts.level + max(0.0, now - counts.then) * rate)
        counts.then = now
        if counts.day != int(now // _DAY):
            counts.day, counts.tokens = int(now // _DAY), 0
        return data, counts

    async def _swap(self, name: str, old: bytes | None, counts: _Counts) -> bool:
        counts.change = os.urandom(8)
        new = msgspec.msgpack.encode(counts)
        return await self.store.swap_document(_KIND, name, old, new)

    async def _open(self, counts: _Counts, runs: dict[str, float]) -> _Open:
        """What has become of the runs."""
        running = waiting = tokens = 0
        over: list[str] = []
        for run, since in runs.items():
            try:
                info = await self.store.describe(run)
            except (NotFoundError, GoneError):
                if time.time() - since < _UNBORN:
                    running += 1  # another request is about to start it
                else:
                    over.append(run)
                continue
            if info.closed is not None:
                over.append(run)
                tokens += await self._spent(run, counts.day)
            elif await waits(self.store, run, info.tail):
                waiting += 1
            else:
                running += 1
        return _Open(running, waiting, over, tokens)

    async def _spent(self, run: str, day: int) -> int:
        """The tokens of a run, if it ended on ``day`` or has not ended."""
        try:
            info = await self.store.describe(run)
            if info.closed is None:
                usage = (await read_run(self.store, run)).fold.usage
                return _sum(usage)
            page = await self.store.read(run, after=max(0, info.tail - 1), most=1)
            end = decode(json_of(page.records[-1])) if page.records else None
        except (NotFoundError, GoneError, StoreDamagedError):
            return 0
        if not isinstance(end, RunEnd) or (info.created + end.t / 1000) // _DAY < day:
            return 0
        return _sum(end.usage or {})


def _subjects_of(principal: str) -> list[_Subject]:
    """Somebody else and their tenant: what they may have is not known here, and tokens count."""
    user, tenant = parts_of(principal)
    counted = PrincipalLimits(tokens_per_day=0)
    subjects = [_Subject(_name("p", principal), "principal", counted)] if user else []
    if tenant is not None:
        subjects.append(_Subject(_name("t", tenant), "tenant", counted))
    return subjects


def _name(kind: str, whose: str) -> str:
    """The name of a document, which says nobody's."""
    return hashlib.sha256(f"{kind}\0{whose}".encode()).hexdigest()[:32]


def _take_off(counts: _Counts, state: _Open) -> None:
    for run in state.over:
        del counts.runs[run]
    counts.tokens += state.tokens


def _concurrent(limits: PrincipalLimits) -> tuple[int | None, int | None]:
    return limits.runs, limits.waiting_runs


def _merged(own: PrincipalLimits | None, usual: PrincipalLimits) -> PrincipalLimits:
    if own is None:
        return usual
    return PrincipalLimits(
        runs=usual.runs if own.runs is None else own.runs,
        waiting_runs=usual.waiting_runs if own.waiting_runs is None else own.waiting_runs,
        starts_per_minute=(
            usual.starts_per_minute if own.starts_per_minute is None else own.starts_per_minute
        ),
        tokens_per_day=usual.tokens_per_day if own.tokens_per_day is None else own.tokens_per_day,
    )


def _sum(usage: dict[str, int]) -> int:
    """Tokens in and out; the total where a provider reports that alone."""
    both = usage.get("input_tokens", 0) + usage.get("output_tokens", 0)
    return both or usage.get("total_tokens", 0)


def _busy(limit: str, what: str, wait: float) -> BusyError:
    retry_after = max(1, round(wait + 0.5))
    return BusyError(f"{what}; try again in {retry_after} s", limit=limit, retry_after=retry_after)
