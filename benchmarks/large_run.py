"""The largest run that a log takes, on every wire: how long does one turn of the loop take?

A server in this process has an ended run of 200,000 small events, one of 62 MB in large ones, and
one of 200,000 events that waits for an approval; each is read, resumed near its end, taken whole,
answered and taken over. A turn is measured in CPU time of the loop's thread, so that other
programs do not count. The goal is 100 ms; about two minutes, stops by itself.

    python benchmarks/large_run.py [--events 200000] [--only snapshot] [--store sqlite]
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import resource
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

import msgspec  # noqa: E402
import websockets  # noqa: E402

from tokenwire.events import model as m  # noqa: E402
from tokenwire.events.message import user  # noqa: E402
from tokenwire.events.request import Request  # noqa: E402
from tokenwire.log.base import Store  # noqa: E402
from tokenwire.log.open import open_store  # noqa: E402
from tokenwire.providers.registry import Registry  # noqa: E402
from tokenwire.relay.description import RunMeta  # noqa: E402
from tokenwire.relay.record import Chain, cursor_of  # noqa: E402
from tokenwire.relay.replay import read_run  # noqa: E402
from tokenwire.server.app import create_app  # noqa: E402
from tokenwire.server.settings import Settings  # noqa: E402
from tokenwire.server.start import ThreadedServer  # noqa: E402
from tokenwire.wire.catalogue import WIRES  # noqa: E402

GOAL_MS = 100.0
SECONDS = 120.0  # of one operation
THREAD = "bench"


def events(run: str, count: int, text: str, *, waits: bool) -> list[m.Event]:
    """A run of about ``count`` events, each with ``text``."""
    made: list[m.Event] = [
        m.RunStart(run=run, time=1_795_000_000_000, thread=THREAD, model="demo"),
        m.StepStart(step=1, model="demo", provider="demo", dialect="openai-chat"),
        m.TextStart(part=0),
    ]
    made += [m.TextDelta(part=0, text=text) for _ in range(count - 10)]
    made.append(m.TextEnd(part=0))
    if waits:
        made += [
            m.ToolCallStart(part=1, call_id="call-1", name="delete_file"),
            m.ToolCallDelta(part=1, text='{"path": "a"}'),
            m.ToolCallEnd(part=1),
        ]
    made.append(m.StepEnd(step=1, status="complete", terminal_seen=True))
    if waits:
        made.append(
            m.ApprovalRequest(
                approval_id="yes-1", call_id="call-1", name="delete_file", arguments={"path": "a"}
            )
        )
        made.append(m.RunWait(reason="approval", pending=["yes-1"]))
    else:
        made.append(m.RunEnd(outcome="complete"))
    for seq, event in enumerate(made, 1):
        event.seq, event.t = seq, seq
    return made


async def write(store: Store, run: str, made: list[m.Event], *, lease: float = 600.0) -> str:
    """Put the run into the store; the cursor near its end."""
    meta = RunMeta(model="demo", request=Request(messages=[user("Q")]), thread=THREAD)
    encoded = msgspec.json.encode(meta)
    await store.create(run, owner="elsewhere", meta=encoded, thread=f"\x1f{THREAD}", lease=lease)
    records = Chain(run).seal_all(made)
    for start in range(0, len(records), 4096):
        part = records[start : start + 4096]
        await store.append(run, epoch=1, first=start + 1, records=part)
    if isinstance(made[-1], m.RunEnd):
        await store.append(run, epoch=1, first=len(records) + 1, records=[], close="complete")
    at = len(records) - 8
    return cursor_of(at, records[at - 1])


class Turns:
    """The longest turn of a loop, in CPU milliseconds of its thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.longest = 0.0
        self._last: float | None = None
        self._on = False

    def _tick(self) -> None:
        now = time.thread_time()
        if self._last is not None:
            self.longest = max(self.longest, now - self._last)
        self._last = now
        if self._on:
            self._loop.call_later(0.0005, self._tick)

    def start(self) -> None:
        self.longest, self._last, self._on = 0.0, None, True
        self._loop.call_soon_threadsafe(self._tick)

    def stop(self) -> float:
        self._on = False
        time.sleep(0.01)
        return self.longest * 1000


