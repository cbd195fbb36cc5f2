"""An `on_end` in the transaction that ends its run, over an application's pool or engine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from support.postgres import PostgresServer, postgres_server
from support.spine import request_of
from tokenwire.errors import ConfigError
from tokenwire.events.codec import decode
from tokenwire.events.model import RunEnd
from tokenwire.relay.description import Remote, RunMeta
from tokenwire.relay.outbox import EndedRun
from tokenwire.relay.produce.contract import OnEndError
from tokenwire.relay.remote.runs import RemoteRuns
from tokenwire.relay.remote.state import Finish
from tokenwire.relay.upkeep import closing
from tokenwire.server import Live
from tokenwire.server.settings import Settings

pytestmark = pytest.mark.postgres


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres_server() as made:
        yield made


@pytest.fixture
def names(server: PostgresServer) -> tuple[str, str]:
    """A schema for the runs, and a table of the application."""
    suffix = secrets.token_hex(4)
    server.sql(f"CREATE TABLE message_{suffix} (run text PRIMARY KEY, words text)")
    return f"t{suffix}", f"message_{suffix}"


@pytest.fixture(autouse=True)
def _all_the_time_that_a_busy_machine_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closing, "SECONDS", 60.0)


def count(server: PostgresServer, table: str) -> str:
    return server.sql(f"SELECT count(*) FROM {table}")


@asynccontextmanager
async def sharing(server: PostgresServer, schema: str, on_end: Any) -> AsyncIterator[Live]:
    pool = await asyncpg.create_pool(server.url, min_size=1, max_size=6)
    async with Live(
        f"postgresql:?schema={schema}", pool=pool, models="demo", on_end=on_end
    ) as live:
        yield live
    assert not pool.is_closing(), "the pool is the application's"
    await asyncio.wait_for(pool.close(), 30)


async def begin(live: Live, prompt: str) -> str:
    return (await live.runs.start(request_of(prompt), model="demo")).id


async def ended(live: Live, prompt: str) -> tuple[str, RunEnd]:
    """How a run ends, as a reader hears it."""
    async with asyncio.timeout(60):
        run = await begin(live, prompt)
        follower = await live.runs.follow(run)
        events: list[Any] = []
        while not events or events[-1].type != "run-end":
            batch = await follower.next()
            assert batch is not None
            events += [decode(data) for _, data in batch.items()]
        follower.close()
        assert [event.type for event in events].count("run-end") == 1
        return run, events[-1]


@pytest.mark.parametrize("pooled", ["asyncpg", "sqlalchemy"])
def test_message_and_run_are_there_together(
    server: PostgresServer, names: tuple[str, str], pooled: str
) -> None:
    schema, table = names
    seen: list[EndedRun] = []

    async def on_end(run: EndedRun, connection: Any) -> None:
        seen.append(run)
        open_runs = f"SELECT count(*) FROM {schema}.head WHERE closed IS NULL"
        if pooled == "asyncpg":
            await connection.execute(f"INSERT INTO {table} VALUES ($1, $2)", run.run, run.outcome)
        else:
            row = {"run": run.run, "words": run.outcome}
            await connection.execute(text(f"INSERT INTO {table} VALUES (:run, :words)"), row)
        # Others see neither yet.
        assert await asyncio.to_thread(server.sql, open_runs) == "1"
        assert await asyncio.to_thread(count, server, table) == "0"

    async def main() -> None:
        if pooled == "asyncpg":
            async with sharing(server, schema, on_end) as live:
                run, last = await ended(live, "Hello")
        else:
            address = server.url.replace("postgresql://", "postgresql+asyncpg://")
            engine = create_async_engine(address)
            options = f"postgresql:?schema={schema}"
            async with Live(options, pool=engine, models="demo", on_end=on_end) as live:
                run, last = await ended(live, "Hello")
            await engine.dispose()
        assert last.outcome == "complete"
        assert server.sql(f"SELECT run, words FROM {table}") == f"{run}|complete"
        [one] = seen
        assert (one.run, one.outcome) == (run, "complete")
        assert one.message.text

    asyncio.run(main())


@pytest.mark.parametrize("failures", [1, 2, 3])
def test_a_failure_is_rolled_back_and_retried_then_the_run_ends_as_an_error(
    server: PostgresServer,
    names: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
    failures: int,
) -> None:
    schema, table = names
    calls = 0
    monkeypatch.setattr(closing, "PAUSE", 0.01)

    async def on_end(run: EndedRun, connection: Any) -> None:
        nonlocal calls
        calls += 1
        await connection.execute(f"INSERT INTO {table} VALUES ($1, $2)", run.run, str(calls))
        if calls <= failures:
            # A mistake in its own statement, which is no failure of the store.
            await connection.execute(f"INSERT INTO {table} VALUES ($1, $2)", run.run, "again")

    async def main() -> None:
        async with sharing(server, schema, on_end) as live:
            run, last = await ended(live, "Hello")
            assert calls == min(failures + 1, closing.TRIES)
            if failures < closing.TRIES:
                assert last.outcome == "complete"
                assert server.sql(f"SELECT words FROM {table}") == str(calls)
            else:
                assert (last.outcome, last.reason) == ("error", "on_end_failed")
                assert count(server, table) == "0"
            assert server.sql(f"SELECT closed FROM {schema}.head") == last.outcome
            assert (await live.runs.info(run)).state == last.outcome

    asyncio.run(main())


def test_a_function_that_hangs_is_stopped(
    server: PostgresServer, names: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    schema, table = names
    monkeypatch.setattr(closing, "SECONDS", 0.2)
    monkeypatch.setattr(closing, "PAUSE", 0.01)

    async def on_end(run: EndedRun, connection: Any) -> None:
        await connection.execute(f"INSERT INTO {table} VALUES ($1, '')", run.run)
        await asyncio.sleep(3600)

    async def main() -> None:
        async with sharing(server, schema, on_end) as live:
            _, last = await ended(live, "Hello")
            assert (last.outcome, last.reason) == ("error", "on_end_failed")
            assert count(server, table) == "0"

    asyncio.run(main())


WAYS = ["cancelled", "expired", "remote"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("fails", [False, True])
def test_every_way_to_end_a_run_is_one_with_the_function(
    server: PostgresServer,
    names: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
    way: str,
    fails: bool,
) -> None:
    """A cancel, an end that nobody was at work for, and that of a producer outside."""
    schema, table = names
    monkeypatch.setattr(closing, "PAUSE", 0.01)

    async def on_end(run: EndedRun, connection: Any) -> None:
        statement = f"INSERT INTO {table} VALUES ($1, $2)"
        await connection.execute(statement, run.run, f"{run.outcome} {run.message.text}".strip())
        if fails:
            raise ValueError("not today")

    async def finish(live: Live) -> str:
        if way == "remote":
            remote = RemoteRuns(live.runs)
            meta = RunMeta(model="outside", request=request_of("Hello"), remote=Remote())
            state, _ = await remote.start("run-of-a-producer", meta, lease=60, key=None)
            with contextlib.suppress(OnEndError):
                await remote.finish(state.run, Finish(outcome="complete"), epoch=1, first=2)
            return state.run
        run = await begin(live, "scenario:slow")
        if way == "cancelled":
            await live.runs.cancel(run)
        else:
            worker: Any = live.runs.worker
            owned = worker.owned[run]
            await owned.stop()
            await worker._end(owned, "expired")
        return run

    async def main() -> None:
        async with sharing(server, schema, on_end) as live:
            run = await finish(live)
            async with asyncio.timeout(60):
                while (state := (await live.runs.info(run)).state) in ("running", "waiting"):
                    await asyncio.sleep(0.02)
            words = server.sql(f"SELECT words FROM {table}")
            if fails:
                assert (state, words) == ("error", "")
            else:
                assert words.split(" ")[0] == state

    asyncio.run(main())


def test_what_cannot_be_is_refused() -> None:
    async def inside(run: EndedRun, connection: Any) -> None: ...

    def plain(run: EndedRun, connection: Any) -> None: ...

    async def start(*arguments: Any, **options: Any) -> None:
        async with Live(*arguments, models="demo", **options):
            pass

    with pytest.raises(ConfigError, match="needs a PostgreSQL store"):
        asyncio.run(start("memory:", on_end=inside))
    for store in ("sqlite:x.db", "postgresql://elsewhere/db"):
        with pytest.raises(ConfigError, match="with pool="):
            asyncio.run(start(store, pool=object()))
    with pytest.raises(ConfigError, match="asyncpg pool or an AsyncEngine"):
        asyncio.run(start(pool=object()))
    engine = create_async_engine("postgresql+asyncpg://127.0.0.1:1/x")
    engine.dialect.driver = "psycopg"
    with pytest.raises(ConfigError, match="psycopg"):
        asyncio.run(start(pool=engine))
    assert Settings().store is None


def test_only_two_parameters_ask_for_the_connection() -> None:
    def one(run: Any) -> None: ...
    def two(run: Any, connection: Any) -> None: ...
    def with_default(run: Any, more: int = 1) -> None: ...
    def any_number(run: Any, *more: Any) -> None: ...

    class Bound:
        def method(self, run: Any, connection: Any) -> None: ...

        def __call__(self, run: Any) -> None: ...

    asks = closing.takes_connection
    assert [asks(f) for f in (one, two, with_default, any_number)] == [False, True, False, False]
    assert asks(Bound().method)
    assert not asks(Bound())
    assert not asks(object())


def test_the_example_of_the_guide(server: PostgresServer, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/guide/embed.md").read_text(encoding="utf-8")
    [code] = re.findall(r"```python needs: PostgreSQL\n(.*?)```", page, re.DOTALL)
    address = server.url.replace("postgresql:", "postgresql+asyncpg:")
    code = code.replace("postgresql+asyncpg://app@db.internal/app", address)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, timeout=90)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    stored = server.sql("SELECT run FROM answer")
    assert stored
    assert stored in done.stdout.decode()
    assert server.sql("SELECT closed FROM tokenwire.head") == "complete"
