"""Which sums a run has reserved in: a document of the run, for whoever settles it.

Always true: a sum is in it before the run reserves there, so that nothing stays reserved.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from tokenwire.log.base import Store, private_kind
from tokenwire.relay.spending.ledger import Account

__all__ = ["note_accounts", "reserved_accounts"]

#: The name of the document.
_NAME = "reserved"


async def note_accounts(store: Store, run: str, accounts: Iterable[Account]) -> None:
    """Add sums in which the run is about to reserve. Raises `LogError`."""
    while True:
        data = await store.document(private_kind(run), _NAME)
        accounts_so_far = _decoded(data)
        new = list(dict.fromkeys([*accounts_so_far, *accounts]))
        if new == accounts_so_far:
            return
        encoded = msgspec.msgpack.encode(new)
        if await store.swap_document(private_kind(run), _NAME, data, encoded):
            return


async def reserved_accounts(store: Store, run: str) -> list[Account]:
    """The sums in which the run may have reserved. Raises `LogError`."""
    return _decoded(await store.document(private_kind(run), _NAME))


def _decoded(data: bytes | None) -> list[Account]:
    return [] if data is None else msgspec.msgpack.decode(data, type=list[Account])
