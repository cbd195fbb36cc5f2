"""What runs have begun elsewhere, and nobody works at any more: their agents stop it.

Always true: the end of a run waits for none of this, and fails for none of it; it is tried after
the end is stored, by the process that stored it, and lost with that process.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from tokenwire.errors import LogError
from tokenwire.log.base import Store
from tokenwire.relay.documents.private import PrivateDocuments
from tokenwire.run.call.deadlines import Deadlines
from tokenwire.run.engine import AgentSpec, AgentWork, stop_work

if TYPE_CHECKING:
    from tokenwire.providers.http.client import HttpClient

__all__ = ["Abandoned"]

_log = logging.getLogger("tokenwire.relay")

#: Seconds for which the end of the process waits for all.
_LAST_SECONDS = 2.0


class Abandoned:
    """The work that the runs of one process left behind."""

    def __init__(self, store: Store, agents: Mapping[str, AgentSpec], deadlines: Deadlines) -> None:
        self._store, self._agents, self._deadlines = store, agents, deadlines
        self._tasks: set[asyncio.Task[None]] = set()

    async def of(self, run: str, model: str, http: HttpClient | None) -> AgentWork | None:
        """What ``run`` has begun elsewhere, as its private documents say; None where its ``model``
        is no agent that does so."""
        agent = self._agents.get(model)
        if agent is None or agent.abandon is None or http is None:
            return None
        try:
            documents = await PrivateDocuments(self._store, run).all()
        except LogError as error:
            _log.warning("run %s: what its agent has begun is unknown: %s", run, error)
            return None
        return AgentWork(model, run, http, self._deadlines, documents)

    def stop(self, work: AgentWork | None) -> None:
        """Let the agent stop it, soon."""
        abandon = self._agents[work.agent].abandon if work is not None else None
        if work is None or abandon is None:
            return
        task = asyncio.create_task(stop_work(abandon, work), name=f"abandon run {work.run}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        """Wait for what is under way, a moment at most."""
        tasks = list(self._tasks)
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=_LAST_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
