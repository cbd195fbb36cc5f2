"""Redis over TLS: whom we trust, who we are, and the log as ever."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvloop

from support.free_ports import free_port
from support.redis import RedisServer, need_redis
from support.redis_cases import append_all, follow, opened
from support.redis_cluster import redis_cluster
from support.tls import Authority
from tokenwire.errors import ConfigError, StoreUnavailableError

pytestmark = pytest.mark.redis


def options(authority: Authority, port: int, *hosts: str) -> tuple[str, ...]:
    certificate, key = authority.certificate("server", *hosts)
    files = ("--tls-cert-file", certificate, "--tls-key-file", key)
    words = ("--tls-port", port, *files, "--tls-ca-cert-file", authority.pem)
    return tuple(map(str, words))


def need_tls() -> None:
    """Skip the test when the server program was built without TLS."""
    if b"SSL_CTX_new" not in Path(need_redis("redis")).read_bytes():
        pytest.skip("this redis-server was built without TLS")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"), "authority")


class Tls:
    """A server that speaks TLS on `port` (and plainly, for the test itself, on another)."""

    def __init__(self, server: RedisServer, port: int, authority: Authority) -> None:
        self.server, self.port, self.authority = server, port, authority

    def url(self, host: str = "127.0.0.1", **words: object) -> str:
        words = {"ssl_ca_certs": self.authority.pem, **words}
        query = "&".join(f"{name}={value}" for name, value in words.items())
        return f"rediss://{host}:{self.port}/0?{query}"


@pytest.fixture(scope="module")
def server(authority: Authority) -> Iterator[Tls]:
    need_tls()
    port = free_port()
    words = options(authority, port, "127.0.0.1", "localhost")
    one = RedisServer(*words, "--tls-auth-clients", "optional", name="redis")
    try:
        one.start()
        yield Tls(one, port, authority)
    finally:
        one.stop()


def start(url: str) -> None:
    async def main() -> None:
        async with opened(url):
            pass

    asyncio.run(main())


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_live_run_over_tls(server: Tls, run: Callable[..., None]) -> None:
    records = [b"%d" % number for number in range(1, 301)]

    async def main() -> None:
        for host in ("127.0.0.1", "localhost"):
            name, url = f"{run.__module__}-{host}", server.url(host)
            async with opened(url) as writer, opened(url) as reader:
                await writer.create(name, owner="me", lease=600, meta=b"m")
                seen: list[bytes] = []
                reading = asyncio.create_task(follow(reader, name, 300, seen))
                await append_all(writer, name, records[:100])
                server.server.ask("CLIENT", "KILL", "TYPE", "normal")
                server.server.ask("CLIENT", "KILL", "TYPE", "pubsub")
                await append_all(writer, name, records, first=101)
                await reading
                assert seen == (await reader.read(name)).records == records
                await reader.command(name, b"stop")
                assert await writer.commands(name) == [(1, b"stop")]
                large = bytes(3 << 20)
                assert (await writer.append(name, epoch=1, first=301, records=[large])).tail == 301
                assert (await reader.read(name, after=300)).records == [large]

    run(main())


def test_an_authority_that_is_not_ours_is_named(server: Tls, tmp_path: Path) -> None:
    other = Authority(tmp_path, "other")
    wanted = rf"certificate of the Redis server at 127\.0\.0\.1:{server.port} is not trusted"
    with pytest.raises(ConfigError, match=wanted + ".*ssl_ca_certs="):
        start(server.url(ssl_ca_certs=other.pem))
    with pytest.raises(ConfigError, match=wanted):
        start(f"rediss://127.0.0.1:{server.port}/0")  # the system's authorities


def test_a_file_that_is_none_is_named(server: Tls, tmp_path: Path) -> None:
    nonsense = tmp_path / "ca.pem"
    nonsense.write_text("nonsense")
    for file in (tmp_path / "none.pem", nonsense):
        with pytest.raises(ConfigError, match="cannot read"):
            start(server.url(ssl_ca_certs=file))
        with pytest.raises(ConfigError, match="cannot read"):
            start(server.url(ssl_certfile=file))


def test_plain_and_tls_mixed_up_are_told_apart(server: Tls) -> None:
    where = rf"127\.0\.0\.1:{server.server.port}"
    plain = server.url(timeout=1).replace(f":{server.port}/", f":{server.server.port}/")
    with pytest.raises(StoreUnavailableError, match=f"no TLS from {where}"):
        start(plain)
    with pytest.raises(StoreUnavailableError, match=r"closed the connection|reset"):
        start(f"redis://127.0.0.1:{server.port}/0?timeout=1")


def test_a_name_that_the_certificate_does_not_have(authority: Authority) -> None:
    need_tls()
    port = free_port()
    one = RedisServer(*options(authority, port, "redis.example"), name="redis")
    certificate, key = authority.certificate("client")
    try:
        one.start()
        known = Tls(one, port, authority)
        ours = {"ssl_certfile": certificate, "ssl_keyfile": key}
        with pytest.raises(ConfigError, match=r"not trusted.*127"):
            start(known.url(**ours))
        start(known.url(**ours, ssl_check_hostname="no"))
        # This server wants a certificate of ours (the default of Redis).
        with pytest.raises(ConfigError, match="ssl_certfile="):
            start(known.url(ssl_check_hostname="no", timeout=1))
    finally:
        one.stop()


def test_a_cluster_over_tls(authority: Authority) -> None:
    need_tls()
    ports = [free_port(also=10_000), free_port(also=10_000)]  # theirs, and the bus
    words = options(authority, 0, "127.0.0.1")[2:]
    shared = (*words, "--tls-auth-clients", "no", "--tls-cluster", "yes")
    own = [("--tls-port", str(port)) for port in ports]
    with redis_cluster(*shared, primaries=2, name="redis", own=own) as cluster:

        async def main() -> None:
            url = f"rediss+cluster://127.0.0.1:{ports[0]}?ssl_ca_certs={authority.pem}"
            async with opened(url) as writer, opened(url) as reader:
                for server in cluster.primaries:
                    name = cluster.name_at(server)
                    await writer.create(name, owner="me", lease=600)
                    seen: list[bytes] = []
                    reading = asyncio.create_task(follow(reader, name, 10, seen))
                    await append_all(writer, name, [b"%d" % number for number in range(10)])
                    await reading
                    assert len(seen) == 10

        asyncio.run(main())
