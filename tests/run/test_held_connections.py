"""The end of an answer is the provider's own marker, whether its connection ends or not."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from support.corpus import Recording, needs_corpus, recordings
from support.raw_provider import HEAD, RawProvider, chunked, closing, held, raw_provider, sse_head
from support.spine import QUICK, ask, request_of, run_async
from tokenwire.errors import RateLimitError
from tokenwire.events import model as m
from tokenwire.providers.base import Dialect, Target
from tokenwire.providers.http.client import HttpClient
from tokenwire.providers.registry import FAMILIES, Registry
from tokenwire.run.call import reading
from tokenwire.run.call.deadlines import Deadlines
from tokenwire.run.plan import Plan
from tokenwire.run.stream import Run, new_run_id
from tokenwire.tools.registry import tool

#: No clock but those of the end may help.
PATIENT = Deadlines(first_event=300, idle=300, keep_alive=300, total=300)
#: A test that waits for a clock of `PATIENT` fails by this.
SECONDS = 60


def sse(*payloads: Any) -> bytes:
    return b"".join(
        b"data: " + (p if isinstance(p, bytes) else json.dumps(p).encode()) + b"\n\n"
        for p in payloads
    )


def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
    return {"id": "x", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}


TEXT = (chunk({"role": "assistant", "content": "Hel"}), chunk({"content": "lo"}))
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
COUNTED = {"id": "x", "choices": [], "usage": USAGE}
DONE = b"[DONE]"


def run_of(dialect: Dialect, url: str) -> Run:
    target = Target(provider="p", dialect=dialect.name, model="m", base_url=url, api_key="k")
    plan = Plan(
        run=new_run_id(),
        request=request_of("hi"),
        candidates=[(dialect, target)],
        model="m",
        retry=QUICK,
        deadlines=PATIENT,
    )
    return Run(plan, http=HttpClient)


async def events_of(run: Run) -> list[Any]:
    async with asyncio.timeout(SECONDS):
        async with run:
            return [event async for event in run]


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([sse(*TEXT, chunk({}, "stop"), COUNTED, DONE)], id="the marker"),
        pytest.param([sse(*TEXT, chunk({}, "stop")), sse(DONE)], id="the marker alone"),
        pytest.param([sse(*TEXT, DONE)], id="the marker without a finish reason"),
        pytest.param([sse(*TEXT, chunk({}, "stop", usage=USAGE))], id="finish and usage in one"),
        pytest.param([sse(*TEXT, chunk({}, "stop")), sse(COUNTED)], id="finish, then usage"),
        pytest.param([sse(*TEXT, chunk({}, "stop"))], id="only a finish reason"),
        pytest.param([sse(*TEXT, chunk({"content": ""}, "stop")), b": ping\n\n"], id="and a ping"),
        pytest.param([sse(*TEXT, chunk({}, "stop")), b"data: [DONE]\n"], id="half a frame"),
    ],
)
def test_a_held_connection_does_not_hold_the_answer(pieces: list[bytes]) -> None:
    async def main() -> None:
        async with raw_provider(held(HEAD, *map(chunked, pieces))) as provider:
            async with asyncio.timeout(SECONDS):
                async with ask("hi", provider.url, deadlines=PATIENT) as run:
                    result = await run.result()
                assert result.text == "Hello"
                assert result.outcome == "complete"
                assert run.state.steps[-1].terminal_seen
                await provider.left.wait()  # it is closed, not pooled
            assert provider.connections == len(provider.requests) == 1

    run_async(main())


MARKED = {
    "openai-responses": {
        "type": "response.output_text.delta",
        "item_id": "i",
        "output_index": 0,
        "content_index": 0,
        "delta": "Hello",
    },
    "anthropic": {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "text_delta", "text": "Hello"},
    },
    "gemini": {"candidates": [{"content": {"parts": [{"text": "Hello"}]}, "index": 0}]},
    "gemini-interactions": {
        "event_type": "step.delta",
        "index": 0,
        "delta": {"type": "text", "text": "Hello"},
    },
    "cohere": {
        "type": "content-delta",
        "index": 0,
        "delta": {"message": {"content": {"text": "Hello"}}},
    },
    "ollama": {"message": {"role": "assistant", "content": "Hello"}, "done": False},
}


@pytest.mark.parametrize("dialect", MARKED)
def test_the_marker_of_another_wire_ends_a_held_answer_as_truncated(dialect: str) -> None:
    """`[DONE]` says that nothing follows, and not that the answer is whole."""

    async def main() -> None:
        async with raw_provider(held(HEAD, chunked(sse(MARKED[dialect], DONE)))) as provider:
            events = await events_of(run_of(Registry(env={}).dialect(dialect), provider.url))
            texts = [e.text for e in events if isinstance(e, m.TextDelta)]
            assert "".join(texts) == "Hello"
            errors = [e.code for e in events if isinstance(e, m.Error)]
            assert errors == ["truncated"]
            assert not next(e for e in events if isinstance(e, m.StepEnd)).terminal_seen
            assert events[-1].outcome != "complete"

    run_async(main())


OVER = json.dumps({"message": {"content": "lo"}, "done": True, "done_reason": "stop"}).encode()
BEGUN = b'{"message": {"content": "Hel"}, "done": false}\n'


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([BEGUN, OVER], id="alone"),
        pytest.param([BEGUN + OVER], id="with the line before"),
        pytest.param([BEGUN, OVER[:9], OVER[9:-1], OVER[-1:]], id="in pieces"),
        pytest.param([BEGUN, OVER + b"\n"], id="with its line end"),
    ],
)
def test_the_last_line_ends_a_held_answer_without_its_line_end(pieces: list[bytes]) -> None:
    async def main() -> None:
        async with raw_provider(held(HEAD, *map(chunked, pieces))) as provider:
            events = await events_of(run_of(Registry(env={}).dialect("ollama"), provider.url))
            texts = [e.text for e in events if isinstance(e, m.TextDelta)]
            assert "".join(texts) == "Hello"
            assert events[-1].outcome == "complete"
            assert not [e for e in events if isinstance(e, m.Error)]

    run_async(main())


def test_a_usage_that_comes_after_the_finish_reason_is_not_lost() -> None:
    pieces = [sse(*TEXT), sse(chunk({}, "stop")), sse(COUNTED), sse(DONE)]

    async def main() -> None:
        async with raw_provider(held(HEAD, *map(chunked, pieces))) as provider:
            async with asyncio.timeout(SECONDS):
                async with ask("hi", provider.url, deadlines=PATIENT) as run:
                    result = await run.result()
            assert result.usage["output_tokens"] == 2

    run_async(main())


def test_a_second_choice_after_the_end_of_the_first_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first finish reason is not the last: the short clock stops again."""
    monkeypatch.setattr(reading, "AFTER_FINISH", 0.2)
    other = {"index": 1, "delta": {"content": "second"}, "finish_reason": None}
    last = {"index": 1, "delta": {"content": "!"}, "finish_reason": "stop"}

    async def answer(_: int, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + chunked(sse(*TEXT, chunk({}, "stop"))))
        writer.write(chunked(sse({"id": "x", "choices": [other]})))
        await asyncio.sleep(1.0)  # well over the short clock
        writer.write(chunked(sse({"id": "x", "choices": [last]}, DONE)))
        await asyncio.Event().wait()

    async def main() -> None:
        async with raw_provider(answer) as provider:
            run = ask("hi", provider.url, deadlines=PATIENT)
            events = await events_of(run)
            texts = [e.text for e in events if isinstance(e, m.TextDelta)]
            assert "".join(texts) == "Hellosecond!"
            assert events[-1].outcome == "complete"

    run_async(main())


