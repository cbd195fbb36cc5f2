"""``on_disconnect=stop`` is about people: who leaves, and who only changes connections."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect

from support.node import serving
from support.server import Reading, Site, site
from support.upstream import Upstream, upstream

NUMBERS = "".join(f"{n} " for n in range(1, 91))


def ended(here: Site, run: str, seconds: float = 40) -> str:
    """The state of a run once it has ended."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        state = here.client.get(f"/v1/runs/{run}").json()["state"]
        if state not in ("running", "waiting"):
            return state
        time.sleep(0.02)
    raise AssertionError("the run goes on")


def still_runs(here: Site, run: str, seconds: float = 0.5) -> bool:
    time.sleep(seconds)
    return here.client.get(f"/v1/runs/{run}").json()["state"] == "running"


@pytest.fixture(scope="module")
def here() -> Iterator[Site]:
    with site() as found:
        yield found


def test_a_planned_reconnect_is_no_leaving() -> None:
    with site(max_age=0.3, retry_ms=100) as here:
        run = here.start("scenario:slow", on_disconnect="stop")
        after, text, connections = "", "", 0
        while True:
            frames = here.frames(f"/v1/runs/{run}/events", params={"after": after} if after else {})
            connections += 1
            events = [json.loads(frame.data) for frame in frames]
            text += "".join(e["text"] for e in events if e["type"] == "text-delta")
            after = next((f.id for f in reversed(frames) if f.id), after)
            if any(e["type"] == "run-end" for e in events):
                break
            assert events[-1]["type"] == "reconnect"
            time.sleep(0.1)
        assert connections > 2
        assert text == NUMBERS
        assert events[-1]["outcome"] == "complete"


def test_a_planned_reconnect_of_a_socket_is_no_leaving() -> None:
    async def main(here: Site) -> None:
        run = here.start("scenario:slow", on_disconnect="stop")
        cursor, text, connections = None, "", 0
        while True:
            connections += 1
            async with connect(here.url.replace("http", "ws", 1) + "/ws") as socket:
                follow = {"op": "follow", "run": run, **({"after": cursor} if cursor else {})}
                await socket.send(json.dumps(follow))
                message: dict[str, Any] = {"op": ""}
                while message["op"] not in ("end", "reconnect"):
                    message = json.loads(await socket.recv())
                    for entry in message.get("events", []):
                        cursor, event = entry["cursor"], entry["event"]
                        text += event["text"] if event["type"] == "text-delta" else ""
            if message["op"] == "end":
                break
            await asyncio.sleep(0.1)
        assert connections > 2
        assert text == NUMBERS

    with site(max_age=0.3, retry_ms=100) as here:
        asyncio.run(main(here))


_TALK = "scenario:slow?rate=20"
_WIRES: dict[str, tuple[str, dict[str, Any]]] = {
    "openai": (
        "/v1/chat/completions",
        {"model": "demo", "stream": True, "messages": [{"role": "user", "content": _TALK}]},
    ),
    "anthropic": (
        "/v1/messages",
        {
            "model": "demo",
            "stream": True,
            "max_tokens": 999,
            "messages": [{"role": "user", "content": _TALK}],
        },
    ),
    "ai-sdk": (
        "/api/chat",
        {
            "id": "c",
            "messages": [{"id": "u", "role": "user", "parts": [{"type": "text", "text": _TALK}]}],
        },
    ),
    "ag-ui": (
        "/ag-ui",
        {
            "threadId": "t1",
            "runId": "r1",
            "messages": [{"id": "m", "role": "user", "content": _TALK}],
            "tools": [],
            "context": [],
            "state": {},
            "forwardedProps": {},
        },
    ),
}


