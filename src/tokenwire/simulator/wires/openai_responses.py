"""OpenAI Responses, as the provider writes it: streamed with sequence numbers, and whole."""

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

__all__ = ["OpenAIResponses", "response_id"]

_PREFIX = {Reason: "rs_", Say: "msg_", Refuse: "msg_", Call: "fc_"}


def response_id(identity: Identity) -> str:
    """The id of the response with this identity."""
    return identifier("resp_", identity, length=48)


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.input + usage.output,
    }


class OpenAIResponses:
    """``POST /v1/responses``."""

    name = "openai-responses"
    stream_type = "text/event-stream; charset=utf-8"

    def read(self, body: dict[str, Any], path: str, query: Mapping[str, str]) -> Ask:
        """The request in our own words; raises ValueError when it is not one."""
        source = body.get("input")
        if not isinstance(source, str | list) or not source:
            raise ValueError("Missing required parameter: 'input'.")
        items = [{"role": "user", "content": source}] if isinstance(source, str) else source
        turns = [Turn("system", body["instructions"])] if body.get("instructions") else []
        turns += [turn for item in items if (turn := _turn(item)) is not None]
        form = (body.get("text") or {}).get("format") or {}
        choice = body.get("tool_choice", "auto")
        return Ask(
            model=str(body.get("model") or "demo"),
            turns=turns,
            stream=bool(body.get("stream")),
            tools=[
                ToolSpec(tool["name"], tool.get("parameters") or {}, tool.get("description") or "")
                for tool in body.get("tools") or []
                if tool.get("type") == "function"
            ],
            tool_choice=choice if isinstance(choice, str) else choice.get("name", "required"),
            schema=form.get("schema"),
            json_mode=form.get("type") == "json_object",
            max_tokens=body.get("max_output_tokens"),
            wants_reasoning=bool(body.get("reasoning")),
            extra={
                "background": bool(body.get("background")),
                "store": body.get("store") is not False,
                "encrypted": "reasoning.encrypted_content" in (body.get("include") or []),
                "echo": {key: body[key] for key in _ECHOED if key in body},
            },
        )

    def writer(self, ask: Ask, identity: Identity) -> _Writer:
        """A writer of one streamed answer."""
        return _Writer(ask, identity)

    def complete(self, ask: Ask, script: Script, usage: Usage, identity: Identity) -> Any:
        """The whole answer in one object."""
        writer = _Writer(ask, identity)
        for step in script.steps:
            if isinstance(step, Reason | Say | Refuse | Call):
                writer.begin(step)
                writer.piece(step.text)
                writer.end()
        return writer.ended(script.finish, usage)

    def unfinished(
        self, ask: Ask, identity: Identity, status: str, error: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """A background response that is not complete (yet)."""
        return _Writer(ask, identity).response(status, error)

    def error(self, status: int, message: str, code: str) -> Any:
        """An error body."""
        kind = "invalid_request_error" if 400 <= status < 500 else "server_error"
        return {"error": {"message": message, "type": kind, "param": None, "code": code}}


#: Settings of the request that the response repeats, with what they are when not given.
_ECHOED: dict[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "reasoning": {"effort": None, "summary": None},
    "temperature": 1.0,
    "text": {"format": {"type": "text"}, "verbosity": "medium"},
    "tool_choice": "auto",
    "tools": [],
    "top_p": 1.0,
}


def _turn(item: dict[str, Any]) -> Turn | None:
    kind = item.get("type", "message")
    if kind == "function_call":
        return Turn("assistant", calls=[item["name"]])
    if kind == "function_call_output":
        result = ToolResult(str(item.get("call_id")), text_of(item.get("output")))
        return Turn("tool", "", [result])
    if kind != "message":
        return None
    role = str(item.get("role"))
    content = item.get("content")
    role = "system" if role == "developer" else role
    return Turn(role, without_files(text_of(content)), files=files_of(content))


class _Writer:
    whole_calls = False

    def __init__(self, ask: Ask, identity: Identity) -> None:
        self._ask = ask
        self._identity = identity
        self._id = response_id(identity)
        self._sequence = 0
        self._output: list[dict[str, Any]] = []
        self._step: Reason | Say | Refuse | Call = Say("")
        self._item = ""
        self._pieces: list[str] = []
        self._around = (b"", b"", b"")
        self._reason = "stop"
        self._usage = Usage(ask.input_tokens())

    def start(self) -> bytes:
        response = self.response("in_progress")
        return self._frame("response.created", response=response) + self._frame(
            "response.in_progress", response=response
        )

    def begin(self, step: Reason | Say | Refuse | Call) -> bytes:
        self._step, self._pieces = step, []
        self._item = identifier(_PREFIX[type(step)], self._identity, len(self._output), length=48)
        place = {"item_id": self._item, "output_index": len(self._output)}
        opening = self._frame(
            "response.output_item.added",
            output_index=len(self._output),
            item=self._part_item("", done=False),
        )
        if isinstance(step, Call):
            self._template("response.function_call_arguments.delta", place)
        elif isinstance(step, Reason):
            place["summary_index"] = 0
            part = {"type": "summary_text", "text": ""}
            opening += self._frame("response.reasoning_summary_part.added", **place, part=part)
            self._template("response.reasoning_summary_text.delta", place)
        else:
            place["content_index"] = 0
            part = self._content("")
            opening += self._frame("response.content_part.added", **place, part=part)
            if isinstance(step, Refuse):
                self._template("response.refusal.delta", place)
            else:
                self._template("response.output_text.delta", place, logprobs=[])
        return opening

    def piece(self, text: str) -> bytes:
        self._pieces.append(text)
        head, middle, tail = self._around
        number, self._sequence = self._sequence, self._sequence + 1
        return b"%b%d%b%b%b" % (head, number, middle, compact(text), tail)

    def end(self) -> bytes:
        text = "".join(self._pieces)
        place: dict[str, Any] = {"item_id": self._item, "output_index": len(self._output)}
        step = self._step
        if isinstance(step, Call):
            closing = self._frame(
                "response.function_call_arguments.done", **place, name=step.name, arguments=text
            )
        elif isinstance(step, Reason):
            place["summary_index"] = 0
            part = {"type": "summary_text", "text": text}
            closing = self._frame("response.reasoning_summary_text.done", **place, text=text)
            closing += self._frame("response.reasoning_summary_part.done", **place, part=part)
        else:
            place["content_index"] = 0
            if isinstance(step, Refuse):
                closing = self._frame("response.refusal.done", **place, refusal=text)
            else:
                closing = self._frame("response.output_text.done", **place, text=text, logprobs=[])
            closing += self._frame("response.content_part.done", **place, part=self._content(text))
        item = self._part_item(text, done=True)
        index = len(self._output)
        self._output.append(item)
        return closing + self._frame("response.output_item.done", output_index=index, item=item)

    def fail(self, step: Fail) -> bytes:
        error = {"code": step.code, "message": step.message}
        first = self._frame("error", **error, param=None)
        return first + self._frame("response.failed", response=self.response("failed", error))

    def finish(self, reason: str, usage: Usage) -> bytes:
        self._reason, self._usage = reason, usage
        return b""

    def terminal(self) -> bytes:
        response = self.ended(self._reason, self._usage)
        return self._frame(f"response.{response['status']}", response=response)

    def ended(self, reason: str, usage: Usage) -> dict[str, Any]:
        """The response object at its end."""
        self._usage = usage
        if reason not in ("length", "content_filter"):
            return self.response("completed")
        word = "max_output_tokens" if reason == "length" else "content_filter"
        response = self.response("incomplete")
        response["incomplete_details"] = {"reason": word}
        return response

    def response(self, status: str, error: dict[str, Any] | None = None) -> dict[str, Any]:
        """The response object as it is now."""
        over = status not in ("queued", "in_progress")
        extra = self._ask.extra
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._identity.created,
            "status": status,
            "background": bool(extra.get("background")),
            "completed_at": self._identity.created + 1 if status == "completed" else None,
            "error": error,
            "incomplete_details": None,
            "max_tool_calls": None,
            "model": self._ask.model,
            "output": list(self._output),
            "service_tier": "default",
            "store": bool(extra.get("store")),
            "truncation": "disabled",
            "usage": _usage(self._usage) if over else None,
            "user": None,
            **_ECHOED,
            **extra.get("echo", {}),
        }

    def _content(self, text: str) -> dict[str, Any]:
        if isinstance(self._step, Refuse):
            return {"type": "refusal", "refusal": text}
        return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}

    def _part_item(self, text: str, *, done: bool) -> dict[str, Any]:
        step = self._step
        status = "completed" if done else "in_progress"
        if isinstance(step, Call):
            return {
                "id": self._item,
                "type": "function_call",
                "status": status,
                "arguments": text,
                "call_id": step.id,
                "name": step.name,
            }
        if isinstance(step, Reason):
            summary = [{"type": "summary_text", "text": text}] if done else []
            item: dict[str, Any] = {"id": self._item, "type": "reasoning", "summary": summary}
            if self._ask.extra.get("encrypted"):
                sealed = identifier("gAAAA", text, done, length=90).encode()
                item["encrypted_content"] = base64.b64encode(sealed).decode()
            return item
        return {
            "id": self._item,
            "type": "message",
            "status": status,
            "content": [self._content(text)] if done else [],
            "role": "assistant",
        }

    def _frame(self, kind: str, **fields: Any) -> bytes:
        number, self._sequence = self._sequence, self._sequence + 1
        body = {"type": kind, **fields, "sequence_number": number}
        return b"event: " + kind.encode() + b"\ndata: " + compact(body) + b"\n\n"

    def _template(self, kind: str, place: dict[str, Any], **more: Any) -> None:
        body = compact({"type": kind, "sequence_number": "\1", **place, "delta": "\0", **more})
        head, _, rest = body.partition(b'"\\u0001"')
        middle, _, tail = rest.partition(b'"\\u0000"')
        self._around = (b"event: " + kind.encode() + b"\ndata: " + head, middle, tail + b"\n\n")
