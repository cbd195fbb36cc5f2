"""Appends that fail while nobody waits for them: readers have their records all the same, while the
provider says nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.raw_provider import HEAD, chunked, raw_provider
from support.spine import QUICK, OneModel, request_of, run_async
from tokenwire.errors import StoreUnavailableError
from tokenwire.events import model as m
from tokenwire.log.base import Store
from tokenwire.log.spool import Batch
from tokenwire.log.sqlite.store import SQLiteStore
from tokenwire.observe.facts import Fact, RunLeft
from tokenwire.observe.hooks import observe
from tokenwire.relay.runs import Runs
from tokenwire.run.stream import new_run_id

NewLog = Callable[[], Store]


def _said(delta: dict[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return chunked(b"data: %b\n\n" % json.dumps({"id": "r", "choices": [choice]}).encode())


END = _said({}, "stop") + chunked(b"data: [DONE]\n\n") + b"0\r\n\r\n"


class Groups:
    """What becomes of a store's groups."""

    def __init__(self, store: SQLiteStore) -> None:
        self._carry = store._tails._carry
        #: Whether the next one fails before it gets to the store.
        self.fail = False
        self.failed = asyncio.Event()
        store._tails._carry = self.carry

    def carry(self, batch: Batch) -> None:
        if self.fail:
            self.fail = False
            self.failed.set()
            raise StoreUnavailableError("a test's fault")
        self._carry(batch)


@pytest.mark.parametrize("words", [1, 2, 8])
def test_readers_have_all_that_a_silent_provider_has_said(tmp_path: Path, words: int) -> None:
    async def main() -> None:
        store = SQLiteStore(str(tmp_path / "runs.db"))
        groups, is_read = Groups(store), asyncio.Event()
        progress = asyncio.Event()

        async def answer(_: int, writer: asyncio.StreamWriter) -> None:
            writer.write(HEAD + _said({"role": "assistant"}))
            for number in range(words):
                progress.clear()
                writer.write(_said({"content": f"word{number} "}))
                await progress.wait()
            groups.fail = True
            writer.write(_said({"content": "last"}))
            await is_read.wait()
            writer.write(END)
            await asyncio.Event().wait()

        async with raw_provider(answer) as provider:
            runs = Runs(store, registry=OneModel(provider.url), retry=QUICK)  # type: ignore[arg-type]
            await runs.open()
            info = await runs.start(request_of("Hi"), model="m0")
            follower = await runs.follow(info.id)
            events: list[Any] = []
            async with asyncio.timeout(20):
                while (batch := await follower.next()) is not None:
                    events += [event for _, event in batch.events()]
                    progress.set()
                    if isinstance(events[-1], m.TextDelta) and events[-1].text == "last":
                        is_read.set()
            follower.close()
            await runs.aclose()
        text = "".join(event.text for event in events if isinstance(event, m.TextDelta))
        assert text == "".join(f"word{number} " for number in range(words)) + "last"
        assert groups.failed.is_set()
        assert [event.seq for event in events] == [*range(1, len(events) + 1)]
        assert isinstance(end := events[-1], m.RunEnd)
        assert end.outcome == "complete"

    run_async(main())


@pytest.mark.parametrize("words", [0, 1, 8])
def test_a_run_that_was_taken_over_ends_here_while_its_provider_is_silent(
    every_log: NewLog, words: int
) -> None:
    """The store is asked once; and the provider, whom another worker asks by now, is let go."""

    async def main() -> None:
        store = every_log()
        real, progress = store.append, asyncio.Event()
        run, facts, asked, taken = new_run_id(), list[Fact](), list[int](), False

        async def append(*arguments: Any, **options: Any) -> Any:
            if taken:
                asked.append(options["first"])
            return await real(*arguments, **options)

        async def answer(_: int, writer: asyncio.StreamWriter) -> None:
            nonlocal taken
            writer.write(HEAD + _said({"role": "assistant"}))
            for number in range(words):
                progress.clear()
                writer.write(_said({"content": f"word{number} "}))
                await progress.wait()
            [(_, epoch)] = await store.leases({runs.owner})
            await store.release(run, epoch=epoch)
            assert await store.claim(run, owner="another", lease=60.0)
            taken = True
            writer.write(_said({"content": "last"}))
            await asyncio.Event().wait()

        async with raw_provider(answer) as provider:
            runs = Runs(store, registry=OneModel(provider.url), retry=QUICK)  # type: ignore[arg-type]
            await runs.open()
            store.append = append  # type: ignore[method-assign]
            unobserve = observe(facts.append)
            await runs.start(request_of("Hi"), model="m0", run_id=run)
            follower, said = await runs.follow(run), 0
            async with asyncio.timeout(20):
                while said < words:
                    batch = await follower.next()
                    assert batch is not None
                    words_of = [e for _, e in batch.events() if isinstance(e, m.TextDelta)]
                    said += len(words_of)
                    if words_of:  # a step that begins is no word
                        progress.set()
                await provider.left.wait()
            unobserve()
            follower.close()
            await runs.aclose()
        assert [fact.why for fact in facts if isinstance(fact, RunLeft)] == ["fenced"]
        # The beginning of a text is waited for; and memory answers at once.
        assert len(asked) == (words == 0 or not store.shared)

    run_async(main())
