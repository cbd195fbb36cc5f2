"""A reader of LangGraph's stream, by the rules that its clients' message manager has."""

from __future__ import annotations

from typing import Any

from support.wire_readers import Reader, need
from tokenwire.framing.sse import Frame

__all__ = ["LangGraphReader"]


class LangGraphReader(Reader):
    """``view()``: messages by their ids, as chunks made them, and the values."""

    def __init__(self) -> None:
        self.messages: dict[str, dict[str, Any]] = {}
        self.values: dict[str, Any] = {}
        self.interrupts: list[dict[str, Any]] = []
        self.error: dict[str, Any] | None = None
        super().__init__()

    def take(self, chunk: Any, frame: Frame) -> None:
        kind, _, path = (frame.event or "").partition("|")
        need(kind, "a frame without a name")
        if kind == "messages":
            message, facts = chunk
            need(facts["run_id"], "whose it is")
            self.take_message(message, path)
        elif kind == "values":
            self.values = {**chunk}
            self.interrupts = self.values.pop("__interrupt__", [])
        elif kind in ("end", "error"):
            self.ended, self.error = True, chunk
            self.end = "end" if kind == "end" else f"error {chunk['error']}"
        else:
            need(kind in ("metadata", "custom", "updates", "tools"), f"unknown {kind}")

    def take_message(self, chunk: dict[str, Any], path: str) -> None:
        name = chunk["id"]
        if chunk["type"] == "remove":
            need(name in self.messages, f"removed before it was there: {name}")
            del self.messages[name]
            return
        blank: dict[str, Any] = {"text": "", "more": [], "extras": {}, "calls": {}, "facts": {}}
        message = self.messages.setdefault(name, {**blank, "type": chunk["type"], "path": path})
        if isinstance(chunk["content"], str):
            message["text"] += chunk["content"]
        else:
            message["more"] += chunk["content"]
        for field, text in chunk.get("additional_kwargs", {}).items():
            message["extras"][field] = message["extras"].get(field, "") + text
        for piece in chunk.get("tool_call_chunks", []):
            call = message["calls"].setdefault(piece["index"], {"args": ""})
            call["args"] += piece["args"]
            call |= {n: piece[n] for n in ("id", "name") if n in piece}
        for field in ("usage_metadata", "response_metadata"):
            message["facts"] |= {field: chunk[field]} if chunk.get(field) else {}

    def text(self) -> str:
        """The answer's text and refusals."""
        return "".join(
            m["text"] + m["extras"].get("refusal", "")
            for m in self.messages.values()
            if m["type"] == "AIMessageChunk" and not m["path"]
        )

    def calls(self) -> dict[str, str]:
        """Arguments by call."""
        return {
            call["id"]: call["args"]
            for message in self.messages.values()
            for call in message["calls"].values()
        }

    def said(self) -> dict[str, str]:
        """What the values say by message: its text, or that of its blocks."""
        texts: dict[str, str] = {}
        for message in self.values.get("messages", []):
            content = message["content"]
            if not isinstance(content, str):
                content = "".join(block.get("text", "") for block in content)
            texts[message["id"]] = content
        return texts

    def view(self) -> Any:
        return self.messages, self.values, self.interrupts
