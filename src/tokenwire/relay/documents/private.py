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
    """One run's documents, as its owner of ``epoch`` writes them: each epoch has its own, and the
    newest counts, so that an owner which lost the run and does not know it replaces none of the
    next one's. Raises `LogError` like its store."""

    def __init__(self, store: Store, run: str, epoch: int = 1) -> None:
        self._store, self._kind = store, private_kind(run)
        self._suffix = f"@{epoch}" if epoch > 1 else ""

    async def all(self) -> dict[str, bytes]:
        """Every document, by name."""
        return _newest(await self._store.documents(self._kind, most=MOST))

    async def get(self, name: str) -> bytes | None:
        """One document; None where there is none."""
        documents = await self._store.documents(self._kind, prefix=name, most=MOST)
        return _newest(documents).get(name)

    async def put(self, name: str, data: bytes) -> None:
        """Store one."""
        await self._store.set_document(self._kind, name + self._suffix, data)


def _newest(documents: dict[str, bytes]) -> dict[str, bytes]:
    """The documents of the last epoch that has one of a name, by this name."""
    newest: dict[str, tuple[int, bytes]] = {}
    for stored, data in documents.items():
        name, _, number = stored.partition("@")
        epoch = int(number or 1)
        if name not in newest or newest[name][0] < epoch:
            newest[name] = epoch, data
    return {name: data for name, (_, data) in newest.items()}


async def model_input(store: Store, run: str, meta: RunMeta) -> list[Message]:
    """The conversation that the run's first model call receives: that of the request, or what the
    host's preparation made of it. Raises `LogError`."""
    own = (await with_history(store, run, meta)).request.messages
    if meta.prepare is None:
        return own
    data = await PrivateDocuments(store, run).get(CONVERSATION)
    if data is None:
        return own
    try:
        return Conversation.decode(data).resolved(own)
    except (msgspec.MsgspecError, IndexError) as error:
        raise StoreDamagedError(f"the conversation of run {run} cannot be read") from error
