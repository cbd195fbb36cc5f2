"""Looking after runs: leases, commands, and runs whose worker was lost; one task for all.

Always true: a lease is renewed at a third of its time; what a dead process of this machine held is
released at once, what one elsewhere held when its lease expires.
"""

from __future__ import annotations

import asyncio
import logging
import time

from tokenwire.errors import TokenwireError
from tokenwire.relay.owner import may_live
from tokenwire.relay.takeover.orphans import Orphans
from tokenwire.relay.worker import Worker

__all__ = ["tend"]

_log = logging.getLogger("tokenwire.relay")

_TICK = 0.25
_RENEW = 5.0


async def tend(worker: Worker, *, take_over: bool) -> None:
    """Renew leases, look for commands, take over orphans, until cancelled."""
    next_renewal = time.monotonic() + min(_RENEW, worker.lease / 3)
    next_orphans = time.monotonic()
    orphans = Orphans(worker)
    while True:
        await asyncio.sleep(_TICK)
        now = time.monotonic()
        try:
            for owned in list(worker.owned.values()):
                if owned.look:
                    await owned.check_commands()
            if now >= next_renewal and worker.owned:
                next_renewal = now + min(_RENEW, worker.lease / 3)
                await _renew(worker)
            if take_over and not worker.draining and now >= next_orphans:
                next_orphans = now + min(1.0, worker.lease / 4)
                await _release_the_dead(worker)
                await orphans.look(now)
        except TokenwireError as error:
            _log.warning("tending runs: %s", error)
        except Exception:
            _log.exception("tending runs failed; the next tick retries")


async def _release_the_dead(worker: Worker) -> None:
    """Release what a dead process of this machine held: a restarted server need not wait for
    the leases of the one that was killed."""
    alive: dict[str, bool] = {worker.owner: True}
    for run, epoch, owner in await worker.store.leases():
        if owner not in alive:
            alive[owner] = may_live(owner)
        if not alive[owner]:
            await worker.store.release(run, epoch=epoch)


async def _renew(worker: Worker) -> None:
    for owned in worker.owned.values():
        owned.look = True  # should a wake-up ever be lost, a command waits no longer than this
    leases = {o.run: o.producer.epoch for o in worker.owned.values()}
    for run in await worker.store.renew(leases, owner=worker.owner, lease=worker.lease):
        owned = worker.owned.get(run)
        # One whose end is on the way to the log is not lost.
        ending = owned is not None and owned.loop.fold.outcome is not None
        if owned is not None and owned.producer.epoch == leases[run] and not ending:
            _log.warning("the lease of run %s is lost; this worker stops it", run)
            await owned.stop()
