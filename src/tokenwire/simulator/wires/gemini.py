"""Gemini's generateContent and streamGenerateContent (SSE and JSON array)."""

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
)

__all__ = ["Gemini"]

_FINISH = {"length": "MAX_TOKENS", "content_filter": "SAFETY", "refusal": "STOP"}
_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
}
_CHOICES = {"AUTO": "auto", "NONE": "none", "ANY": "required", "VALIDATED": "auto"}


def _signature(text: str) -> str:
    return base64.b64encode(identifier("", text, length=60).encode()).decode()


def _usage(usage: Usage) -> dict[str, Any]:
    visible = usage.output - usage.reasoning
    counts: dict[str, Any] = {"promptTokenCount": usage.input}
    if visible:
        counts["candidatesTokenCount"] = visible
    counts["totalTokenCount"] = usage.input + usage.output
    counts["promptTokensDetails"] = [{"modality": "TEXT", "tokenCount": usage.input}]
    if usage.reasoning:
        counts["thoughtsTokenCount"] = usage.reasoning
    return counts


class Gemini:
    """``POST /v1beta/models/MODEL:streamGenerateContent`` and ``:generateContent``."""

    name = "gemini"
    stream_type = "text/event-stream"

    def read(self, body: dict[str, Any], path: str, query: Mapping[str, str]) -> Ask:
        """The request in our own words; raises ValueError when it is not one."""
        contents = body.get("contents")
        if not isinstance(contents, list) or not contents:
            raise ValueError("contents is not specified")
        model, _, method = path.rpartition("/")[2].partition(":")
        config = body.get("generationConfig") or {}
        system = body.get("systemInstruction") or {}
        turns = [_turn({"role": "system", **system})] if system else []
        turns += [_turn(content) for content in contents]
        calling = (body.get("toolConfig") or {}).get("functionCallingConfig") or {}
        names = calling.get("allowedFunctionNames") or []
        choice = names[0] if names else _CHOICES.get(calling.get("mode", "AUTO"), "auto")
        return Ask(
            model=model,
            turns=turns,
            stream=method == "streamGenerateContent",
            tools=[_tool(one) for tool in body.get("tools") or [] for one in _declared(tool)],
            tool_choice=choice,
            schema=config.get("responseJsonSchema") or config.get("responseSchema"),
            json_mode=config.get("responseMimeType") == "application/json",
            max_tokens=config.get("maxOutputTokens"),
            stop=list(config.get("stopSequences") or []),
            seed=config.get("seed"),
            wants_reasoning=bool((config.get("thinkingConfig") or {}).get("includeThoughts")),
            extra={"array": query.get("alt") != "sse"},
        )

    def writer(self, ask: Ask, identity: Identity) -> _Writer:
        """A writer of one streamed answer."""
        return _Writer(ask, identity)

    def complete(self, ask: Ask, script: Script, usage: Usage, identity: Identity) -> Any:
        """The whole answer in one object."""
        parts: list[dict[str, Any]] = []
        for step in script.steps:
            if isinstance(step, Reason):
                parts.append({"text": step.text, "thought": True})
            elif isinstance(step, Say | Refuse):
                parts.append({"text": step.text})
            elif isinstance(step, Call):
                parts.append(_call_part(step, first=not any("functionCall" in p for p in parts)))
        candidate: dict[str, Any] = {
            "content": {"parts": parts, "role": "model"},
            "finishReason": _FINISH.get(script.finish, "STOP"),
            "index": 0,
        }
        return {
            "candidates": [candidate],
            "usageMetadata": _usage(usage),
            "modelVersion": ask.model,
            "responseId": identifier("", identity, length=22),
        }

    def error(self, status: int, message: str, code: str) -> Any:
        """An error body, also used inside a stream."""
        word = _STATUS.get(status, "INTERNAL")
        return {"error": {"code": status, "message": message, "status": word}}


def _declared(tool: dict[str, Any]) -> list[dict[str, Any]]:
    return tool.get("functionDeclarations") or tool.get("function_declarations") or []


def _tool(declared: dict[str, Any]) -> ToolSpec:
    schema = declared.get("parametersJsonSchema") or declared.get("parameters") or {}
    return ToolSpec(declared["name"], schema, declared.get("description") or "")


def _turn(content: dict[str, Any]) -> Turn:
    parts = [part for part in content.get("parts") or [] if isinstance(part, dict)]
    text = "".join(part.get("text") or "" for part in parts if not part.get("thought"))
    answers = [part["functionResponse"] for part in parts if "functionResponse" in part]
    results = [
        ToolResult(str(answer.get("id") or ""), _told(answer.get("response")), answer["name"])
        for answer in answers
    ]
    calls = [part["functionCall"]["name"] for part in parts if "functionCall" in part]
    role = content.get("role") or "user"
    role = "assistant" if role == "model" else role
    return Turn(role, without_files(text), results, calls, files_of(parts))


def _told(response: Any) -> str:
    if isinstance(response, dict) and len(response) == 1:
        (value,) = response.values()
        if isinstance(value, str):
            return value
    return compact(response).decode()


def _call_part(call: Call, *, first: bool) -> dict[str, Any]:
    part: dict[str, Any] = {"functionCall": {"name": call.name, "args": call.arguments}}
    if first:  # the provider signs the first of parallel calls only
        part["thoughtSignature"] = _signature(call.name)
    return part


class _Writer:
    whole_calls = True

    def __init__(self, ask: Ask, identity: Identity) -> None:
        self._ask = ask
        self._usage = Usage(ask.input_tokens())
        self._tail = {
            "modelVersion": ask.model,
            "responseId": identifier("", identity, length=22),
        }
        self._array = bool(ask.extra.get("array"))
        self._first = True
        self._step: Reason | Say | Refuse | Call | None = None
        self._signed = False
        self._reasoned = ""
        self._reason = "stop"

    def start(self) -> bytes:
        return b""

    def begin(self, step: Reason | Say | Refuse | Call) -> bytes:
        self._step = step
        return b""

    def piece(self, text: str) -> bytes:
        step = self._step
        self._usage.output += 1
        if isinstance(step, Call):
            first, self._signed = not self._signed, True
            return self._frame([_call_part(step, first=first)])
        if isinstance(step, Reason):
            self._usage.reasoning += 1
            self._reasoned = step.text
            return self._frame([{"text": text, "thought": True}])
        return self._frame([{"text": text}])

    def end(self) -> bytes:
        return b""

    def fail(self, step: Fail) -> bytes:
        return self._wrap(Gemini().error(503, step.message, step.code)) + self._close()

    def finish(self, reason: str, usage: Usage) -> bytes:
        self._reason, self._usage = reason, usage
        return b""

    def terminal(self) -> bytes:
        part: dict[str, Any] = {"text": ""}
        if self._reasoned and not self._signed:
            part["thoughtSignature"] = _signature(self._reasoned)
        return self._frame([part], _FINISH.get(self._reason, "STOP")) + self._close()

    def _close(self) -> bytes:
        return b"\r\n]" if self._array else b""

    def _frame(self, parts: list[dict[str, Any]], finish: str | None = None) -> bytes:
        candidate: dict[str, Any] = {"content": {"parts": parts, "role": "model"}}
        if finish is not None:
            candidate["finishReason"] = finish
        candidate["index"] = 0
        body = {"candidates": [candidate], "usageMetadata": _usage(self._usage), **self._tail}
        return self._wrap(body)

    def _wrap(self, body: Any) -> bytes:
        if not self._array:
            return b"data: " + compact(body) + b"\r\n\r\n"
        before = b"[" if self._first else b",\r\n"
        self._first = False
        return before + compact(body)
