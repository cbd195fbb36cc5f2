"""The parameters of a run, and the bounds of its loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from tokenwire.events.fold import Fold
from tokenwire.events.model import HistoryDescription
from tokenwire.events.request import Request
from tokenwire.providers.base import Dialect, Target
from tokenwire.run.call.deadlines import Deadlines
from tokenwire.run.call.recover import RetryPolicy

__all__ = ["LoopLimits", "Plan"]


class LoopLimits(msgspec.Struct, kw_only=True, frozen=True):
    """``steps``: model calls of a run; ``calls``: tool calls of a run; ``parallel``: at once.
    ``approval_timeout``: seconds for which an approval waits for a person before it ends as
    denied, ``expired``; None: as long as the run waits."""

    steps: int = 10
    calls: int = 50
    parallel: int = 8
    approval_timeout: float | None = None


class Plan(msgspec.Struct, kw_only=True):
    """The parameters of one run."""

    run: str
    request: Request
    #: Resolved models in the order of preference.
    candidates: list[tuple[Dialect, Target]]
    #: The name that the user gave.
    model: str
    thread: str | None = None
    #: Its conversation's name in the store.
    scope: str | None = None
    metadata: dict[str, Any] | None = None
    #: What of its conversation ``request`` has; None: whatever the caller sent.
    history: HistoryDescription | None = None
    principal: str = ""
    deadlines: Deadlines = Deadlines()
    retry: RetryPolicy = RetryPolicy()
    limits: LoopLimits = LoopLimits()
    tools: Any = None  # ToolSet | None
    #: The agent that makes the run's events (an `AgentSpec`); None: the loop around the models.
    agent: Any = None
    #: What an agent may use beside its request: ``registry``, and ``app``, the host's own object.
    registry: Any = None
    app: Any = None
    #: The application's functions around its tools (`run.hooks.Hooks`); None: there are none.
    hooks: Any = None
    #: Called after a step's calls have their results; True ends the run there.
    stop_when: Callable[[Fold], bool] | None = None

    def belong_to(self, outer: Plan) -> None:
        """Make it a part of the run of ``outer``: for the same caller, with what the host put
        there."""
        self.principal, self.thread, self.metadata = outer.principal, outer.thread, outer.metadata
        self.app, self.hooks = outer.app, outer.hooks
