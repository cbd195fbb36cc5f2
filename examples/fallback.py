"""Several models in order: the next is asked when one fails before anything was visible."""

import asyncio

import tokenwire
from tokenwire import RetryPolicy


async def main() -> None:
    models = ["http://127.0.0.1:9/v1#down", "demo"]
    async with tokenwire.stream("Hello", model=models, retry=RetryPolicy(retries=0)) as run:
        result = await run.result()
    print("answered by", result.model)
    print(result.text)


asyncio.run(main())
