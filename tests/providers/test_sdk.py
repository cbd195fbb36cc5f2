"""The official SDKs read a local server, and their stream objects become our events."""
# ruff: noqa: E501 - one payload a line reads best

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tokenwire.errors import InputError
from tokenwire.events.fold import fold
from tokenwire.events.model import Error, PartAttr, ResponseStart, RunEnd
from tokenwire.framing.sse import encode_frame
from tokenwire.providers.summary import facts
from tokenwire.sdk import events

openai = pytest.importorskip("openai")
anthropic = pytest.importorskip("anthropic")
genai = pytest.importorskip("google.genai")


def sse(*payloads: Any, named: bool = False) -> bytes:
    return b"".join(
        encode_frame(p if isinstance(p, str) else json.dumps(p), event=p["type"] if named else None)
        for p in payloads
    )


def chat(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
    return {"id": "r", "object": "chat.completion.chunk", "created": 1, "model": "m",
            "choices": [choice]}  # fmt: skip


CALL = {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}}
CHAT = sse(
    chat({"role": "assistant", "content": ""}),
    chat({"reasoning_content": "hm"}),
    chat({"content": "Hel"}),
    chat({"content": "lo"}),
    chat({"tool_calls": [CALL]}),
    chat({"tool_calls": [{"index": 0, "function": {"arguments": '{"a":1}'}}]}),
    chat({}, "tool_calls"),
    {**chat({}), "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}},
    "[DONE]",
)  # fmt: skip
CUT = sse(chat({"content": "half"}))
FAILED = sse(chat({"content": "half"}), {"error": {"message": "boom", "code": "server_error"}})

MESSAGE = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "content": [],
           "stop_reason": None, "stop_sequence": None,
           "usage": {"input_tokens": 3, "output_tokens": 1}}  # fmt: skip
CLAUDE = sse(
    {"type": "message_start", "message": MESSAGE},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "c2ln"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "ping"},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Hello"}},
    {"type": "content_block_stop", "index": 1},
    {"type": "content_block_start", "index": 2, "content_block": {"type": "tool_use", "id": "c1", "name": "f", "input": {}}},
    {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": '{"a":1}'}},
    {"type": "content_block_stop", "index": 2},
    {"type": "message_delta", "delta": {"stop_reason": "tool_use", "stop_sequence": None}, "usage": {"output_tokens": 2}},
    {"type": "message_stop"},
    named=True,
)  # fmt: skip

