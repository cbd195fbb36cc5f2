"""The next turn of each queue, started when the one before has ended, by whichever process is here.

Always true: a process that saw a run end looks at its conversation at once, every process looks at
all conversations that have something to start every two seconds, and at those that somebody follows
here, for what a process that died left untold; no conversation waits for the start of a turn in
another one; nothing here is remembered.
"""

from __future__ import annotations

import asyncio
import logging

from tokenwire.errors import LogError, TokenwireError
from tokenwire.relay.conversation.admission import Admission
from tokenwire.relay.worker import Worker

__all__ = ["Promoter"]

_log = logging.getLogger("tokenwire.relay")

#: Seconds between two looks at all conversations that may have something to start.
PERIOD = 2.0
#: Conversations that are looked at at the same time.
_AT_ONCE = 100


class Promoter:
    """The task of one process."""

    def __init__(self, worker: Worker, admission: Admission) -> None:
        self._worker, self._admission = worker, admission
        self._wake = asyncio.Event()
        self._scopes: set[str] = set()
        self._task: asyncio.Task[None] | None = None
        #: The turns that are being started: a summary may have to be made for one.
        self._starts: dict[str, asyncio.Task[None]] = {}
        self._gate = asyncio.Semaphore(_AT_ONCE)
        self._again: set[str] = set()

    def open(self) -> None:
        """Begin to look."""
        self._worker.on_left.append(self._on_left)
        self._task = asyncio.create_task(self._work(), name="promoter")

    async def aclose(self) -> None:
        """Stop; what waits is started by the next process."""
        if self._on_left in self._worker.on_left:
            self._worker.on_left.remove(self._on_left)
        if self._task is not None:
            tasks = [self._task, *self._starts.values()]
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            self._task = None

    def _on_left(self, scope: str) -> None:
        self._scopes.add(scope)
        self._wake.set()

    async def _work(self) -> None:
        next_look = 0.0
        while True:
            self._wake.clear()
            scopes, self._scopes = self._scopes, set()
            await self._promote(scopes)
            now = asyncio.get_running_loop().time()
            if now >= next_look:  # also while runs end all the time
                next_look = now + PERIOD
                await self._promote(None)
                await self._repair()
            try:
                async with asyncio.timeout(PERIOD):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _promote(self, scopes: set[str] | None) -> None:
        """The conversations whose runs have ended here; None: all that may have a turn to
        start."""
        if self._worker.draining:
            return
        try:
            if scopes is None:
                pending = await self._admission.pending()
            else:
                pending = [s for s in scopes if await self._admission.is_pending(s)]
        except LogError as error:
            _log.warning("queues of conversations could not be read: %s", error)
            return
        for scope in pending:
            if scope in self._starts:
                self._again.add(scope)  # its next turn may be due as well, once this one is there
                continue
            await self._gate.acquire()
            task = asyncio.create_task(self._start(scope), name="promoter of one conversation")
            self._starts[scope] = task
            task.add_done_callback(lambda _, one=scope: self._over(one))

    def _over(self, scope: str) -> None:
        del self._starts[scope]
        self._gate.release()
        if scope in self._again:
            self._again.discard(scope)
            self._on_left(scope)

    async def _start(self, scope: str) -> None:
        try:
            await self._admission.promote(scope)
        except TokenwireError as error:
            _log.warning("the next turn of a conversation could not start: %s", error)
        except Exception:
            _log.exception("starting the next turn of a conversation failed; it goes on")

    async def _repair(self) -> None:
        """Tell those who follow a conversation here what nobody told them."""
        worker = self._worker
        for scope in worker.feeds.followed():
            if worker.draining:
                return
            try:
                await self._admission.settled(scope, waits=False)
                state = await worker.feeds.state(scope)
            except TokenwireError as error:
                _log.warning("a conversation could not be looked at: %s", error)
                continue
            for run in state.running if state is not None else ():
                if run not in worker.owned:
                    worker.feeds.announce_run(scope, run)
            worker.feeds.announce_queue(scope)
            worker.feeds.repair(scope)
