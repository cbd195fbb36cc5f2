"""A reader that comes back gets the same bytes, whether its encoder began with the run or with a
state that was kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.event_strategies import runs
from support.server import site
from tokenwire.errors import StoreUnavailableError
from tokenwire.events import model as m
from tokenwire.log.memory import MemoryStore
from tokenwire.relay.follow import Follower, open_follower
from tokenwire.relay.record import CHECK, Chain, cursor_of
from tokenwire.server.edge.connections import Connections
from tokenwire.server.edge.encoding import states as of_states
from tokenwire.server.edge.encoding.states import EncoderStates
from tokenwire.server.edge.respond import RunResponse
from tokenwire.wire.ag_ui.encoder import AGUIEncoder
from tokenwire.wire.ai_sdk.encoder import UIMessageEncoder
from tokenwire.wire.anthropic.encoder import AnthropicEncoder
from tokenwire.wire.catalogue import WIRES, encoder_for
from tokenwire.wire.native import NativeEncoder
from tokenwire.wire.openai.responses import OpenAIResponsesEncoder
from tokenwire.wire.own import OwnEncoder
from tokenwire.wire.place import Place

pytestmark = pytest.mark.anyio

RUN = "run-1234567890abcdef"
TOOLS = frozenset(f"tool_{n}" for n in range(100))

Make = Callable[[Place | None], Any]
MAKES: dict[str, Make] = {
    **{name: (lambda place, name=name: encoder_for(name, place)) for name in WIRES},
    "ui with waits": lambda place: UIMessageEncoder(message_id="m", place=place),
    "ag-ui with history": lambda place: AGUIEncoder(
        history=[{"id": "u", "role": "user", "content": "hi"}], place=place
    ),
    "anthropic with tools": lambda place: AnthropicEncoder(tools=TOOLS, place=place),
    "responses after 3": lambda place: OpenAIResponsesEncoder(starting_after=3, place=place),
}


async def stored(records: list[bytes]) -> MemoryStore:
    store = MemoryStore()
    await store.create(RUN, owner="o")
    await store.append(RUN, epoch=1, first=1, records=records, close="complete")
    return store


async def read(
    store: MemoryStore,
    make: Make,
    place: Place,
    states: EncoderStates | None,
    most: int = 512,
) -> tuple[bytes, int]:
    """What a reader at ``place`` receives, and how many records were read for it."""
    follower = await open_follower(store, RUN, place.after)
    follower._most = most
    encoder, skip = make(place), follower.after
    keeper = await states.begin(encoder, follower) if states is not None else None
    if states is None:
        follower.rewind()
    start = follower.after
    connections = Connections()
    response = RunResponse(
        connections, follower, encoder, run_id=RUN, skip=skip, keeper=keeper, preamble=b""
    )
    pieces: list[bytes] = []

    async def send(message: Any) -> None:
        pieces.append(message.get("body", b""))

    async def forever() -> Any:
        await asyncio.Event().wait()

    await response({"type": "http", "method": "GET"}, forever, send)
    await connections.aclose()
    return b"".join(pieces), follower.after - start


def long_run(count: int = 100) -> list[bytes]:
    events: list[m.Event] = [
        m.RunStart(run=RUN, model="x", time=0),
        m.StepStart(step=1, attempt=1, kind="model"),
        m.TextStart(part=0),
        *(m.TextDelta(part=0, text=f"word {number} ") for number in range(count)),
        m.TextEnd(part=0),
        m.StepEnd(step=1, status="complete", terminal_seen=True),
        m.RunEnd(outcome="complete"),
    ]
    for seq, event in enumerate(events, 1):
        event.seq = event.t = seq
    return Chain(RUN).seal_all(events)


def place_at(records: list[bytes], offset: int) -> Place:
    return Place(cursor=cursor_of(offset, records[offset - 1]), offset=offset)


@pytest.mark.parametrize("wire", MAKES)
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(runs(), st.data())
def test_any_run_from_any_places_in_any_order(wire, events, data):
    records, make = Chain(RUN).seal_all(events), MAKES[wire]
    places = []
    for offset in data.draw(st.lists(st.integers(1, len(records)), min_size=1, max_size=6)):
        cursor, frames = cursor_of(offset, records[offset - 1]), None
        if data.draw(st.booleans()):
            frames = data.draw(st.integers(0, 2))
        places.append(Place(cursor=cursor, offset=offset, frames=frames))
    every, most = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 9))

    async def scenario() -> None:
        store, states = await stored(records), EncoderStates(every=every)
        for place in places:
            expected, _ = await read(store, make, place, None, most)
            assert (await read(store, make, place, states, most))[0] == expected

    asyncio.run(scenario())


@pytest.mark.parametrize("wire", WIRES)
async def test_whoever_comes_back_has_little_to_skip(wire):
    records, states = long_run(), EncoderStates(every=10)
    store, make = await stored(records), MAKES[wire]
    first, cold = await read(store, make, place_at(records, 95), states, most=5)
    again, warm = await read(store, make, place_at(records, 95), states, most=5)
    assert again == first
    assert cold == len(records)
    assert warm <= len(records) - 95 + 10
    # Nearer to the start, and further on, from the nearest state.
    for offset in (41, 99):
        expected, _ = await read(store, make, place_at(records, offset), None)
        got, count = await read(store, make, place_at(records, offset), states, most=5)
        assert got == expected
        assert count <= len(records) - offset + 15


async def test_the_newest_place_is_taken_whenever_it_was_kept():
    records, states = long_run(), EncoderStates(every=10)
    store, make = await stored(records), MAKES["openai-responses"]
    await read(store, make, place_at(records, 90), states, most=20)
    await read(store, make, place_at(records, 19), states, most=15)
    (entry,) = states._entries.values()
    assert list(entry.states) != sorted(entry.states)
    place = place_at(records, 95)
    got, count = await read(store, make, place, states)
    assert got == (await read(store, make, place, None))[0]
    assert count <= len(records) - 80


async def test_other_options_have_states_of_their_own():
    records, states = long_run(), EncoderStates(every=10)
    store, place = await stored(records), place_at(long_run(), 95)
    for ids in ("a", "b"):
        make: Make = lambda _, i=ids: UIMessageEncoder(message_id=i)  # noqa: E731
        _, count = await read(store, make, place, states, 5)
        assert count == len(records)
    _, count = await read(store, lambda p: UIMessageEncoder(message_id="a"), place, states, 5)
    assert count < len(records)


async def test_a_branch_that_was_lost_gives_no_state():
    records, states = long_run(), EncoderStates(every=10)
    make, place = MAKES["ui"], place_at(records, 95)
    await read(await stored(records), make, place, states, most=10)
    assert len(states) > 0
    events = [m.RunStart(run=RUN, model="another", time=0), m.StepStart(step=1, attempt=1)]
    events += [m.TextStart(part=0), *(m.TextDelta(part=0, text="other ") for _ in range(120))]
    for seq, event in enumerate(events, 1):
        event.seq = event.t = seq
    others = Chain(RUN).seal_all([*events, m.RunEnd(outcome="cancelled", seq=124, t=124)])
    store = await stored(others)
    expected, _ = await read(store, make, place_at(others, 99), None)
    got, count = await read(store, make, place_at(others, 99), states, most=10)
    assert got == expected
    assert count == len(others)
    _, again = await read(store, make, place_at(others, 99), states, most=10)
    assert again < len(others)


async def test_what_cannot_be_copied_is_read_from_the_start():
    records, states = long_run(), EncoderStates(every=10)
    store, place = await stored(records), place_at(records, 95)

    class Ids:
        """No copy can be made of what holds a function of this test's."""

        def __init__(self) -> None:
            self.function = lambda: None

        def __contains__(self, name: object) -> bool:
            return True

    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    others: list[Make] = [
        lambda p: UIMessageEncoder(resolved_ids=Ids(), place=p),
        lambda p: AGUIEncoder(history=[{"role": "user", "content": deep}], place=p),
        lambda p: OwnEncoder(NativeEncoder(), "own"),
    ]
    for make in others:
        follower = await open_follower(store, RUN, place.after)
        assert await states.begin(make(None), follower) is None
        assert follower.after == 0
        follower.close()
    assert len(states) == 0


