"""A model's answer inside of an agent: `RunContext.stream`.

Always true: what the agent reads of it is on its way to the log first; a call that a lost worker
left open starts again as a further attempt, one that was finished is given from the log, and its
tools are not run again; of an answer that readers may not see only the step and its token counts
are ended_steps.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING

import msgspec

from tokenwire.errors import ConflictError
from tokenwire.events.codec import decode, encode
from tokenwire.events.fold import Fold
from tokenwire.events.model import (
    ApprovalAnswer,
    Control,
    Event,
    PartAttr,
    PartDelta,
    PartStart,
    ResponseStart,
    RunEnd,
    RunStart,
    StepEnd,
    StepReset,
    StepStart,
    ToolCallStart,
    Usage,
)
from tokenwire.events.order import Order
from tokenwire.run.buffer import BufferLimits
from tokenwire.run.coalesce import merge
from tokenwire.run.inbox import Command
from tokenwire.run.loop import Loop
from tokenwire.run.plan_for import Planned
from tokenwire.run.stream import Run

if TYPE_CHECKING:
    from tokenwire.agents.engine import AgentEngine
    from tokenwire.agents.journal import Operation
    from tokenwire.agents.outlet import Source

__all__ = ["AgentStream", "operation_events"]

#: What the agent may be behind: the log is ahead of it, and others may wait for this stream's end.
MOST_EVENTS, MOST_BYTES = 100_000, 64 << 20

_NEVER_SHOWN = (Control, RunStart, RunEnd)
_OUTLINE = (StepStart, StepEnd, StepReset, Usage, ResponseStart)


class AgentStream(Run):
    """One answer inside of an agent; use it as `tokenwire.stream`'s `Run`."""

    def __init__(
        self,
        engine: AgentEngine,
        planned: Planned,
        *,
        name: str,
        digest: str,
        visible: bool,
    ) -> None:
        super().__init__(
            planned.plan,
            http=lambda: planned.transport(engine.http),
            own_http=planned.own_transport,
            buffer=BufferLimits(events=MOST_EVENTS, bytes=MOST_BYTES),
            prepare=planned.prepare,
            output=planned.output,
        )
        self._engine, self._name, self._digest = engine, name, digest
        self._visible = visible
        self._operation: Operation | None = None
        self._source: Source | None = None
        self._loop: Loop | None = None
        self._hidden: list[Event] = []

    async def __aenter__(self) -> AgentStream:
        if self._pump is not None:
            raise ConflictError("this stream was started before; call ctx.stream again")
        engine = self._engine
        operation = await engine.enter("stream", self._name, self._digest)
        self._operation, self._plan.operation = operation, operation.number
        self._source = source = engine.source(operation.number, name=None)
        source.is_trusted = True
        if self._prepare is not None:
            self._cleanup = await self._prepare(self._plan)
        self._http = self._make_http()
        order, fold = Order(), Fold()
        earlier: list[Event] = []
        if operation.recorded:
            earlier = self._earlier(source)
            for event in [RunStart(run=self._plan.run, time=engine.fold.time), *earlier]:
                order.check(event)
                fold.apply(event)
            if order.state == "step":
                engine.outlet.resume(source)
        loop = Loop(
            self._plan,
            self._http,
            self._inbox,
            order=order if earlier else None,
            fold=fold if earlier else None,
            send=self._send,
        )
        loop.leaving = engine.leaving
        self._loop = loop
        engine.opened(operation.number, self)
        if earlier:
            await self._buffer.put(merge(earlier))
        self._pump = asyncio.create_task(self._work(loop))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await super().__aexit__(kind, error, trace)
        finally:
            if self._operation is not None and self._source is not None:
                self._engine.streams.pop(self._operation.number, None)
                self._engine.outlet.close(self._source)

    def command(self, command: Command) -> bool:
        """Pass a command on, if it is for this answer; whether it is."""
        source = self._source
        if source is None or isinstance(command, Control):
            return False
        call_id = source.local.get(command.call_id)
        if call_id is None:
            return False
        if isinstance(command, ApprovalAnswer):
            approval = source.local.get(command.approval_id, command.approval_id)
            command = msgspec.structs.replace(command, approval_id=approval)
        self._inbox.put(msgspec.structs.replace(command, call_id=call_id))
        return True

    async def _send(self, answer: ApprovalAnswer) -> None:
        """A decision of this answer's own, to where those of people come from."""
        source = self._source
        call_id = source.calls.get(answer.call_id) if source is not None else None
        if source is None or call_id is None:  # readers never saw it: nobody else can answer
            self._inbox.put(answer)
            return
        approval = source.calls.get(answer.approval_id, answer.approval_id)
        await self._engine.send(
            msgspec.structs.replace(answer, approval_id=approval, call_id=call_id)
        )

    def leave(self) -> None:
        """Return after the running tools: another worker goes on."""
        if self._loop is not None:
            self._loop.leaving = True

    def _earlier(self, source: Source) -> list[Event]:
        """The answer's events so far, in its own numbers, which ``source`` is taught."""
        operation = self._operation
        assert operation is not None
        logged = operation_events(self._engine.earlier(), operation.number)
        steps = [e.step for e in logged if isinstance(e, StepStart)]
        source.steps = dict(enumerate(dict.fromkeys(steps), 1))
        if self._visible:
            events = logged
        else:
            stored = operation.value
            texts = msgspec.json.decode(stored, type=list[msgspec.Raw]) if stored else []
            events = [e for e in (decode(bytes(text)) for text in texts) if isinstance(e, Event)]
            ended_steps = {e.step for e in events if isinstance(e, StepEnd)}
            local = {step: n for n, step in source.steps.items()}
            rest = [
                e
                for e in logged
                if isinstance(e, StepStart | StepReset) and local[e.step] not in ended_steps
            ]
            self._hidden = list(events)
            events = [*events, *(_local(e, source) for e in rest)]
            return [msgspec.structs.replace(e, seq=0) for e in events]
        return [_local(event, source) for event in events]

    async def _work(self, loop: Loop) -> None:
        try:
            async for batch in loop.batches():
                await self._forward(batch)
                await self._buffer.put(batch)
        except asyncio.CancelledError:
            self._buffer.end()
            raise
        except BaseException as error:
            self._buffer.end(error)
            self._engine.fail_with(error)
        else:
            if loop.fold.outcome is None:  # this worker leaves, and the agent with it
                await asyncio.Event().wait()
            self._engine.stream_ended(loop.fold)
            self._buffer.end()

    async def _forward(self, batch: list[Event]) -> None:
        """A batch into the run's log, before the agent gets it."""
        source, outlet = self._source, self._engine.outlet
        assert source is not None
        batch_events = [event for event in batch if not isinstance(event, _NEVER_SHOWN)]
        if not self._visible:
            batch_events = await self._outline(batch_events)
        plain = all(isinstance(event, PartDelta) for event in batch_events)
        await outlet.put(source, batch_events, durable=bool(batch_events) and not plain)

    async def _outline(self, events: list[Event]) -> list[Event]:
        """What readers hear of an answer that they may not see; the rest is stored apart."""
        operation = self._operation
        assert operation is not None
        for event in events:
            # Copies: the agent's reader joins deltas in place.
            self._hidden.append(msgspec.structs.replace(event))
            if isinstance(event, StepEnd):
                self._hidden = merge(self._hidden)  # in place: what was joined is not kept apart
                texts = [encode(e) for e in self._hidden]
                await self._engine.journal.finish(operation, b"[" + b",".join(texts) + b"]")
        outline = [event for event in events if isinstance(event, _OUTLINE)]
        return [
            msgspec.structs.replace(event, discard_parts=[])
            if isinstance(event, StepReset)
            else event
            for event in outline
        ]


