"""Processes whose runs wait for a person: a tool that counts its calls, a model that calls it."""

from __future__ import annotations

import asyncio
import functools
import itertools
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from unittest.mock import patch

from support.agents import LEASE, asked
from tokenwire import Runs, open_store, tool
from tokenwire.events import model as m
from tokenwire.relay.description import RunInfo
from tokenwire.relay.owned import OwnedRun
from tokenwire.testing import ScriptedModel, call
from tokenwire.tools.registry import ToolSet

__all__ = ["Errand", "Mail", "begin", "process", "unread_mailboxes", "until", "waits"]

_numbers = itertools.count()


class Mail:
    """A tool that asks, and what it did. ``timeout``: seconds until its approvals expire."""

    def __init__(self, timeout: float | None = None, arguments: dict[str, Any] | None = None):
        self.sent: list[str] = []
        self.scripts: list[list[Any]] = [
            ["I ask. ", call("send", arguments or {"to": "all"})],
            ["Done."],
        ]

        @tool(needs_approval=True, approval_timeout=timeout)
        async def send(to: str) -> str:
            """Send a letter."""
            self.sent.append(to)
            return "sent"

        self.tools = ToolSet([send])

    @functools.cached_property
    def model(self) -> ScriptedModel:
        """The model of all processes: its first answer calls the tool, its second one ends."""
        return ScriptedModel(*self.scripts)


class Errand(Mail):
    """As `Mail`, with a tool of the client."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts = [[call("look", {})], ["Done."]]

        @tool(executor="client")
        def look() -> str:
            """Look."""
            raise AssertionError("the client runs it")

        self.tools = ToolSet([look])


@asynccontextmanager
async def process(
    url: str, mail: Mail, *, wrap: Callable[[Any], Any] = lambda store: store, **more: Any
) -> AsyncIterator[Runs]:
    """One process of the store at ``url``; ``wrap``: puts something before the store."""
    model = mail.model
    options = {"lease": LEASE, "leave_for": 30.0, **more}
    runs = Runs(
        wrap(open_store(url)),
        registry=model,  # type: ignore[arg-type]
        http=model,  # type: ignore[arg-type]
        tools=mail.tools,
        owner=f"elsewhere:{next(_numbers)}{secrets.token_hex(4)}:x",
        **options,
    )
    await runs.open()
    try:
        yield runs
    finally:
        await runs.aclose()


async def begin(runs: Runs, **how: Any) -> tuple[RunInfo, str]:
    """A run that waits, and its approval."""
    info = await runs.start(asked(), model="scripted", **how)
    return info, await waits(runs, info.id, principal=how.get("principal", ""))


async def waits(runs: Runs, run: str, *, principal: str = "") -> str:
    """The approval that a run waits for."""
    follower = await runs.follow(run, principal=principal)
    try:
        async with asyncio.timeout(60):
            while (batch := await follower.next()) is not None:
                for _, event in batch.events():
                    if isinstance(event, m.RunWait):
                        return event.pending[0]
    finally:
        follower.close()
    raise AssertionError("it did not wait")


@contextmanager
def unread_mailboxes() -> Iterator[None]:
    """No run receives a command meanwhile: neither when one wakes it, nor when its process looks,
    which it does every few seconds, at a moment that no test knows."""
    with patch.object(OwnedRun, "deliver", lambda *_: False):
        yield


async def until(condition: Callable[[], Any], *, seconds: float = 60.0) -> Any:
    """Look again until the condition holds."""
    async with asyncio.timeout(seconds):
        while True:
            value = condition()
            if asyncio.iscoroutine(value):
                value = await value
            if value:
                return value
            await asyncio.sleep(0.02)
