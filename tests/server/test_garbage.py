"""What is over goes by itself: no cycles that wait for the collector, which pauses everybody."""

from __future__ import annotations

import gc
import itertools
import time
from typing import Any

import pytest

from support.server import Site, site
from tokenwire.server.process import collector
from tokenwire.server.process.collector import (
    IDLE_ASIDE,
    IDLE_SECONDS,
    MOST_ASIDE,
    PER_STREAM,
    Collector,
)

STREAMS = {
    "native": ("/v1/runs", {"prompt": "PROMPT"}),
    "chat": ("/v1/chat/completions", {"messages": [{"role": "user", "content": "PROMPT"}]}),
    "responses": ("/v1/responses", {"input": "PROMPT"}),
    "anthropic": (
        "/v1/messages",
        {"messages": [{"role": "user", "content": "PROMPT"}], "max_tokens": 99},
    ),
    "ui": (
        "/api/chat",
        {"messages": [{"id": "1", "role": "user", "parts": [{"type": "text", "text": "PROMPT"}]}]},
    ),
}
PROMPTS = [
    "scenario:text",
    "scenario:text?faults=cut-fin@900",
    "scenario:text?faults=status@500",
]
#: Words that come one by one differ on the lane, which is the native wire's.
CASES = [("native", "scenario:slow?rate=60"), *itertools.product(STREAMS, PROMPTS)]


def read(here: Site, wire: str, prompt: str, name: str) -> None:
    path, body = STREAMS[wire]
    text = repr(body).replace("'", '"').replace("PROMPT", prompt)
    extra = (
        b'"stream":true,"model":"demo",' if path.startswith("/v1/") and wire != "native" else b""
    )
    if wire == "ui":
        extra = b'"id":"%b",' % name.encode()
    content = b"{" + extra + text.encode()[1:]
    headers = {"accept": "text/event-stream", "content-type": "application/json"}
    with here.client.stream("POST", path, content=content, headers=headers) as answer:
        answer.read()


def settle(here: Site) -> None:
    until = time.monotonic() + 60
    while here.app.state.runs.owned or len(here.app.state.connections):
        assert time.monotonic() < until, "something is still open"
        time.sleep(0.02)


@pytest.mark.parametrize(("wire", "prompt"), CASES)
def test_a_stream_leaves_no_cycle(wire: str, prompt: str) -> None:
    with site() as here:
        read(here, wire, prompt, "first")  # what is made once is made
        settle(here)
        gc.collect()
        gc.disable()
        try:
            for number in range(2):
                read(here, wire, prompt, f"c{number}")
            settle(here)
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            names = sorted(map(name_of, gc.garbage))
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
    found = [
        name
        for name in names
        if name.startswith(("tokenwire.", "uvicorn.")) and ".simulator." not in name
    ]
    assert not found


def name_of(thing: object) -> str:
    return f"{type(thing).__module__}.{type(thing).__qualname__}"


# --- collections ----------------------------------------------------------------------------------


class FakeGC:
    """The module `gc`, without an effect."""

    def __init__(self) -> None:
        self.callbacks: list[Any] = []
        self.thresholds = (700, 10, 10)
        self.live, self.aside = 1000, 0
        self.whole = 0

    def get_threshold(self) -> tuple[int, int, int]:
        return self.thresholds

    def set_threshold(self, *thresholds: int) -> None:
        self.thresholds = thresholds  # type: ignore[assignment]

    def freeze(self) -> None:
        self.aside = self.live

    def unfreeze(self) -> None:
        self.aside = 0

    def collect(self) -> None:
        self.whole += 1

    def getallocatedblocks(self) -> int:
        """Of `sys`: what is not collected, and as much again."""
        return self.live + 3000

    def young(self, *, new: int) -> None:
        """So many more objects live, as collections of young ones see."""
        self.live += new
        young, times, _ = self.thresholds
        for _ in range(new // (young * times)):
            for phase in ("start", "stop"):
                for callback in self.callbacks:
                    callback(phase, {"generation": 1})


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeGC:
    found = FakeGC()
    monkeypatch.setattr(collector, "gc", found)
    monkeypatch.setattr(collector, "sys", found)
    return found


def test_what_survives_is_put_aside_and_looked_at_when_it_is_much(fake: FakeGC) -> None:
    now, streams = 1000.0, 3
    one = Collector(lambda: streams, clock=lambda: now)
    one._look_soon = lambda: None  # type: ignore[method-assign]
    one.start()
    assert fake.whole == 1
    assert fake.thresholds[2] > 100_000  # no whole collection by itself
    most = MOST_ASIDE + PER_STREAM * streams
    fake.young(new=most - 10_000)
    assert fake.aside == fake.live
    now += 10 * IDLE_SECONDS
    one.look()
    assert fake.whole == 1
    fake.young(new=30_000)
    one.look()
    assert fake.whole == 2
    # What is gone by itself does not count.
    fake.young(new=most + 30_000)
    fake.live = fake.aside = 2000
    one.look()
    assert fake.whole == 2
    one.stop()
    assert not fake.callbacks
    assert fake.thresholds == (700, 10, 10)


def test_an_idle_server_collects_a_little_and_not_often(fake: FakeGC) -> None:
    now, streams = 1000.0, 1
    one = Collector(lambda: streams, clock=lambda: now)
    one._look_soon = lambda: None  # type: ignore[method-assign]
    one.start()
    fake.young(new=IDLE_ASIDE + 20_000)
    streams = 0
    one.look()
    assert fake.whole == 1
    now += IDLE_SECONDS
    one.look()
    assert fake.whole == 2
    now += 2 * IDLE_SECONDS
    one.look()
    assert fake.whole == 2
