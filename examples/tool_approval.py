"""A tool that runs only after a person said yes to its exact arguments."""

import asyncio

import tokenwire
from tokenwire.events import ApprovalRequest, TextDelta, ToolResult


@tokenwire.tool(needs_approval=True)
def delete_file(path: str) -> str:
    """Delete a file (this one only says so)."""
    return f"{path} is gone"


async def main() -> None:
    async with tokenwire.stream("scenario:approval", model="demo", tools=[delete_file]) as run:
        async for event in run:
            match event:
                case ApprovalRequest(name=name, arguments=arguments):
                    print(f"\nMay {name} run with {arguments}? Yes.")
                    run.approve(event.approval_id, by="the example")
                case ToolResult(content=content):
                    print("result:", content)
                case TextDelta(text=text):
                    print(text, end="", flush=True)
    print()


asyncio.run(main())
