"""A run in PostgreSQL after a failover to a standby that was behind: what its mailbox and its log
have lost. Real servers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncIterator, Iterator

import pytest

from support.postgres import PostgresServer, postgres_server
from support.postgres_cases import through
from support.raw_provider import HEAD, chunked, raw_provider
from support.redis_cases import Proxy, until
from support.spine import QUICK, OneModel, relay, request_of, run_async, simulator
from tokenwire.errors import NotFoundError
from tokenwire.events import model as m
from tokenwire.log.open import open_store
from tokenwire.relay.replay import read_run
from tokenwire.relay.runs import Runs
from tokenwire.tools.registry import tool

pytestmark = pytest.mark.postgres


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    with postgres_server(synchronous_commit="on") as made:
        yield made


class Failover:
    """A server behind a proxy, and a standby of it."""

    def __init__(self, server: PostgresServer, proxy: Proxy) -> None:
        self._server, self._proxy = server, proxy
        self._standby = server.standby()
        self.url = through(proxy.port, f"{server.url}?schema=t{secrets.token_hex(4)}")

    async def detach(self) -> None:
        """From here on, all is lost."""
        await until(lambda: asyncio.to_thread(self._server.caught_up, self._standby), seconds=60)
        self._standby.sql("ALTER SYSTEM SET primary_conninfo = ''")
        self._standby.sql("SELECT pg_reload_conf()")
        query = "SELECT count(*) FROM pg_stat_wal_receiver"
        await until(lambda: self._standby.sql(query) == "0", seconds=60)

    async def happen(self) -> None:
        await asyncio.to_thread(self._standby.sql, "SELECT pg_promote()")
        self._proxy.target = self._standby.port
        self._proxy.cut()

    def stop(self) -> None:
        self._standby.stop()


@contextlib.asynccontextmanager
async def failover_of(server: PostgresServer) -> AsyncIterator[Failover]:
    async with Proxy(server.port) as proxy:
        failover = Failover(server, proxy)
        try:
            yield failover
        finally:
            failover.stop()


def _said(text: str) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return chunked(b"data: %b\n\n" % json.dumps({"id": "r", "choices": [choice]}).encode())


@pytest.mark.parametrize("lost", [1, 3])
def test_a_cancel_has_its_effect_behind_commands_that_were_lost(
    server: PostgresServer, lost: int
) -> None:
    """The run has read three; the standby has none or two of them, so that the cancel is its first
    or third one."""

    async def main() -> None:
        async def answer(_: int, writer: asyncio.StreamWriter) -> None:
            writer.write(HEAD)
            writer.write(_said("word "))
            await asyncio.Event().wait()

        async with failover_of(server) as failover, raw_provider(answer) as provider:
            runs = Runs(open_store(failover.url), registry=OneModel(provider.url), retry=QUICK)
            await runs.open()
            run = (await runs.start(request_of("Hi"), model="m0")).id
            async with asyncio.timeout(60):
                await until(lambda: runs.owned[run].producer.tail >= 3)
                owned = runs.owned[run]
                for number in range(3):
                    if number == 3 - lost:
                        await until(lambda: owned.seen_commands == 3 - lost)
                        await failover.detach()
                    await runs.steer(run, f"t{number}", "Shorter")
                await until(lambda: owned.seen_commands == 3)
                await failover.happen()
                await runs.steer(run, "t3", "More")
                await until(lambda: owned.seen_commands == 4)
                await runs.cancel(run)
                await owned.task
            assert (await runs.store.describe(run)).closed == "cancelled"
            events = (await read_run(runs.store, run)).events()
            assert sum(isinstance(event, m.TextDelta) for event in events) == 1
            assert [s.id for s in owned.inbox.steers or []] == ["t0", "t1", "t2", "t3"]
            await runs.aclose()

    run_async(main())


@tool(needs_approval=True)
def delete_file(path: str) -> str:
    """Delete."""
    return "gone"


def test_a_question_that_was_lost_is_written_again_while_the_run_waits(
    server: PostgresServer,
) -> None:
    """The run has nothing to append, so that no append finds out."""

    async def main() -> None:
        async with failover_of(server) as failover, simulator() as model:
            log = open_store(failover.url)
            async with relay(model, log=log, tools=[delete_file], lease=3.0) as runs:
                await failover.detach()
                run = (await runs.start(request_of("scenario:approval"), model="m0")).id

                async def waiting() -> list[str]:
                    return (await runs.fold(run)).waiting

                [approval] = await until(waiting)
                tail = runs.owned[run].producer.tail
                await failover.happen()
                async with relay(model, log=open_store(failover.url)) as door:

                    async def is_back() -> bool:
                        with contextlib.suppress(NotFoundError):
                            return (await door.store.describe(run)).tail == tail
                        return False

                    await until(is_back, seconds=30)
                    owned = runs.owned[run]
                    await door.approve(run, approval, approved=True)
                    await owned.task
                    fold = await door.fold(run)
                assert [call.approved for call in fold.tools.values()] == [True]

    run_async(main())
