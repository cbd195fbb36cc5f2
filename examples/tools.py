"""A function that the model may call while it answers."""

import asyncio

import tokenwire
from tokenwire.events import TextDelta, ToolError, ToolResult, ToolStart


@tokenwire.tool(timeout=10)
async def get_weather(city: str) -> dict:
    """Tell the weather.

    Args:
        city: Name of the city.
    """
    return {"city": city, "sky": "sunny", "temperature": 21}


async def main() -> None:
    async with tokenwire.stream("scenario:tool", model="demo", tools=[get_weather]) as run:
        async for event in run:
            match event:
                case TextDelta(text=text):
                    print(text, end="", flush=True)
                case ToolStart(name=name, arguments=arguments):
                    print(f"\n-> {name}({arguments})")
                case ToolResult(content=content):
                    print(f"<- {content}")
                case ToolError(code=code, message=message):
                    print(f"<- {code}: {message}")
    print()


asyncio.run(main())
