"""A wait that is too long, and an answer at the same moment: the order of the mailbox decides.

Always true: who was told that an answer counts sees the run go on; who answers after the end hears
so, whether the run's log says it already or not.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import Any
from unittest.mock import patch

import pytest

from support.agents import crash, events_of
from support.waiting import Errand, Mail, begin, process, unread_mailboxes, until
from tokenwire.errors import ConflictError
from tokenwire.events import model as m
from tokenwire.events.fold import fold
from tokenwire.relay.commands import (
    check_first,
    counting,
    decode_command,
    encode_command,
    expiry,
    is_expiry,
)
from tokenwire.relay.runs import Runs
from tokenwire.relay.waiting.inbox import Inbox
from tokenwire.relay.waiting.links import Links
from tokenwire.run.inbox import Inbox as RunInbox

WAYS = ["approve", "deny", "link", "result", "cancel"]
Do = Callable[[], Awaitable[None]]


class Around:
    """A store in which something happens once, right before or right after the end of a wait comes
    into a mailbox."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.before: Do | None = None
        self.after: Do | None = None
        self.ends = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def command(self, log: str, data: bytes) -> None:
        is_end = is_expiry(decode_command(data))
        self.ends += is_end
        if is_end and self.before is not None:
            before, self.before = self.before, None
            await before()
        await self._store.command(log, data)
        if is_end and self.after is not None:
            after, self.after = self.after, None
            await after()


async def answer(runs: Runs, run: str, pending: str, way: str) -> Callable[[], Awaitable[bool]]:
    """What somebody is about to do; it returns whether they are told that it counts."""
    link = await Links(runs).make(run, pending, principal="") if way == "link" else None

    async def act() -> bool:
        try:
            if link is not None:
                state = (await Links(runs).decide(link, "approve")).state
                assert state in ("done", "gone"), state
                return state == "done"
            if way == "result":
                await runs.answer_tool(run, pending, content="seen")
            elif way == "cancel":
                await runs.cancel(run)
            else:
                await runs.approve(run, pending, approved=way == "approve")
        except ConflictError as error:
            assert error.details["reason"] == "expired"
            return False
        return True

    return act


async def told(store: Around, runs: Runs, way: str, where: str) -> tuple[bool, list[Any]]:
    """What somebody is told who acts ``where`` it counts, and what becomes of the run."""
    info, pending = await begin(runs)
    act, answers = await answer(runs, info.id, pending, way), []

    async def now() -> None:
        answers.append(await act())
        assert (await Inbox(runs).page("")).waiting == []

    setattr(store, where, now)
    runs.worker.wait_timeout = 0.0
    events = await events_of(runs, info.id)
    await until(lambda: answers)  # the run may be quicker than what is said about the answer
    (counts,) = answers
    return counts, events


def wrapped(stores: list[Around]) -> Callable[[Any], Any]:
    def wrap(store: Any) -> Any:
        stores.append(Around(store))
        return stores[-1]

    return wrap


@pytest.mark.parametrize("way", WAYS)
async def test_what_comes_before_the_end_counts(every_url: str, way: str) -> None:
    mail, stores = Errand() if way == "result" else Mail(), []
    async with process(every_url, mail, wrap=wrapped(stores)) as runs:
        counts, events = await told(stores[0], runs, way, "before")
    state = fold(events)
    assert counts
    assert stores[0].ends == 1
    assert state.outcome == ("cancelled" if way == "cancel" else "complete"), state.end_reason
    assert mail.sent == (["all"] if way in ("approve", "link") else [])
    results = [event.content for event in events if isinstance(event, m.ToolResult)]
    assert results == {"approve": ["sent"], "link": ["sent"], "result": ["seen"]}.get(way, [])


@pytest.mark.parametrize("way", WAYS)
async def test_what_comes_after_the_end_is_refused(every_url: str, way: str) -> None:
    mail, stores = Errand() if way == "result" else Mail(), []
    async with process(every_url, mail, wrap=wrapped(stores)) as runs:
        counts, events = await told(stores[0], runs, way, "after")
    state = fold(events)
    assert counts == (way == "cancel"), "a cancel of an ended run is no error"
    assert (state.outcome, state.end_reason) == ("incomplete", "expired")
    assert mail.sent == []
    assert not any(isinstance(event, m.ApprovalAnswer | m.ToolResult) for event in events)


