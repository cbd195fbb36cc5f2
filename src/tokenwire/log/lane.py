"""Groups what is given to a store while one group is under way; order is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from tokenwire.log.completion import Answer

__all__ = ["Lane"]


class Lane:
    """Groups what is submitted while one group is under way; order is kept."""

    def __init__(self, work: Callable[[list[Any]], Awaitable[Sequence[Any]]], most: int) -> None:
        self._work = work
        self._most = most
        self._items: list[Any] = []
        self._answers: list[Answer] = []
        self._task: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()

    def submit(self, item: Any, answer: Answer) -> None:
        self._items.append(item)
        self._answers.append(answer)
        if self._task is None:
            self._task = self._loop.create_task(self._pump())

    def ask(self, item: Any) -> asyncio.Future[Any]:
        """`submit`, with a future as the answer."""
        future: asyncio.Future[Any] = asyncio.Future(loop=self._loop)
        self.submit(item, future)
        return future

    async def _pump(self) -> None:
        most = self._most
        while self._items:
            items, self._items = self._items[:most], self._items[most:]
            answers, self._answers = self._answers[:most], self._answers[most:]
            try:
                results = await self._work(items)
            except Exception as error:
                results = [error] * len(items)
            for answer, result in zip(answers, results, strict=True):
                if answer.done():
                    continue  # the caller was cancelled; the work is done all the same
                if isinstance(result, BaseException):
                    answer.set_exception(result)
                else:
                    answer.set_result(result)
        self._task = None

    async def drain(self) -> None:
        while self._task is not None:
            await asyncio.wait([self._task])