@pytest.mark.parametrize("wire", _WIRES)
@pytest.mark.parametrize("waits", [False, True], ids=["at its start", "on its way"])
def test_a_wire_without_a_farewell_breaks_off_and_nothing_is_said_to_have_failed(
    wire: str, waits: bool, caplog: pytest.LogCaptureFixture
) -> None:
    path, body = _WIRES[wire]
    data = b""
    with ExitStack() as ends, httpx.Client(timeout=60, trust_env=False) as client:
        with site(graceful_stop=2.0) as here, caplog.at_level("INFO"):
            answer = ends.enter_context(client.stream("POST", here.url + path, json=body))
            pieces = answer.iter_raw()
            while waits and data.count(b"data: ") < 12:
                data += next(pieces)
        # The server has stopped.
        with pytest.raises(httpx.RemoteProtocolError):
            for piece in pieces:
                data += piece
    assert b"[DONE]" not in data
    assert b"message_stop" not in data
    assert b"RUN_FINISHED" not in data
    assert data.endswith(b"\n\n"), "no event is cut in two"
    assert not [r.getMessage() for r in caplog.records if r.levelname in ("ERROR", "WARNING")]


def test_who_does_not_come_back_has_left() -> None:
    with site(max_age=0.2) as here:
        here.app.state.runs.worker.readers.return_seconds = 0.4
        run = here.start("scenario:stall", on_disconnect="stop")
        frames = here.frames(f"/v1/runs/{run}/events")
        assert json.loads(frames[-1].data)["type"] == "reconnect"
        assert here.client.get(f"/v1/runs/{run}").json()["state"] == "running"
        assert ended(here, run) == "cancelled"


def test_between_two_long_polls_nobody_has_left(here: Site) -> None:
    run = here.start("scenario:slow", on_disconnect="stop")
    after, text, pages = "", "", 0
    while True:
        params = {"live": "long-poll", **({"after": after} if after else {})}
        page = here.client.get(f"/v1/runs/{run}/events", params=params).json()
        pages += 1
        text += "".join(
            e["event"]["text"] for e in page["events"] if e["event"]["type"] == "text-delta"
        )
        after = page["next"]
        if page["closed"]:
            break
        time.sleep(0.15)
    assert pages > 3
    assert text == NUMBERS
    assert ended(here, run) == "complete"


def test_who_closes_a_long_poll_has_left(here: Site) -> None:
    run = here.start("scenario:stall", on_disconnect="stop")
    assert still_runs(here, run)  # until it stalls
    after = here.client.get(f"/v1/runs/{run}/events", params={"live": "no"}).json()["next"]
    reading = Reading.get(here.port, f"/v1/runs/{run}/events?live=long-poll&after={after}")
    assert still_runs(here, run)
    reading.close()
    assert ended(here, run) == "cancelled"


def test_a_reader_of_a_durable_stream_is_one_as_well() -> None:
    with site(durable_streams="read") as here:
        run = here.start("scenario:stall", on_disconnect="stop")
        durable = Reading.get(here.port, f"/ds/v1/stream/runs/{run}?offset=-1&live=sse")
        durable.until(b"event: control")
        native = Reading.get(here.port, f"/v1/runs/{run}/events")
        native.until(b"text-delta")
        native.close()
        assert still_runs(here, run)
        durable.close()
        assert ended(here, run) == "cancelled"


def test_between_two_polls_of_a_durable_stream_nobody_has_left() -> None:
    with site(durable_streams="read", long_poll_timeout=0.8) as here:
        here.app.state.runs.worker.readers.return_seconds = 3.0  # the polls take longer together
        run = here.start("scenario:stall", on_disconnect="stop")
        offset = "-1"
        for _ in range(4):
            params = {"offset": offset, "live": "long-poll"}
            page = here.client.get(f"/ds/v1/stream/runs/{run}", params=params)
            offset = page.headers["stream-next-offset"]
            assert still_runs(here, run, 0.1)
        assert ended(here, run) == "cancelled"


def test_a_look_at_what_is_there_stops_nothing(here: Site) -> None:
    run = here.start("scenario:stall", on_disconnect="stop")
    for _ in range(3):
        here.client.get(f"/v1/runs/{run}/events", params={"live": "no"})
        here.client.get(f"/v1/runs/{run}")
    assert still_runs(here, run)
    here.client.post(f"/v1/runs/{run}/cancel")


