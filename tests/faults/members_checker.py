"""The invariants M1-M7 of a shared conversation, checked on what its people sent and were answered,
on what their readers got, and on its final runs. Pure: values in, complaints out.

Times are seconds of one clock. Between a change of the members and its answer nobody knows whether
it counts already; before and after, everybody does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

__all__ = ["Act", "Change", "History", "Life", "Reader", "check_members"]

#: Seconds for which a reader may go on elsewhere, however slow the machine is: a watch that died.
LONGEST = 30.0
#: Seconds between the moment of a creation and that which the store noted.
_CLOCKS = 0.005
#: What is refused as well where a turn has no run yet, or will have none.
_OF_RUNS = ("follow", "snapshot", "approve", "link")


@dataclass
class Change:
    """A membership that began or ended: sent first, and answered by ``worker`` (empty: another
    process did it). ``served``: when that had done it, by its own notes; ``member``: its id;
    ``by_owner``: whose removal bars; ``order``: the number of what was answered."""

    principal: str
    is_in: bool
    sent: float
    answered: float
    worker: str = ""
    served: float = 0.0
    member: str = ""
    by_owner: bool = True
    order: int = 0


@dataclass
class Act:
    """What somebody did: ``ok``, ``refused``, or ``unknown`` where nobody answered or something
    else stood in the way. ``made``: when the invitation or link that it uses was made; ``member``:
    the membership of that link; ``link``: its id."""

    principal: str
    what: str
    sent: float
    answered: float
    outcome: str
    made: float = 0.0
    member: str = ""
    link: str = ""


@dataclass
class Reader:
    """A reader of ``principal`` in ``worker`` got something ``at``; or was ended then, after it was
    ``opened``."""

    principal: str
    worker: str
    at: float
    opened: float | None = None


@dataclass
class Life:
    """A run of the conversation: whose, and when it was created. ``links``: the beginnings of the
    ids of links that answered its approvals."""

    run: str
    principal: str
    created: float
    links: list[str] = field(default_factory=list)


@dataclass
class History:
    """All of one conversation. ``owner`` is in it from the beginning; ``looks``: of each worker,
    when looks at changes of other processes began and were over; ``joined``: who found it in the
    list of conversations at the end."""

    owner: str
    changes: list[Change] = field(default_factory=list)
    acts: list[Act] = field(default_factory=list)
    readers: list[Reader] = field(default_factory=list)
    looks: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    runs: list[Life] = field(default_factory=list)
    joined: dict[str, bool] = field(default_factory=dict)


@dataclass
class Spell:
    """A time in which somebody certainly is a member, or is none."""

    is_in: bool
    since: float
    until: float
    change: Change | None = None

    def holds(self, start: float, end: float | None = None) -> bool:
        return self.since <= start and (start if end is None else end) <= self.until


def check_members(history: History) -> list[str]:
    """What is broken."""
    names = {history.owner, *history.joined, *(act.principal for act in history.acts)}
    names |= {one.principal for one in history.readers} | {run.principal for run in history.runs}
    spells = {name: spells_of(history, name) for name in names}
    return [
        *_requests(history, spells),
        *_readers(history, spells),
        *_turns(history, spells),
        *_links(history),
        *_lists(history, spells),
    ]


def spells_of(history: History, principal: str) -> list[Spell]:
    """Of what is certain about ``principal``, one after the other."""
    if principal == history.owner:
        return [Spell(True, -math.inf, math.inf)]
    changes = [change for change in history.changes if change.principal == principal]
    until = changes[0].sent if changes else math.inf
    spells = [Spell(False, -math.inf, until)]
    for change, following in zip(changes, [*changes[1:], None], strict=False):
        until = following.sent if following is not None else math.inf
        spells.append(Spell(change.is_in, change.answered, until, change))
    return spells


def _requests(history: History, spells: dict[str, list[Spell]]) -> Iterable[str]:
    """M1: who is no member is refused; M6: who is one is not. M7: nor does an invitation from
    before a removal admit anybody."""
    for act in history.acts:
        spell = _spell(spells[act.principal], act.sent, act.answered)
        if spell is None or act.outcome == "unknown" or act.what == "decide":
            continue
        where = f"{act.what} of {act.principal} at {act.sent:.3f}"
        change = spell.change
        if act.what == "accept":
            is_old = change is not None and change.by_owner and act.made < change.sent
            if not spell.is_in and is_old and act.outcome == "ok":
                yield f"M7: {where}: an invitation from before the removal counted"
        elif spell.is_in and act.outcome == "refused" and act.what not in _OF_RUNS:
            yield f"M6: {where}: a member was refused"
        elif not spell.is_in and act.outcome == "ok":
            yield f"M1: {where}: who is no member was answered"


def _readers(history: History, spells: dict[str, list[Spell]]) -> Iterable[str]:
    """M2: a reader gets nothing after the removal was answered in its process, or noticed; M3: and
    a stranger nothing at all; M6: and no member's reader is ended."""
    for one in history.readers:
        if one.opened is not None:
            spell = _spell(spells[one.principal], one.opened, one.at)
            if spell is not None and spell.is_in:
                yield f"M6: a reader of {one.principal} was ended at {one.at:.3f}"
            continue
        for spell in spells[one.principal]:
            if spell.is_in or one.at > spell.until:
                continue
            change = spell.change
            if change is None:
                if spell.holds(one.at):
                    yield f"M3: {one.principal} read at {one.at:.3f}, and was no member yet"
            elif one.worker == change.worker and one.at > change.served:
                yield f"M2: {one.principal} read in the process of the removal, after it"
            elif one.at > spell.since + LONGEST or _was_noticed(history, one, spell.since):
                late = one.at - spell.since
                yield f"M2: {one.principal} read in {one.worker} {late:.3f} s after the removal"


