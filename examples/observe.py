"""Facts for metrics and logs: any function can listen."""

import asyncio

import tokenwire
from tokenwire.observe.facts import FirstToken, RunEnded
from tokenwire.observe.hooks import observe


def listen(fact: object) -> None:
    if isinstance(fact, FirstToken):
        print(f"first token after {fact.first_token_seconds:.2f} s")
    elif isinstance(fact, RunEnded):
        print("ended:", fact.outcome)


async def main() -> None:
    stop = observe(listen)
    async with tokenwire.stream("Hello", model="demo") as run:
        await run.result()
    stop()


asyncio.run(main())
