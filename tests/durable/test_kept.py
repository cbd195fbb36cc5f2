"""`StreamStore`: several of them on one log are as one, and none of them leaves half a thing."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.redis import RedisServer, redis_server
from tokenwire.durable.rules import Append, Create, Refusal
from tokenwire.durable.store import StreamStore
from tokenwire.errors import InputError, StoreUnavailableError
from tokenwire.log.base import Store
from tokenwire.log.memory import MemoryStore
from tokenwire.log.open import open_store

TEXT = "text/plain"


@pytest.fixture(scope="session")
def shared_redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture(params=["memory", "sqlite", pytest.param("redis", marks=pytest.mark.redis)])
def new_log(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Store]:
    """Opens the same store each time it is called."""
    if request.param == "memory":
        log = open_store("memory:")
        return lambda: log
    if request.param == "sqlite":
        return lambda: open_store(f"sqlite://{tmp_path}/log.db")
    server: RedisServer = request.getfixturevalue("shared_redis")
    prefix = f"k{secrets.token_hex(4)}"
    return lambda: open_store(f"{server.url}?prefix={prefix}")


def run(new_log: Callable[[], Store], case: Callable[..., Awaitable[None]], count: int = 2) -> None:
    """``case`` with ``count`` workers, each with a log of its own on one store."""

    async def main() -> None:
        logs = [new_log() for _ in range(count)]
        for log in {id(log): log for log in logs}.values():
            await log.start()
        try:
            await case(*(StreamStore(log) for log in logs))
        finally:
            for log in {id(log): log for log in logs}.values():
                await log.close()

    asyncio.run(main())


async def text_of(kept: StreamStore, path: str, now: float = 0.0) -> bytes:
    stream = await kept.find("me", path, now)
    pieces = await kept.read(stream, 0, 1 << 20)
    return b"".join(part for piece in pieces for part in piece.parts)


async def status_of(work: Awaitable[Any]) -> int:
    """200 or what it was refused with."""
    try:
        await work
    except Refusal as refusal:
        return refusal.http_status
    return 200


def test_a_sliding_lifetime_is_shared(new_log: Callable[[], Store]) -> None:
    async def case(a: StreamStore, b: StreamStore) -> None:
        await a.create("me", "s", Create(content_type=TEXT, ttl=10), 0.0)
        for now in range(2, 60, 2):
            stream = await a.find("me", "s", float(now))
            await a.touch("me", stream, float(now))
            assert await status_of(b.find("me", "s", now + 8.9)) == 200
        assert await status_of(b.find("me", "s", 69.0)) == 404
        assert await status_of(a.find("me", "s", 69.0)) == 404
        assert await a.store.documents("ds-entry") == {}

    run(new_log, case)


def test_an_append_keeps_a_stream_for_others_too(new_log: Callable[[], Store]) -> None:
    async def case(a: StreamStore, b: StreamStore) -> None:
        await a.create("me", "s", Create(content_type=TEXT, ttl=10), 0.0)
        await b.append("me", "s", Append(content_type=TEXT, body=b"x"), 9.0)
        assert await status_of(a.find("me", "s", 18.9)) == 200
        assert await status_of(a.find("me", "s", 19.1)) == 404

    run(new_log, case)


def test_a_sweep_removes_what_has_expired_and_nothing_else(new_log: Callable[[], Store]) -> None:
    async def case(a: StreamStore, b: StreamStore) -> None:
        await a.create("me", "brief", Create(content_type=TEXT, ttl=10), 0.0)
        await a.create("me", "until", Create(content_type=TEXT, expires_at=20.0), 0.0)
        await a.create("me", "long", Create(content_type=TEXT, body=b"kept"), 0.0)
        brief = await a.find("me", "brief", 0.0)
        await b.append("me", "brief", Append(content_type=TEXT, body=b"x"), 8.0)
        await a.sweep(15.0)
        assert len(await a.store.documents("ds-entry")) == 3
        await a.sweep(30.0)
        assert len(await a.store.documents("ds-entry")) == 1
        assert await status_of(b.find("me", "brief", 15.0)) == 404
        assert (await a.store.stats())["streams"] == 1, "its records are gone as well"
        assert brief.gone
        assert await text_of(b, "long", 1e9) == b"kept"

    run(new_log, case)


def test_writers_that_meet_plan_again(new_log: Callable[[], Store]) -> None:
    async def case(a: StreamStore, b: StreamStore, c: StreamStore) -> None:
        await a.create("me", "s", Create(content_type=TEXT), 0.0)

        async def write(kept: StreamStore, name: str) -> None:
            for number in range(25):
                wanted = Append(content_type=TEXT, body=name.encode(), producer=(name, 0, number))
                assert (await kept.append("me", "s", wanted, 0.0)).status == 200

        await asyncio.gather(*(write(kept, name) for kept, name in ((a, "x"), (b, "y"), (c, "z"))))
        for kept in (a, b, c):
            assert sorted(await text_of(kept, "s")) == sorted(b"xyz" * 25)
        tails = {(await kept.find("me", "s", 0.0)).tail for kept in (a, b, c)}
        assert tails == {75 * 6}

    run(new_log, case, 3)


def test_records_that_a_failover_lost_are_forgotten() -> None:
    async def main() -> None:
        log = MemoryStore()
        log.rewinds = True
        a, b = StreamStore(log), StreamStore(log)
        await a.create("me", "s", Create(content_type=TEXT, body=b"1"), 0.0)
        for body in (b"2", b"3"):
            await a.append("me", "s", Append(content_type=TEXT, body=body), 0.0)
        stream = await a.find("me", "s", 0.0)
        del log._logs[stream.entry.log].records[1:]  # a replica without the last two took over
        assert await text_of(a, "s") == b"1"
        for body in (b"two", b"three"):
            await b.append("me", "s", Append(content_type=TEXT, body=body), 0.0)
        assert await text_of(a, "s") == b"1twothree", "as many records, but others"
        assert (await a.find("me", "s", 0.0)).tail == (await b.find("me", "s", 0.0)).tail

    asyncio.run(main())


# --- several are as one ------------------------------------------------------------------------

PATHS = st.sampled_from(["a", "b", "c"])
OPERATIONS = st.one_of(
    st.tuples(st.just("create"), PATHS, st.binary(max_size=4), st.booleans()),
    st.tuples(st.just("fork"), PATHS, PATHS, st.integers(0, 3), st.integers(0, 5)),
    st.tuples(st.just("append"), PATHS, st.binary(max_size=4), st.booleans()),
    st.tuples(st.just("produce"), PATHS, st.integers(0, 1), st.integers(0, 2)),
    st.tuples(st.just("delete"), PATHS),
    st.tuples(st.just("read"), PATHS, st.integers(0, 30)),
)


async def perform(kept: StreamStore, operation: tuple[Any, ...]) -> Any:
    """What the operation gave, as a value that can be compared."""
    kind, path, *rest = operation
    try:
        if kind == "create":
            body, closed = rest
            answer = await kept.create(
                "me", path, Create(content_type=TEXT, body=body, closed=closed), 0.0
            )
        elif kind == "fork":
            source, back, sub = rest
            stream = await kept.find("me", source, 0.0)
            at = stream.ends[-back] if 0 < back <= len(stream.ends) else None
            wanted = Create(source=source, fork_at=at, fork_sub=sub)
            answer = await kept.create("me", path, wanted, 0.0)
        elif kind == "append":
            body, close = rest
            answer = await kept.append(
                "me", path, Append(content_type=TEXT, body=body, close=close), 0.0
            )
        elif kind == "produce":
            epoch, seq = rest
            wanted_append = Append(content_type=TEXT, body=b"p", producer=("p", epoch, seq))
            answer = await kept.append("me", path, wanted_append, 0.0)
        elif kind == "delete":
            return await kept.delete("me", path, 0.0)
        else:
            stream = await kept.find("me", path, 0.0)
            pieces = await kept.read(stream, rest[0], 1 << 20)
            return [(p.end, b"".join(p.parts)) for p in pieces], stream.tail, stream.closed
        return answer.status, answer.headers
    except Refusal as refusal:
        return refusal.http_status, refusal.headers
    except InputError as error:
        return error.message


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(OPERATIONS, st.integers(0, 2)), max_size=30))
def test_several_workers_answer_as_one_would(steps: list[tuple[tuple[Any, ...], int]]) -> None:
    async def main() -> None:
        log = MemoryStore()
        workers = [StreamStore(log) for _ in range(3)]
        alone = StreamStore(MemoryStore())
        for operation, worker in steps:
            assert await perform(workers[worker], operation) == await perform(alone, operation)

    asyncio.run(main())


# --- half a thing ------------------------------------------------------------------------------


class DyingLog(MemoryStore):
    """Shares another log's store, and fails at the call number ``life`` and after."""

    def __init__(self, log: MemoryStore, life: int) -> None:
        super().__init__()
        self.__dict__.update(log.__dict__)
        self.life = life

    def _breathe(self) -> None:
        self.life -= 1
        if self.life < 0:
            raise StoreUnavailableError("the store is gone")


