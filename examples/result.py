"""The whole answer at once, with its usage and timings; a conversation that goes on."""

import asyncio

import tokenwire


async def main() -> None:
    messages = [tokenwire.user("Hello")]
    async with tokenwire.stream(messages, model="demo", temperature=0.2, max_tokens=200) as run:
        result = await run.result()
    print(result.text)
    print("finish reason:", result.finish_reason)
    print("usage:", result.usage)
    print(f"first token after {result.timings.first_token_seconds:.2f} s")

    messages += [*result.history, tokenwire.user("And how do I resume?")]
    async with tokenwire.stream(messages, model="demo") as run:
        print((await run.result()).text)


asyncio.run(main())
