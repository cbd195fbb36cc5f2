"""A worker process that is meant to be killed: it owns runs, and takes over those of the dead.

It is forked from a process that has imported this module, so that a new one costs milliseconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from multiprocessing.connection import Connection
from typing import Any

from tokenwire.errors import TokenwireError
from tokenwire.events.message import user
from tokenwire.events.request import Request
from tokenwire.log.open import open_log
from tokenwire.providers.base import Dialect, Target
from tokenwire.providers.openai_chat import DIALECT
from tokenwire.relay.runs import Runs
from tokenwire.run import loop as _loop  # noqa: F401 - imported once, before the fork
from tokenwire.run.recover import RetryPolicy
from tokenwire.tools.context import ToolContext
from tokenwire.tools.registry import ToolSet, tool

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


def make_runs(store: str, model_url: str, ledger: str) -> Runs:
    @tool
    async def get_weather(city: str, context: ToolContext) -> str:
        """Has a side effect that must not happen twice: a line in the ledger."""
        file = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(file, f"{context.principal} {context.call_id}\n".encode())
        os.close(file)
        await asyncio.sleep(0.05)
        return f"It rains in {city}."

    return Runs(
        open_log(store),
        registry=NamedModel(model_url),  # type: ignore[arg-type]
        tools=ToolSet.of([get_weather]),
        retry=RetryPolicy(retries=2, first=0.01, longest=0.02),
        lease=LEASE,
    )


async def serve(pipe: Connection, store: str, model_url: str, ledger: str) -> None:
    runs = make_runs(store, model_url, ledger)
    await runs.open()
    loop = asyncio.get_running_loop()
    orders: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

    def receive() -> None:
        try:
            orders.put_nowait(pipe.recv())
        except (EOFError, OSError):
            loop.remove_reader(pipe.fileno())
            orders.put_nowait(None)

    loop.add_reader(pipe.fileno(), receive)
    pipe.send({"ready": True})
    while (order := await orders.get()) is not None:
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
        with contextlib.suppress(OSError):
            pipe.send(answer)
    await runs.aclose()


def main(pipe: Connection, store: str, model_url: str, ledger: str) -> None:
    asyncio.run(serve(pipe, store, model_url, ledger))
