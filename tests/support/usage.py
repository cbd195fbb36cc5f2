"""What tests of usage and budgets wait for."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import httpx

__all__ = ["settled", "until"]


def until(value: Callable[[], Any], good: Callable[[Any], bool]) -> Any:
    """The value, once it is good."""
    deadline = time.monotonic() + 45
    while not good(found := value()):
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return found


def settled(ask: Callable[[str], httpx.Response], run: str) -> Any:
    """What a run used, once that is known."""
    return until(
        lambda: ask(f"/v1/runs/{run}/usage").json(), lambda usage: usage.get("is_settled", False)
    )
