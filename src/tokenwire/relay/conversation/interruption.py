"""A turn that comes instead of the one under way.

Always true: what is under way is cancelled, and approvals that it waits for are denied; the turn
that comes instead is in the queue before, so that it comes whatever happens here.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from tokenwire.errors import ConflictError, GoneError, NotFoundError
from tokenwire.relay.conversation.admission import Admission
from tokenwire.relay.conversation.queue import Queue
from tokenwire.relay.conversation.scope import principal_of

if TYPE_CHECKING:
    from tokenwire.relay.runs import Runs

__all__ = ["INTERRUPT_SECONDS", "interrupt"]

#: Seconds for which `interrupt` waits for what is under way to end.
INTERRUPT_SECONDS = 10.0
#: Seconds between two looks at a run that ends, should its wake-up be lost.
_GLANCE_SECONDS = 0.5
_INSTEAD = "another message came instead"


async def interrupt(runs: Runs, admission: Admission, scope: str, queue: Queue, turn: str) -> Queue:
    """Stop what is under way in ``scope``, and wait a while for ``turn``, which comes instead; the
    queue then. Raises `LogError`."""
    principal, woken = principal_of(scope), asyncio.Event()
    ends = [runs.store.subscribe(one, woken.set) for one in queue.open]
    try:
        for one in queue.open:
            await _stop(runs, one, principal)
        until = time.monotonic() + INTERRUPT_SECONDS
        while (rest := until - time.monotonic()) > 0:
            woken.clear()
            await admission.promote(scope)
            _, queue = await admission.settled(scope)
            if all(entry.run != turn for entry in queue.waiting):
                break
            with suppress(TimeoutError):
                async with asyncio.timeout(min(rest, _GLANCE_SECONDS)):
                    await woken.wait()
    finally:
        for end in ends:
            end()
    return queue


async def _stop(runs: Runs, run: str, principal: str) -> None:
    """Cancel a run; approvals that it waits for are denied."""
    with suppress(NotFoundError, GoneError):
        await runs.cancel(run, principal=principal, by=principal or None, reason=_INSTEAD)
        fold = await runs.fold(run, principal=principal)
        for tool in fold.tools.values():
            if tool.approval_id is None or tool.approved is not None or tool.done:
                continue
            with suppress(ConflictError):
                await runs.approve(
                    run, tool.approval_id, approved=False, reason=_INSTEAD, principal=principal
                )
