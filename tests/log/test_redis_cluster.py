"""A real cluster: redirections, a slot that moves under a live run, the loss of a primary."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator

import pytest

from support.redis import BINARIES, RedisServer, redis_server
from support.redis_cases import append_all, follow, opened, until
from support.redis_cluster import Cluster, redis_cluster
from tokenwire.errors import ConfigError
from tokenwire.log.open import open_store

pytestmark = pytest.mark.redis


@pytest.fixture(scope="module", params=list(BINARIES))
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Three primaries, the first with a replica; a test that kills one comes last."""
    with redis_cluster(replicas=1, name=request.param) as made:
        yield made


def numbers(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(1, count + 1)]


def listeners(server: RedisServer) -> int:
    """Connections that listen there."""
    return server.ask("CLIENT", "LIST", "TYPE", "pubsub").count(b"id=")


def test_streams_of_all_shards_with_one_connection_each(cluster: Cluster) -> None:
    async def main() -> None:
        async with opened(cluster.url) as writer, opened(cluster.url) as reader:
            names = [f"all{number}" for number in range(30)]
            owners = {cluster.owner(f"{{{name}}}").port for name in names}
            assert owners == {server.port for server in cluster.primaries}
            for name in names:
                await writer.create(name, owner="me", thread="t", lease=600)
            seen: dict[str, list[bytes]] = {name: [] for name in names}
            readers = [asyncio.create_task(follow(reader, name, 20, seen[name])) for name in names]
            connections = lambda: [listeners(server) for server in cluster.primaries]  # noqa: E731
            await until(lambda: connections() == [1, 1, 1])
            # Writers that follow nothing have no such connection.
            await asyncio.gather(*(append_all(writer, name, numbers(10)) for name in names))
            assert connections() == [1, 1, 1]
            await asyncio.gather(
                *(append_all(writer, name, numbers(20), first=11) for name in names)
            )
            await asyncio.gather(*readers)
            assert all(records == numbers(20) for records in seen.values())
            assert await reader.thread("t") == names[::-1]
            await asyncio.gather(*map(writer.delete, names))

    asyncio.run(main())


def test_a_slot_moves_with_a_live_run_in_it(cluster: Cluster) -> None:
    """The writer goes on; readers get every record once, woken in every phase of the move."""
    source, target = cluster.primaries[1], cluster.primaries[2]
    name = cluster.name_at(source, "move")
    slot = cluster.slot(f"{{{name}}}")

    async def main() -> None:
        async with (
            opened(cluster.url) as writer,
            opened(cluster.url) as reader,
            opened(cluster.url) as late,
        ):
            await writer.create(name, owner="me", lease=600)
            await writer.command(name, b"before")
            seen: list[bytes] = []
            reading = asyncio.create_task(follow(reader, name, 50, seen))

            async def write(first: int) -> None:
                assert await append_all(writer, name, numbers(first + 9), first=first) == 0
                await until(lambda: len(seen) == first + 9)

            await write(1)
            cluster.begin_move(slot, source, target)
            await write(11)
            assert cluster.move_keys(slot, source, target) == 3  # description, records, commands
            assert source.answer("EXISTS", f"tw:{{{name}}}:log").args[0].startswith("ASK")
            # The readers still listen at the old server, the records come in at the new one.
            await write(21)
            assert await late.commands(name) == [(1, b"before")]
            await late.command(name, b"stop")
            cluster.end_move(slot, source, target)
            await write(31)
            assert await writer.commands(name) == [(1, b"before"), (2, b"stop")]
            # Told by the old server, the reader listens at the new one.
            channel = f"tw:{{{name}}}:live"
            await until(
                lambda: target.answer("PUBSUB", "SHARDNUMSUB", channel) == [channel.encode(), 1]
            )
            assert source.answer("PUBSUB", "SHARDNUMSUB", channel) == [channel.encode(), 0]
            await write(41)
            await reading
            assert seen == numbers(50)
            # A log that knows nothing of the move is led to the new server.
            assert (await late.read(name)).records == numbers(50)
            assert cluster.owner(f"{{{name}}}") is target

    asyncio.run(main())


def test_a_stream_without_records_waits_for_the_end_of_the_move(cluster: Cluster) -> None:
    """Its keys are partly missing, so either server says TRYAGAIN until the slot has arrived."""
    source, target = cluster.primaries[1], cluster.primaries[2]
    name = cluster.name_at(source, "empty")
    slot = cluster.slot(f"{{{name}}}")

    async def main() -> None:
        async with opened(cluster.url + "?timeout=60") as log:
            await log.create(name, owner="me", lease=600)
            cluster.begin_move(slot, source, target)
            waiting = asyncio.create_task(log.append(name, epoch=1, first=1, records=[b"1"]))
            await until(lambda: log._link.repeated > 0)
            assert not waiting.done()
            cluster.move_keys(slot, source, target)
            cluster.end_move(slot, source, target)
            assert (await waiting).status == "ok"
            assert (await log.read(name)).records == [b"1"]

    asyncio.run(main())


