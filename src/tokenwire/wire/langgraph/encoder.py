"""The stream of LangGraph's server: a run in the stream modes that its reader asked for.

Always true: chunks of a message are appended by its id, and one that is taken back is removed by
its id before anything else is said under it; ``values`` have whole messages only, and are the
thread's state; one ``end`` or ``error`` is last, and only a run that neither failed nor was
cancelled has an ``end``. What frames are called does not depend on the modes, so a reader resumes
at any of them, in whichever modes.
"""

from __future__ import annotations

from collections.abc import Collection, Container
from typing import Any, ClassVar

from tokenwire.events.codec import AnyEvent
from tokenwire.events.fold import Fold
from tokenwire.events.message import FilePart, ToolResultPart
from tokenwire.events.model import (
    Agent,
    Control,
    Data,
    FileEnd,
    PartAttr,
    PartDelta,
    PartEnd,
    PartStart,
    RunBudget,
    RunEnd,
    RunStart,
    RunWait,
    SharedState,
    StepEnd,
    StepReset,
    StepStart,
    ToolError,
    ToolProgress,
    ToolResult,
    ToolStart,
)
from tokenwire.events.state import result_part
from tokenwire.wire.base import text_of
from tokenwire.wire.chunk_encoder import (
    GAP,
    Chunk,
    ChunkEncoder,
    Common,
    budget_fields,
    clean,
    dumps,
)
from tokenwire.wire.langgraph.messages import (
    ai_message,
    answer_id,
    answer_messages,
    file_block,
    tool_message,
    usage_metadata,
)
from tokenwire.wire.langgraph.state import failure_of_fold, interrupts_of, values_of
from tokenwire.wire.place import Place
from tokenwire.wire.view import PartView

__all__ = ["STREAM_MODES", "USUAL_MODES", "LangGraphEncoder", "Speech"]

#: The stream modes that there are.
STREAM_MODES = ("values", "updates", "messages", "messages-tuple", "custom", "tools")
#: Those of a reader that asks for none, in the catalogue of wires.
USUAL_MODES = ("values", "messages-tuple", "custom")
#: In the place of a frame that nobody asked for.
_NOTHING: Chunk = {"event": "", "data": None}
_FIELDS = {"reasoning": "reasoning_content", "refusal": "refusal"}


class Speech:
    """One message of the step that is under way. ``calls``: the index of each call's part."""

    __slots__ = ("calls", "is_sent", "name", "node", "path")

    def __init__(self, name: str, node: str, path: tuple[str, ...]) -> None:
        self.name, self.node, self.path = name, node, path
        self.calls: dict[int, int] = {}
        self.is_sent = False


