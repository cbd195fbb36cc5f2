"""Does a server keep something of what is over? Tasks, objects, files and memory, before and after.

For some time, runs are started, read to their end, left half-way, cancelled and deleted, on every
way in; then all is given a moment to end. One line per quantity: before, after, and the growth per
thousand runs. A minute by default; `--seconds 600` is the long one. Stops by itself.

    python benchmarks/churn.py [--seconds 60] [--store memory|sqlite]
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

import httpx  # noqa: E402
import websockets  # noqa: E402

from support.server import Site, site  # noqa: E402
from tokenwire.providers.http import pool  # noqa: E402

#: Idle connections to the model go within the time that this waits at the end.
pool.KEEP_IDLE = 1.0

AT_ONCE = 16
MOST_SECONDS = 30.0  # of one run


async def one(here: Site, client: httpx.AsyncClient, number: int, choose: random.Random) -> None:
    """One run in one of the ways."""
    body = {"prompt": "scenario:text", "thread": f"t{number % 50}"}
    way = choose.randrange(6)
    if way == 0:  # a stream that is read
        async with client.stream(
            "POST", "/v1/runs", json=body, headers={"accept": "text/event-stream"}
        ) as answer:
            async for _ in answer.aiter_bytes():
                pass
    elif way == 1:  # a stream that is left
        async with client.stream(
            "POST",
            "/api/chat",
            json={
                "id": f"c{number}",
                "messages": [
                    {
                        "id": "1",
                        "role": "user",
                        "parts": [{"type": "text", "text": "scenario:text"}],
                    }
                ],
            },
        ) as answer:
            async for _ in answer.aiter_bytes():
                break
    elif way == 2:  # cancelled
        run = (await client.post("/v1/runs", json=body | {"prompt": "scenario:slow"})).json()["id"]
        await client.post(f"/v1/runs/{run}/cancel")
    elif way == 3:  # deleted while it runs
        run = (await client.post("/v1/runs", json=body | {"prompt": "scenario:slow"})).json()["id"]
        await client.delete(f"/v1/runs/{run}")
    elif way == 4:  # a whole answer
        await client.post(
            "/v1/chat/completions",
            json={"model": "demo", "messages": [{"role": "user", "content": "scenario:text"}]},
        )
    else:  # a socket that is closed in the middle
        address = here.url.replace("http", "ws", 1) + "/ws"
        async with websockets.connect(address, proxy=None) as wire:
            await wire.send(json.dumps({"op": "start", "id": 1, "request": body}))
            for _ in range(4):
                await wire.recv()


async def churn(here: Site, seconds: float) -> int:
    """How many runs there were."""
    choose = random.Random(7)
    number = 0
    end = time.monotonic() + seconds
    limits = httpx.Limits(max_connections=AT_ONCE * 2)
    async with httpx.AsyncClient(
        base_url=here.url, timeout=60, trust_env=False, limits=limits
    ) as client:

        async def work() -> None:
            nonlocal number
            while time.monotonic() < end:
                number += 1
                try:
                    await asyncio.wait_for(one(here, client, number, choose), MOST_SECONDS)
                except (TimeoutError, httpx.HTTPError, websockets.WebSocketException) as error:
                    print(f"run {number}: {type(error).__name__}: {error}", file=sys.stderr)

        await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    return number


def quantities(here: Site) -> dict[str, int]:
    """What there is in the server now. The records that the store keeps are not counted."""
    ticker = here.app.state.connections._ticker
    assert ticker is not None
    loop = ticker.get_loop()

    async def tasks() -> int:
        return len(asyncio.all_tasks())

    gc.collect()
    state = here.app.state
    return {
        "tasks": asyncio.run_coroutine_threadsafe(tasks(), loop).result(10),
        "objects": sum(not isinstance(o, (list, dict, tuple)) for o in gc.get_objects()),
        "open files": len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0,
        "runs owned": len(state.runs.owned),
        "connections": len(state.connections),
        "readers": state.limits._readers.total(),
        "bytes waiting": state.budget._waiting.total(),
    }


def settled(here: Site) -> dict[str, int]:
    """The quantities once nothing is under way."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        found = quantities(here)
        if not (found["runs owned"] or found["connections"]):
            break
        time.sleep(0.2)
    time.sleep(4)
    return quantities(here)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--store", choices=["memory", "sqlite"], default="sqlite")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        where = {"store": f"sqlite:{folder}/runs.db"} if options.store == "sqlite" else {}
        # Nothing of what is over may be kept in the process, and little in the store.
        with site(retention=5.0, **where) as here:
            asyncio.run(churn(here, min(10.0, options.seconds / 3)))  # what is made once, is made
            before = settled(here)
            count = asyncio.run(churn(here, options.seconds))
            after = settled(here)
    print(f"{count} runs in {options.seconds:.0f} s; load of the machine {os.getloadavg()[0]:.1f}")
    for name, start in before.items():
        growth = (after[name] - start) / count * 1000
        print(f"{name:14} {start:8} before {after[name]:8} after {growth:+8.1f} a thousand runs")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
