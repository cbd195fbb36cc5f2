"""What makes a run's events: the loop around a model, or an agent.

Always true: whoever owns a run (`relay.worker`, `run.stream.Run`) knows its engine by this contract
only; an engine's last batch holds ``run-end``; stopping what an agent has begun elsewhere never
fails, and takes no longer than `_SECONDS`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TYPE_CHECKING, Protocol

import msgspec

from tokenwire.errors import TokenwireError
from tokenwire.events.fold import Fold
from tokenwire.events.model import ApprovalAnswer, Event
from tokenwire.events.order import Order
from tokenwire.run.call.deadlines import Deadlines
from tokenwire.run.call.reading import Sink
from tokenwire.run.inbox import Inbox
from tokenwire.run.loop import Loop
from tokenwire.run.plan import Plan

if TYPE_CHECKING:
    from tokenwire.providers.http.client import HttpClient

__all__ = [
    "Abandon",
    "AgentSpec",
    "AgentWork",
    "Documents",
    "Engine",
    "Setup",
    "make_engine",
    "stop_work",
]

_log = logging.getLogger("tokenwire.run")

#: Seconds for which one agent may try.
_SECONDS = 30.0


class Documents(Protocol):
    """The private documents of one run: on no wire and in no snapshot, erased with the run."""

    async def all(self) -> dict[str, bytes]:
        """Every document, by name."""
        ...

    async def put(self, name: str, data: bytes) -> None:
        """Store one; it is as durable as a record of the run when this returns."""
        ...


class Engine(Protocol):
    """The events of one run. Use `batches` once."""

    plan: Plan
    order: Order
    fold: Fold
    inbox: Inbox
    #: Where plain deltas may go instead of through `batches`.
    sink: Sink | None

    @property
    def in_turn(self) -> bool:
        """Whether a framework's loop is under way, which would be lost."""
        ...

    @property
    def leaving(self) -> bool:
        """Set it to return without ending the run, at the next point where nothing is in doubt."""
        ...

    @leaving.setter
    def leaving(self, value: bool) -> None: ...

    def batches(self) -> AsyncGenerator[list[Event], None]:
        """The events, numbered and checked, in batches."""
        ...

    def fail(self, error: TokenwireError) -> list[Event]:
        """The events that end the run because of ``error``."""
        ...

    def make_up(self) -> None:
        """`fold` has all that `sink` has, when this returns; it may be some words behind else."""
        ...

    def report_end(self, state: Fold) -> None:
        """Report the run's end to observers."""
        ...


class Setup(msgspec.Struct, kw_only=True):
    """What an engine starts from. ``order``, ``fold`` and ``events``: of a run that another worker
    began. ``documents``: where the run has a log."""

    plan: Plan
    http: HttpClient
    inbox: Inbox
    order: Order | None = None
    fold: Fold | None = None
    events: Callable[[], list[Event]] | None = None
    documents: Documents | None = None
    #: Puts a command where those of others come from, so that the first one wins; default: the
    #: inbox.
    mailbox: Callable[[ApprovalAnswer], Awaitable[None]] | None = None

    async def send(self, command: ApprovalAnswer) -> None:
        """Send a command to this run itself. Raises `LogError`."""
        if self.mailbox is not None:
            await self.mailbox(command)
        else:
            self.inbox.put(command)


class AgentWork(msgspec.Struct, frozen=True):
    """What a run of the ``agent`` has begun elsewhere. ``documents``: the run's private ones."""

    agent: str
    run: str
    http: HttpClient
    deadlines: Deadlines
    documents: dict[str, bytes]


#: Stops the work of a run that nobody works at any more.
Abandon = Callable[[AgentWork], Awaitable[None]]


class AgentSpec(Protocol):
    """An agent, as the owner of its runs knows it."""

    name: str
    #: Recorded with each run; a worker with another version does not continue it.
    version: str
    #: Whether a lost run may be continued by another worker.
    restart: bool
    #: For a run that ends, or is erased, while nobody works at it; None where an agent begins
    #: nothing outside of its process.
    abandon: Abandon | None

    def allows(self, principal: str) -> bool:
        """Whether this principal may start it."""
        ...

    def engine(self, setup: Setup) -> Engine:
        """The engine of one run."""
        ...


def make_engine(setup: Setup) -> Engine:
    """The engine of a plan: its agent's, or the loop around its models."""
    if setup.plan.agent is not None:
        return setup.plan.agent.engine(setup)
    return Loop(
        setup.plan,
        setup.http,
        setup.inbox,
        order=setup.order,
        fold=setup.fold,
        send=setup.mailbox,
    )


async def stop_work(abandon: Abandon, work: AgentWork) -> None:
    """Let an agent stop what its run has begun; an error is in the log."""
    try:
        async with asyncio.timeout(_SECONDS):
            await abandon(work)
    except (TokenwireError, TimeoutError) as error:
        _log.warning("run %s: what its agent has begun may go on: %s", work.run, error)
    except Exception:
        _log.exception("run %s: what its agent has begun may go on", work.run)
