"""Conversations under kills: two devices speak in each at once, at random, and a verdict on each.

Devices send (`queue`, `interrupt`, `steer`, `parallel`, `reject`), edit, withdraw and send at once
through workers that are killed and stopped between and within turns. A device that gets no answer
sends again, under the same key, through another worker, as a client does. The seed fixes every
choice; the moments depend on the machine as well.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from faults import thread_worker
from faults.actors import evidence_of
from faults.checker import Case, check, dump
from faults.herd import Herd, Hits
from faults.thread_checker import Said, Turn, check_thread, steers_of
from tokenwire.relay.conversation.queue import Queue
from tokenwire.relay.conversation.scope import scope_of
from tokenwire.relay.description import meta_of
from tokenwire.relay.feed.follower import FeedFollower, open_feed
from tokenwire.relay.runs import Runs
from tokenwire.run.stream import new_run_id
from tokenwire.simulator.scenarios import SCENARIOS, Scenario
from tokenwire.simulator.script import Ask, Say, Script

THREADS_AT_ONCE = 3
DEVICES = 2
#: What a device does in one conversation before it begins the next one.
ACTS = 7
RULES = ("queue",) * 6 + ("steer",) * 4 + ("interrupt", "parallel", "reject")
#: Seconds within which a conversation comes to rest.
REST = 60.0
_TOLD = ("run-started", "run-ended")
_SCENARIO = "turn"
_PIECES = tuple(f"piece {number} " for number in range(12))


@dataclass
class ThreadReport(Hits):
    """What happened, for people and programs."""

    threads: int = 0
    #: Turns that devices sent, by what became of them.
    turns: dict[str, int] = field(default_factory=dict)
    repeated: int = 0
    edits: int = 0
    withdrawn: int = 0
    sent_now: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    takeovers: int = 0


class ThreadHarness(Herd):
    """One run of the harness on one store."""

    main = staticmethod(thread_worker.main)

    def __init__(
        self,
        store: str,
        folder: Path,
        *,
        seed: int,
        kills: int,
        workers: int = 3,
        threads: int = THREADS_AT_ONCE,
        acts: int = ACTS,
        feeds: bool = True,
        restart_store: Callable[[], None] | None = None,
    ) -> None:
        self.report = ThreadReport(seed, store.partition(":")[0])
        super().__init__(
            self.report, store, folder, kills=kills, workers=workers, restart_store=restart_store
        )
        self._seed, self._threads, self._acts, self._feeds = seed, threads, acts, feeds
        self._said: dict[str, list[Said]] = {}
        self._turns: list[Turn] = []
        self._told: dict[str, Told] = {}

    async def run(self) -> ThreadReport:
        begun = time.monotonic()
        SCENARIOS[_SCENARIO] = Scenario(_SCENARIO, "What a turn is answered.", _answer)
        try:
            async with self._at_work() as runs:
                killer = asyncio.create_task(self._kill())
                lanes = [self._lane(runs, killer, number) for number in range(self._threads)]
                await asyncio.gather(killer, *lanes)
                self.report.broken += self._runs_broken()
        finally:
            SCENARIOS.pop(_SCENARIO, None)
        self.report.seconds = time.monotonic() - begun
        return self.report

    # Devices.

    async def _lane(self, runs: Runs, killer: asyncio.Task[None], lane: int) -> None:
        """One conversation after the other, until the killing is done."""
        for number in itertools.count(1):
            if killer.done():
                return
            thread = f"thread-{lane}-{number}"
            self.report.threads += 1
            self._said[thread] = []
            if self._feeds:
                source, scope = runs.worker.feeds, scope_of("", thread)
                follower, _ = await open_feed(runs.store, source, scope, None, _no)
                self._told[thread] = Told(follower)
            await asyncio.gather(*(self._device(thread, device) for device in range(DEVICES)))
            await self._judge(runs, thread)

    async def _device(self, thread: str, device: int) -> None:
        chance = random.Random(f"{self._seed} {thread} {device}")
        for act in range(self._acts):
            await asyncio.sleep(chance.choice([0.0, 0.0, 0.02, 0.15, 0.4]))
            mine = [one for one in self._said[thread] if one.runs and one.refusal is None]
            kind = chance.choice(["say"] * 5 + ["edit", "withdraw", "now"])
            if kind == "say" or not mine:
                await self._say(chance, thread, f"{thread}-{device}-{act}")
            else:
                # Of either device's turns: the other one may do the same at this moment.
                await self._touch(kind, chance.choice(mine[-4:]), act)

    async def _say(self, chance: random.Random, thread: str, key: str) -> None:
        rule = chance.choice(RULES)
        said = Said(key, thread, rule, f"model-{key}", [f"scenario:{_SCENARIO} {key}"])
        self._said[thread].append(said)
        said.sent = next(self._numbers)
        end = time.monotonic() + REST
        order = {"do": "say", "thread": thread, "key": key, "model": said.model}
        order["text"] = said.texts[0]
        tries = 0
        while time.monotonic() < end:
            tries += 1
            ways = [
                self._order(**order, run=new_run_id(), while_busy=rule)
                for _ in range(chance.choice([1, 1, 1, 2]))
            ]
            answers = [answer for answer in await asyncio.gather(*ways) if answer is not None]
            said.is_unsure = said.is_unsure or len(answers) < len(ways)
            said.runs |= {answer["run"] for answer in answers if "run" in answer}
            errors = {answer["error"] for answer in answers if "error" in answer}
            if said.runs:
                break
            if errors & {"thread_busy", "queued_turns", "limit_exceeded"}:
                said.refusal = ", ".join(sorted(errors))
                break
        else:
            self.report.broken.append(f"{key}: no answer in {REST:g} s")
        said.answered = next(self._numbers)
        self.report.repeated += tries > 1

    async def _touch(self, kind: str, said: Said, act: int) -> None:
        order = {"do": kind, "thread": said.thread, "run": next(iter(said.runs))}
        if kind == "edit":
            text = f"{said.texts[0]} edit {act} {next(self._numbers)}"
            said.texts.append(text)
            answer = await self._order(**order, text=text)
            self.report.edits += answer is not None and "run" in answer
        elif kind == "withdraw":
            if said.withdrawn == "no":
                said.withdrawn = "maybe"
            answer = await self._order(**order)
            if answer is not None and "run" in answer:
                said.withdrawn = "yes"
                self.report.withdrawn += 1
        else:
            said.moved = True
            answer = await self._order(**order)
            self.report.sent_now += answer is not None and "run" in answer

    # Verdict.

    async def _judge(self, runs: Runs, thread: str) -> None:
        """Wait until the conversation is at rest, and check it."""
        report, scope = self.report, scope_of("", thread)
        queue = await _at_rest(runs, scope)
        names = list(await runs.store.thread(scope, most=1000))
        turns = []
        for name in names:
            info = await runs.store.describe(name)
            turns.append(Turn(name, meta_of(info), await dump(runs.store, name)))
        turns = _along(turns, queue.head)
        said = self._said[thread]
        broken = check_thread(said, turns, [entry.run for entry in queue.waiting])
        if self._feeds:
            broken += await self._untold(thread, turns)
        self._turns += turns
        report.broken += [f"{thread}: {text}" for text in broken]
        taken = steers_of(turns)
        counts = Counter(report.turns)
        counts["runs"] += len(turns)
        counts["steers"] += taken
        counts["refused"] += sum(one.refusal is not None for one in said)
        report.turns = dict(counts)

    async def _untold(self, thread: str, turns: list[Turn]) -> list[str]:
        """T7: the feed told each start and end, once. A worker that lives tells the rest."""
        told, end = self._told.pop(thread), time.monotonic() + REST
        while told.missing(turns) and time.monotonic() < end:
            await self._order(do="follow", thread=thread)
            await asyncio.sleep(0.1)
            await told.pull()
        await told.pull()
        told.follower.close()
        return told.broken(turns)

    def _runs_broken(self) -> list[str]:
        """The invariants of each run alone."""
        report, turns = self.report, self._turns
        requests = Counter(record.model for record in self._model.requests)
        cases = [
            Case(key=turn.run, scenario="", model=turn.meta.model, expected=None, runs={turn.run})
            for turn in turns
        ]
        broken: list[str] = []
        evidence = evidence_of(cases, self._journal, requests)
        for case, turn, seen in zip(cases, turns, evidence, strict=True):
            verdict = check(case, [turn.dump], seen)
            report.takeovers += verdict.claims
            outcomes = Counter(report.outcomes)
            outcomes[verdict.outcome] += 1
            report.outcomes = dict(outcomes)
            broken += [f"{turn.run}: {text}" for text in verdict.broken]
        return broken


def _no() -> None: ...


class Told:
    """What the feed of a conversation told one reader."""

    def __init__(self, follower: FeedFollower) -> None:
        self.follower = follower
        self._counts: Counter[tuple[str, str]] = Counter()

    async def pull(self) -> None:
        while events := await self.follower.pull():
            for _, data in events:
                event = msgspec.json.decode(data)
                if event["type"] in _TOLD:
                    self._counts[event["type"], event["run"]] += 1

    def missing(self, turns: list[Turn]) -> list[tuple[str, str]]:
        return [
            (kind, turn.run) for turn in turns for kind in _TOLD if not self._counts[kind, turn.run]
        ]

    def broken(self, turns: list[Turn]) -> list[str]:
        texts = [f"T7: {kind} of {run} was not told" for kind, run in self.missing(turns)]
        for (kind, run), count in self._counts.items():
            if count > 1:
                texts.append(f"T7: {kind} of {run} was told {count} times")
        return texts


async def _at_rest(runs: Runs, scope: str) -> Queue:
    """The queue, once nothing waits and nothing is under way, or after `REST` seconds. It is only
    read here: whoever looks at a queue in the ordinary way also starts what is due."""
    end = time.monotonic() + REST
    while True:
        data = await runs.store.document("conversation", scope)
        queue = msgspec.json.decode(data, type=Queue) if data is not None else Queue()
        infos = [await runs.store.describe(run) for run in queue.open]
        is_busy = queue.waiting or queue.starting or any(info.closed is None for info in infos)
        if not is_busy or time.monotonic() >= end:
            return queue
        await asyncio.sleep(0.1)


def _along(turns: list[Turn], head: str | None) -> list[Turn]:
    """From the beginning to ``head``, each after the one that it continues; then the others."""
    by_run = {turn.run: turn for turn in turns}
    branch: list[Turn] = []
    run = head
    while run is not None and run in by_run:
        turn = by_run.pop(run)
        branch.append(turn)
        run = turn.meta.history.parent if turn.meta.history is not None else None
    return [*branch[::-1], *by_run.values()]


def _answer(ask: Ask, seed: int) -> Script:
    return Script(steps=[Say("".join(_PIECES), _PIECES)])
