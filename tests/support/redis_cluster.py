"""A real Redis Cluster of some servers on this machine: made, resharded by hand, failed over."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from support.redis import RedisServer

__all__ = ["Cluster", "redis_cluster"]

SLOTS = 16384
OPTIONS = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1500")
#: A replica may be promoted however old its data is: tests pause it on purpose.
OLD_DATA = ("--cluster-replica-validity-factor", "0")


def _wait(condition: Callable[[], Any], what: str, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"the cluster does not get there: {what}"
        time.sleep(0.02)


def _option(server: RedisServer, name: str) -> str:
    words = [*server.options, ""]
    return words[words.index(name) + 1] if name in words else ""


class Cluster:
    """``primaries`` share the slots; each of ``replicas`` follows the primary of its place.
    ``own``: options of each server alone."""

    def __init__(
        self,
        primaries: int,
        replicas: int,
        name: str,
        options: Sequence[str],
        own: Sequence[Sequence[str]],
    ) -> None:
        shared = (*OPTIONS, *OLD_DATA, *options)
        every = [*own, *[()] * (primaries + replicas - len(own))]
        servers = [RedisServer(*shared, *more, name=name) for more in every]
        self.primaries, self.replicas = servers[:primaries], servers[primaries:]

    @property
    def servers(self) -> list[RedisServer]:
        return [*self.primaries, *self.replicas]

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{server.port}" for server in self.primaries)
        return f"redis+cluster://{hosts}"

    def start(self) -> None:
        for server in self.servers:
            server.start()
        share = SLOTS // len(self.primaries)
        for number, server in enumerate(self.primaries):
            last = SLOTS - 1 if server is self.primaries[-1] else (number + 1) * share - 1
            server.answer("CLUSTER", "ADDSLOTSRANGE", str(number * share), str(last))
            server.answer("CLUSTER", "SET-CONFIG-EPOCH", str(number + 1))
        for server in self.servers[1:]:
            port = _option(server, "--tls-port") or str(server.port)
            self.primaries[0].answer("CLUSTER", "MEET", "127.0.0.1", port)
        number = len(self.servers)
        self._all(lambda server: f"cluster_known_nodes:{number}\r".encode() in self._info(server))
        for replica, primary in zip(self.replicas, self.primaries, strict=False):
            self._follow(replica, self.id(primary))
        self._all(lambda server: b"cluster_state:ok" in self._info(server))
        for replica in self.replicas:
            _wait(
                lambda one=replica: b"master_link_status:up" in one.ask("INFO", "replication"),
                "replication",
            )

    def _follow(self, replica: RedisServer, primary: str) -> None:
        # Refused while the two have not shaken hands.
        _wait(lambda: replica.answer("CLUSTER", "REPLICATE", primary) == b"OK", "a replica")

    def stop(self) -> None:
        for server in self.servers:
            server.stop()

    def _info(self, server: RedisServer) -> bytes:
        return server.ask("CLUSTER", "INFO")

    def _all(self, condition: Callable[[RedisServer], bool]) -> None:
        for server in self.servers:
            _wait(lambda one=server: condition(one), "all servers agree")

    def id(self, server: RedisServer) -> str:
        found: bytes = server.answer("CLUSTER", "MYID")
        return found.decode()

    def slot(self, key: str) -> int:
        for server in self.servers:
            found = server.answer("CLUSTER", "KEYSLOT", key)
            if found is not None:
                return found
        raise AssertionError("nobody answers")

    def owner(self, key: str) -> RedisServer:
        """The server that answers for ``key`` now, by its own word."""
        slot = self.slot(key)
        for server in self.servers:
            for first, last, primary, *_ in server.answer("CLUSTER", "SLOTS") or []:
                if first <= slot <= last and int(primary[1]) == server.port:
                    return server
        raise AssertionError("nobody has this slot")

    def name_at(self, server: RedisServer, prefix: str = "s") -> str:
        """A stream whose keys ``server`` has."""
        names = (f"{prefix}{number}" for number in range(10_000))
        return next(name for name in names if self.owner(f"{{{name}}}") is server)

    # A move of one slot, in the steps of `redis-cli --cluster reshard`.

    def begin_move(self, slot: int, source: RedisServer, target: RedisServer) -> None:
        target.answer("CLUSTER", "SETSLOT", str(slot), "IMPORTING", self.id(source))
        source.answer("CLUSTER", "SETSLOT", str(slot), "MIGRATING", self.id(target))

    def move_keys(self, slot: int, source: RedisServer, target: RedisServer) -> int:
        moved = 0
        while keys := source.answer("CLUSTER", "GETKEYSINSLOT", str(slot), "10"):
            words = [key.decode() for key in keys]
            to = ("127.0.0.1", str(target.port), "", "0", "5000")
            assert source.answer("MIGRATE", *to, "KEYS", *words) == b"OK"
            moved += len(words)
        return moved

    def end_move(self, slot: int, source: RedisServer, target: RedisServer) -> None:
        for server in (target, source, *self.servers):
            server.answer("CLUSTER", "SETSLOT", str(slot), "NODE", self.id(target))


@contextlib.contextmanager
def redis_cluster(
    *options: str,
    primaries: int = 3,
    replicas: int = 0,
    name: str = "",
    own: Sequence[Sequence[str]] = (),
) -> Iterator[Cluster]:
    cluster = Cluster(primaries, replicas, name, options, own)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
