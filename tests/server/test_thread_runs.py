"""The events of a conversation's runs in its one stream: lost workers, slow readers, long runs."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from support.conversation import THREAD, HeldModel, device
from support.process import serving
from support.raw_client import until_true
from support.server import site
from support.spine import run_async
from support.threads import Event, following, list_of, pages, seen
from tokenwire.events.model import Data
from tokenwire.events.request import Request
from tokenwire.log.open import open_store
from tokenwire.relay.conversation.scope import scope_of
from tokenwire.relay.description import RunMeta
from tokenwire.relay.feed.stream import ThreadStream
from tokenwire.relay.record import Chain

SCOPE = scope_of("", THREAD)
#: Bytes that a stream may hold for one who does not read: a page of the feed and one of each run.
MOST_HELD = 4 << 20


def of_run(events: list[Event], run: str) -> list[Event]:
    return [e["event"] for e in events if e["type"] == "run-event" and e["run"] == run]


def test_a_worker_that_is_killed_in_the_middle(tmp_path: Path) -> None:
    """Its conversation and the list of them go on with another one, each event once."""
    store = f"sqlite:{tmp_path}/log.db"
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    with (
        serving(tmp_path / "other", "--store", store) as other,
        serving(tmp_path / "one", "--store", store) as one,
        httpx.Client(base_url=other.url, timeout=60) as client,
        following(client, "lost", runs="full") as device_,
        list_of(client) as listing,
    ):
        listing.until(seen("snapshot"))
        device_.until(seen("snapshot"))
        body = {"thread": "lost", "prompt": "scenario:slow"}
        run = httpx.post(f"{one.url}/v1/runs", json=body).json()["id"]
        device_.until(lambda it: "text-delta" in [e["type"] for e in of_run(it.events, run)])
        listing.until(lambda it: it.events[-1].get("entry", {}).get("state") == "running")
        one.stop(signal.SIGKILL)
        device_.until(seen("run-ended"))
        events = of_run(device_.events, run)
        kinds = [event["type"] for event in events]
        assert [kinds.count(k) for k in ("run-claim", "step-reset", "run-end")] == [1, 1, 1]
        assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
        of_feed = device_.types("run-started", "run-ended")
        assert of_feed == ["run-started", "run-ended"]
        listing.until(lambda it: "state" not in it.events[-1].get("entry", {"state": 1}))
        # From any place of the stream the rest is what it was.
        items = [(c, e) for c, e in zip(device_.cursors, device_.events, strict=True) if c]
        for index in range(0, len(items), max(1, len(items) // 8)):
            rest = pages(client, "lost", items[index][0], runs="full")
            assert of_run(rest, run) == of_run([event for _, event in items[index + 1 :]], run)


def test_a_place_of_a_lost_branch_begins_that_run_anew() -> None:
    with site() as here:
        with following(here.client, "branch", runs="full") as device_:
            device_.until(seen("snapshot"))
            run = here.start("scenario:stall", thread="branch")
            device_.until(lambda it: "text-delta" in [e["type"] for e in of_run(it.events, run)])
            cursor = device_.cursor
        head, _, place = cursor.rpartition(":")
        forged = f"{head}:{place.partition('-')[0]}-{'0' * 16}"
        with following(here.client, "branch", after=forged, runs="full") as again:
            again.until(lambda it: "text-delta" in [e["type"] for e in of_run(it.events, run)])
            kinds = [event["type"] for event in again.events if event["type"] != "presence"]
            assert kinds[0] == "run-reset"
            assert again.cursors[0] is None
            assert of_run(again.events, run)[0]["seq"] == 1
            other = here.start("two", thread="branch")  # the conversation itself goes on
            again.until(lambda it: any(e.get("outcome") for e in it.events))
            assert of_run(again.events, other)[-1]["type"] == "run-end"
            here.client.post(f"/v1/runs/{run}/cancel", json={}).raise_for_status()


class _About:
    async def title(self) -> str | None:
        return None

    async def members(self) -> dict[str, str] | None:
        return None


@pytest.mark.parametrize("url", ["memory:", "sqlite"])
def test_ten_thousand_events_and_a_reader_that_takes_its_time(url: str, tmp_path: Path) -> None:
    count, run = 10_000, "a-run-of-ten-thousand"

    async def main() -> None:
        store = open_store(url if url == "memory:" else f"sqlite:{tmp_path}/log.db")
        async with device(store, HeldModel()) as here:
            worker = here.runs.worker

            def stream() -> ThreadStream:
                return ThreadStream(
                    store, worker.feeds, worker.readers, SCOPE, _About(), whole=True
                )

            reader = stream()
            await reader.begin(None)
            await reader.ready()
            meta = RunMeta(model="held", request=Request(messages=[]), thread=THREAD)
            await store.create(
                run, owner="test", meta=msgspec.json.encode(meta), thread=SCOPE, lease=1e6
            )
            worker.feeds.announce_run(SCOPE, run)
            chain = Chain(run)
            for first in range(1, count + 1, 500):
                records = [chain.seal(Data(name="n", payload=n)) for n in range(first, first + 500)]
                is_last = first + 500 > count
                close = "complete" if is_last else None
                await store.append(run, epoch=1, first=first, records=records, close=close)
            worker.feeds.announce_run(SCOPE, run)
            await worker.feeds.flush()
            payloads: list[int] = []
            kinds: list[str] = []
            number = 0
            while "run-ended" not in kinds:
                batch = await reader.next()
                assert batch is not None
                assert sum(len(data) for _, data in batch.parts()) < MOST_HELD
                cursor = reader.cursor
                for _, data in batch.parts():
                    event: dict[str, Any] = msgspec.json.decode(data)
                    kinds.append(event["type"])
                    if event["type"] == "run-event":
                        payloads.append(event["event"]["payload"])
                number += 1
                if number % 5 == 0:  # it goes, and comes back where it was
                    reader.close(returning=True)
                    reader = stream()
                    await reader.begin(cursor)
                await asyncio.sleep(0)
            reader.close()
            assert payloads == list(range(1, count + 1))
            assert (kinds[0], kinds[-1]) == ("run-started", "run-ended")
            assert set(kinds[1:-1]) == {"run-event"}

    run_async(main())


def test_a_reader_that_stops_reading_is_let_go_and_comes_back() -> None:
    with site(write_deadline=0.5, socket_buffer=4096, heartbeat=1.0) as here:
        path = "/v1/threads/slow/events"
        start = here.client.get(path, params={"live": "no", "runs": "full"}).json()["next"]
        with socket.socket() as wire:
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            wire.connect(("127.0.0.1", here.port))
            asked = f"GET {path}?runs=full&after={start} HTTP/1.1\r\nHost: localhost\r\n\r\n"
            wire.sendall(asked.encode())
            connections, end = here.app.state.connections, time.monotonic() + 45
            until_true(lambda: len(connections) == 1)  # else it may come after its run
            run = here.start("scenario:long", thread="slow")
            while len(connections) and time.monotonic() < end:
                time.sleep(0.02)
            assert len(connections) == 0
        until_true(lambda: here.client.get(f"/v1/runs/{run}").json()["state"] == "complete")
        count = here.client.get(f"/v1/runs/{run}/info").json()["tail"]
        events = pages(here.client, "slow", start, runs="full")
        assert len(of_run(events, run)) == count
        assert events[-1]["type"] == "run-ended"
