"""The rules of one conversation: how much of it a model is given, and what a turn does while
another one is under way.

Always true: a request's own rule comes before the conversation's, and that before the server's; a
rule that a conversation does not set is the server's at the time, not a copy of it.
"""

from __future__ import annotations

import msgspec

from tokenwire.log.base import Store
from tokenwire.relay.conversation.history import policy_of
from tokenwire.relay.conversation.queue import WhileBusy

__all__ = ["ThreadRules", "change_rules", "forget_rules", "read_rules"]

_KIND = "conversation-rules"


class ThreadRules(msgspec.Struct, kw_only=True, omit_defaults=True):
    """``history``: a policy (`policy_of`); ``while_busy``: what a new turn does. None: the
    server's."""

    history: str | None = None
    while_busy: WhileBusy | None = None

    def over(self, other: ThreadRules) -> ThreadRules:
        """These rules, and those of ``other`` where there is none."""
        return ThreadRules(
            history=self.history or other.history, while_busy=self.while_busy or other.while_busy
        )


async def read_rules(store: Store, scope: str) -> ThreadRules:
    """What the conversation ``scope`` sets itself. Raises `LogError`."""
    data = await store.document(_KIND, scope)
    return msgspec.json.decode(data, type=ThreadRules) if data is not None else ThreadRules()


async def change_rules(
    store: Store,
    scope: str,
    *,
    history: str | msgspec.UnsetType | None = msgspec.UNSET,
    while_busy: WhileBusy | msgspec.UnsetType | None = msgspec.UNSET,
) -> ThreadRules:
    """Set rules of the conversation, or (None) leave them to the server again; what is not named
    stays. Returns what it sets then. Raises `InputError` for an unknown policy, and `LogError`."""
    if isinstance(history, str):
        history = str(policy_of(history))
    while True:
        data = await store.document(_KIND, scope)
        rules = msgspec.json.decode(data, type=ThreadRules) if data is not None else ThreadRules()
        if not isinstance(history, msgspec.UnsetType):
            rules.history = history
        if not isinstance(while_busy, msgspec.UnsetType):
            rules.while_busy = while_busy
        encoded = msgspec.json.encode(rules) if rules != ThreadRules() else None
        if encoded == data or await store.swap_document(_KIND, scope, data, encoded):
            return rules


async def forget_rules(store: Store, scope: str) -> None:
    """Erase them, with their conversation. Raises `LogError`."""
    await store.set_document(_KIND, scope, None)
