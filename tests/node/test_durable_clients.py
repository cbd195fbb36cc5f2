"""Durable Streams' own clients (npm, the AI SDK transport, PyPI)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import durable_streams
import httpx
import pytest

from support.node import need_node, run_node, serving
from support.redis import need_redis, redis_server

pytestmark = pytest.mark.node


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    need_node()
    with serving(long_poll_timeout=0.5) as server:
        yield server.url


@pytest.fixture(
    scope="module", params=["memory", "sqlite", pytest.param("redis", marks=pytest.mark.redis)]
)
def stored_url(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """A server on each store: control events and closing come from what the store says."""
    need_node()
    with contextlib.ExitStack() as stack:
        store = "memory:"
        if request.param == "sqlite":
            store = f"sqlite:{tmp_path_factory.mktemp('clients') / 'runs.db'}"
        if request.param == "redis":
            need_redis()
            store = stack.enter_context(redis_server()).url
        yield stack.enter_context(serving(long_poll_timeout=0.5, store=store)).url


def text_of(events: list[Any]) -> str:
    return "".join(e["text"] for e in events if e["type"] == "text-delta")


def test_a_run_is_read_in_every_mode(stored_url: str) -> None:
    url = stored_url
    told = run_node("durable.mjs", url, "modes", "scenario:tool")
    log = httpx.get(f"{url}/v1/runs/{told['run']}/events?live=no").json()["events"]
    events = [item["event"] for item in log]
    assert told["sse"] == told["longPoll"] == told["caughtUp"] == events
    assert told["ui"][0]["type"] == "start"
    assert told["ui"][-1]["type"] == "finish"
    assert told["agui"][0]["type"] == "RUN_STARTED"
    assert told["agui"][-1]["type"] == "RUN_FINISHED"


def test_a_live_run_over_long_polls(stored_url: str) -> None:
    items = run_node("durable.mjs", stored_url, "live_long_poll", "scenario:slow")["items"]
    assert [e["seq"] for e in items] == list(range(1, len(items) + 1))
    assert items[-1]["type"] == "run-end"


@pytest.mark.parametrize("version", ["5", "6", "7"])
def test_the_ai_sdk_transport(url: str, version: str) -> None:
    told = run_node("ai_chat.mjs", version, url, "durable", "scenario:stall")
    assert (told["status"], told["errors"]) == ("ready", [])
    assert told["text"] == "I say this much, and then nothing more"
    assert told["text"] == told["first"]
    assert told["after"] == 0, "nothing is under way any more"


def test_the_pypi_client(url: str) -> None:
    made = httpx.post(f"{url}/v1/runs", json={"prompt": "scenario:text?rate=300"}).json()
    httpx.get(f"{url}/v1/runs/{made['id']}/events", timeout=30)
    address = f"{url}/ds/v1/stream/runs/{made['id']}"
    for live in (False, "long-poll", "sse"):
        # This client does not know that a stream can be closed, so the run's own end ends the loop.
        items: list[Any] = []
        with durable_streams.stream(address, offset="-1", live=live) as found:  # type: ignore[arg-type]
            for item in found.iter_json():
                items.append(item)
                if item["type"] == "run-end":
                    break
        assert items[0]["type"] == "run-start", live
        assert items[-1]["type"] == "run-end", live


def test_a_browsers_event_source_comes_back_by_id_and_hears_why_it_ended(stored_url: str) -> None:
    url = stored_url
    made = httpx.post(f"{url}/v1/runs", json={"prompt": "Hello"}).json()
    httpx.get(f"{url}/v1/runs/{made['id']}/events", timeout=30)
    address = f"{url}/ds/v1/stream/runs/{made['id']}"
    whole = httpx.get(f"{address}?offset=-1&live=sse").text
    last = [line[4:] for line in whole.split("\n") if line.startswith("id: ")][-1]
    assert '"endReason":"complete"' in whole
    again = httpx.get(f"{address}?offset=-1&live=sse", headers={"last-event-id": last})
    assert "event: data" not in again.text
    assert httpx.get(address).headers["stream-end-reason"] == "complete"


def test_a_run_cannot_be_written_to(url: str) -> None:
    made = httpx.post(f"{url}/v1/runs", json={"prompt": "Hello"}).json()
    address = f"{url}/ds/v1/stream/runs/{made['id']}"
    for method in ("PUT", "POST", "DELETE"):
        content = None if method == "DELETE" else b"[]"
        answer = httpx.request(
            method, address, content=content, headers={"content-type": "application/json"}
        )
        assert answer.status_code == 405
    assert httpx.get(f"{address}x").status_code == 404
    assert httpx.get(f"{address}?offset=nonsense").status_code == 400
    assert httpx.get(f"{address}?live=sse").status_code == 400
    beyond = "0000000000000000_0000000000099999"
    assert httpx.get(f"{address}?offset={beyond}").status_code == 400
    made = httpx.put(f"{url}/ds/v1/stream/mine", json=[])
    assert made.status_code == 404, "streams of one's own are off unless asked for"


def test_a_stream_of_ones_own_survives_readers_that_leave() -> None:
    async def main() -> None:
        with serving(durable_streams="readwrite") as server:
            address = f"{server.url}/ds/v1/stream/notes"
            async with httpx.AsyncClient() as client:
                made = await client.put(address, headers={"content-type": "text/plain"})
                assert made.status_code == 201
                async with client.stream("GET", f"{address}?offset=-1&live=sse") as reading:
                    lines = reading.aiter_lines()
                    assert (await anext(lines)).startswith("id: ")
                    assert await anext(lines) == "event: control"
                sent = await client.post(
                    address,
                    content=b"one\r\ntwo",
                    headers={"content-type": "text/plain", "stream-closed": "true"},
                )
                assert sent.status_code == 204
                async with client.stream("GET", f"{address}?offset=-1&live=sse") as reading:
                    whole = (await reading.aread()).decode()
                assert whole.startswith("event: data\ndata:one\ndata:two\n\nid: ")
                assert '"streamClosed":true' in whole

    asyncio.run(main())
