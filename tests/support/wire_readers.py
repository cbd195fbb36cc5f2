"""Small readers of each wire, written from the wires' rules and sharing nothing with the encoders.

Each reader keeps what a client keeps over a reconnect, forgets what a client forgets with its
connection, and fails on what the real client fails on. ``view()`` is what a person would see:
per step the text, the reasoning and the calls, and how it ended.
"""

from __future__ import annotations

import json
from typing import Any

from tokenwire.events.fold import Fold
from tokenwire.events.json_patch import apply
from tokenwire.framing.sse import Frame, SSEDecoder


class ReaderError(AssertionError):
    """The client would have failed here."""


def need(condition: object, message: str) -> None:
    if not condition:
        raise ReaderError(message)


def no_nulls(value: Any, allowed: tuple[str, ...] = ()) -> None:
    for name, item in value.items():
        need(item is not None or name in allowed, f"null in {name}: {value}")


class Reader:
    """Base: SSE in, `take` per chunk. ``last_id`` is where it would come back."""

    sentinel: str | None = None

    def __init__(self) -> None:
        self.last_id = ""
        self.ended = False
        self.closed = False
        self.end: str | None = None
        self.connect()

    def connect(self) -> None:
        self.decoder: SSEDecoder | LineFrames = SSEDecoder()

    def feed(self, data: bytes) -> None:
        need(b"\r" not in data, "a CR on the wire")
        for frame in self.decoder.feed(data):
            self.frame(frame)

    def frame(self, frame: Frame) -> None:
        need(not self.closed, "something after the sentinel")
        if frame.id:
            self.last_id = frame.id
        if self.sentinel is not None and frame.text == self.sentinel:
            self.closed = True
            return
        chunk = json.loads(frame.text)
        need(not self.ended, f"something after the end: {chunk}")
        self.take(chunk, frame)

    def take(self, chunk: dict[str, Any], frame: Frame) -> None:
        raise NotImplementedError

    def facts(self) -> Any:
        """What the reader knows beside the message: shared state, tasks."""
        return None


def blank_step() -> dict[str, Any]:
    return {"parts": {}, "calls": {}}


