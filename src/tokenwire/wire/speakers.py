"""Whose words are the answer: for wires that cannot say who speaks.

Always true: what the root agent says passes; of a subagent only its tool calls pass, because a
person may have to approve them.
"""

from __future__ import annotations

from tokenwire.events.codec import AnyEvent
from tokenwire.events.model import PartAttr, PartDelta, PartEnd, PartPatch, PartStart

__all__ = ["RootAgent"]

_CALLS = frozenset({"tool-call", "provider-result"})


class RootAgent:
    """Which events are a subagent's words. `hides` each event once, in order."""

    __slots__ = ("_hidden",)

    def __init__(self) -> None:
        self._hidden: set[int] = set()

    def hides(self, event: AnyEvent) -> bool:
        """Whether the event belongs to a part that a subagent says."""
        if isinstance(event, PartStart):
            agent = event.agent
            if agent is None or agent.parent is None or event.kind in _CALLS:
                return False
            self._hidden.add(event.part)
            return True
        if not self._hidden or not isinstance(event, PartDelta | PartEnd | PartAttr | PartPatch):
            return False
        return event.part in self._hidden
