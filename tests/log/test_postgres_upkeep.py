"""How a PostgreSQL log is opened and kept: schema, levels, rights, a pooler, names, clocks."""

from __future__ import annotations

import asyncio
import importlib.util
import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from support.postgres import PgBouncer, PostgresServer
from support.postgres_cases import opened, run, through
from support.redis_cases import append_all, follow, until
from tokenwire.errors import ConfigError
from tokenwire.log.base import Store
from tokenwire.log.open import open_store
from tokenwire.log.postgres.check import ask
from tokenwire.log.postgres.link import connect
from tokenwire.log.postgres.names import from_text, to_text
from tokenwire.log.postgres.url import parse_url

pytestmark = pytest.mark.postgres


def schema_of(url: str) -> str:
    return url.rpartition("=")[2]


def refused(url: str) -> str:
    """Why the store is not opened."""
    with pytest.raises(ConfigError) as caught:
        asyncio.run(open_store(url).start())
    return str(caught.value)


def test_processes_that_start_at_once_make_one_schema(postgres_url: str) -> None:
    async def main() -> None:
        logs = [open_store(postgres_url) for _ in range(6)]
        await asyncio.gather(*(log.start() for log in logs))
        await logs[0].create("s", owner="me")
        assert all([(await log.stats())["streams"] == 1 for log in logs])
        for log in logs:
            await log.close()

    asyncio.run(main())


def test_a_newer_schema_and_anothers_are_refused_by_name_and_left(
    shared_postgres: PostgresServer, postgres_url: str
) -> None:
    schema = schema_of(postgres_url)
    run(postgres_url, lambda log: log.create("s", owner="me"))
    shared_postgres.sql(f"UPDATE {schema}.version SET number = 99")
    reason = refused(postgres_url)
    assert schema in reason
    assert "newer tokenwire (version 99" in reason
    assert shared_postgres.sql(f"SELECT number FROM {schema}.version") == "99"
    for tables in ("t (a int)", "version (a int)", "version (program text, number int)"):
        shared_postgres.sql(f"DROP SCHEMA {schema} CASCADE; CREATE SCHEMA {schema}")
        shared_postgres.sql(f"CREATE TABLE {schema}.{tables}")
        assert f"the schema {schema} of the database is another program's" in refused(postgres_url)
        count = f"SELECT count(*) FROM pg_class WHERE relnamespace = '{schema}'::regnamespace"
        assert shared_postgres.sql(count) == "1"


