"""Following: past the sleeping task or through it, every record once and in order."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from tokenwire.events.model import RunStart, TextDelta
from tokenwire.express import NO, SETTLE, YES
from tokenwire.log.memory import MemoryStore
from tokenwire.relay.follow import Follower
from tokenwire.relay.record import Chain

RUN = "r" * 22


async def filled(log, chain, count, first, close=None):
    records = [chain.seal(TextDelta(part=0, text=f"{first + n}")) for n in range(count)]
    await log.append(RUN, epoch=1, first=first, records=records, close=close)
    return records


@given(
    st.lists(
        st.tuples(
            st.integers(1, 5),  # records of the append
            st.sampled_from(["take", "refuse", "settle", "break"]),  # what the reader does with it
            st.integers(0, 3),  # turns of the loop before the next append
        ),
        max_size=20,
    )
)
def test_every_record_comes_once_and_in_order(steps):
    async def main():
        log, chain = MemoryStore(), Chain(RUN)
        await log.create(RUN, owner="o")
        written = [chain.seal(RunStart(run=RUN, time=1))]
        await log.append(RUN, epoch=1, first=1, records=written)
        follower, found, mood, broken = Follower(log, RUN), [], ["take"], []

        def take(batch):
            if mood[0] == "break":
                broken.append(len(found))
                raise RuntimeError("a bug of the reader")
            if mood[0] == "refuse":
                return NO
            assert batch.first == len(found) + 1
            found.extend(batch.records)
            return SETTLE if mood[0] == "settle" else YES

        follower.express(take)

        async def read():
            while True:
                try:
                    batch = await follower.next()
                except RuntimeError:
                    raised.append(len(found))
                    continue
                if batch is None:
                    return
                assert batch.first == len(found) + 1
                found.extend(batch.records)

        reading, raised = asyncio.ensure_future(read()), []
        for count, how, turns in steps:
            mood[0] = how
            written += await filled(log, chain, count, len(written) + 1)
            for _ in range(turns):
                await asyncio.sleep(0)
        written += await filled(log, chain, 1, len(written) + 1, close="complete")
        await reading
        assert found == written
        assert raised == broken  # each failure was told, at its place

    asyncio.run(main())


def test_what_comes_while_the_task_waits_is_taken_in_the_turn_that_brings_it():
    async def main():
        log, chain = MemoryStore(), Chain(RUN)
        await log.create(RUN, owner="o")
        follower, found = Follower(log, RUN), []

        def take(batch):
            found.extend(batch.records)
            return YES

        follower.express(take)
        waiting = asyncio.ensure_future(follower.next())
        await asyncio.sleep(0)
        written = await filled(log, chain, 3, 1)
        assert found == written
        follower.close()
        assert await waiting is None

    asyncio.run(main())
