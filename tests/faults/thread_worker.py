"""A worker process of conversations, meant to be killed: it takes turns, starts what waits, and
finishes what dead workers began.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from multiprocessing.connection import Connection
from typing import Any

from faults import worker as fault_worker
from faults.journal import Journal
from faults.worker import Place
from tokenwire.errors import TokenwireError
from tokenwire.events.message import user
from tokenwire.events.request import Request
from tokenwire.relay.conversation.conversations import Conversations
from tokenwire.relay.conversation.posted import Continuation
from tokenwire.relay.conversation.scope import scope_of
from tokenwire.relay.description import RunMeta
from tokenwire.relay.runs import Runs


async def serve(pipe: Connection, place: Place) -> None:
    loop = asyncio.get_running_loop()
    orders: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
    journal = Journal(place.journal)
    runs = fault_worker.make_runs(place, journal, owner=place.owner())
    await runs.open()
    conversations = Conversations(runs, while_busy="queue")
    conversations.open()
    carriers: set[asyncio.Task[None]] = set()

    def receive() -> None:
        try:
            orders.put_nowait(pipe.recv())
        except (EOFError, OSError):
            loop.remove_reader(pipe.fileno())
            orders.put_nowait(None)

    async def carry_out(order: dict[str, Any]) -> None:
        answer: dict[str, Any] = {"order": order["order"]}
        try:
            answer |= await _done(runs, conversations, order)
        except TokenwireError as error:
            answer |= {"error": error.code, "message": str(error)}
        except Exception as error:  # a bug: the harness says so
            answer |= {"error": "bug", "message": repr(error)}
        with contextlib.suppress(OSError):
            pipe.send(answer)

    loop.add_reader(pipe.fileno(), receive)
    pipe.send({"ready": True})
    while (order := await orders.get()) is not None:
        task = asyncio.create_task(carry_out(order))
        carriers.add(task)
        task.add_done_callback(carriers.discard)
    await conversations.aclose()
    await fault_worker.leave(runs)


async def _done(runs: Runs, conversations: Conversations, order: dict[str, Any]) -> dict[str, Any]:
    """Carry out what a device ordered; what became of it."""
    thread, run = order["thread"], order.get("run", "")
    feeds, scope = runs.worker.feeds, scope_of("", thread)
    if scope not in feeds.followed():
        feeds.join(scope)  # what a dead worker left untold is told where somebody follows
    if order["do"] == "say":
        messages = [user(order["text"])]
        meta = RunMeta(model=order["model"], request=Request(messages=messages), thread=thread)
        reply = await conversations.say(
            meta,
            Continuation(messages=messages, follows_head=True),
            run_id=run,
            key=order["key"],
            while_busy=order["while_busy"],
        )
        return {"run": reply.run, "queued": reply.info is None, "steers": reply.steers}
    if order["do"] == "edit":
        await conversations.edit("", thread, run, [user(order["text"])])
    elif order["do"] == "withdraw":
        await conversations.withdraw("", thread, run)
    elif order["do"] == "now":
        await conversations.send_now("", thread, run)
    return {"run": run}


def main(pipe: Connection, place: Place) -> None:
    logging.getLogger("tokenwire").setLevel(logging.ERROR)  # that runs are lost is the point
    asyncio.run(serve(pipe, place))
