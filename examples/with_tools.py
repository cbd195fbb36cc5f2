"""Text and tool calls as plain dictionaries, from one generator."""

import asyncio

import tokenwire


def get_weather(city: str) -> str:
    """Tell the weather."""
    return f"sunny in {city}"


async def main() -> None:
    messages = [{"role": "user", "content": "scenario:tool"}]
    async for item in tokenwire.stream_with_tools(messages, [get_weather], model="demo"):
        if item["type"] == "content":
            print(item["data"], end="", flush=True)
        elif item["type"] == "tool_calls":
            print("\ncalls:", item["data"])
    print()


asyncio.run(main())
