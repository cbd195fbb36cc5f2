"""The parent of ``--workers N``: starts them, replaces those that die or stand still.

Always true: a signal reaches every worker once; a worker that cannot start is tried again ever more
rarely, and each time the reason is said; one whose event loop stands still is treated as dead; the
first serves before the others start, so that what cannot work is said once.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

from tokenwire.errors import TokenwireError

__all__ = ["Beats", "supervise"]

#: A worker whose loop has not come round for so long is replaced.
_DEAD_SECONDS = 15.0
#: One that lived shorter has failed to start.
_YOUNG_SECONDS = 5.0
_BACKOFF = (0.5, 30.0)
_LOOK_SECONDS = 0.25
#: The exit code of what cannot serve at all.
_CANNOT = 2

#: Runs one worker, the first or another one; returns its exit code. It calls what it is given with
#: `time.monotonic()` while its loop turns.
Run = Callable[[bool, Callable[[float], None]], int]


class Beats:
    """The last sign of life of every worker, in memory that parent and workers share."""

    def __init__(self, workers: int) -> None:
        self._memory = mmap.mmap(-1, 8 * workers)

    def writer(self, slot: int) -> Callable[[float], None]:
        """What a worker calls."""
        return lambda now: struct.pack_into("d", self._memory, 8 * slot, now)

    def last(self, slot: int) -> float:
        """The worker's last sign of life; 0 before the first."""
        return struct.unpack_from("d", self._memory, 8 * slot)[0]

    def clear(self, slot: int) -> None:
        """Another worker gets the slot."""
        struct.pack_into("d", self._memory, 8 * slot, 0.0)


class _Worker:
    """One place among the workers. ``pid`` is 0 while nobody has it."""

    def __init__(self, slot: int) -> None:
        self.slot = slot
        self.pid = 0
        self.begin = 0.0
        self.failures = 0
        #: When the next one may be started.
        self.due = 0.0


def supervise(count: int, run: Run, note: Callable[[str], None]) -> int:
    """Run ``count`` workers until a signal; the exit code. ``note`` prints a line."""
    return _Supervisor(count, run, note).serve()


class _Supervisor:
    def __init__(self, count: int, run: Run, note: Callable[[str], None]) -> None:
        self._run, self._note = run, note
        self._beats = Beats(count)
        self._workers = [_Worker(slot) for slot in range(count)]
        self._stopping = False
        #: A worker has come as far as serving: the others may start.
        self._is_serving = False
        self._result = 0

    def serve(self) -> int:
        """Until the last worker has ended."""
        self._spawn(self._workers[0], time.monotonic())
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        while True:
            alive = self._reap()
            if self._stopping and not alive:
                return self._result
            now = time.monotonic()
            self._is_serving = self._is_serving or self._served()
            for worker in self._workers if self._is_serving else self._workers[:1]:
                if worker.pid:
                    self._check(worker, now)
                elif not self._stopping and now >= worker.due:
                    self._spawn(worker, now)
            time.sleep(_LOOK_SECONDS)

    def _spawn(self, worker: _Worker, now: float) -> None:
        self._beats.clear(worker.slot)
        is_first = worker is self._workers[0] and not self._is_serving
        child = os.fork()
        if child:
            worker.pid, worker.begin = child, now
            return
        # A group of its own: Ctrl-C reaches the parent only, which forwards one signal.
        os.setpgid(0, 0)
        _die_with_parent()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        code = 1
        try:
            code = self._run(is_first, self._beats.writer(worker.slot))
        except TokenwireError as error:
            self._note(f"tokenwire: {error}")
            code = _CANNOT
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)

    def _reap(self) -> bool:
        """Take note of those that ended; whether any is left."""
        while True:
            try:
                child, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if not child:
                return True
            for worker in self._workers:
                if worker.pid == child:
                    worker.pid = 0
                    self._ended(worker, os.waitstatus_to_exitcode(status))

    def _ended(self, worker: _Worker, code: int) -> None:
        now = time.monotonic()
        lived = now - worker.begin
        if code == _CANNOT and not self._stopping and worker.failures == 0 and not self._served():
            self._result = _CANNOT  # it cannot serve: a retry is useless
            self._stop(signal.SIGTERM, None)
        if self._stopping:
            return
        why = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        wait = 0.0
        if lived < _YOUNG_SECONDS:
            least, most = _BACKOFF
            wait = min(most, least * 2**worker.failures)
            worker.failures += 1
        else:
            worker.failures = 0
        worker.due = now + wait
        when = f"in {wait:g} s" if wait else "now"
        self._note(f"tokenwire: a worker ended after {lived:.0f} s ({why}); another starts {when}")

    def _served(self) -> bool:
        """Whether any worker has come as far as serving."""
        return any(self._beats.last(worker.slot) for worker in self._workers)

    def _check(self, worker: _Worker, now: float) -> None:
        last = self._beats.last(worker.slot)
        if last and now - last > _DEAD_SECONDS:
            self._note(
                f"tokenwire: the event loop of worker {worker.pid} has stood still for "
                f"{now - last:.0f} s; it is replaced"
            )
            self._beats.clear(worker.slot)
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGKILL)

    def _stop(self, number: int, frame: Any) -> None:
        self._stopping = True
        for worker in self._workers:
            if worker.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker.pid, signal.SIGTERM)


def _die_with_parent() -> None:
    """On Linux: the kernel sends a worker SIGTERM when its parent dies."""
    if sys.platform == "linux":
        import ctypes

        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)
