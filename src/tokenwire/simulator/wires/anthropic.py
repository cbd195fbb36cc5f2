"""Anthropic Messages, as the provider writes it: streamed and whole."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from tokenwire.simulator.files import files_of, without_files
from tokenwire.simulator.play import Identity, Usage
from tokenwire.simulator.script import (
    Ask,
    Call,
    Fail,
    Reason,
    Refuse,
    Say,
    Script,
    ToolResult,
    ToolSpec,
    Turn,
    compact,
    identifier,
    text_of,
)

__all__ = ["Anthropic"]

_STOP = {
    "tool_calls": "tool_use",
    "length": "max_tokens",
    "content_filter": "refusal",
    "refusal": "refusal",
}
_ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}


def _frame(kind: str, body: dict[str, Any]) -> bytes:
    return b"event: " + kind.encode() + b"\ndata: " + compact({"type": kind, **body}) + b"\n\n"


def _signature(text: str) -> str:
    """Opaque bytes in base64 that belong to this reasoning and to no other."""
    raw = identifier("", text, length=96).encode()
    return base64.b64encode(raw).decode()


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": usage.output,
    }


class Anthropic:
    """``POST /v1/messages``."""

    name = "anthropic"
    stream_type = "text/event-stream; charset=utf-8"

    def read(self, body: dict[str, Any], path: str, query: Mapping[str, str]) -> Ask:
        """The request in our own words; raises ValueError when it is not one."""
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages:
            raise ValueError("messages: at least one message is required")
        if not isinstance(body.get("max_tokens"), int):
            raise ValueError("max_tokens: Field required")
        turns = [Turn("system", text_of(body["system"]))] if body.get("system") else []
        turns += [_turn(message) for message in messages]
        choice = body.get("tool_choice") or {"type": "auto"}
        form = (body.get("output_config") or {}).get("format") or body.get("output_format") or {}
        return Ask(
            model=str(body.get("model") or "demo"),
            turns=turns,
            stream=bool(body.get("stream")),
            tools=[
                ToolSpec(
                    tool["name"], tool.get("input_schema") or {}, tool.get("description") or ""
                )
                for tool in body.get("tools") or []
            ],
            tool_choice=choice.get("name") or choice.get("type") or "auto",
            schema=form.get("schema"),
            max_tokens=body["max_tokens"],
            stop=list(body.get("stop_sequences") or []),
            wants_reasoning=(body.get("thinking") or {}).get("type") in ("enabled", "adaptive"),
        )

    def writer(self, ask: Ask, identity: Identity) -> _Writer:
        """A writer of one streamed answer."""
        return _Writer(ask, identity)

    def complete(self, ask: Ask, script: Script, usage: Usage, identity: Identity) -> Any:
        """The whole answer in one object."""
        content = [_block(step) for step in script.steps]
        return {
            **_message(ask, identity),
            "content": [block for block in content if block],
            "stop_reason": _STOP.get(script.finish, "end_turn"),
            "stop_sequence": None,
            "usage": _usage(usage),
        }

    def error(self, status: int, message: str, code: str) -> Any:
        """An error body, also used inside a stream."""
        kind = "overloaded_error" if code == "overloaded" else _ERRORS.get(status, "api_error")
        return {"type": "error", "error": {"type": kind, "message": message}, "request_id": None}


def _turn(message: dict[str, Any]) -> Turn:
    content = message.get("content")
    blocks = content if isinstance(content, list) else []
    results = [
        ToolResult(
            str(block.get("tool_use_id")),
            text_of(block.get("content")),
            is_error=bool(block.get("is_error")),
        )
        for block in blocks
        if block.get("type") == "tool_result"
    ]
    calls = [block["name"] for block in blocks if block.get("type") == "tool_use"]
    visible = (
        content if isinstance(content, str) else [b for b in blocks if b.get("type") == "text"]
    )
    words = without_files(text_of(visible))
    return Turn(str(message.get("role")), words, results, calls, files_of(content))


def _message(ask: Ask, identity: Identity) -> dict[str, Any]:
    return {
        "model": ask.model,
        "id": identifier("msg_01", identity, length=22),
        "type": "message",
        "role": "assistant",
    }


def _call_id(call: Call) -> str:
    return "toolu_01" + call.id.removeprefix("call_")


def _block(step: Any) -> dict[str, Any] | None:
    if isinstance(step, Reason):
        return {"type": "thinking", "thinking": step.text, "signature": _signature(step.text)}
    if isinstance(step, Call):
        return {
            "type": "tool_use",
            "id": _call_id(step),
            "name": step.name,
            "input": step.arguments,
        }
    if isinstance(step, Say | Refuse):
        return {"type": "text", "text": step.text}
    return None


class _Writer:
    whole_calls = False

    def __init__(self, ask: Ask, identity: Identity) -> None:
        self._ask = ask
        self._identity = identity
        self._index = -1
        self._step: Reason | Say | Refuse | Call | None = None
        self._around = (b"", b"")

    def start(self) -> bytes:
        usage = {**_usage(Usage(self._ask.input_tokens(), 1)), "service_tier": "standard"}
        message = {
            **_message(self._ask, self._identity),
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage,
        }
        return _frame("message_start", {"message": message})

    def begin(self, step: Reason | Say | Refuse | Call) -> bytes:
        self._index += 1
        self._step = step
        if isinstance(step, Reason):
            block: dict[str, Any] = {"type": "thinking", "thinking": "", "signature": ""}
            delta = {"type": "thinking_delta", "thinking": "\0"}
        elif isinstance(step, Call):
            block = {"type": "tool_use", "id": _call_id(step), "name": step.name, "input": {}}
            delta = {"type": "input_json_delta", "partial_json": "\0"}
        else:
            block = {"type": "text", "text": ""}
            delta = {"type": "text_delta", "text": "\0"}
        template = _frame("content_block_delta", {"index": self._index, "delta": delta})
        before, after = template.split(b'"\\u0000"')
        self._around = (before, after)
        opening = _frame("content_block_start", {"index": self._index, "content_block": block})
        if self._index == 0:
            opening += b'event: ping\ndata: {"type": "ping"}\n\n'
        return opening

    def piece(self, text: str) -> bytes:
        before, after = self._around
        return before + compact(text) + after

    def end(self) -> bytes:
        closing = b""
        if isinstance(self._step, Reason):
            delta = {"type": "signature_delta", "signature": _signature(self._step.text)}
            closing = _frame("content_block_delta", {"index": self._index, "delta": delta})
        return closing + _frame("content_block_stop", {"index": self._index})

    def fail(self, step: Fail) -> bytes:
        error = {"type": "overloaded_error", "message": step.message}
        return _frame("error", {"error": error, "request_id": "req_simulated"})

    def finish(self, reason: str, usage: Usage) -> bytes:
        delta = {"stop_reason": _STOP.get(reason, "end_turn"), "stop_sequence": None}
        return _frame("message_delta", {"delta": delta, "usage": _usage(usage)})

    def terminal(self) -> bytes:
        return _frame("message_stop", {})
