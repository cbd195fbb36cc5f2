"""The simulator's Ollama wire: one JSON object a line."""

import asyncio
import json

import aiohttp

from tokenwire.simulator import samples
from tokenwire.simulator.app import SimulatorServer


async def post(server, path, body):
    async with (
        aiohttp.ClientSession() as http,
        http.post(server.url + path, json={"model": "demo", **body}) as response,
    ):
        return [json.loads(line) for line in (await response.read()).splitlines()]


def chat(prompt, **more):
    return {"messages": [{"role": "user", "content": prompt}], **more}


def test_chat_streams_by_default_and_ends_with_done():
    async def main():
        async with SimulatorServer() as server:
            lines = await post(server, "/api/chat", chat("scenario:text"))
            assert "".join(line["message"]["content"] for line in lines) == samples.MARKDOWN
            assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
            assert lines[-1]["done_reason"] == "stop"
            (whole,) = await post(server, "/api/chat", chat("scenario:text", stream=False))
            assert whole["message"]["content"] == samples.MARKDOWN
            assert whole["eval_count"] == lines[-1]["eval_count"]

    asyncio.run(main())


def test_thinking_and_calls():
    async def main():
        async with SimulatorServer() as server:
            lines = await post(server, "/api/chat", chat("scenario:reasoning"))
            thought = "".join(line["message"].get("thinking", "") for line in lines)
            assert thought == samples.THOUGHTS
            lines = await post(server, "/api/chat", chat("scenario:tool"))
            calls = [c for line in lines for c in line["message"].get("tool_calls", [])]
            assert calls == [{"function": {"name": "get_weather", "arguments": {"city": "Paris"}}}]

    asyncio.run(main())


def test_generate_and_its_error():
    async def main():
        async with SimulatorServer() as server:
            lines = await post(server, "/api/generate", {"prompt": "scenario:text"})
            assert "".join(line["response"] for line in lines) == samples.MARKDOWN
            lines = await post(server, "/api/generate", {"prompt": "scenario:error"})
            assert "simulated" in lines[-1]["error"]

    asyncio.run(main())
