"""The conversation that a model receives, where code of the host changed it before the first call.

Always true: it is stored once, as a private document of the run, before the first call; messages of
the request are stored as their index, so that files in them are not stored again.
"""

from __future__ import annotations

import msgspec

from tokenwire.events.message import Message

__all__ = ["CONVERSATION", "Conversation"]

#: The name of the private document.
CONVERSATION = "conversation"


class Conversation(msgspec.Struct, kw_only=True):
    """``messages``: each an index into the request's, or a new message. ``operations``: how many
    recorded operations led to it."""

    messages: list[int | Message]
    operations: int = 0

    @classmethod
    def of(cls, messages: list[Message], request: list[Message], operations: int) -> Conversation:
        """``messages``, where those of the ``request`` are replaced by their index."""
        indexes = {id(message): index for index, message in enumerate(request)}
        return cls(messages=[indexes.get(id(m), m) for m in messages], operations=operations)

    @classmethod
    def decode(cls, data: bytes) -> Conversation:
        """The stored form. Raises `msgspec.MsgspecError`."""
        return msgspec.json.decode(data, type=cls)

    def encode(self) -> bytes:
        """The form that is stored."""
        return msgspec.json.encode(self)

    def resolved(self, request: list[Message]) -> list[Message]:
        """The messages themselves."""
        return [request[item] if isinstance(item, int) else item for item in self.messages]
