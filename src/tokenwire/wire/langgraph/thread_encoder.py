"""A run as events of the Agent Streaming Protocol, which a thread's stream consists of.

Always true: what an event is called (``event_id``) and its number (``seq``) follow from the run's
log alone, so every reader, and one that comes back, has the same for the same event; a block's end
has its whole content; the last event of a run is its root's ``lifecycle``.
"""

from __future__ import annotations

from typing import Any

import msgspec

from tokenwire.events.codec import AnyEvent
from tokenwire.events.message import FilePart
from tokenwire.events.model import (
    Control,
    Data,
    FileEnd,
    PartEnd,
    RunEnd,
    RunStart,
    RunWait,
    SharedState,
    StepEnd,
    ToolCallEnd,
    ToolError,
    ToolResult,
    ToolStart,
)
from tokenwire.events.state import result_part
from tokenwire.wire.chunk_encoder import Chunk, clean
from tokenwire.wire.langgraph.encoder import LangGraphEncoder, Speech
from tokenwire.wire.langgraph.messages import (
    answer_id,
    answer_messages,
    file_block,
    tool_message,
    usage_metadata,
)
from tokenwire.wire.langgraph.state import INPUT, ROOT, failure_of_fold, interrupts_of
from tokenwire.wire.view import PartView

__all__ = ["ThreadEncoder", "base_of", "leg_name", "run_of_leg"]

#: Numbers between two runs whose beginnings are a millisecond apart.
_NUMBERS = 1 << 14
#: Where the numbers begin: 2026-01-01, in Unix milliseconds. They stay exact in JavaScript.
_EPOCH = 1_767_225_600_000
_LEG = "~"
#: Has no ``event_id``: a page has several connections, of which one may still have the interrupt
#: to tell when another one has told the answer, and takes an event with an id from one alone.
_ANSWERED = "input.answered"


def base_of(created: float) -> int:
    """The number before the first event of a run that was created at ``created`` (Unix seconds)."""
    return max(0, int(created * 1000) - _EPOCH) * _NUMBERS


def leg_name(run: str, leg: int) -> str:
    """What the clients call a run: after it waited it is another one to them."""
    return run if leg == 1 else f"{run}{_LEG}{leg}"


def run_of_leg(name: str) -> str:
    """The run that a client means."""
    return name.partition(_LEG)[0]


