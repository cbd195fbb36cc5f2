"""A reader slower than the model makes the model wait; nothing is lost, memory stays small."""

import asyncio

import tokenwire


async def main() -> None:
    pieces = 0
    async with tokenwire.stream("demo", "scenario:slow", buffer_events=50) as run:
        async for _ in run.text():
            pieces += 1
            await asyncio.sleep(0.01)
    print(pieces, "pieces;", run.buffer)


asyncio.run(main())
