"""The Python client over a network that is slow or silent, or breaks, repeats and swaps things."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from support.bad_network import ANY_WIRE, MODES, BadNetwork
from support.server import Site, site
from tokenwire.client import Client, Patience
from tokenwire.events.codec import AnyEvent
from tokenwire.events.model import RunEnd

CALM = Patience(base=0.01, cap=0.05, silence=60, connect=60)
#: Who stands still for so long takes the network for silent, or for away, and asks again.
QUICK = Patience(base=0.01, cap=0.05, silence=1.0, connect=3.0)


@pytest.fixture(scope="module")
def here() -> Iterator[Site]:
    with site(heartbeat=0.3) as made:
        yield made


async def all_events(
    url: str, run: str, transport: Any, patience: Patience = CALM
) -> tuple[list[AnyEvent], int]:
    cuts: list[Any] = []
    async with Client(url, transport=transport, patience=patience) as client:
        reader = client.follow(run, on_cut=lambda error, wait: cuts.append(error))
        return [event async for event in reader], len(cuts)


#: Where it happens: at this byte (of a slice: so many at a time), or at this event.
PLACES = {"latency": [0], "slice": [1, 7], "hole": [0, 40, 1500], "swap": [1, 5, 8]}
CASES = [
    (transport, mode, at)
    for mode in MODES
    for at in PLACES.get(mode, [2, 5, 9])
    for transport in ("sse", "websocket")
    if transport == "sse" or mode in ANY_WIRE
]


@pytest.mark.parametrize(("transport", "mode", "at"), CASES)
def test_every_event_comes_once_and_in_order(
    here: Site, transport: str, mode: str, at: int
) -> None:
    run = here.start("scenario:text")
    patience = QUICK if mode == "hole" else CALM

    async def main() -> None:
        whole, _ = await all_events(here.url, run, transport)
        assert isinstance(whole[-1], RunEnd)
        async with BadNetwork(here.port, mode, at=at) as network:
            found, cuts = await asyncio.wait_for(
                all_events(network.url, run, transport, patience), 100
            )
        assert found == whole
        # Repeated events are dropped; what is missing, broken or silent is asked for again.
        if mode == "hole":
            assert cuts > 0
        else:
            assert cuts == (mode in ("corrupt", "swap"))

    asyncio.run(main())


@pytest.mark.parametrize("mode", ["latency", "slice", "hole", "corrupt"])
def test_while_the_model_still_speaks(here: Site, mode: str) -> None:
    async def main() -> None:
        async with BadNetwork(here.port, mode, at=600 if mode == "hole" else 8) as network:
            run = here.start("scenario:text?rate=400")
            patience = QUICK if mode == "hole" else CALM
            found, _ = await asyncio.wait_for(all_events(network.url, run, "sse", patience), 100)
        assert found == (await all_events(here.url, run, "sse"))[0]

    asyncio.run(main())
