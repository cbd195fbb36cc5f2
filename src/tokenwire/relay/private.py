"""The private documents of a run: values that its agent needs again, and nobody reads.

Always true: they lie in the store under a kind of their own for each run, so that a store erases
them with the run; no route, wire or snapshot reads them.
"""

from __future__ import annotations

from tokenwire.log.base import Store, private_kind

__all__ = ["PrivateDocuments"]

#: Documents of one run that are read back; an agent makes one for each operation.
MOST = 100_000


class PrivateDocuments:
    """One run's documents. Raises `LogError` like its store."""

    def __init__(self, store: Store, run: str) -> None:
        self._store, self._kind = store, private_kind(run)

    async def all(self) -> dict[str, bytes]:
        """Every document, by name."""
        return await self._store.documents(self._kind, most=MOST)

    async def put(self, name: str, data: bytes) -> None:
        """Store one."""
        await self._store.set_document(self._kind, name, data)
