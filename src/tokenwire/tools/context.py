"""What a running tool can say and ask: progress, pieces of its result, whether it was cancelled.

Always true: safe to use from any thread; after the call has ended it says nothing any more.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from typing import Any

from tokenwire.events.principal import parts_of

__all__ = ["CallScope", "Progress", "ToolContext"]


@dataclasses.dataclass(frozen=True, slots=True)
class Progress:
    """How far a tool is: ``fraction`` from 0 to 1 (None: unknown), and a word about it."""

    fraction: float | None = None
    message: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CallScope:
    """What a call belongs to: the ids of its ``run`` and ``thread``, the name of the ``principal``
    who started the run, the ``metadata`` of the run, and ``app``, the host's own object."""

    run: str = ""
    thread: str | None = None
    principal: str = ""
    metadata: dict[str, Any] = dataclasses.field(default_factory=dict)
    app: Any = None


class ToolContext:
    """Passed to a tool that has a parameter annotated with this class.

    ``call_id``: the model's id of the call; ``principal``: the caller of the run, in place of that
    of ``scope``; ``say``: receives progress and pieces of the result; ``scope``: what the call
    belongs to.
    """

    def __init__(
        self,
        call_id: str,
        *,
        principal: str = "",
        say: Callable[[Progress | str], None] | None = None,
        scope: CallScope | None = None,
    ) -> None:
        scope = scope or CallScope()
        #: The model's id of this call; the same when a call is started again after a crash.
        self.call_id = call_id
        #: The name of the principal who started the run, tenant included, as it is stored.
        self.principal = principal or scope.principal
        #: The ids of the run and, if it belongs to one, of its conversation.
        self.run, self.thread = scope.run, scope.thread
        #: What the run was started with.
        self.metadata: dict[str, Any] = scope.metadata
        #: The host's own object: ``Live(app=...)``.
        self.app: Any = scope.app
        self._say = say
        self._cancelled = threading.Event()

    @property
    def user(self) -> str:
        """The plain id of the principal who started the run, without its tenant."""
        return parts_of(self.principal)[0]

    @property
    def tenant(self) -> str | None:
        """The tenant of the principal; None without one."""
        return parts_of(self.principal)[1]

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