def test_a_long_page_is_read_across_a_move(cluster: Cluster) -> None:
    source, target = cluster.primaries[1], cluster.primaries[2]
    name = cluster.name_at(source, "long")
    slot = cluster.slot(f"{{{name}}}")

    async def main() -> None:
        async with opened(cluster.url) as writer, opened(cluster.url) as reader:
            await writer.create(name, owner="me", lease=600)
            await writer.append(name, epoch=1, first=1, records=numbers(1000))

            async def check() -> None:
                page = await reader.read(name, most=1000)
                assert (page.records, page.tail) == (numbers(1000), 1000)

            await check()
            cluster.begin_move(slot, source, target)
            await check()
            cluster.move_keys(slot, source, target)
            await check()
            cluster.end_move(slot, source, target)
            await check()

    asyncio.run(main())


def test_a_server_alone_is_no_cluster() -> None:
    with redis_server() as server, pytest.raises(ConfigError, match="not part of a Redis Cluster"):
        asyncio.run(open_store(f"redis+cluster://127.0.0.1:{server.port}").start())


def test_every_append_of_a_cluster_is_confirmed_by_its_replica() -> None:
    with redis_cluster(primaries=1, replicas=1) as cluster:

        async def main() -> None:
            async with opened(cluster.url + "?replicas=1&timeout=20") as log:
                assert log.durability == "replica"
                await log.create("s", owner="me", lease=600)
                for number in range(1, 21):
                    done = await log.append("s", epoch=1, first=number, records=[b"%d" % number])
                    assert done.status == "ok"
                replica, slot = cluster.replicas[0], str(cluster.slot("{s}"))
                # Description, records, and the small write that is confirmed.
                assert replica.answer("CLUSTER", "COUNTKEYSINSLOT", slot) == 3
                await asyncio.to_thread(replica.kill)
            with pytest.raises(ConfigError, match=r"0 of 1 replicas|asks for"):
                async with opened(cluster.url + "?replicas=1&timeout=2"):
                    pass

        asyncio.run(main())


@pytest.mark.parametrize("behind", [False, True])
def test_the_loss_of_a_primary(cluster: Cluster, behind: bool) -> None:
    """kill -9 of a shard's primary: its replica takes over, the writer that lives sends again what
    the replica had not got, readers see every record once, other shards do not notice."""
    if behind:
        dead, spare = cluster.replicas[0], cluster.primaries[0]
        await_role(spare, b"role:slave")
    else:
        dead, spare = cluster.primaries[0], cluster.replicas[0]
    name = cluster.name_at(dead, f"lost{behind:d}-")
    other = cluster.name_at(cluster.primaries[1], f"other{behind:d}-")

    async def main() -> None:
        url = cluster.url + "?timeout=60"
        async with opened(url) as writer, opened(url) as reader:
            await writer.create(name, owner="me", lease=600)
            await writer.create(other, owner="me", lease=600)
            seen: list[bytes] = []
            seen_other: list[bytes] = []
            reading = [
                asyncio.create_task(follow(reader, name, 60, seen)),
                asyncio.create_task(follow(reader, other, 60, seen_other)),
            ]
            await append_all(writer, name, numbers(20))
            await append_all(writer, other, numbers(20))
            if behind:  # cut off from here on, and from what is still on its way
                await until(lambda: replicated(dead) == replicated(spare))
                spare.signal(signal.SIGSTOP)
                dead.ask("CLIENT", "KILL", "TYPE", "replica")
            await append_all(writer, name, numbers(30), first=21)
            await until(lambda: len(seen) == 30)
            await asyncio.to_thread(dead.kill)
            if behind:
                spare.signal(signal.SIGCONT)
            await append_all(writer, other, numbers(60), first=21)
            gaps = await append_all(writer, name, numbers(60), first=31)
            assert gaps == 1 if behind else gaps <= 1
            await asyncio.gather(*reading)
            assert seen == seen_other == numbers(60)
            assert (await reader.read(name)).records == numbers(60)
            info = await reader.describe(name)
            assert (info.epoch, info.owner) == (1, "me")

    asyncio.run(main())
    assert cluster.owner(f"{{{name}}}") is spare
    dead.start()


def replicated(server: RedisServer) -> bytes:
    info = server.ask("INFO", "replication")
    return info.split(b"master_repl_offset:")[1].split(b"\r")[0]


def await_role(server: RedisServer, role: bytes) -> None:
    async def main() -> None:
        await until(lambda: role in server.ask("INFO", "replication"))
        await until(lambda: b"master_link_status:up" in server.ask("INFO", "replication"))

    asyncio.run(main())
