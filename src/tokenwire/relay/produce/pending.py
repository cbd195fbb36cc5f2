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
        "is_left",
        "records",
        "since",
        "size",
        "under_way",
        "waiter",
    )

    def __init__(self) -> None:
        #: In order, from the producer's tail + 1. After a failed append they wait for the next.
        self.records: list[bytes] = []
        #: Their bytes, of what `Producer.take` was given.
        self.size = 0
        #: What comes after them, and was not given to the store.
        self.behind: list[bytes] = []
        #: The store has them, and its answer is due.
        self.under_way = False
        #: The store did not take them, and nobody was there to hear of it.
        self.is_left = False
        #: When the append began (`time.perf_counter`), where somebody measures it.
        self.since: float | None = None
        #: Whoever waits for the answer.
        self.waiter: asyncio.Future[None] | None = None
        #: A fault of ours while sealing; the task raises it.
        self.failure: Exception | None = None
        #: The epoch of the owner that has the run instead of this one, once the store has told of
        #: it; else 0.
        self.fenced = 0

    def heard(self, problem: object | None) -> None:
        """What stood in the way of an append. Of a fence the store is told of once, and never asked
        again."""
        if isinstance(problem, Appended) and problem.status == "fenced":
            self.fenced = max(problem.epoch, 1)

    def check(self, run: str) -> None:
        """Raise what nobody has heard of: a fault of ours, or that another owner has ``run``."""
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure
        if self.fenced:
            self.is_left = False
            raise FencedError(f"run {run} was taken over by another worker", epoch=self.fenced)
