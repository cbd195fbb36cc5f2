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
    LEAST_YOUNG,
    LONG,
    MOST_ASIDE,
    PER_STREAM,
    YOUNG,
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


#: What a collection took for each object of a crowd, on a machine whose caches were cold.
SECONDS_OF_AN_OBJECT = 3e-7


class FakeGC:
    """The module `gc`, without an effect."""

    def __init__(self) -> None:
        self.callbacks: list[Any] = []
        self.thresholds: tuple[int, ...] = (700, 10, 10)
        self.live, self.aside = 1000, 0
        self.whole = 0
        #: New objects that live, of those as the interpreter counts them.
        self.hidden = 1
        #: Seconds that collections took, and the longest of them.
        self.cpu = self.longest = 0.0

    def get_threshold(self) -> tuple[int, ...]:
        return self.thresholds

    def set_threshold(self, *thresholds: int) -> None:
        self.thresholds = thresholds

    def freeze(self) -> None:
        self.aside = self.live

    def unfreeze(self) -> None:
        self.aside = 0

    def collect(self) -> None:
        self.whole += 1

    def get_objects(self, *, generation: int) -> range:
        assert generation == 2
        return range(self.live - self.aside)

    def getallocatedblocks(self) -> int:
        """Of `sys`: what is not collected, and as much again."""
        return self.live + 3000

    def young(self, *, new: int) -> None:
        """So many more objects live, as collections of young ones see."""
        end, survivors, times = self.live + new, 0, 0
        while self.live < end:
            size = self.hidden * self.thresholds[0]
            self.live += size
            survivors += size
            generation = int(times > self.thresholds[1])
            times = 0 if generation else times + 1
            self.looked(generation, survivors if generation else size)
            survivors = 0 if generation else survivors

    def looked(self, generation: int, objects: int) -> None:
        """A collection of so many objects."""
        for phase in ("start", "stop"):
            for callback in self.callbacks:
                callback(phase, {"generation": generation})
            self.cpu += objects * SECONDS_OF_AN_OBJECT
        self.longest = max(self.longest, objects * SECONDS_OF_AN_OBJECT)


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
    assert fake.aside >= fake.live - 5 * YOUNG
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


@pytest.mark.parametrize("hidden", [1, 7, 30])
def test_collections_of_a_crowd_become_short_whatever_the_interpreter_counts(
    fake: FakeGC, hidden: int
) -> None:
    one = Collector(lambda: 1000, cpu=lambda: fake.cpu)
    one._look_soon = lambda: None  # type: ignore[method-assign]
    one.start()
    fake.hidden = hidden
    fake.young(new=hidden * YOUNG * 10)  # what they cost has been seen
    fake.longest = 0.0
    fake.young(new=hidden * YOUNG * 100)
    assert fake.longest <= LONG
    assert fake.thresholds[0] >= LEAST_YOUNG
    fake.hidden = 0
    fake.live += 1  # nothing survives any more: small ones would only cost
    for _ in range(100):
        fake.looked(0, 10)
    assert fake.thresholds[0] == YOUNG


def test_all_that_survives_a_crowd_counts_as_put_aside(fake: FakeGC) -> None:
    """Not only what the interpreter counts of it: else garbage is found seven times later."""
    one = Collector(lambda: 0, clock=lambda: 1000.0, cpu=lambda: fake.cpu)
    one._look_soon = lambda: None  # type: ignore[method-assign]
    one.start()
    fake.hidden = 7
    fake.young(new=MOST_ASIDE + 100_000)
    one.look()
    assert fake.whole == 2


@pytest.mark.parametrize("crowd", [600, 2000])
def test_a_collection_within_a_crowd_looks_at_few_objects(crowd: int) -> None:
    """With the interpreter's own collector: requests are freed while starts make what lives."""
    sizes, cpu = list[int](), 0.0

    def count(phase: str, info: dict[str, Any]) -> None:
        nonlocal cpu
        if phase == "start":
            generations = range(info["generation"] + 1)
            size = sum(len(gc.get_objects(generation=each)) for each in generations)
            sizes.append(size)
            began.append(cpu)
        else:
            cpu = began.pop() + sizes[-1] * SECONDS_OF_AN_OBJECT

    began = list[float]()
    one = Collector(lambda: 1000, cpu=lambda: cpu)
    one._look_soon = lambda: None  # type: ignore[method-assign]
    one.start()
    gc.callbacks.insert(0, count)
    try:
        requests = [[[0] for _ in range(60)] for _ in range(crowd)]
        sizes.clear()
        streams = list[object]()
        while requests:
            streams.append([[0] for _ in range(65)])
            requests.pop()
        assert len(sizes) > 8
        # The first one looks at what came before anything was known.
        assert max(sizes[8:]) * SECONDS_OF_AN_OBJECT <= LONG
    finally:
        gc.callbacks.remove(count)
        one.stop()
        gc.unfreeze()