async def get(
    port: int, path: str, *, method: str = "GET", body: bytes = b"", more: str = ""
) -> int:
    """Read an answer to its end; its bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n{more}"
    if body:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    writer.write(head.encode() + b"\r\n" + body)
    size, first = 0, b""
    while piece := await reader.read(1 << 20):
        first = first or piece
        size += len(piece)
    writer.close()
    status = first.split(b" ", 2)[1:2]
    if status not in ([b"200"], [b"202"], [b"206"]):
        raise RuntimeError(f"{method} {path}: {first[-160:]!r}")
    return size


async def socket(port: int, run: str) -> int:
    """Follow a run on the native socket to its end."""
    size = 0
    async with websockets.connect(f"ws://127.0.0.1:{port}/ws", max_size=None) as wire:
        await wire.send(json.dumps({"op": "follow", "id": 1, "run": run}))
        async for message in wire:
            size += len(message)
            if '"op":"end"' in str(message[:60]):
                return size
    return size


def operations(port: int, run: str, cursor: str) -> dict[str, Callable[[], Awaitable[int]]]:
    """What is done with an ended run, by name."""
    one = f"/v1/runs/{run}"
    after = f"Last-Event-ID: {cursor}\r\n"
    work: dict[str, Callable[[], Awaitable[int]]] = {
        "snapshot": lambda: get(port, one),
        "native": lambda: get(port, f"{one}/events"),
        "native, one page": lambda: get(port, f"{one}/events?live=no"),
        "native, resumed": lambda: get(port, f"{one}/events?after={cursor}"),
        "native socket": lambda: socket(port, run),
        "response, whole": lambda: get(port, f"/v1/responses/resp_{run}"),
        "response, stream": lambda: get(port, f"/v1/responses/resp_{run}?stream=true"),
        "thread as UI messages": lambda: get(port, f"/v1/threads/{THREAD}?as=ui-messages"),
        "thread": lambda: get(port, f"/v1/threads/{THREAD}"),
        "durable stream": lambda: get(port, f"/ds/v1/stream/runs/{run}?offset=-1"),
    }
    for wire in WIRES:
        path = f"{one}/wires/{wire}"
        work[f"{wire}"] = lambda path=path: get(port, path)
        work[f"{wire}, resumed"] = lambda path=path: get(port, path, more=after)
    return work


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


async def timed(name: str, work: Callable[[], Awaitable[int]], turns: Turns) -> float:
    before = peak_mb()
    turns.start()
    start = time.perf_counter()
    try:
        size = await asyncio.wait_for(work(), SECONDS)
        told = f"{size / 1e6:8.1f} MB"
    except TimeoutError:
        told = f"  more than {SECONDS:.0f} s"
    except RuntimeError as error:
        told = f"  failed: {error}"
    seconds = time.perf_counter() - start
    longest = turns.stop()
    mark = "" if longest < GOAL_MS else "  <-- above the goal"
    print(
        f"{name:44} {longest:7.1f} ms a turn {seconds:7.2f} s {told}"
        f" {peak_mb() - before:7.0f} MB more at the peak{mark}",
        flush=True,
    )
    return longest


async def takeover(path: Path, count: int) -> None:
    """Read a lost run of another process back; what `Orphans` does first."""
    store = open_store(f"sqlite:{path}")
    await store.start()
    await write(
        store, "run_taken_over_00", events("run_taken_over_00", count, "word ", waits=False)
    )
    turns = Turns(asyncio.get_running_loop())
    turns.start()
    await asyncio.sleep(0.01)
    start = time.perf_counter()
    replay = await read_run(store, "run_taken_over_00")
    seconds = time.perf_counter() - start
    turns._on = False
    print(
        f"{'takeover: the log read back (SQLite)':44} {turns.longest * 1000:7.1f} ms a turn"
        f" {seconds:7.2f} s {len(replay.records)} records",
        flush=True,
    )
    await store.close()


async def approve(port: int, run: str) -> int:
    return await get(
        port, f"/v1/runs/{run}/approvals/yes-1", method="POST", body=b'{"approved": true}'
    )


async def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--only", default="", help="operations whose name contains this")
    parser.add_argument("--store", choices=["memory", "sqlite"], default="memory")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        url = "memory:" if options.store == "memory" else f"sqlite:{folder}/runs.db"
        store = open_store(url)
        settings = Settings(
            port=0,
            access_log=False,
            long_poll_timeout=60.0,
            buffer_per_client=1 << 30,
            buffer_per_connection=1 << 30,
        )
        registry = Registry(demo_url="http://127.0.0.1:9/v1", env={})
        app = create_app(settings, registry=registry, store=store)
        with ThreadedServer(app) as server:
            port = int(server.url.rpartition(":")[2])
            ticker = app.state.connections._ticker
            assert ticker is not None
            loop = ticker.get_loop()
            turns = Turns(loop)

            async def ask(work: Coroutine[None, None, str]) -> str:
                return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, loop))

            many, large, waiting = "run_many_events_0", "run_large_events", "run_that_waits_00"
            count = options.events
            shapes = {
                many: events(many, count, "word ", waits=False),
                large: events(large, 490, "word " * 25_000, waits=False),
                waiting: events(waiting, count, "word ", waits=True),
            }
            cursors = {run: await ask(write(store, run, made)) for run, made in shapes.items()}
            shapes.clear()
            gc.collect()
            for run, title in ((many, f"{count} events"), (large, "62 MB")):
                print(f"-- {title}", flush=True)
                for name, work in operations(port, run, cursors[run]).items():
                    if options.only in name:
                        await timed(name, work, turns)
            print(f"-- {count} events, waiting", flush=True)
            one = f"/v1/runs/{waiting}"
            late: dict[str, Callable[[], Awaitable[int]]] = {
                "its snapshot": lambda: get(port, one),
                "its description": lambda: get(port, f"{one}/info"),
                "an approval": lambda: approve(port, waiting),
            }
            for name, work in late.items():
                if options.only in name:
                    await timed(name, work, turns)
        if options.only in "takeover":
            await takeover(Path(folder) / "taken.db", count)
    return 0


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main()))