class LangGraphEncoder(ChunkEncoder):
    """Events to the frames of the ``modes``.

    ``subgraphs``: with the words of subagents, under their namespaces. ``history``: the messages of
    the thread before the run's answer; None where they are not known. ``resolved_ids``: approvals
    and calls that have their answer; a wait for others ends the stream, unless ``goes_on``.
    """

    name: ClassVar[str] = "langgraph"
    subagents: ClassVar[bool] = True

    def __init__(
        self,
        *,
        modes: Collection[str] = USUAL_MODES,
        subgraphs: bool = False,
        history: list[Chunk] | None = None,
        resolved_ids: Container[str] = (),
        goes_on: bool = False,
        place: Place | None = None,
    ) -> None:
        super().__init__(place=place)
        self.modes, self.subgraphs, self.history = frozenset(modes), subgraphs, history
        self.resolved_ids, self.goes_on = resolved_ids, goes_on
        self.fold = Fold()
        self._count = 0  # of the answer's messages before this step
        self._speeches: dict[tuple[str, ...], Speech] = {}
        self._of_part: dict[int, Speech] = {}
        #: Where the calls of subagents were made, and who calls whom.
        self._paths: dict[str, tuple[str, ...]] = {}
        self._agents: dict[str, Agent] = {}
        self._call_ids: set[str] = set()

    # --- frames ----------------------------------------------------------------------------------

    def chunks(self, event: AnyEvent) -> list[Chunk]:
        """As values: only what was asked for."""
        return [chunk for chunk in super().chunks(event) if chunk is not _NOTHING]

    def encode(self, event: AnyEvent, cursor: str) -> bytes:
        """The frames of ``event``, numbered as if everything had been asked for."""
        if self._place is not None and event.seq <= self._place.offset:
            return super().encode(event, cursor)
        return b"" if self.ended else self.frames(self._rendered(event), cursor)

    def _frame(self, chunk: Chunk, frame_id: str | None) -> bytes:
        if chunk is _NOTHING:
            return b""
        head = b"id: %b\n" % frame_id.encode("ascii") if frame_id is not None else b""
        event = chunk["event"].encode()
        return b"%bevent: %b\ndata: %b\n\n" % (head, event, dumps(chunk["data"]))

    def _chunk(self, mode: str, data: Any, path: tuple[str, ...] = (), name: str = "") -> Chunk:
        if mode not in self.modes or (path and not self.subgraphs):
            return _NOTHING
        return {"event": "|".join((name or mode, *path)), "data": data}

    def _values(self, interrupts: list[Chunk] | None = None) -> Chunk:
        if "values" not in self.modes:
            return _NOTHING
        more = {"__interrupt__": interrupts} if interrupts is not None else {}
        return self._chunk("values", {**self.values(), **more})

    def values(self) -> Chunk:
        """The values of the thread so far."""
        return values_of([*(self.history or []), *answer_messages(self.fold)], self.fold.shared)

    def _updates(self, node: str, message: Chunk, path: tuple[str, ...] = ()) -> Chunk:
        return self._chunk("updates", {node: {"messages": [message]}}, path)

    def _said(self, speech: Speech, **more: Any) -> Chunk:
        """A piece of a message."""
        speech.is_sent = True
        message = {"content": "", "type": "AIMessageChunk", "id": speech.name, **more}
        return self._tuple(message, speech.node, speech.path)

    def _tuple(self, message: Chunk, node: str, path: tuple[str, ...]) -> Chunk:
        facts: Chunk = {"run_id": self.view.run, "langgraph_node": node}
        facts["langgraph_step"] = self.view.step
        if path:
            facts["langgraph_checkpoint_ns"] = "|".join(path)
        return self._chunk("messages-tuple", [message, facts], path, "messages")

    # --- events to frames ------------------------------------------------------------------------

    def _render(self, event: AnyEvent) -> list[Chunk]:
        view, fold = self.view, self.fold
        view.apply(event)
        fold.apply(event)
        if isinstance(event, PartDelta):
            return self._delta(event)
        if isinstance(event, PartStart):
            self._begin(event)
            part = view.parts.get(event.part)
            return self._announce(part) if part is not None else []
        if isinstance(event, PartEnd):
            return self._end(event)
        if isinstance(event, PartAttr):
            part = view.open.get(event.part)
            return self._announce(part) if part is not None else []
        if isinstance(event, RunStart):
            metadata = {"run_id": event.run, "attempt": 1}
            first = self._values() if self.history is not None else _NOTHING
            return [{"event": "metadata", "data": metadata}, first]
        if isinstance(event, StepStart):
            return self._step(event)
        if isinstance(event, StepEnd):
            return self._step_end(event)
        if isinstance(event, StepReset):
            return self._reset()
        if isinstance(event, RunWait):
            return self._wait(event)
        if isinstance(event, RunEnd):
            failure = failure_of_fold(fold)
            if failure is not None:
                return [self._values(), {"event": "error", "data": failure}]
            return [self._values(), {"event": "end", "data": None}]
        return self._other(event)

    def _other(self, event: AnyEvent) -> list[Chunk]:
        if isinstance(event, ToolStart):
            self._call_ids.add(event.call_id)
            return [self._tool(event.call_id, "on_tool_start", name=event.name)]
        if isinstance(event, ToolProgress):
            data = clean(fraction=event.fraction, message=event.message)
            return [self._tool(event.call_id, "on_tool_event", data=data)]
        if isinstance(event, ToolResult | ToolError):
            return self._result(event)
        if isinstance(event, Data):
            return [self._chunk("custom", {"name": event.name, "data": event.payload})]
        if isinstance(event, RunBudget):
            return [self._chunk("custom", {"name": "budget", "data": budget_fields(event)})]
        if isinstance(event, SharedState):
            return [self._values()]
        if isinstance(event, Control) and event.command == "steer" and event.id:
            message: Chunk = {"content": event.text or "", "type": "human", "id": event.id}
            return [self._tuple(message, "__start__", ()), self._values()]
        return []

    # --- who speaks ------------------------------------------------------------------------------

    def _path_of(self, agent: Agent | None) -> tuple[str, ...]:
        """The namespace of an agent: that of the subgraph, or one segment for each that was
        called."""
        if agent is None or agent.parent is None:
            return ()
        if ":" in agent.id:  # of a graph, which has named it
            return tuple(_segment(segment) for segment in agent.id.split("/"))
        path: list[str] = []
        passed: set[str] = set()
        one: Agent | None = agent
        while one is not None and one.parent is not None and one.id not in passed:
            passed.add(one.id)
            kind = "tools" if one.id in self._call_ids else (one.name or "agent")
            path.insert(0, _segment(f"{kind}:{one.id}"))
            one = self._agents.get(one.parent)
        return tuple(path)

    def _begin(self, event: PartStart) -> None:
        agent = event.agent
        if agent is not None:
            self._agents.setdefault(agent.id, agent)
        if event.choice:
            return
        path = self._path_of(agent)
        speech = self._speeches.get(path)
        if speech is None:
            name = answer_id(self.view.run, self._count)
            if path:
                name = f"{self.view.run}-{path[-1]}-{event.part}"
            node = (agent.name or agent.id) if agent is not None else "model"
            speech = self._speeches[path] = Speech(name, node, path)
        self._of_part[event.part] = speech

    def _step(self, event: StepStart) -> list[Chunk]:
        if event.kind != "task":
            if () in self._speeches:
                self._count += 1
            self._speeches, self._of_part = {}, {}
        return []

    # --- parts -----------------------------------------------------------------------------------

    def _delta(self, event: PartDelta) -> list[Chunk]:
        part, speech = self.view.open.get(event.part), self._of_part.get(event.part)
        if part is None or speech is None or not event.text:
            return []
        return self._more(part, speech, event.text)

    def _more(self, part: PartView, speech: Speech, text: str) -> list[Chunk]:
        if part.kind == "tool-call":
            return self._announce(part)
        if part.kind == "text":
            return [self._partial(speech), self._said(speech, content=text)]
        field = _FIELDS.get(part.kind)
        if field is None:
            return []
        return [self._partial(speech), self._said(speech, additional_kwargs={field: text})]

    def _announce(self, part: PartView) -> list[Chunk]:
        """What of a call is known and was not sent: its names first."""
        speech = self._of_part.get(part.part)
        if part.kind != "tool-call" or speech is None or part.executor == "provider":
            return []
        if not part.call_id or not part.name:
            return []
        self._call_ids.add(part.call_id)
        self._paths[part.call_id] = speech.path
        piece: Chunk = {"type": "tool_call_chunk"}
        if not part.announced:
            part.announced = True
            speech.calls[part.part] = len(speech.calls)
            piece |= {"name": part.name, "id": part.call_id}
        text = "".join(part.pieces[part.pieces_sent :])
        part.sent()
        if not text and "id" not in piece:
            return []
        piece |= {"args": text, "index": speech.calls[part.part]}
        return [self._partial(speech), self._said(speech, tool_call_chunks=[piece])]

    def _end(self, event: PartEnd) -> list[Chunk]:
        part, speech = self.view.parts.get(event.part), self._of_part.get(event.part)
        if part is None or speech is None:
            return []
        if isinstance(event, FileEnd):
            if event.status != "complete":
                return []
            file = FilePart(
                media_type=part.media_type,
                url=part.url,
                data=None if part.url else part.text,
                name=part.name or None,
            )
            content = [file_block(file)]
            return [self._partial(speech), self._said(speech, content=content)]
        missing = part.missing(event.text)
        if missing is None:
            return self._whole(speech)
        if part.kind == "tool-call":
            if missing and part.announced:
                part.pieces, part.pieces_sent = [missing], 0
            return self._announce(part)
        return self._more(part, speech, missing) if missing else []

    def _whole(self, speech: Speech) -> list[Chunk]:
        """A message again, as what was said of it is not right."""
        message: Chunk = {"content": ""}
        pieces: list[Chunk] = []
        for number, owner in self._of_part.items():
            part = self.fold.parts.get(number)
            if owner is not speech or part is None:
                continue
            if part.kind == "text":
                message["content"] += part.text
            elif part.kind in _FIELDS:
                extras = message.setdefault("additional_kwargs", {})
                field = _FIELDS[part.kind]
                extras[field] = extras.get(field, "") + part.text
            elif number in speech.calls:
                names: Chunk = {"name": part.attrs["name"], "id": part.attrs["call_id"]}
                index = speech.calls[number]
                pieces.append(
                    {**names, "args": part.text, "index": index, "type": "tool_call_chunk"}
                )
        if pieces:
            message["tool_call_chunks"] = pieces
        removal = self._removed(speech)
        return [removal, self._partial(speech), self._said(speech, **message)]

    def _removed(self, speech: Speech) -> Chunk:
        message: Chunk = {"content": "", "type": "remove", "id": speech.name}
        return self._tuple(message, speech.node, speech.path)

    def _partial(self, speech: Speech, *, is_whole: bool = False) -> Chunk:
        """The message so far, of the mode ``messages``."""
        step = self.fold.last_step
        if "messages" not in self.modes or speech.path or step is None:
            return _NOTHING
        message = ai_message(self.fold.step_parts(step), speech.name)
        return {"event": "messages/complete" if is_whole else "messages/partial", "data": [message]}

    # --- steps, calls, waits ---------------------------------------------------------------------

    def _step_end(self, event: StepEnd) -> list[Chunk]:
        step = self.fold.last_step
        if step is None or event.step != step.step or not self._speeches:
            return []
        chunks: list[Chunk] = []
        for path, speech in self._speeches.items():
            last: Chunk = {"chunk_position": "last"}
            if not path:
                last["response_metadata"] = clean(
                    finish_reason=step.finish["reason"] if step.finish is not None else None,
                    model_name=step.model,
                )
                if step.usage:
                    last["usage_metadata"] = usage_metadata(step.usage)
                chunks += [self._partial(speech, is_whole=True), self._said(speech, **last)]
                chunks.append(self._update(speech))
            else:
                chunks.append(self._said(speech, **last))
        return [*chunks, self._values()]

    def _update(self, speech: Speech) -> Chunk:
        if "updates" not in self.modes:
            return _NOTHING
        messages = {message["id"]: message for message in answer_messages(self.fold)}
        return (
            self._updates(speech.node, messages[speech.name])
            if speech.name in messages
            else _NOTHING
        )

    def _reset(self) -> list[Chunk]:
        chunks = [self._removed(s) for s in self._speeches.values() if s.is_sent]
        self._speeches, self._of_part = {}, {}
        return [*chunks, self._values()]

    def _tool(self, call_id: str, event: str, **more: Any) -> Chunk:
        tool = self.fold.tools.get(call_id)
        name = tool.name if tool is not None else ""
        data = {"event": event, "toolCallId": call_id, "name": name, **more}
        return self._chunk("tools", data, self._paths.get(call_id, ()))

    def _result(self, event: ToolResult | ToolError) -> list[Chunk]:
        tool = self.fold.tools[event.call_id]
        part: ToolResultPart = result_part(tool)
        message, path = tool_message(part), self._paths.get(event.call_id, ())
        if isinstance(event, ToolError):
            ended = self._tool(event.call_id, "on_tool_error", error=event.message)
        else:
            ended = self._tool(event.call_id, "on_tool_end", output=event.content)
        chunks = self._tuple(message, "tools", path)
        return [chunks, ended, self._updates("tools", message, path), self._values()]

    def _wait(self, event: RunWait) -> list[Chunk]:
        if all(name in self.resolved_ids for name in event.pending):
            return []
        interrupts = interrupts_of(self.fold, event.pending)
        chunks = [self._chunk("updates", {"__interrupt__": interrupts}), self._values(interrupts)]
        if self.goes_on:
            return chunks
        self.ended = True
        return [*chunks, {"event": "end", "data": None}]

    # --- the express way -------------------------------------------------------------------------

    def _common(self, part: PartView) -> Common | None:
        speech = self._of_part.get(part.part)
        if speech is None or part.kind != "text" or "messages" in self.modes:
            return None
        chunk = self._said(speech, content=GAP)
        if chunk is _NOTHING:
            return None
        state = self.fold.parts[part.part]
        return chunk, lambda text: state.add(text_of(text))


def _segment(text: str) -> str:
    """A part of a namespace: what stands between its bars, in the name of an event."""
    return "".join(c if c.isprintable() and c not in "|\r\n" else "_" for c in text)[:200]
