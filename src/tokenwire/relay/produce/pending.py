"""The records of a run that its store has not accepted yet."""

from __future__ import annotations

import asyncio

__all__ = ["Pending"]


class Pending:
    """The records that the store has not accepted yet; at most one append is under way."""

    __slots__ = ("behind", "failure", "is_left", "records", "since", "size", "under_way", "waiter")

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
