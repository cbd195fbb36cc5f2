"""What waits for a principal: shown while it waits, to whoever may decide, at a bounded cost."""

from __future__ import annotations

import asyncio
import secrets
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from support.agents import asked, crash, events_of, worker
from support.waiting import Mail, begin, process, until, waits
from tokenwire import RunContext, agent
from tokenwire.errors import InputError, NotFoundError, RoleError
from tokenwire.events import model as m
from tokenwire.relay.runs import Runs
from tokenwire.relay.waiting.inbox import Inbox, Waiting
from tokenwire.relay.waiting.links import Links


async def inbox(runs: Runs, principal: str = "", **how: Any) -> list[Waiting]:
    return (await Inbox(runs).page(principal, **how)).waiting


async def ids(runs: Runs, principal: str = "", **how: Any) -> list[str]:
    return [one.run for one in await inbox(runs, principal, **how)]


async def test_it_is_shown_until_it_is_decided_to_its_principal_only(url: str) -> None:
    mail = Mail(arguments={"to": "<b>\u202eeve"})
    async with process(url, mail) as runs:
        before = time.time()
        info, approval = await begin(runs, principal="ann", thread="t1", approval_timeout=600)
        (one,) = await inbox(runs, "ann")
        assert (one.run, one.approval, one.tool) == (info.id, approval, "send")
        assert (one.arguments, one.thread, one.model) == ({"to": "<b>\u202eeve"}, "t1", "scripted")
        assert (one.principal, one.deciders) == ("ann", ["ann"])
        assert before - 1 <= one.since <= time.time() + 1
        assert one.expires is not None
        assert abs(one.expires - one.since - 600) < 30
        for other in ("", "an", "ann\x1ft1", "ben", "acme/ann"):
            assert await inbox(runs, other) == [], other
        assert await ids(runs, "ann", thread="t1") == [info.id]
        assert await ids(runs, "ann", thread="t2") == []
        assert await ids(runs, "ann", tool="send") == [info.id]
        assert await ids(runs, "ann", tool="burn") == []
        await runs.approve(info.id, approval, approved=True, principal="ann")
        assert await inbox(runs, "ann") == []
        await until(lambda: info.id not in runs.owned)
        assert await runs.store.count_documents("waiting") == 0
        assert await runs.store.count_documents("waiting-thread") == 0


@pytest.mark.parametrize("how", ["deny", "cancel", "delete", "expire", "wait over"])
async def test_it_is_gone_with_what_ends_it(url: str, how: str) -> None:
    mail = Mail(timeout=0.5 if how == "expire" else None)
    async with process(url, mail, wait_timeout=0.5 if how == "wait over" else 600.0) as runs:
        info, approval = await begin(runs, thread="t")
        assert await runs.store.count_documents("waiting-thread") == 1
        if how == "deny":
            await runs.approve(info.id, approval, approved=False)
        elif how == "cancel":
            await runs.cancel(info.id)
        elif how == "delete":
            await runs.delete(info.id)
            assert await runs.store.count_documents("waiting") == 0
            assert await runs.store.count_documents("waiting-thread") == 0

        async def is_empty() -> bool:
            return not await inbox(runs) and await runs.store.count_documents("waiting") == 0

        await until(is_empty)


async def test_pages_are_in_the_order_of_time_whole_and_without_repetition(url: str) -> None:
    mail = Mail()
    mail.scripts = [mail.scripts[0]]
    async with process(url, mail) as runs:
        runs_begun = []
        for number in range(7):
            info, _ = await begin(runs, thread=f"t{number % 2}")
            runs_begun.append(info.id)
            await asyncio.sleep(0.002)
        seen: list[Waiting] = []
        after: str | None = ""
        while after is not None:
            page = await Inbox(runs).page("", limit=2, after=after)
            assert len(page.waiting) <= 2
            seen += page.waiting
            after = page.next
        assert [one.since for one in seen] == sorted(one.since for one in seen)
        assert sorted(one.run for one in seen) == sorted(runs_begun)
        with pytest.raises(InputError):
            await Inbox(runs).page("", limit=0)
        with pytest.raises(InputError):
            await Inbox(runs).page("", limit=201)


async def test_it_is_shown_through_a_takeover_and_gone_where_the_mailbox_has_an_answer(
    shared: str,
) -> None:
    mail = Mail()
    async with process(shared, mail) as first:
        info, approval = await begin(first)
        crash(first)
        assert await ids(first) == [info.id]  # nobody owns it, and it waits all the same
        async with process(shared, mail) as second:
            await until(lambda: info.id in second.owned)
            assert await ids(second) == [info.id]
            crash(second)
            await second.approve(info.id, approval, approved=True)
            assert await ids(first) == await ids(second) == []
            async with process(shared, mail) as third:
                await events_of(third, info.id)
                assert await third.store.count_documents("waiting") == 0
    assert mail.sent == ["all"]


