"""Names that clients have for runs: documents that translate them, for as long as the run is kept.

Always true: a name is written after the entry by which its run's erasure finds it, so none outlives
its run; a name of one principal says nothing to another (callers make it from both).
"""

from __future__ import annotations

import msgspec

from tokenwire.errors import GoneError, NotFoundError
from tokenwire.log.base import Store

__all__ = ["RunName", "forget_names", "forget_stale_names", "read_name", "set_name"]

#: The documents that translate a name, and those that say, by ``RUN/NAME``, which names a run has.
_NAMES, _NAMES_OF = "ag-ui-run", "ag-ui-names"
#: Names that one sweep looks at, of all principals.
_MOST_SWEPT = 100_000


class RunName(msgspec.Struct):
    """What a client's name means: a run, and the place in it from which that client reads.
    ``resolved_ids``: the approvals and calls that were answered by then; ``content``: the digest of
    what the client sent under the name, where that counts."""

    run: str
    cursor: str
    offset: int
    resolved_ids: list[str] = msgspec.field(name="answered")
    content: str | None = None


class _Run(msgspec.Struct):
    run: str


async def read_name(store: Store, name: str) -> RunName | None:
    """The meaning of a name; None for an unknown one. Raises `LogError`."""
    data = await store.document(_NAMES, name)
    return msgspec.json.decode(data, type=RunName) if data else None


async def set_name(store: Store, name: str, value: RunName) -> None:
    """Give a run a name. Raises `LogError`."""
    await store.set_document(_NAMES_OF, f"{value.run}/{name}", b"1")
    await store.set_document(_NAMES, name, msgspec.json.encode(value))


async def forget_names(store: Store, run: str) -> None:
    """Erase the names of a run that is erased. Raises `LogError`."""
    for name in await store.documents(_NAMES_OF, prefix=f"{run}/"):
        await _forget(store, run, name.partition("/")[2])


async def forget_stale_names(store: Store) -> None:
    """Erase names whose runs are gone. Raises `LogError`."""
    for name, data in (await store.documents(_NAMES, most=_MOST_SWEPT)).items():
        run = msgspec.json.decode(data, type=_Run).run
        try:
            await store.describe(run)
        except (NotFoundError, GoneError):
            await _forget(store, run, name)


async def _forget(store: Store, run: str, name: str) -> None:
    await store.set_document(_NAMES, name, None)
    await store.set_document(_NAMES_OF, f"{run}/{name}", None)