async def test_a_short_run_costs_no_state():
    records, states = long_run(), EncoderStates()
    store = await stored(records)
    got, _ = await read(store, MAKES["ui"], place_at(records, 95), states)
    assert (got, len(states)) == (
        (await read(store, MAKES["ui"], place_at(records, 95), None))[0],
        0,
    )


def kept_of(states: EncoderStates, run: str, offsets: range, size: int) -> None:
    for offset in offsets:
        states.keep((run, b"options"), offset, b"check", bytes(size))


async def test_what_is_kept_is_bounded(monkeypatch):
    monkeypatch.setattr(of_states, "_MOST_STATES", 3)
    monkeypatch.setattr(of_states, "_ALL_BYTES", 1000)
    states = EncoderStates()
    kept_of(states, "a", range(1, 10), 100)
    assert len(states) == 3
    assert sorted(states._entries["a", b"options"].states) == [7, 8, 9]
    kept_of(states, "b", range(1, 4), 300)
    assert set(states._entries) == {("b", b"options")}
    assert states._size == 900
    # One that comes again takes no more room.
    kept_of(states, "b", range(1, 4), 300)
    assert states._size == 900


async def test_what_nobody_uses_goes(monkeypatch):
    monkeypatch.setattr(of_states, "_SECONDS", 0.0)
    monkeypatch.setattr(of_states, "_LOOK_SECONDS", 0.0)
    states = EncoderStates()
    kept_of(states, "a", range(1, 4), 100)
    for _ in range(5):
        await asyncio.sleep(0.001)
    assert (len(states), states._size, states._timer) == (0, 0, None)


