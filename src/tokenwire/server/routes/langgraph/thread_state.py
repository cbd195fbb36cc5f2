"""A thread's states: what was said up to each checkpoint, and what its newest run waits for.

Always true: a turn has two checkpoints, ``RUN.input`` with its question and ``RUN`` with its
answer; the first of a thread is ``root``; the messages of a state are those that the stream of its
run had as ``values``, under the same ids, and the words of one that is being written.
"""

from __future__ import annotations

from datetime import UTC, datetime

from tokenwire.errors import GoneError, NotFoundError
from tokenwire.events.fold import Fold
from tokenwire.events.reasons import OUTCOMES
from tokenwire.relay.conversation.history import Turn
from tokenwire.relay.conversation.turns import Turns, named
from tokenwire.relay.description import RunInfo
from tokenwire.server.state import State
from tokenwire.wire.chunk_encoder import Chunk, dumps_text
from tokenwire.wire.langgraph.messages import answer_messages, wire_messages
from tokenwire.wire.langgraph.state import (
    INPUT,
    ROOT,
    failure_of_fold,
    interrupts_of,
    values_of,
)

__all__ = [
    "history_of",
    "messages_before",
    "moment",
    "run_status",
    "states_of",
    "status_of",
]

#: Node of a run as tasks of a state name it.
_NODE = "model"


def moment(seconds: float) -> str:
    """Unix seconds as ISO 8601."""
    return datetime.fromtimestamp(seconds, UTC).isoformat()


async def messages_before(state: State, run: RunInfo, principal: str) -> list[Chunk]:
    """What was said in the thread of a run before its answer, its question included."""
    if run.thread is not None:
        turns = await state.conversations.turns(principal, run.thread)
        turn = await turns.get(run.id)
        if turn is not None:
            before = await turns.branch(turn.parent)
            return [*history_of(before), *wire_messages(turn.messages)]
    return wire_messages(named(run.id, await state.runs.received(run.id, principal=principal)))


def history_of(turns: list[Turn]) -> list[Chunk]:
    """The messages of turns, one after the other."""
    messages: list[Chunk] = []
    for turn in turns:
        messages += [*wire_messages(turn.messages), *wire_messages(turn.answer, turn.run)]
    return messages


async def states_of(
    state: State, thread: str, principal: str, *, most: int, only: str | None = None
) -> list[Chunk]:
    """The newest ``most`` states of a thread, of all of its branches, the newest first; with
    ``only`` the one of that checkpoint."""
    queue = await state.conversations.queue(principal, thread, waits=False)
    turns = await state.conversations.turns(principal, thread)
    every = await turns.all(queue.head, *queue.open)
    ordered = sorted((t for t in every.values() if not t.is_erased), key=lambda t: -t.created)
    if queue.head in every:  # the branch that counts is the newest one
        ordered.sort(key=lambda turn: turn.run != queue.head)
    states: list[Chunk] = []
    for turn in ordered:
        if only is None and len(states) >= most:
            return states[:most]
        if only is not None and only not in (turn.run, turn.run + INPUT):
            continue
        states += await _of_turn(state, thread, turns, turn, principal)
    root = _state(thread, ROOT, None, values_of([], None), ordered[-1].created if ordered else 0.0)
    states = [*states, root]
    if only is not None:
        return [one for one in states if one["checkpoint"]["checkpoint_id"] == only]
    return states[:most]


async def _of_turn(
    state: State, thread: str, turns: Turns, turn: Turn, principal: str
) -> list[Chunk]:
    parent = await _living(turns, turn.parent)
    before = history_of(await turns.branch(parent))
    question = [*before, *wire_messages(turn.messages)]
    first = _state(
        thread, turn.run + INPUT, parent or ROOT, values_of(question, None), turn.created
    )
    first["next"] = [_NODE]
    first["metadata"] = {"step": 2 * turn.depth, "source": "input"}
    try:
        fold = await state.runs.fold(turn.run, principal=principal)
    except (NotFoundError, GoneError):
        return [first]
    values = values_of([*question, *answer_messages(fold, has_open=True)], fold.shared)
    last = _state(thread, turn.run, turn.run + INPUT, values, turn.created)
    # An answer that is being written is not at its step yet: its words go on in a stream.
    is_written = fold.outcome is not None or bool(fold.waiting)
    step = 2 * turn.depth + is_written
    last["metadata"] = {"run_id": turn.run, "step": step, "source": "loop"}
    _add_tasks(last, fold)
    return [last, first]


async def _living(turns: Turns, run: str | None) -> str | None:
    """The turn that a turn continues, or the one before it where that was erased."""
    while run is not None:
        turn = await turns.get(run)
        if turn is None:
            return None
        if not turn.is_erased:
            return run
        run = turn.parent
    return None


def _checkpoint(thread: str, name: str) -> Chunk:
    return {"thread_id": thread, "checkpoint_ns": "", "checkpoint_id": name, "checkpoint_map": None}


def _state(thread: str, name: str, parent: str | None, values: Chunk, created: float) -> Chunk:
    return {
        "values": values,
        "next": [],
        "tasks": [],
        "interrupts": [],
        "metadata": {},
        "created_at": moment(created),
        "checkpoint": _checkpoint(thread, name),
        "parent_checkpoint": _checkpoint(thread, parent) if parent is not None else None,
    }


def _add_tasks(last: Chunk, fold: Fold) -> None:
    """What is left to do: to answer what the run waits for, or to make up for its failure."""
    interrupts = interrupts_of(fold, fold.waiting)
    failure = failure_of_fold(fold)
    if fold.outcome is not None and failure is None:
        return
    task: Chunk = {
        "id": f"{fold.run}-task",
        "name": _NODE,
        "path": ["__pregel_pull", _NODE],
        "error": dumps_text(failure) if failure is not None else None,
        "interrupts": interrupts,
        "checkpoint": None,
        "state": None,
        "result": None,
    }
    last |= {"next": [_NODE], "tasks": [task], "interrupts": interrupts}


def status_of(run: RunInfo | None) -> str:
    """A thread's status, by its newest run."""
    if run is None:
        return "idle"
    if run.state not in OUTCOMES:
        return "interrupted" if run.state == "waiting" else "busy"
    if run.state in ("error", "interrupted"):
        return "error"
    return "idle"


def run_status(run: RunInfo, fold: Fold | None = None) -> str:
    """A run's status."""
    if run.state not in OUTCOMES:
        return "interrupted" if run.state == "waiting" else "running"
    if run.state == "cancelled":
        return "interrupted"
    if run.state == "complete":
        return "success"
    is_cut = fold is not None and failure_of_fold(fold) is None
    return "success" if is_cut else "error"