@pytest.mark.parametrize("is_first", [True, False])
async def test_a_process_that_died_after_the_end_leaves_it_to_the_next(
    every_shared_url: str, is_first: bool
) -> None:
    mail = Mail()
    async with process(every_shared_url, mail) as first:
        info, approval = await begin(first)
        crash(first)
        if is_first:
            await first.store.command(info.id, encode_command(expiry(0)))
        with contextlib.suppress(ConflictError) if is_first else contextlib.nullcontext():
            await first.approve(info.id, approval, approved=True)
        if not is_first:
            await first.store.command(info.id, encode_command(expiry(0)))
        async with process(every_shared_url, mail) as second:
            state = fold(await events_of(second, info.id))
    assert state.outcome == ("incomplete" if is_first else "complete"), state.end_reason
    assert mail.sent == ([] if is_first else ["all"])


async def test_the_end_counts_whoever_wrote_it(every_url: str) -> None:
    """A process that had the run before may not know that it has it no more."""
    mail = Mail()
    async with process(every_url, mail) as runs:
        info, approval = await begin(runs)
        await runs.store.command(info.id, encode_command(expiry(0)))
        with pytest.raises(ConflictError):
            await runs.approve(info.id, approval, approved=True)
        state = fold(await events_of(runs, info.id))
        assert (state.outcome, state.end_reason, mail.sent) == ("incomplete", "expired", [])


async def test_an_answer_that_has_not_had_its_turn_is_not_too_late(url: str) -> None:
    mail, stores = Mail(), []
    async with process(url, mail, wrap=wrapped(stores)) as runs:
        info, approval = await begin(runs)
        owned, late = runs.owned[info.id], []
        with patch.object(RunInbox, "put", lambda _, command: late.append(command)):
            await runs.approve(info.id, approval, approved=True)
            await until(lambda: late)
            await runs.worker.expire(owned)
            assert stores[0].ends == 0
        owned.inbox.put(late[0])
        assert fold(await events_of(runs, info.id)).outcome == "complete"
        assert mail.sent == ["all"]


def test_which_commands_count() -> None:
    cancel = encode_command(m.Control(command="cancel", reason="expired"))
    steer = encode_command(m.Control(command="steer", id="t", text="1"))
    end = encode_command(expiry(1))

    def of(*mailbox: bytes) -> list[bytes]:
        return [encode_command(one) for one in counting(enumerate(mailbox, 1))]

    assert of(steer, end) == [steer, end]
    assert of(steer, cancel, end, end) == [steer, cancel]
    assert of(steer, end, end) == [steer, end], "the second one knew nothing of the first"
    assert of(b"later releases", end) == [end]
    assert of(steer, b"later releases", end) == [steer]
    assert not is_expiry(decode_command(cancel)), "of a person who gave this reason"


def test_releases_that_know_no_such_end_take_it_for_a_cancel() -> None:
    """They refuse what comes after it, and end a run that they take over."""
    command = decode_command(encode_command(expiry(7)))
    assert isinstance(command, m.Control)
    assert command.command == "cancel"
    yes = m.ApprovalAnswer(approval_id="a", call_id="c", approved=True)
    mailbox = [(1, encode_command(expiry(0))), (2, encode_command(yes))]
    with pytest.raises(ConflictError, match="expired"):
        check_first(yes, mailbox)
    check_first(yes, [(1, encode_command(yes)), (2, encode_command(expiry(0)))])


async def test_an_answer_after_the_last_reader_left_is_refused(every_url: str) -> None:
    """The run stops then, and nobody is told that their answer counts."""
    mail = Mail()
    async with process(every_url, mail) as runs:
        info, approval = await begin(runs, on_disconnect="stop:600")
        owned = runs.owned[info.id]
        with unread_mailboxes():
            owned.cancel_soon(m.Control(command="cancel", by="on_disconnect"))
            await until(lambda: has_command(runs, info.id))
            with pytest.raises(ConflictError, match="cancelled"):
                await runs.approve(info.id, approval, approved=True)
        await owned.check_commands()
        state = fold(await events_of(runs, info.id))
        assert (state.outcome, mail.sent) == ("cancelled", [])


async def has_command(runs: Runs, run: str) -> bool:
    return bool(await runs.store.commands(run))
