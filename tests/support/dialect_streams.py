"""Streams of every dialect whose deltas take the lane: blocks as their servers send them.

Each stream is a head, deltas of one kind and an end, or several of these; `STREAMS` names the
decoder and how many of its blocks are expected on the lane.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from tokenwire.providers.anthropic.decoder import DIALECT as ANTHROPIC
from tokenwire.providers.cohere import DIALECT as COHERE
from tokenwire.providers.google.gemini import DIALECT as GEMINI
from tokenwire.providers.google.interactions import DIALECT as INTERACTIONS
from tokenwire.providers.ollama import DIALECT as OLLAMA
from tokenwire.providers.openai.chat import DIALECT as CHAT
from tokenwire.providers.openai.completions import DIALECT as COMPLETIONS
from tokenwire.providers.openai.responses import DIALECT as RESPONSES

WORDS = ["The", " lane", ' "is"', " the same", "\n\n", "é中𝄞", " \\ ", "/", "\t", ".", "0", "x"]
PIECES = ['{"', "a", '":', ' "', "one", " two %d", " {", " }", '\\"', "é", '"', "}"]

Words = list[str]


class Stream(NamedTuple):
    """A decoder's wire; ``blocks`` makes a stream that says ``words``."""

    dialect: Any
    blocks: Callable[[Words], list[bytes]]
    #: How many of twelve words, at least, go past the decoder.
    least: int
    words: Words = WORDS
    content_type: str = "text/event-stream"