class UIReader(Reader):
    """The AI SDK's reducer: parts by id within a connection, tool parts by call id for good.

    A part that is opened again under ``t3.57`` is read as more of ``t3``. The SDK shows it as a
    part of its own behind the others: the same text, unless two texts were open at once.
    """

    sentinel = "[DONE]"

    def __init__(self) -> None:
        self.steps: list[dict[str, Any]] = []
        self.tools: dict[str, dict[str, Any]] = {}
        self.data: dict[str, Any] = {}
        self.message_id: str | None = None
        super().__init__()

    def connect(self) -> None:
        super().connect()
        self.active: dict[str, str] = {}
        self.inputs: dict[str, str] = {}

    def take(self, chunk: dict[str, Any], frame: Frame) -> None:
        kind = chunk["type"]
        no_nulls(chunk, ("data", "output", "input"))
        if kind == "start":
            self.message_id = chunk["messageId"]
        elif kind == "start-step":
            self.steps.append(blank_step())
        elif kind in ("text-start", "reasoning-start"):
            self.active[chunk["id"]] = kind.split("-")[0]
            name = chunk["id"].partition(".")[0]
            self.steps[-1]["parts"].setdefault(name, [kind.split("-")[0], ""])
        elif kind in ("text-delta", "reasoning-delta"):
            need(chunk["id"] in self.active, f"a delta without its start: {chunk}")
            need(self.active[chunk["id"]] == kind.split("-")[0], "a delta of another kind")
            self.steps[-1]["parts"][chunk["id"].partition(".")[0]][1] += chunk["delta"]
        elif kind in ("text-end", "reasoning-end"):
            need(self.active.pop(chunk["id"], None), f"an end without its start: {chunk}")
        elif kind.startswith("tool-"):
            self.tool(kind, chunk)
        elif kind.startswith("data-"):
            self.take_data(chunk)
        elif kind == "reset-step":
            self.active.clear()
            self.inputs.clear()
            self.void()
        elif kind in ("finish", "abort", "error"):
            self.ended = True
            facts = chunk.get("messageMetadata", {}).get("tokenwire", {})
            self.end = f"finish {facts['finishReason']}" if kind == "finish" else kind
        else:
            need(kind == "finish-step", f"an unknown chunk: {kind}")

    def void(self) -> None:
        for call_id in self.steps[-1]["calls"]:
            del self.tools[call_id]
        self.steps[-1] = blank_step()

    def take_data(self, chunk: dict[str, Any]) -> None:
        if chunk["type"] == "data-step-reset":
            self.void()  # "forget what came since the last step-start"
        elif not chunk.get("transient"):
            self.data[chunk.get("id", "")] = chunk["data"]

    def facts(self) -> Any:
        names = ["state", "progress", "budget", *(n for n in self.data if n.startswith("step-"))]
        return {name: self.data[name] for name in names if name in self.data}

    def tool(self, kind: str, chunk: dict[str, Any]) -> None:
        if kind == "tool-approval-request":
            self.tools[chunk["toolCallId"]]["approval"] = chunk["approvalId"]
            return
        if kind == "tool-approval-response":
            need(
                any(t.get("approval") == chunk["approvalId"] for t in self.tools.values()),
                "an answer to no question",
            )
            return
        call_id = chunk["toolCallId"]
        if kind == "tool-input-start":
            self.inputs[call_id] = ""
        if kind in ("tool-input-start", "tool-input-available", "tool-input-error"):
            known = self.tools.setdefault(call_id, {"name": chunk["toolName"]})
            self.steps[-1]["calls"].setdefault(call_id, known)
        if kind == "tool-input-delta":
            need(call_id in self.inputs, "input for no open call")
            self.inputs[call_id] += chunk["inputTextDelta"]
        elif kind == "tool-input-available":
            if call_id in self.inputs:
                need(json.loads(self.inputs.pop(call_id)) == chunk["input"], "the input differs")
            self.tools[call_id]["input"] = chunk["input"]
        elif kind == "tool-input-error":
            self.tools[call_id]["failed"] = True
        elif kind == "tool-output-available":
            need(call_id in self.tools, "output of no call")
            self.tools[call_id]["output"] = chunk["output"]
        elif kind in ("tool-output-error", "tool-output-denied"):
            need(call_id in self.tools, "output of no call")
            self.tools[call_id]["error"] = True

    def view(self) -> Any:
        found = []
        for step in self.steps:
            texts = {
                kind: "".join(t for k, t in step["parts"].values() if k == kind)
                for kind in ("text", "reasoning")
            }
            calls = {
                k: {n: v for n, v in t.items() if n in ("name", "input", "output", "error")}
                for k, t in step["calls"].items()
                if not t.get("failed")
            }
            if texts["text"] or texts["reasoning"] or step["calls"]:
                found.append((texts["text"], texts["reasoning"], calls))
        return found


