"""A model call that is cancelled while its answer comes: the connection is closed all the same."""

from __future__ import annotations

import asyncio

import pytest

from support.spine import OneModel, request_of, run_async, simulator
from tokenwire.providers.base import Call
from tokenwire.providers.http.client import HttpClient
from tokenwire.run.call.deadlines import Deadlines
from tokenwire.run.call.source import _open
from tokenwire.run.inbox import Inbox


class Stream:
    status = 200
    headers: dict[str, str] = {}

    def __init__(self) -> None:
        self.errors: list[Exception] = []

    def abort(self, error: Exception) -> None:
        self.errors.append(error)


class Quick:
    """A client whose answers come at once, or after some turns of the loop."""

    def __init__(self, turns: int = 0) -> None:
        self.stream, self.turns, self.answers = Stream(), turns, 0

    async def open(self, call: Call, *, connect_timeout: float) -> Stream:
        for _ in range(self.turns):
            await asyncio.sleep(0)
        self.answers += 1
        return self.stream


CALL = Call(method="POST", url="http://127.0.0.1:9/", headers={}, body=b"{}")


@pytest.mark.parametrize("turns", range(6))
def test_an_answer_that_comes_with_the_cancel_of_its_task_is_closed(turns: int) -> None:
    """In whichever turn of the loop the cancel falls."""

    async def main() -> None:
        http = Quick(turns=2)
        task = asyncio.create_task(_open(http, CALL, Deadlines(), Inbox()))  # type: ignore[arg-type]
        for _ in range(turns):
            await asyncio.sleep(0)
        was_open = task.done()
        task.cancel()
        await asyncio.wait([task])
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        if was_open:
            assert task.result() is http.stream
        else:
            assert task.cancelled()
            assert len(http.stream.errors) == http.answers

    run_async(main())


def test_a_connection_whose_call_was_cancelled_in_any_turn_is_not_left_open() -> None:
    async def main() -> None:
        async with simulator() as server:
            http = HttpClient(env={})
            dialect, target = OneModel(server.url).resolve("m0")
            call = dialect.build(request_of("scenario:text"), target)
            for turns in range(60):
                task = asyncio.create_task(_open(http, call, Deadlines(), Inbox()))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
                if not task.cancelled():
                    await task.result().aclose()
            async with asyncio.timeout(40):
                while len(http._pool) > sum(map(len, http._pool._idle.values())):
                    await asyncio.sleep(0.05)
            await http.aclose()

    run_async(main())
