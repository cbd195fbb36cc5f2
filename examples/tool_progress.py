"""A slow tool says how far it is, and shows pieces of its result."""

import asyncio
from collections.abc import AsyncIterator

import tokenwire
from tokenwire import Progress
from tokenwire.events import ToolOutput, ToolProgress, ToolResult
from tokenwire.testing import ScriptedModel, call


@tokenwire.tool
async def read_pages(count: int) -> AsyncIterator[Progress | str]:
    """Read pages."""
    for page in range(count):
        yield Progress(page / count, f"reading page {page + 1}")
        yield f"Page {page + 1} is about streams. "


async def main() -> None:
    # A scripted model says what it is told to; see tokenwire.testing.
    model = ScriptedModel([call("read_pages", {"count": 3})], ["All about streams."])
    async with tokenwire.stream("Read", model=model, tools=[read_pages]) as run:
        async for event in run:
            match event:
                case ToolProgress(fraction=fraction, message=message):
                    print(f"{fraction:4.0%} {message}")
                case ToolOutput(text=text):
                    print("     " + text)
                case ToolResult(content=content):
                    print(f"done: {len(content)} characters")


asyncio.run(main())
