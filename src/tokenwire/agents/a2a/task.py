"""The state of a remote task: where it is, what it asks, and how it ended.

Always true: pure; a task that has ended stays so; what the agent says of another task is an error.
"""

from __future__ import annotations

from typing import Any

import msgspec

from tokenwire.agents.a2a.failures import protocol_error

__all__ = ["INTERRUPTED", "TERMINAL", "Question", "Status", "words_of"]

TERMINAL = frozenset({"COMPLETED", "FAILED", "CANCELED", "REJECTED"})
INTERRUPTED = frozenset({"INPUT_REQUIRED", "AUTH_REQUIRED"})
_STATES = TERMINAL | INTERRUPTED | {"SUBMITTED", "WORKING", "UNSPECIFIED"}
#: Characters of a status message that are shown.
MOST_WORDS = 4000


def words_of(message: Any) -> str:
    """The texts of a message."""
    texts = [part["text"] for part in _parts_of(message) if isinstance(part.get("text"), str)]
    return "\n".join(text for text in texts if text).strip()[:MOST_WORDS]


class Question(msgspec.Struct):
    """What a task waits for. ``approvals`` and ``tools``: as tokenwire's A2A server lists them;
    ``key``: what tells it from another question."""

    state: str
    text: str = ""
    key: str = ""
    approvals: list[dict[str, Any]] = []
    tools: list[dict[str, Any]] = []


class Status:
    """The last status of one task, from whatever names it."""

    def __init__(self) -> None:
        self.task = self.context = ""
        self.state = "UNSPECIFIED"
        self.message: dict[str, Any] | None = None
        self.timestamp = ""
        self.facts: dict[str, Any] = {}

    @property
    def has_ended(self) -> bool:
        """Whether the task is in a state that it never leaves."""
        return self.state in TERMINAL

    def name(self, value: dict[str, Any], field: str) -> None:
        """Check that ``value`` belongs to the task. Raises `ProtocolError`."""
        task = value.get(field)
        if not isinstance(task, str) or not task or len(task) > 1024:
            raise protocol_error(f"the remote agent sent no valid '{field}'")
        if self.task and task != self.task:
            raise protocol_error("the remote agent sent an event of another task")
        self.task = task
        context = value.get("contextId")
        if isinstance(context, str) and not self.context:
            self.context = context[:1024]

    def apply(self, status: Any, metadata: Any = None) -> bool:
        """Take in a ``TaskStatus``; whether it is another one than before. Raises
        `ProtocolError`."""
        if not isinstance(status, dict):
            raise protocol_error("the remote agent sent a task without a status")
        state = status.get("state")
        state = state.removeprefix("TASK_STATE_") if isinstance(state, str) else "UNSPECIFIED"
        if state not in _STATES:
            raise protocol_error(f"the remote agent sent the unknown state {state[:40]!r}")
        if self.has_ended:
            return False  # what comes after the end is not of this task's life
        message = status.get("message")
        message = message if isinstance(message, dict) else None
        timestamp = str(status.get("timestamp") or "")[:40]
        is_new = (state, message, timestamp) != (self.state, self.message, self.timestamp)
        self.state, self.message, self.timestamp = state, message, timestamp
        facts = metadata.get("tokenwire") if isinstance(metadata, dict) else None
        if isinstance(facts, dict):
            self.facts = facts
        return is_new

    @property
    def question(self) -> Question | None:
        """What the task waits for; None while it waits for nothing."""
        if self.state not in INTERRUPTED:
            return None
        message = self.message or {}
        name = message.get("messageId")
        key = f"{name if isinstance(name, str) else ''}\0{self.timestamp}\0{words_of(message)}"
        question = Question(self.state, words_of(message), key)
        for part in _parts_of(message):
            data = part.get("data")
            if isinstance(data, dict) and self.state == "INPUT_REQUIRED":
                question.approvals += _named(data.get("approvals"), "approvalId")
                question.tools += _named(data.get("tools"), "callId")
        return question


def _parts_of(message: Any) -> list[dict[str, Any]]:
    """The parts of a message that are objects."""
    parts = message.get("parts") if isinstance(message, dict) else None
    return [p for p in parts if isinstance(p, dict)] if isinstance(parts, list) else []


def _named(value: Any, field: str) -> list[dict[str, Any]]:
    entries = value if isinstance(value, list) else []
    return [
        entry
        for entry in entries[:100]
        if isinstance(entry, dict)
        and isinstance(entry.get(field), str)
        and isinstance(entry.get("name"), str)
        and 0 < len(entry["name"]) <= 256
    ]
