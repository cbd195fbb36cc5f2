"""The state of a run that every encoder needs: its names, its open parts, its outcome so far.

Always true: a part's text is held only where a wire needs it again (arguments, files); of other
text only length and checksum, which suffice to recognise a correction at the part's end.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection
from typing import Any

from tokenwire.events import json_patch
from tokenwire.events.codec import AnyEvent
from tokenwire.events.fold import USAGE_COUNTS
from tokenwire.events.model import (
    Error,
    FileStart,
    Finish,
    OpaqueStart,
    PartAttr,
    PartDelta,
    PartEnd,
    PartStart,
    ProviderResultStart,
    ReasoningStart,
    RunEnd,
    RunStart,
    SharedState,
    StepEnd,
    StepReset,
    StepStart,
    ToolCallEnd,
    ToolCallStart,
    ToolError,
    ToolResult,
    Usage,
)
from tokenwire.events.reasons import Ending, ending
from tokenwire.wire.base import text_of
from tokenwire.wire.failure import Failure, failure_of

__all__ = ["PartView", "RunView"]

_BUFFERED_KINDS = frozenset({"tool-call", "file", "provider-result"})


class PartView:
    """One part that the run has open, or has ended in this step."""

    __slots__ = (
        "agent",
        "announced",
        "attrs",
        "call_id",
        "checksum",
        "executor",
        "format",
        "index",
        "kind",
        "length",
        "media_type",
        "meta",
        "name",
        "part",
        "payload",
        "pieces",
        "pieces_sent",
        "step",
        "summary",
        "url",
    )

    def __init__(self, event: PartStart) -> None:
        self.part, self.kind, self.step, self.meta = event.part, event.kind, event.step, event.meta
        self.agent = event.agent
        self.call_id = self.name = ""
        self.executor, self.format = "server", "json"
        self.media_type, self.url = "application/octet-stream", None
        self.payload: Any = None
        self.summary = False
        self.attrs: dict[str, Any] = {}
        self.length = self.checksum = 0
        self.pieces: list[str] = []
        self.announced = False  # the client has received its start
        self.index = 0  # its number on a wire that numbers its parts
        self.pieces_sent = 0  # how many of the pieces the client has received
        if isinstance(event, ToolCallStart):
            self.call_id, self.name = event.call_id, event.name
            self.executor, self.format = event.executor, event.format
        elif isinstance(event, ProviderResultStart):
            self.call_id, self.name, self.payload = event.call_id, event.name, event.content
        elif isinstance(event, FileStart):
            self.media_type, self.url = event.media_type, event.url
            self.name = event.name or ""
        elif isinstance(event, OpaqueStart):
            self.name, self.payload = event.name, event.payload
        elif isinstance(event, ReasoningStart):
            self.summary = event.summary

    @property
    def text(self) -> str:
        """The buffered text; empty for kinds that buffer none."""
        if len(self.pieces) > 1:
            self.pieces = ["".join(self.pieces)]
        return self.pieces[0] if self.pieces else ""

    @property
    def is_clients(self) -> bool:
        """Whether the client runs this call itself."""
        return self.executor == "client"

    def add(self, text: str) -> None:
        """The next piece."""
        data = text.encode("utf-8", "surrogatepass")
        self.length += len(data)
        self.checksum = zlib.crc32(data, self.checksum)
        if self.kind in _BUFFERED_KINDS:
            self.pieces.append(text)

    def add_json(self, text: bytes) -> None:
        """The same, as JSON has it between its quotes."""
        if b"\\" in text or self.kind in _BUFFERED_KINDS:
            self.add(text_of(text))
        else:
            self.length += len(text)
            self.checksum = zlib.crc32(text, self.checksum)

    def sent(self, _: bytes = b"") -> None:
        """The client has received all pieces."""
        self.pieces_sent = len(self.pieces)

    def missing(self, full_text: str | None) -> str | None:
        """The rest of ``full_text`` after what was sent: "" for nothing, None when ``full_text``
        does not begin with what was sent."""
        if full_text is None:
            return ""
        data = full_text.encode("utf-8", "surrogatepass")
        if zlib.crc32(data[: self.length]) != self.checksum or len(data) < self.length:
            return None
        return data[self.length :].decode("utf-8", "surrogatepass")


class RunView:
    """The state of one run, as far as encoders need it. `apply` each event once, in order."""

    def __init__(self) -> None:
        self.run = ""
        self.thread: str | None = None
        self.model: str | None = None
        self.time = 0
        self.metadata: dict[str, Any] = {}
        self.step = 0
        self.attempt = 1
        self.in_step = False
        self.provider: str | None = None
        #: Parts of the current step, ended ones too; ``open`` has those that are not ended.
        self.parts: dict[int, PartView] = {}
        self.open: dict[int, PartView] = {}
        self.finish: Finish | None = None
        self.error: Error | None = None
        self.outcome: str | None = None
        self._done_usage: dict[str, int] = {}
        self._step_usage: dict[str, int] = {}
        #: Calls that have a result, by id.
        self.result_ids: set[str] = set()
        #: Open steps of the kind ``task``, by number; they overlap the step that holds parts.
        self.tasks: dict[int, StepStart] = {}
        #: The state that an agent shares.
        self.shared: Any = None

    @property
    def usage(self) -> dict[str, int]:
        """Token counts of all steps so far."""
        total = dict(self._done_usage)
        for name, count in self._step_usage.items():
            total[name] = total.get(name, 0) + count
        return total

    @property
    def reason(self) -> str:
        """Why the model stopped, in our word."""
        return self.finish.reason if self.finish is not None else "stop"

    def ending(self, event: RunEnd) -> Ending:
        """How the run ended. A truncated answer is never ``complete`` or ``cut``."""
        return ending(event.outcome, self.reason, event.reason, has_error=self.error is not None)

    def failure(self, event: RunEnd) -> Failure:
        """Why the run has no answer to show, where `ending` says so."""
        return failure_of(self.error, self.finish, event.outcome, event.reason)

    def void_parts(self, event: StepReset) -> Collection[int]:
        """The parts that a reset takes back, before or after it is applied."""
        return event.discard_parts or (self.parts if event.step == self.step else ())

    def apply(self, event: AnyEvent) -> None:
        """Apply one event. A part that ends stays in ``parts`` until its step is over."""
        if isinstance(event, PartDelta):
            part = self.open.get(event.part)
            if part is not None:
                part.add(event.text)
        elif isinstance(event, PartStart):
            self.parts[event.part] = self.open[event.part] = PartView(event)
        elif isinstance(event, PartEnd):
            part = self.open.pop(event.part, None)
            if part is not None and event.text is not None and part.kind in _BUFFERED_KINDS:
                part.pieces = [event.text]
            if part is not None and isinstance(event, ToolCallEnd):
                part.payload = event.arguments
        elif isinstance(event, PartAttr):
            part = self.open.get(event.part)
            if part is not None:
                _attribute(part, event)
        else:
            self._apply_other(event)

    def _apply_other(self, event: AnyEvent) -> None:
        if isinstance(event, StepStart) and event.kind == "task":
            self.tasks[event.step] = event
        elif isinstance(event, StepEnd | StepReset) and event.step in self.tasks:
            del self.tasks[event.step]
        elif isinstance(event, SharedState):
            self.shared = json_patch.after(self.shared, event.snapshot, event.patch)
        elif isinstance(event, StepStart):
            self.step, self.attempt, self.in_step = event.step, event.attempt, True
            self.provider = event.provider or self.provider
            self.parts, self.open = {}, {}
            self.finish = None
        elif isinstance(event, Usage):
            for name in USAGE_COUNTS:
                count = getattr(event, name)
                if count is not None:
                    before = self._step_usage.get(name, 0) if event.mode == "increment" else 0
                    self._step_usage[name] = before + count
        elif isinstance(event, Finish):
            if event.choice == 0:
                self.finish = event
        elif isinstance(event, StepEnd):
            self.in_step = False
            self._done_usage, self._step_usage = self.usage, {}
        elif isinstance(event, StepReset):
            self.in_step = False
            self._done_usage, self._step_usage = self.usage, {}
            self.open = {}
            self.error = self.finish = None
        elif isinstance(event, Error):
            self.error = event
        elif isinstance(event, ToolResult | ToolError):
            self.result_ids.add(event.call_id)
        elif isinstance(event, RunStart):
            self.run, self.thread, self.model = event.run, event.thread, event.model
            self.time, self.metadata = event.time, event.metadata or {}
        elif isinstance(event, RunEnd):
            self.outcome = event.outcome
            if event.usage:
                self._done_usage, self._step_usage = dict(event.usage), {}


def _attribute(part: PartView, event: PartAttr) -> None:
    if event.name == "call_id":
        part.call_id = part.call_id or str(event.value)
    elif event.name == "tool_name":
        part.name = str(event.value)
    elif event.name == "citation":
        part.attrs.setdefault("citations", []).append(event.value)
    elif event.name == "meta" and isinstance(event.value, dict):
        part.meta = {**(part.meta or {}), **event.value}
    elif event.name != "logprobs":
        part.attrs[event.name] = event.value
