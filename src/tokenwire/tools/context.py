"""What a running tool can say and ask: progress, pieces of its result, whether it was cancelled.

Always true: safe to use from any thread; after the call has ended it says nothing any more.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable

__all__ = ["Progress", "ToolContext"]


@dataclasses.dataclass(frozen=True, slots=True)
class Progress:
    """How far a tool is: ``fraction`` from 0 to 1 (None: unknown), and a word about it."""

    fraction: float | None = None
    message: str | None = None


class ToolContext:
    """Passed to a tool that has a parameter annotated with this class.

    ``call_id``: the model's id of the call; ``principal``: the caller of the run; ``say``: receives
    progress and pieces of the result.
    """

    def __init__(
        self,
        call_id: str,
        *,
        principal: str = "",
        say: Callable[[Progress | str], None] | None = None,
    ) -> None:
        #: The model's id of this call; the same when a call is started again after a crash.
        self.call_id = call_id
        #: Who asked for the run.
        self.principal = principal
        self._say = say
        self._cancelled = threading.Event()

    @property
    def cancelled(self) -> bool:
        """Somebody stopped the run or the time is over: finish soon."""
        return self._cancelled.is_set()

    def wait_cancelled(self, seconds: float) -> bool:
        """Sleep, in a blocking tool, for ``seconds`` or until the call is cancelled. Returns
        whether it is cancelled."""
        return self._cancelled.wait(seconds)

    def progress(self, fraction: float | None = None, message: str | None = None) -> None:
        """Report the progress: ``fraction`` from 0 to 1 (None: unknown), and a ``message``."""
        if self._say is not None and not self.cancelled:
            self._say(Progress(fraction, message))

    def output(self, text: str) -> None:
        """Send a piece of the result, ``text``, before the rest is ready."""
        if self._say is not None and not self.cancelled:
            self._say(text)

    def cancel(self) -> None:
        """Mark the call as over; called by who runs the tool."""
        self._cancelled.set()