async def test_what_a_crash_left_wrong_is_put_right(shared: str) -> None:
    mail = Mail()
    async with process(shared, mail) as first:
        info, approval = await begin(first)
        store = first.store
        crash(first)
        (name,) = await store.documents("waiting")
        data = await store.document("waiting", name)
        # The worker died before the entry was there: the next one lists it.
        await store.set_document("waiting", name, None)
        async with process(shared, mail) as second:

            async def is_listed() -> bool:
                return await ids(second) == [info.id]

            await until(is_listed)
            await second.approve(info.id, approval, approved=True)
            await events_of(second, info.id)
            # The worker died after the end, before the entry was taken out: its reader does it.
            await store.set_document("waiting", name, data)
            assert await ids(second) == []
            assert await store.count_documents("waiting") == 0
            await store.set_document("waiting", name, data)
            await Inbox(second).sweep()
            assert await store.count_documents("waiting") == 0


async def test_an_entry_whose_question_never_came_into_the_log_is_not_shown(shared: str) -> None:
    mail = Mail()
    async with process(shared, mail) as first:
        await begin(first)
        crash(first)
        (name,) = await first.store.documents("waiting")
        data = await first.store.document("waiting", name)
        assert data is not None
        for seq in (1, 1000):
            other = data.replace(b'"seq":', b'"seq":%d,"x":' % seq)
            await first.store.set_document("waiting", name, other)
            assert await ids(first) == [], seq


async def test_its_cost_does_not_grow_with_the_runs_that_are_kept(url: str) -> None:
    mail = Mail()
    mail.scripts = [mail.scripts[0]]
    async with process(url, mail) as runs:
        for _ in range(3):
            await begin(runs)
        calls = Counted(runs.store)
        runs.store = calls  # type: ignore[assignment]
        await ids(runs)
        few = calls.count
        store = calls.store
        for number in range(300):
            log = f"done-{number}-{secrets.token_hex(8)}"
            await store.create(log, owner="x", meta=b'{"model":"m","request":{"messages":[]}}')
            await store.append(log, epoch=1, first=1, records=[b"x" * 20], close="complete")
        calls.count = 0
        assert len(await ids(runs)) == 3
        assert calls.count == few


class Counted:
    """A store that counts what is asked of it."""

    def __init__(self, store: Any) -> None:
        self.store, self.count = store, 0

    def __getattr__(self, name: str) -> Any:
        self.count += 1
        return getattr(self.store, name)


async def test_questions_of_agents_and_of_their_models_tools_are_listed(tmp_path: Path) -> None:
    mail = Mail()

    @agent
    async def job(ctx: RunContext):
        await ctx.request_approval("burn", {"what": "it"}, reason="it is cold")
        async with ctx.stream("send", model=mail.model, tools=mail.tools) as inner:
            await inner.result()
        yield "End."

    async with worker(tmp_path, job) as runs:
        info = await runs.start(asked(), model="job")
        await waits(runs, info.id)
        (burn,) = await inbox(runs)
        assert (burn.tool, burn.reason, burn.model) == ("burn", "it is cold", "job")
        await runs.approve(info.id, burn.approval, approved=True)

        async def send() -> Waiting | None:
            return next((one for one in await inbox(runs) if one.tool == "send"), None)

        second = await until(send)
        await runs.approve(info.id, second.approval, approved=True)
        await events_of(runs, info.id)
        assert await inbox(runs) == []
    assert mail.sent == ["all"]


async def test_a_remote_producers_question_is_listed(url: str) -> None:
    from tokenwire.relay.description import Remote, RunMeta
    from tokenwire.relay.remote.runs import RemoteRuns
    from tokenwire.run.stream import new_run_id

    async with process(url, Mail()) as runs:
        remote = RemoteRuns(runs)
        run = new_run_id()
        meta = RunMeta(model="scripted", request=asked(), remote=Remote(leave_for=60))
        state, _ = await remote.start(run, meta, lease=60, key=None)
        asks: list[dict[str, Any]] = [
            {"type": "step-start", "step": 1, "attempt": 1, "kind": "agent", "name": "x"},
            {"type": "tool-call-start", "part": 1, "step": 1, "name": "f", "call_id": "c1"},
            {"type": "tool-call-end", "part": 1, "status": "complete", "arguments": {"a": 1}},
            {"type": "step-end", "step": 1, "status": "complete", "terminal_seen": True},
            {
                "type": "approval-request",
                "approval_id": "ap_c1",
                "call_id": "c1",
                "name": "f",
                "arguments": {"a": 1},
            },
            {"type": "run-wait", "reason": "approval", "pending": ["ap_c1"]},
        ]
        state = await remote.append(run, epoch=state.epoch, first=state.next, values=asks)
        (one,) = await inbox(runs)
        assert (one.run, one.tool, one.arguments) == (run, "f", {"a": 1})
        await runs.approve(run, "ap_c1", approved=True)
        assert await inbox(runs) == []
        answer = {"type": "approval-answer", "approval_id": "ap_c1", "call_id": "c1"}
        state = await remote.append(
            run, epoch=state.epoch, first=state.next, values=[{**answer, "approved": True}]
        )
        assert await runs.store.count_documents("waiting") == 0
        assert isinstance((await runs.replay(run)).events()[-1], m.ApprovalAnswer)


