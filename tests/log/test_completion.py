"""An answer that is told by a call: others' answers come, whatever the call does."""

from __future__ import annotations

import asyncio
import logging

from tokenwire.errors import StoreUnavailableError
from tokenwire.log.base import Appended
from tokenwire.log.completion import Callback
from tokenwire.log.lane import Lane


def test_what_is_told():
    heard = []
    told = Callback(heard.append)
    gap, error = Appended("gap", 3, 1), StoreUnavailableError("away")
    told.set_result(Appended("ok", 3, 1))
    told.set_result(Appended("duplicate", 3, 1))
    told.set_result(gap)
    told.set_exception(error)
    assert heard == [None, None, gap, error]
    assert not told.done()


def test_a_call_that_fails_is_logged_and_keeps_nobody_waiting(caplog):
    async def work(items):
        return [Appended("ok", item, 1) for item in items]

    def broken(problem):
        raise RuntimeError("a fault of ours")

    async def main():
        lane = Lane(work, 10)
        lane.submit(1, Callback(broken))
        assert (await lane.ask(2)).tail == 2
        assert (await lane.ask(3)).tail == 3  # the lane goes on
        await lane.drain()

    with caplog.at_level(logging.ERROR, "tokenwire.log"):
        asyncio.run(main())
    assert "the callback of an append failed" in caplog.text
    assert "a fault of ours" in caplog.text
