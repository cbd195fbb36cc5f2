"""An agent of Google's ADK, as it is: text, tool calls, and who speaks."""

import asyncio
import os

from google.adk.agents import LlmAgent
from google.adk.models.google_llm import Gemini

import tokenwire
from tokenwire.demo import demo_server
from tokenwire.events import TextDelta, TextStart, ToolResult


def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"sunny in {city}"


async def main() -> None:
    os.environ.setdefault("GOOGLE_API_KEY", "none")
    async with demo_server() as url:
        model = Gemini(model="demo", base_url=url.removesuffix("/v1"))
        weather = LlmAgent(name="Weather", model=model, tools=[get_weather])
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