async def test_a_state_that_is_too_large_is_not_entries(monkeypatch):
    monkeypatch.setattr(of_states, "_MOST_BYTES", 700)
    records, states = long_run(), EncoderStates(every=10)
    store = await stored(records)
    make, place = MAKES["openai-responses"], place_at(records, 95)
    expected, _ = await read(store, make, place, None)
    assert (await read(store, make, place, states, most=5))[0] == expected
    assert all(len(d) <= 700 for k in states._entries.values() for _, d in k.states.values())


async def test_followers_begin_only_behind_a_record_that_is_there():
    records = long_run()
    follower: Follower = await open_follower(await stored(records), RUN, None)
    assert not await follower.rewind_to(5, b"another check")
    assert not await follower.rewind_to(len(records) - 1, b"x")
    assert follower.after == 0
    assert await follower.rewind_to(5, records[4][:CHECK])
    assert follower.after == 5
    follower.close()


# --- runs that are erased -------------------------------------------------------------------------


async def test_what_another_process_erased_goes_with_the_next_look(monkeypatch):
    monkeypatch.setattr(of_states, "_LOOK_SECONDS", 0.0)
    monkeypatch.setattr(of_states, "_MOST_LOOKED", 2)
    store, states = MemoryStore(), EncoderStates()
    names = [f"run_{number:016}" for number in range(7)]
    for name in names:
        await store.create(name, meta=b"{}", owner="me", lease=30.0)
        kept_of(states, name, range(1, 3), 100)
    await store.delete(names[3])
    states.store = store
    kept_of(states, "run_that_never_was", range(1, 3), 100)
    there = {(name, b"options") for name in names} - {(names[3], b"options")}
    async with asyncio.timeout(60):
        while set(states._entries) != there:
            await asyncio.sleep(0.001)
    await states.stop()
    assert (len(states), states._size, states._timer) == (0, 0, None)


async def test_a_store_that_does_not_answer_erases_nothing(monkeypatch):
    monkeypatch.setattr(of_states, "_LOOK_SECONDS", 0.0)
    looked = asyncio.Event()

    class Silent(MemoryStore):
        async def describe(self, log: str) -> Any:
            looked.set()
            raise StoreUnavailableError("no answer")

    states = EncoderStates()
    states.store = Silent()
    kept_of(states, "a", range(1, 3), 100)
    async with asyncio.timeout(60):
        await looked.wait()
    await asyncio.sleep(0.01)
    assert len(states) == 2
    await states.stop()


@pytest.mark.parametrize("how", ["run", "thread", "retention"])
def test_an_erased_run_leaves_no_state_in_this_process(how):
    with site() as here:
        states = here.app.state.encoder_states
        states.store = None  # only what this process does itself
        run = here.start("scenario:text", thread="t")
        here.frames(f"/v1/runs/{run}/events")

        async def keep() -> None:
            kept_of(states, run, range(1, 3), 100)
            kept_of(states, "another", range(1, 3), 100)

        asyncio.run(keep())
        if how == "retention":
            asyncio.run(states.forget_expired([run], []))
        else:
            path = f"/v1/runs/{run}" if how == "run" else "/v1/threads/t"
            assert here.client.delete(path).status_code == 204
        assert {name for name, _ in states._entries} == {"another"}
