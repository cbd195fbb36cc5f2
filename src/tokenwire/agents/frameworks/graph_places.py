"""Where a graph of LangGraph stands: how a turn that a lost worker left open goes on.

Always true: a place is stored after the log has all that was said before its checkpoint, and before
the checkpointer has that checkpoint, so that a node which the checkpointer has as done is not run
again; a turn goes on from the last place whose checkpoint is there, and what readers have from
after it is taken back first; without the checkpoint the run ends, and nothing is run again.
"""

from __future__ import annotations

import asyncio
import copy
import functools
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import msgspec

from tokenwire.agents.context import RunContext
from tokenwire.agents.frameworks.turns import Turn, lost
from tokenwire.events.model import Data, Event, StepEnd, StepReset, StepStart, ToolError, ToolResult

__all__ = ["Place", "Places", "has_checkpointer"]

#: Channels of writes that do not mean that their task is over.
_OPEN = frozenset(("__interrupt__", "__resume__", "__error__"))
_NO_TASK = "00000000-0000-0000-0000-000000000000"


class Place(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A checkpoint, and what readers had at it."""

    checkpoint: str
    #: The run's last step, and its last event.
    step: int = 0
    seq: int = 0
    #: Ids of calls in the graph -> the run's.
    calls: dict[str, str] = {}
    reason: str = "stop"
    #: The tasks that were over when an answer was about to be given to the graph here; None: the
    #: graph has it.
    before_answer: list[str] | None = None
    #: The place before it, where the graph stands while the checkpointer has no such checkpoint.
    previous: Place | None = None


def has_checkpointer(graph: Any) -> bool:
    """Whether the graph keeps checkpoints."""
    return not isinstance(graph.checkpointer, bool | None)


class Places:
    """The places of one turn. ``number``: of the turn."""

    def __init__(self, ctx: RunContext, turn: Turn, graph: Any, number: int) -> None:
        self._ctx, self._turn, self._graph = ctx, turn, graph
        self._name = f"graph-{number}"
        self._is_kept = has_checkpointer(graph)
        self._data: list[tuple[str, Any]] = []
        #: The last one, and whether a lost worker left it.
        self.place: Place | None = None
        self.is_resumed = False

    async def find(self) -> None:
        """The place of a turn that was open; what came after it is taken back. Ends the run when
        there is none."""
        engine, turn = self._ctx.engine, self._turn
        if not self._is_kept or not engine.earlier():
            return
        stored = engine.journal.others.get(self._name)
        if stored is not None:
            self.place = await self._last(msgspec.json.decode(stored, type=Place))
            if self.place is None and turn.is_open:
                await lost(self._ctx)
        elif turn.is_open:
            await lost(self._ctx)
        if self.place is not None:
            self.is_resumed = True
            # From now on no earlier owner moves it, which may be asleep, and not know that it is.
            await engine.journal.put_other(self._name, msgspec.json.encode(self.place))
            turn.source.calls |= self.place.calls
            await self._take_back(self.place)

    async def wait_for_answer(self, checkpoint: str) -> None:
        """The graph is about to get the answer to its question at a checkpoint."""
        tuple_ = await self._checkpoint(checkpoint) if self._is_kept else None
        if tuple_ is not None:
            await self._store(checkpoint, "stop", before_answer=_over(tuple_))

    def watched(self, reach: Callable[[str], Awaitable[None]]) -> Any:
        """The graph, which calls ``reach`` with the id of a checkpoint before it is stored."""
        if not self._is_kept:
            return self._graph
        graph, saver = copy.copy(self._graph), copy.copy(self._graph.checkpointer)
        store, store_writes = saver.aput, saver.aput_writes

        async def reach_and_store(config: Any, checkpoint: Any, *more: Any, **options: Any) -> Any:
            if not config["configurable"].get("checkpoint_ns"):  # of the graph, none inside of it
                await reach(checkpoint["id"])
                saved = await _whole(store(config, checkpoint, *more, **options))
                await self._hand_over()
                return saved
            return await _whole(store(config, checkpoint, *more, **options))

        # LangGraph looks at the names of the parameters.
        @functools.wraps(store_writes)
        async def store_whole(*args: Any, **options: Any) -> Any:
            return await _whole(store_writes(*args, **options))

        saver.aput, saver.aput_writes = reach_and_store, store_whole
        graph.checkpointer = saver
        return graph

    async def _hand_over(self) -> None:
        """Where the worker leaves, another one goes on from here."""
        engine = self._ctx.engine
        if engine.leaving:
            engine.in_turn = False
            await asyncio.Event().wait()

    async def reach(self, checkpoint: str, reason: str) -> None:
        """The graph is about to have a ``checkpoint``; all before it was said."""
        await self._ctx.engine.outlet.put(self._turn.source, [], durable=True)
        await self._store(checkpoint, reason)

    def was_said(self, event: Event) -> bool:
        """Whether readers have this from before: what a node that runs again says twice."""
        if isinstance(event, Data):
            if (event.name, event.payload) in self._data:
                self._data.remove((event.name, event.payload))
                return True
            return False
        if not isinstance(event, ToolResult | ToolError):
            return False
        call_id = self._turn.source.calls.get(event.call_id, event.call_id)
        tool = self._ctx.engine.fold.tools.get(call_id)
        if tool is None or not tool.done:
            return False
        if isinstance(event, ToolError):
            return (tool.error, tool.content) == (event.code, event.message)
        return tool.error is None and tool.content == event.content

    async def _store(
        self, checkpoint: str, reason: str, before_answer: list[str] | None = None
    ) -> None:
        engine, previous = self._ctx.engine, self.place
        if previous is not None:
            previous = msgspec.structs.replace(previous, previous=None)
        self.place = Place(
            checkpoint=checkpoint,
            step=max((step.step for step in engine.fold.steps), default=0),
            seq=engine.fold.seq,
            calls=self._turn.source.calls,
            reason=reason,
            before_answer=before_answer,
            previous=previous,
        )
        await engine.journal.put_other(self._name, msgspec.json.encode(self.place))

    async def _last(self, stored: Place) -> Place | None:
        """The last place whose checkpoint is there; None where the graph has not begun. Ends the
        run where the checkpoints are gone, or nobody knows what an answered node did."""
        place: Place | None = stored
        tuple_ = await self._checkpoint(stored.checkpoint)
        if tuple_ is None:
            place = stored.previous
            if place is None:
                # Noted before the graph had its input: it begins as if it had not begun.
                return None
            tuple_ = await self._checkpoint(place.checkpoint)
        before = place.before_answer
        if tuple_ is None or (before is not None and _over(tuple_) != before):
            await lost(self._ctx)
        return place

    async def _checkpoint(self, checkpoint: str) -> Any:
        where = {"thread_id": self._ctx.run, "checkpoint_ns": "", "checkpoint_id": checkpoint}
        return await self._graph.checkpointer.aget_tuple({"configurable": where})

    async def _take_back(self, place: Place) -> None:
        engine, turn = self._ctx.engine, self._turn
        open_step = engine.order.step if engine.order.state == "step" else None
        steps = [
            step
            for step in engine.fold.steps
            if step.operation == turn.source.operation
            and step.step > place.step
            and (step.parts or step.step == open_step)
        ]
        for step in sorted(steps, key=lambda step: step.step != open_step):
            number, attempt = step.step, step.attempt + 1
            parts = list(step.parts)
            engine.outlet.task(
                StepReset(step=number, attempt=attempt, discard_parts=parts, reason="restart")
            )
            start = StepStart(
                step=number, attempt=attempt, name=step.name, operation=step.operation
            )
            engine.outlet.task(start)
            engine.outlet.task(StepEnd(step=number, status="complete", terminal_seen=True))
        self._data = [
            (event.name, event.payload)
            for event in engine.earlier()
            if isinstance(event, Data) and event.seq > place.seq
        ]
        await engine.outlet.put(turn.source, [], durable=True)


#: Writes of checkpointers that are under way.
_writing: set[asyncio.Task[Any]] = set()


async def _whole(write: Coroutine[Any, Any, Any]) -> Any:
    """A write that goes on when its run is cancelled: one that stops in the middle leaves a
    transaction open, which locks the file of a `SqliteSaver` for all other processes."""
    task = asyncio.create_task(write)
    _writing.add(task)
    task.add_done_callback(_writing.discard)
    return await asyncio.shield(task)


def _over(tuple_: Any) -> list[str]:
    """The tasks after a checkpoint that are over."""
    writes = tuple_.pending_writes or []
    return sorted({w[0] for w in writes if w[0] != _NO_TASK and w[1] not in _OPEN})
