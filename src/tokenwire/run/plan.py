"""The parameters of a run, and the bounds of its loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from tokenwire.events.fold import Fold
from tokenwire.events.model import HistoryDescription, RunStart
from tokenwire.events.request import Request
from tokenwire.observe.facts import RunStarted
from tokenwire.observe.request_facts import RequestFacts, request_facts
from tokenwire.providers.base import Dialect, Target
from tokenwire.run.call.deadlines import Deadlines
from tokenwire.run.call.recover import RetryPolicy
from tokenwire.run.call.spending import Allowance, Inner

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
    #: The number of the agent's operation that this is a part of; None for a run of its own.
    operation: int | None = None
    #: What the run may use; None: as much as it does.
    allowance: Allowance | None = None
    #: Called after a step's calls have their results; True ends the run there.
    stop_when: Callable[[Fold], bool] | None = None

    def request_facts(self) -> RequestFacts:
        """The request to its first model, for observers."""
        if not self.candidates:
            return request_facts(self.request)
        _, target = self.candidates[0]
        return request_facts(self.request, provider=target.provider, base_url=target.base_url)

    def started(self) -> RunStarted:
        """The fact that it starts."""
        agent = None if self.agent is None else self.agent.name
        return RunStarted(self.run, self.model, self.thread, agent, self.request_facts())

    def run_start(self, now: float) -> RunStart:
        """The first event of the run, at a Unix time."""
        return RunStart(
            run=self.run,
            time=int(now * 1000),
            thread=self.thread,
            model=self.model,
            metadata=self.metadata,
            history=self.history,
        )

    def belong_to(self, outer: Plan) -> None:
        """Make it a part of the run of ``outer``: for the same caller, with what the host put
        there."""
        self.principal, self.thread, self.metadata = outer.principal, outer.thread, outer.metadata
        self.app, self.hooks = outer.app, outer.hooks
        self.allowance = Inner(outer.allowance) if outer.allowance is not None else None
