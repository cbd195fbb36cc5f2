"""A ticket opens one request of all workers of a store, also after a restart."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.redis import BINARIES, redis_server
from tokenwire.errors import NotAuthenticatedError
from tokenwire.relay import Store, open_store
from tokenwire.server.edge.auth import Auth, Identity
from tokenwire.server.edge.sessions import Sessions
from tokenwire.server.tokens import tokens as tokens_module
from tokenwire.server.tokens.tokens import Target, Tokens

REDIS = [pytest.param(name, marks=pytest.mark.redis) for name in BINARIES]


@pytest.fixture(params=["sqlite", *REDIS])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:{tmp_path / 'runs.db'}"
        return
    with redis_server(name=request.param) as server:
        yield server.url


async def worker(url: str) -> tuple[Store, Tokens]:
    store = open_store(url)
    await store.start()
    auth = Auth()
    sessions = Sessions(auth)
    await sessions.open(store)
    tokens = Tokens(auth, sessions)
    await tokens.open(store)
    return store, tokens


async def redeemed(tokens: Tokens, ticket: str) -> bool:
    try:
        return (await tokens.redeem(ticket)).principal == "ann"
    except NotAuthenticatedError:
        return False


def test_one_of_all_workers_redeems_a_ticket(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ann, target = Identity("ann", "host"), Target("thread", "t")

    async def main() -> None:
        workers = [await worker(url) for _ in range(2)]
        tickets = [(await workers[0][1].issue(ann, target, is_ticket=True))[0] for _ in range(20)]
        for ticket in tickets:
            winners = await asyncio.gather(
                *(redeemed(tokens, ticket) for _, tokens in workers for _ in range(3))
            )
            assert sum(winners) == 1
        token, grant = await workers[0][1].issue(ann, target)
        assert (await workers[1][1].check(token)).grant == grant
        await workers[1][1].revoke("thread", "ann", "t")
        with pytest.raises(NotAuthenticatedError):
            await workers[0][1].check(token)
        later, _ = await workers[0][1].issue(ann, target)
        unused, _ = await workers[0][1].issue(ann, target, is_ticket=True)
        for store, _ in workers:
            await store.close()
        store, tokens = await worker(url)  # a restart
        assert not await redeemed(tokens, tickets[0])
        with pytest.raises(NotAuthenticatedError):
            await tokens.check(token)
        assert (await tokens.check(later)).principal == "ann"
        assert await redeemed(tokens, unused)
        # What only concerns tokens that have ended goes, and nothing comes back by that.
        kinds = ("ticket-used", "token-generation")
        assert [await store.count_documents(kind) for kind in kinds] == [21, 1]
        real = tokens_module.time.time
        monkeypatch.setattr(tokens_module.time, "time", lambda: real() + 3600)
        await tokens.sweep()
        assert [await store.count_documents(kind) for kind in kinds] == [0, 1]
        assert not await redeemed(tokens, tickets[0])
        monkeypatch.setattr(tokens_module.time, "time", lambda: real() + 90_000)
        await tokens.sweep()
        assert await store.count_documents("token-generation") == 0
        await store.close()

    asyncio.run(main())