def operation_events(events: list[Event], number: int) -> list[Event]:
    """The events of one operation's model calls and tools, without those that were discarded."""
    steps = {e.step for e in events if isinstance(e, StepStart) and e.operation == number}
    parts: set[int] = set()
    calls: set[str] = set()
    selection: list[Event] = []
    inside = False
    for event in events:
        if isinstance(event, StepStart):
            if event.kind != "task":
                inside = event.step in steps
            belongs = event.step in steps
        elif isinstance(event, StepEnd | StepReset):
            belongs = event.step in steps
            inside = inside and not belongs
        elif isinstance(event, PartStart):
            belongs = inside
            if inside:
                parts.add(event.part)
        elif isinstance(event, PartDelta) or hasattr(event, "part"):
            belongs = event.part in parts  # type: ignore[attr-defined]
        elif hasattr(event, "call_id"):
            belongs = event.call_id in calls  # type: ignore[attr-defined]
        else:
            belongs = inside and event.type in ("usage", "finish", "response-start", "error")
        if belongs and isinstance(event, ToolCallStart):
            calls.add(event.call_id)
        elif belongs and isinstance(event, PartAttr) and event.name == "call_id":
            calls.add(str(event.value))
        if belongs:
            selection.append(event)
    return selection


def _local(event: Event, source: Source) -> Event:
    """A logged event in the numbers of its stream. Parts and calls keep the run's."""
    copy = msgspec.structs.replace(event, seq=0)
    local = {step: number for number, step in source.steps.items()}
    step = getattr(copy, "step", None)
    if step in local:
        copy.step = local[step]  # type: ignore[attr-defined]
    if isinstance(copy, PartStart):
        source.parts[copy.part] = copy.part
        source.kinds[copy.part] = copy.kind
    elif hasattr(copy, "part") and copy.type.endswith("-end"):
        source.kinds.pop(copy.part, None)  # type: ignore[attr-defined]
    elif isinstance(copy, StepReset | StepEnd):
        source.kinds.clear()
    for name in ("call_id", "approval_id"):
        value = getattr(copy, name, "")
        if value:
            source.calls[value] = source.local[value] = value
    return copy
