"""An agent of pydantic-ai, as it is: its tool asks a person, and the answer goes on."""

import asyncio

from pydantic_ai import Agent, DeferredToolRequests
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

import tokenwire
from tokenwire.demo import demo_server
from tokenwire.events import RunWait, TextDelta


def agent_at(url: str) -> Agent:
    model = OpenAIChatModel("demo", provider=OpenAIProvider(base_url=url, api_key="none"))
    agent = Agent(model, name="files", output_type=[str, DeferredToolRequests])

    @agent.tool_plain(requires_approval=True)
    def delete_file(path: str) -> str:
        return f"{path} is gone"

    return agent


async def main() -> None:
    async with demo_server() as url:
        async with tokenwire.stream("scenario:approval", model=agent_at(url)) as run:
            async for event in run:
                match event:
                    case TextDelta(text=text):
                        print(text, end="", flush=True)
                    case RunWait(pending=[approval]):
                        run.approve(approval, by="me")
        print(f"\n-- {run.state.outcome}")


asyncio.run(main())
