"""A client whose token ends gets a fresh one from its function, once, and misses no word."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, Literal

import pytest

from support.server import AS_A, KEYS, Site, site
from tokenwire.client import Client
from tokenwire.errors import ConfigError, NotAuthenticatedError
from tokenwire.events.fold import Fold

NUMBERS = "".join(f"{n} " for n in range(1, 91))


@pytest.fixture(scope="module")
def here() -> Iterator[Site]:
    # Connections are asked to come back so often that a token ends between two of them.
    with site(
        api_keys=KEYS, max_age=0.3, retry_ms=10, runs_per_principal=100, starts_burst=100
    ) as found:
        yield found


def token_of(here: Site, thread: str) -> str:
    body = {"scopes": ["write"]}
    answer = here.client.post(f"/v1/threads/{thread}/attach-tokens", json=body, headers=AS_A)
    return answer.json()["token"]


@pytest.mark.parametrize("transport", ["sse", "websocket"])
def test_a_token_that_ends_is_replaced_in_mid_flight(
    here: Site, transport: Literal["sse", "websocket"]
) -> None:
    thread = f"fresh-{transport}"
    first, second = token_of(here, thread), token_of(here, thread)
    tokens = iter([first, second])
    calls: list[str] = []

    async def supply() -> str:
        calls.append(next(tokens))
        return calls[-1]

    async def main() -> None:
        async with Client(here.url, api_key=supply, transport=transport) as client:
            run = await client.start("scenario:slow")
            state, count = Fold(), 0
            async for event in client.follow(run):
                state.apply(event)
                count += 1
                if count == 3:
                    await asyncio.to_thread(revoke, here, thread, first)
            assert state.text == NUMBERS
            assert state.seq == count
            # Of many that are refused at once, one asks.
            infos = await asyncio.gather(*(client.info(run) for _ in range(8)))
            assert {info.state for info in infos} == {"complete"}

    asyncio.run(main())
    assert calls == [first, second]


def revoke(here: Site, thread: str, token: str) -> None:
    path, key = f"/v1/threads/{thread}/attach-tokens", {"authorization": f"Bearer {token}"}
    assert here.client.delete(path, headers=key).status_code == 204


def test_a_function_without_another_token_is_asked_once_more(here: Site) -> None:
    calls: list[int] = []

    def same() -> str:
        calls.append(1)
        return "not-a-key-of-this-server"

    async def main() -> None:
        for key in (same, "not-a-key-of-this-server"):
            async with Client(here.url, api_key=key) as client:
                with pytest.raises(NotAuthenticatedError):
                    await client.start("scenario:text")
        bad: Any = lambda: None  # noqa: E731
        async with Client(here.url, api_key=bad) as client:
            with pytest.raises(ConfigError):
                await client.models()

    before = here.runs_started
    asyncio.run(main())
    assert len(calls) == 2
    assert here.runs_started == before
