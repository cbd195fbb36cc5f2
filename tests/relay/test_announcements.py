"""News of conversations that met an error of the store, or whose teller died: told all the same."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import msgspec
import pytest

from support.conversation import THREAD, Device, HeldModel, device, until
from support.spine import run_async
from tokenwire import tool
from tokenwire.errors import NotFoundError, StoreUnavailableError
from tokenwire.events.message import user
from tokenwire.log.base import Store
from tokenwire.relay.conversation.feed import Feeds
from tokenwire.relay.conversation.scope import scope_of
from tokenwire.relay.feed import announcer
from tokenwire.relay.feed.announcer import Announcer
from tokenwire.relay.feed.follower import FeedFollower, open_feed
from tokenwire.relay.members.access import Access
from tokenwire.relay.thread_list.entries import ENTRY, Entry, encoded, entry_of
from tokenwire.relay.thread_list.lists import FIRST_PAGE, feed_of
from tokenwire.relay.thread_list.stream import ListStream
from tokenwire.relay.threads import Threads

SCOPE = scope_of("ann", THREAD)


class Heard:
    """What one device hears of a feed."""

    def __init__(self, follower: FeedFollower) -> None:
        self.follower = follower
        self.events: list[dict[str, Any]] = []

    def of(self, *kinds: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"].startswith(kinds)]

    async def until(self, condition: Callable[[], bool]) -> None:
        async def holds() -> bool:
            items = await self.follower.pull()
            self.events += [msgspec.json.decode(data) for _, data in items]
            return condition()

        await until(holds)


@asynccontextmanager
async def hearing(store: Store, feeds: Feeds) -> AsyncIterator[Heard]:
    follower, _ = await open_feed(store, feeds, SCOPE, None, lambda: None)
    leave = feeds.join(SCOPE)
    try:
        yield Heard(follower)
    finally:
        leave()
        follower.close()


class Failing:
    """Makes calls of a store fail; with ``late`` after they were carried out."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
        self.is_on = self.is_late = False
        self.count = 0
        for name in names:
            monkeypatch.setattr(store, name, self._wrapped(getattr(store, name)))

    def _wrapped(self, call: Any) -> Any:
        async def wrapped(*args: Any, **how: Any) -> Any:
            result = None
            if not self.is_on or self.is_late:
                result = await call(*args, **how)
            if self.is_on:
                self.count += 1
                raise StoreUnavailableError("the store is away")
            return result

        return wrapped


@pytest.mark.parametrize("is_late", [False, True], ids=["refused", "answer-lost"])
def test_what_the_store_refuses_is_told_again_in_order_and_once(
    new_log: Callable[[], Store], monkeypatch: pytest.MonkeyPatch, is_late: bool
) -> None:
    async def main() -> None:
        store = new_log()
        await store.start()
        try:
            feeds = Feeds(store)
            async with hearing(store, feeds) as heard:
                failing = Failing(store, monkeypatch, "append")
                failing.is_on, failing.is_late = True, is_late
                for number in range(100):
                    feeds.announce(SCOPE, {"type": "note", "number": number}, identity=f"n{number}")
                await until(lambda: failing.count >= 2)
                feeds.announce(SCOPE, {"type": "note", "number": 100}, identity="n100")
                failing.is_on = False
                await heard.until(lambda: len(heard.of("note")) >= 101)
                await feeds.aclose()
                assert [event["number"] for event in heard.of("note")] == list(range(101))
        finally:
            await store.close()

    run_async(main())


