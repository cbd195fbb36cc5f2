"""A worker process of shared conversations, meant to be killed: it changes members, serves readers
of each principal, and writes down what they got and when.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection
from types import SimpleNamespace
from typing import Any

from faults import worker as fault_worker
from faults.journal import Journal
from faults.worker import Place
from tokenwire.errors import GoneError, NotFoundError, RoleError, TokenwireError
from tokenwire.events.message import user
from tokenwire.events.request import Request
from tokenwire.relay.conversation.conversations import Conversations
from tokenwire.relay.conversation.posted import Continuation
from tokenwire.relay.description import RunMeta
from tokenwire.relay.runs import Runs
from tokenwire.relay.threads import Threads
from tokenwire.relay.waiting.inbox import Inbox
from tokenwire.relay.waiting.links import Links
from tokenwire.server.routes.conversation.events import open_thread

Order = dict[str, Any]


class Desk:
    """What one worker does for people: each method is an order, and returns its answer."""

    def __init__(self, runs: Runs, journal: Journal, owner: str) -> None:
        self._runs, self._members, self._journal = runs, runs.members, journal
        self._owner = owner
        self.conversations = Conversations(runs, while_busy="queue")
        self._inbox, self._links = Inbox(runs), Links(runs)
        self._state: Any = SimpleNamespace(runs=runs, store=runs.store, threads=Threads(runs))
        self._readers: set[asyncio.Task[None]] = set()
        self._watch_looks()

    def _write(self, what: str, **fields: Any) -> None:
        self._journal.write(what, who=self._owner, t=time.monotonic(), **fields)

    def _watch_looks(self) -> None:
        """Write down each look at what other processes changed, once all that it finds is done."""
        watch: Any = self._members.watch
        look = watch._look

        async def looked() -> None:
            begun = time.monotonic()
            await look()
            self._write("looked", begun=begun)

        watch._look = looked

    async def do(self, order: Order) -> dict[str, Any]:
        answer: dict[str, Any] = {"order": order["order"], "worker": self._owner}
        act: Callable[[Order], Awaitable[dict[str, Any]]] = getattr(self, f"_{order['do']}")
        try:
            answer |= await act(order)
        except (NotFoundError, RoleError, GoneError) as error:
            answer |= {"refused": error.code}
        except TokenwireError as error:
            answer |= {"error": error.code}
        except Exception as error:  # a bug: the harness says so
            answer |= {"error": "bug", "message": repr(error)}
        return answer

    # Members.

    async def _put(self, order: Order) -> dict[str, Any]:
        access = await self._members.enter(order["by"], order["thread"], "own")
        roster = await self._members.put(access, order["who"], order["role"])
        return {"id": roster.id, "member": roster.members[order["who"]].id}

    async def _remove(self, order: Order) -> dict[str, Any]:
        access = await self._members.enter(order["by"], order["thread"])
        try:
            await self._members.remove(access, order["who"])
        except NotFoundError as error:
            if error.details.get("what") != "member":
                raise
            self._write("removed", order=order["order"])  # by an order before; readers end as well
            raise
        self._write("removed", order=order["order"])
        return {}

    async def _invite(self, order: Order) -> dict[str, Any]:
        access = await self._members.enter(order["by"], order["thread"], "own")
        _, name = await self._members.invite(access, order["role"], ttl=600, uses=9)
        return {"invite": name}

    async def _accept(self, order: Order) -> dict[str, Any]:
        access = await self._members.accept(order["thread"], order["invite"], order["by"])
        return {"refused": "invite"} if access is None else {"member": access.member}

    async def _joined(self, order: Order) -> dict[str, Any]:
        return {"ids": [access.id for access in await self._members.joined(order["by"])]}

    # What they do in the conversation.

    async def _say(self, order: Order) -> dict[str, Any]:
        messages = [user(order["text"])]
        meta = RunMeta(
            model=order["model"],
            request=Request(messages=messages),
            principal=order["by"],
            thread=order["thread"],
        )
        said = Continuation(messages=messages, follows_head=True)
        reply = await self.conversations.say(meta, said, run_id=order["run"], key=order["key"])
        return {"run": reply.run, "queued": reply.info is None}

    async def _page(self, order: Order) -> dict[str, Any]:
        await self.conversations.queue(order["by"], order["thread"])
        infos = await self._runs.thread(order["thread"], principal=order["by"])
        return {"runs": len(infos)}

    async def _snapshot(self, order: Order) -> dict[str, Any]:
        snapshot = await self._runs.snapshot(order["run"], principal=order["by"])
        return {"run": snapshot.id}

    async def _approve(self, order: Order) -> dict[str, Any]:
        page = await self._inbox.page(order["by"], thread=order["thread"])
        for one in page.waiting:
            await self._runs.approve(
                one.run, one.approval, approved=True, by=order["by"], principal=order["by"]
            )
        return {"approved": len(page.waiting)} if page.waiting else {"nothing": True}

    async def _link(self, order: Order) -> dict[str, Any]:
        page = await self._inbox.page(order["by"], thread=order["thread"])
        if not page.waiting:
            return {"nothing": True}
        one = page.waiting[0]
        link = await self._links.make(
            one.run, one.approval, principal=order["by"], maker=order["by"], choice="approve"
        )
        return {"link": link.id, "run": link.run, "member": link.member}

    async def _decide(self, order: Order) -> dict[str, Any]:
        link = await self._links.get(order["run"], order["link"])
        if link is None:
            return {"state": "gone"}
        return {"state": (await self._links.decide(link, None)).state}

    # Readers.

    async def _read(self, order: Order) -> dict[str, Any]:
        """Follow the conversation, as the route does, for some seconds."""
        info: Any = SimpleNamespace(principal=order["by"], by=order["by"])
        opened = time.monotonic()
        stream = await open_thread(self._state, info, order["thread"], None, whole=True)
        self._serve(stream, order, opened)
        return {"reads": True}

    async def _follow(self, order: Order) -> dict[str, Any]:
        """Follow one run of it."""
        opened = time.monotonic()
        follower = await self._runs.follow(order["run"], principal=order["by"])
        self._serve(follower, order, opened)
        return {"reads": True}

    def _serve(self, stream: Any, order: Order, opened: float) -> None:
        task = asyncio.create_task(self._pump(stream, order, opened))
        self._readers.add(task)
        task.add_done_callback(self._readers.discard)

    async def _pump(self, stream: Any, order: Order, opened: float) -> None:
        name = {"key": order["by"], "thread": order["thread"]}
        try:
            async with asyncio.timeout(order["seconds"]):
                while (batch := await stream.next()) is not None:
                    self._write("seen", **name, events=len(batch.events()))
        except TimeoutError:
            pass
        except TokenwireError as error:
            self._write("barred", **name, opened=opened, code=error.code)
        finally:
            stream.close()

    async def aclose(self) -> None:
        for task in list(self._readers):
            task.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)
        await self.conversations.aclose()


async def serve(pipe: Connection, place: Place) -> None:
    loop = asyncio.get_running_loop()
    orders: asyncio.Queue[Order | None] = asyncio.Queue()
    journal, owner = Journal(place.journal), place.owner()
    runs = fault_worker.make_runs(place, journal, owner=owner)
    await runs.open()
    desk = Desk(runs, journal, owner)
    desk.conversations.open()
    carriers: set[asyncio.Task[None]] = set()

    def receive() -> None:
        try:
            orders.put_nowait(pipe.recv())
        except (EOFError, OSError):
            loop.remove_reader(pipe.fileno())
            orders.put_nowait(None)

    async def carry_out(order: Order) -> None:
        answer = await desk.do(order)
        with contextlib.suppress(OSError):
            pipe.send(answer)

    loop.add_reader(pipe.fileno(), receive)
    pipe.send({"ready": True})
    while (order := await orders.get()) is not None:
        task = asyncio.create_task(carry_out(order))
        carriers.add(task)
        task.add_done_callback(carriers.discard)
    await desk.aclose()
    await fault_worker.leave(runs)


def main(pipe: Connection, place: Place) -> None:
    logging.getLogger("tokenwire").setLevel(logging.ERROR)  # that runs are lost is the point
    asyncio.run(serve(pipe, place))
