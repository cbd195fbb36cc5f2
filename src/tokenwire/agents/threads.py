"""Blocking functions of an agent, in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

__all__ = ["in_thread"]

P = ParamSpec("P")
R = TypeVar("R")


async def in_thread(function: Callable[P, R], *args: P.args, **keywords: P.kwargs) -> R:
    """`asyncio.to_thread`, and a ``StopIteration`` of the function becomes a ``RuntimeError``: a
    future cannot carry one, and whoever awaits it would wait for ever."""

    def call() -> R:
        try:
            return function(*args, **keywords)
        except StopIteration as error:
            raise RuntimeError("a blocking function raised StopIteration") from error

    return await asyncio.to_thread(call)
