"""A turn that comes instead of the one under way.

Always true: what is under way is cancelled, and approvals that it waits for are denied; the turn
that comes instead is in the queue before, so that it comes whatever happens here.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from tokenwire.errors import GoneError, NotFoundError
from tokenwire.relay.conversation.admission import Admission
from tokenwire.relay.conversation.queue import Queue

if TYPE_CHECKING:
    from tokenwire.relay.runs import Runs

__all__ = ["INTERRUPT_SECONDS", "interrupt"]

#: Seconds for which `interrupt` waits for what is under way to end.
INTERRUPT_SECONDS = 10.0
#: Seconds between two looks at a run that ends, should its wake-up be lost.
_GLANCE_SECONDS = 0.5
_INSTEAD = "another message came instead"


async def interrupt(
    runs: Runs, admission: Admission, scope: str, queue: Queue, turn: str, *, principal: str
) -> Queue:
    """Stop what is under way in ``scope``, as ``principal`` wants, and wait a while for ``turn``,
    which comes instead; the queue then. Raises `LogError`."""
    woken = asyncio.Event()
    ends = [runs.store.subscribe(one, woken.set) for one in queue.open]
    try:
        for one in queue.open:
            with suppress(NotFoundError, GoneError):
                await runs.supersede(one, principal=principal, reason=_INSTEAD)
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