def _was_noticed(history: History, reader: Reader, since: float) -> bool:
    """Whether the reader's process has looked since: twice, as one who came while it looked is
    checked right after."""
    looks = history.looks.get(reader.worker, ())
    return sum(begun > since and end < reader.at for begun, end in looks) >= 2


def _turns(history: History, spells: dict[str, list[Spell]]) -> Iterable[str]:
    """M4: no turn of somebody begins after their removal was answered."""
    for run in history.runs:
        for spell in spells[run.principal]:
            if not spell.is_in and spell.holds(run.created - _CLOCKS):
                late = run.created - spell.since
                yield f"M4: {run.run} of {run.principal} began {late:.3f} s after the removal"


def _links(history: History) -> Iterable[str]:
    """M5: a link decides nothing after the membership by which it was made has ended, also where
    its maker is a member again."""
    ends: dict[str, float] = {}
    for change, following in _pairs(history.changes):
        if change.is_in and following is not None:
            ends[change.member] = following.answered
    used = {link for run in history.runs for link in run.links}
    for act in history.acts:
        if act.what != "decide" or act.sent <= ends.get(act.member, math.inf):
            continue
        if act.outcome == "ok" or (act.link[:12] in used and not _was_earlier(history, act)):
            yield f"M5: a link of {act.principal} counted after the removal, at {act.sent:.3f}"


def _was_earlier(history: History, act: Act) -> bool:
    """Whether the same link may have decided before."""
    return any(
        one.what == "decide" and one.link == act.link and one.sent < act.sent
        for one in history.acts
    )


def _lists(history: History, spells: dict[str, list[Spell]]) -> Iterable[str]:
    """M6: in the end the list of conversations shows it to its members, and to nobody else."""
    for principal, is_listed in history.joined.items():
        is_in = spells[principal][-1].is_in
        if is_in != is_listed:
            yield f"M6: {principal} is {'a' if is_in else 'no'} member, and the list is wrong"


def _pairs(changes: list[Change]) -> Iterable[tuple[Change, Change | None]]:
    """Each change with the next one of the same person."""
    for number, change in enumerate(changes):
        rest = (one for one in changes[number + 1 :] if one.principal == change.principal)
        yield change, next(rest, None)


def _spell(spells: list[Spell], start: float, end: float) -> Spell | None:
    return next((spell for spell in spells if spell.holds(start, end)), None)
