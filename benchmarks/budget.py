"""What a budget costs per token: the code alone, with budgets of tokens and money and without any.

As `token_path.py`: tokens are given to the provider's connection by hand, and what would go to the
reader's socket is dropped. A run with a budget counts each token down and reserves the next slice
of 1,000 in the store while the tokens come. Rounds with and without take turns; CPU time, the least
and the median of the rounds, and the ratio of two neighbours, its median.

    python benchmarks/budget.py
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import time
from datetime import UTC
from typing import Any

from token_path import TOKEN, Dropped, Model

from tokenwire.events.message import user
from tokenwire.events.request import Request
from tokenwire.log.memory import MemoryStore
from tokenwire.relay.runs import Runs
from tokenwire.relay.spending.bill import day_of
from tokenwire.relay.spending.budgets import budgets_of
from tokenwire.relay.spending.ledger import Ledger, owner_account
from tokenwire.relay.spending.settling import Settling
from tokenwire.server.edge.connections import Connections
from tokenwire.server.edge.respond import RunResponse
from tokenwire.server.edge.transport import transport_of
from tokenwire.wire.native import NativeEncoder

BUDGETS = ["principal/day=1000000000", "principal/month=$1000000"]
PRICES = {"bench/bench": (1_000_000_000, 2_000_000_000)}
#: Tokens between two turns of the loop, in which what waits there is done.
AT_ONCE = 50


async def timed(model: Model, tokens: int, *, has_budget: bool) -> float:
    """Seconds of CPU per token of one run."""
    store = MemoryStore()
    runs = Runs(store, registry=model)  # type: ignore[arg-type]
    if has_budget:
        runs.worker.settle_with(Settling(store, UTC, PRICES), budgets_of(BUDGETS))
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
    begun = time.process_time()
    for number in range(tokens):
        connection.data_received(TOKEN)
        if number % AT_ONCE == 0:
            await asyncio.sleep(0)
    while Dropped.sent - before < tokens:
        await asyncio.sleep(0)
    took = time.process_time() - begun
    if has_budget and await reserved(store) < tokens:
        raise SystemExit("the tokens were not counted")
    answering.cancel()
    await asyncio.wait([answering])
    await runs.aclose()
    return took / tokens


async def reserved(store: MemoryStore) -> int:
    """Tokens that the run holds of its day."""
    account = owner_account("day", day_of(time.time(), UTC), "p", "")
    return (await Ledger(store).read(account)).taken("tokens")


async def main(tokens: int, rounds: int) -> None:
    server = await asyncio.start_server(Model.answer, "127.0.0.1", 0)
    model = Model()
    model.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    off: list[float] = []
    on: list[float] = []
    async with server:
        for number in range(rounds + 1):
            pair = [await timed(model, tokens, has_budget=has) for has in (False, True)]
            if number:  # the first one warms up
                off.append(pair[0])
                on.append(pair[1])
    ratio = statistics.median(with_it / without for with_it, without in zip(on, off, strict=True))
    for name, times in (("without", off), ("with budgets", on)):
        least, middle = min(times) * 1e6, statistics.median(times) * 1e6
        print(f"{name:12s}  {least:6.2f} us per token, median {middle:6.2f}")
    print(f"{'ratio':12s}  {ratio:6.3f}, of the least {min(on) / min(off):6.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    asyncio.run(main(given.tokens, given.rounds))
