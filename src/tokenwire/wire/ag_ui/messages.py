"""The messages that an AG-UI client holds, rebuilt from what it received.

Held only for readers whose request carried the conversation: they receive a ``step-reset`` as a
``MESSAGES_SNAPSHOT``, and a snapshot must hold every message.
"""

from __future__ import annotations

from typing import Any

__all__ = ["MessageList"]

Chunk = dict[str, Any]


class MessageList:
    """A small reducer of AG-UI events. ``history``: the messages of the request."""

    def __init__(self, history: list[Chunk]) -> None:
        self._before = [m for m in history if m.get("role") != "activity"]
        self._mine: dict[str, Chunk] = {}
        self._pieces: dict[str, list[str]] = {}
        self._calls: dict[str, Chunk] = {}

    def apply(self, chunk: Chunk) -> None:
        """Apply one event."""
        kind = chunk["type"]
        if kind in ("TEXT_MESSAGE_START", "REASONING_MESSAGE_START"):
            name = chunk["messageId"]
            self._mine.setdefault(name, {"id": name, "role": chunk["role"]})
            self._pieces.setdefault(name, [])
        elif kind in ("TEXT_MESSAGE_CONTENT", "REASONING_MESSAGE_CONTENT"):
            self._pieces[chunk["messageId"]].append(chunk["delta"])
        elif kind == "TOOL_CALL_START":
            self._start_call(chunk)
        elif kind == "TOOL_CALL_ARGS":
            self._pieces[chunk["toolCallId"]].append(chunk["delta"])
        elif kind == "TOOL_CALL_RESULT":
            name = chunk["messageId"]
            self._mine[name] = {
                "id": name,
                "role": "tool",
                "toolCallId": chunk["toolCallId"],
                "content": chunk["content"],
            }
        elif kind == "MESSAGES_SNAPSHOT":
            listed_ids = {m["id"] for m in chunk["messages"]}
            self._mine = {k: v for k, v in self._mine.items() if k in listed_ids}

    def pieces(self, name: str) -> list[str] | None:
        """The pieces of a message or call, for who appends one himself."""
        return self._pieces.get(name)

    def _start_call(self, chunk: Chunk) -> None:
        parent, call_id = chunk["parentMessageId"], chunk["toolCallId"]
        if call_id in self._calls:
            return
        message = self._mine.setdefault(parent, {"id": parent, "role": "assistant"})
        call = {
            "id": call_id,
            "type": "function",
            "function": {"name": chunk["toolCallName"], "arguments": ""},
        }
        message.setdefault("toolCalls", []).append(call)
        self._calls[call_id] = call
        self._pieces[call_id] = []

    def without(self, void_ids: list[str]) -> list[Chunk]:
        """All messages but those whose message or call id is in ``void_ids``."""
        names = set(void_ids)
        messages = list(self._before)
        for name, message in self._mine.items():
            calls = [c for c in message.get("toolCalls", []) if c["id"] not in names]
            if name in names or ("toolCalls" in message and not calls):
                continue
            shown_message = {k: v for k, v in message.items() if k != "toolCalls"}
            if name in self._pieces:
                shown_message["content"] = "".join(self._pieces[name])
            if calls:
                shown_message["toolCalls"] = [
                    {
                        **c,
                        "function": {**c["function"], "arguments": "".join(self._pieces[c["id"]])},
                    }
                    for c in calls
                ]
            messages.append(shown_message)
        return messages
