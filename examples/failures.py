"""What can go wrong has a type, a code, and says whether trying again can help."""

import asyncio

import tokenwire
from tokenwire import TokenwireError


async def ask(model: str, prompt: str) -> None:
    try:
        async with tokenwire.stream(prompt, model=model) as run:
            async for text in run.text():
                print(text, end="", flush=True)
    except TokenwireError as error:
        # The text before was true; this is why there is no more of it.
        print(f"\n[{error.code}, retryable: {error.retryable}] {error}")


async def main() -> None:
    await ask("demo", "scenario:error")
    await ask("http://127.0.0.1:9/v1#nobody-is-here", "Hello")
    await ask("no-such-provider:model", "Hello")


asyncio.run(main())
