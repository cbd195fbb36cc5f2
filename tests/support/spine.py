"""A simulator, and runs that read it: what tests of run and relay share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from support.raw_provider import RawProvider
from tokenwire.events.message import user
from tokenwire.events.request import Request
from tokenwire.log.base import Store
from tokenwire.log.memory import MemoryStore
from tokenwire.providers.base import Dialect, Target
from tokenwire.providers.http.client import HttpClient
from tokenwire.providers.openai.chat import DIALECT
from tokenwire.relay.runs import Runs
from tokenwire.run.call.deadlines import Deadlines
from tokenwire.run.call.recover import RetryPolicy
from tokenwire.run.plan import Plan
from tokenwire.run.stream import Run, new_run_id
from tokenwire.simulator.app import SimulatorServer
from tokenwire.simulator.settings import Settings
from tokenwire.tools.registry import ToolSet

QUICK = RetryPolicy(retries=2, first=0.01, longest=0.02)


class OneModel:
    """A registry that knows the simulator only, by whatever name."""

    def __init__(self, *urls: str) -> None:
        self.urls = urls

    def resolve(self, name: str) -> tuple[Dialect, Target]:
        number = int(name[1:]) if name.startswith("m") and name[1:].isdigit() else 0
        target = Target(
            provider="demo",
            dialect="openai-chat",
            model="demo",
            base_url=f"{self.urls[number]}/v1",
        )
        return DIALECT, target


def run_async(body: Coroutine[Any, Any, Any]) -> Any:
    """Run a test's coroutine; it must leave no task behind."""

    async def guarded() -> Any:
        result = await body
        left = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
        for _ in range(20):  # what was cancelled needs a turn or two to end
            if not left:
                break
            await asyncio.sleep(0)
            left = [t for t in left if not t.done()]
        assert not left, f"tasks left behind: {left}"
        return result

    return asyncio.run(guarded())


def request_of(prompt: str, **options: Any) -> Request:
    return Request(messages=[user(prompt)], **options)


def ask(
    prompt: str,
    *urls: str,
    tools: Any = None,
    deadlines: Deadlines | None = None,
    http: Any = HttpClient,
    request: dict[str, Any] | None = None,
    **options: Any,
) -> Run:
    """A run over the simulators at ``urls``, first to last."""
    registry = OneModel(*urls)
    plan = Plan(
        run=new_run_id(),
        request=request_of(prompt, **(request or {})),
        candidates=[registry.resolve(f"m{n}") for n in range(len(urls))],
        model="m0",
        retry=QUICK,
        deadlines=deadlines or Deadlines(),
        tools=ToolSet.of(tools) if tools is not None else None,
    )
    return Run(plan, http=http, **options)


@asynccontextmanager
async def simulator(**settings: Any) -> AsyncIterator[SimulatorServer]:
    async with SimulatorServer(Settings(**settings)) as server:
        yield server


@asynccontextmanager
async def relay(
    server: SimulatorServer | RawProvider,
    *,
    log: Store | None = None,
    tools: Any = None,
    **options: Any,
) -> AsyncIterator[Runs]:
    runs = Runs(
        log or MemoryStore(),
        registry=OneModel(server.url),  # type: ignore[arg-type]
        tools=ToolSet.of(tools) if tools is not None else None,
        retry=QUICK,
        **options,
    )
    await runs.open()
    try:
        yield runs
    finally:
        await runs.aclose()


async def read_all(runs: Runs, run: str, after: str | None = None) -> list[tuple[str, Any]]:
    follower = await runs.follow(run, after=after)
    found: list[tuple[str, Any]] = []
    try:
        while (batch := await follower.next()) is not None:
            found.extend(batch.events())
    finally:
        follower.close()
    return found
