"""Stop an answer: the provider's connection is closed, the run ends as 'cancelled'."""

import asyncio

import tokenwire
from tokenwire.events import RunEnd, TextDelta


async def main() -> None:
    count = 0
    async with tokenwire.stream("scenario:long", model="demo") as run:
        async for event in run:
            if isinstance(event, TextDelta):
                count += 1
                if count == 5:
                    run.cancel("I have read enough")
            if isinstance(event, RunEnd):
                print("outcome:", event.outcome)


asyncio.run(main())
