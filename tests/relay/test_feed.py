"""The feed of a conversation: told once, in order, whoever tells it and whatever dies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from support.conversation import THREAD, Device, HeldModel, device, until
from support.spine import run_async
from tokenwire.errors import CursorError, GoneError
from tokenwire.log.base import Store
from tokenwire.relay.conversation.feed import Feeds
from tokenwire.relay.conversation.scope import scope_of
from tokenwire.relay.feed import segment
from tokenwire.relay.feed.follower import FeedFollower, Lost, open_feed
from tokenwire.relay.feed.segment import Place
from tokenwire.relay.feed.state import CONVERSATION
from tokenwire.relay.threads import Threads

SCOPE = scope_of("", THREAD)


class Reader:
    """What one device hears of a conversation."""

    def __init__(self, follower: FeedFollower) -> None:
        self.follower = follower
        self.events: list[dict[str, Any]] = []
        self.cursors: list[str] = []

    @property
    def types(self) -> list[str]:
        return [event["type"] for event in self.events]

    async def pull(self) -> bool:
        for cursor, data in await self.follower.pull():
            self.events.append(msgspec.json.decode(data))
            self.cursors.append(cursor)
        return True

    async def until(self, condition: Callable[[], bool]) -> None:
        async def holds() -> bool:
            await self.pull()
            return condition()

        await until(holds)


@asynccontextmanager
async def reading(here: Device, cursor: str | None = None) -> AsyncIterator[Reader]:
    feeds = here.runs.worker.feeds
    follower, _ = await open_feed(here.runs.store, feeds, SCOPE, cursor, lambda: None)
    try:
        yield Reader(follower)
    finally:
        follower.close()


def test_a_turn_is_told_when_it_starts_and_when_it_ends(new_log: Callable[[], Store]) -> None:
    async def main() -> None:
        async with device(new_log(), HeldModel()) as here, reading(here) as reader:
            first = (await here.done(await here.ask("one"))).run
            second = (await here.done(await here.ask("two", principal=""))).run
            await reader.until(lambda: reader.types.count("run-ended") == 2)
            assert reader.types == ["run-started", "run-ended"] * 2
            assert [event["run"] for event in reader.events] == [first, first, second, second]
            assert [e["parent"] for e in reader.events if e["type"] == "run-started"] == [
                None,
                first,
            ]
            assert {event["thread"] for event in reader.events} == {THREAD}
            assert [event["outcome"] for event in reader.events[1::2]] == ["complete"] * 2
            assert all(event["at"] > 1e12 and "by" in event for event in reader.events)

    run_async(main())


def test_a_run_of_the_millisecond_in_which_history_ends_is_told() -> None:
    state = CONVERSATION.state()
    state.take({"type": "floor", "floor": 5, "runs": ["old"]})
    assert state.is_history("older", 4)
    assert state.is_history("old", 5)
    assert not state.is_history("new", 5)
    state.take({"type": "run-started", "run": "new", "at": 5})
    state.take({"type": "run-ended", "run": "new", "outcome": "complete"})
    for number in range(128):  # its start is forgotten
        state.take({"type": "run-started", "run": f"r{number}", "at": 5 + number})
    assert state.is_history("new", 5)
    assert state.is_history("old", 5)
    assert not state.is_history("quick", 5)
    before = msgspec.json.decode(b'{"floor":5}', type=type(state))
    assert before.is_history("quick", 5)


def test_a_queue_is_told_as_it_changes(new_log: Callable[[], Store]) -> None:
    async def main() -> None:
        model = HeldModel()
        async with device(new_log(), model) as here, reading(here) as reader:
            busy = await here.ask("hold it")
            turns = [
                (await here.ask(text, while_busy="queue", by="ada")).run for text in ("a", "b", "c")
            ]
            from tokenwire.events.message import user

            await here.conversations.edit("", THREAD, turns[1], [user("b, edited")])
            await here.conversations.withdraw("", THREAD, turns[0])
            await here.runs.worker.feeds.flush()
            model.release("hold it")
            for run in [busy.run, *turns[1:]]:
                await here.done(run)
            await reader.until(lambda: reader.types.count("run-ended") == 3)
            of = [(e["type"], e.get("turn") or e.get("run")) for e in reader.events]
            queue = [one for one in of if one[0].startswith("turn-")]
            # What several changes at once come to is told, not each step of the way.
            assert {run for kind, run in queue if kind == "turn-queued"} >= {turns[2]}
            assert [one for one in queue if one[0] == "turn-withdrawn"] in (
                [],
                [("turn-withdrawn", turns[0])],
            )
            runs = [one for one in of if one[0].startswith("run-")]
            assert runs == [
                (kind, run)
                for run in [busy.run, *turns[1:]]
                for kind in ("run-started", "run-ended")
            ]
            state = await here.runs.worker.feeds.state(SCOPE)
            assert state is not None
            assert (state.queue, state.running, state.head) == ([], {}, turns[2])

    run_async(main())


def test_two_processes_tell_one_event_once(new_log: Callable[[], Store]) -> None:
    async def main() -> None:
        store = new_log()
        await store.start()
        try:
            one, two = Feeds(store), Feeds(store)
            await one.follow(SCOPE)
            for number in range(20):
                event = {"type": "note", "principal": f"p{number}"}
                one.announce(SCOPE, event, identity=f"left:p{number}")
                two.announce(SCOPE, event, identity=f"left:p{number}")
            await asyncio.gather(one.flush(), two.flush())
            follower, _ = await open_feed(store, Feeds(store), SCOPE, None, lambda: None)
            follower.close()
            events = await everything(store)
            names = [e["principal"] for e in events if e["type"] == "note"]
            assert names == [f"p{number}" for number in range(20)]
        finally:
            await store.close()

    run_async(main())


async def everything(store: Store) -> list[dict[str, Any]]:
    """All that the logs of the feed hold."""
    data = await store.document(CONVERSATION.documents, SCOPE)
    assert data is not None
    place = msgspec.json.decode(data, type=Place)
    events = []
    for log in [place.before, place.log]:
        if log is not None:
            records = (await store.read(log, most=10_000, most_bytes=1 << 24)).records
            events += [msgspec.json.decode(record[16:]) for record in records]
    return events


def test_a_long_feed_goes_on_in_the_next_log_and_stays_short(
    new_log: Callable[[], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segment, "MOST_RECORDS", 8)

    async def main() -> None:
        store = new_log()
        await store.start()
        try:
            feeds, others = Feeds(store), Feeds(store)
            follower, _ = await open_feed(store, feeds, SCOPE, None, lambda: None)
            reader = Reader(follower)
            for number in range(60):
                teller = feeds if number % 3 else others
                await teller.publish(SCOPE, [{"type": "note", "number": number}])
                if number % 5 == 4:
                    await reader.until(lambda number=number: len(reader.events) > number)
            assert [event["number"] for event in reader.events] == list(range(60))
            assert len(set(reader.cursors)) == 60
            assert len(await everything(store)) <= 17
            follower.close()
            with pytest.raises(Lost) as lost:
                await open_feed(store, feeds, SCOPE, reader.cursors[3], lambda: None)
            assert lost.value.reason == "expired"
            for cut in (50, 55, 59):
                again, _ = await open_feed(store, others, SCOPE, reader.cursors[cut], lambda: None)
                rest = Reader(again)
                await rest.until(lambda rest=rest, cut=cut: len(rest.events) >= 59 - cut)
                assert [event["number"] for event in rest.events] == list(range(cut + 1, 60))
                again.close()
        finally:
            await store.close()

    run_async(main())


def test_a_cursor_of_another_feed_or_of_one_that_was_erased_is_told_so(
    new_log: Callable[[], Store],
) -> None:
    async def main() -> None:
        async with device(new_log(), HeldModel()) as here:
            store, feeds = here.runs.store, here.runs.worker.feeds
            other = scope_of("", "other")
            mine, _ = await open_feed(store, feeds, SCOPE, None, lambda: None)
            foreign, _ = await open_feed(store, feeds, other, None, lambda: None)
            await here.done(await here.ask("one"))
            reader = Reader(mine)
            await reader.until(lambda: len(reader.events) == 2)
            number, _, check = reader.cursors[0].partition("-")
            for cursor in (foreign.cursor, f"{number}-{'0' * 16}", f"999-{check}"):
                with pytest.raises(Lost) as lost:
                    await open_feed(store, feeds, SCOPE, cursor, lambda: None)
                assert lost.value.reason == "unknown", cursor
            for cursor in ("x", "5", "1-xyz"):
                with pytest.raises(CursorError):
                    await open_feed(store, feeds, SCOPE, cursor, lambda: None)
            await Threads(here.runs).erase(THREAD, "")

            async def is_gone() -> bool:
                try:
                    await mine.pull()
                except GoneError:
                    return True
                return False

            await until(is_gone)
            await here.done(await here.ask("anew"))
            with pytest.raises(Lost) as lost:
                await open_feed(store, feeds, SCOPE, reader.cursors[0], lambda: None)
            assert lost.value.reason == "unknown"
            mine.close()
            foreign.close()

    run_async(main())


def test_what_a_dead_process_left_untold_is_told_by_another(
    new_log: Callable[[], Store],
) -> None:
    if not new_log().shared:
        pytest.skip("no other process sees this store")

    async def main() -> None:
        model = HeldModel()
        async with device(new_log(), model) as dying, device(new_log(), model) as here:
            async with reading(here) as reader:
                leave = here.runs.worker.feeds.join(SCOPE)
                busy = await dying.ask("hold it")
                await reader.until(lambda: len(reader.events) == 1)
                # From here on it is as if it died after each change, before it tells of it.
                dying.runs.worker.feeds.announce = lambda *news, **how: None  # type: ignore[method-assign]
                dying.conversations._promoter._task.cancel()  # type: ignore[union-attr]
                turn = await dying.ask("a", while_busy="queue")
                await reader.until(lambda: len(reader.events) == 2)
                model.release("hold it")
                await dying.done(busy)
                await here.done(turn.run)
                await reader.until(lambda: reader.types.count("run-ended") == 2)
                leave()
            assert reader.types == [
                "run-started",
                "turn-queued",
                "run-ended",
                "run-started",
                "run-ended",
            ]
            assert [e.get("turn") or e["run"] for e in reader.events] == [
                busy.run,
                turn.run,
                busy.run,
                turn.run,
                turn.run,
            ]

    run_async(main())


def test_what_is_told_while_a_reader_reads_wakes_it(
    new_log: Callable[[], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        store = new_log()
        await store.start()
        try:
            feeds = Feeds(store)
            follower, _ = await open_feed(store, feeds, SCOPE, None, lambda: None)
            await follower.pull()
            late, read = False, store.read

            async def slow(log: str, **how: Any) -> Any:
                nonlocal late
                page = await read(log, **how)
                if not late and not how.get("fresh"):  # its answer was on its way meanwhile
                    late = True
                    await feeds.publish(SCOPE, [{"type": "note"}])
                return page

            monkeypatch.setattr(store, "read", slow)
            follower._wake()  # a wake-up that nothing came with
            items = [*await follower.pull(), *await follower.pull()]
            assert late
            assert [msgspec.json.decode(data)["type"] for _, data in items] == ["note"]
            follower.close()
        finally:
            await store.close()

    run_async(main())


def test_nobody_follows_and_nothing_is_kept(new_log: Callable[[], Store]) -> None:
    async def main() -> None:
        async with device(new_log(), HeldModel()) as here:
            await here.done(await here.ask("one"))
            await here.runs.worker.feeds.flush()
            assert await here.runs.store.document(CONVERSATION.documents, SCOPE) is None
            async with reading(here) as reader:
                await reader.pull()
                assert reader.events == []
            assert await here.runs.store.document(CONVERSATION.documents, SCOPE) is not None
            await Threads(here.runs).erase(THREAD, "")
            assert await here.runs.store.document(CONVERSATION.documents, SCOPE) is None

    run_async(main())
