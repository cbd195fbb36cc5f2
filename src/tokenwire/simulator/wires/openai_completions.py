"""OpenAI's legacy completions: a prompt in, text out, no messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokenwire.simulator.play import Identity, Usage
from tokenwire.simulator.script import (
    Ask,
    Call,
    Fail,
    Reason,
    Refuse,
    Say,
    Script,
    Turn,
    compact,
    identifier,
)
from tokenwire.simulator.wires.openai_chat import OpenAIChat, usage_body

__all__ = ["OpenAICompletions"]


class OpenAICompletions:
    """``POST /v1/completions``."""

    name = "openai-completions"
    stream_type = "text/event-stream"

    def read(self, body: dict[str, Any], path: str, query: Mapping[str, str]) -> Ask:
        """The request in our own words; raises ValueError when it is not one."""
        prompt = body.get("prompt")
        if isinstance(prompt, list):
            prompt = "".join(str(part) for part in prompt)
        if not isinstance(prompt, str):
            raise ValueError("'prompt' must be a string")
        stop = body.get("stop") or []
        return Ask(
            model=str(body.get("model") or "demo"),
            turns=[Turn("user", prompt)],
            stream=bool(body.get("stream")),
            tool_choice="none",
            max_tokens=body.get("max_tokens"),
            stop=[stop] if isinstance(stop, str) else list(stop),
            seed=body.get("seed"),
            include_usage=bool((body.get("stream_options") or {}).get("include_usage")),
        )

    def writer(self, ask: Ask, identity: Identity) -> _Writer:
        """A writer of one streamed answer."""
        return _Writer(ask, identity)

    def complete(self, ask: Ask, script: Script, usage: Usage, identity: Identity) -> Any:
        """The whole answer in one object."""
        text = "".join(step.text for step in script.steps if isinstance(step, Say | Refuse))
        writer = _Writer(ask, identity)
        return {**writer.body(text, _finish(script.finish)), "usage": usage_body(usage)}

    def error(self, status: int, message: str, code: str) -> Any:
        """An error body, also used inside a stream."""
        return OpenAIChat().error(status, message, code)


def _finish(reason: str) -> str:
    return reason if reason in ("length", "content_filter") else "stop"


class _Writer:
    whole_calls = True

    def __init__(self, ask: Ask, identity: Identity) -> None:
        self._ask = ask
        self._base = {
            "id": identifier("cmpl-", identity),
            "object": "text_completion",
            "created": identity.created,
        }
        self._silent = False
        before, after = self._frame("\0").split(b'"\\u0000"')
        self._around = (before, after)

    def body(self, text: str, finish: str | None) -> dict[str, Any]:
        """One object of this wire."""
        choice = {"text": text, "index": 0, "logprobs": None, "finish_reason": finish}
        return {**self._base, "choices": [choice], "model": self._ask.model}

    def start(self) -> bytes:
        return b""

    def begin(self, step: Reason | Say | Refuse | Call) -> bytes:
        self._silent = isinstance(step, Reason | Call)  # this wire has no word for them
        return b""

    def piece(self, text: str) -> bytes:
        if self._silent:
            return b""
        before, after = self._around
        return before + compact(text) + after

    def end(self) -> bytes:
        return b""

    def fail(self, step: Fail) -> bytes:
        return b"data: " + compact(OpenAIChat().error(500, step.message, step.code)) + b"\n\n"

    def finish(self, reason: str, usage: Usage) -> bytes:
        frames = self._frame("", _finish(reason))
        if self._ask.include_usage:
            body = {**self.body("", None), "choices": [], "usage": usage_body(usage)}
            frames += b"data: " + compact(body) + b"\n\n"
        return frames

    def terminal(self) -> bytes:
        return b"data: [DONE]\n\n"

    def _frame(self, text: str, finish: str | None = None) -> bytes:
        return b"data: " + compact(self.body(text, finish)) + b"\n\n"
