"""What one principal may ask of Durable Streams: chains of forks, many patterns, much storage."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from support.redis import redis_server
from support.server import site
from tokenwire.durable import usage as usage_module
from tokenwire.durable.rules import Append, Create, Refusal
from tokenwire.durable.store import StreamStore, owner_of
from tokenwire.durable.subscriptions import store as subscription_store
from tokenwire.durable.subscriptions.config import Config, Glob, matches
from tokenwire.durable.subscriptions.rules import Subscription
from tokenwire.durable.subscriptions.store import SubscriptionStore
from tokenwire.durable.usage import Quota
from tokenwire.errors import LimitError
from tokenwire.log.base import Store
from tokenwire.log.memory import MemoryStore
from tokenwire.log.open import open_store

OWNER = owner_of("ann")
TEXT = "text/plain"


def test_a_long_chain_of_forks_goes_as_it_came() -> None:
    """Every stream is deleted while its fork needs it; the last delete takes all of them along."""

    async def main() -> None:
        streams = StreamStore(MemoryStore())
        await streams.create(OWNER, "0", Create(content_type=TEXT, body=b"x"), 0.0)
        number = 1500
        for n in range(1, number):
            await streams.create(OWNER, f"{n}", Create(content_type=TEXT, source=f"{n - 1}"), 0.0)
        for n in range(number - 1):
            await streams.delete(OWNER, f"{n}", 100.0)
        assert len(await streams.store.documents("ds-entry", most=9999)) == number
        await streams.delete(OWNER, f"{number - 1}", 200.0)
        assert not await streams.store.documents("ds-entry")

    asyncio.run(main())


def reference(pattern: str, path: str) -> bool:
    """By a regular expression over segments, each with a slash before it."""
    source = ""
    for part in pattern.split("/"):
        if part == "**":
            source += "(?:/[^/]*)*"
        else:
            source += "/" + re.escape(part).replace(r"\*", "[^/]*")
    return re.fullmatch(source, "/" + path) is not None


def test_globs_match_what_they_say() -> None:
    draw = random.Random(7)
    agreed = {True: 0, False: 0}
    for _ in range(20_000):
        pattern = "/".join(
            draw.choice(["**", "*", "a", "a*", "*a", "a*b", "*a*", "b", "**"])
            for _ in range(draw.randint(1, 4))
        )
        path = "/".join("".join(draw.choices("ab", k=draw.randint(1, 3))) for _ in range(3))
        expected = reference(pattern, path)
        assert matches(pattern, path) is expected, (pattern, path)
        agreed[expected] += 1
    assert min(agreed.values()) > 1000
    assert Glob("a/*").first == "a"
    assert Glob("a*/b").first is None
    assert Glob("**/b").first is None


def test_many_patterns_leave_the_loop_its_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscription_store, "_TURN_SECONDS", 0.0)

    async def main() -> None:
        subscriptions = SubscriptionStore(StreamStore(MemoryStore()))
        for n in range(200):
            config = Config(type="pull-wake", pattern=f"**/a*{n}/*", wake_stream="w")
            await subscriptions.enlist(
                Subscription(id=f"s{n}", owner=OWNER, config=config, birth="", created=0.0, base="")
            )
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        found = await subscriptions.followers(OWNER, "x/aa7/y")
        counting.cancel()
        assert found == [subscription_store.key_of(OWNER, "s7")]
        assert turns > 100
        await subscriptions.delist(OWNER, "s7")
        assert await subscriptions.followers(OWNER, "x/aa7/y") == []

    asyncio.run(main())


def test_a_quota_holds_and_deletes_give_back() -> None:
    async def main() -> None:
        streams = StreamStore(MemoryStore(), Quota(streams=3, size=100))
        for n in range(3):
            await streams.create(OWNER, f"{n}", Create(content_type=TEXT), 0.0)
        with pytest.raises(LimitError, match="at most 3 streams"):
            await streams.create(OWNER, "3", Create(content_type=TEXT), 0.0)
        await streams.create(OWNER, "1", Create(content_type=TEXT), 0.0)  # it is there: no new one
        await streams.create(owner_of("bob"), "3", Create(content_type=TEXT), 0.0)
        await streams.append(OWNER, "0", Append(content_type=TEXT, body=b"x" * 90), 0.0)
        with pytest.raises(LimitError, match="at most 100 bytes"):
            await streams.append(OWNER, "1", Append(content_type=TEXT, body=b"x" * 20), 0.0)
        with pytest.raises(LimitError, match="at most"):
            await streams.create(OWNER, "f", Create(content_type=TEXT, source="0"), 0.0)
        await streams.delete(OWNER, "0", 1.0)
        await streams.append(OWNER, "1", Append(content_type=TEXT, body=b"x" * 20), 1.0)
        await streams.create(OWNER, "3", Create(content_type=TEXT), 1.0)
        # Another process measures what is there.
        other = StreamStore(streams.store, Quota(streams=3, size=100))
        with pytest.raises(LimitError):
            await other.create(OWNER, "4", Create(content_type=TEXT), 1.0)

    asyncio.run(main())


@pytest.fixture(params=["memory", "sqlite", pytest.param("redis", marks=pytest.mark.redis)])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], list[Store]]]:
    """The same store three times, as three processes have it."""
    with contextlib.ExitStack() as stack:
        url = f"sqlite:{tmp_path / 'streams.db'}"
        if request.param == "redis":
            url = stack.enter_context(redis_server()).url
        memory = MemoryStore()
        is_memory = request.param == "memory"
        yield lambda: [memory if is_memory else open_store(url) for _ in range(3)]


def test_a_quota_holds_for_all_processes_of_a_store_together(
    stores: Callable[[], list[Store]],
) -> None:
    quota = Quota(streams=20, size=2000)

    async def until_refused(worker: StreamStore, path: str) -> int:
        number = 0
        try:
            while True:
                await worker.append(OWNER, path, Append(content_type=TEXT, body=b"x" * 10), 0.0)
                number += 1
        except LimitError:
            return number

    async def create(worker: StreamStore, path: str) -> bool:
        try:
            await worker.create(OWNER, path, Create(content_type=TEXT), 0.0)
        except LimitError:
            return False
        return True

    async def main() -> None:
        logs = stores()
        for log in logs:
            await log.start()
        workers = [StreamStore(log, quota) for log in logs]
        created = await asyncio.gather(
            *(create(worker, f"{w}-{n}") for n in range(20) for w, worker in enumerate(workers))
        )
        assert sum(created) == 20
        assert len(await workers[0].entries(OWNER)) == 20
        paths = [entry.path for entry in await workers[0].entries(OWNER)][:3]
        written = await asyncio.gather(*map(until_refused, workers, paths))
        # What one has reserved the others cannot have; it is a little, and never too much.
        assert 150 <= sum(written) <= 200
        # Deletes by one process give back to all.
        await workers[0].delete(OWNER, paths[1], 1.0)
        assert await create(workers[2], "another")
        assert not await create(workers[1], "one-too-many")
        assert await until_refused(workers[2], paths[2]) >= written[1] * 9 // 10
        for log in {id(log): log for log in logs}.values():
            await log.close()

    asyncio.run(main())


@pytest.mark.parametrize("way", ["deleted", "expired"])
def test_a_stream_that_several_processes_delete_at_once_gives_back_once(
    stores: Callable[[], list[Store]], way: str
) -> None:
    """Else a principal would hold more than its quota."""

    async def delete(worker: StreamStore, path: str) -> bool:
        try:
            if way == "deleted":
                await worker.delete(OWNER, path, 1.0)
            else:
                await worker.find(OWNER, path, 100.0)
        except Refusal:
            return False
        return way == "deleted"

    async def main() -> None:
        logs = stores()
        for log in logs:
            await log.start()
        workers = [StreamStore(log, Quota(streams=8, size=10_000)) for log in logs]
        ttl = None if way == "deleted" else 10
        for n in range(8):
            await workers[0].create(OWNER, f"{n}", Create(content_type=TEXT, ttl=ttl), 0.0)
        for worker in workers:
            for n in range(8):
                await worker.find(OWNER, f"{n}", 0.0)
        for n in range(4):
            await asyncio.gather(*(delete(worker, f"{n}") for worker in workers))
        data = await logs[0].document("durable-usage", OWNER)
        assert data is not None
        assert msgspec.msgpack.decode(data)[0] == 4
        assert len(await workers[1].entries(OWNER)) == 4
        for log in {id(log): log for log in logs}.values():
            await log.close()

    asyncio.run(main())


def test_what_an_ended_process_had_reserved_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        log, now = MemoryStore(), [time.time()]
        monkeypatch.setattr(usage_module.time, "time", lambda: now[0])
        for _ in range(4):  # each writes a little and ends
            worker = StreamStore(log, Quota(streams=50, size=1000))
            await worker.create(OWNER, "a", Create(content_type=TEXT), 0.0)
            await worker.append(OWNER, "a", Append(content_type=TEXT, body=b"x" * 20), 0.0)
        worker = StreamStore(log, Quota(streams=50, size=1000))
        large = Append(content_type=TEXT, body=b"x" * 600)
        with pytest.raises(LimitError):
            for _ in range(2):
                await worker.append(OWNER, "a", large, 0.0)
        now[0] += 11
        await worker.delete(OWNER, "a", 0.0)
        await worker.create(OWNER, "b", Create(content_type=TEXT), 0.0)
        await worker.append(OWNER, "b", large, 0.0)

    asyncio.run(main())


def test_the_quota_over_http() -> None:
    with site(durable_streams="readwrite", durable_streams_count=1) as here:
        headers = {"content-type": TEXT}
        assert here.client.put("/ds/v1/stream/a", headers=headers).status_code == 201
        refused = here.client.put("/ds/v1/stream/b", headers=headers)
        assert refused.status_code == 413
        assert refused.json()["error"]["limit"] == "durable_streams_count"
