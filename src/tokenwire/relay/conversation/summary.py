"""A summary in place of turns that a model is not given, made by the application.

Always true: it is asked only when turns fall out of the budget, with the summary before and the
messages of those turns; where it fails the turns are left out without one, and the log says so.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable

from tokenwire.events.message import Message
from tokenwire.relay.conversation.history import Selection, messages_of_turns

__all__ = ["Summarise", "summary_of"]

_log = logging.getLogger("tokenwire.relay")

#: Makes the text in place of a summary (or None) and the messages that follow it.
Summarise = Callable[[str | None, list[Message]], Awaitable[str] | str]


async def summary_of(summarise: Summarise | None, selected: Selection) -> str | None:
    """The summary that a model is given before the turns of ``selected``."""
    if summarise is None or not selected.dropped:
        return selected.summary
    messages = messages_of_turns(selected.dropped, None, [])
    try:
        if inspect.iscoroutinefunction(summarise):
            text = await summarise(selected.summary, messages)
        else:
            text = await asyncio.to_thread(summarise, selected.summary, messages)
            if inspect.isawaitable(text):
                text = await text
    except Exception:
        _log.exception("the summary of a conversation failed; its turns are left out without one")
        return selected.summary
    return str(text)