@pytest.mark.parametrize("name", ["document", "read", "describe"])
def test_a_read_that_fails_loses_no_news(
    new_log: Callable[[], Store], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    async def main() -> None:
        async with device(new_log(), HeldModel()) as here:
            store, threads = here.runs.store, Threads(here.runs)
            await here.done(await here.ask("one", principal="ann"))
            async with hearing(store, here.runs.worker.feeds) as heard:
                run = await here.ask("hold it", principal="ann")
                await heard.until(lambda: len(heard.of("run-started")) == 1)
                failing = Failing(store, monkeypatch, name)
                failing.is_on = True
                here.runs.worker.feeds.announce_title(SCOPE)
                here.runs.worker.feeds.announce_queue(SCOPE)
                here.runs.worker.feeds.announce_run(SCOPE, run.run)
                if name != "read":  # what is read once is remembered
                    await until(lambda: failing.count >= 1)
                failing.is_on = False
                await threads.rename("ann", THREAD, "another")
                await here.runs.cancel(run.run, principal="ann")
                await heard.until(lambda: bool(heard.of("run-ended") and heard.of("title")))
                assert len(heard.of("title")) == 1

    run_async(main())


def test_what_waits_to_be_told_is_bounded_and_not_told_twice() -> None:
    async def main() -> None:
        published: list[int] = []
        is_away = True

        async def publish(subject: str, news: list[int]) -> None:
            if is_away:
                raise StoreUnavailableError("the store is away")
            published.extend(news)

        queue = Announcer(publish, "a test")
        for number in range(announcer.MOST_KEPT + 50):
            queue.announce("one", number, key=number)
            queue.announce("one", number, key=number)
        await asyncio.sleep(0)
        is_away = False
        await until(lambda: len(published) == announcer.MOST_KEPT)
        assert published == list(range(50, announcer.MOST_KEPT + 50))
        is_away = True
        queue.announce("one", 0)
        await queue.aclose()  # with one attempt, however the store is

    run_async(main())


@pytest.mark.parametrize(
    "error", [ZeroDivisionError(), NotFoundError("gone"), asyncio.CancelledError()]
)
def test_an_error_that_nobody_knows_delays_news_and_loses_none(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        published: list[int] = []
        failures = 3

        async def publish(subject: str, news: list[int]) -> None:
            nonlocal failures
            if failures:
                failures -= 1
                raise error
            published.extend(news)

        queue = Announcer(publish, "a test")
        for number in range(5):
            queue.announce("one", number)
        await until(lambda: len(published) == 5)
        assert published == list(range(5))
        await queue.aclose()

    run_async(main())
    assert (
        len([r for r in caplog.records if "cannot publish a change of a test yet" in r.message])
        == 1
    )


@pytest.mark.parametrize("is_end", [False, True])
def test_one_news_that_can_never_be_told_takes_no_other_with_it(
    is_end: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if not is_end:
        monkeypatch.setattr(announcer, "_BROKEN_SECONDS", 0.0)

    async def main() -> None:
        published: list[int] = []

        async def publish(subject: str, news: list[int]) -> None:
            if 3 in news:
                raise ZeroDivisionError
            published.extend(news)

        queue = Announcer(publish, "a test")
        for number in range(6):
            queue.announce("one", number)
        if is_end:
            await asyncio.sleep(0)
            await queue.aclose()
        await until(lambda: len(published) == 5)
        assert published == [0, 1, 2, 4, 5]
        await queue.aclose()

    run_async(main())
    assert "that cannot be published" in caplog.text


def test_news_of_an_attempt_under_way_are_not_taken_for_told() -> None:
    async def main() -> None:
        gate, published = asyncio.Event(), 0

        async def publish(subject: str, news: list[None]) -> None:
            nonlocal published
            published += 1
            await gate.wait()

        queue = Announcer(publish, "a test")
        queue.announce("one", None, key="same")
        await until(lambda: published == 1)
        queue.announce("one", None, key="same")  # the change came after the store was read
        queue.announce("one", None, key="same")
        gate.set()
        await until(lambda: published == 2)
        await queue.aclose()
        assert published == 2

    run_async(main())


def mute(here: Device) -> None:
    """From here on it is as if this process died after each change, before it tells of it."""
    worker = here.runs.worker
    worker.feeds._announcer.announce = lambda *news, **how: None  # type: ignore[method-assign]
    worker.lists._announcer.announce = lambda *news, **how: None  # type: ignore[method-assign]
    here.conversations._promoter._task.cancel()  # type: ignore[union-attr]


class Calls(HeldModel):
    async def open(self, call: Any, *, connect_timeout: float = 5.0) -> Any:
        stream = await super().open(call, connect_timeout=connect_timeout)
        if self.questions[-1].startswith("delete") and self.requests[-1][-1]["role"] == "user":
            stream.call({"name": "delete_file", "arguments": '{"path": "x"}'})
        return stream


@tool(needs_approval=True)
def delete_file(path: str) -> str:
    """Delete it."""
    return "gone"


async def approval_of(here: Device, run: str) -> str:
    """What the run waits for, once it does."""

    async def is_waiting() -> bool:
        return (await here.runs.info(run, principal="ann")).state == "waiting"

    await until(is_waiting)
    fold = await here.runs.fold(run, principal="ann")
    return next(tool.approval_id or "" for tool in fold.tools.values())


def test_title_members_and_decisions_of_a_dead_process_are_told_by_another(
    new_log: Callable[[], Store],
) -> None:
    if not new_log().shared:
        pytest.skip("no other process sees this store")

    async def main() -> None:
        model = Calls()
        tools = [delete_file]
        async with (
            device(new_log(), model, tools=tools) as dying,
            device(new_log(), model, tools=tools) as here,
            hearing(here.runs.store, here.runs.worker.feeds) as heard,
        ):
            run = (await dying.ask("delete it", principal="ann")).run
            approval = await approval_of(dying, run)
            await heard.until(lambda: bool(heard.of("run-waiting")))
            mute(dying)
            await Threads(dying.runs).rename("ann", THREAD, "another")
            ann = Access(SCOPE, "ann", THREAD)
            await dying.runs.members.put(ann, "bob", "write")
            await dying.runs.members.put(ann, "carl", "read")
            await dying.runs.members.put(ann, "bob", "approve")
            await dying.runs.members.remove(ann, "carl")
            await dying.runs.approve(run, approval, approved=True, by="bob", principal="bob")
            await dying.done(run)
            await heard.until(lambda: bool(heard.of("run-ended")))
            await heard.until(lambda: bool(heard.of("member-") and heard.of("title")))
            [decision] = heard.of("approval")
            assert (decision["run"], decision["decision"]) == (run, "approved")
            assert decision["by"] == "bob"
            kinds = [event["type"] for event in heard.of("run-", "approval")]
            assert kinds[-2:] == ["approval", "run-ended"]
            [member] = heard.of("member-")
            assert (member["type"], member["principal"]) == ("member-joined", "bob")
            assert member["role"] == "approve"
            assert len(heard.of("title")) == 1

    run_async(main())


def test_the_same_call_in_another_run_is_decided_anew(new_log: Callable[[], Store]) -> None:
    async def main() -> None:
        async with (
            device(new_log(), Calls(), tools=[delete_file]) as here,
            hearing(here.runs.store, here.runs.worker.feeds) as heard,
        ):
            for question, is_approved in (("delete it", True), ("delete that", False)):
                run = (await here.ask(question, principal="ann")).run
                approval = await approval_of(here, run)
                await here.runs.approve(run, approval, approved=is_approved, principal="ann")
                await here.done(run)
            await heard.until(lambda: len(heard.of("run-ended")) == 2)
            decisions = [event["decision"] for event in heard.of("approval")]
            assert decisions == ["approved", "denied"]

    run_async(main())


@asynccontextmanager
async def listening(here: Device, principal: str = "ann") -> AsyncIterator[list[dict[str, Any]]]:
    """What a reader of a list of conversations hears."""
    stream = ListStream(here.runs.store, here.runs.worker.lists, principal)
    events: list[dict[str, Any]] = []

    async def read() -> None:
        while (batch := await stream.next()) is not None:
            events.extend(msgspec.json.decode(data) for _, data in batch.parts())

    await stream.begin(None)
    task = asyncio.create_task(read())
    try:
        await until(lambda: bool(events))
        yield events
    finally:
        stream.close()
        await task


def test_a_list_hears_what_a_dead_process_left_untold(new_log: Callable[[], Store]) -> None:
    if not new_log().shared:
        pytest.skip("no other process sees this store")

    async def main() -> None:
        model = HeldModel()
        async with (
            device(new_log(), model) as dying,
            device(new_log(), model) as here,
            listening(here) as events,
        ):
            lists, threads = here.runs.worker.lists, Threads(dying.runs)

            async def ask(thread: str, question: str) -> str:
                reply = await dying.ask(question, principal="ann", thread=thread)
                await threads.touch("ann", thread, [user(question)], reply.run)
                return reply.run

            def newest(thread: str) -> dict[str, Any] | None:
                entries = [e.get("entry") for e in events if e.get("thread") == thread]
                return entries[-1] if entries else None

            run = await ask("busy", "hold it")
            await until(lambda: (newest("busy") or {}).get("state") == "running")
            await threads.rename("ann", "erased", "soon")
            await until(lambda: newest("erased") is not None)
            mute(dying)
            model.release("hold it")
            await dying.done(run)
            # Within seconds, by the process in which somebody follows the list.
            await until(lambda: (newest("busy") or {"state": 1}).get("state") is None)
            await threads.rename("ann", "busy", "another")
            await threads.rename("ann", "new", "fresh")
            await threads.erase("erased", "ann")
            await lists.repair("ann", is_whole=True)
            await until(lambda: (newest("busy") or {}).get("title") == "another")
            await until(lambda: (newest("new") or {}).get("title") == "fresh")
            await until(lambda: newest("erased") is None)
            assert events[-1]["type"] in ("thread", "thread-gone")
            count = len(events)
            await lists.repair("ann", is_whole=True)
            await lists.flush()
            state = await lists._writer.state(feed_of("ann"))
            assert state is not None
            assert len(events) == count
            # An older server says of a run only when it began.
            older = encoded(Entry(updated=time.time() + 1, first="asked there"))
            await dying.runs.store.set_document(ENTRY, scope_of("ann", "busy"), older)
            await lists.repair("ann", is_whole=True)
            await until(lambda: (newest("busy") or {}).get("updated") == entry_of(older).updated)

    run_async(main())


def test_a_list_costs_nothing_where_nobody_follows_one_and_little_where_somebody_does(
    new_log: Callable[[], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"member-{number}" for number in range(100)]

    async def main() -> None:
        async with device(new_log(), HeldModel()) as here:
            store, worker = here.runs.store, here.runs.worker
            threads = Threads(here.runs)
            await here.done(await here.ask("one", principal="ann"))
            await threads.rename("ann", THREAD, "named")
            for name in names:
                await here.runs.members.put(Access(SCOPE, "ann", THREAD), name, "read")
            await worker.feeds.flush()
            await worker.lists.flush()
            calls: list[str] = []
            for name in ("document", "documents", "count_documents", "read", "describe", "append"):
                call = getattr(store, name)

                async def counted(
                    *args: Any, call: Any = call, name: str = name, **how: Any
                ) -> Any:
                    calls.append(name)
                    return await call(*args, **how)

                monkeypatch.setattr(store, name, counted)
            worker.lists.changed(SCOPE)
            await worker.lists.flush()
            assert calls == ["count_documents"]
            async with listening(here, names[7]) as events:
                await threads.rename("ann", THREAD, "renamed")
                await until(lambda: events[-1].get("entry", {}).get("title") == "renamed")
                await worker.lists.flush()
                calls.clear()
                await store.set_document("thread-title", SCOPE, b"again")
                worker.lists.changed(SCOPE)
                await worker.lists.flush()
                assert len(calls) < 25, calls
                await until(lambda: events[-1].get("entry", {}).get("title") == "again")

    run_async(main())


def test_a_reader_that_was_away_gets_each_conversation_once(new_log: Callable[[], Store]) -> None:
    async def main() -> None:
        async with device(new_log(), HeldModel()) as here:
            worker, threads = here.runs.worker, Threads(here.runs)
            stream = ListStream(here.runs.store, worker.lists, "ann")
            await stream.begin(None)
            await stream.ready()
            for number in range(60):
                await threads.rename("ann", f"t{number % 3}", f"title {number}")
                await worker.feeds.flush()
                await worker.lists.flush()
            batch = await stream.ready()
            events = [msgspec.json.decode(data) for _, data in batch.parts()]
            assert sorted(event["entry"]["title"] for event in events) == [
                "title 57",
                "title 58",
                "title 59",
            ]
            stream.close()

    run_async(main())


def test_a_list_that_nobody_reads_any_more_goes(
    new_log: Callable[[], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with device(new_log(), HeldModel()) as here:
            store, lists = here.runs.store, here.runs.worker.lists
            async with listening(here):
                pass
            assert await store.count_documents("thread-list") == 1
            await store.set_document("thread-list-read", feed_of("ann"), b"1000.0")
            await Threads(here.runs).rename("bob", "other", "x")
            await lists.flush()
            assert await store.count_documents("thread-list") == 0
            async with listening(here) as events:  # and begins anew
                await Threads(here.runs).rename("ann", "mine", "x")
                await until(lambda: events[-1].get("thread") == "mine")

    run_async(main())


def test_a_snapshot_is_one_page(new_log: Callable[[], Store]) -> None:
    async def main() -> None:
        async with device(new_log(), HeldModel()) as here:
            threads = Threads(here.runs)
            for number in range(FIRST_PAGE + 5):
                await threads.rename("ann", f"t{number:02d}", "x")
            async with listening(here) as events:
                assert len(events[0]["threads"]) == FIRST_PAGE
                page = await threads.page("ann", FIRST_PAGE)
                assert events[0]["next"] == page.next
                # One beyond the page that changes is told like any other.
                oldest = (await threads.page("ann")).threads[-1].thread
                await threads.rename("ann", oldest, "renamed")
                await until(lambda: any(event.get("thread") == oldest for event in events))

    run_async(main())


class Rough:
    """Makes each fifth call about feeds fail, before its effect and after it in turns, and others
    late."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
        self._random = random.Random(seed)
        self.is_on = True
        self.calls = self.count = 0
        for name in ("append", "read", "document", "swap_document"):
            monkeypatch.setattr(store, name, self._wrapped(getattr(store, name)))

    def _wrapped(self, call: Any) -> Any:
        async def wrapped(*args: Any, **how: Any) -> Any:
            chance = self._random.random()
            is_of_feeds = args[0].startswith(("feed.", "thread-feed", "thread-list"))
            self.calls += is_of_feeds
            fails = self.is_on and is_of_feeds and self.calls % 5 == 0
            if fails and self.calls % 10 == 0:
                self.count += 1
                raise StoreUnavailableError("the store is away")
            result = await call(*args, **how)
            if self.is_on and chance > 0.6:
                await asyncio.sleep(0.01 * (chance - 0.6))
            if fails:
                self.count += 1
                raise StoreUnavailableError("its answer was lost")
            return result

        return wrapped


def test_whatever_the_store_does_each_event_comes_once(
    new_log: Callable[[], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def again(call: Callable[[], Any]) -> Any:
        """What a reader does that is answered with an error."""
        while True:
            try:
                return await call()
            except StoreUnavailableError:
                await asyncio.sleep(0.01)

    async def main() -> None:
        model = HeldModel()
        async with AsyncExitStack() as stack:
            devices = [await stack.enter_async_context(device(new_log(), model))]
            if devices[0].runs.store.shared:
                devices.append(await stack.enter_async_context(device(new_log(), model)))
            here = devices[-1]
            heard = await stack.enter_async_context(
                hearing(here.runs.store, here.runs.worker.feeds)
            )
            stream = ListStream(here.runs.store, here.runs.worker.lists, "ann")
            stack.callback(stream.close)
            await stream.begin(None)
            roughs = [Rough(one.runs.store, monkeypatch, n) for n, one in enumerate(devices)]
            runs: list[str] = []
            for number in range(6):
                one = devices[number % len(devices)]
                reply = await again(lambda one=one, n=number: one.ask(f"q{n}", principal="ann"))
                runs.append(reply.run)
                await one.done(reply.run)
                threads = Threads(one.runs)
                await again(lambda threads=threads, n=number: threads.rename("ann", THREAD, f"{n}"))
            for rough in roughs:
                rough.is_on = False
            assert sum(rough.count for rough in roughs) > 0
            await heard.until(lambda: len(heard.of("run-ended")) >= len(runs))
            for kind in ("run-started", "run-ended"):
                assert sorted(event["run"] for event in heard.of(kind)) == sorted(runs)
            for run in runs:
                kinds = [event["type"] for event in heard.events if event.get("run") == run]
                assert kinds.index("run-started") < kinds.index("run-ended")
            entry: dict[str, Any] = {}

            async def is_current() -> bool:
                for _, data in (await stream.ready()).parts():
                    entry.update(msgspec.json.decode(data).get("entry", {}))
                [info] = (await Threads(here.runs).page("ann")).threads
                return entry.get("title") == info.title == "5"

            await until(is_current)

    run_async(main())
