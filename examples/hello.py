"""An answer, word by word."""

import asyncio

import tokenwire


async def main() -> None:
    async with tokenwire.stream("Hello", model="demo") as run:
        async for text in run.text():
            print(text, end="", flush=True)
    print()


asyncio.run(main())
