"""AG-UI events that follow from their values alone."""

from __future__ import annotations

from tokenwire.events.model import Agent
from tokenwire.wire.chunk_encoder import Chunk, clean
from tokenwire.wire.view import PartView

__all__ = ["args", "encrypted", "speaker"]


def speaker(agent: Agent) -> Chunk:
    """Who speaks, in a message's metadata."""
    return clean(id=agent.id, name=agent.name, parent=agent.parent)


def args(call_id: str, text: str) -> Chunk:
    """More of a call's arguments."""
    return {"type": "TOOL_CALL_ARGS", "toolCallId": call_id, "delta": text}


def encrypted(part: PartView, subtype: str, entity: str) -> list[Chunk]:
    """What a provider wants to have back with a part, as the client stores it."""
    value = part.attrs.get("encrypted") or part.attrs.get("signature")
    if not isinstance(value, str) or not value:
        return []
    return [
        {
            "type": "REASONING_ENCRYPTED_VALUE",
            "subtype": subtype,
            "entityId": entity,
            "encryptedValue": value,
        }
    ]
