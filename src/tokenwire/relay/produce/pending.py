"""The records of a run that its store has not accepted yet."""

from __future__ import annotations

import asyncio

from tokenwire.errors import FencedError
from tokenwire.log.base import Appended

__all__ = ["Pending"]


class Pending:
    """The records that the store has not accepted yet; at most one append is under way."""

    __slots__ = (
        "behind",
        "failure",
        "fenced",
        "is_abandoned",
        "records",
        "since",
        "size",
        "under_way",
        "waiter",
    )

    def __init__(self) -> None:
        #: In order, from the producer's tail + 1. After a failed append the next one sends them.
        self.records: list[bytes] = []
        #: Bytes of the records of `Producer.take`.
        self.size = 0
        #: The records that follow them, which the store has not received yet.
        self.behind: list[bytes] = []
        #: Whether an append of them is under way, whose answer has not come.
        self.under_way = False
        #: Whether the store refused them while no task waited for its answer.
        self.is_abandoned = False
        #: When the append began (seconds of `time.perf_counter`), where it is measured.
        self.since: float | None = None
        #: Set when the answer has come; None while no task waits for it.
        self.waiter: asyncio.Future[None] | None = None
        #: A fault of ours while sealing; the task raises it.
        self.failure: Exception | None = None
        #: The epoch of the run's newer owner, once the store has reported it; else 0.
        self.fenced = 0

    def note_problem(self, problem: object | None) -> None:
        """Note why an append failed. After a fence the store gets no further append."""
        if isinstance(problem, Appended) and problem.status == "fenced":
            self.fenced = max(problem.epoch, 1)

    def check(self, run: str) -> None:
        """Raise the failure that no task has seen yet: a fault of ours, or `FencedError` where
        another owner has ``run``."""
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure
        if self.fenced:
            self.is_abandoned = False
            raise FencedError(f"run {run} was taken over by another worker", epoch=self.fenced)
