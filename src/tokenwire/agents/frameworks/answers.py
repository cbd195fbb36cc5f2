"""Answers on a provider's own wire inside of a framework: our decoders read them.

Always true: pure; each answer is one step in the numbers of the turn; an answer that is taken back
is reset, and the next one is another attempt at its step, so that no words are said twice.
"""

from __future__ import annotations

from typing import Any

from tokenwire.events import model as m
from tokenwire.providers.sdk import Answer

__all__ = ["Answers"]

#: Part numbers of one answer.
_PARTS = 1000


class Answers:
    """The answers of one speaker, one after the other. ``provider``: the framework's name."""

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._answer: Answer | None = None
        self._step = self._part = 0
        self._attempt = 1
        self._is_retry = False
        self._parts: list[int] = []
        #: Who speaks; None before the framework says it.
        self.speaker: m.Agent | None = None
        #: Names of the calls that were made, by their ids.
        self.names: dict[str, str] = {}
        #: Why the last answer ended, in our word.
        self.reason: str = "stop"

    @property
    def is_open(self) -> bool:
        """Whether an answer has begun and has no end."""
        return self._answer is not None

    def item(self, data: Any) -> list[m.Event]:
        """One object of the provider's; the first one begins an answer."""
        if self._answer is None:
            self._answer = Answer()
        return self._numbered(self._answer.item(data))

    def end(self) -> list[m.Event]:
        """The answer has no more."""
        if self._answer is None:
            return []
        events, self._answer = self._numbered(self._answer.end()), None
        return events

    def reset(self) -> list[m.Event]:
        """The open answer is void: the framework asks its model again."""
        if self._answer is None:
            return []
        self._answer, self._is_retry = None, True
        self._attempt += 1
        parts = self._parts
        return [m.StepReset(step=self._step, attempt=self._attempt, discard_parts=parts)]

    def _numbered(self, events: list[m.Event]) -> list[m.Event]:
        return [event for event in events if self._renumber(event)]

    def _renumber(self, event: m.Event) -> bool:
        """Give an event the numbers of the turn; False for those of the answer's own run."""
        if isinstance(event, m.RunStart | m.RunEnd):
            return False
        event.seq = 0
        if isinstance(event, m.StepStart):
            if self._is_retry:
                self._is_retry = False
            else:
                self._step, self._attempt = self._step + 1, 1
            event.attempt = self._attempt
            self._part += _PARTS
            self._parts = []
            event.provider = self._provider
            event.agent = self.speaker
        if isinstance(event, m.StepStart | m.StepEnd | m.StepReset):
            event.step = self._step
        elif isinstance(event, m.PartStart | m.PartDelta | m.PartEnd | m.PartAttr | m.PartPatch):
            event.part += self._part
            if isinstance(event, m.PartStart):
                self._parts.append(event.part)
                event.agent = self.speaker
            if isinstance(event, m.ToolCallStart) and event.call_id:
                self.names[event.call_id] = event.name
        elif isinstance(event, m.Finish):
            self.reason = event.reason
        return True
