"""From what an agent and its streams say to one ordered run: numbers, and whose turn it is.

Always true: one speaker's step is open at a time (the floor); what needs the floor and does not
have it waits in order until it is free; steps, parts and calls of different speakers never share
a number or an id; data, state, progress and tasks pass at once. Belongs to one event loop.
"""

from __future__ import annotations

import asyncio
from collections import deque

import msgspec

from tokenwire.errors import InputError, LimitError, OrderError
from tokenwire.events.fold import Fold
from tokenwire.events.model import (
    Agent,
    ApprovalAnswer,
    ApprovalRequest,
    Data,
    Error,
    Event,
    Finish,
    PartAttr,
    PartDelta,
    PartEnd,
    PartPatch,
    PartStart,
    Raw,
    ResponseStart,
    RunBudget,
    RunProgress,
    RunWait,
    SharedState,
    StepEnd,
    StepReset,
    StepStart,
    TextDelta,
    TextStart,
    ToolCallStart,
    ToolStart,
    Usage,
)
from tokenwire.events.order import ENDS, Order

__all__ = ["Outlet", "Source"]

#: Events that wait to be written before the agent waits for them.
MOST_READY = 256
#: Bytes of text that wait for the floor, over all speakers.
MOST_KEPT = 16 << 20

_ANYWHERE = (Data, SharedState, RunProgress, RunBudget, Raw, Error)
_IN_STEP = (PartStart, PartEnd, PartAttr, PartPatch, ResponseStart, Finish)


class Source:
    """One speaker: the agent itself, or one of its streams, with its own numbers and ids."""

    __slots__ = (
        "agent",
        "backlog",
        "calls",
        "is_trusted",
        "kinds",
        "local",
        "name",
        "operation",
        "parts",
        "steps",
        "tasks",
    )

    def __init__(
        self, *, operation: int | None = None, name: str | None = None, agent: Agent | None = None
    ) -> None:
        self.operation, self.name, self.agent = operation, name, agent
        #: Its events come from a decoder of ours.
        self.is_trusted = False
        #: Its numbers -> the run's.
        self.steps: dict[int, int] = {}
        self.tasks: set[int] = set()
        self.parts: dict[int, int] = {}
        #: Its ids of calls and approvals -> the run's, and back.
        self.calls: dict[str, str] = {}
        self.local: dict[str, str] = {}
        #: Open parts by the run's number, with their kind.
        self.kinds: dict[int, str] = {}
        #: What waits for the floor.
        self.backlog: deque[Event] = deque()


