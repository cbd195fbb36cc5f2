"""Sockets that a store has read when it takes records: what comes waits in them for the next group,
and no longer."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable
from typing import Any

import pytest

from support.spool_store import Store, by_hand, give, turns
from support.waiting import until
from tokenwire.errors import LogError
from tokenwire.log.spool import Spool

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is no such poller")

#: Groups of one record and more: the next one does not come by itself, or does so soon.
NEVER, SOON = ((1, 3600.0),), ((1, 0.3),)


class Model:
    """A provider's socket, whose bytes are records."""

    def __init__(self, store: Store) -> None:
        self.here, self.peer = socket.socketpair()
        self.here.setblocking(False)
        self.store, self.is_here = store, True
        spool = store.tails.spool("r")
        assert spool is not None
        assert spool.intake is store.tails.intake
        self.spool: Spool = spool
        self.pull: Callable[[], bool] = self._pull
        spool.intake.join(self.here.fileno(), self.pull, self._end)

    def _pull(self) -> bool:
        try:
            data = self.here.recv(100)
        except BlockingIOError:
            return False
        if data and self.spool.writer:
            by_hand(self.spool, data)
        return bool(data)

    def _end(self) -> None:
        self.is_here = False

    @property
    def count(self) -> int:
        """The records that came."""
        return len(self.spool.records)

    def close(self) -> None:
        self.here.close()
        self.peer.close()


def case(test: Callable[[Store, Model], Any], paces: Any = NEVER) -> None:
    async def main() -> None:
        store = Store()
        store.tails.paces, store.tails.beside = paces, 1.0
        store.tails.intake.open()
        give(store, 1, b"one")
        await until(lambda: store.groups)
        model = Model(store)
        try:
            await test(store, model)
        finally:
            store.tails.close()
            model.close()

    asyncio.run(main())


def test_what_comes_between_two_groups_waits_for_the_next_and_is_in_it() -> None:
    async def test(store: Store, model: Model) -> None:
        store.commit()
        model.peer.send(b"two")
        await turns(20)
        assert model.count == 1
        store.tails._turn(asyncio.get_running_loop())
        assert model.count == 2
        store.commit()
        assert store.records == store.seen == [b"one", b"two"]

    case(test)


def test_where_groups_do_not_wait_it_is_read_at_once() -> None:
    async def test(store: Store, model: Model) -> None:
        store.commit()
        model.peer.send(b"two")
        await until(lambda: store.groups)
        store.commit()
        assert store.seen == [b"one", b"two"]

    case(test, paces=())


def test_after_a_time_without_any_the_first_one_does_not_wait() -> None:
    async def test(store: Store, model: Model) -> None:
        store.commit()
        store.tails._turn(asyncio.get_running_loop())  # nothing came
        model.peer.send(b"two")
        await until(lambda: model.count == 2)

    case(test)


def test_a_call_for_a_group_that_has_nothing_in_it_leaves_the_next_one_due() -> None:
    async def test(store: Store, model: Model) -> None:
        store.commit()
        store.tails.hand_over()
        model.peer.send(b"two")
        await until(lambda: store.groups)
        assert model.count == 2

    case(test, paces=SOON)


@pytest.mark.parametrize("way", ["fails", "takes its time", "is full"])
def test_a_store_that_does_not_work_keeps_nobody_from_reading(way: str) -> None:
    async def test(store: Store, model: Model) -> None:
        store.commit()
        if way == "is full":

            def full(batch: Any) -> None:
                raise LogError("no")

            store.tails._carry = full
        by_hand(model.spool, b"two")
        store.tails._turn(asyncio.get_running_loop())
        if way == "fails":
            store.lose()
        elif way == "takes its time":
            store.tails._stall()
        model.peer.close()  # which is seen, though no group leaves
        await until(lambda: not model.is_here)

    case(test)


def test_a_process_that_writes_alone_reads_at_once() -> None:
    async def test(store: Store, model: Model) -> None:
        store.tails.beside = 0.0
        assert model.spool.intake is None
        store.tails.beside = 0.5
        assert model.spool.intake is store.tails.intake

    case(test)


def test_at_its_end_the_event_loop_reads_again() -> None:
    async def test(store: Store, model: Model) -> None:
        store.commit()
        assert model.is_here
        store.tails.close()
        assert not model.is_here
        assert model.spool.intake is None

    case(test)
