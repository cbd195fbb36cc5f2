"""Commands to a run whose mailbox Redis has lost: those that come later arrive, and nobody hears of
one that is lost that it is stored."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from support.raw_provider import HEAD, chunked, raw_provider
from support.redis import RedisServer, redis_server
from support.redis_cases import until
from support.spine import relay, request_of, run_async, simulator
from tokenwire.errors import StoreUnavailableError
from tokenwire.events import model as m
from tokenwire.log.open import open_store
from tokenwire.relay import commands
from tokenwire.relay.owned import OwnedRun
from tokenwire.relay.replay import read_run
from tokenwire.relay.runs import Runs
from tokenwire.tools.registry import tool

pytestmark = pytest.mark.redis


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


def _said(text: str) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return chunked(b"data: %b\n\n" % json.dumps({"id": "r", "choices": [choice]}).encode())


@pytest.mark.parametrize("words", [1, 8])
def test_a_run_whose_append_found_the_loss_can_be_cancelled(
    server: RedisServer, words: int
) -> None:
    """It has read two commands of the old mailbox; the cancel is the first one of the new."""

    async def main() -> None:
        progress, is_lost = asyncio.Event(), asyncio.Event()

        async def answer(_: int, writer: asyncio.StreamWriter) -> None:
            writer.write(HEAD)
            for number in range(words):
                progress.clear()
                writer.write(_said(f"word{number} "))
                await progress.wait()
            await is_lost.wait()
            writer.write(_said("last"))
            await asyncio.Event().wait()

        async with (
            raw_provider(answer) as provider,
            relay(provider, log=open_store(server.url)) as runs,
        ):
            run = (await runs.start(request_of("Hi"), model="m0")).id
            key = f"tw:{{{run}}}:log"

            async def stored(text: str) -> None:
                await until(lambda: text in str(server.answer("LRANGE", key, "-1", "-1")))

            async with asyncio.timeout(40):
                for number in range(words):
                    await stored(f"word{number} ")
                    progress.set()
                for number in range(2):
                    await runs.steer(run, f"t{number}", "Shorter")
                await until(lambda: runs.owned[run].seen_commands == 2)
                server.ask("FLUSHALL")
                is_lost.set()
                await stored("last")
                owned = runs.owned[run]
                await runs.cancel(run)
                await owned.task
            assert (await runs.store.describe(run)).closed == "cancelled"
            events = (await read_run(runs.store, run)).events()
        text = "".join(event.text for event in events if isinstance(event, m.TextDelta))
        assert text == "".join(f"word{number} " for number in range(words)) + "last"

    run_async(main())


@tool(needs_approval=True)
def delete_file(path: str) -> str:
    """Delete."""
    return "gone"


def test_whoever_answers_hears_that_the_answer_is_lost(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was recorded; before the run, in another process, has read it, Redis loses all."""
    monkeypatch.setattr(commands, "_TAKEN_SECONDS", 0.0)

    async def main() -> None:
        async with (
            simulator() as model,
            relay(model, log=open_store(server.url), tools=[delete_file], lease=60.0) as runs,
            relay(model, log=open_store(server.url)) as door,
        ):
            run = (await runs.start(request_of("scenario:approval"), model="m0")).id
            [approval] = await until(waiting_of(runs, run))
            owned, store = runs.owned[run], runs.store
            with monkeypatch.context() as busy:
                busy.setattr(OwnedRun, "deliver", lambda self, commands: False)
                assert not await door.approve(run, approval, approved=True), "it has time"
                real, checks = door.store.commands, commands.check_first

                def check_first(*arguments: Any) -> None:
                    checks(*arguments)
                    server.ask("FLUSHALL")

                async def put_back(log: str, **more: Any) -> Any:
                    if server.answer("EXISTS", f"tw:{{{run}}}:meta"):
                        return await real(log, **more)
                    raise AssertionError("it is described first")

                async def describe(log: str) -> Any:
                    if not server.answer("EXISTS", f"tw:{{{run}}}:meta"):
                        assert await store._losses.put_back(run)  # type: ignore[attr-defined]
                        await until(lambda: server.answer("LLEN", f"tw:{{{run}}}:log"))
                    return await store.describe(log)

                busy.setattr("tokenwire.relay.runs.check_first", check_first)
                busy.setattr(door.store, "commands", put_back)
                busy.setattr(door.store, "describe", describe)
                with pytest.raises(StoreUnavailableError, match="send it again"):
                    await door.approve(run, approval, approved=True)
            await door.approve(run, approval, approved=True)
            await owned.task
            fold = await runs.fold(run)
            assert [call.approved for call in fold.tools.values()] == [True]

    run_async(main())


def waiting_of(runs: Runs, run: str) -> Any:
    async def waiting() -> list[str]:
        return (await runs.fold(run)).waiting

    return waiting


def test_a_run_can_be_cancelled_behind_commands_that_only_the_mailbox_lost() -> None:
    """A server that starts again from an older copy has the log and fewer commands of it: those
    that come then are not those that the run has read."""

    async def main(server: RedisServer) -> None:
        async def answer(_: int, writer: asyncio.StreamWriter) -> None:
            writer.write(HEAD)
            writer.write(_said("word "))
            await asyncio.Event().wait()

        async with (
            raw_provider(answer) as provider,
            relay(provider, log=open_store(server.url)) as runs,
        ):
            run = (await runs.start(request_of("Hi"), model="m0")).id
            key = f"tw:{{{run}}}:log"
            async with asyncio.timeout(40):
                await until(lambda: "word " in str(server.answer("LRANGE", key, "-1", "-1")))
                assert server.answer("SAVE") == b"OK"
                for number in range(3):
                    await runs.steer(run, f"t{number}", "Shorter")
                await until(lambda: runs.owned[run].seen_commands == 3)
                owned = runs.owned[run]
                server.kill()
                server.start()
                await runs.cancel(run)
                await owned.task
            assert (await runs.store.describe(run)).closed == "cancelled"

    with redis_server("--appendonly", "no") as server:
        run_async(main(server))


def test_a_question_that_was_lost_is_written_again_while_the_run_waits() -> None:
    """A server that starts again from an older copy has the log without its end; the run has
    nothing to append that would find out."""

    async def main(server: RedisServer) -> None:
        async with (
            simulator() as model,
            relay(model, log=open_store(server.url), tools=[delete_file], lease=3.0) as runs,
        ):
            run = (await runs.start(request_of("scenario:approval"), model="m0")).id
            key = f"tw:{{{run}}}:log"
            [approval] = await until(waiting_of(runs, run))
            tail = runs.owned[run].producer.tail
            assert server.answer("LTRIM", key, "0", "3") == b"OK"
            assert server.answer("SAVE") == b"OK"
            server.kill()
            server.start()
            await until(lambda: server.answer("LLEN", key) == tail, seconds=30)
            owned = runs.owned[run]
            async with relay(model, log=open_store(server.url)) as door:
                await door.approve(run, approval, approved=True)
                await owned.task
                fold = await door.fold(run)
            assert [call.approved for call in fold.tools.values()] == [True]

    with redis_server("--appendonly", "no") as server:
        run_async(main(server))
