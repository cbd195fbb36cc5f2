"""The read-write Durable Streams of one server while it runs: streams, subscriptions, sweeps.

Always true: nothing here outlives the log; a sweep that fails is told and tried again; what the
settings say of webhooks is checked before anything is served.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from typing import TYPE_CHECKING

from tokenwire.errors import TokenwireError
from tokenwire.server.ds_store import KeptStreams
from tokenwire.server.ds_sub_requests import Subscriptions
from tokenwire.server.ds_webhook import Signer, Targets, load_key_file

if TYPE_CHECKING:
    from tokenwire.server.state import State

__all__ = ["DurableStreams"]

#: Between two looks at what has expired. What has is not shown, however late it is removed.
_SWEEP_SECONDS = 300.0
_NAME = "durable_streams"
_log = logging.getLogger("tokenwire.server")


class DurableStreams:
    """A service of the server (`State.services`). Raises `ConfigError` for webhook settings that
    cannot be."""

    kept: KeptStreams
    subscriptions: Subscriptions

    def __init__(self, state: State) -> None:
        self._state = state
        self._targets = Targets(state.settings.durable_streams_webhooks)
        self._key: bytes | None = None
        if self._targets:
            self._key = load_key_file(state.settings.durable_streams_webhook_key)
        self._sweeper: asyncio.Task[None] | None = None
        state.extras[_NAME] = self

    @classmethod
    def of(cls, state: State) -> DurableStreams:
        """The service of this server."""
        return state.extras[_NAME]

    async def start(self) -> None:
        """The log is open."""
        log = self._state.log
        self.kept = KeptStreams(log)
        signer = await Signer.open(log, self._key) if self._targets else None
        self.subscriptions = Subscriptions(self.kept, self._targets, signer)
        await self.subscriptions.start()
        self._sweeper = asyncio.create_task(self._sweep())

    async def stop(self) -> None:
        """The log is about to close."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.wait([self._sweeper])
            await self.subscriptions.stop()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_SECONDS * random.uniform(0.8, 1.2))
            try:
                await self.kept.sweep(time.time())
            except TokenwireError as error:
                _log.warning("expired Durable Streams could not be removed: %s", error)
