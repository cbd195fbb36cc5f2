"""A reader of A2A stream responses, by the rules that the a2a-sdk's task manager has."""

from __future__ import annotations

from typing import Any

from support.wire_readers import Reader, need, no_nulls
from tokenwire.framing.sse import Frame

__all__ = ["A2AReader"]

_ENDS = ("COMPLETED", "FAILED", "CANCELED", "REJECTED")


class A2AReader(Reader):
    """``view()``: the artifacts' contents, and the status message."""

    def __init__(self) -> None:
        self.artifacts: dict[str, list[dict[str, Any]]] = {}
        self.task: dict[str, Any] | None = None
        self.status: dict[str, Any] = {}
        self.has_begun = False
        super().__init__()

    def connect(self) -> None:
        super().connect()
        self.has_begun = False

    def take(self, chunk: dict[str, Any], frame: Frame) -> None:
        need(len(chunk) == 1, f"not one member: {list(chunk)}")
        ((kind, value),) = chunk.items()
        no_nulls(value)
        cursor = value["metadata"]["tokenwire"]["cursor"]
        need(frame.id in (None, "", cursor), "the id differs from the metadata")
        need(self.has_begun or kind == "task", f"the first response is {kind}")
        self.has_begun = True
        if kind == "task":
            self.task, self.status = value, value["status"]
            artifacts = value.get("artifacts", [])
            self.artifacts = {a["artifactId"]: list(a["parts"]) for a in artifacts}
            return
        need(self.task is not None and value["taskId"] == self.task["id"], "of another task")
        need(self.task is not None and value["contextId"] == self.task["contextId"], "context")
        if kind == "artifactUpdate":
            artifact = value["artifact"]
            name, parts = artifact["artifactId"], artifact["parts"]
            need(parts, "an artifact without parts")
            if value.get("append"):
                need(name in self.artifacts, f"append to nothing: {name}")
                self.artifacts[name] += parts
            else:
                self.artifacts[name] = list(parts)
            return
        need(kind == "statusUpdate", f"unknown {kind}")
        self.status = value["status"]
        word = self.status["state"].removeprefix("TASK_STATE_")
        if word in _ENDS:
            self.ended, self.end = True, word

    def text(self) -> str:
        """All text of the artifacts."""
        return "".join(p.get("text", "") for parts in self.artifacts.values() for p in parts)

    def view(self) -> Any:
        message = self.status.get("message", {}).get("parts")
        contents = {
            name: (
                "".join(p.get("text", "") for p in parts),
                [p for p in parts if "text" not in p],
            )
            for name, parts in self.artifacts.items()
        }
        return {n: c for n, c in contents.items() if c != ("", [])}, message