async def test_members_who_may_decide_see_it_and_nobody_else(url: str) -> None:
    async with process(url, Mail()) as runs:
        info, approval = await begin(runs, principal="acme ann", thread="t")
        ann = await runs.members.enter("acme ann", "t", "own")
        for name, role in (("ben", "approve"), ("cleo", "write"), ("dan", "own")):
            await runs.members.put(ann, f"acme {name}", role)  # type: ignore[arg-type]
        for name, sees in (("ann", 1), ("ben", 1), ("cleo", 0), ("dan", 1), ("eve", 0)):
            assert len(await inbox(runs, f"acme {name}")) == sees, name
        shared = await runs.members.roster(ann.scope)
        assert shared is not None
        (one,) = await inbox(runs, "acme ben", thread=shared.id)
        assert one.thread == shared.id
        assert one.deciders == ["acme ann", "acme ben", "acme dan"]
        assert await inbox(runs, "acme cleo", thread=shared.id) == []
        with pytest.raises(RoleError):
            await Links(runs).make(info.id, approval, principal="acme cleo")
        with pytest.raises(NotFoundError):
            await Links(runs).make(info.id, approval, principal="acme eve")
        link = await Links(runs).make(info.id, approval, principal="acme ben", maker="ben")
        await runs.members.remove(ann, "acme ben")
        assert await inbox(runs, "acme ben") == []
        assert (await Links(runs).look(link)).state == "gone"
        assert (await Links(runs).decide(link, "approve")).state == "gone"
        (one,) = await inbox(runs, "acme dan")
        link = await Links(runs).make(info.id, approval, principal="acme dan", maker="dan")
        assert (await Links(runs).decide(link, "deny")).state == "done"
        await until(lambda: info.id not in runs.owned)
        state = await runs.fold(info.id, principal="acme ann")
        assert state.approvals[approval].by == link.by == f"dan (link {link.id[:12]})"


async def test_a_link_from_before_links_named_a_membership_counts(url: str) -> None:
    mail = Mail()
    async with process(url, mail) as runs:
        info, approval = await begin(runs, principal="ann", thread="t")
        await runs.members.put(await runs.members.enter("ann", "t"), "ben", "approve")
        links = Links(runs)
        made = await links.make(info.id, approval, principal="ben")
        assert made.member
        stored = msgspec.json.encode(msgspec.structs.replace(made, member=None))
        assert b"member" not in stored
        await runs.store.set_document("approval-link", f"{info.id}.{made.id}", stored)
        link = await links.get(info.id, made.id)
        assert link is not None
        assert link.member is None
        assert (await links.look(link)).state == "open"
        link = await links.get(info.id, made.id)
        assert link is not None
        assert (await links.decide(link, "approve")).state == "done"
        await until(lambda: mail.sent == ["all"])


@pytest.mark.parametrize("rejoins", [True, False])
@pytest.mark.parametrize("when", ["claimed", "read"])
async def test_a_link_does_not_outlive_its_membership_by_a_moment(
    url: str, when: str, rejoins: bool
) -> None:
    """Its maker is removed, and may be let in again, between the look at the link and its
    decision."""
    mail = Mail()
    async with process(url, mail) as runs:
        info, approval = await begin(runs, principal="ann", thread="t")
        ann = await runs.members.enter("ann", "t")
        await runs.members.put(ann, "ben", "approve")
        link = await Links(runs).make(info.id, approval, principal="ben")
        changes: list[str] = []

        async def change() -> None:
            if not changes:
                changes.append("removed")
                await runs.members.remove(ann, "ben")
                if rejoins:
                    await runs.members.put(ann, "ben", "approve")

        swap, state = runs.store.swap_document, runs._state

        async def claimed(kind: str, name: str, old: bytes | None, new: bytes | None) -> bool:
            is_done = await swap(kind, name, old, new)
            if kind == "approval-link" and when == "claimed":
                await change()
            return is_done

        async def read(run: str) -> Any:
            fold = await state(run)
            if (await Links(runs).of(info.id))[0].used_at and when == "read":
                await change()
            return fold

        runs.store.swap_document = claimed  # type: ignore[method-assign]
        runs._state = read  # type: ignore[method-assign]
        assert (await Links(runs).decide(link, "approve")).state == "gone"
        assert changes == ["removed"]
        assert [one.approval for one in await inbox(runs, "ann")] == [approval]
        assert await runs.store.commands(info.id) == []
        if rejoins:
            await runs.approve(info.id, approval, approved=True, principal="ben")
            await until(lambda: mail.sent == ["all"])
