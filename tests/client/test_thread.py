"""Conversations that the server keeps, with the Python client: turns, branches, and what waits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from support.people import Person, people_server
from support.server import Site, site
from tokenwire.client import (
    Client,
    HistoryConflictError,
    Patience,
    Thread,
    ThreadBusyError,
    TurnQueue,
)
from tokenwire.errors import (
    ConflictError,
    ForbiddenError,
    InputError,
    NotFoundError,
    ServerProtocolError,
)
from tokenwire.events.model import TextDelta

QUICK = Patience(base=0.001, cap=0.002, give_up=30.0)
RUN = "run_0000000000000001"


@pytest.fixture(scope="module")
def here() -> Iterator[Site]:
    with site() as started:
        yield started


def run_with(url: str, use: Callable[[Client], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        async with Client(url, patience=QUICK) as client:
            return await asyncio.wait_for(use(client), 60)

    return asyncio.run(main())


async def prompts(thread: Thread, **page: Any) -> list[str]:
    return [turn.prompt for turn in (await thread.turns(**page)).turns]


def test_a_conversation_is_continued_read_and_branched(here: Site) -> None:
    async def use(client: Client) -> None:
        thread = client.thread("trip")
        one = await thread.send("one", metadata={"a": 1})
        assert (one.has_begun, one.thread, one.metadata) == (True, "trip", {"a": 1})
        answer = await client.text(one)
        two = await thread.send([{"role": "user", "content": "two"}])
        await client.text(two)
        assert (await client.snapshot(two))["history"]["turns"] == [one.id]
        page = await thread.turns()
        assert [turn.prompt for turn in page.turns] == ["one", "two"]
        assert (page.turns[0].text, page.turns[1].parent) == (answer, one.id)
        assert {turn.state for turn in page.turns} == {"complete"}
        newest = await thread.turns(limit=1)
        assert ([turn.prompt for turn in newest.turns], newest.next) == (["two"], two.id)
        assert await prompts(thread, before=newest.next) == ["one"]
        edited = await thread.send("better", replaces=two)
        await client.text(edited)
        assert await prompts(thread) == ["one", "better"]
        again = await thread.send(replaces=two)
        await client.text(again)
        assert await prompts(thread) == ["one", "two"]
        assert (await thread.set_head(edited)).head == edited.id
        assert await prompts(thread) == ["one", "better"]
        apart = await thread.send("apart", parent="")
        await client.text(apart)
        assert await prompts(thread) == ["apart"]
        after = await thread.send("after", parent=one, history="last:1")
        await client.text(after)
        assert await prompts(thread) == ["one", "after"]

    run_with(here.url, use)


def test_turns_that_wait_are_edited_withdrawn_and_sent_now(here: Site) -> None:
    async def use(client: Client) -> None:
        thread = client.thread("busy")
        busy = await thread.send("scenario:stall")
        one = await thread.send("one", while_busy="queue", key="once")
        assert (one.state, one.position, one.has_begun) == ("queued", 1, False)
        assert (await thread.send("one", while_busy="queue", key="once")).id == one.id
        two = await thread.send("two", while_busy="queue")
        await thread.edit(one, "first")
        queue = await thread.edit(two.id, [{"role": "user", "content": "second"}])
        assert [(entry.id, entry.text) for entry in queue.queue] == [
            (one.id, "first"),
            (two.id, "second"),
        ]
        assert (queue.head, queue.queue[0].edits) == (busy.id, 1)
        assert [message.text for message in (await thread.waiting(two)).messages] == ["second"]
        with pytest.raises(ThreadBusyError, match="under way"):
            await thread.send("three", while_busy="reject")
        assert [entry.id for entry in (await thread.withdraw(one)).queue] == [two.id]
        with pytest.raises(NotFoundError):
            await thread.withdraw(one)
        with pytest.raises(ConflictError):
            await thread.started(one)
        now = await thread.send_now(two)
        assert now.id == two.id
        info = await thread.started(two)
        assert (info.id, info.thread) == (two.id, "busy")
        await client.text(info)
        assert (await client.info(busy)).state == "cancelled"
        assert await prompts(thread) == ["scenario:stall", "second"]
        assert (await thread.queue()).queue == []
        for late in (thread.edit(two, "late"), thread.withdraw(two), thread.send_now(two)):
            with pytest.raises(ConflictError, match="has begun"):
                await late

    run_with(here.url, use)


def test_a_turn_that_waits_is_followed_once_it_begins(here: Site) -> None:
    async def use(client: Client) -> None:
        thread = client.thread("waits")
        busy = await thread.send("scenario:stall")
        waits = await thread.send("then", while_busy="queue")
        started = asyncio.create_task(thread.started(waits))
        await client.cancel(busy)
        assert (await started).id == waits.id
        assert await client.text(waits)

    run_with(here.url, use)


def test_messages_that_contradict_the_stored_ones(here: Site) -> None:
    async def use(client: Client) -> None:
        thread = client.thread("contradicted")
        await client.text(await thread.send([{"role": "user", "content": "one", "id": "m-1"}]))
        with pytest.raises(HistoryConflictError) as caught:
            await thread.send([{"role": "user", "content": "other", "id": "m-1"}])
        assert caught.value.code == "history_conflict"

    run_with(here.url, use)


def test_names_and_turns_are_checked_before_they_are_sent() -> None:
    async def use(client: Client) -> None:
        for name in ("", ".", "..", "a/b", "x" * 129, "a\n", 3):
            with pytest.raises(InputError):
                client.thread(name)  # pyright: ignore[reportArgumentType]
        thread = client.thread("t")
        for call in (
            thread.send("x", parent="../x"),
            thread.send("x", replaces="short"),
            thread.send(),
            thread.edit("a b", "x"),
            thread.turns(before="?x"),
        ):
            with pytest.raises(InputError):
                await call

    run_with("http://127.0.0.1:1", use)


def lost(*bodies: bytes) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    """Takes requests; of those, the answers that are empty are lost."""
    answers = list(bodies)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"content-length: 2" in head.lower():
            await reader.readexactly(2)
        writer.write(answers.pop(0))
        await writer.drain()
        writer.close()

    return answer


def response(status: int, body: str) -> bytes:
    head = f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\nconnection: close\r\n"
    return f"{head}content-type: application/json\r\n\r\n{body}".encode()


def with_answers(use: Callable[[Thread], Awaitable[Any]], *answers: bytes) -> Any:
    async def main() -> Any:
        server = await asyncio.start_server(lost(*answers), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server, Client(f"http://127.0.0.1:{port}", patience=QUICK) as client:
            return await asyncio.wait_for(use(client.thread("t")), 60)

    return asyncio.run(main())


UNKNOWN = response(404, '{"error":{"code":"unknown_run","message":"no such turn waits"}}')
BEGUN = response(409, '{"error":{"code":"conflict","message":"this turn has begun"}}')
EMPTY = response(200, '{"queue":[]}')


def test_a_command_whose_answer_was_lost_has_taken_effect() -> None:
    queue = with_answers(lambda thread: thread.withdraw(RUN), b"", UNKNOWN, EMPTY)
    assert queue == TurnQueue(queue=[])
    info = response(200, f'{{"id":"{RUN}","state":"running"}}')
    sent = with_answers(lambda thread: thread.send_now(RUN), b"", BEGUN, info)
    assert (sent.id, sent.has_begun) == (RUN, True)


def test_a_refusal_of_the_first_try_is_one() -> None:
    with pytest.raises(NotFoundError):
        with_answers(lambda thread: thread.withdraw(RUN), UNKNOWN)
    with pytest.raises(ConflictError):
        with_answers(lambda thread: thread.send_now(RUN), BEGUN)


def test_what_is_no_queue_is_no_answer() -> None:
    with pytest.raises(ServerProtocolError, match="not a queue"):
        with_answers(lambda thread: thread.queue(), response(200, '{"queue":[1]}'))


def test_members_and_invitations() -> None:
    with people_server() as (url, _):

        def of(name: str) -> Client:
            return Client(url, headers=Person(url, name).headers, patience=QUICK)

        async def main() -> None:
            async with of("ann") as ann, of("bob") as bob, of("eve") as eve:
                trip = ann.thread("trip")
                await ann.text(await trip.send("one"))
                assert [(m.principal, m.role) for m in (await trip.members()).members] == [
                    ("ann", "own")
                ]
                listed = await trip.put_member("team/bob", "approve")
                assert (listed.role, len(listed.members)) == ("own", 2)
                invite = await trip.invite("write", uses=2)
                assert invite.token is not None
                joined = await bob.accept_invite(invite.token)
                assert joined.id == invite.thread == listed.id
                assert await bob.accept_invite(invite.token) == joined
                shared = bob.thread(joined.thread)
                await bob.text(await shared.send("two"))
                turns = (await trip.turns()).turns
                assert [(turn.prompt, turn.by) for turn in turns] == [
                    ("one", "ann"),
                    ("two", "bob"),
                ]
                with pytest.raises(ForbiddenError):
                    await shared.invite()
                assert [(one.uses, one.by) for one in await trip.invites()] == [(1, "ann")]
                await trip.revoke_invite(invite)
                with pytest.raises(NotFoundError):
                    await trip.revoke_invite(invite)
                with pytest.raises(NotFoundError):
                    await eve.accept_invite(invite.token)
                await trip.remove_member("team/bob")
                await shared.remove_member("bob")  # leaves
                for act in (shared.turns(), shared.members(), eve.thread(joined.thread).turns()):
                    with pytest.raises(NotFoundError):
                        await act
                with pytest.raises(ConflictError):
                    await trip.remove_member("ann")
                for name in ("", " ", ".", "..", 7):
                    with pytest.raises(InputError):
                        await trip.put_member(name, "read")  # type: ignore[arg-type]

        asyncio.run(main())


def test_a_conversation_is_followed_and_resumed_after_any_cut(here: Site) -> None:
    async def use(client: Client) -> None:
        thread = client.thread("live")
        kinds: list[str] = []
        words: dict[str, str] = {}
        cursors: list[str] = []
        async with thread.events(runs=True) as events:
            async for event in events:
                kinds.append(event.type)
                if event.cursor is not None:
                    cursors.append(event.cursor)
                if event.type == "snapshot":
                    sent = await thread.send("one")
                    await thread.typing()
                elif event.type == "run-event" and isinstance(delta := event.event(), TextDelta):
                    words[event.run or ""] = words.get(event.run or "", "") + delta.text
                if {"run-ended", "typing"} <= set(kinds):
                    break
        assert words == {sent.id: await client.text(sent)}
        for number in (0, len(cursors) // 2, len(cursors) - 2):
            async with thread.events(after=cursors[number], runs=True) as rest:
                again: list[str] = []
                async for event in rest:
                    if event.cursor is not None:
                        again.append(event.cursor)
                    if event.type == "run-ended":
                        break
            assert again == cursors[number + 1 :]

    run_with(here.url, use)


def test_a_stream_that_is_asked_to_come_back_goes_on() -> None:
    async def use(client: Client) -> None:
        thread, cuts = client.thread("aged"), 0

        def on_cut(error: Exception | None, seconds: float) -> None:
            nonlocal cuts
            cuts += 1

        kinds: list[str] = []
        is_sent = False
        async with thread.events(on_cut=on_cut) as events:
            async for event in events:
                if event.cursor is not None:
                    kinds.append(event.type)
                if event.type == "presence" and cuts and not is_sent:
                    is_sent = True
                    await thread.send("one")
                if "run-ended" in kinds:
                    break
        assert cuts >= 1
        assert sorted(kind for kind in kinds if kind != "title") == [
            "run-ended",
            "run-started",
            "snapshot",
        ]

    with site(max_age=0.5) as aging:
        run_with(aging.url, use)


def test_the_list_is_followed_over_cuts(here: Site) -> None:
    async def use(client: Client) -> None:
        async with client.threads() as events:
            first = await anext(events)
            assert first.type == "snapshot"
            await client.text(await client.thread("listed").send("a question"))
            event = await anext(events)
            while event.entry is None or event.entry.title is None or event.entry.state is not None:
                event = await anext(events)
            assert (event.type, event.thread) == ("thread", "listed")
            assert event.entry.title == "a question"
        async with client.threads(after=first.cursor) as events:
            again = await anext(events)
            assert (again.type, again.thread, again.entry) == ("thread", "listed", event.entry)
            assert events.cursor == again.cursor

    run_with(here.url, use)
