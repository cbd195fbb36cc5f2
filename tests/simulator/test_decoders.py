"""The simulator and the decoders share no code: each checks the other, over real sockets."""

import asyncio

import pytest

from tokenwire.errors import TokenwireError
from tokenwire.events.fold import fold
from tokenwire.events.message import user
from tokenwire.events.request import Request
from tokenwire.providers.base import Target
from tokenwire.providers.http.client import HttpClient
from tokenwire.providers.registry import Registry
from tokenwire.simulator import samples
from tokenwire.simulator.app import SimulatorServer

PATHS = {
    "openai-chat": "/v1",
    "openai-responses": "/v1",
    "anthropic": "/v1",
    "gemini": "/v1beta",
    "ollama": "",
}
DIALECTS = sorted(PATHS)


async def ask(server, name, prompt, faults=""):
    dialect = Registry().dialect(name)
    target = Target(
        provider="sim",
        dialect=name,
        model="demo",
        base_url=server.url + PATHS[name],
        headers={"x-sim-faults": faults} if faults else {},
    )
    call = dialect.build(Request(messages=[user(prompt)], max_tokens=100_000), target)
    client = HttpClient()
    stream = await client.open(call, connect_timeout=30)
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


def told(name, prompt, faults=""):
    async def main():
        async with SimulatorServer() as server:
            return await ask(server, name, prompt, faults)

    return asyncio.run(main())


def texts(state, kind="text"):
    return "".join(part.text for part in state.parts.values() if part.kind.startswith(kind))


@pytest.mark.parametrize("name", DIALECTS)
class TestEveryDialect:
    def test_text(self, name):
        state, failure = told(name, "scenario:text")
        assert failure is None
        assert texts(state) == samples.MARKDOWN
        assert state.steps[0].terminal_seen
        assert state.steps[0].finish["reason"] == "stop"
        assert state.steps[0].usage["output_tokens"] > 100

    def test_reasoning(self, name):
        state, _ = told(name, "scenario:reasoning")
        assert texts(state, "reasoning") == samples.THOUGHTS
        assert texts(state) == samples.CONCLUSION

    def test_calls(self, name):
        state, _ = told(name, "scenario:tools")
        calls = [part for part in state.parts.values() if part.kind == "tool-call"]
        assert [(c.attrs["name"], c.text) for c in calls] == [
            ("clock", '{"timezone":"Europe/Paris"}'),
            ("calculator", '{"expression":"2+3*4"}'),
        ]
        assert len({call.attrs["call_id"] for call in calls}) == 2
        assert state.steps[0].finish["reason"] == "tool_calls"

    def test_an_error_in_the_stream(self, name):
        state, _ = told(name, "scenario:error")
        assert "starts well" in texts(state)
        assert state.error is not None

    def test_the_limit_of_tokens(self, name):
        state, _ = told(name, "scenario:length")
        assert state.steps[0].finish["reason"] == "length"

    def test_a_cut_is_never_a_success(self, name):
        state, failure = told(name, "scenario:cut")
        assert failure is not None
        assert not state.steps[0].terminal_seen
        assert [part.status for part in state.parts.values()] == ["truncated"]

    def test_a_cut_that_looks_like_an_end_is_never_a_success(self, name):
        state, failure = told(name, "scenario:text", "cut-end@3000")
        assert failure is None
        assert not state.steps[0].terminal_seen

    @pytest.mark.parametrize(
        "faults",
        ["split@1", "split", "crlf", "bom", "comments", "no-space", "comments@3,crlf,split"],
    )
    def test_harmless_faults_change_nothing(self, name, faults):
        state, failure = told(name, "scenario:text", faults)
        assert failure is None
        assert texts(state) == samples.MARKDOWN
        assert state.steps[0].terminal_seen