SIGNATURE = base64.b64encode(b"\xfb\xff\xfe sig").decode()
GEMINI = sse(
    {"candidates": [{"content": {"role": "model", "parts": [{"text": "hm", "thought": True}]}}], "responseId": "g"},
    {"candidates": [{"content": {"role": "model", "parts": [{"text": "Hello"}]}}]},
    {"candidates": [{"content": {"role": "model", "parts": [
        {"functionCall": {"name": "f", "args": {"a": 1}}, "thoughtSignature": SIGNATURE}]},
        "finishReason": "STOP"}],
     "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 2, "totalTokenCount": 5}},
)  # fmt: skip


def response(status: str, output: list[Any]) -> dict[str, Any]:
    usage = {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5,
             "input_tokens_details": {"cached_tokens": 0},
             "output_tokens_details": {"reasoning_tokens": 0}}  # fmt: skip
    return {"id": "resp_1", "object": "response", "created_at": 1, "status": status, "model": "m",
            "output": output, "parallel_tool_calls": True, "tool_choice": "auto", "tools": [],
            "usage": usage if status == "completed" else None}  # fmt: skip


TEXT_PART = {"type": "output_text", "text": "Hello", "annotations": []}
ITEM = {
    "type": "message",
    "id": "i1",
    "role": "assistant",
    "status": "completed",
    "content": [TEXT_PART],
}
FUNCTION = {"type": "function_call", "id": "i2", "call_id": "c1", "name": "f", "status": "completed", "arguments": '{"a":1}'}  # fmt: skip
AT = {"output_index": 0, "item_id": "i1", "content_index": 0}
RESPONSES_EVENTS: list[dict[str, Any]] = [
    {"type": "response.created", "response": response("in_progress", [])},
    {"type": "response.output_item.added", "output_index": 0, "item": {**ITEM, "status": "in_progress", "content": []}},
    {"type": "response.content_part.added", **AT, "part": {**TEXT_PART, "text": ""}},
    {"type": "response.output_text.delta", **AT, "delta": "Hello", "logprobs": []},
    {"type": "response.output_text.done", **AT, "text": "Hello", "logprobs": []},
    {"type": "response.content_part.done", **AT, "part": TEXT_PART},
    {"type": "response.output_item.done", "output_index": 0, "item": ITEM},
    {"type": "response.output_item.added", "output_index": 1, "item": {**FUNCTION, "arguments": "", "status": "in_progress"}},
    {"type": "response.function_call_arguments.delta", "output_index": 1, "item_id": "i2", "delta": '{"a":1}'},
    {"type": "response.function_call_arguments.done", "output_index": 1, "item_id": "i2", "arguments": '{"a":1}', "name": "f"},
    {"type": "response.output_item.done", "output_index": 1, "item": FUNCTION},
    {"type": "response.completed", "response": response("completed", [ITEM, FUNCTION])},
]  # fmt: skip
RESPONSES = sse(*({**e, "sequence_number": n} for n, e in enumerate(RESPONSES_EVENTS)), named=True)


@contextmanager
def server(body: bytes) -> Iterator[str]:
    """A server that answers every POST with ``body`` as an event stream."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{found.server_address[1]}"
        finally:
            found.shutdown()
            thread.join()


ASK: list[Any] = [{"role": "user", "content": "hi"}]


def openai_chat(url: str, *, wait: bool) -> Any:
    kind = openai.AsyncOpenAI if wait else openai.OpenAI
    client = kind(base_url=f"{url}/v1", api_key="k", max_retries=0)
    return client.chat.completions.create(model="m", messages=ASK, stream=True)


def openai_responses(url: str, *, wait: bool) -> Any:
    kind = openai.AsyncOpenAI if wait else openai.OpenAI
    client = kind(base_url=f"{url}/v1", api_key="k", max_retries=0)
    return client.responses.create(model="m", input="hi", stream=True)


def anthropic_messages(url: str, *, wait: bool) -> Any:
    kind = anthropic.AsyncAnthropic if wait else anthropic.Anthropic
    client = kind(base_url=url, api_key="k", max_retries=0)
    return client.messages.create(model="m", max_tokens=9, messages=ASK, stream=True)


KEPT: list[Any] = []  # a Google client that is dropped closes its connections


def google(url: str, *, wait: bool) -> Any:
    options = genai.types.HttpOptions(base_url=url)
    client = genai.Client(api_key="k", http_options=options, vertexai=False)
    KEPT.append(client)
    models = client.aio.models if wait else client.models
    return models.generate_content_stream(model="m", contents="hi")


Opener = Callable[..., Any]
WIRES = [
    pytest.param(openai_chat, CHAT, id="openai-chat"),
    pytest.param(openai_responses, RESPONSES, id="openai-responses"),
    pytest.param(anthropic_messages, CLAUDE, id="anthropic"),
    pytest.param(google, GEMINI, id="google-genai"),
]


def check(found: list[Any]) -> None:
    told = facts(found)
    assert told["text"] == "Hello"
    (call,) = told["tool_calls"]
    assert (call["name"], call["arguments"]) == ("f", {"a": 1})
    assert (told["usage"]["input_tokens"], told["usage"]["output_tokens"]) == (3, 2)
    assert (told["error"], told["complete"]) == (None, True)
    assert [e.seq for e in found] == list(range(1, len(found) + 1))
    assert isinstance(found[-1], RunEnd)
    assert found[-1].outcome == "complete"
    assert fold(found).text == "Hello"


@pytest.mark.parametrize(("open_stream", "body"), WIRES)
def test_blocking_streams(open_stream: Opener, body: bytes) -> None:
    with server(body) as url:
        check(list(events(open_stream(url, wait=False))))


@pytest.mark.parametrize(("open_stream", "body"), WIRES)
def test_async_streams(open_stream: Opener, body: bytes) -> None:
    async def main(url: str) -> list[Any]:
        stream = await open_stream(url, wait=True)
        return [event async for event in events(stream)]

    with server(body) as url:
        check(asyncio.run(main(url)))


def test_signatures_come_through_byte_for_byte() -> None:
    with server(GEMINI) as url:
        found = list(events(google(url, wait=False)))
    assert [e.value for e in found if isinstance(e, PartAttr)] == [SIGNATURE]
    with server(CLAUDE) as url:
        found = list(events(anthropic_messages(url, wait=False)))
    assert [e.value for e in found if isinstance(e, PartAttr)] == ["c2ln"]


def test_reasoning_that_the_sdk_does_not_know_comes_through() -> None:
    with server(CHAT) as url:
        found = list(events(openai_chat(url, wait=False)))
    assert facts(found)["reasoning"] == "hm"
    assert next(e for e in found if isinstance(e, ResponseStart)).id == "r"


def test_the_helpers_streams() -> None:
    with server(CHAT) as url:
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0)
        with client.chat.completions.stream(model="m", messages=ASK) as stream:
            check(list(events(stream)))
    with server(CLAUDE) as url:
        client = anthropic.Anthropic(base_url=url, api_key="k", max_retries=0)
        with client.messages.stream(model="m", max_tokens=9, messages=ASK) as stream:
            check(list(events(stream)))
    with server(RESPONSES) as url:
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0)
        with client.responses.stream(model="m", input="hi") as stream:
            check(list(events(stream)))


def test_a_cut_stream_is_incomplete_and_an_error_is_told() -> None:
    with server(CUT) as url:
        found = list(events(openai_chat(url, wait=False)))
    assert (facts(found)["text"], facts(found)["complete"]) == ("half", False)
    assert found[-1].outcome == "incomplete"
    with server(FAILED) as url:
        found = list(events(openai_chat(url, wait=False)))
    (error,) = [e for e in found if isinstance(e, Error)]
    assert (error.code, found[-1].outcome) == ("overloaded", "error")


def test_plain_dicts_are_taken_and_other_things_refused() -> None:
    found = list(events([chat({"content": "Hel"}), chat({"content": "lo"}, "stop")]))
    assert facts(found)["text"] == "Hello"
    with pytest.raises(InputError, match="no supported provider wire"):
        list(events([{"x": 1}]))
    with pytest.raises(InputError, match="int"):
        list(events([1]))
    with pytest.raises(InputError, match="not a stream"):
        events(5)  # type: ignore[call-overload]
    assert [e.type for e in events([])][-1] == "run-end"


def test_the_stream_is_closed_when_the_reader_leaves() -> None:
    class Stream:
        closed = False

        def __iter__(self) -> Iterator[Any]:
            yield chat({"content": "a"})
            yield chat({"content": "b"})

        def close(self) -> None:
            self.closed = True

    stream = Stream()
    reader = events(stream)
    next(reader)
    reader.close()  # type: ignore[attr-defined]
    assert stream.closed


def test_errors_of_ones_own_code_are_not_swallowed() -> None:
    def stream() -> Iterator[Any]:
        yield chat({"content": "a"})
        raise KeyError("mine")

    with pytest.raises(KeyError):
        list(events(stream()))