def dumps(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def sse(value: Any, event: str = "", end: str = "\n") -> bytes:
    name = f"event: {event}{end}" if event else ""
    return f"{name}data: {dumps(value)}{end}{end}".encode("utf-8", "surrogatepass")


def line(value: Any) -> bytes:
    return f"{dumps(value)}\n".encode("utf-8", "surrogatepass")


# --- Anthropic ------------------------------------------------------------------------------------


def messages(kind: str, blanks: bool = False) -> Callable[[Words], list[bytes]]:
    """Text, thinking or arguments; ``blanks``: as many before the last brace as it pleases."""
    block = {"text": "text", "thinking": "thinking", "tool_use": "input_json"}[kind]
    field = {"text": "text", "thinking": "thinking", "tool_use": "partial_json"}[kind]

    def blocks(words: Words) -> Iterator[bytes]:
        yield sse({"type": "message_start", "message": {"id": "m", "model": "x"}}, "message_start")
        content = {"type": kind, **({"id": "c", "name": "f"} if kind == "tool_use" else {})}
        start = {"type": "content_block_start", "index": 0, "content_block": content}
        yield sse(start, start["type"])
        for number, word in enumerate(words):
            value = {
                "type": "content_block_delta",
                "index": 0,
                "delta": {"type": f"{block}_delta", field: word},
            }
            data = sse(value, "content_block_delta")
            pad = b" " * (number % 5) if blanks else b""
            yield data.removesuffix(b"}\n\n") + pad + b"}\n\n"
        yield sse({"type": "content_block_stop", "index": 0}, "content_block_stop")
        reason = "tool_use" if kind == "tool_use" else "end_turn"
        yield sse({"type": "message_delta", "delta": {"stop_reason": reason}}, "message_delta")
        yield sse({"type": "message_stop"}, "message_stop")

    return lambda words: list(blocks(words))


# --- Responses ------------------------------------------------------------------------------------


def responses(kind: str) -> Callable[[Words], list[bytes]]:
    """``kind``: the middle of the names of its events."""
    items: dict[str, dict[str, Any]] = {
        "function_call_arguments": {"type": "function_call", "call_id": "c", "name": "f"},
        "custom_tool_call_input": {"type": "custom_tool_call", "call_id": "c", "name": "f"},
        "mcp_call_arguments": {"type": "mcp_call", "name": "f"},
        "code_interpreter_call_code": {"type": "code_interpreter_call"},
        "reasoning_summary_text": {"type": "reasoning", "summary": []},
        "reasoning_text": {"type": "reasoning", "content": []},
        "refusal": {"type": "message", "role": "assistant", "content": []},
        "output_text": {"type": "message", "role": "assistant", "content": []},
    }

    def blocks(words: Words) -> Iterator[bytes]:
        count = itertools.count()

        def event(name: str, **fields: Any) -> bytes:
            value = {"type": name, **fields, "sequence_number": next(count)}
            return sse(value, name)

        item = {"id": "i_1", **items[kind]}
        place: dict[str, Any] = {"item_id": "i_1", "output_index": 0}
        if kind == "reasoning_summary_text":
            place["summary_index"] = 0
        elif kind in ("reasoning_text", "refusal", "output_text"):
            place["content_index"] = 0
        yield event("response.created", response={"id": "resp_1", "model": "x"})
        yield event("response.output_item.added", output_index=0, item=item)
        for word in words:
            pad = {"obfuscation": "p" * (len(word) % 5)} if kind != "refusal" else {}
            yield event(f"response.{kind}.delta", **place, delta=word, **pad)
        yield event("response.output_item.done", output_index=0, item=item)
        done = {"id": "resp_1", "status": "completed", "output": [item]}
        yield event("response.completed", response=done)

    return lambda words: list(blocks(words))


# --- Google ---------------------------------------------------------------------------------------


def gemini(thought: bool = False, spaced: bool = True) -> Callable[[Words], list[bytes]]:
    """Counts that grow beside the text; line ends as Google writes them."""

    def blocks(words: Words) -> Iterator[bytes]:
        for number, word in enumerate([*words, "!"], 1):
            part: dict[str, Any] = {"text": word, **({"thought": True} if thought else {})}
            candidate: dict[str, Any] = {"content": {"parts": [part], "role": "model"}, "index": 0}
            if number > len(words):
                candidate["finishReason"] = "STOP"
            usage = {"promptTokenCount": 7, "candidatesTokenCount": number}
            usage |= {"totalTokenCount": 7 + number}
            value = {"candidates": [candidate], "usageMetadata": usage}
            value |= {"modelVersion": "gemini-x", "responseId": "r"}
            text = json.dumps(value, ensure_ascii=False) if spaced else dumps(value)
            yield f"data: {text}\r\n\r\n".encode("utf-8", "surrogatepass")

    return lambda words: list(blocks(words))


def interactions(kind: str) -> Callable[[Words], list[bytes]]:
    steps: dict[str, dict[str, Any]] = {
        "text": {"type": "model_output"},
        "thought_summary": {"type": "thought"},
        "arguments_delta": {"type": "function_call", "id": "c", "name": "f"},
    }

    def blocks(words: Words) -> Iterator[bytes]:
        def event(name: str, **fields: Any) -> bytes:
            return sse({**fields, "event_type": name}, name)

        started = {"id": "v1", "model": "gemini-x"}
        yield event("interaction.created", interaction=started)
        yield event("step.start", index=0, step=steps[kind])
        for number, word in enumerate(words):
            delta: dict[str, Any] = {"text": word, "type": "text"}
            if kind == "thought_summary":
                delta = {"content": delta, "type": kind}
            elif kind == "arguments_delta":
                delta = {"arguments": word, "type": kind}
            yield event("step.delta", index=0, delta=delta, event_id=f"e{number}")
        yield event("step.stop", index=0)
        yield event("interaction.completed", interaction={**started, "status": "completed"})

    return lambda words: list(blocks(words))


# --- Cohere, Ollama -------------------------------------------------------------------------------


def cohere(kind: str) -> Callable[[Words], list[bytes]]:
    def blocks(words: Words) -> Iterator[bytes]:
        def event(name: str, message: dict[str, Any] | None = None) -> bytes:
            delta = {"delta": {"message": message}} if message is not None else {}
            place = {} if name.startswith("tool-plan") else {"index": 0}
            return sse({"type": name, **place, **delta}, name)

        yield sse({"type": "message-start", "id": "m", "delta": {"message": {}}}, "message-start")
        if kind in ("text", "thinking"):
            yield event("content-start", {"content": {"type": kind, kind: ""}})
            for word in words:
                yield event("content-delta", {"content": {kind: word}})
            yield event("content-end")
        elif kind == "plan":
            for word in words:
                yield event("tool-plan-delta", {"tool_plan": word})
        else:
            call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}
            yield event("tool-call-start", {"tool_calls": call})
            for word in words:
                function = {"function": {"arguments": word}}
                yield event("tool-call-delta", {"tool_calls": function})
            yield event("tool-call-end")
        end = {"finish_reason": "COMPLETE", "usage": {"tokens": {"output_tokens": 3}}}
        yield sse({"type": "message-end", "delta": end}, "message-end")

    return lambda words: list(blocks(words))


def ollama(kind: str) -> Callable[[Words], list[bytes]]:
    def blocks(words: Words) -> Iterator[bytes]:
        def one(number: int, word: str, done: bool) -> dict[str, Any]:
            head = {"model": "m", "created_at": f"2026-01-02T03:04:{number:02d}.{number}Z"}
            if kind == "generate":
                return {**head, "response": word, "done": done}
            said: dict[str, Any] = {"role": "assistant", "content": word}
            if kind == "thinking":
                said = {"role": "assistant", "content": "", "thinking": word}
            return {**head, "message": said, "done": done}

        for number, word in enumerate(words):
            yield line(one(number, word, False))
        end = {"done_reason": "stop", "prompt_eval_count": 3, "eval_count": len(words)}
        yield line({**one(59, "", True), **end})

    return lambda words: list(blocks(words))


