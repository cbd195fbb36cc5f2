"""What the upkeep of logs in Redis is made from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tokenwire.log.redis.appending.owned import Owned
from tokenwire.log.redis.index import Index
from tokenwire.log.redis.link import Link
from tokenwire.log.redis.owner import Owner
from tokenwire.log.redis.upkeep.expiry import Expiry

__all__ = ["Parts"]


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of one store. ``key(log, what)`` names keys and channels, ``owner`` runs owner.lua,
    ``owned`` are the logs of this process."""

    link: Link
    key: Callable[[str, str], str]
    owner: Owner
    index: Index
    expiry: Expiry
    owned: dict[str, Owned]