class ThreadEncoder(LangGraphEncoder):
    """The events of one run. ``history``: the messages before its answer; ``created``: Unix
    seconds; ``parent``: the checkpoint before it; ``depth``: how many turns came before."""

    def __init__(
        self, *, history: list[Chunk], created: float, parent: str | None = None, depth: int = 0
    ) -> None:
        super().__init__(modes=("updates", "values"), subgraphs=True, history=history, goes_on=True)
        self.created, self.parent, self.depth = created, parent, depth
        #: The number of the newest event.
        self.seq = base_of(created)
        self._leg = 1
        #: All interrupts that there were.
        self.interrupts: list[str] = []
        self._questions: list[str] = []
        self._time = 0
        self._indexes: dict[int, int] = {}
        self._block_counts: dict[str, int] = {}
        self._running: dict[tuple[str, ...], str | None] = {}

    def take(self, event: AnyEvent, cursor: str) -> list[Chunk]:
        """What the readers get of ``event``."""
        beginning = self.fold.time or (event.time if isinstance(event, RunStart) else 0)
        self._time = max(beginning + event.t, int(self.created * 1000) + 1)
        chunks = [chunk for chunk in self._rendered(event) if chunk]
        if self._questions and self.fold.outcome is None:
            chunks += self._answered()
        for number, chunk in enumerate(chunks, 1):
            self.seq += 1
            name = leg_name(self.fold.run, chunk.pop("leg", self._leg))
            if chunk["method"] != _ANSWERED:
                chunk["event_id"] = f"synth:{name}:{cursor}.{number}"
            chunk["seq"] = self.seq
        return chunks

    def _event(self, method: str, data: Any, path: tuple[str, ...] = (), node: str = "") -> Chunk:
        params: Chunk = {"namespace": list(path), "timestamp": self._time}
        if node:
            params["node"] = node
        params["data"] = data
        return {"type": "event", "method": method, "params": params}

    # --- states ----------------------------------------------------------------------------------

    def _values(self, interrupts: list[Chunk] | None = None) -> Chunk:
        return self._event("values", self.values())

    def _updates(self, node: str, message: Chunk, path: tuple[str, ...] = ()) -> Chunk:
        data = {"node": node, "values": {"messages": [message]}}
        return self._event("updates", data, path, node)

    def _checkpoint(self, name: str, parent: str, step: int, source: str) -> Chunk:
        data = {"id": name, "parent_id": parent, "step": step, "source": source}
        return self._event("checkpoints", data)

    def _lifecycle(self, status: str, path: tuple[str, ...] = (), **more: Any) -> Chunk:
        return self._event("lifecycle", {"event": status, **clean(**more)}, path)

    def _start(self, event: RunStart) -> list[Chunk]:
        """The values twice: with the question, and as those that the answer goes into, so that a
        page which was reloaded within the answer shows its words again."""
        question = event.run + INPUT
        return [
            self._lifecycle("running", graph_name=event.model),
            self._checkpoint(question, self.parent or ROOT, 2 * self.depth, "input"),
            self._values(),
            self._checkpoint(event.run, question, 2 * self.depth + 1, "loop"),
            self._values(),
        ]

    def _finish(self) -> list[Chunk]:
        failure = failure_of_fold(self.fold)
        chunks = [self._values()]
        status = "completed" if failure is None else "failed"
        chunks += [self._lifecycle(status, path) for path in self._running]
        self._running = {}
        if self.interrupts:  # also those that nobody answered: a page would show them for good
            chunks.append(self._event(_ANSWERED, {"interrupt_ids": self.interrupts}))
        if failure is None:
            return [*chunks, self._lifecycle("completed")]
        if failure["error"] == "UserInterrupt":
            return [*chunks, self._lifecycle("interrupted")]
        return [
            *chunks,
            self._lifecycle("failed", error=f"{failure['error']}: {failure['message']}"),
        ]

    def _wait(self, event: RunWait) -> list[Chunk]:
        self._questions = list(event.pending)
        self.interrupts += [name for name in event.pending if name not in self.interrupts]
        requests = [
            self._event("input.requested", {"interrupt_id": one["id"], "payload": one["value"]})
            for one in interrupts_of(self.fold, event.pending)
        ]
        return [self._values(), *requests, self._lifecycle("interrupted")]

    def _answered(self) -> list[Chunk]:
        """The interrupts that wait no longer; with the last of them the run goes on."""
        answers = [name for name in self._questions if name not in self.fold.waiting]
        if not answers:
            return []
        self._questions = [name for name in self._questions if name not in answers]
        chunks = [self._event(_ANSWERED, {"interrupt_ids": answers})]
        if self._questions:
            return chunks
        self._leg += 1
        return [self._lifecycle("running"), *chunks]

    # --- events ----------------------------------------------------------------------------------

    def _render(self, event: AnyEvent) -> list[Chunk]:
        if not isinstance(event, RunStart | RunEnd):
            return super()._render(event)
        self.view.apply(event)
        self.fold.apply(event)
        return self._start(event) if isinstance(event, RunStart) else self._finish()

    def _other(self, event: AnyEvent) -> list[Chunk]:
        if isinstance(event, ToolStart):
            self._call_ids.add(event.call_id)
            data = {"event": "tool-started", "tool_call_id": event.call_id, "tool_name": event.name}
            return [self._tool_event(event.call_id, {**data, "input": event.arguments})]
        if isinstance(event, ToolResult | ToolError):
            return self._result(event)
        if isinstance(event, Data):
            return [self._event("custom", {"name": event.name, "payload": event.payload})]
        if isinstance(event, SharedState):
            return [self._values()]
        if isinstance(event, Control) and event.command == "steer" and event.id:
            return [self._values()]
        return []

    def _tool_event(self, call_id: str, data: Chunk) -> Chunk:
        return self._event("tools", data, self._paths.get(call_id, ()), "tools")

    def _result(self, event: ToolResult | ToolError) -> list[Chunk]:
        path = self._paths.get(event.call_id, ())
        if isinstance(event, ToolError):
            data: Chunk = {"event": "tool-error", "message": event.message, "code": event.code}
        else:
            data = {"event": "tool-finished", "output": event.content}
        message = tool_message(result_part(self.fold.tools[event.call_id]))
        chunks = [self._tool_event(event.call_id, {**data, "tool_call_id": event.call_id})]
        paths = [inner for inner, call in self._running.items() if call == event.call_id]
        for inner in paths:
            del self._running[inner]
            status = "failed" if isinstance(event, ToolError) else "completed"
            chunks.append(self._lifecycle(status, inner))
        return [*chunks, self._updates("tools", message, path), self._values()]

    # --- messages --------------------------------------------------------------------------------

    def _say(self, speech: Speech, event: str, **data: Any) -> Chunk:
        return self._event("messages", {"event": event, **data}, speech.path, speech.node)

    def _opened(self, speech: Speech) -> list[Chunk]:
        """The beginning of a message, and of the subagent whose first one it is."""
        if speech.is_sent:
            return []
        speech.is_sent = True
        chunks: list[Chunk] = []
        if speech.path and speech.path not in self._running:
            kind, _, call = speech.path[-1].partition(":")
            cause = {"type": "toolCall", "tool_call_id": call} if kind == "tools" else None
            self._running[speech.path] = call if kind == "tools" else None
            chunks.append(
                self._lifecycle("started", speech.path, graph_name=speech.node, cause=cause)
            )
        facts = clean(run_id=self.fold.run, model=self.fold.model)
        beginning = self._say(speech, "message-start", role="ai", id=speech.name, metadata=facts)
        return [*chunks, beginning]

    def _begun(self, part: PartView, speech: Speech, content: Chunk) -> list[Chunk]:
        """The beginning of a block, once."""
        if part.part in self._indexes:
            return []
        chunks = self._opened(speech)
        index = self._block_counts.get(speech.name, 0)
        self._block_counts[speech.name] = index + 1
        self._indexes[part.part] = index
        return [*chunks, self._say(speech, "content-block-start", index=index, content=content)]

    def _more(self, part: PartView, speech: Speech, text: str) -> list[Chunk]:
        if part.kind == "tool-call":
            return self._announce(part)
        if part.kind not in ("text", "reasoning"):
            return []  # a refusal comes with the values
        field = "text" if part.kind == "text" else "reasoning"
        chunks = self._begun(part, speech, {"type": part.kind, field: ""})
        delta = {"type": f"{part.kind}-delta", field: text}
        return [*chunks, self._piece(part, speech, delta)]

    def _piece(self, part: PartView, speech: Speech, delta: Chunk) -> Chunk:
        index = self._indexes[part.part]
        return self._say(speech, "content-block-delta", index=index, delta=delta)

    def _announce(self, part: PartView) -> list[Chunk]:
        speech = self._of_part.get(part.part)
        if part.kind != "tool-call" or speech is None or part.executor == "provider":
            return []
        if not part.call_id or not part.name:
            return []
        self._call_ids.add(part.call_id)
        self._paths[part.call_id] = speech.path
        names = {"id": part.call_id, "name": part.name}
        chunks = self._begun(part, speech, {"type": "tool_call_chunk", **names, "args": ""})
        text = "".join(part.pieces[part.pieces_sent :])
        part.sent()
        if text:
            chunks.append(self._piece(part, speech, {"type": "tool-call-delta", "args": text}))
        return chunks

    def _end(self, event: PartEnd) -> list[Chunk]:
        part, speech = self.view.parts.get(event.part), self._of_part.get(event.part)
        if part is None or speech is None:
            return []
        content = self._content(event, part)
        if content is None:
            return []
        chunks = self._begun(part, speech, content) if part.kind != "tool-call" else []
        if part.kind == "tool-call":
            chunks = self._announce(part)
        if part.part not in self._indexes:
            return chunks
        index = self._indexes[part.part]
        return [*chunks, self._say(speech, "content-block-finish", index=index, content=content)]

    def _content(self, event: PartEnd, part: PartView) -> Chunk | None:
        """The whole block of a part that has ended; None where the protocol has none."""
        if isinstance(event, FileEnd):
            if event.status != "complete":
                return None
            name, data = part.name or None, None if part.url else part.text
            return file_block(
                FilePart(media_type=part.media_type, url=part.url, data=data, name=name)
            )
        state = self.fold.parts.get(part.part)
        text = state.text if state is not None else ""
        if part.kind in ("text", "reasoning"):
            if not text and part.part not in self._indexes:
                return None
            return {"type": part.kind, "text" if part.kind == "text" else "reasoning": text}
        if not isinstance(event, ToolCallEnd) or part.executor == "provider":
            return None
        names: Chunk = {"id": part.call_id, "name": part.name}
        try:
            arguments = msgspec.json.decode(text or "{}")
        except msgspec.DecodeError:
            arguments = None
        if isinstance(arguments, dict):
            return {"type": "tool_call", **names, "args": arguments}
        error = "the arguments are not a JSON object"
        return {"type": "invalid_tool_call", **names, "args": text, "error": error}

    def _step_end(self, event: StepEnd) -> list[Chunk]:
        step = self.fold.last_step
        if step is None or event.step != step.step or not self._speeches:
            return []
        chunks: list[Chunk] = []
        for path, speech in self._speeches.items():
            if not speech.is_sent:
                continue
            facts: Chunk = {}
            if not path:
                reason = step.finish["reason"] if step.finish is not None else None
                usage = usage_metadata(step.usage) if step.usage else None
                facts = clean(reason=reason, usage=usage)
                facts["metadata"] = clean(model_name=step.model)
            chunks.append(self._say(speech, "message-finish", **facts))
        name = answer_id(self.fold.run, self._count)
        messages = {message["id"]: message for message in answer_messages(self.fold)}
        if () in self._speeches and name in messages:
            chunks.append(self._updates(self._speeches[()].node, messages[name]))
        return [*chunks, self._values()]

    def _reset(self) -> list[Chunk]:
        """Messages begin again under their ids, which voids their words."""
        chunks: list[Chunk] = []
        for speech in self._speeches.values():
            if speech.is_sent:
                chunks.append(self._say(speech, "message-start", role="ai", id=speech.name))
            self._block_counts.pop(speech.name, None)
        self._speeches, self._of_part = {}, {}
        return [*chunks, self._values()]
