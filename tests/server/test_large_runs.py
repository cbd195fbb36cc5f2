"""The largest runs: what reads them leaves the loop to others, and is counted while it waits."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Coroutine
from typing import Any

import msgspec
import pytest

from support.server import Site, site
from tokenwire.errors import BusyError
from tokenwire.events import model as m
from tokenwire.events.message import user
from tokenwire.events.request import Request
from tokenwire.relay.description import RunMeta
from tokenwire.relay.record import Chain, cursor_of
from tokenwire.server.edge.whole import json_in_turns
from tokenwire.wire.catalogue import WIRES
from tokenwire.wire.openai.responses import MOST_REPEATED

RUN = "run_0123456789abcdef"


def ask(here: Site, work: Coroutine[Any, Any, Any]) -> Any:
    """Run ``work`` on the server's loop."""
    ticker = here.app.state.connections._ticker
    assert ticker is not None
    return asyncio.run_coroutine_threadsafe(work, ticker.get_loop()).result(60)


def stored(here: Site, deltas: list[str]) -> str:
    """Put an ended run with these text deltas into the store; a cursor near its end."""
    made: list[m.Event] = [
        m.RunStart(run=RUN, time=1_795_000_000_000, thread="chat", model="demo"),
        m.StepStart(step=1, model="demo"),
        m.TextStart(part=0),
        *(m.TextDelta(part=0, text=text) for text in deltas),
        m.TextEnd(part=0),
        m.StepEnd(step=1, status="complete", terminal_seen=True),
        m.RunEnd(outcome="complete"),
    ]
    for seq, event in enumerate(made, 1):
        event.seq, event.t = seq, seq
    records = Chain(RUN).seal_all(made)
    meta = msgspec.json.encode(
        RunMeta(model="demo", request=Request(messages=[user("Q")]), thread="chat")
    )

    async def write() -> None:
        store = here.app.state.store
        await store.create(RUN, owner="x", meta=meta, thread="\x1fchat")
        await store.append(RUN, epoch=1, first=1, records=records, close="complete")

    ask(here, write())
    at = len(records) - 4
    return cursor_of(at, records[at - 1])


class Turns:
    """Counts the turns of the server's loop that a timer has in it."""

    def __init__(self, here: Site) -> None:
        ticker = here.app.state.connections._ticker
        assert ticker is not None
        self._loop = ticker.get_loop()
        self.count, self._on = 0, True
        self._loop.call_soon_threadsafe(self._tick)

    def _tick(self) -> None:
        self.count += 1
        if self._on:
            self._loop.call_soon(self._tick)

    def stop(self) -> None:
        self._on = False


PATHS = {
    "native page": f"/v1/runs/{RUN}/events?live=no",
    "native": f"/v1/runs/{RUN}/events",
    "snapshot": f"/v1/runs/{RUN}",
    "response": f"/v1/responses/resp_{RUN}",
    "response stream": f"/v1/responses/resp_{RUN}?stream=true",
    "conversation": "/v1/threads/chat?as=ui-messages",
    **{wire: f"/v1/runs/{RUN}/wires/{wire}" for wire in WIRES},
}


@pytest.mark.parametrize("name", PATHS)
def test_reading_a_large_run_leaves_the_loop_to_others(name: str) -> None:
    """Neither the store nor the socket makes it wait: it has to look up by itself."""
    with site() as here:
        cursor = stored(here, ["word "] * 20_000)
        resumes = [{}] if "wires" not in PATHS[name] else [{}, {"Last-Event-ID": cursor}]
        for headers in resumes:
            here.client.get("/livez")
            turns = Turns(here)
            answer = here.client.get(PATHS[name], headers=headers)
            turns.stop()
            assert answer.status_code == 200
            # Some of the pieces of 20,000 records; what is sent in one go has a handful.
            assert turns.count > 15, (name, headers)


def test_a_large_text_is_said_twice_more_and_not_four_times() -> None:
    piece = "word " * 20_000
    count = MOST_REPEATED // len(piece) + 2
    with site() as here:
        stored(here, [piece] * count)
        text = piece * count
        answer = here.client.get(f"/v1/responses/resp_{RUN}?stream=true").text
        lines = [line for line in answer.split("\n") if line.startswith("data: ")]
        events = [json.loads(line.removeprefix("data: ")) for line in lines]
        kinds = [event["type"] for event in events]
        deltas = [e["delta"] for e in events if e["type"] == "response.output_text.delta"]
        assert "".join(deltas) == text
        assert "response.output_text.done" not in kinds
        assert "response.content_part.done" not in kinds
        item = events[kinds.index("response.output_item.done")]["item"]
        assert item["content"][0]["text"] == text
        assert kinds[-1] == "response.completed"
        assert events[-1]["response"]["output"][0]["content"][0]["text"] == text
        assert [e["sequence_number"] for e in events] == list(range(len(events)))
        assert len(answer) < 3.2 * len(text)
        whole = here.client.get(f"/v1/responses/resp_{RUN}").json()
        assert whole["output"][0]["content"][0]["text"] == text


