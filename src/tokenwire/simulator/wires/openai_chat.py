"""OpenAI Chat Completions, as the provider writes it: streamed and whole.

Written from the provider's published description of the wire; shares nothing with the decoders
that it is used to test.
"""

from __future__ import annotations

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

__all__ = ["OpenAIChat"]

_FINISH = {"tool_calls": "tool_calls", "length": "length", "content_filter": "content_filter"}


def usage_body(usage: Usage) -> dict[str, Any]:
    """Token counts in the words of this wire."""
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


class OpenAIChat:
    """``POST /v1/chat/completions``."""

    name = "openai-chat"
    stream_type = "text/event-stream; charset=utf-8"

    def read(self, body: dict[str, Any], path: str, query: Mapping[str, str]) -> Ask:
        """The request in our own words; raises ValueError when it is not one."""
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages:
            raise ValueError("'messages' must be a list with at least one message")
        form = body.get("response_format") or {}
        options = body.get("stream_options") or {}
        stop = body.get("stop") or []
        choice = body.get("tool_choice", "auto")
        return Ask(
            model=str(body.get("model") or "demo"),
            turns=[_turn(message) for message in messages if isinstance(message, dict)],
            stream=bool(body.get("stream")),
            tools=[_tool(tool) for tool in body.get("tools") or []],
            tool_choice=choice if isinstance(choice, str) else choice["function"]["name"],
            schema=(form.get("json_schema") or {}).get("schema"),
            json_mode=form.get("type") == "json_object",
            max_tokens=body.get("max_completion_tokens") or body.get("max_tokens"),
            stop=[stop] if isinstance(stop, str) else list(stop),
            seed=body.get("seed"),
            include_usage=bool(options.get("include_usage")),
            wants_reasoning=body.get("reasoning_effort") not in (None, "none"),
        )

    def writer(self, ask: Ask, identity: Identity) -> _Writer:
        """A writer of one streamed answer."""
        return _Writer(ask, identity)

    def complete(self, ask: Ask, script: Script, usage: Usage, identity: Identity) -> Any:
        """The whole answer in one object."""
        message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None}
        text = "".join(step.text for step in script.steps if isinstance(step, Say))
        message["content"] = text or None
        if reasoning := "".join(s.text for s in script.steps if isinstance(s, Reason)):
            message["reasoning_content"] = reasoning
        if refusal := "".join(s.text for s in script.steps if isinstance(s, Refuse)):
            message["refusal"] = refusal
        calls = [step for step in script.steps if isinstance(step, Call)]
        if calls:
            message["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.text},
                }
                for call in calls
            ]
        elif text == "" and not refusal:
            message["content"] = ""
        return {
            "id": identifier("chatcmpl-", identity),
            "object": "chat.completion",
            "created": identity.created,
            "model": ask.model,
            "choices": [
                {
                    "index": 0,
                    "message": message,
                    "logprobs": None,
                    "finish_reason": _FINISH.get(script.finish, "stop"),
                }
            ],
            "usage": usage_body(usage),
            "service_tier": "default",
            "system_fingerprint": "fp_simulated",
        }

    def error(self, status: int, message: str, code: str) -> Any:
        """An error body, also used inside a stream."""
        kind = "invalid_request_error" if 400 <= status < 500 else "server_error"
        return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def _turn(message: dict[str, Any]) -> Turn:
    role = str(message.get("role"))
    text = text_of(message.get("content"))
    if role == "tool":
        result = ToolResult(str(message.get("tool_call_id")), text, str(message.get("name") or ""))
        return Turn("tool", "", [result])
    calls = [call["function"]["name"] for call in message.get("tool_calls") or []]
    files = files_of(message.get("content"))
    role = "system" if role == "developer" else role
    return Turn(role, without_files(text), calls=calls, files=files)


def _tool(tool: dict[str, Any]) -> ToolSpec:
    function = tool.get("function") or {}
    return ToolSpec(
        str(function.get("name")),
        function.get("parameters") or {},
        function.get("description") or "",
    )


class _Writer:
    whole_calls = False

    def __init__(self, ask: Ask, identity: Identity) -> None:
        self._ask = ask
        self._base: dict[str, Any] = {
            "id": identifier("chatcmpl-", identity),
            "object": "chat.completion.chunk",
            "created": identity.created,
            "model": ask.model,
            "service_tier": "default",
            "system_fingerprint": "fp_simulated",
        }
        self._calls = 0
        self._call_ids: list[str] = []
        self._text = self._template({"content": "\0"})
        self._around = self._text

    def start(self) -> bytes:
        return self._frame({"role": "assistant", "content": "", "refusal": None})

    def begin(self, step: Reason | Say | Refuse | Call) -> bytes:
        if isinstance(step, Call):
            index, self._calls = self._calls, self._calls + 1
            self._around = self._template(
                {"tool_calls": [{"index": index, "function": {"arguments": "\0"}}]}
            )
            function = {"name": step.name, "arguments": ""}
            call = {"index": index, "id": step.id, "type": "function", "function": function}
            return self._frame({"tool_calls": [call]})
        if isinstance(step, Reason):
            self._around = self._template({"reasoning_content": "\0"})
        elif isinstance(step, Refuse):
            self._around = self._template({"refusal": "\0"})
        else:
            self._around = self._text
        return b""

    def piece(self, text: str) -> bytes:
        before, after = self._around
        return before + compact(text) + after

    def end(self) -> bytes:
        return b""

    def fail(self, step: Fail) -> bytes:
        error = OpenAIChat().error(500, step.message, step.code)
        return b"data: " + compact(error) + b"\n\n"

    def finish(self, reason: str, usage: Usage) -> bytes:
        frames = self._frame({}, _FINISH.get(reason, "stop"))
        if self._ask.include_usage:
            body = {**self._base, "choices": [], "usage": usage_body(usage)}
            frames += b"data: " + compact(body) + b"\n\n"
        return frames

    def terminal(self) -> bytes:
        return b"data: [DONE]\n\n"

    def _frame(self, delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        body = {**self._base, "choices": [choice]}
        if self._ask.include_usage:
            body["usage"] = None
        return b"data: " + compact(body) + b"\n\n"

    def _template(self, delta: dict[str, Any]) -> tuple[bytes, bytes]:
        before, after = self._frame(delta).split(b'"\\u0000"')
        return before, after
