"""One object per event loop: shared within it, kept while it lives, dropped after it."""

from __future__ import annotations

import asyncio
import threading

from tokenwire.per_loop import PerLoop


class Holder:
    """Refers to its loop, so that the garbage collector alone would never drop it."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()


def test_one_for_all_tasks_of_a_loop() -> None:
    shared = PerLoop(Holder)

    async def look() -> Holder:
        return shared()

    async def main() -> None:
        one, other = await asyncio.gather(look(), look())
        assert one is other is shared()

    asyncio.run(main())


def test_a_new_loop_does_not_forget_those_of_other_threads() -> None:
    shared = PerLoop(Holder)
    first, done = threading.Event(), threading.Event()
    same: list[bool] = []

    async def early() -> None:
        before = shared()
        first.set()
        await asyncio.to_thread(done.wait, 30)
        same.append(shared() is before)

    thread = threading.Thread(target=lambda: asyncio.run(early()))
    thread.start()
    assert first.wait(30)

    async def late() -> Holder:
        return shared()

    asyncio.run(late())
    asyncio.run(late())
    done.set()
    thread.join(30)
    assert same == [True]


def test_closed_loops_are_dropped() -> None:
    shared = PerLoop(Holder)

    async def use() -> None:
        shared()

    for _ in range(5):
        asyncio.run(use())
    assert len(shared) == 1
