"""The official SDKs without asyncio, and those of Node, read the simulator too."""

import asyncio
import json
import shutil
import subprocess
from pathlib import Path

import anthropic
import pytest
from google import genai
from google.genai import types

from tokenwire.simulator import samples
from tokenwire.simulator.app import SimulatorServer

NODE = Path(__file__).parents[1] / "node"
CALLS = [
    ["clock", {"timezone": "Europe/Paris"}],
    ["calculator", {"expression": "2+3*4"}],
]


def beside_a_simulator(read):
    async def main():
        async with SimulatorServer() as server:
            return await asyncio.to_thread(read, server.url)

    return asyncio.run(main())


def test_anthropic():
    def read(url):
        with anthropic.Anthropic(base_url=url, api_key="x", max_retries=0) as sdk:
            found = []
            for scenario in ("text", "tools"):
                messages = [{"role": "user", "content": f"scenario:{scenario}"}]
                with sdk.messages.stream(
                    model="demo", max_tokens=8000, messages=messages
                ) as stream:
                    found.append(stream.get_final_message())
            return found

    text, tools = beside_a_simulator(read)
    assert text.content[0].text == samples.MARKDOWN
    assert [[b.name, b.input] for b in tools.content if b.type == "tool_use"] == CALLS


def test_google():
    def read(url):
        options = types.HttpOptions(base_url=url, api_version="v1beta")
        with genai.Client(api_key="x", http_options=options) as sdk:
            return list(sdk.models.generate_content_stream(model="demo", contents="scenario:text"))

    chunks = beside_a_simulator(read)
    parts = [part for chunk in chunks for part in chunk.candidates[0].content.parts]
    assert "".join(part.text for part in parts) == samples.MARKDOWN


@pytest.mark.node
@pytest.mark.parametrize("sdk", ["openai-chat", "openai-responses", "anthropic"])
def test_node(sdk):
    if shutil.which("node") is None or not (NODE / "node_modules" / "openai").is_dir():
        pytest.skip("tests/node is not installed (npm ci)")
    script = Path(__file__).with_name("read_sdks.mjs")

    def read(url):
        done = subprocess.run(
            ["node", str(script), str(NODE), sdk, url], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    found = beside_a_simulator(read)
    assert found["text"] == samples.MARKDOWN
    assert found["calls"] == CALLS
