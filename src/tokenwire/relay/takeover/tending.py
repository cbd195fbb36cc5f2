"""Looking after runs: leases, commands, waits that last too long, and runs without a worker.

Always true: a lease is renewed at a third of its time, whatever else is under way; what a dead
process of this machine held is released at once, what one elsewhere held when its lease expires;
however many runs there are, no turn of the event loop looks at more than some of them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from tokenwire.errors import StoreDamagedError, TokenwireError
from tokenwire.log.base import Losing, Mailbox
from tokenwire.relay.owned import OwnedRun
from tokenwire.relay.owner import may_live
from tokenwire.relay.takeover.orphans import Orphans
from tokenwire.relay.worker import Worker

__all__ = ["tend"]

_log = logging.getLogger("tokenwire.relay")

_TICK = 0.25
_RENEW = 5.0
#: Mailboxes that are read, and leases that are renewed, in one call of the store.
_AT_ONCE = 1000
#: Runs whose waits and appends are looked at in one tick: a share of all, so that each run's turn
#: comes once a second, and at least and at most so many.
_LOOKED_AT_SHARE, _LOOKED_AT_LEAST, _LOOKED_AT = 4, 50, 2000


async def tend(worker: Worker, *, take_over: bool) -> None:
    """Renew leases, look for commands, end what waits too long, take over orphans, until
    cancelled. Each has a task of its own, so that a storm of takeovers costs no lease."""
    orphans = Orphans(worker)
    released: set[str] = set()
    later: list[OwnedRun] = []
    if isinstance(worker.store, Losing):
        worker.store.when_put_back(lambda run: _write_again(worker, run))

    async def look() -> None:
        if not worker.draining:
            await _release_the_dead(worker, released)
            await orphans.look(time.monotonic())

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_every(min(_RENEW, worker.lease / 3), lambda: _renew(worker)))
        tasks.create_task(_every(_TICK, lambda: _look_after(worker, later)))
        if take_over:
            pause = min(1.0, worker.lease / 4)
            tasks.create_task(_every(pause, look, first=_TICK))


def _write_again(worker: Worker, run: str) -> None:
    owned = worker.owned.get(run)
    if owned is not None:
        owned.write_again()


async def _every(
    seconds: float, work: Callable[[], Awaitable[None]], *, first: float | None = None
) -> None:
    await asyncio.sleep(seconds if first is None else first)
    while True:
        start = time.monotonic()
        try:
            await work()
        except TokenwireError as error:
            _log.warning("tending runs: %s", error)
        except Exception:
            _log.exception("tending runs failed; the next tick retries")
        await asyncio.sleep(max(0.01, start + seconds - time.monotonic()))


async def _look_after(worker: Worker, later: list[OwnedRun]) -> None:
    """Read mailboxes; look at appends that failed, and at waits. ``later``: whose appends and waits
    this round has not come to; 20,000 of them at once would take 18 ms of a turn."""
    unread = [owned for owned in worker.owned.values() if owned.look]
    for start in range(0, len(unread), _AT_ONCE):
        await _deliver(worker.store, unread[start : start + _AT_ONCE])
        await asyncio.sleep(0)
    if not later:
        later += worker.owned.values()
    share = -(-len(worker.owned) // _LOOKED_AT_SHARE)
    count = min(max(_LOOKED_AT_LEAST, share), _LOOKED_AT)
    now, some = time.time(), later[-count:]
    del later[-count:]
    for owned in some:
        if owned.run not in worker.owned:
            continue
        owned.write_stuck()
        if owned.is_unlisted:
            await owned.list_waits()
        since = owned.waits_since()
        is_due = since is not None and now > since + worker.wait_timeout
        if (is_due or owned.has_expired) and not worker.draining:
            await worker.expire(owned)


async def _deliver(store: Mailbox, unread: list[OwnedRun]) -> None:
    """Deliver what is new in the mailboxes of these runs."""
    for owned in unread:
        owned.look = False  # one that comes from now on wakes its run
    try:
        mailboxes = await store.mailboxes({owned.run: owned.seen_commands for owned in unread})
    except StoreDamagedError:  # of one of them, which must not hide those of the others
        for owned in unread:
            await owned.check_commands()
        return
    except TokenwireError:
        for owned in unread:
            owned.look = True
        raise
    for owned in unread:
        owned.deliver(mailboxes.get(owned.run, []))


async def _release_the_dead(worker: Worker, released: set[str]) -> None:
    """Release what a dead process of this machine held: a restarted server need not wait for
    the leases of the one that was killed. ``released``: the owners whose leases are released; a
    process that is dead holds no others."""
    owners = await worker.store.owners()
    released &= owners  # a store forgets them some day
    dead = {owner for owner in owners - released if not may_live(owner)}
    if not dead:
        return
    while held := await worker.store.leases(dead):
        for run, epoch in held:
            await worker.store.release(run, epoch=epoch)
    released |= dead


async def _renew(worker: Worker) -> None:
    for owned in worker.owned.values():
        owned.look = True  # should a wake-up ever be lost, a command waits no longer than this
    leases = list(
        (worker.claims | {o.run: o.producer.epoch for o in worker.owned.values()}).items()
    )
    for start in range(0, len(leases), _AT_ONCE):
        await _renew_some(worker, dict(leases[start : start + _AT_ONCE]))
        await asyncio.sleep(0)


async def _renew_some(worker: Worker, leases: dict[str, int]) -> None:
    for run in await worker.store.renew(leases, owner=worker.owner, lease=worker.lease):
        owned = worker.owned.get(run)
        # One whose end is on the way to the log is not lost.
        ending = owned is not None and owned.loop.fold.outcome is not None
        if owned is not None and owned.producer.epoch == leases[run] and not ending:
            _log.warning("the lease of run %s is lost; this worker stops it", run)
            await owned.stop()
