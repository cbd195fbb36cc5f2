"""Ollama's own interface: ``/api/chat`` and ``/api/generate``, one JSON object a line."""

from __future__ import annotations

import time
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
)

__all__ = ["Ollama"]

_NANO = 1_000_000_000


def _at(created: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(created)) + ".123456789Z"


class Ollama:
    """``POST /api/chat`` and, with ``generate``, ``POST /api/generate``."""

    stream_type = "application/x-ndjson"

    def __init__(self, *, generate: bool = False) -> None:
        self.name = "ollama-generate" if generate else "ollama"
        self._generate = generate

    def read(self, body: dict[str, Any], path: str, query: Mapping[str, str]) -> Ask:
        """The request in our own words; raises ValueError when it is not one."""
        if self._generate:
            turns = [Turn("system", str(body["system"]))] if body.get("system") else []
            turns.append(Turn("user", str(body.get("prompt") or "")))
        else:
            messages = body.get("messages")
            if not isinstance(messages, list) or not messages:
                raise ValueError("messages is required")
            turns = [_turn(message) for message in messages]
        options = body.get("options") or {}
        form = body.get("format")
        predict = options.get("num_predict")
        tools = [tool["function"] for tool in body.get("tools") or []]
        return Ask(
            model=str(body.get("model") or "demo"),
            turns=turns,
            stream=body.get("stream", True) is not False,
            tools=[ToolSpec(tool["name"], tool.get("parameters") or {}) for tool in tools],
            schema=form if isinstance(form, dict) else None,
            json_mode=form == "json",
            max_tokens=predict if isinstance(predict, int) and predict > 0 else None,
            stop=list(options.get("stop") or []),
            seed=options.get("seed"),
            wants_reasoning=bool(body.get("think")),
        )

    def writer(self, ask: Ask, identity: Identity) -> _Writer:
        """A writer of one streamed answer."""
        return _Writer(ask, identity, self._generate)

    def complete(self, ask: Ask, script: Script, usage: Usage, identity: Identity) -> Any:
        """The whole answer in one object."""
        message: dict[str, Any] = {"role": "assistant", "content": ""}
        for step in script.steps:
            if isinstance(step, Reason):
                message["thinking"] = message.get("thinking", "") + step.text
            elif isinstance(step, Say | Refuse):
                message["content"] += step.text
            elif isinstance(step, Call):
                message.setdefault("tool_calls", []).append(_call(step))
        base = {"model": ask.model, "created_at": _at(identity.created)}
        last = _done(script.finish, usage)
        if not self._generate:
            return {**base, "message": message, **last}
        reply = {"response": message["content"]}
        if "thinking" in message:
            reply["thinking"] = message["thinking"]
        return {**base, **reply, **last}

    def error(self, status: int, message: str, code: str) -> Any:
        """An error body, also used inside a stream."""
        return {"error": message}


def _turn(message: dict[str, Any]) -> Turn:
    role, text = str(message.get("role")), str(message.get("content") or "")
    if role == "tool":
        return Turn("tool", "", [ToolResult("", text, str(message.get("tool_name") or ""))])
    calls = [call["function"]["name"] for call in message.get("tool_calls") or []]
    files = files_of(text, message.get("images"))
    return Turn(role, without_files(text), calls=calls, files=files)


def _call(call: Call) -> dict[str, Any]:
    return {"function": {"name": call.name, "arguments": call.arguments}}


def _done(reason: str, usage: Usage) -> dict[str, Any]:
    return {
        "done_reason": "length" if reason == "length" else "stop",
        "done": True,
        "total_duration": 2 * _NANO,
        "load_duration": _NANO // 100,
        "prompt_eval_count": usage.input,
        "prompt_eval_duration": _NANO // 10,
        "eval_count": usage.output,
        "eval_duration": _NANO,
    }


class _Writer:
    whole_calls = True

    def __init__(self, ask: Ask, identity: Identity, generate: bool) -> None:
        self._base = {"model": ask.model, "created_at": _at(identity.created)}
        self._generate = generate
        self._step: Reason | Say | Refuse | Call | None = None
        self._around = (b"", b"")
        self._last: dict[str, Any] = {}

    def start(self) -> bytes:
        return b""

    def begin(self, step: Reason | Say | Refuse | Call) -> bytes:
        self._step = step
        if not isinstance(step, Call):
            word = "thinking" if isinstance(step, Reason) else "content"
            before, after = self._line({word: "\0"}).split(b'"\\u0000"')
            self._around = (before, after)
        return b""

    def piece(self, text: str) -> bytes:
        if isinstance(self._step, Call):
            return self._line({"tool_calls": [_call(self._step)]})
        before, after = self._around
        return before + compact(text) + after

    def end(self) -> bytes:
        return b""

    def fail(self, step: Fail) -> bytes:
        return compact({"error": step.message}) + b"\n"

    def finish(self, reason: str, usage: Usage) -> bytes:
        self._last = _done(reason, usage)
        return b""

    def terminal(self) -> bytes:
        return self._line({}, self._last)

    def _line(self, fields: dict[str, Any], last: dict[str, Any] | None = None) -> bytes:
        if self._generate:
            answer = {"response": fields.get("content", "")}
            answer.update({key: value for key, value in fields.items() if key != "content"})
        else:
            answer = {"message": {"role": "assistant", "content": "", **fields}}
        return compact({**self._base, **answer, **(last or {"done": False})}) + b"\n"
