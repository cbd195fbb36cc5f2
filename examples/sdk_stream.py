"""You have a stream of the official SDK already: the same events from it."""

import asyncio

from openai import AsyncOpenAI

import tokenwire.sdk
from tokenwire.demo import demo_server
from tokenwire.events import TextDelta


async def main() -> None:
    async with demo_server() as url:
        client = AsyncOpenAI(base_url=url, api_key="none")
        stream = await client.chat.completions.create(
            model="demo", messages=[{"role": "user", "content": "Hello"}], stream=True
        )
        async for event in tokenwire.sdk.events(stream):
            if isinstance(event, TextDelta):
                print(event.text, end="", flush=True)
        await client.close()
    print()


asyncio.run(main())
