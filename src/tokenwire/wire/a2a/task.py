"""A2A's task: the fold of its stream, so that what is polled and what is streamed are one.

Always true: the task after n stream responses depends on these alone; texts of one artifact that
follow each other are one part.
"""

from __future__ import annotations

from tokenwire.events.message import FilePart, Message, TextPart
from tokenwire.wire.chunk_encoder import Chunk, clean

__all__ = ["TERMINAL", "TaskFold", "message_of", "question_parts", "with_cursor"]

#: States that a task never leaves.
TERMINAL = frozenset(
    f"TASK_STATE_{word}" for word in ("COMPLETED", "FAILED", "CANCELED", "REJECTED")
)


class TaskFold:
    """A task, from the stream responses that a client has received."""

    def __init__(self) -> None:
        self._task: Chunk = {}
        self._artifacts: dict[str, Chunk] = {}

    def apply(self, response: Chunk) -> None:
        """Apply one stream response."""
        ((kind, value),) = response.items()
        if kind == "task":
            self._task = {**value}
            artifacts = self._task.pop("artifacts", [])
            self._artifacts = {a["artifactId"]: {**a, "parts": [*a["parts"]]} for a in artifacts}
        elif kind == "statusUpdate":
            self._task["status"] = value["status"]
            facts = {**value.get("metadata", {}).get("tokenwire", {})}
            facts.pop("cursor", None)
            if facts and value["status"]["state"] in TERMINAL:  # why it ended, and what it used
                self._task["metadata"] = {"tokenwire": facts}
        elif kind == "artifactUpdate":
            artifact = value["artifact"]
            stored = self._artifacts.get(artifact["artifactId"])
            if value.get("append") and stored is not None:
                stored["parts"] += artifact["parts"]
            else:
                copied = {**artifact, "parts": [*artifact["parts"]]}
                self._artifacts[artifact["artifactId"]] = copied

    @property
    def state(self) -> str:
        """The state's name; empty before the first response."""
        return self._task.get("status", {}).get("state", "")

    def value(self) -> Chunk:
        """The task."""
        artifacts = [{**a, "parts": _joined(a["parts"])} for a in self._artifacts.values()]
        whole = [a for a in artifacts if a["parts"] != [{"text": ""}]]
        return {**self._task, **({"artifacts": whole} if whole else {})}


def _joined(parts: list[Chunk]) -> list[Chunk]:
    joined: list[Chunk] = []
    texts: list[str] = []
    for part in parts:
        if set(part) == {"text"}:
            texts.append(part["text"])
            continue
        if texts:
            joined.append({"text": "".join(texts)})
            texts = []
        joined.append(part)
    return [*joined, {"text": "".join(texts)}] if texts else joined


def with_cursor(response: Chunk, cursor: str) -> Chunk:
    """A stream response whose metadata says where in the run it stands."""
    ((kind, value),) = response.items()
    metadata: Chunk = value.get("metadata", {})
    facts = {**metadata.get("tokenwire", {}), "cursor": cursor}
    return {kind: {**value, "metadata": {**metadata, "tokenwire": facts}}}


def message_of(message: Message, fallback: str, task: str, context: str) -> Chunk:
    """A message of a conversation as A2A's. ``fallback``: its id where it has none."""
    parts: list[Chunk] = []
    for part in message.parts:
        if isinstance(part, TextPart):
            parts.append({"text": part.text})
        elif isinstance(part, FilePart):
            parts.append(
                clean(raw=part.data, url=part.url, mediaType=part.media_type, filename=part.name)
            )
    return {
        "messageId": message.id or fallback,
        "taskId": task,
        "contextId": context,
        "role": "ROLE_AGENT" if message.role == "assistant" else "ROLE_USER",
        "parts": parts or [{"text": ""}],
    }


def question_parts(approvals: list[Chunk], calls: list[Chunk]) -> list[Chunk]:
    """What a task that waits says: in words, and as data that an answer can name."""
    words = [a.get("reason") or f"May the tool {a['name']} run?" for a in approvals]
    words += [f"The result of the tool {c['name']} is needed." for c in calls]
    data: Chunk = {}
    if approvals:
        data["approvals"] = approvals
    if calls:
        data["tools"] = calls
    return [{"text": "\n".join(words)}, {"data": data, "mediaType": "application/json"}]
