"""Shared conversations under kills: members come and go, and everybody tries everything meanwhile.

In each conversation its owner lets two people in and removes them, again and again, or they leave
by themselves, while all of them, and a stranger, send turns, read, follow, approve and use links
through workers that are killed and stopped. The seed fixes every choice; the moments depend on the
machine as well.
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
from typing import Any

from faults import members_worker
from faults.checker import dump
from faults.herd import Herd, Hits
from faults.journal import CHECK, Line
from faults.members_checker import Act, Change, History, Life, Reader, check_members
from tokenwire.events import model as m
from tokenwire.events.codec import decode
from tokenwire.relay.conversation.scope import scope_of
from tokenwire.relay.description import meta_of
from tokenwire.relay.runs import Runs
from tokenwire.run.stream import new_run_id
from tokenwire.simulator.scenarios import SCENARIOS, Scenario
from tokenwire.simulator.script import Ask, Say, Script

ANN, STRANGER = "ann", "eve"
#: Who is let in, and what they may do.
GUESTS = {"ben": "write", "cem": "approve"}
THREADS_AT_ONCE = 3
#: How often each guest comes and goes, before the conversation is judged.
ROUNDS = 2
#: Seconds within which a conversation comes to rest.
REST = 60.0
_SCENARIO = "shared-turn"
_PIECES = tuple(f"piece {number} " for number in range(12))
_ACTS = {
    ANN: "say approval approval approval page snapshot page snapshot approve",
    "ben": "say say say approval page snapshot approve link decide decide old-invite",
    "cem": "say approval page snapshot link link link link decide decide old-invite",
    STRANGER: "say page snapshot approve link decide old-invite",
}
_READS = ("read", "read", "follow")


@dataclass
class MembersReport(Hits):
    """What happened, for people and programs."""

    threads: int = 0
    joins: int = 0
    removals: int = 0
    #: What people tried, and what readers got, by what became of it.
    acts: dict[str, int] = field(default_factory=dict)
    batches: int = 0
    ended_readers: int = 0
    runs: int = 0


@dataclass
class Room:
    """One conversation and what is known of it. ``id``: by which its guests reach it."""

    thread: str
    id: str = ""
    history: History = field(default_factory=lambda: History(ANN))
    runs: list[str] = field(default_factory=list)
    #: Links and invitations that were made: id, run, membership; name, when.
    links: list[tuple[str, str, str]] = field(default_factory=list)
    invites: list[tuple[str, float]] = field(default_factory=list)
    is_over: bool = False

    @property
    def scope(self) -> str:
        return scope_of(ANN, self.thread)

    def name_for(self, who: str) -> str:
        return self.thread if who == ANN else self.id


class MembersHarness(Herd):
    """One run of the harness on one store."""

    main = staticmethod(members_worker.main)

    def __init__(
        self,
        store: str,
        folder: Path,
        *,
        seed: int,
        kills: int,
        workers: int = 3,
        threads: int = THREADS_AT_ONCE,
        rounds: int = ROUNDS,
        restart_store: Callable[[], None] | None = None,
    ) -> None:
        self.report = MembersReport(seed, store.partition(":")[0])
        super().__init__(
            self.report, store, folder, kills=kills, workers=workers, restart_store=restart_store
        )
        self._seed, self._threads, self._rounds = seed, threads, rounds
        self._rooms: list[Room] = []
        #: Conversations, by either name, that are not judged.
        self._lost: set[str] = set()

    async def run(self) -> MembersReport:
        begun = time.monotonic()
        SCENARIOS[_SCENARIO] = Scenario(_SCENARIO, "What a turn is answered.", _answer)
        try:
            async with self._at_work() as runs:
                killer = asyncio.create_task(self._kill())
                lanes = [self._lane(runs, killer, number) for number in range(self._threads)]
                await asyncio.gather(killer, *lanes)
                self._judge()
        finally:
            SCENARIOS.pop(_SCENARIO, None)
        self.report.seconds = time.monotonic() - begun
        return self.report

    async def _lane(self, runs: Runs, killer: asyncio.Task[None], lane: int) -> None:
        """One conversation after the other, until the killing is done."""
        for number in itertools.count(1):
            if killer.done():
                return
            room = Room(f"trip-{lane}-{number}")
            self._rooms.append(room)
            self.report.threads += 1
            await self._open(room)
            doings = [asyncio.create_task(self._person(room, who)) for who in (*GUESTS, STRANGER)]
            doings.append(asyncio.create_task(self._person(room, ANN)))
            await asyncio.gather(*(self._guest(room, who) for who in GUESTS))
            room.is_over = True
            await asyncio.gather(*doings)
            await self._rest(runs, room)

    # Who belongs to it.

    async def _open(self, room: Room) -> None:
        """A conversation with an id: an owner who is put in is one already."""
        while not room.id:
            order = {"do": "put", "by": ANN, "thread": room.thread, "who": ANN, "role": "own"}
            answer = await self._order(patience=None, **order)
            room.id = (answer or {}).get("id", "")

    async def _guest(self, room: Room, who: str) -> None:
        """Somebody comes and goes; and stays in the end, or not."""
        chance = random.Random(f"{self._seed} {room.thread} {who}")
        rounds = self._rounds + chance.random() / 2
        for number in range(2 * self._rounds + (chance.random() < 0.5)):
            await asyncio.sleep(chance.choice([0.0, 0.05, 0.3, 0.8]))
            if number % 2 == 0:
                await self._join(chance, room, who)
            else:
                await self._leave(chance, room, who)
        await asyncio.sleep(rounds / 4)

    async def _join(self, chance: random.Random, room: Room, who: str) -> None:
        order = {"do": "put", "by": ANN, "thread": room.thread, "who": who, "role": GUESTS[who]}
        if chance.random() < 0.5:
            name = await self._invite(room, who)
            order = {"do": "accept", "by": who, "thread": room.id, "invite": name}
        change = await self._change(order, lambda answer: "member" in answer)
        change.principal, change.is_in = who, True
        room.history.changes.append(change)
        self.report.joins += 1

    async def _invite(self, room: Room, who: str) -> str:
        while True:
            order = {"do": "invite", "by": ANN, "thread": room.thread, "role": GUESTS[who]}
            answer = await self._order(patience=None, **order)
            if answer is not None and "invite" in answer:
                room.invites.append((answer["invite"], time.monotonic()))
                return answer["invite"]

    async def _leave(self, chance: random.Random, room: Room, who: str) -> None:
        by = ANN if chance.random() < 0.7 else who
        order = {"do": "remove", "by": by, "thread": room.name_for(by), "who": who}
        # Refused: the one before it, of which nobody heard, had done it.
        change = await self._change(order, lambda answer: "error" not in answer)
        change.principal, change.is_in, change.by_owner = who, False, by == ANN
        room.history.changes.append(change)
        self.report.removals += 1

    async def _change(self, order: dict[str, Any], is_done: Callable[[Line], bool]) -> Change:
        """Order a change until it is done. Who died before it answered does nothing later."""
        sent, end = time.monotonic(), time.monotonic() + REST
        answers: Counter[str] = Counter()
        while time.monotonic() < end:
            answer = await self._order(patience=None, **order)
            answers[str((answer or {}).get("error"))] += 1
            if answer is not None and is_done(answer):
                now = time.monotonic()
                change = Change("", False, sent, now, answer["worker"], now, order=answer["order"])
                change.member = answer.get("member", "")
                return change
        self.report.broken.append(f"{order}: not done in {REST:g} s: {dict(answers)}")
        self._lost.add(order["thread"])  # nobody knows who is a member there
        return Change("", False, sent, time.monotonic())

    # What people do.

    async def _person(self, room: Room, who: str) -> None:
        chance = random.Random(f"{self._seed} {room.thread} {who} acts")
        reading = asyncio.create_task(self._reads(room, who))
        for number in itertools.count(1):
            if room.is_over:
                break
            await asyncio.sleep(chance.choice([0.0, 0.02, 0.1, 0.4]))
            await self._act(chance, room, who, number)
        await reading

    async def _reads(self, room: Room, who: str) -> None:
        """A reader after the other, each for a while; and a stranger's attempts."""
        chance = random.Random(f"{self._seed} {room.thread} {who} reads")
        while not room.is_over:
            await asyncio.sleep(chance.choice([0.02, 0.1, 0.3]))
            order: dict[str, Any] = {"do": chance.choice(_READS), "seconds": chance.uniform(0.3, 4)}
            if order["do"] == "follow":
                if not room.runs:
                    continue
                order["run"] = room.runs[-1]
            await self._try(room, who, **order)

    async def _act(self, chance: random.Random, room: Room, who: str, number: int) -> None:
        do = chance.choice(_ACTS[who].split())
        if do in ("say", "approval"):
            key = f"{room.thread}-{who}-{number}"
            text = f"scenario:{'approval' if do == 'approval' else _SCENARIO} {key}"
            words = {"key": key, "text": text, "model": f"model-{key}", "run": new_run_id()}
            answer = await self._try(room, who, do="say", **words)
            if "run" in answer:
                room.runs.append(answer["run"])
        elif do == "old-invite":
            if room.invites and who != ANN:
                name, made = chance.choice(room.invites)
                # As those who hold one: nobody else's is tried, lest it admit at a good time.
                await self._old_invite(room, who, name, made)
        elif do == "decide":
            if room.links:
                link, run, member = chance.choice(room.links[-4:])
                await self._try(room, who, do="decide", link=link, run=run, member=member)
        elif do == "snapshot":
            if room.runs:
                await self._try(room, who, do=do, run=chance.choice(room.runs))
        else:
            answer = await self._try(room, who, do=do)
            if "link" in answer:
                room.links.append((answer["link"], answer["run"], answer["member"]))

    async def _old_invite(self, room: Room, who: str, name: str, made: float) -> None:
        """Who was removed by the owner, and is out for now, tries an older invitation."""
        changes = [one for one in room.history.changes if one.principal == who]
        is_barred = changes and not changes[-1].is_in and changes[-1].by_owner
        if is_barred and made < changes[-1].sent:
            await self._try(room, who, do="accept", invite=name, made=made)

    async def _try(self, room: Room, who: str, **order: Any) -> dict[str, Any]:
        """Somebody tries something once; it is noted with what became of it."""
        act = Act(who, order["do"], time.monotonic(), 0.0, "unknown", order.pop("made", 0.0))
        act.member, act.link = order.pop("member", ""), order.get("link", "")
        answer = await self._order(by=who, thread=room.name_for(who), **order) or {}
        act.answered = time.monotonic()
        if "refused" in answer:
            act.outcome = "refused"
        elif answer and "error" not in answer and "nothing" not in answer:
            act.outcome = "ok" if answer.get("state", "done") == "done" else "unknown"
        room.history.acts.append(act)
        counts = Counter(self.report.acts)
        counts[f"{act.what} {act.outcome}"] += 1
        self.report.acts = dict(counts)
        return answer

    # Verdict.

    async def _rest(self, runs: Runs, room: Room) -> None:
        """Wait until nothing of the conversation is under way, and note what there is."""
        end = time.monotonic() + REST
        while time.monotonic() < end:
            await self._order(do="approve", by=ANN, thread=room.thread)
            await self._order(do="page", by=ANN, thread=room.thread)
            infos = [await runs.store.describe(run) for run in await self._runs_of(runs, room)]
            pending = await runs.store.document("conversation-pending", room.scope)
            if pending is None and all(info.closed is not None for info in infos):
                break
            await asyncio.sleep(0.1)
        else:
            queue = await runs.store.document("conversation", room.scope)
            still = [info.log for info in infos if info.closed is None]
            about = f"open: {still}, note: {pending!r}, queue: {queue!r}"
            self.report.broken.append(f"{room.thread}: not at rest in {REST:g} s: {about}")
        offset = time.time() - time.monotonic()
        for run in await self._runs_of(runs, room):
            info = await runs.store.describe(run)
            life = Life(run, meta_of(info).principal, info.created - offset)
            for record in (await dump(runs.store, run)).records:
                event = decode(record[CHECK:])
                if isinstance(event, m.ApprovalAnswer) and "link " in (event.by or ""):
                    life.links.append((event.by or "").partition("link ")[2].rstrip(")"))
            room.history.runs.append(life)
        self.report.runs += len(room.history.runs)
        for who in (*GUESTS, STRANGER):
            await self._last_look(room, who)

    async def _runs_of(self, runs: Runs, room: Room) -> list[str]:
        return list(await runs.store.thread(room.scope, most=1000))

    async def _last_look(self, room: Room, who: str) -> None:
        """What somebody may still do, and sees in the list, once all is quiet."""
        end = time.monotonic() + REST
        answer: dict[str, Any] = {}
        while "ids" not in answer and time.monotonic() < end:
            answer = await self._order(do="joined", by=who, thread=room.id) or {}
        room.history.joined[who] = room.id in answer.get("ids", ())
        for do in ("page", "read"):
            outcome = "unknown"
            while outcome == "unknown" and time.monotonic() < end:
                await self._try(room, who, do=do, seconds=0.1)
                outcome = room.history.acts[-1].outcome

    def _judge(self) -> None:
        """Add what workers wrote down, and check each conversation."""
        report, rooms = self.report, {}
        for room in self._rooms:
            rooms[room.thread] = rooms[room.id] = room.history
        looks: dict[str, list[tuple[float, float]]] = {}
        served: dict[int, float] = {}
        for line in self._journal.lines():
            if line["what"] == "looked":
                looks.setdefault(line["who"], []).append((line["begun"], line["t"]))
            elif line["what"] == "removed":
                served[line["order"]] = line["t"]
            elif line["what"] in ("seen", "barred"):
                reader = Reader(line["key"], line["who"], line["t"], line.get("opened"))
                rooms[line["thread"]].readers.append(reader)
                report.batches += line["what"] == "seen"
                report.ended_readers += line["what"] == "barred"
        for room in self._rooms:
            if self._lost & {room.thread, room.id}:
                continue
            room.history.looks = looks
            for change in room.history.changes:
                if not change.is_in and change.order in served:
                    change.served = served[change.order]
                elif not change.is_in:
                    change.worker = ""  # who left by an order before this one, somewhere else
            report.broken += [f"{room.thread}: {text}" for text in check_members(room.history)]


def _answer(ask: Ask, seed: int) -> Script:
    return Script(steps=[Say("".join(_PIECES), _PIECES)])
