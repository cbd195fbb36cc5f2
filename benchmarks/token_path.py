"""A token's way through the code alone: from the provider's bytes to the reader's, no socket.

A run is started over real sockets; then tokens are given to the provider's connection by hand, and
what would go to the reader's socket is dropped. So this is what Python does for a token, without
the kernel and the event loop, warm: the figure to look at after a change of the hot path. The
least of many rounds is told, which other work on the machine hardly touches. Where the lane in C
(`speedups/`) is installed, it takes turns with that in Python.

    python benchmarks/token_path.py
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import time
from typing import Any

from harness import CHUNK, HEAD, chunked

from tokenwire.events.message import user
from tokenwire.events.request import Request
from tokenwire.express import Port
from tokenwire.log.memory import MemoryStore
from tokenwire.providers.base import Target
from tokenwire.providers.openai.chat import DIALECT
from tokenwire.relay.runs import Runs
from tokenwire.run.call import lane, pacing
from tokenwire.server.edge.connections import Connections
from tokenwire.server.edge.respond import RunResponse
from tokenwire.server.edge.transport import transport_of
from tokenwire.wire.native import NativeEncoder

TOKEN = chunked(b"data: " + (CHUNK % "token ").encode() + b"\n\n")


class Model:
    """The registry's only model: a socket that begins an answer."""

    url = ""

    def resolve(self, name: str) -> Any:
        return DIALECT, Target(
            provider="bench", dialect="openai-chat", model=name, base_url=self.url
        )

    @staticmethod
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD + TOKEN + TOKEN)


class Dropped:
    """The body of a response that nobody reads."""

    sent = 0

    def __init__(self) -> None:
        self.port = Port(self.write)

    def ready(self) -> bool:
        self.port.is_open = True
        return True

    def write(self, data: bytes) -> None:
        Dropped.sent += 1

    def hold(self) -> None:
        pass


# Tokens without a pause between them are no fast model here.
pacing.FAST = lane.FAST = 0.0


async def main(tokens: int, rounds: int) -> None:
    server = await asyncio.start_server(Model.answer, "127.0.0.1", 0)
    model = Model()
    model.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    ways = {"the lane in Python": lane.received_in_python}
    if lane.twin.received is not None:
        ways["the lane in C"] = lane.twin.received
    best = dict.fromkeys(ways, float("inf"))
    async with server:
        for way in [*ways] * rounds:
            lane.Lane.received = ways[way]  # type: ignore[method-assign]
            runs = Runs(MemoryStore(), registry=model)  # type: ignore[arg-type]
            await runs.open()
            info = await runs.start(Request(messages=[user("x")]), model="bench")
            follower = await runs.follow(info.id)
            response = RunResponse(Connections(), follower, NativeEncoder(), run_id=info.id)

            async def nothing() -> Any:
                await asyncio.Event().wait()

            async def send(message: Any) -> None:
                pass

            scope: dict[str, Any] = {"type": "http", "method": "GET"}
            transport_of(scope).body = Dropped()
            answering = asyncio.ensure_future(response(scope, nothing, send))
            while follower.after < 5:
                await asyncio.sleep(0.01)
            (connection,) = runs.worker.http._pool._all  # type: ignore[union-attr]
            before = Dropped.sent
            gc.collect()
            begun = time.perf_counter()
            for _ in range(tokens):
                connection.data_received(TOKEN)
            took = time.perf_counter() - begun
            # The pacer takes a loop without pauses for a fast model and holds the socket, which is
            # not asked here; every token must have gone its whole way all the same.
            if Dropped.sent - before != tokens:
                raise SystemExit(f"{Dropped.sent - before} of {tokens} tokens arrived")
            best[way] = min(best[way], took / tokens)
            answering.cancel()
            await asyncio.wait([answering])
            await runs.aclose()
    for way, least in best.items():
        print(f"{least * 1e6:.2f} us per token, {way}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    asyncio.run(main(given.tokens, given.rounds))