def test_a_finish_reason_on_every_chunk_is_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Old servers of Gemini send one with each piece: the text after it is not lost."""
    monkeypatch.setattr(reading, "AFTER_FINISH", 0.5)
    dialect = Registry(env={}).dialect("gemini")

    def piece(text: str) -> bytes:
        candidate = {"content": {"parts": [{"text": text}]}, "finishReason": "STOP", "index": 0}
        return chunked(sse({"candidates": [candidate], "usageMetadata": {"totalTokenCount": 3}}))

    async def answer(_: int, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + piece("one "))
        for word in ("two ", "three ", "four"):
            await asyncio.sleep(0.05 if word == "two " else 1.0)
            writer.write(piece(word))
        writer.write(b"0\r\n\r\n")
        await asyncio.Event().wait()

    async def main() -> None:
        async with raw_provider(answer) as provider:
            events = await events_of(run_of(dialect, provider.url))
            texts = [e.text for e in events if isinstance(e, m.TextDelta)]
            assert "".join(texts) == "one two three four"

    run_async(main())


def test_tools_start_while_the_connection_is_held() -> None:
    @tool
    def add(a: int, b: int) -> int:
        return a + b

    function = {"name": "add", "arguments": '{"a": 1, "b": 2}'}
    call = {"index": 0, "id": "c1", "type": "function", "function": function}
    first = sse(chunk({"tool_calls": [call]}), chunk({}, "tool_calls"), DONE)
    second = sse(*TEXT, chunk({}, "stop"), DONE)

    async def answer(number: int, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + chunked(first if number == 0 else second))
        await asyncio.Event().wait()

    async def main() -> None:
        async with raw_provider(answer) as provider:
            async with asyncio.timeout(SECONDS):
                async with ask("hi", provider.url, tools=[add], deadlines=PATIENT) as run:
                    result = await run.result()
            assert result.text == "Hello"
            assert [t.content for t in run.state.tools.values()] == [3]
            assert len(provider.requests) == 2

    run_async(main())


def test_an_error_in_the_stream_ends_a_held_answer() -> None:
    failure = {"error": {"message": "the engine broke", "type": "server_error"}}

    async def main() -> None:
        async with raw_provider(held(HEAD, chunked(sse(*TEXT, failure)))) as provider:
            events = await events_of(ask("hi", provider.url, deadlines=PATIENT))
            assert events[-1].outcome == "error"
            assert [e.scope for e in events if isinstance(e, m.Error)] == ["provider"]

    run_async(main())


def test_a_connection_whose_body_ends_a_moment_after_the_marker_is_used_again() -> None:
    answered: list[bytes] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                answered.append(await reader.readexactly(length))
                writer.write(HEAD + chunked(sse(*TEXT, chunk({}, "stop"), DONE)))
                await writer.drain()
                await asyncio.sleep(0.02)
                writer.write(b"0\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    connections: list[asyncio.StreamWriter] = []

    async def main() -> None:
        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        http = HttpClient()
        async with server:
            for _ in range(3):
                async with ask("hi", url, http=lambda: http, own_http=False) as run:
                    await run.result()
                async with asyncio.timeout(60):
                    while len(http._pool) > sum(map(len, http._pool._idle.values())):
                        await asyncio.sleep(0.01)
            assert len(answered) == 3
            assert len(connections) == 1
            await http.aclose()

    run_async(main())


def test_the_marker_and_a_reset_in_one_turn_are_a_whole_answer() -> None:
    """What arrived before the connection broke is read before the break counts."""

    async def answer(_: int, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + chunked(sse(*TEXT, chunk({}, "stop"), DONE)))
        await writer.drain()
        writer.transport.abort()

    async def main() -> None:
        async with raw_provider(answer) as provider:
            for _ in range(5):
                async with ask("hi", provider.url, deadlines=PATIENT) as run:
                    assert (await run.result()).text == "Hello"
            assert len(provider.requests) == 5

    run_async(main())


@pytest.mark.parametrize("body", [b'{"error": {"message": "slow down"}}', b""])
def test_a_held_error_response_is_its_status(body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    from tokenwire.run.call import attempt

    monkeypatch.setattr(attempt, "ERROR_SECONDS", 0.2)
    head = sse_head("application/json", status="429 Too Many Requests")
    head = head.replace(b"\r\n\r\n", b"\r\nretry-after: 900\r\n\r\n")

    async def main() -> None:
        async with raw_provider(held(head, chunked(body))) as provider:
            async with asyncio.timeout(SECONDS):
                with pytest.raises(RateLimitError):
                    async with ask("hi", provider.url, deadlines=PATIENT) as run:
                        await run.result()

    run_async(main())


def whole(family: str) -> Recording | None:
    """A recording of this family that ends well."""
    for recording in recordings(family):
        if recording.expected.get("complete") and recording.framing != "json-array":
            return recording
    return None


@needs_corpus
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_wire_ends_without_the_end_of_its_connection(family: str) -> None:
    recording = whole(family)
    if recording is None:
        pytest.skip("no whole recording of this family")
    dialect = Registry(env={}).dialect(family)
    head = sse_head(recording.content_type)

    async def main() -> None:
        async with raw_provider(closing(head, chunked(recording.wire), b"0\r\n\r\n")) as provider:
            expected = await events_of(run_of(dialect, provider.url))
        async with raw_provider(held(head, chunked(recording.wire))) as provider:
            events = await events_of(run_of(dialect, provider.url))
        assert shape(events) == shape(expected)
        assert events[-1].outcome in ("complete", "incomplete")

    run_async(main())


def shape(events: list[Any]) -> list[Any]:
    """The events without what differs between two runs; neighbouring deltas as one."""
    texts: dict[Any, str] = {}
    rest: list[Any] = []
    for event in events:
        if isinstance(event, m.PartDelta):
            texts[event.part] = texts.get(event.part, "") + event.text
        elif not isinstance(event, m.RunStart):
            fields = {
                name: getattr(event, name)
                for name in event.__struct_fields__
                if name not in ("t", "seq")
            }
            rest.append((type(event).__name__, fields))
    return [texts, rest]


def test_the_provider_of_these_tests_tells_when_a_client_left() -> None:
    async def main() -> None:
        provider: RawProvider
        async with raw_provider(held(HEAD)) as provider:
            port = int(provider.url.rpartition(":")[2])
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}")
            await writer.drain()
            assert not provider.left.is_set()
            writer.close()
            await asyncio.wait_for(provider.left.wait(), SECONDS)
            assert provider.bodies == [b"{}"]

    run_async(main())
