"""Over any interleaving of links, API, expiry, takeovers and crashes a call is decided once, and
runs at most once."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import random
import tempfile
from contextvars import ContextVar
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from support.agents import asked, crash, events_of
from support.waiting import Mail, process, waits
from tokenwire.errors import ConflictError, NotFoundError
from tokenwire.events import model as m
from tokenwire.events.fold import fold
from tokenwire.relay.runs import Runs
from tokenwire.relay.waiting import links as module
from tokenwire.relay.waiting.inbox import Inbox
from tokenwire.relay.waiting.links import Choice, Link, Links

#: Calls of the store after which the task under way dies; None: it lives.
_lives: ContextVar[list[int] | None] = ContextVar("lives", default=None)


class Chaotic:
    """A store whose calls take turns at random, and in which a caller may die."""

    def __init__(self, store: Any, chance: random.Random) -> None:
        self._store, self._chance = store, chance

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._store, name)
        if not inspect.iscoroutinefunction(value):
            return value

        async def call(*args: Any, **how: Any) -> Any:
            for _ in range(self._chance.randrange(4)):
                await asyncio.sleep(0)
            result = await value(*args, **how)
            lives = _lives.get()
            if lives is not None:
                lives[0] -= 1
                if lives[0] < 0:  # what was done is done, and nobody hears of it
                    raise asyncio.CancelledError
            for _ in range(self._chance.randrange(4)):
                await asyncio.sleep(0)
            return result

        return call


#: One thing that happens: who, what is decided, and after how many calls of the store it dies.
Step = tuple[str, Choice, int | None]
steps = st.lists(
    st.tuples(
        st.sampled_from(["api", "first link", "second link", "webhook's link"]),
        st.sampled_from(["approve", "deny"]),
        st.one_of(st.none(), st.integers(0, 7)),
    ),
    min_size=1,
    max_size=6,
)


async def decide(
    runs: Runs, run: str, approval: str, step: Step, links: dict[str, Link]
) -> Choice | None:
    """The decision that this step made; None where another one counts, or where it died."""
    who, choice, dies_after = step
    _lives.set(None if dies_after is None else [dies_after])
    try:
        if who == "api":
            await runs.approve(run, approval, approved=choice == "approve", by="api")
            return choice
        link = links[who]
        current = await Links(runs).get(run, link.id)
        assert current is not None
        view = await Links(runs).decide(current, choice)
        return choice if view.state == "done" else None
    except (ConflictError, NotFoundError):
        return None


async def story(
    waves: list[list[Step]], seed: int, timeout: float | None, dies: list[bool]
) -> None:
    mail, chance = Mail(timeout=timeout), random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:{folder}/runs.db"
        async with contextlib.AsyncExitStack() as stack:

            async def new_process() -> Runs:
                return await stack.enter_async_context(
                    process(url, mail, wrap=lambda store: Chaotic(store, chance))
                )

            owner, other = await new_process(), await new_process()
            run = (await owner.start(asked(), model="scripted")).id
            approval = await waits(owner, run)
            links: dict[str, Link] = {}
            with contextlib.suppress(ConflictError):  # it may have expired by now
                for name in ("first link", "second link"):
                    links[name] = await Links(owner).make(run, approval, principal="", maker=name)
                links["webhook's link"] = await Links(other).make(
                    run, approval, principal="", name="f" * 32, now=0.0 if seed % 2 else 1e10
                )
            decisions: list[Choice | None] = []
            for number, wave in enumerate(waves):
                if dies[number % len(dies)]:
                    crash(owner)
                    owner, other = other, await new_process()
                wave = [step for step in wave if step[0] == "api" or step[0] in links]
                results = await asyncio.gather(
                    *(
                        decide(chance.choice((owner, other)), run, approval, step, links)
                        for step in wave
                    ),
                    return_exceptions=True,
                )
                for result in results:
                    if not isinstance(result, asyncio.CancelledError):
                        assert not isinstance(result, BaseException), result
                        decisions.append(result)
            with contextlib.suppress(ConflictError):
                await other.approve(run, approval, approved=False, by="last")
            events = await events_of(other, run)
            (answer,) = [e for e in events if isinstance(e, m.ApprovalAnswer)]
            state = fold(events)
            if state.outcome == "interrupted":  # a process died in the middle of the call
                assert (answer.approved, state.end_reason) == (True, "tool_in_doubt")
                assert mail.sent in ([], ["all"])
            else:
                assert state.outcome == "complete"
                assert mail.sent == (["all"] if answer.approved else []), answer
            word = "approve" if answer.approved else "deny"
            assert {one for one in decisions if one is not None} <= {word}, (decisions, answer)
            assert answer.reason in (None, "expired")
            if answer.reason == "expired":
                assert not answer.approved
                assert answer.by is None
            assert (await Inbox(other).page("")).waiting == []
            for link in await Links(other).of(run):
                shown = await Links(other).look(link)
                assert shown.state != "open"
                if link.decision is not None and link.is_done and link.by == answer.by:
                    assert link.decision == word


@given(
    waves=st.lists(steps, min_size=1, max_size=3),
    seed=st.integers(0, 2**32),
    timeout=st.sampled_from([None, None, 0.3]),
    dies=st.lists(st.booleans(), min_size=1, max_size=3),
)
@example(  # a link dies between its use and its decision, and is used again
    waves=[[("first link", "approve", 5)], [("first link", "approve", None)]],
    seed=1,
    timeout=None,
    dies=[False],
)
@example(  # two of them at once, with a takeover between
    waves=[
        [("first link", "approve", None), ("second link", "deny", None), ("api", "deny", None)],
        [("api", "approve", None)],
    ],
    seed=2,
    timeout=None,
    dies=[True, False],
)
@settings(max_examples=8)
def test_a_call_is_decided_once_and_runs_at_most_once(
    waves: list[list[Step]], seed: int, timeout: float | None, dies: list[bool]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        if seed % 2:  # what was interrupted may be made again at once
            patch.setattr(module, "_RETRY_SECONDS", 0.0)
        asyncio.run(asyncio.wait_for(story(waves, seed, timeout, dies), 120))


@pytest.mark.parametrize("dies_after", range(9))
def test_a_link_that_died_at_any_point_is_used_again_with_the_same_decision(
    dies_after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_RETRY_SECONDS", 0.0)

    async def main() -> None:
        mail = Mail()
        wrap = lambda store: Chaotic(store, random.Random(0))  # noqa: E731
        async with process("memory:", mail, wrap=wrap) as runs:
            run = (await runs.start(asked(), model="scripted")).id
            approval = await waits(runs, run)
            link = await Links(runs).make(run, approval, principal="", maker="ann")
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.create_task(
                    decide(runs, run, approval, ("l", "approve", dies_after), {"l": link})
                )
            current = await Links(runs).get(run, link.id)
            assert current is not None
            if current.used_at:  # the other choice is none any more, this one is made good
                view = await Links(runs).decide(current, "deny")
                assert view.state in ("used", "decided")
                current = await Links(runs).get(run, link.id) or current
            await Links(runs).decide(current, "approve")
            events = await events_of(runs, run)
        (answer,) = [e for e in events if isinstance(e, m.ApprovalAnswer)]
        assert (answer.approved, answer.by) == (True, link.by)
        assert mail.sent == ["all"]

    asyncio.run(asyncio.wait_for(main(), 60))