# --- Chat Completions, and the legacy wire --------------------------------------------------------


def chat(kind: str) -> Callable[[Words], list[bytes]]:
    filters = {"hate": {"filtered": False, "severity": "safe"}}

    def blocks(words: Words) -> Iterator[bytes]:
        def chunk(delta: dict[str, Any], number: int, finish: str | None = None) -> bytes:
            choice: dict[str, Any] = {"index": 0, "delta": delta, "finish_reason": finish}
            if kind == "filters":
                choice["content_filter_results"] = filters
            value: dict[str, Any] = {"id": "x", "object": "chat.completion.chunk"}
            value["choices"] = [choice]
            if kind == "usage":
                counts = {"prompt_tokens": 5, "completion_tokens": number}
                value["usage"] = {**counts, "total_tokens": 5 + number}
            return sse(value)

        yield chunk({"role": "assistant", "content": ""}, 0)
        for number, word in enumerate(words, 1):
            delta: dict[str, Any] = {"content": word}
            if kind == "thinking":
                piece = {"type": "text", "text": word}
                delta = {"content": [{"type": "thinking", "thinking": [piece]}]}
            elif kind == "thinking-text":
                delta = {"content": [{"type": "thinking", "thinking": word}]}
            yield chunk(delta, number)
        yield chunk({}, len(words) + 1, "stop")
        yield b"data: [DONE]\n\n"

    return lambda words: list(blocks(words))


def completions(words: Words) -> list[bytes]:
    def chunk(text: str, number: int, finish: str | None = None) -> bytes:
        choice = {"text": text, "index": 0, "logprobs": None, "finish_reason": finish}
        return sse({"id": "x", "created": 1_790_000_000 + number, "choices": [choice]})

    chunks = [chunk(word, number) for number, word in enumerate(words)]
    return [*chunks, chunk("", 99, "stop"), b"data: [DONE]\n\n"]


LINES = "application/x-ndjson"
STREAMS: dict[str, Stream] = {
    "messages-text": Stream(ANTHROPIC, messages("text"), 9),
    "messages-thinking": Stream(ANTHROPIC, messages("thinking"), 9),
    "messages-arguments": Stream(ANTHROPIC, messages("tool_use"), 9, PIECES),
    "messages-blanks": Stream(ANTHROPIC, messages("tool_use", blanks=True), 8, PIECES),
    "responses-text": Stream(RESPONSES, responses("output_text"), 8),
    "responses-refusal": Stream(RESPONSES, responses("refusal"), 8),
    "responses-reasoning": Stream(RESPONSES, responses("reasoning_text"), 8),
    "responses-summary": Stream(RESPONSES, responses("reasoning_summary_text"), 8),
    "responses-arguments": Stream(RESPONSES, responses("function_call_arguments"), 8, PIECES),
    "responses-custom": Stream(RESPONSES, responses("custom_tool_call_input"), 8),
    "responses-mcp": Stream(RESPONSES, responses("mcp_call_arguments"), 8, PIECES),
    "responses-code": Stream(RESPONSES, responses("code_interpreter_call_code"), 8),
    "gemini-text": Stream(GEMINI, gemini(), 8),
    "gemini-thought": Stream(GEMINI, gemini(thought=True, spaced=False), 8),
    "interactions-text": Stream(INTERACTIONS, interactions("text"), 8),
    "interactions-summary": Stream(INTERACTIONS, interactions("thought_summary"), 8),
    "interactions-arguments": Stream(INTERACTIONS, interactions("arguments_delta"), 8, PIECES),
    "cohere-text": Stream(COHERE, cohere("text"), 9),
    "cohere-thinking": Stream(COHERE, cohere("thinking"), 9),
    "cohere-plan": Stream(COHERE, cohere("plan"), 8),
    "cohere-arguments": Stream(COHERE, cohere("call"), 9, PIECES),
    "ollama-chat": Stream(OLLAMA, ollama("chat"), 8, content_type=LINES),
    "ollama-thinking": Stream(OLLAMA, ollama("thinking"), 8, content_type=LINES),
    "ollama-generate": Stream(OLLAMA, ollama("generate"), 8, content_type=LINES),
    "chat-filters": Stream(CHAT, chat("filters"), 8),
    "chat-usage": Stream(CHAT, chat("usage"), 8),
    "chat-thinking": Stream(CHAT, chat("thinking"), 8),
    "chat-thinking-text": Stream(CHAT, chat("thinking-text"), 8),
    "completions": Stream(COMPLETIONS, completions, 8),
}
