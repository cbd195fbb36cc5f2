"""An agent that yields one word at a time, beside a model that sends one token at a time.

Both on a store in memory with one native reader in the same process, and without the express way
(a scripted model has no socket to hand its bytes past the tasks). Each word is a turn of the event
loop of its own. The least CPU time of several rounds is told, in microseconds a word.

    python benchmarks/agent.py
"""

from __future__ import annotations

import argparse
import asyncio
import time
from typing import Any

from tokenwire import RunContext, Runs, agent
from tokenwire.agents.load import agents_of
from tokenwire.events.message import user
from tokenwire.events.request import Request
from tokenwire.log.memory import MemoryStore
from tokenwire.testing import ScriptedModel
from tokenwire.wire.native import NativeEncoder


class OneModel:
    """A registry and a client that know one model."""

    def __init__(self, words: int) -> None:
        self.model = ScriptedModel([f"w{n} " for n in range(words)])
        self.has_demo = True

    def resolve(self, name: str) -> Any:
        return self.model.resolve(name)

    async def open(self, call: Any, *, connect_timeout: float) -> Any:
        stream = await self.model.open(call)
        return Slow(stream)

    async def aclose(self) -> None:
        return None


class Slow:
    """One piece a turn of the event loop."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    async def read(self) -> bytes:
        await asyncio.sleep(0)
        return await self._stream.read()


def talker(words: int) -> Any:
    @agent
    async def talks(ctx: RunContext):
        for number in range(words):
            await asyncio.sleep(0)
            yield f"w{number} "

    return talks


async def timed(runs: Runs, model: str) -> float:
    encoder, begun = NativeEncoder(), time.process_time()
    request = Request(messages=[user("x")])
    info = await runs.start(request, model=model)
    follower = await runs.follow(info.id)
    while (batch := await follower.next()) is not None:
        for cursor, event in batch.events():
            encoder.encode(event, cursor)
    follower.close()
    return time.process_time() - begun


async def main(words: int, rounds: int) -> None:
    one: Any = OneModel(words)
    runs = Runs(MemoryStore(), registry=one, http=one, agents=agents_of([talker(words)]))
    await runs.open()
    best: dict[str, float] = {}
    for _ in range(rounds):
        for name in ("talks", "model"):
            best[name] = min(best.get(name, 1e9), await timed(runs, name))
    await runs.aclose()
    for name, seconds in best.items():
        print(f"{name:8} {seconds / words * 1e6:7.1f} us a word")
    print(f"ratio    {best['talks'] / best['model']:7.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--words", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    asyncio.run(main(options.words, options.rounds))