def _mortal(name: str) -> Any:
    async def call(self: DyingLog, *args: Any, **kwargs: Any) -> Any:
        self._breathe()
        return await getattr(MemoryStore, name)(self, *args, **kwargs)

    return call


for _name in ("create", "append", "read", "delete", "document", "swap_document"):
    setattr(DyingLog, _name, _mortal(_name))


@pytest.mark.parametrize("operation", ["create", "fork", "delete", "delete the fork"])
def test_a_worker_that_dies_anywhere_leaves_a_whole_stream_or_none(operation: str) -> None:
    async def one(life: int) -> bool:
        log = MemoryStore()
        other = StreamStore(log)
        await other.create("me", "source", Create(content_type=TEXT, body=b"whole"), 0.0)
        if operation.startswith("delete"):
            await other.create("me", "fork", Create(source="source"), 0.0)
        dying = StreamStore(DyingLog(log, life))
        done = True
        try:
            if operation == "create":
                await dying.create("me", "new", Create(content_type=TEXT, body=b"whole"), 0.0)
            elif operation == "fork":
                await dying.create("me", "fork", Create(source="source"), 0.0)
            else:
                path = "fork" if operation == "delete the fork" else "source"
                await dying.delete("me", path, 0.0)
        except StoreUnavailableError:
            done = False
        for kept in (other, StreamStore(log)):
            for path in ("new", "fork", "source"):
                if await status_of(kept.find("me", path, 1.0)) == 200:
                    assert await text_of(kept, path, 1.0) == b"whole"
        # Whatever was left half done is not in the way of what comes after it.
        for path in ("new", "fork", "source"):
            await status_of(other.delete("me", path, 100.0))
        assert {await status_of(other.find("me", p, 100.0)) for p in ("new", "fork", "source")} == {
            404
        }
        assert await log.documents("ds-entry") == {}
        await other.create("me", "source", Create(content_type=TEXT), 100.0)
        return done

    async def main() -> None:
        lives = 0
        while not await one(lives):
            lives += 1
        assert lives > 3

    asyncio.run(main())
