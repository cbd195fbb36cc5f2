"""An agent of the Claude Agent SDK, as it is: its options are the agent."""

import asyncio
import tempfile

from claude_agent_sdk import ClaudeAgentOptions, create_sdk_mcp_server, tool

import tokenwire
from tokenwire.demo import demo_server
from tokenwire.events import RunWait, TextDelta, ToolResult


@tool("get_weather", "The weather of a city", {"city": str})
async def get_weather(arguments: dict) -> dict:
    return {"content": [{"type": "text", "text": f"sunny in {arguments['city']}"}]}


async def main() -> None:
    async with demo_server() as url:
        with tempfile.TemporaryDirectory() as home:
            weather = ClaudeAgentOptions(
                model="demo",
                system_prompt="You know the weather.",
                tools=[],
                mcp_servers={"weather": create_sdk_mcp_server("weather", "1", [get_weather])},
                env={
                    "ANTHROPIC_BASE_URL": url.removesuffix("/v1"),
                    "ANTHROPIC_API_KEY": "none",
                    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
                    "HOME": home,
                },
            )
            prompt = "Call mcp__weather__get_weather, please."
            async with tokenwire.stream(prompt, model=weather) as run:
                async for event in run:
                    match event:
                        case RunWait(pending=questions):
                            print("[a person says yes]")
                            run.approve(questions[0], approved=True)
                        case TextDelta(text=text):
                            print(text, end="", flush=True)
                        case ToolResult(name=name, content=content):
                            print(f"[{name}: {content}]")
        print(f"\n-- {run.state.outcome}")


asyncio.run(main())
