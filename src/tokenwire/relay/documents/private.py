"""The private documents of a run: values that its agent needs again, and nobody reads.

Always true: they lie in the store under a kind of their own for each run, so that a store erases
them with the run; no route, wire or snapshot reads them.
"""

from __future__ import annotations

import msgspec

from tokenwire.errors import StoreDamagedError
from tokenwire.events.message import Message
from tokenwire.log.base import Store, private_kind
from tokenwire.relay.conversation.turns import with_history
from tokenwire.relay.description import RunMeta
from tokenwire.run.conversation import CONVERSATION, Conversation

__all__ = ["PrivateDocuments", "model_input"]

#: Documents of one run that are read back; an agent makes one for each operation.
MOST = 100_000


class PrivateDocuments:
    """One run's documents. Raises `LogError` like its store."""

    def __init__(self, store: Store, run: str) -> None:
        self._store, self._kind = store, private_kind(run)

    async def all(self) -> dict[str, bytes]:
        """Every document, by name."""
        return await self._store.documents(self._kind, most=MOST)

    async def get(self, name: str) -> bytes | None:
        """One document; None where there is none."""
        return await self._store.document(self._kind, name)

    async def put(self, name: str, data: bytes) -> None:
        """Store one."""
        await self._store.set_document(self._kind, name, data)


async def model_input(store: Store, run: str, meta: RunMeta) -> list[Message]:
    """The conversation that the run's first model call receives: that of the request, or what the
    host's preparation made of it. Raises `LogError`."""
    own = (await with_history(store, meta)).request.messages
    if meta.prepare is None:
        return own
    data = await PrivateDocuments(store, run).get(CONVERSATION)
    if data is None:
        return own
    try:
        return Conversation.decode(data).resolved(own)
    except (msgspec.MsgspecError, IndexError) as error:
        raise StoreDamagedError(f"the conversation of run {run} cannot be read") from error
