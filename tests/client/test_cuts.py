"""Cut the byte stream anywhere: the same events, exactly once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from support.bad_network import CuttingProxy
from support.server import Site, site
from tokenwire.client import Client, Patience
from tokenwire.errors import ServerUnavailableError
from tokenwire.events.codec import AnyEvent
from tokenwire.events.model import RunEnd, TextDelta

#: No waits that a test would have to sit through.
QUICK = Patience(base=0.001, cap=0.002, connect=60)


@pytest.fixture(scope="module")
def here() -> Iterator[Site]:
    with site() as found:
        yield found


async def all_events(url: str, run: str, transport: str = "sse") -> list[AnyEvent]:
    async with Client(url, transport=transport, patience=QUICK) as client:
        return [event async for event in client.follow(run)]


async def cut_at(here: Site, run: str, at: int, how: str, transport: str) -> list[AnyEvent]:
    """Read through a proxy that cuts the first connection after ``at`` bytes."""
    async with CuttingProxy(here.port, lambda n: at if n == 0 else None, how) as proxy:
        found = await asyncio.wait_for(all_events(proxy.url, run, transport), 60)
        assert 1 <= len(proxy.brought) <= 2
        return found


async def length_of(here: Site, run: str, transport: str) -> int:
    async with CuttingProxy(here.port, lambda n: None) as proxy:
        await all_events(proxy.url, run, transport)
        return proxy.brought[0]


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("transport", "how", "step"),
    # A reset loses what a clean end loses: every second byte is enough of it.
    [("sse", "fin", 1), ("sse", "rst", 2), ("websocket", "fin", 1), ("websocket", "rst", 2)],
)
def test_cut_at_every_byte(here: Site, transport: str, how: str, step: int) -> None:
    run = here.start("scenario:length")  # a short one

    async def main() -> None:
        whole = await all_events(here.url, run)
        assert isinstance(whole[-1], RunEnd)
        assert sum(isinstance(event, TextDelta) for event in whole) >= 1
        length = await length_of(here, run, transport)
        assert length > 500
        places = range(0, length + 1, step)
        most = asyncio.Semaphore(8)

        async def one(at: int) -> None:
            async with most:
                assert await cut_at(here, run, at, how, transport) == whole, f"cut at {at}"

        await asyncio.gather(*[one(at) for at in places])

    asyncio.run(main())


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("transport", ["sse", "websocket"])
def test_every_connection_is_cut_while_the_run_goes_on(
    here: Site, how: str, transport: str
) -> None:
    """Each connection brings a little more than its head, of a run that is being written."""

    async def main() -> None:
        async with CuttingProxy(here.port, lambda n: 1500 + 37 * n, how) as proxy:
            run = here.start("scenario:text?rate=400")
            found = await asyncio.wait_for(all_events(proxy.url, run, transport), 120)
            assert len(proxy.brought) > 2
        assert found == await all_events(here.url, run)

    asyncio.run(main())


def test_a_cursor_goes_on_where_it_stopped(here: Site) -> None:
    run = here.start("scenario:text")

    async def main() -> None:
        whole = await all_events(here.url, run)
        async with Client(here.url, patience=QUICK) as client:
            for stop in range(1, len(whole)):
                found: list[AnyEvent] = []
                async with client.follow(run) as first:
                    async for event in first:
                        found.append(event)
                        if len(found) == stop:
                            break
                found += [event async for event in client.follow(run, after=first.cursor)]
                assert found == whole

    asyncio.run(main())


def test_cuts_are_told_and_patience_ends(here: Site) -> None:
    run = here.start("scenario:text")

    async def main() -> None:
        told: list[float] = []
        # The first connection alone may take a slow machine longer than a short patience.
        for give_up in (0.05, 0.5, 5.0, 50.0):
            impatient = Patience(base=0.001, cap=0.002, connect=60, give_up=give_up)
            async with CuttingProxy(here.port, lambda n: 40) as proxy:
                async with Client(proxy.url, patience=impatient) as client:
                    with pytest.raises(ServerUnavailableError):
                        await client.follow(run, on_cut=lambda _, wait: told.append(wait)).text()
                assert len(proxy.brought) == len(told) + 1
            if told:
                break
        assert told

    asyncio.run(main())


@pytest.mark.parametrize("transport", ["sse", "websocket"])
def test_a_reader_that_has_it_all_is_not_sent_round_and_round(here: Site, transport: str) -> None:
    run = here.start("hi")

    async def main() -> None:
        async with Client(here.url, transport=transport, patience=QUICK) as client:
            follow = client.follow(run)
            whole = [event async for event in follow]
            assert isinstance(whole[-1], RunEnd)
            again = client.follow(run, after=follow.cursor)
            assert await asyncio.wait_for(anext(again, None), 60) is None

    asyncio.run(main())
