"""Everything that happens in a run, as typed events."""

import asyncio

import tokenwire
from tokenwire.events import Finish, ReasoningDelta, TextDelta, Usage


async def main() -> None:
    async with tokenwire.stream("scenario:reasoning", model="demo") as run:
        async for event in run:
            match event:
                case ReasoningDelta(text=text):
                    print(f"\033[2m{text}\033[0m", end="", flush=True)
                case TextDelta(text=text):
                    print(text, end="", flush=True)
                case Finish(reason=reason):
                    print(f"\n[finish: {reason}]")
                case Usage(output_tokens=count) if count:
                    print(f"[{count} tokens]")
                case _:
                    print(f"[{event.type}]")


asyncio.run(main())