def test_a_text_of_usual_size_is_repeated_as_the_clients_expect() -> None:
    with site() as here:
        stored(here, ["a few ", "words"])
        frames = here.frames(f"/v1/responses/resp_{RUN}?stream=true")
        kinds = [json.loads(frame.data)["type"] for frame in frames]
        assert kinds[-4:] == [
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.completed",
        ]


def unread(port: int, path: str) -> socket.socket:
    """A request whose answer nobody reads."""
    wire = socket.socket()
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    wire.connect(("127.0.0.1", port))
    wire.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
    return wire


@pytest.mark.parametrize("path", [f"/v1/runs/{RUN}", f"/v1/responses/resp_{RUN}"])
def test_whole_answers_that_nobody_reads_are_refused_before_they_are_made(path: str) -> None:
    size = 1 << 20
    with site(buffer_per_client=4 * size) as here:
        stored(here, ["x" * 65_536] * (size // 65_536))
        limits, budget = here.app.state.limits, here.app.state.budget
        wires = [unread(here.port, path) for _ in range(12)]
        try:
            refusals = 0
            deadline = time.monotonic() + 60
            # (More may be refused while they are counted.)
            while (
                refusals < 12 - 4 or limits._readers[RUN] != 12 - refusals
            ) and time.monotonic() < deadline:
                refusals = 0
                for wire in wires:
                    wire.setblocking(False)
                    try:
                        head = wire.recv(12, socket.MSG_PEEK)
                    except BlockingIOError:
                        continue
                    refusals += head.endswith(b"429")
                time.sleep(0.05)
            assert refusals >= 12 - 4
            assert limits._readers[RUN] == 12 - refusals, "the others are readers"
            (name,) = budget._waiting
            assert 0 < budget.waiting(name) <= 4 * size
        finally:
            for wire in wires:
                wire.close()
        while limits._readers[RUN] or budget._waiting:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert here.client.get(path).status_code == 200


def test_a_whole_answer_counts_as_a_reader() -> None:
    with site(readers_per_run=2) as here:
        stored(here, ["x" * 65_536] * 64)
        wires = [unread(here.port, f"/v1/runs/{RUN}") for _ in range(2)]
        try:
            deadline = time.monotonic() + 60
            while here.app.state.limits._readers[RUN] < 2:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            answer = here.client.get(f"/v1/runs/{RUN}")
            assert answer.status_code == 429
            assert answer.json()["error"]["limit"] == "readers_per_run"
        finally:
            for wire in wires:
                wire.close()


def test_what_a_slow_reader_of_a_large_event_has_waiting_is_counted() -> None:
    piece = "word " * 20_000
    with site(buffer_per_client=8 << 20) as here:
        stored(here, [piece] * 60)  # 6 MB
        path = f"/v1/responses/resp_{RUN}?stream=true"
        budget = here.app.state.budget
        first = unread(here.port, path)
        first.setblocking(True)
        try:
            # Read the deltas, and stop within the event that holds the whole text.
            seen = b""
            while b"response.output_item.done" not in seen:
                seen = seen[-100:] + first.recv(65536)
            deadline = time.monotonic() + 60
            while not budget._waiting:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            (name,) = budget._waiting
            waiting = budget.waiting(name)
            assert 1 << 20 < waiting <= 8 << 20
            # A second one finds no room for the same, and is cut off instead of held.
            second = unread(here.port, path)
            second.setblocking(True)
            second.settimeout(30)
            received = b""
            try:
                while data := second.recv(1 << 16):
                    received = received[-100:] + data
            except OSError:
                pass
            assert b"response.completed" not in received
            second.close()
        finally:
            first.close()
        while budget._waiting:
            assert time.monotonic() < deadline + 30
            time.sleep(0.02)


def test_json_in_turns_is_the_json() -> None:
    for value in ({}, {"a": 1}, {"a": [1, 2], "b\n": {"c": None}, "d": "é"}):
        for size in (0, 1 << 20):
            data = asyncio.run(json_in_turns(value, size))
            assert json.loads(data) == value


def test_an_account_has_room_for_one_large_thing_always() -> None:
    with site(buffer_per_client=100) as here:
        account = here.app.state.budget.account("somebody")
        account.take(1000)
        other = here.app.state.budget.account("somebody")
        with pytest.raises(BusyError):
            other.take(1)
        account.close()
        other.take(1)
