"""A summary in place of turns that a model is not given, made by the application.

Always true: it is asked only when turns fall out of the budget, with the summary before and the
messages of those turns; where it fails, or takes too long, the turns are left out without one, and
the run says so, as does the log.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable

import msgspec

from tokenwire.events.message import Message
from tokenwire.exits import EXITS, is_by_signal
from tokenwire.relay.conversation.history import Selection, messages_of_turns

__all__ = ["SUMMARY_SECONDS", "Summarise", "Summary", "summary_of"]

_log = logging.getLogger("tokenwire.relay")

#: Seconds that a summary may take.
SUMMARY_SECONDS = 60.0

#: Makes the text in place of a summary (or None) and the messages that follow it.
Summarise = Callable[[str | None, list[Message]], Awaitable[str] | str]


class Summary(msgspec.Struct):
    """``text``: in place of what a model is not given; ``error``: why it is the old one, or
    none."""

    text: str | None
    error: str | None = None


async def summary_of(summarise: Summarise | None, selected: Selection, run: str) -> Summary:
    """The summary that the model of ``run`` is given before the turns of ``selected``."""
    if summarise is None or not selected.dropped:
        return Summary(selected.summary)
    messages = messages_of_turns(selected.dropped, None, [])
    limit, task = asyncio.timeout(SUMMARY_SECONDS), asyncio.current_task()
    try:
        async with limit:
            return Summary(await _made(summarise, selected.summary, messages))
    except (Exception, asyncio.CancelledError, *EXITS) as error:
        is_cancel = isinstance(error, asyncio.CancelledError)
        if is_by_signal(error) or (is_cancel and task is not None and task.cancelling()):
            raise
        reason = f"'summarise' raised {type(error).__name__}"
        if limit.expired():
            reason = f"'summarise' took longer than {SUMMARY_SECONDS:g} s"
        _log.exception("run %s: %s; turns are left out without a summary", run, reason)
    return Summary(selected.summary, reason)


async def _made(summarise: Summarise, before: str | None, messages: list[Message]) -> str:
    if inspect.iscoroutinefunction(summarise):
        text = await summarise(before, messages)
    else:
        text = await asyncio.to_thread(summarise, before, messages)
        if inspect.isawaitable(text):
            text = await text
    if not isinstance(text, str):
        raise TypeError(f"'summarise' returned {type(text).__name__}, not str")
    return text
