"""An agent of Strands, as it is: text, tool calls, and who speaks."""

import asyncio

from strands import Agent, tool
from strands.models.openai import OpenAIModel

import tokenwire
from tokenwire.demo import demo_server
from tokenwire.events import TextDelta, TextStart, ToolResult


@tool
def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"sunny in {city}"


async def main() -> None:
    async with demo_server() as url:
        client = {"base_url": url, "api_key": "none"}
        model = OpenAIModel(client_args=client, model_id="demo")
        weather = Agent(name="Weather", model=model, tools=[get_weather])
        async with tokenwire.stream("scenario:tool", model=weather) as run:
            async for event in run:
                match event:
                    case TextStart(agent=speaker) if speaker:
                        print(f"{speaker.name}: ", end="")
                    case TextDelta(text=text):
                        print(text, end="", flush=True)
                    case ToolResult(name=name, content=content):
                        print(f"[{name}: {content}]")
        print(f"\n-- {run.state.outcome}")


asyncio.run(main())
