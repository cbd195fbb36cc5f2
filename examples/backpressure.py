"""A reader slower than the model makes the model wait; nothing is lost, memory stays small."""

import asyncio

import tokenwire


async def main() -> None:
    text = ""
    small = tokenwire.BufferLimits(events=50)
    async with tokenwire.stream("scenario:slow", model="demo", buffer=small) as run:
        async for piece in run.text():
            text += piece
            await asyncio.sleep(0.01)
    # Pieces that wait in the buffer are joined: fewer, larger ones, and the same text.
    print(len(text.split()), "numbers;", run.buffer)


asyncio.run(main())
