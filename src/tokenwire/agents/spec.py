"""An agent by its name: what a server lists, a log records, and `agent` makes of a function.

Always true: a name is fit for ``/v1/models`` and for a URL; an agent that is not known to restart
well (an object of a framework without a checkpoint) is not restarted.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection
from typing import Any

from tokenwire.agents.context import RunContext
from tokenwire.agents.engine import AgentEngine
from tokenwire.errors import ConfigError
from tokenwire.events.principal import Principal, is_listed
from tokenwire.exits import EXITS, is_by_signal
from tokenwire.run.engine import Abandon, Engine, Setup

__all__ = ["Agent", "Allow", "Work"]

#: What an agent does with the context of one run.
Work = Callable[[RunContext], Awaitable[None]]
Allow = Collection[str | Principal] | Callable[[str], bool] | None

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class Agent:
    """One agent. ``version`` is recorded with each run: a worker with another version does not
    continue it. ``restart``: whether a lost run is run again. ``allow``: principals who may start
    it (a collection of names and `Principal`, or a function of the name); None: all. ``abandon``:
    stops what a run has begun elsewhere, where nobody works at it any more."""

    def __init__(
        self,
        name: str,
        work: Work,
        *,
        version: str = "1",
        restart: bool = True,
        allow: Allow = None,
        function: Callable[..., Any] | None = None,
        abandon: Abandon | None = None,
    ) -> None:
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"an agent's name has 1 to 64 letters, digits or _ . - (not {name[:80]!r})"
            )
        if isinstance(allow, str):
            raise ConfigError(f"agent '{name}': allow must be a collection of principals")
        self.name, self.version, self.restart = name, version, restart
        self.abandon = abandon
        self._work, self._allow, self._function = work, allow, function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The function itself, so that a decorated function can still be called and tested."""
        if self._function is None:
            raise ConfigError(f"agent '{self.name}' is not a function; use tokenwire.stream")
        return self._function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<agent {self.name}>"

    def renamed(self, name: str) -> Agent:
        """The same agent under another name."""
        return Agent(
            name,
            self._work,
            version=self.version,
            restart=self.restart,
            allow=self._allow,
            function=self._function,
            abandon=self.abandon,
        )

    def allows(self, principal: str) -> bool:
        """Whether this principal may start it. A rule that raises means no."""
        if self._allow is None:
            return True
        if not callable(self._allow):
            return is_listed(principal, self._allow)
        try:
            return bool(self._allow(principal))
        except (Exception, *EXITS) as error:  # a broken rule must not let anybody through
            if is_by_signal(error):
                raise
            return False

    def engine(self, setup: Setup) -> Engine:
        """The engine of one run."""
        return AgentEngine(self.name, self._run, setup, abandon=self.abandon)

    async def _run(self, engine: AgentEngine) -> None:
        context = RunContext(engine)
        try:
            await self._work(context)
        finally:
            context.close()