def test_under_drain_the_run_is_handed_over(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/runs.db"
    with site(store=store, graceful_stop=2.0) as second:
        with site(store=store, graceful_stop=2.0) as first:
            run = first.start("scenario:slow?rate=20", on_disconnect="stop")
            reading = Reading.get(first.port, f"/v1/runs/{run}/events")
            reading.until(b"text-delta")
        assert b'"type":"reconnect"' in reading.rest()
        reading.close()
        frames = second.frames(f"/v1/runs/{run}/events")
        end = json.loads(frames[-1].data)
        assert (end["type"], end["outcome"]) == ("run-end", "complete")


# --- whole answers --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def provider() -> Iterator[Upstream]:
    with upstream() as server:
        yield server


BODIES = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "Hello"}]},
    "/v1/responses": {"input": "Hello"},
    "/v1/messages": {"max_tokens": 9, "messages": [{"role": "user", "content": "Hello"}]},
}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("path", BODIES)
def test_who_leaves_an_answer_stops_the_provider(
    provider: Upstream, path: str, stream: bool
) -> None:
    with serving(model=[provider.model], on_disconnect="stop") as server:
        provider.will(provider.hold)
        body = json.dumps({"model": provider.model, "stream": stream, **BODIES[path]}).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        port = int(server.url.rpartition(":")[2])
        reading = Reading(port, head.encode() + body)
        until = time.monotonic() + 40
        while not provider.requests and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(0.2)
        assert not provider.gone.is_set()
        reading.close()
        assert provider.gone.wait(30)
        time.sleep(0.3)
        assert provider.requests == 1


@pytest.mark.parametrize("path", BODIES)
def test_a_whole_answer_hears_that_the_server_stops(provider: Upstream, path: str) -> None:
    replies: list[httpx.Response] = []
    body = {"model": provider.model, **BODIES[path]}
    provider.will(provider.hold)
    with serving(model=[provider.model], graceful_stop=4.0, on_disconnect="stop") as server:
        thread = threading.Thread(
            target=lambda: replies.append(httpx.post(server.url + path, json=body, timeout=30))
        )
        thread.start()
        until = time.monotonic() + 40
        while not provider.requests and time.monotonic() < until:
            time.sleep(0.01)
    thread.join(20)
    assert replies[0].status_code == 429
    assert replies[0].headers["retry-after"] == "1"
    assert "stopping" in replies[0].json()["error"]["message"]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_who_leaves_behind_a_further_request_has_left(provider: Upstream, stream: bool) -> None:
    """The next request of the connection is there already, and not read."""
    path, fields = "/v1/chat/completions", BODIES["/v1/chat/completions"]
    with serving(model=[provider.model], on_disconnect="stop") as server:
        provider.will(provider.hold)
        body = json.dumps({"model": provider.model, "stream": stream, **fields}).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        reading = Reading(int(server.url.rpartition(":")[2]), head.encode() + body)
        until = time.monotonic() + 40
        while not provider.requests and time.monotonic() < until:
            time.sleep(0.01)
        for _ in range(3):
            reading.wire.sendall(head.encode() + body)
            time.sleep(0.1)
        assert not provider.gone.wait(0.5)
        reading.close()
        assert provider.gone.wait(30)
        time.sleep(0.3)
        assert provider.requests == 1


@pytest.mark.parametrize("path", BODIES)
def test_the_policy_may_be_to_go_on(provider: Upstream, path: str) -> None:
    with serving(model=[provider.model], on_disconnect="continue") as server:
        provider.will(provider.hold)
        body = json.dumps({"model": provider.model, **BODIES[path]}).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        reading = Reading(int(server.url.rpartition(":")[2]), head.encode() + body)
        while not provider.requests:
            time.sleep(0.01)
        reading.close()
        assert not provider.gone.wait(1)
