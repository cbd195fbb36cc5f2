"""Ask for a shape: watch the value grow, get one that is checked."""

import asyncio

from pydantic import BaseModel

import tokenwire
from tokenwire.testing import ScriptedModel
from tokenwire.tools.structured import partial_values


class City(BaseModel):
    name: str
    people: int
    rivers: list[str]


async def main() -> None:
    answer = '{"name": "Paris", "people": 2100000, "rivers": ["Seine", "Bièvre"]}'
    model = ScriptedModel([answer[i : i + 9] for i in range(0, len(answer), 9)])
    async with tokenwire.stream("Describe Paris", model=model, output=City) as run:
        async for value in partial_values(run):
            print("so far:", value)
        result = await run.result()
    city = result.output
    assert isinstance(city, City)
    print("checked:", city)


asyncio.run(main())
