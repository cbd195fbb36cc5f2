"""A machine that calls a store in any order, and a simple model that it holds against it.

Two kinds: one log with subscriptions (which brings its tail cache into play), and, for shared
stores, two logs on one store that are called in turn.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from tokenwire.errors import (
    ConflictError,
    CursorError,
    GoneError,
    KeyReusedError,
    NotFoundError,
    TokenwireError,
)
from tokenwire.log.base import Store
from tokenwire.log.open import open_store
from tokenwire.log.redis.appending.packing import NOTED_BYTES
from tokenwire.log.redis.store import RedisStore

NAMES = st.sampled_from(["a", "b", "c", "d{x}%"])
OWNERS = st.sampled_from(["me", "you"])
LEASES = st.sampled_from([0.0, 60.0])
RECORDS = st.lists(st.binary(max_size=12), max_size=5)
CLOSES = st.sampled_from([None, None, None, "complete", "error"])


@dataclass
class Model:
    """One stream, as plainly as it can be said."""

    owner: str
    thread: str | None
    key: tuple[str, str] | None
    free: bool
    epoch: int = 1
    records: list[bytes] = field(default_factory=list)
    closed: str | None = None
    commands: list[bytes] = field(default_factory=list)

    def append(self, epoch: int, first: int, records: list[bytes], close: str | None) -> str:
        last = first + len(records) - 1
        tail = len(self.records)
        common = min(last, tail)
        differs = common >= first and self.records[common - 1] != records[common - first]
        if epoch != self.epoch:
            return "fenced"
        if self.closed:
            if last > tail or close not in (None, self.closed):
                return "closed"
            return "conflict" if differs else "duplicate"
        if first > tail + 1:
            return "gap"
        if differs:
            return "conflict"
        if last <= tail and close is None:
            return "duplicate"
        self.records += records[tail + 1 - first :]
        self.closed = close
        return "ok"


class LogMachine(RuleBasedStateMachine):
    """Calls the store and the model, and compares."""

    shared = False
    url = "memory:"
    count = 0

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.mkdtemp(prefix="tokenwire-log-")
        type(self).count += 1
        url = self.url.format(folder=self.folder, number=self.count)
        self.logs: list[Store] = [open_store(url) for _ in range(2 if self.shared else 1)]
        for log in self.logs:
            self.call(log.start())
        self.turn = 0
        self.streams: dict[str, Model] = {}
        self.gone: set[str] = set()
        self.threads: list[str] = []
        self.ends: dict[str, Any] = {}
        self.woken: set[str] = set()

    def teardown(self) -> None:
        for log in self.logs:
            self.call(log.close())
        self.loop.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def call(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(work, 60))

    @property
    def log(self) -> Store:
        self.turn += 1
        return self.logs[self.turn % len(self.logs)]

    def expected(self, name: str) -> type[TokenwireError] | None:
        if name in self.streams:
            return None
        return GoneError if name in self.gone else NotFoundError

    def try_call(self, name: str, work: Coroutine[Any, Any, Any]) -> Any:
        """The result, or None when the call failed as it had to."""
        expected = self.expected(name)
        if expected is None:
            return self.call(work)
        with pytest.raises(expected):
            self.call(work)
        return None

    @rule(
        name=NAMES,
        owner=OWNERS,
        lease=LEASES,
        thread=st.sampled_from([None, "t", "u"]),
        key=st.sampled_from([None, ("k", "1"), ("k", "2"), ("l", "1")]),
    )
    def create(
        self, name: str, owner: str, lease: float, thread: str | None, key: tuple[str, str] | None
    ) -> None:
        text, key_hash = key or (None, "")
        work = self.log.create(
            name, owner=owner, thread=thread, key=text, key_hash=key_hash, lease=lease
        )
        holders = [s for s in self.streams.items() if key and s[1].key and s[1].key[0] == key[0]]
        if holders:
            known, model = holders[0]
            if model.key != key:
                with pytest.raises(KeyReusedError):
                    self.call(work)
            else:
                info = self.call(work)
                assert (info.log, info.tail) == (known, len(model.records))
        elif name in self.streams or name in self.gone:
            with pytest.raises(ConflictError):
                self.call(work)
        else:
            info = self.call(work)
            assert (info.log, info.epoch, info.tail, info.closed) == (name, 1, 0, None)
            self.streams[name] = Model(owner, thread, key, lease == 0.0)
            self.threads.append(name)

    @rule(
        name=NAMES,
        behind=st.sampled_from([0, 0, 0, 0, 1]),
        shift=st.sampled_from([0, 0, 0, 0, 1, -1, -2]),
        records=RECORDS,
        close=CLOSES,
        again=st.sampled_from([True, True, True, False]),
    )
    def append(
        self,
        name: str,
        behind: int,
        shift: int,
        records: list[bytes],
        close: str | None,
        again: bool,
    ) -> None:
        model = self.streams.get(name)
        epoch = model.epoch - behind if model else 1
        first = max(1, len(model.records) + 1 + shift) if model else 1
        if model and again:  # what was accepted once is sent again as it was
            kept = model.records[first - 1 : first - 1 + len(records)]
            records = kept + records[len(kept) :]
        self.woken.discard(name)
        done = self.try_call(
            name, self.log.append(name, epoch=epoch, first=first, records=records, close=close)
        )
        if model:
            assert done.status == model.append(epoch, first, records, close)
            assert done.tail == len(model.records)
            assert done.epoch == model.epoch
            assert done.status != "ok" or name in self.woken or name not in self.ends

    @rule(name=NAMES, after=st.integers(-1, 9), most=st.integers(1, 9), size=st.integers(1, 30))
    def read(self, name: str, after: int, most: int, size: int) -> None:
        model = self.streams.get(name)
        if model and not 0 <= after <= len(model.records):
            with pytest.raises(CursorError):
                self.call(self.log.read(name, after=after, most=most, most_bytes=size))
            return
        page = self.try_call(name, self.log.read(name, after=after, most=most, most_bytes=size))
        if model is None:
            return
        wanted = model.records[after : after + most]
        while len(wanted) > 1 and sum(map(len, wanted)) > size:
            wanted.pop()
        assert page.records == wanted
        assert (page.first, page.tail) == (after + 1, len(model.records))
        reached = after + len(wanted) == len(model.records)
        assert page.closed == (model.closed if reached else None)

    @rule(name=NAMES)
    def describe(self, name: str) -> None:
        info = self.try_call(name, self.log.describe(name))
        model = self.streams.get(name)
        if model:
            assert (info.epoch, info.owner, info.tail) == (
                model.epoch,
                model.owner,
                len(model.records),
            )
            assert (info.closed, info.thread) == (model.closed, model.thread)
            behind = sum(map(len, model.records)) - info.bytes
            assert 0 <= behind <= (NOTED_BYTES if isinstance(self.log, RedisStore) else 0)

    @rule(name=NAMES, owner=OWNERS, lease=LEASES)
    def claim(self, name: str, owner: str, lease: float) -> None:
        claim = self.call(self.log.claim(name, owner=owner, lease=lease))
        model = self.streams.get(name)
        if model is None or model.closed or not model.free:
            assert claim is None
            return
        model.epoch += 1
        model.owner = owner
        model.free = lease == 0.0
        assert (claim.epoch, claim.tail) == (model.epoch, len(model.records))

    @rule(names=st.sets(NAMES), owner=OWNERS, behind=st.integers(0, 1), lease=LEASES)
    def renew(self, names: set[str], owner: str, behind: int, lease: float) -> None:
        epochs = {name: self.streams[name].epoch - behind for name in names & set(self.streams)}
        epochs |= dict.fromkeys(names - set(self.streams), 1)
        lost = self.call(self.log.renew(epochs, owner=owner, lease=lease))
        for name, epoch in epochs.items():
            model = self.streams.get(name)
            kept = model and not model.closed and (model.epoch, model.owner) == (epoch, owner)
            assert (name not in lost) == bool(kept)
            if model and kept:
                model.free = lease == 0.0

    @rule(name=NAMES, behind=st.integers(0, 1))
    def release(self, name: str, behind: int) -> None:
        model = self.streams.get(name)
        epoch = model.epoch - behind if model else 1
        self.call(self.log.release(name, epoch=epoch))
        if model and not behind and not model.closed:
            model.free = True

    @rule()
    def orphans(self) -> None:
        free = {n for n, model in self.streams.items() if model.free and not model.closed}
        assert set(self.call(self.log.orphans())) == free

    @rule(name=NAMES, data=st.binary(max_size=8))
    def command(self, name: str, data: bytes) -> None:
        self.try_call(name, self.log.command(name, data))
        if name in self.streams:
            self.streams[name].commands.append(data)

    @rule(name=NAMES, after=st.integers(0, 3))
    def commands(self, name: str, after: int) -> None:
        found = self.try_call(name, self.log.commands(name, after=after))
        if name in self.streams:
            assert found == list(enumerate(self.streams[name].commands, 1))[after:]

    @rule(after=st.integers(0, 3))
    def mailboxes(self, after: int) -> None:
        queues = {n: list(enumerate(s.commands, 1))[after:] for n, s in self.streams.items()}
        places = dict.fromkeys([*self.streams, "unknown"], after)
        assert self.call(self.log.mailboxes(places)) == {n: q for n, q in queues.items() if q}

    @rule(thread=st.sampled_from(["t", "u", "v"]), most=st.integers(1, 3))
    def thread(self, thread: str, most: int) -> None:
        names = [n for n in reversed(self.threads) if self.streams[n].thread == thread]
        assert self.call(self.log.thread(thread, most=most)) == names[:most]

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        self.call(self.log.delete(name))
        self.forget(name)
        self.gone.discard(name)

    @rule()
    def expire(self) -> None:
        used = {model.thread for model in self.streams.values() if not model.closed} - {None}
        ended = [
            n for n, model in self.streams.items() if model.closed and model.thread not in used
        ]
        assert self.call(self.log.expire(retention=-2)) == len(ended)
        for name in ended:
            self.forget(name)
            self.gone.add(name)

    def forget(self, name: str) -> None:
        if self.streams.pop(name, None):
            self.threads.remove(name)

    @precondition(lambda self: not self.shared)
    @rule(name=NAMES)
    def subscribe(self, name: str) -> None:
        async def subscribe() -> Any:
            return self.logs[0].subscribe(name, lambda: self.woken.add(name))

        if name not in self.ends:
            self.ends[name] = self.call(subscribe())

    @rule(name=NAMES)
    def unsubscribe(self, name: str) -> None:
        if name in self.ends:
            self.ends.pop(name)()

    @rule()
    def stats(self) -> None:
        stats = self.call(self.log.stats())
        assert stats["streams"] == len(self.streams)
        assert stats["open"] == sum(not model.closed for model in self.streams.values())


def check(
    url: str,
    *,
    shared: bool,
    examples: int,
    shrink: bool = True,
    base: type[LogMachine] = LogMachine,
) -> None:
    """Run the machine ``base`` on the store ``url``."""
    machine = type("Machine", (base,), {"url": url, "shared": shared, "count": 0})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            phases=[Phase.generate, *([Phase.shrink] if shrink else [])],
            suppress_health_check=list(HealthCheck),  # pyright: ignore[reportArgumentType]
            database=None,
        ),
    )
