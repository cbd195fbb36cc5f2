"""The official OpenAI SDK reads the simulator's Responses, also in the background."""

import asyncio

import openai
import pytest

from tokenwire.simulator import samples
from tokenwire.simulator.app import SimulatorServer
from tokenwire.simulator.settings import Settings


def client(server):
    return openai.AsyncOpenAI(base_url=server.url + "/v1", api_key="x", max_retries=0)


def test_every_event_is_known_and_numbered():
    async def main():
        async with SimulatorServer() as server, client(server) as sdk:
            for scenario in ("text", "reasoning", "tools", "refusal", "length", "filter", "empty"):
                stream = await sdk.responses.create(
                    model="demo", input=f"scenario:{scenario}", stream=True
                )
                events = [event async for event in stream]
                assert [event.sequence_number for event in events] == list(range(len(events)))
                assert all("Unknown" not in type(event).__name__ for event in events)
                last = events[-1]
                assert last.type in ("response.completed", "response.incomplete")
                done = [e.item for e in events if e.type == "response.output_item.done"]
                assert done == last.response.output

    asyncio.run(main())


def test_text_by_the_stream_helper():
    async def main():
        async with SimulatorServer() as server, client(server) as sdk:
            async with sdk.responses.stream(model="demo", input="scenario:text") as stream:
                deltas = [e.delta async for e in stream if e.type == "response.output_text.delta"]
                response = await stream.get_final_response()
            assert "".join(deltas) == response.output_text == samples.MARKDOWN
            whole = await sdk.responses.create(model="demo", input="scenario:text")
            assert whole.output_text == samples.MARKDOWN
            assert whole.usage == response.usage

    asyncio.run(main())


def test_tool_call_and_its_answer():
    async def main():
        async with SimulatorServer() as server, client(server) as sdk:
            given = [{"role": "user", "content": "scenario:tool"}]
            async with sdk.responses.stream(model="demo", input=given) as stream:
                (call,) = (await stream.get_final_response()).output
            assert (call.name, call.arguments) == ("get_weather", '{"city":"Paris"}')
            given += [
                {
                    "type": "function_call",
                    "call_id": call.call_id,
                    "name": call.name,
                    "arguments": call.arguments,
                },
                {"type": "function_call_output", "call_id": call.call_id, "output": "rain, 9 C"},
            ]
            answer = await sdk.responses.create(model="demo", input=given)
            assert "rain, 9 C" in answer.output_text

    asyncio.run(main())


def test_an_error_in_the_stream_is_an_event_and_a_failed_response():
    async def main():
        async with SimulatorServer() as server, client(server) as sdk:
            stream = await sdk.responses.create(model="demo", input="scenario:error", stream=True)
            events = [event async for event in stream]
            assert [event.type for event in events[-2:]] == ["error", "response.failed"]
            assert "simulated" in events[-2].message
            assert events[-1].response.error.code == "server_error"

    asyncio.run(main())


def test_a_background_response_survives_a_cut():
    async def main():
        async with SimulatorServer(Settings(rate=200)) as server, client(server) as sdk:
            prompt = "scenario:text"
            stream = await sdk.responses.create(
                model="demo",
                input=prompt,
                stream=True,
                background=True,
                store=True,
                extra_headers={"x-sim-faults": "cut-fin@9000"},
            )
            events = []

            async def read():
                async for event in stream:
                    events.append(event)

            with pytest.raises(openai.APIConnectionError):
                await read()
            seen, identifier = events[-1].sequence_number, events[0].response.id
            text = "".join(e.delta for e in events if e.type == "response.output_text.delta")
            assert 0 < len(text) < len(samples.MARKDOWN)
            polled = await sdk.responses.retrieve(identifier)
            assert polled.status in ("in_progress", "completed")
            rest = await sdk.responses.retrieve(identifier, stream=True, starting_after=seen)
            async for event in rest:
                assert event.sequence_number == seen + 1
                seen = event.sequence_number
                if event.type == "response.output_text.delta":
                    text += event.delta
            assert event.type == "response.completed"
            assert text == samples.MARKDOWN
            done = await sdk.responses.retrieve(identifier)
            assert (done.status, done.output_text) == ("completed", samples.MARKDOWN)

    asyncio.run(main())


def test_a_background_response_can_be_polled_and_cancelled():
    async def main():
        async with SimulatorServer() as server, client(server) as sdk:
            response = await sdk.responses.create(
                model="demo", input="scenario:slow", background=True
            )
            assert response.status in ("queued", "in_progress")
            cancelled = await sdk.responses.cancel(response.id)
            assert cancelled.status == "cancelled"
            assert (await sdk.responses.retrieve(response.id)).status == "cancelled"

    asyncio.run(main())


def test_the_blocking_sdk_reads_it_too():
    def read(url):
        with openai.OpenAI(base_url=url + "/v1", api_key="x") as sdk:
            with sdk.responses.stream(model="demo", input="scenario:reasoning") as stream:
                response = stream.get_final_response()
            chat = sdk.chat.completions.create(
                model="demo",
                messages=[{"role": "user", "content": "scenario:text"}],
                stream=True,
            )
            text = "".join(chunk.choices[0].delta.content or "" for chunk in chat)
            return response, text

    async def main():
        async with SimulatorServer() as server:
            response, text = await asyncio.to_thread(read, server.url)
            assert response.output[0].summary[0].text == samples.THOUGHTS
            assert response.output_text == samples.CONCLUSION
            assert text == samples.MARKDOWN

    asyncio.run(main())
