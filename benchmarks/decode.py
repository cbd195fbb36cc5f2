"""What does it cost to turn one chunk of a provider's bytes into an event?

The same bytes go through our decoder and through the official SDKs (and LiteLLM and pydantic-ai
where they are installed), in one process, one event per read as a steady stream brings them.
Figures are CPU microseconds per chunk, the median of the rounds; ``x`` compares with ours.

    python benchmarks/decode.py [--chunks N] [--rounds N] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from tokenwire.framing.sse import encode_frame
from tokenwire.providers.registry import Registry

Piece = list[bytes]
REGISTRY = Registry(env={})


def chat_stream(count: int) -> Piece:
    """Chunks as OpenAI sends them, about 330 bytes each."""

    def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
        return encode_frame(
            json.dumps(
                {
                    "id": "chatcmpl-9f8e7d6c5b4a39281706f5e4d3c2b1a0",
                    "object": "chat.completion.chunk",
                    "created": 1763900000,
                    "model": "gpt-4o-mini-2024-07-18",
                    "service_tier": "default",
                    "system_fingerprint": "fp_0123456789",
                    "choices": [
                        {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
                    ],
                    "usage": None,
                    "obfuscation": "abcdefghijk",
                },
                separators=(",", ":"),
            )
        )

    body = [chunk({"content": f" word{i}"}) for i in range(count)]
    first = chunk({"role": "assistant", "content": "", "refusal": None})
    return [first, *body, chunk({}, "stop"), encode_frame("[DONE]")]


def anthropic_stream(count: int) -> Piece:
    """Events as Anthropic sends them, about 130 bytes each."""
    usage = {"input_tokens": 10, "output_tokens": 1}
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-x",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage,
    }
    text = {
        "type": "content_block_start",
        "index": 0,
        "content_block": {"type": "text", "text": ""},
    }
    events: list[dict[str, Any]] = [{"type": "message_start", "message": message}, text]
    for i in range(count):
        delta = {"type": "text_delta", "text": f" word{i}"}
        events.append({"type": "content_block_delta", "index": 0, "delta": delta})
    events += [
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": count},
        },
        {"type": "message_stop"},
    ]
    return [encode_frame(json.dumps(e, separators=(",", ":")), event=e["type"]) for e in events]


def ours(dialect: str, pieces: Piece) -> Callable[[], int]:
    """Our decoder, fed piece by piece."""
    found = REGISTRY.dialect(dialect)

    def run() -> int:
        decoder = found.decoder(content_type="text/event-stream")
        count = 0
        for piece in pieces:
            count += len(decoder.feed(piece))
        return count + len(decoder.finish())

    return run


def _transports(pieces: Piece) -> tuple[Any, Any, Any]:
    """An HTTP library's clients whose every answer is ``pieces``, one a read."""
    import httpx2

    class Sync(httpx2.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            yield from pieces

    class Async(httpx2.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            for piece in pieces:
                yield piece

    headers = {"content-type": "text/event-stream"}

    class SyncTransport(httpx2.BaseTransport):
        def handle_request(self, request: Any) -> Any:
            return httpx2.Response(200, headers=headers, stream=Sync())

    class AsyncTransport(httpx2.AsyncBaseTransport):
        async def handle_async_request(self, request: Any) -> Any:
            return httpx2.Response(200, headers=headers, stream=Async())

    return httpx2, SyncTransport, AsyncTransport


ASK: list[Any] = [{"role": "user", "content": "hi"}]


def openai_stream(pieces: Piece) -> Callable[[], int]:
    """openai-python, blocking."""
    import openai

    http, sync, _ = _transports(pieces)
    client = openai.OpenAI(api_key="k", http_client=http.Client(transport=sync()))

    def run() -> int:
        return sum(1 for _ in client.chat.completions.create(model="m", messages=ASK, stream=True))

    return run


def openai_async(pieces: Piece) -> Callable[[], int]:
    """openai-python, async."""
    import openai

    http, _, transport = _transports(pieces)

    async def read() -> int:
        client = openai.AsyncOpenAI(
            api_key="k", http_client=http.AsyncClient(transport=transport())
        )
        count = 0
        async for _ in await client.chat.completions.create(model="m", messages=ASK, stream=True):
            count += 1
        return count

    return lambda: asyncio.run(read())


def anthropic_async(pieces: Piece) -> Callable[[], int]:
    """anthropic-python, async."""
    import anthropic

    http, _, transport = _transports(pieces)

    async def read() -> int:
        client = anthropic.AsyncAnthropic(
            api_key="k", http_client=http.AsyncClient(transport=transport())
        )
        count = 0
        async for _ in await client.messages.create(
            model="m", max_tokens=9, messages=ASK, stream=True
        ):
            count += 1
        return count

    return lambda: asyncio.run(read())


def pydantic_ai_async(pieces: Piece) -> Callable[[], int]:
    """pydantic-ai on top of openai-python."""
    import openai
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    http, _, transport = _transports(pieces)

    async def read() -> int:
        client = openai.AsyncOpenAI(
            api_key="k", http_client=http.AsyncClient(transport=transport())
        )
        agent = Agent(OpenAIChatModel("m", provider=OpenAIProvider(openai_client=client)))
        count = 0
        async with agent.run_stream("hi") as result:
            async for _ in result.stream_text(delta=True, debounce_by=None):
                count += 1
        return count

    return lambda: asyncio.run(read())


def litellm_async(pieces: Piece) -> Callable[[], int]:
    """LiteLLM on top of openai-python."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else it asks the network
    import litellm
    import openai

    http, _, transport = _transports(pieces)

    async def read() -> int:
        client = openai.AsyncOpenAI(
            api_key="k", http_client=http.AsyncClient(transport=transport())
        )
        count = 0
        stream = await litellm.acompletion(
            model="openai/m", messages=ASK, stream=True, client=client, api_key="k"
        )
        async for _ in stream:
            count += 1
        return count

    return lambda: asyncio.run(read())


def measure(run: Callable[[], int], chunks: int, rounds: int) -> float:
    """Median CPU microseconds per chunk."""
    run()  # warm
    found: list[float] = []
    for _ in range(rounds):
        start = time.process_time()
        run()
        found.append((time.process_time() - start) / chunks * 1e6)
    return statistics.median(found)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chunks", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    chat, claude = chat_stream(options.chunks), anthropic_stream(options.chunks)
    joined = b"".join(chat)
    blocks = [joined[i : i + 16384] for i in range(0, len(joined), 16384)]
    rows: list[tuple[str, str, Callable[[], Callable[[], int]]]] = [
        ("chat", "tokenwire", lambda: ours("openai-chat", chat)),
        ("chat", "tokenwire, 16 KB reads", lambda: ours("openai-chat", blocks)),
        ("chat", "openai Stream", lambda: openai_stream(chat)),
        ("chat", "openai AsyncStream", lambda: openai_async(chat)),
        ("chat", "pydantic-ai run_stream", lambda: pydantic_ai_async(chat)),
        ("chat", "litellm acompletion", lambda: litellm_async(chat)),
        ("messages", "tokenwire", lambda: ours("anthropic", claude)),
        ("messages", "anthropic AsyncStream", lambda: anthropic_async(claude)),
    ]
    base: dict[str, float] = {}
    found: list[dict[str, Any]] = []
    for wire, name, make in rows:
        try:
            run = make()
        except ImportError:
            found.append({"wire": wire, "reader": name, "us_per_chunk": None})
            continue
        cost = measure(run, options.chunks, options.rounds)
        base.setdefault(wire, cost)
        times = cost / base[wire]
        found.append({"wire": wire, "reader": name, "us_per_chunk": cost, "times_ours": times})
    if options.json:
        print(json.dumps(found))
        return
    print(f"{'wire':<10}{'reader':<26}{'us/chunk':>10}{'x':>8}")
    for row in found:
        cost = row["us_per_chunk"]
        figures = "  not installed" if cost is None else f"{cost:>10.2f}{row['times_ours']:>8.1f}"
        print(f"{row['wire']:<10}{row['reader']:<26}{figures}")


if __name__ == "__main__":
    main()
