"""The official OpenAI SDK reads the simulator's Chat Completions."""

import asyncio

import openai

from tokenwire.simulator import samples
from tokenwire.simulator.app import SimulatorServer


def client(server):
    return openai.AsyncOpenAI(base_url=server.url + "/v1", api_key="x", max_retries=0)


def ask(prompt):
    return [{"role": "user", "content": prompt}]


def test_streamed_text_is_the_script():
    async def main():
        async with SimulatorServer() as server, client(server) as sdk:
            text = ""
            stream = await sdk.chat.completions.create(
                model="demo", messages=ask("scenario:text"), stream=True
            )
            async for chunk in stream:
                text += chunk.choices[0].delta.content or ""
            assert text == samples.MARKDOWN

    asyncio.run(main())


def test_slow_is_exactly_the_numbers():
    async def main():
        async with SimulatorServer() as server, client(server) as sdk:
            pieces = []
            stream = await sdk.chat.completions.create(
                model="demo", messages=ask("scenario:slow"), stream=True
            )
            async for chunk in stream:
                if chunk.choices[0].delta.content:
                    pieces.append(chunk.choices[0].delta.content)
            assert pieces == [f"{n} " for n in range(1, 91)]
            record = await server.wait_ended()
            assert record.outcome == "complete"
            assert record.scenario == "slow"

    asyncio.run(main())


def test_whole_answer_and_streamed_answer_agree():
    async def main():
        async with SimulatorServer() as server, client(server) as sdk:
            whole = await sdk.chat.completions.create(model="demo", messages=ask("hello there"))
            async with sdk.chat.completions.stream(
                model="demo", messages=ask("hello there"), stream_options={"include_usage": True}
            ) as stream:
                streamed = await stream.get_final_completion()
            assert whole.choices[0].message.content == streamed.choices[0].message.content
            assert whole.usage.total_tokens == streamed.usage.total_tokens > 0

    asyncio.run(main())


def test_tool_call_then_answer_from_its_result():
    async def main():
        async with SimulatorServer() as server, client(server) as sdk:
            messages = ask("scenario:tool")
            async with sdk.chat.completions.stream(model="demo", messages=messages) as stream:
                first = (await stream.get_final_completion()).choices[0]
            assert first.finish_reason == "tool_calls"
            (call,) = first.message.tool_calls
            assert call.function.name == "get_weather"
            assert call.function.arguments == '{"city":"Paris"}'
            messages.append(first.message.model_dump(exclude_none=True))
            messages.append({"role": "tool", "tool_call_id": call.id, "content": "sunny, 21 C"})
            second = await sdk.chat.completions.create(model="demo", messages=messages)
            assert "sunny, 21 C" in second.choices[0].message.content

    asyncio.run(main())


def test_closing_the_stream_is_noticed():
    async def main():
        async with SimulatorServer() as server, client(server) as sdk:
            stream = await sdk.chat.completions.create(
                model="demo", messages=ask("scenario:stall"), stream=True
            )
            async for chunk in stream:
                if chunk.choices[0].delta.content:
                    break
            await stream.close()
            record = await asyncio.wait_for(server.wait_ended(), 60)
            assert record.outcome == "disconnected"
            assert record.disconnected_at is not None

    asyncio.run(main())
