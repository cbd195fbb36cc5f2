"""The status of a stream: its head waits for the provider's first output, so that it can be true.

Always true: a run that fails before any output is answered with the failure's own status and body;
after `ProviderHead.seconds`, or once there is output, the status is 200 and a failure is part of
the stream.
"""

from __future__ import annotations

from tokenwire.events.model import PartStart, RunEnd, RunWait
from tokenwire.relay.follow import Batch
from tokenwire.server.routes.support import run_failure
from tokenwire.wire.view import RunView

__all__ = ["ProviderHead"]


class ProviderHead:
    """Waits for the first part of the answer, or for the run's end."""

    seconds: float = 10.0

    def __init__(self) -> None:
        self._view = RunView()

    def begins(self, batch: Batch) -> bool:
        """Whether there is output. Raises `ProviderError` when the run failed without any."""
        for _, event in batch.events():
            self._view.apply(event)
            if isinstance(event, PartStart | RunWait):
                return True
            if isinstance(event, RunEnd):
                if self._view.ending(event) in ("failed", "cancelled"):
                    raise run_failure(self._view.failure(event))
                return True
        return False
