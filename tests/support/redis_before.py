"""A server of the release before, by its scripts for Redis."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.redis import RedisServer
from tokenwire.log.redis.connection import encode

__all__ = ["Before"]

DATA = Path(__file__).parents[1] / "log" / "data"


class Before:
    """A server of the release before, by its scripts."""

    def __init__(self, server: RedisServer) -> None:
        self.server = server
        self.nonce = "00000000before00"
        self._append = (DATA / "redis-append-before.lua").read_text()
        self._owner = (DATA / "redis-owner-before.lua").read_text()

    def _keys(self, *names: str) -> list[str]:
        return [f"tw:{{s}}:{name}" for name in names]

    def own(self, operation: str, *values: Any) -> Any:
        keys = self._keys("meta", "log", "commands")
        head = [operation, 172_800_000, 2_592_000_000, "SPUBLISH", *self._keys("live", "control")]
        return self.server.send(encode("EVAL", self._owner, 3, *keys, *head, *values))

    def append(self, epoch: int, first: int, *records: bytes, nonce: str | None = None) -> Any:
        values = [172_800_000, 2_592_000_000, "SPUBLISH", 1_000_000, 1_000_000]
        values += [*self._keys("live"), self.nonce if nonce is None else nonce, epoch, first, ""]
        values += [len(records), *records]
        keys = self._keys("meta", "log")
        return self.server.send(encode("EVAL", self._append, 2, *keys, *values))[0]