def test_a_user_who_may_not_is_told_at_the_start(
    shared_postgres: PostgresServer, postgres_url: str
) -> None:
    schema, user = schema_of(postgres_url), f"u{secrets.token_hex(4)}"
    shared_postgres.sql(f"CREATE ROLE {user} LOGIN")
    theirs = postgres_url.replace("tokenwire@", f"{user}@")
    assert "lacks a right" in refused(theirs), "to make a schema"
    run(postgres_url, lambda log: log.create("s", owner="me"))
    assert "lacks a right" in refused(theirs), "to use the schema"
    shared_postgres.sql(f"GRANT USAGE ON SCHEMA {schema} TO {user}")
    assert "lacks a right" in refused(theirs), "to read a table"
    shared_postgres.sql(f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {user}")
    assert f"lacks a right on {schema}." in refused(theirs)
    shared_postgres.sql(
        f"GRANT INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {user};"
        f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA {schema} TO {user}"
    )

    async def case(log: Store) -> None:
        await log.create("t", owner="me", thread="t", key="k")
        await log.append("t", epoch=1, first=1, records=[b"1"], close="end")
        await log.set_document("kind", "name", b"data")
        await log.delete("t")

    run(theirs, case)


LEVELS = [
    ("on", "on", "", "disk", "no synchronous standby"),
    ("on", "local", "", "disk", "no synchronous standby"),
    ("on", "off", "", "process", "synchronous_commit is off"),
    ("off", "on", "", "process", "fsync is off"),
    ("on", "on", "ANY 1 (*)", "replica", ""),
    ("on", "remote_apply", "one", "replica", ""),
    ("on", "local", "one", "disk", "synchronous_commit is local"),
    ("off", "on", "one", "process", "fsync is off"),
]


class Answers:
    """A connection that answers with settings."""

    def __init__(self, fsync: str, commit: str, standbys: str, **other: Any) -> None:
        self.row = {
            "version": 150000,
            "name": "15.0",
            "encoding": "UTF8",
            "fsync": fsync,
            "pages": "on",
            "commit": commit,
            "standbys": standbys,
            "checksums": "on",
            "pid": 1,
            "standby": False,
            **other,
        }

    async def fetchrow(self, _query: str) -> tuple[Any, ...]:
        return tuple(self.row.values())

    def get_server_pid(self) -> int:
        return 1


@pytest.mark.parametrize(("fsync", "commit", "standbys", "level", "note"), LEVELS)
def test_the_level_is_that_of_the_servers_settings(
    fsync: str, commit: str, standbys: str, level: str, note: str
) -> None:
    server = asyncio.run(ask(Answers(fsync, commit, standbys), "memory"))
    assert server.level == level
    assert note in " ".join(server.notes)
    assert not server.is_pooled
    stronger = {"process": "disk", "disk": "replica"}.get(level)
    if stronger:
        with pytest.raises(ConfigError, match=f"requires durability={stronger}"):
            asyncio.run(ask(Answers(fsync, commit, standbys), stronger))  # type: ignore[arg-type]


def test_servers_that_cannot_hold_a_log_are_refused() -> None:
    for other, words in [
        ({"version": 130011, "name": "13.11"}, "13.11 is too old"),
        ({"encoding": "LATIN1"}, "encoding LATIN1"),
        ({"standby": True}, "is a standby"),
    ]:
        with pytest.raises(ConfigError, match=words):
            asyncio.run(ask(Answers("on", "on", "", **other), "memory"))


def test_the_settings_of_a_live_server_are_asked(postgres_url: str) -> None:
    async def case(log: Store) -> None:
        stats = await log.stats()
        assert (log.durability, stats["durability"]) == ("process", "process")
        assert "fsync is off" in " ".join(stats["notes"])

    run(postgres_url, case)
    assert "requires durability=disk" in refused(postgres_url + "&durability=disk")


def test_urls_are_read_or_refused_without_their_password() -> None:
    settings = parse_url(
        "postgres://u:secret@h:6432/db?schema=chat&timeout=3&direct=h:5432&sslmode=require"
    )
    assert settings.dsn == "postgresql://u:secret@h:6432/db?sslmode=require"
    assert settings.direct == "postgresql://u:secret@h:5432/db?sslmode=require"
    assert (settings.schema, settings.timeout) == ("chat", 3.0)
    several = parse_url("postgresql://u@a,b/db")
    assert several.dsn == "postgresql://u@a,b/db?target_session_attrs=read-write"
    for options in (
        "schema=public",
        "schema=pg_x",
        "schema=a-b",
        "schema=" + "x" * 49,
        "timeout=soon",
        "timeout=0",
        "durability=most",
        "direct=a/b",
        "prefix=tw",
        "connections=2",
    ):
        with pytest.raises(ConfigError) as caught:
            parse_url(f"postgresql://u:secret@h/db?{options}")
        assert "secret" not in str(caught.value)


def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'tokenwire\[postgres\]'"):
        open_store("postgresql://h/db")


def test_a_wrong_password_is_a_setting(shared_postgres: PostgresServer) -> None:
    database = shared_postgres.url.replace("/postgres", "/nowhere")
    assert "does not exist" in refused(database)


NAMES = ["a\0b", "a\\0b", "\\", "\0", "a\\\0", "Ж漢🙂", "%_", "'", '"']


def test_any_text_is_a_name(postgres_url: str) -> None:
    assert len({to_text(name) for name in NAMES}) == len(NAMES)
    assert [from_text(to_text(name)) for name in NAMES] == NAMES

    async def case(log: Store) -> None:
        for name in NAMES:
            await log.create(name, owner=name, thread=name, key=name, key_hash=name)
            await log.append(name, epoch=1, first=1, records=[b"x"])
            await log.set_document(name, name, name.encode())
        for name in NAMES:
            info = await log.describe(name)
            assert (info.log, info.owner, info.thread) == (name, name, name)
            assert await log.thread(name) == [name]
            assert await log.named(name) == name
            assert await log.documents(name) == {name: name.encode()}
            assert await log.leases({name}) == [(name, 1)]
            assert await log.renew({name: 1}, owner=name) == set()
            done = await log.append(name, epoch=1, first=2, records=[], close=name)
            assert done.status == "ok"
            assert (await log.read(name, after=1)).closed == name
        assert await log.owners() == set()
        assert await log.expire(retention=-1) == len(NAMES)

    run(postgres_url, case)


@pytest.fixture
def pooler(shared_postgres: PostgresServer) -> Iterator[PgBouncer]:
    made = PgBouncer(shared_postgres)
    try:
        yield made
    finally:
        made.stop()


def test_behind_a_pooler_in_transaction_mode(
    shared_postgres: PostgresServer, pooler: PgBouncer, postgres_url: str
) -> None:
    """Nothing depends on a session. LISTEN is not heard there, so readers look themselves, or
    listen at the server's own address."""
    url = through(pooler.port, postgres_url)
    records = [b"%d" % number for number in range(1, 201)]

    async def main() -> None:
        await until(lambda: _answers(url))
        direct = f"&direct=127.0.0.1:{shared_postgres.port}"
        async with opened(url) as writer, opened(url) as reader, opened(url + direct) as other:
            assert any("pooler" in note for note in (await reader.stats())["notes"])
            assert not any("pooler" in note for note in (await other.stats())["notes"])
            await writer.create("s", owner="me", thread="t", key="k", lease=60)
            seen: tuple[list[bytes], list[bytes]] = ([], [])
            following = [
                asyncio.create_task(follow(log, "s", len(records), into))
                for log, into in zip((reader, other), seen, strict=True)
            ]
            await append_all(writer, "s", records)
            async with asyncio.timeout(60):
                await asyncio.gather(*following)
            assert seen == (records, records)
            assert not reader._hints.is_heard
            await until(lambda: other._hints.is_heard, seconds=60)
            many = [f"m{number}" for number in range(40)]
            await asyncio.gather(*(writer.create(name, owner="me", lease=60) for name in many))
            await asyncio.gather(*(append_all(writer, name, records[:20]) for name in many))
            pages = await asyncio.gather(*(reader.read(name) for name in many))
            assert all(page.records == records[:20] for page in pages)

    asyncio.run(main())


async def _answers(url: str) -> bool:
    """The pooler takes connections by now."""
    try:
        connection = await connect(parse_url(url).dsn, cache=False, timeout=5)
        await connection.close()
    except OSError:
        return False
    return True


def test_leases_go_by_the_servers_clock(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setattr(time, "time", lambda: 0.0)

    async def case(log: Store) -> None:
        await log.create("s", owner="me", lease=60)
        info = await log.describe("s")
        assert info.created > 1.7e9
        assert await log.orphans() == []
        assert await log.claim("s", owner="you") is None
        await log.append("s", epoch=1, first=1, records=[], close="end")
        assert await log.expire(retention=3600) == 0

    run(postgres_url, case)


def test_two_processes_append_to_shared_logs_in_any_order(postgres_url: str) -> None:
    """Statements of many logs at once never wait for each other in a ring for good."""

    async def write(log: Store, names: list[str]) -> None:
        tails = dict.fromkeys(names, 0)

        async def one(name: str) -> None:
            for _ in range(10):
                while True:
                    record = secrets.token_bytes(8)
                    done = await log.append(name, epoch=1, first=tails[name] + 1, records=[record])
                    tails[name] = done.tail
                    if done.status == "ok":
                        break

        await asyncio.gather(*map(one, names))

    async def main() -> None:
        names = [f"s{number}" for number in range(30)]
        async with opened(postgres_url) as one, opened(postgres_url) as two:
            for name in names:
                await one.create(name, owner="all", lease=60, shared=True)
            await asyncio.gather(write(one, names), write(two, names[::-1]))
            for name in names:
                assert (await one.read(name, fresh=True)).tail == 20

    asyncio.run(main())
