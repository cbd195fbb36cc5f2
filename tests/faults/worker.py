"""A worker process that is meant to be killed: it owns runs, and takes over those of the dead.

It is forked from a process that has imported this module, so that a new one costs milliseconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import os
import secrets
import time
from collections.abc import Callable, Container
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from faults import graph
from faults.clerk import Step, clerk_of
from faults.journal import Journal, Trap, WatchedHttp, WatchedLog
from tokenwire import RunContext
from tokenwire.errors import TokenwireError
from tokenwire.events.message import user
from tokenwire.events.request import Request
from tokenwire.log.open import open_store
from tokenwire.log.sqlite.store import SQLiteStore
from tokenwire.providers.base import Dialect, Target
from tokenwire.providers.openai.chat import DIALECT
from tokenwire.relay.runs import Runs
from tokenwire.run.call.recover import RetryPolicy
from tokenwire.tools.context import ToolContext
from tokenwire.tools.registry import ToolSet, tool

# Imported once, before the fork: these are loaded where they are first used otherwise.
for _name in ("concurrent.futures.thread", "tokenwire.log.redis.store"):
    with contextlib.suppress(ModuleNotFoundError):  # the environment of frameworks has no Redis
        importlib.import_module(_name)

LEASE = 1.0


class NamedModel:
    """A registry of one provider; the model keeps its name, so that requests can be told apart."""

    def __init__(self, url: str) -> None:
        self.url = url

    def resolve(self, name: str) -> tuple[Dialect, Target]:
        target = Target(
            provider="demo", dialect="openai-chat", model=name, base_url=f"{self.url}/v1"
        )
        return DIALECT, target


@dataclass(frozen=True)
class Place:
    """Where a worker works, and what will hit it there."""

    store: str
    model_url: str
    journal: str
    trap: Trap | None = None
    lease: float = LEASE
    #: As if on another machine: nobody can see that its process is dead, only its lease tells.
    far: bool = False
    #: Seconds by which its clock is wrong.
    skew: float = 0.0
    #: Runs that it may take over: all, or those that are in here (now).
    only: Container[str] | None = None
    #: The file of a graph's checkpoints, where LangGraph is there.
    checkpoints: str = ""

    def owner(self) -> str:
        """host:pid:random, as `Runs` makes it."""
        host = "elsewhere" if self.far else os.uname().nodename
        return f"{host}:{os.getpid()}:{secrets.token_hex(4)}"


def tools_of(effect: Callable[[ToolContext, str], None]) -> ToolSet:
    """Tools with an effect outside, one of each kind."""

    @tool
    async def get_weather(city: str, context: ToolContext) -> str:
        """An effect that must not happen twice."""
        effect(context, "get_weather")
        await asyncio.sleep(0.05)
        return f"It rains in {city}."

    @tool
    async def send_order(item: str, context: ToolContext) -> str:
        """An effect that must not happen twice."""
        effect(context, "send_order")
        return f"{item} is ordered."

    @tool(idempotent=True)
    async def read_stock(item: str, context: ToolContext) -> str:
        """May run again."""
        effect(context, "read_stock")
        return f"3 of {item}."

    @tool(needs_approval=True)
    async def delete_file(path: str, context: ToolContext) -> str:
        """An effect that must not happen twice, and not without a yes."""
        effect(context, "delete_file")
        return f"{path} is gone."

    return ToolSet.of([get_weather, send_order, read_stock, delete_file])


def make_runs(
    place: Place, journal: Journal, *, owner: str, told: Callable[[], None] = lambda: None
) -> Runs:
    trap = place.trap

    def effect(context: ToolContext, name: str) -> None:
        fields = {"key": context.principal, "call": context.call_id, "name": name}
        journal.write("tool", who=owner, **fields)
        if trap is not None and trap.tool == name:
            trap.spring(told)

    async def step_effect(context: RunContext, step: Step) -> None:
        fields = {"key": context.principal, "name": step.name, "idempotent": step.idempotent}
        journal.write("step", who=owner, **fields)
        if trap is not None and trap.tool == step.name:
            async with log.gate:
                trap.spring(told)

    store = open_store(place.store)
    if place.skew and isinstance(store, SQLiteStore):
        store._clock = lambda: time.time() + place.skew
    log = WatchedLog(store, journal, owner, trap=trap, told=told, only=place.only)
    return Runs(
        log,  # type: ignore[arg-type]
        registry=NamedModel(place.model_url),  # type: ignore[arg-type]
        tools=tools_of(effect),
        agents=clerk_of(step_effect),
        owner=owner,
        http=WatchedHttp(journal, owner),  # type: ignore[arg-type]
        retry=RetryPolicy(retries=2, first=0.01, longest=0.02),
        lease=place.lease,
    )


async def add_graph(runs: Runs, place: Place, journal: Journal, told: Callable[[], None]) -> Any:
    """Give the worker the graph of LangGraph, before it is opened; what to close."""
    log: Any = runs.store
    owner = runs.worker.owner

    async def effect(run: str, name: str, step: int) -> None:
        journal.write("node", run=run, name=name, step=step, who=owner)
        if place.trap is not None and place.trap.tool == name:
            async with log.gate:
                place.trap.spring(told)

    def stored(run: str, step: int) -> None:
        journal.write("checkpoint", run=run, step=step, who=owner)

    agents, connection = await graph.graph_of(
        Path(place.checkpoints), effect, stored, gate=log.gate
    )
    runs.worker.agents = {**runs.worker.agents, **agents}
    return connection


async def serve(pipe: Connection, place: Place) -> None:
    loop = asyncio.get_running_loop()
    orders: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
    journal = Journal(place.journal)

    def told() -> None:
        pipe.send({"sprung": True})
        if place.trap is not None and place.trap.action == "drain":
            orders.put_nowait(None)

    runs = make_runs(place, journal, owner=place.owner(), told=told)
    connection = await add_graph(runs, place, journal, told) if place.checkpoints else None
    # A worker with a trap is there for its own run.
    await runs.open(take_over=place.trap is None or place.only is not None)

    def receive() -> None:
        try:
            orders.put_nowait(pipe.recv())
        except (EOFError, OSError):
            loop.remove_reader(pipe.fileno())
            orders.put_nowait(None)

    loop.add_reader(pipe.fileno(), receive)
    pipe.send({"ready": True})
    while (order := await orders.get()) is not None:
        if "key" in order:
            answer = await _start(runs, order)
        else:
            answer = {"owned": len(runs.owned)}
        with contextlib.suppress(OSError):
            pipe.send(answer)
    await runs.drain(5.0)
    await leave(runs)
    if connection is not None:
        await connection.close()


async def leave(runs: Runs) -> None:
    """Close runs that were made here."""
    await runs.aclose()
    if runs.worker.http is not None:
        await runs.worker.http.aclose()


async def _start(runs: Runs, order: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = {"key": order["key"]}
    try:
        info = await runs.start(
            Request(messages=[user(order["prompt"])]),
            model=order["model"],
            run_id=order["run"],
            key=order["key"],
            thread=order["key"],
            principal=order["key"],
        )
        answer["run"] = info.id
    except TokenwireError as error:
        answer["error"] = error.code
    return answer


def main(pipe: Connection, place: Place) -> None:
    logging.getLogger("tokenwire").setLevel(logging.ERROR)  # that runs are lost is the point
    asyncio.run(serve(pipe, place))


if graph.unavailable() is None:
    graph.load()
tools_of(lambda context, name: None)  # loads what makes the tools, before the fork