class AGUIReader(Reader):
    """The AG-UI verifier and reducer, as far as our events go."""

    def __init__(self, history: list[dict[str, Any]] | None = None) -> None:
        self.messages: dict[str, dict[str, Any]] = {m["id"]: m for m in history or []}
        self.calls: dict[str, dict[str, Any]] = {}
        self.reset_calls: set[str] = set()
        self.state: Any = None
        super().__init__()

    def connect(self) -> None:
        super().connect()
        self.started = False
        self.open: set[tuple[str, str]] = set()

    def keep_connection(self) -> None:
        """A resumable client's cut: only the bytes are new."""
        super().connect()

    def take(self, chunk: dict[str, Any], frame: Frame) -> None:
        kind = chunk["type"]
        no_nulls(chunk)
        if kind == "RUN_STARTED":
            need(not self.started, "a second RUN_STARTED")
            self.started = True
            return
        need(self.started, f"{kind} before RUN_STARTED")
        if kind in ("RUN_FINISHED", "RUN_ERROR"):
            if kind == "RUN_FINISHED":
                need(not self.open, f"RUN_FINISHED while {self.open} are open")
            self.ended = True
            self.end = chunk.get("outcome", {}).get("type", "error")
        elif kind == "MESSAGES_SNAPSHOT":
            known = {m["id"]: m for m in chunk["messages"]}
            reasoning = any(m["role"] == "reasoning" for m in known.values())
            self.messages = {
                k: known.get(k, m)
                for k, m in self.messages.items()
                if k in known or (m["role"] == "reasoning" and not reasoning)
            }
            held = [c for m in known.values() for c in m.get("toolCalls", [])]
            self.calls = {c["id"]: c for c in held}
        elif kind == "TOOL_CALL_RESULT":
            name = chunk["messageId"]
            self.messages[name] = {**chunk, "role": "tool", "id": name}
        elif kind == "STATE_SNAPSHOT":
            self.state = chunk["snapshot"]
        elif kind == "STATE_DELTA":
            self.state = apply(self.state, chunk["delta"])
        elif kind == "CUSTOM":
            if chunk["name"] == "step-reset":
                self.gone = set(chunk["value"]["discard"])
        elif kind != "REASONING_ENCRYPTED_VALUE":
            self.paired(kind, chunk)

    def paired(self, kind: str, chunk: dict[str, Any]) -> None:
        for tail in ("_STARTED", "_START", "_CONTENT", "_ARGS", "_END", "_FINISHED"):
            if kind.endswith(tail):
                break
        group = kind[: -len(tail)]
        name = chunk.get("toolCallId") or chunk.get("messageId") or chunk["stepName"]
        if tail in ("_START", "_STARTED"):
            need((group, name) not in self.open, f"{kind} of an open {name}")
            self.open.add((group, name))
            self.begin(group, name, chunk)
        else:
            need((group, name) in self.open, f"{kind} of {name}, which is not open")
        if tail == "_CONTENT":
            need(chunk["delta"], "an empty delta")
            self.messages[name]["content"] += chunk["delta"]
        elif tail == "_ARGS":
            self.calls[name]["function"]["arguments"] += chunk["delta"]
        elif tail in ("_END", "_FINISHED"):
            self.open.discard((group, name))

    def begin(self, group: str, name: str, chunk: dict[str, Any]) -> None:
        if group in ("TEXT_MESSAGE", "REASONING_MESSAGE"):
            message = self.messages.setdefault(name, {"id": name, "role": chunk["role"]})
            message.setdefault("content", "")
        elif group == "TOOL_CALL" and name not in self.calls:
            parent = chunk["parentMessageId"]
            message = self.messages.setdefault(parent, {"id": parent, "role": "assistant"})
            call = {"id": name, "function": {"name": chunk["toolCallName"], "arguments": ""}}
            message.setdefault("toolCalls", []).append(call)
            self.calls[name] = call

    def view(self) -> Any:
        texts = [m for m in self.messages.values() if m["role"] == "assistant"]
        return (
            "".join(m.get("content", "") for m in texts),
            {
                c["id"]: (c["function"]["name"], c["function"]["arguments"])
                for c in self.calls.values()
            },
            {m["toolCallId"]: m["content"] for m in self.messages.values() if m["role"] == "tool"},
        )


class LineFrames:
    """Lines as frames: ``{"id", "chunk"}`` or a bare chunk; an empty one is nothing."""

    def __init__(self) -> None:
        self.rest = b""

    def feed(self, data: bytes) -> list[Frame]:
        *lines, self.rest = (self.rest + data).split(b"\n")
        told = [json.loads(line) for line in lines if line]
        return [
            Frame(json.dumps(item.get("chunk", item)).encode(), id=item.get("id", ""))
            for item in told
        ]


class LinesReader(AGUIReader):
    """The same events, a line each."""

    def connect(self) -> None:
        super().connect()
        self.decoder = LineFrames()


class ChatReader(Reader):
    """Chat completion chunks, accumulated as OpenAI's helper does."""

    sentinel = "[DONE]"

    def __init__(self) -> None:
        self.fields = {"content": "", "refusal": "", "reasoning_content": ""}
        self.calls: list[dict[str, str]] = []
        super().__init__()

    def frame(self, frame: Frame) -> None:
        if self.ended and self.end != "error" and frame.text != "[DONE]":
            chunk = json.loads(frame.text)
            need(chunk["choices"] == [] and "usage" in chunk, "something after the finish")
            return
        super().frame(frame)

    def take(self, chunk: dict[str, Any], frame: Frame) -> None:
        if "error" in chunk:
            self.ended, self.end = True, "error"
            return
        choice = chunk["choices"][0]
        delta = choice["delta"]
        no_nulls(delta)
        for name in self.fields:
            self.fields[name] += delta.get(name, "")
        for piece in delta.get("tool_calls", []):
            if "id" in piece:
                need(piece["index"] == len(self.calls), "call indexes must grow by one")
                self.calls.append(
                    {"id": piece["id"], "name": piece["function"]["name"], "args": ""}
                )
            self.calls[piece["index"]]["args"] += piece["function"]["arguments"]
        if choice.get("finish_reason"):
            self.ended, self.end = True, choice["finish_reason"]

    def view(self) -> Any:
        return (*self.fields.values(), [tuple(c.values()) for c in self.calls])


