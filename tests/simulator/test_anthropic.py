"""The official Anthropic SDK reads the simulator's Messages."""

import asyncio

import anthropic
import pytest

from tokenwire.simulator import samples
from tokenwire.simulator.app import SimulatorServer

WEATHER = {
    "name": "get_weather",
    "description": "The weather in a city",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
}


def client(server):
    return anthropic.AsyncAnthropic(base_url=server.url, api_key="x", max_retries=0)


def ask(prompt):
    return {
        "model": "demo",
        "max_tokens": 8_000,
        "messages": [{"role": "user", "content": prompt}],
    }


def test_text_streamed_and_whole():
    async def main():
        async with SimulatorServer() as server, client(server) as sdk:
            async with sdk.messages.stream(**ask("scenario:text")) as stream:
                text = "".join([piece async for piece in stream.text_stream])
                message = await stream.get_final_message()
            whole = await sdk.messages.create(**ask("scenario:text"))
            assert text == samples.MARKDOWN
            assert whole.content[0].text == message.content[0].text == samples.MARKDOWN
            assert message.stop_reason == whole.stop_reason == "end_turn"
            assert message.usage.output_tokens == whole.usage.output_tokens > 100

    asyncio.run(main())


def test_thinking_comes_signed():
    async def main():
        async with SimulatorServer() as server, client(server) as sdk:
            async with sdk.messages.stream(**ask("scenario:reasoning")) as stream:
                message = await stream.get_final_message()
            thinking, text = message.content
            assert thinking.thinking == samples.THOUGHTS
            assert len(thinking.signature) > 50
            assert text.text == samples.CONCLUSION

    asyncio.run(main())


def test_a_declared_tool_is_called_when_the_prompt_asks():
    async def main():
        async with SimulatorServer() as server, client(server) as sdk:
            request = ask("What is the weather in Oslo today?") | {"tools": [WEATHER]}
            async with sdk.messages.stream(**request) as stream:
                message = await stream.get_final_message()
            (call,) = message.content
            assert (call.name, call.input) == ("get_weather", {"city": "Oslo"})
            assert message.stop_reason == "tool_use"
            result = {"type": "tool_result", "tool_use_id": call.id, "content": "snow, -4 C"}
            request["messages"] += [
                {"role": "assistant", "content": message.content},
                {"role": "user", "content": [result]},
            ]
            answer = await sdk.messages.create(**request)
            assert "snow, -4 C" in answer.content[0].text

    asyncio.run(main())


def test_an_error_in_the_stream_is_overloaded():
    async def main():
        async with SimulatorServer() as server, client(server) as sdk:
            stream = await sdk.messages.create(**ask("scenario:error"), stream=True)
            with pytest.raises(anthropic.APIStatusError, match="simulated"):
                async for _ in stream:
                    pass

    asyncio.run(main())


def test_limits_of_tokens_are_kept():
    async def main():
        async with SimulatorServer() as server, client(server) as sdk:
            async with sdk.messages.stream(**ask("scenario:text") | {"max_tokens": 10}) as stream:
                message = await stream.get_final_message()
            assert message.stop_reason == "max_tokens"
            assert message.usage.output_tokens == 10
            assert samples.MARKDOWN.startswith(message.content[0].text)

    asyncio.run(main())


def test_a_missing_field_is_a_typed_error():
    async def main():
        async with SimulatorServer() as server, client(server) as sdk:
            with pytest.raises(anthropic.BadRequestError, match="at least one message"):
                await sdk.messages.create(model="demo", max_tokens=10, messages=[])
            record = await server.wait_ended()
            assert (record.status, record.outcome) == (400, "refused")

    asyncio.run(main())
