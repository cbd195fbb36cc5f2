"""A run with a log: a reader leaves in the middle, comes back, and misses nothing."""

import asyncio

import tokenwire
from tokenwire import Request, Runs
from tokenwire.demo import demo_server
from tokenwire.events import Fold, TextDelta


async def read(runs: Runs, run: str, state: Fold, after: str | None, most: int = 10_000) -> str:
    """At most ``most`` pieces of text after a cursor, into ``state``; the new cursor.

    The state takes back what a `step-reset` withdraws; joined deltas would hold it twice."""
    cursor = after or ""
    follower = await runs.follow(run, after=after)
    try:
        while (batch := await follower.next()) is not None:
            for cursor, event in batch.events():
                state.apply(event)
                most -= isinstance(event, TextDelta)
                if most == 0:
                    return cursor
    finally:
        follower.close()
    return cursor


async def main() -> None:
    async with demo_server() as url:
        store, registry = tokenwire.open_store("memory:"), tokenwire.Registry(demo_url=url)
        async with Runs(store, registry=registry) as runs:
            request = Request(messages=[tokenwire.user("scenario:slow")])
            info = await runs.start(request, model="demo")
            state = Fold()
            cursor = await read(runs, info.id, state, None, most=3)
            print("first reader:", state.text)
            await read(runs, info.id, state, cursor)
            print("second reader, after", cursor.partition("-")[0], ":", state.text)
            assert state.text.split() == [str(n) for n in range(1, 91)]


asyncio.run(main())