class ResponsesReader(Reader):
    """Responses events, with each item checked against its deltas."""

    def __init__(self) -> None:
        self.items: list[dict[str, Any]] = []
        self.texts: dict[str, str] = {}
        self.sequence = -1
        self.response: dict[str, Any] = {}
        super().__init__()

    def take(self, chunk: dict[str, Any], frame: Frame) -> None:
        kind = chunk["type"]
        need(frame.event == kind, "the event line differs from the type")
        need(chunk["sequence_number"] == self.sequence + 1, "a gap in the sequence")
        self.sequence += 1
        if kind == "response.output_item.added":
            need(chunk["output_index"] == len(self.items), "output indexes must grow by one")
            self.items.append(chunk["item"])
            self.texts[chunk["item"]["id"]] = ""
        elif kind.endswith(".delta"):
            need(chunk["item_id"] in self.texts, "a delta of no item")
            self.texts[chunk["item_id"]] += chunk["delta"]
        elif kind == "response.output_item.done":
            self.items[chunk["output_index"]] = chunk["item"]
        elif kind in ("response.completed", "response.incomplete", "response.failed"):
            self.ended, self.end = True, chunk["response"]["status"]
            self.response = chunk["response"]
        elif kind in ("response.output_text.done", "response.function_call_arguments.done"):
            said = chunk.get("text", chunk.get("arguments"))
            need(self.texts[chunk["item_id"]] == said, "the whole differs from its deltas")

    def view(self) -> Any:
        return self.items


class AnthropicReader(Reader):
    """Message events; blocks by index within a connection, appended over connections."""

    def __init__(self) -> None:
        self.blocks: list[dict[str, Any]] = []
        super().__init__()

    def connect(self) -> None:
        super().connect()
        self.started = False
        # Blocks that were open at a cut are opened again first, in frames without an id.
        before = getattr(self, "index", [])
        left = getattr(self, "again", [])
        self.again = [before[n] for n in sorted(getattr(self, "open", ()))] + left
        self.index: list[dict[str, Any]] = []
        self.open: set[int] = set()

    def take(self, chunk: dict[str, Any], frame: Frame) -> None:
        kind = chunk["type"]
        need(frame.event == kind, "the event line differs from the type")
        if kind == "message_start":
            need(not self.started, "a second message_start")
            self.started = True
            return
        need(self.started or kind == "error", f"{kind} before message_start")
        if kind == "content_block_start":
            need(chunk["index"] == len(self.index), "block indexes must grow by one")
            block = {"text": "", **chunk["content_block"]}
            if not frame.id:
                block = self.again.pop(0)
                need(block["type"] == chunk["content_block"]["type"], "another block came back")
            else:
                self.blocks.append(block)
            self.index.append(block)
            self.open.add(chunk["index"])
        elif kind == "content_block_delta":
            need(chunk["index"] in self.open, "a delta of no open block")
            delta = chunk["delta"]
            if delta["type"] != "signature_delta":
                piece = delta.get("text") or delta.get("thinking") or delta.get("partial_json")
                self.index[chunk["index"]]["text"] += piece
        elif kind == "content_block_stop":
            self.open.remove(chunk["index"])
        elif kind == "message_delta":
            self.end = chunk["delta"]["stop_reason"]
        elif kind in ("message_stop", "error"):
            need(kind == "error" or not self.open, "message_stop while blocks are open")
            self.ended = True
            self.end = "error" if kind == "error" else self.end

    def view(self) -> Any:
        by_kind = {"text": "", "thinking": ""}
        calls: dict[str, str] = {}
        for block in self.blocks:
            if block["type"] == "tool_use":
                calls[block["id"]] = calls.get(block["id"], "") + block["text"]
            else:
                by_kind[block["type"]] += block["text"]
        return (by_kind, calls)


def ui_view(fold: Fold) -> Any:
    """What `UIReader.view` must be, from the shared fold."""
    found = []
    for step in fold.steps:
        parts = [fold.parts[p] for p in step.parts]
        parts = [p for p in parts if p.is_answer or p.kind == "tool-call"]
        text = "".join(p.text for p in parts if p.kind in ("text", "refusal"))
        reasoning = "".join(p.text for p in parts if p.kind == "reasoning")
        calls: dict[str, Any] = {}
        told = False
        for part in parts:
            if part.kind != "tool-call":
                continue
            told = True
            if part.status != "complete":
                continue
            call = {"name": part.attrs["name"], "input": part.attrs["arguments"]}
            tool = fold.tools.get(part.attrs["call_id"])
            if tool is not None and tool.done:
                call |= {"error": True} if tool.error else {"output": tool.content}
            calls[part.attrs["call_id"]] = call
        if text or reasoning or told:
            found.append((text, reasoning, calls))
    return found
