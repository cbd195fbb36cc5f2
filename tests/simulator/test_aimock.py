"""A mock written by others (`@copilotkit/aimock`, under Node) is read by our decoders."""

import asyncio
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tokenwire.errors import TokenwireError
from tokenwire.events.fold import fold
from tokenwire.events.message import user
from tokenwire.events.request import Request
from tokenwire.providers.base import Target
from tokenwire.providers.http.client import HttpClient
from tokenwire.providers.registry import Registry

NODE = Path(__file__).parents[1] / "node"
PATHS = {
    "openai-chat": "/v1",
    "openai-responses": "/v1",
    "anthropic": "/v1",
    "gemini": "/v1beta",
    "ollama": "",
    "cohere": "/v2",
}
pytestmark = pytest.mark.node


@pytest.fixture(scope="module")
def url():
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    if not (NODE / "node_modules" / "@copilotkit" / "aimock").is_dir():
        pytest.skip("tests/node is not installed (npm ci)")
    script = Path(__file__).with_name("aimock.mjs")
    process = subprocess.Popen(
        ["node", str(script), str(NODE)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process.stdout.readline().strip()
    finally:
        process.stdin.close()
        process.wait(30)
        process.stdout.close()


def ask(url, name, prompt):
    async def main():
        dialect = Registry().dialect(name)
        target = Target(provider="mock", dialect=name, model="mock", base_url=url + PATHS[name])
        target.headers["authorization"] = "Bearer any"
        call = dialect.build(Request(messages=[user(prompt)]), target)
        client = HttpClient()
        stream = await client.open(call, connect_timeout=30)
        assert stream.status == 200
        decoder = dialect.decoder(content_type=stream.headers.get("content-type"))
        events, failure = [], None
        try:
            while data := await stream.read():
                events += decoder.feed(data)
        except TokenwireError as error:
            failure = error
        events += decoder.finish()
        await stream.aclose()
        await client.aclose()
        return fold(events), failure

    return asyncio.run(main())


def text_of(state, kind):
    return "".join(part.text for part in state.parts.values() if part.kind.startswith(kind))


@pytest.mark.parametrize("name", sorted(PATHS))
def test_text(url, name):
    state, failure = ask(url, name, "text please")
    assert failure is None
    assert text_of(state, "text") == "Grüße, 世界! 👩‍💻 A second sentence."
    assert state.steps[0].terminal_seen
    assert state.steps[0].finish["reason"] == "stop"


# The mock has no reasoning for Cohere, and calls Ollama's by a name that Ollama does not use.
@pytest.mark.parametrize("name", sorted(set(PATHS) - {"cohere", "ollama"}))
def test_reasoning(url, name):
    state, _ = ask(url, name, "think first")
    assert text_of(state, "reasoning") == "17 times 23 is 391."
    assert text_of(state, "text") == "So 391."


@pytest.mark.parametrize("name", sorted(PATHS))
def test_calls(url, name):
    state, _ = ask(url, name, "call tools")
    calls = [part for part in state.parts.values() if part.kind == "tool-call"]
    assert [(c.attrs["name"], json.loads(c.text)) for c in calls] == [
        ("get_weather", {"city": "Paris"}),
        ("clock", {"timezone": "Asia/Tokyo"}),
    ]
    assert {call.status for call in calls} == {"complete"}
    # For Gemini the mock says FUNCTION_CALL, a word that Gemini does not have; it is read as one.
    assert state.steps[0].finish["reason"] == "tool_calls"


@pytest.mark.parametrize("name", sorted(PATHS))
def test_a_cut_is_not_an_end(url, name):
    state, _ = ask(url, name, "be cut")
    assert not state.steps[0].terminal_seen
    assert "complete" not in {part.status for part in state.parts.values()}
