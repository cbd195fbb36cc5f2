"""Hypothesis strategies of valid runs: what any encoder may be handed."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from tokenwire.events import model as m
from tokenwire.events.json_patch import diff
from tokenwire.events.order import ENDS, Order

# No lone surrogates: JSON text cannot carry them. Line ends and field names try to break frames.
TEXTS = st.one_of(
    st.sampled_from(
        ["a", "Hello", " world", "\n\nevent: done\n\n", "\r\n", "é", "👩‍👩‍👧", "\u2028", "0", '"}']
    ),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6),
)
STARTS: dict[str, Any] = {
    "text": m.TextStart,
    "reasoning": m.ReasoningStart,
    "refusal": m.RefusalStart,
}
DELTAS: dict[str, Any] = {
    "text": m.TextDelta,
    "reasoning": m.ReasoningDelta,
    "refusal": m.RefusalDelta,
    "tool-call": m.ToolCallDelta,
}


ROOT = m.Agent(id="a1", name="triage")
HELPER = m.Agent(id="a2", name="helper", parent="a1")


class Writer:
    """Writes one valid run, asking ``draw`` what comes next."""

    def __init__(self, draw: Any, *, refusals: bool = True) -> None:
        self.draw = draw
        self.order = Order()
        self.events: list[m.Event] = []
        self.part = 0
        self.calls = 0
        #: Numbers of the steps that hold parts, and of tasks, are of one row.
        self.numbers = 0
        self.shared: Any = None
        self.kinds = ["text", "text", "reasoning", "tool-call", *(["refusal"] if refusals else [])]

    def add(self, event: m.Event) -> None:
        self.events.append(self.order.check(event))  # type: ignore[arg-type]

    def run(self) -> list[m.Event]:
        draw = self.draw
        self.add(m.RunStart(run="run-1234567890abcdef", time=1_700_000_000_123, model="demo"))
        steps = draw(st.integers(1, 3))
        for count in range(1, steps + 1):
            step = self.next_number()
            last = count == steps
            attempts = draw(st.integers(1, 2))
            for attempt in range(1, attempts):
                parts = self.step(step, attempt, last=False, broken=True)
                self.add(
                    m.StepReset(
                        step=step, attempt=attempt + 1, discard_parts=parts, reason="network"
                    )
                )
            self.step(step, attempts, last=last)
        self.end_tasks()
        self.end()
        return self.events

    def step(self, step: int, attempt: int, *, last: bool, broken: bool = False) -> list[int]:
        draw, add = self.draw, self.add
        if draw(st.integers(0, 4)) == 0:
            add(m.StepStart(step=step, attempt=attempt, kind="agent", name="helper"))
        else:
            add(m.StepStart(step=step, attempt=attempt, provider="demo", model="demo"))
        if draw(st.booleans()):
            add(m.ResponseStart(id="resp-1", model="demo-1"))
        open_parts: dict[int, dict[str, Any]] = {}
        calls: list[tuple[str, str, Any]] = []
        began = self.part
        for _ in range(draw(st.integers(0, 9))):
            self.something(step, open_parts, calls)
        if broken and draw(st.booleans()):
            return list(range(began, self.part))  # the reset closes what is open
        for number in list(open_parts):
            self.close(number, open_parts, calls, "truncated" if broken else None)
        if not broken:
            add(m.Finish(reason="tool_calls" if calls and not last else draw(_REASONS)))
            add(m.Usage(input_tokens=3, output_tokens=draw(st.integers(0, 50))))
        add(
            m.StepEnd(step=step, status="error" if broken else "complete", terminal_seen=not broken)
        )
        if not broken and not last:
            self.tools(calls)
        return list(range(began, self.part))

    def something(self, step: int, open_parts: dict[int, Any], calls: list[Any]) -> None:
        draw = self.draw
        what = draw(st.sampled_from(["start", "delta", "delta", "delta", "end", "data", "agent"]))
        if what == "data":
            self.add(m.Data(name="note", payload={"n": 1}, id="n1"))
        elif what == "agent":
            self.agent()
        elif what == "start" or not open_parts:
            self.start(step, open_parts)
        else:
            number = draw(st.sampled_from(sorted(open_parts)))
            if what == "delta":
                self.delta(number, open_parts)
            else:
                self.close(number, open_parts, calls, None)

    def next_number(self) -> int:
        self.numbers += 1
        return self.numbers

    def agent(self) -> None:
        """What an agent does beside its words: tasks that overlap, shared state, progress."""
        draw, add, tasks = self.draw, self.add, self.order.tasks
        what = draw(
            st.sampled_from(["task", "task", "again", "end", "state", "progress", "budget"])
        )
        if what == "task" or (what in ("again", "end") and not tasks):
            name = draw(st.sampled_from(["search", "read"]))
            add(m.StepStart(step=self.next_number(), kind="task", name=name))
        elif what == "again":
            number = draw(st.sampled_from(tasks))
            add(m.StepReset(step=number, attempt=2, reason="restart"))
            add(m.StepStart(step=number, kind="task", name="search", attempt=2))
        elif what == "end":
            add(m.StepEnd(step=draw(st.sampled_from(tasks)), status="complete", size=12))
        elif what == "progress":
            add(m.RunProgress(fraction=draw(st.sampled_from([0.0, 0.5])), message="reading"))
        elif what == "budget":
            left = draw(st.sampled_from([0.0, 0.25]))
            add(m.RunBudget(name="thread", unit="dollars", left=left, most=2.0))
        else:
            new = draw(_STATES)
            if self.shared is None or draw(st.booleans()):
                add(m.SharedState(snapshot=new))
            else:
                add(m.SharedState(patch=diff(self.shared, new)))
            self.shared = new

    def end_tasks(self) -> None:
        for number in list(self.order.tasks):
            self.add(m.StepEnd(step=number, status="complete"))

    def start(self, step: int, open_parts: dict[int, Any]) -> None:
        kind = self.draw(st.sampled_from(self.kinds))
        number, self.part = self.part, self.part + 1
        open_parts[number] = {"kind": kind, "left": None}
        if kind == "tool-call":
            self.calls += 1
            name, call_id = f"tool_{self.calls}", f"call_{self.calls}"
            value = self.draw(st.dictionaries(TEXTS, TEXTS, max_size=2))
            late = self.draw(st.booleans())
            open_parts[number] |= {
                "left": json.dumps(value),
                "value": value,
                "call": (call_id, name),
            }
            self.add(
                m.ToolCallStart(part=number, step=step, name="" if late else name, call_id=call_id)
            )
            open_parts[number]["late"] = name if late else None
        else:
            speaker = self.draw(st.sampled_from([None, None, None, ROOT, HELPER]))
            self.add(STARTS[kind](part=number, step=step, agent=speaker))

    def delta(self, number: int, open_parts: dict[int, Any]) -> None:
        state = open_parts[number]
        if state["kind"] != "tool-call":
            self.add(DELTAS[state["kind"]](part=number, text=self.draw(TEXTS)))
            return
        size = self.draw(st.integers(1, 8))
        piece, state["left"] = state["left"][:size], state["left"][size:]
        if piece:
            self.add(m.ToolCallDelta(part=number, text=piece))

    def close(self, number: int, open_parts: dict[int, Any], calls: Any, status: Any) -> None:
        state = open_parts.pop(number)
        if state["kind"] == "reasoning" and self.draw(st.booleans()):
            self.add(m.PartAttr(part=number, name="signature", value="c2ln"))
        if state["kind"] != "tool-call":
            self.add(ENDS[state["kind"]](part=number, status=status or "complete"))
            return
        if state["late"]:
            self.add(m.PartAttr(part=number, name="tool_name", value=state["late"]))
        if status is not None:
            self.add(m.ToolCallEnd(part=number, status=status))
            return
        if state["left"]:
            self.add(m.ToolCallDelta(part=number, text=state["left"]))
        self.add(m.ToolCallEnd(part=number, arguments=state["value"]))
        calls.append((*state["call"], state["value"]))

    def tools(self, calls: list[Any]) -> None:
        draw, add = self.draw, self.add
        for call_id, name, value in calls:
            if draw(st.booleans()):
                asked = f"ap_{call_id}"
                add(
                    m.ApprovalRequest(
                        approval_id=asked, call_id=call_id, name=name, arguments=value
                    )
                )
                add(m.RunWait(reason="approval", pending=[asked]))
                yes = draw(st.booleans())
                add(m.ApprovalAnswer(approval_id=asked, call_id=call_id, approved=yes))
                if not yes:
                    add(
                        m.ToolError(
                            call_id=call_id, code="denied", message="not allowed", name=name
                        )
                    )
                    continue
            add(m.ToolStart(call_id=call_id, name=name, arguments=value))
            if draw(st.booleans()):
                add(m.ToolProgress(call_id=call_id, fraction=0.5))
            if draw(st.integers(0, 3)) == 0:
                add(m.ToolError(call_id=call_id, code="exception", message="it broke", name=name))
            else:
                add(m.ToolResult(call_id=call_id, content=draw(_RESULTS), name=name))

    def end(self) -> None:
        outcome = self.draw(st.sampled_from(["complete", "complete", "cancelled", "error"]))
        if outcome == "error":
            self.add(m.Error(scope="provider", code="overloaded", message="The model is busy."))
        elif outcome == "cancelled":
            self.add(m.Control(command="cancel"))
        self.add(m.RunEnd(outcome=outcome, usage={"input_tokens": 3, "output_tokens": 5}))


_STATES = st.dictionaries(
    st.sampled_from(["stage", "a/b", "~n"]),
    st.one_of(TEXTS, st.integers(0, 3), st.lists(st.integers(0, 3), max_size=3), st.none()),
    max_size=3,
)
_REASONS = st.sampled_from(["stop", "stop", "length", "content_filter"])
_RESULTS = st.one_of(TEXTS, st.integers(), st.dictionaries(TEXTS, st.integers(), max_size=2))


@st.composite
def runs(draw: Any, *, refusals: bool = True) -> list[m.Event]:
    """A valid run: steps, interleaved parts, tools, approvals, resets, errors, every end."""
    return Writer(draw, refusals=refusals).run()
