"""A run with a log: a reader leaves in the middle, comes back, and misses nothing."""

import asyncio

import tokenwire
from tokenwire import Request, Runs
from tokenwire.demo import demo_server
from tokenwire.events import TextDelta


async def read(runs: Runs, run: str, after: str | None, most: int = 10_000) -> tuple[str, str]:
    """At most ``most`` pieces of text after a cursor; the text and the new cursor."""
    text, cursor = "", after or ""
    follower = await runs.follow(run, after=after)
    try:
        while (batch := await follower.next()) is not None:
            for cursor, event in batch.events():
                if isinstance(event, TextDelta):
                    text, most = text + event.text, most - 1
                if most == 0:
                    return text, cursor
    finally:
        follower.close()
    return text, cursor


async def main() -> None:
    async with demo_server() as url:
        store, registry = tokenwire.open_store("memory:"), tokenwire.Registry(demo_url=url)
        async with Runs(store, registry=registry) as runs:
            request = Request(messages=[tokenwire.user("scenario:slow")])
            info = await runs.start(request, model="demo")
            first, cursor = await read(runs, info.id, None, most=3)
            print("first reader:", first)
            rest, _ = await read(runs, info.id, cursor)
            print("second reader, after", cursor.partition("-")[0], ":", rest)
            assert (first + rest).split() == [str(n) for n in range(1, 91)]


asyncio.run(main())
