"""The parts of a remote task's answer as steps and parts of a run.

Always true: pure; a step holds one turn's parts, which end with it; a text that goes on in another
step is a part of its own there; numbers of an earlier worker's parts are kept.
"""

from __future__ import annotations

from typing import Any, Literal

from tokenwire.agents.a2a.slots import Artifact, Slot
from tokenwire.events import model as m

__all__ = ["Writer"]

PROVIDER = "a2a"
_MEDIA = ("image", "audio")


class Writer:
    """Numbers of steps and parts, which are the run's own for what a log has."""

    def __init__(self) -> None:
        #: The open step: its number and its attempt; None between steps.
        self.step: int | None = None
        self.attempt = 1
        self._next_step, self._next_part = 1, 0
        #: Open parts of the step, and all of its parts.
        self._open: dict[int, Slot] = {}
        self._parts: list[int] = []
        self.has_refused = False

    @property
    def open_parts(self) -> list[int]:
        """Numbers of the parts that are open."""
        return list(self._open)

    def start(self) -> list[m.Event]:
        """A step, unless one is open."""
        if self.step is not None:
            return []
        self.step, self.attempt, self._parts = self._next_step, 1, []
        self._next_step += 1
        return [m.StepStart(step=self.step, kind="agent", provider=PROVIDER)]

    def begin(self, output: Artifact, slot: Slot) -> list[m.Event]:
        """A text or a file that readers do not have."""
        place: dict[str, Any] = {"artifact": output.id}
        if slot.kind == "file":
            return self._file(output, slot, place)
        if not slot.size:
            return []
        copy = Slot("text")
        output.slots.append(copy)
        return self._text(copy, slot.text, place)

    def more(self, output: Artifact, text: str) -> list[m.Event]:
        """More of the artifact's last text."""
        if not text:
            return []
        if not output.slots or output.slots[-1].kind != "text":
            output.slots.append(Slot("text"))
        slot = output.slots[-1]
        place: dict[str, Any] = {"artifact": output.id}
        if slot.size and not slot.is_open:
            place["more"] = True
        return self._text(slot, text, place)

    def _text(self, slot: Slot, text: str, place: dict[str, Any]) -> list[m.Event]:
        events: list[m.Event] = []
        if not slot.is_open:
            events += self.start()
            assert self.step is not None
            slot.part, slot.step, slot.is_open = self._number(), self.step, True
            self._open[slot.part] = slot
            events.append(m.TextStart(part=slot.part, meta={"a2a": place}))
        slot.add(text)
        return [*events, m.TextDelta(part=slot.part, text=text)]

    def _file(self, output: Artifact, slot: Slot, place: dict[str, Any]) -> list[m.Event]:
        content = slot.content
        media_type = content.get("mediaType") or "application/octet-stream"
        kind = media_type.partition("/")[0]
        media: Literal["image", "audio", "file"] = kind if kind in _MEDIA else "file"  # type: ignore[assignment]
        events = self.start()
        part = self._number()
        output.slots.append(
            Slot("file", key=slot.key, content=content, part=part, step=self.step or 0)
        )
        start = m.FileStart(
            part=part,
            media=media,
            media_type=media_type,
            name=content.get("filename"),
            url=content.get("url"),
            meta={"a2a": place},
        )
        events.append(start)
        if "raw" in content and "url" not in content:
            events.append(m.FileDelta(part=part, text=content["raw"]))
        return [*events, m.FileEnd(part=part)]

    def refuse(self, words: str) -> list[m.Event]:
        """A refusal, in the agent's ``words``."""
        if self.has_refused:
            return []
        self.has_refused = True
        events = self.start()
        part = self._number()
        text = words or "The remote agent rejected the task."
        return [
            *events,
            m.RefusalStart(part=part),
            m.RefusalDelta(part=part, text=text),
            m.RefusalEnd(part=part),
        ]

    def end(self, reason: m.FinishReason, *, is_whole: bool = True) -> list[m.Event]:
        """The end of the open step."""
        if self.step is None:
            return []
        status: m.PartStatus = "complete" if is_whole else "truncated"
        events: list[m.Event] = [m.TextEnd(part=part, status=status) for part in self._open]
        for slot in self._open.values():
            slot.is_open = False
        self._open = {}
        events.append(m.Finish(reason=reason))
        events.append(
            m.StepEnd(
                step=self.step,
                status="complete" if is_whole else "error",
                terminal_seen=is_whole,
            )
        )
        self.step = None
        return events

    def take_back(self, output: dict[str, Artifact]) -> list[m.Event]:
        """The open step begins again: what it said is void."""
        if self.step is None:
            return []
        for artifact in output.values():
            artifact.slots = [s for s in artifact.slots if s.part not in self._parts]
        self.attempt += 1
        events: list[m.Event] = [
            m.StepReset(
                step=self.step, attempt=self.attempt, discard_parts=self._parts, reason="replaced"
            ),
            m.StepStart(step=self.step, attempt=self.attempt, kind="agent", provider=PROVIDER),
        ]
        self._open, self._parts = {}, []
        return events

    def _number(self) -> int:
        part, self._next_part = self._next_part, self._next_part + 1
        self._parts.append(part)
        return part

    def restore(self, event: m.Event, slots: dict[int, Slot]) -> None:
        """One event of an earlier worker's log."""
        if isinstance(event, m.StepStart):
            self._next_step = max(self._next_step, event.step + 1)
            if event.provider == PROVIDER:
                self.step, self.attempt = event.step, event.attempt
                self._open, self._parts = {}, []
        elif isinstance(event, m.StepEnd) and event.step == self.step:
            self.step = None
        elif isinstance(event, m.PartStart):
            self._next_part = max(self._next_part, event.part + 1)
            self._parts.append(event.part)
            self.has_refused = self.has_refused or isinstance(event, m.RefusalStart)
            if isinstance(event, m.TextStart) and event.part in slots:
                self._open[event.part] = slots[event.part]
        elif isinstance(event, m.PartEnd):
            slot = self._open.pop(event.part, None)
            if slot is not None:
                slot.is_open = False
