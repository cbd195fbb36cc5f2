"""The official Google SDK reads the simulator's generateContent."""

import asyncio
import json

import aiohttp
import pytest
from google import genai
from google.genai import errors, types

from tokenwire.simulator import samples
from tokenwire.simulator.app import SimulatorServer


def client(server):
    return genai.Client(
        api_key="x", http_options=types.HttpOptions(base_url=server.url, api_version="v1beta")
    )


async def read(sdk, prompt, config=None):
    stream = await sdk.aio.models.generate_content_stream(
        model="demo", contents=prompt, config=config
    )
    return [chunk async for chunk in stream]


def parts_of(chunks):
    return [
        part
        for chunk in chunks
        for candidate in chunk.candidates or []
        for part in (candidate.content.parts if candidate.content else None) or []
    ]


def test_text_streamed_and_whole():
    async def main():
        async with SimulatorServer() as server:
            sdk = client(server)
            chunks = await read(sdk, "scenario:text")
            assert "".join(part.text or "" for part in parts_of(chunks)) == samples.MARKDOWN
            assert chunks[-1].candidates[0].finish_reason == types.FinishReason.STOP
            whole = await sdk.aio.models.generate_content(model="demo", contents="scenario:text")
            assert whole.text == samples.MARKDOWN
            assert (
                whole.usage_metadata.candidates_token_count
                == chunks[-1].usage_metadata.candidates_token_count
            )
            await sdk.aio.aclose()

    asyncio.run(main())


def test_thoughts_are_marked_and_signed():
    async def main():
        async with SimulatorServer() as server:
            sdk = client(server)
            parts = parts_of(await read(sdk, "scenario:reasoning"))
            assert "".join(part.text for part in parts if part.thought) == samples.THOUGHTS
            assert "".join(p.text for p in parts if not p.thought) == samples.CONCLUSION
            assert parts[-1].thought_signature
            await sdk.aio.aclose()

    asyncio.run(main())


def test_calls_have_whole_arguments_and_no_id():
    async def main():
        async with SimulatorServer() as server:
            sdk = client(server)
            parts = parts_of(await read(sdk, "scenario:tools"))
            calls = [part.function_call for part in parts if part.function_call]
            assert [(call.name, call.args) for call in calls] == [
                ("clock", {"timezone": "Europe/Paris"}),
                ("calculator", {"expression": "2+3*4"}),
            ]
            assert all(call.id is None for call in calls)
            answers = [
                types.Part.from_function_response(name="clock", response={"result": "12:30"}),
                types.Part.from_function_response(name="calculator", response={"result": "14"}),
            ]
            history = [
                types.Content(role="user", parts=[types.Part(text="scenario:tools")]),
                types.Content(role="model", parts=[p for p in parts if p.function_call]),
                types.Content(role="user", parts=answers),
            ]
            answer = await sdk.aio.models.generate_content(model="demo", contents=history)
            assert "clock says: 12:30" in answer.text
            assert "calculator says: 14" in answer.text
            await sdk.aio.aclose()

    asyncio.run(main())


def test_an_error_in_the_stream_is_raised():
    async def main():
        async with SimulatorServer() as server:
            sdk = client(server)
            with pytest.raises(errors.APIError, match="simulated"):
                await read(sdk, "scenario:error")
            await sdk.aio.aclose()

    asyncio.run(main())


def test_a_schema_is_filled():
    schema = {
        "type": "OBJECT",
        "properties": {"city": {"type": "STRING"}, "degrees": {"type": "INTEGER"}},
        "required": ["city", "degrees"],
    }

    async def main():
        async with SimulatorServer() as server:
            sdk = client(server)
            config = types.GenerateContentConfig(
                response_mime_type="application/json", response_schema=schema
            )
            chunks = await read(sdk, "How warm is it?", config)
            value = json.loads("".join(part.text or "" for part in parts_of(chunks)))
            assert isinstance(value["city"], str)
            assert isinstance(value["degrees"], int)
            await sdk.aio.aclose()

    asyncio.run(main())


def test_without_alt_sse_the_stream_is_one_json_array():
    async def main():
        async with SimulatorServer() as server, aiohttp.ClientSession() as http:
            url = f"{server.url}/v1beta/models/demo:streamGenerateContent"
            for scenario in ("text", "empty", "error"):
                body = {"contents": [{"role": "user", "parts": [{"text": f"scenario:{scenario}"}]}]}
                async with http.post(url, json=body) as response:
                    chunks = json.loads(await response.read())
                assert isinstance(chunks, list)
                assert (
                    "error" in chunks[-1] or chunks[-1]["candidates"][0]["finishReason"] == "STOP"
                )

    asyncio.run(main())