class Outlet:
    """All speakers of one run on one side, the run's events on the other."""

    def __init__(self, order: Order, fold: Fold, *, most_steps: int, name: str) -> None:
        self.own = Source(name=name)
        self.floor: Source | None = None
        self._order, self._fold, self._name = order, fold, name
        self._next_part = order.next_part
        self._next_step = max((step.step for step in fold.steps), default=0) + 1
        self._model_steps = sum(step.kind == "model" for step in fold.steps)
        self._most_steps = most_steps
        self._ids = set(fold.tools) | {p.attrs.get("call_id", "") for p in fold.parts.values()}
        self._text: int | None = None  # the own text's open part
        self._queue: list[Source] = []
        self._kept_bytes = 0
        self._ready: list[Event] = []
        self._writes: list[asyncio.Future[None]] = []
        self._wake: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self.closed = False
        #: An error of the agent's own: the run ends with it.
        self.held: Error | None = None
        #: An error in the log, after which nobody has begun to speak.
        self.failure: Error | None = None

    # --- the run's side --------------------------------------------------------------------------

    async def wait(self) -> None:
        """Until there is something, or `wake` is called."""
        if not self._ready and not self._writes:
            self._wake = asyncio.get_running_loop().create_future()
            await self._wake

    def wake(self) -> None:
        """End a `wait`."""
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def take(self) -> tuple[list[Event], list[asyncio.Future[None]]]:
        """What is ready, and the futures to resolve when it is written."""
        ready, writes = self._ready, self._writes
        self._ready, self._writes = [], []
        return ready, writes

    def written(self, futures: list[asyncio.Future[None]]) -> None:
        """The events of a `take` are in the log."""
        for future in futures:
            if not future.done():
                future.set_result(None)
        if self._room is not None and not self._room.done() and len(self._ready) < MOST_READY:
            self._room.set_result(None)

    # --- the speakers' side ----------------------------------------------------------------------

    def emit(self, source: Source, events: list[Event]) -> None:
        """Say ``events``, in their order, as soon as they may be said. Raises `LimitError`, and
        `OrderError` for what may not follow."""
        if self.closed:
            return
        for event in events:
            if not source.is_trusted:
                _check_form(event)
            if isinstance(event, _ANYWHERE):
                if isinstance(event, Error):
                    self.failure = event
                self._ready.append(msgspec.structs.replace(event, seq=0, t=0))
            elif self._is_task(source, event):
                self._ready.append(self._renumbered(source, event))
            elif source.backlog or not self._offer(source, event):
                self._keep(source, event)
        self.wake()

    def hold(self, events: list[Event]) -> list[Event]:
        """Keep the last error of ``events`` for the run's end; the other events. Raises
        `InputError`."""
        for event in events:
            if isinstance(event, Error):
                _check_form(event)
                self.held = msgspec.json.decode(msgspec.json.encode(event), type=Error)
        return [event for event in events if not isinstance(event, Error)]

    async def put(self, source: Source, events: list[Event], *, durable: bool = False) -> None:
        """`emit`, then wait while much is ready; with ``durable`` until the log has them."""
        self.emit(source, events)
        if durable:
            while source.backlog and not self.closed:
                await self._flushed()
            await self._flushed()
        while len(self._ready) >= MOST_READY and not self.closed:
            if self._room is None or self._room.done():
                self._room = asyncio.get_running_loop().create_future()
            await self._room

    async def _flushed(self) -> None:
        if self.closed:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._writes.append(future)
        self.wake()
        await future

    async def say(self, text: str) -> None:
        """Text of the agent's own."""
        if not text or self.closed:
            return
        if not text.isascii():
            _check_text(text)
        if self._text is not None and self.floor is self.own and not self.own.backlog:
            self._ready.append(TextDelta(part=self._text, text=text))
            self.wake()
            if len(self._ready) >= MOST_READY:
                await self.put(self.own, [])
            return
        await self.put(self.own, [TextDelta(part=-1, text=text)])

    def task(self, event: StepStart | StepEnd | StepReset) -> int:
        """The start or end of a task; a start without a number gets the next one."""
        if isinstance(event, StepStart) and event.step == 0:
            event.step, self._next_step = self._next_step, self._next_step + 1
        if not self.closed:
            self._ready.append(event)
            self.wake()
        return event.step

    def close_own(self) -> None:
        """End the own text, so that something else may begin."""
        if self.floor is not self.own:
            return
        self._end_step(self.own, "complete", "complete")

    def close(self, source: Source, step: str = "cancelled") -> None:
        """A speaker is gone: end what it has open."""
        source.backlog.clear()
        if source in self._queue:
            self._queue.remove(source)
        if self.floor is source and not self.closed:
            self._end_step(source, "truncated", step)
            self.wake()

    def resume(self, source: Source, step: int = 0) -> None:
        """The floor, for a speaker whose ``step`` is open in the log; 0: it begins that again."""
        self.floor = source
        self._order_step = step or self._order_step

    # --- inside ----------------------------------------------------------------------------------

    @staticmethod
    def _is_task(source: Source, event: Event) -> bool:
        """Whether the event is the start or the end of a task, which needs no floor."""
        if isinstance(event, StepStart) and event.kind == "task":
            source.tasks.add(event.step)
            return True
        return isinstance(event, StepEnd | StepReset) and event.step in source.tasks

    def _offer(self, source: Source, event: Event) -> bool:
        """Say one event if it may be said now."""
        if isinstance(event, TextDelta) and event.part == -1:
            return self._own_text(event.text)
        mine = self.floor is source
        in_step = isinstance(event, (PartDelta | StepEnd | Usage, _IN_STEP))
        if mine and source is self.own and not in_step:
            self.close_own()
            mine = False
        if not mine:
            if in_step and source is self.own and isinstance(event, PartStart):
                if not self._free():
                    return False
                self._open_own()
            elif not self._free():
                return False
        self._say(source, event)
        return True

    def _free(self) -> bool:
        """Whether nobody has the floor; the agent's own text gives it up."""
        self.close_own()
        return self.floor is None

    def _keep(self, source: Source, event: Event) -> None:
        if source not in self._queue:
            self._queue.append(source)
        source.backlog.append(event)
        self._kept_bytes += len(event.text) if isinstance(event, PartDelta) else 64
        if self._kept_bytes > MOST_KEPT:
            raise LimitError(
                "too much text waits for another stream of the agent to end", limit="agent_streams"
            )

    def _release(self) -> None:
        """The floor is free: those who waited speak, first come first."""
        for source in list(self._queue):
            while source.backlog:
                event = source.backlog.popleft()  # first: the end of a step comes here again
                if not self._offer(source, event):
                    source.backlog.appendleft(event)
                    break
                self._kept_bytes -= len(event.text) if isinstance(event, PartDelta) else 64
            if not source.backlog and source in self._queue:
                self._queue.remove(source)

    def _own_text(self, text: str) -> bool:
        if self.floor is not self.own:
            if self.floor is not None:
                return False
            self._open_own()
        if self._text is None:
            self._text, self._next_part = self._next_part, self._next_part + 1
            self.own.kinds[self._text] = "text"
            self._ready.append(TextStart(part=self._text, step=self._order_step))
        self._ready.append(TextDelta(part=self._text, text=text))
        return True

    def _open_own(self) -> None:
        self._order_step, self._next_step = self._next_step, self._next_step + 1
        self.floor, self.failure = self.own, None
        self._ready.append(StepStart(step=self._order_step, kind="agent", name=self._name))

    _order_step = 0

    def _end_step(self, source: Source, part: str, step: str) -> None:
        for number, kind in source.kinds.items():
            self._ready.append(ENDS[kind](part=number, status=part))  # type: ignore[arg-type]
        source.kinds.clear()
        if source is self.own:
            self._text = None
        end = StepEnd(step=self._order_step, status=step, terminal_seen=step == "complete")  # type: ignore[arg-type]
        self._ready.append(end)
        self.floor = None
        self._release()

    def _say(self, source: Source, event: Event) -> None:
        ready = self._renumbered(source, event)
        self._ready.append(ready)
        if isinstance(ready, StepStart):
            self.floor, self._order_step = source, ready.step
        elif isinstance(ready, StepEnd | StepReset) and self.floor is source:
            source.kinds.clear()
            self.floor = None
            if isinstance(ready, StepEnd):
                self._release()

    def _renumbered(self, source: Source, event: Event) -> Event:
        """The event with the run's numbers and ids."""
        if isinstance(event, PartDelta):
            return type(event)(part=self._part(source, event.part), text=event.text)
        replace = msgspec.structs.replace
        event = replace(event, seq=0, t=0)
        if isinstance(event, PartStart):
            number, self._next_part = self._next_part, self._next_part + 1
            source.parts[event.part] = event.part = number
            source.kinds[number] = event.kind
            event.step, event.agent = self._order_step, event.agent or source.agent
            if isinstance(event, ToolCallStart) and event.call_id:
                event.call_id = self._call_id(source, event.call_id, event.executor == "provider")
        elif isinstance(event, PartEnd | PartAttr | PartPatch):
            event.part = self._part(source, event.part)
            if isinstance(event, PartEnd):
                source.kinds.pop(event.part, None)
            elif isinstance(event, PartAttr) and event.name == "call_id":
                event.value = self._call_id(source, str(event.value), False)
        elif isinstance(event, StepStart):
            self._start_step(source, event)
        elif isinstance(event, StepEnd | StepReset):
            event.step = source.steps.get(event.step, self._order_step)
            if isinstance(event, StepReset):
                event.discard_parts = [
                    source.parts[part] for part in event.discard_parts if part in source.parts
                ]
        else:
            self._rename(source, event)
        return event

    def _start_step(self, source: Source, event: StepStart) -> None:
        if event.kind != "task":
            self.failure = None
        number = source.steps.get(event.step)
        if number is None:
            number, self._next_step = self._next_step, self._next_step + 1
            source.steps[event.step] = number
            self._model_steps += event.kind == "model"
            if self._model_steps > self._most_steps:
                raise LimitError(
                    f"the run reached its limit of {self._most_steps} model calls",
                    limit="run_steps",
                    most=self._most_steps,
                )
        event.step, event.operation = number, source.operation
        event.name = event.name or source.name
        event.agent = event.agent or source.agent

    def _part(self, source: Source, part: int) -> int:
        number = source.parts.get(part)
        if number is None:
            raise OrderError(f"part {part} was not started", rule="a delta needs its part open")
        return number

    def _rename(self, source: Source, event: Event) -> None:
        """Ids of calls and approvals."""
        if isinstance(event, ApprovalRequest | ApprovalAnswer):
            call_id = source.calls.get(event.call_id, event.call_id)
            if event.approval_id not in source.calls:
                tail = call_id[len(event.call_id) :] if call_id != event.call_id else ""
                source.calls[event.approval_id] = event.approval_id + tail
                source.local[event.approval_id + tail] = event.approval_id
            event.approval_id, event.call_id = source.calls[event.approval_id], call_id
        elif isinstance(event, RunWait):
            event.pending = [source.calls.get(name, name) for name in event.pending]
        elif hasattr(event, "call_id"):
            event.call_id = source.calls.get(event.call_id, event.call_id)  # type: ignore[attr-defined]
            if isinstance(event, ToolStart):
                event.step = source.steps.get(event.step, event.step)

    def _call_id(self, source: Source, call_id: str, provider: bool) -> str:
        """A call id that no other speaker of the run uses."""
        if call_id in source.calls:
            return source.calls[call_id]
        number, unique = 2, call_id
        while unique in self._ids and not provider:
            unique, number = f"{call_id}-{number}", number + 1
        self._ids.add(unique)
        source.calls[call_id] = unique
        source.local[unique] = call_id
        return unique


def _check_form(event: Event) -> None:
    """Refuse what could not be read back from the log. Raises `InputError`."""
    if isinstance(event, PartDelta):
        if type(event.part) is not int or type(event.text) is not str:
            raise InputError(f"invalid '{event.type}': it has an int as part and a str as text")
        _check_text(event.text)
        return
    try:
        msgspec.json.decode(msgspec.json.encode(event), type=type(event))
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise InputError(f"invalid '{event.type}': {error}") from None


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError("text is not valid Unicode: it contains a lone surrogate") from None
