"""An agent: a step that is done once, a question to a person, a model's words among its own."""

import asyncio

import tokenwire
from tokenwire import RunContext, agent
from tokenwire.events import Data, RunProgress, RunWait, TextDelta


def search(question: str) -> list[str]:
    return ["Cats purr.", "Dogs bark."]


@agent
async def support(ctx: RunContext):
    found = await ctx.step("search", search, ctx.prompt)
    ctx.progress(0.5, f"reading {len(found)} documents")
    ctx.data("sources", found)
    if not await ctx.request_approval("answer", {"from": found}):
        yield "Then not."
        return
    yield "Here you are. "
    async with ctx.stream(ctx.messages, model="demo") as answer:
        await answer.result()


async def main() -> None:
    async with tokenwire.stream("Do cats purr?", model=support) as run:
        async for event in run:
            match event:
                case TextDelta(text=text):
                    print(text, end="", flush=True)
                case RunProgress(message=message):
                    print(f"[{message}]")
                case Data(name=name, payload=payload):
                    print(f"[{name}: {payload}]")
                case RunWait(pending=[approval]):
                    run.approve(approval, by="me")
    print(f"\n-- {run.state.outcome}")


asyncio.run(main())
