"""The read-write Durable Streams of one server while it runs: streams, subscriptions, sweeps.

Always true: nothing here outlives the log; a sweep that fails is told and tried again; what the
settings say of webhooks is checked before anything is served.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time

from tokenwire.durable.store import StreamStore
from tokenwire.durable.subscriptions.requests import Subscriptions
from tokenwire.durable.subscriptions.signer import Signer
from tokenwire.durable.usage import UNLIMITED, Quota
from tokenwire.errors import TokenwireError
from tokenwire.log.base import Store
from tokenwire.relay.webhooks.post import Targets

__all__ = ["DurableStreams"]

#: Between two looks at what has expired. What has is not shown, however late it is removed.
_SWEEP_SECONDS = 300.0
_log = logging.getLogger("tokenwire.server")


class DurableStreams:
    """Streams and subscriptions, from `start` to `stop`.

    ``targets``: the hosts that webhooks may call; ``key``: the signing key of webhooks, made and
    kept in the log when it is None; ``quota``: what a principal may keep.
    """

    streams: StreamStore
    subscriptions: Subscriptions

    def __init__(
        self, targets: Targets, key: bytes | None = None, quota: Quota = UNLIMITED
    ) -> None:
        self._targets, self._key, self._quota = targets, key, quota
        self._sweeper: asyncio.Task[None] | None = None

    async def start(self, store: Store) -> None:
        """Serve from ``store``, which is open."""
        self.streams = StreamStore(store, self._quota)
        signer = await Signer.open(store, self._key) if self._targets else None
        self.subscriptions = Subscriptions(self.streams, self._targets, signer)
        await self.subscriptions.start()
        self._sweeper = asyncio.create_task(self._sweep())

    async def stop(self) -> None:
        """The store is about to close."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.wait([self._sweeper])
            await self.subscriptions.stop()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_SECONDS * random.uniform(0.8, 1.2))
            try:
                await self.streams.sweep(time.time())
            except TokenwireError as error:
                _log.warning("expired Durable Streams could not be removed: %s", error)
