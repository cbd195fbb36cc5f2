"""An agent of LlamaIndex, as it is: text, tool calls, and who speaks."""

import asyncio

from llama_index.core.agent.workflow import FunctionAgent
from llama_index.llms.openai_like import OpenAILike

import tokenwire
from tokenwire.demo import demo_server
from tokenwire.events import TextDelta, TextStart, ToolResult


def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"sunny in {city}"


async def main() -> None:
    async with demo_server() as url:
        llm = OpenAILike(
            model="demo",
            api_base=url,
            api_key="none",
            is_chat_model=True,
            is_function_calling_model=True,
        )
        weather = FunctionAgent(name="Weather", llm=llm, tools=[get_weather])
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
