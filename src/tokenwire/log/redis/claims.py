"""Taking over a log in Redis whose lease is over.

Always true: whoever claims a log knows of it what its creator knew, so that it can put the log back
where Redis loses it.
"""

from __future__ import annotations

import secrets

from tokenwire.log.base import Claim
from tokenwire.log.redis.appending.owned import Owned, clock
from tokenwire.log.redis.described import info_of, key_of
from tokenwire.log.redis.upkeep.parts import Parts

__all__ = ["claim"]


async def claim(parts: Parts, log: str, owner: str, lease: float) -> Claim | None:
    """Claim ``log`` for ``owner``; None where it has an owner, or has ended."""
    index, nonce, start = parts.index, secrets.token_hex(8), clock()
    await index.note_owner(owner)
    values = (owner, nonce, int(lease * 1000))
    answer = await parts.owner(log, "claim", *values, wait=True)
    if answer[0] != "ok":
        return None
    await index.lease(log, lease)
    description = await parts.owner(log, "describe")
    state, key = info_of(log, description), key_of(description)
    owned = Owned(owner, nonce, lease, state.meta, state.thread, key, answer[1], state.bytes)
    owned.created, owned.lease_start = state.created, start
    if key is not None:
        owned.key_value = await index.key_value_of(key, log)
    parts.owned[log] = owned
    return Claim(log, answer[1], answer[2], handed_over=answer[3] == b"1")
