"""Requests in the form that each native wire demands."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.native import PNG, TOOL, talk
from tokenwire.errors import InputError, OverloadedError, RateLimitError
from tokenwire.events.message import (
    FilePart,
    Message,
    OpaquePart,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    user,
)
from tokenwire.events.request import OutputSchema, Request
from tokenwire.providers.base import Call, ResumableDecoder, Target
from tokenwire.providers.registry import Registry

REGISTRY = Registry(env={})
NATIVE = (
    *("anthropic", "gemini", "gemini-interactions", "openai-responses"),
    *("ollama", "cohere", "bedrock-converse"),
)


def call(name: str, request: Request, **target: Any) -> Call:
    given = {"provider": "p", "model": "m", "base_url": "http://h/v1", "api_key": "k"}
    return REGISTRY.dialect(name).build(request, Target(dialect=name, **(given | target)))


def body(name: str, request: Request, **target: Any) -> dict[str, Any]:
    return json.loads(call(name, request, **target).body)


def asked(**fields: Any) -> Request:
    return Request(messages=[user("hi")], **fields)


def test_addresses_and_keys() -> None:
    found = {name: call(name, asked()) for name in NATIVE}
    assert {name: c.url for name, c in found.items()} == {
        "anthropic": "http://h/v1/messages",
        "gemini": "http://h/v1/models/m:streamGenerateContent?alt=sse",
        "gemini-interactions": "http://h/v1/interactions",
        "openai-responses": "http://h/v1/responses",
        "ollama": "http://h/api/chat",
        "cohere": "http://h/v1/chat",
        "bedrock-converse": "http://h/v1/model/m/converse-stream",
    }
    assert found["anthropic"].headers["x-api-key"] == "k"
    assert found["gemini"].headers["x-goog-api-key"] == "k"
    assert found["openai-responses"].headers["authorization"] == "Bearer k"
    assert "k" not in {c.url for c in found.values()}


def test_anthropic_by_way_of_vertex_and_bedrock() -> None:
    vertex = call("anthropic", asked(), quirks=frozenset({"vertex"}))
    assert vertex.url == "http://h/v1/models/m:streamRawPredict"
    assert vertex.headers["authorization"] == "Bearer k"
    assert json.loads(vertex.body)["anthropic_version"] == "vertex-2023-10-16"
    assert "model" not in json.loads(vertex.body)
    bedrock = call("anthropic", asked(), quirks=frozenset({"bedrock"}))
    assert bedrock.url == "http://h/v1/model/m/invoke-with-response-stream"
    assert "stream" not in json.loads(bedrock.body)


def test_anthropic_conversation() -> None:
    found = body("anthropic", Request(messages=talk(), system="be kind", tools=[TOOL]))
    assert found["system"] == "be kind"
    assert [m["role"] for m in found["messages"]] == ["user", "assistant", "user"]
    image, thinking = found["messages"][0]["content"][1], found["messages"][1]["content"][0]
    assert image["source"] == {"type": "base64", "media_type": "image/png", "data": "aGk="}
    assert thinking == {"type": "thinking", "thinking": "hm", "signature": "sig"}
    assert found["messages"][1]["content"][2]["input"] == {"a": 1}
    result = found["messages"][2]["content"][0]
    assert (result["type"], result["tool_use_id"]) == ("tool_result", "c1")
    assert found["tools"][0]["input_schema"] == TOOL.parameters


def test_anthropic_thinking_makes_room_for_the_answer() -> None:
    found = body("anthropic", asked(reasoning="high", max_tokens=1000))
    assert found["thinking"]["budget_tokens"] == 16384
    assert found["max_tokens"] == 16384 + 1000


def test_gemini_conversation() -> None:
    meta = {"gemini": {"type": "functionCall", "id": "g7"}}
    found = body("gemini", Request(messages=talk(meta), system="be kind", tools=[TOOL]))
    assert found["systemInstruction"] == {"parts": [{"text": "be kind"}]}
    assert [c["role"] for c in found["contents"]] == ["user", "model", "user"]
    thought, _, sent = found["contents"][1]["parts"]
    assert thought == {"text": "hm", "thought": True, "thoughtSignature": "sig"}
    assert sent["functionCall"] == {"name": "add", "args": {"a": 1}, "id": "g7"}
    assert found["contents"][2]["parts"] == [
        {"functionResponse": {"name": "add", "response": {"n": 2}, "id": "g7"}}
    ]
    assert found["tools"][0]["functionDeclarations"][0]["parametersJsonSchema"] == TOOL.parameters


def test_gemini_three_gets_a_mark_for_calls_of_other_models() -> None:
    foreign = talk({"anthropic": {"type": "tool_use"}})
    found = body("gemini", Request(messages=foreign), model="gemini-3-flash")
    (sent,) = [p for p in found["contents"][1]["parts"] if "functionCall" in p]
    assert sent["thoughtSignature"] == "skip_thought_signature_validator"


def test_responses_conversation() -> None:
    meta = {"openai-responses": {"type": "reasoning", "id": "rs1"}}
    parts = [
        ReasoningPart(text="a", summary=True, meta=meta),
        ReasoningPart(text="b", summary=True, encrypted="enc", meta=meta),
        ToolCallPart(call_id="c1", name="add", arguments='{"a": 1}'),
        ToolCallPart(call_id="c2", name="sql", arguments="SELECT 1", format="text"),
    ]
    results = [ToolResultPart(call_id=c, content="2") for c in ("c1", "c2")]
    found = body(
        "openai-responses",
        Request(
            messages=[
                Message(
                    role="user", content=[PNG, FilePart(media_type="application/pdf", data="x")]
                ),
                Message(role="assistant", content=parts),
                Message(role="tool", content=list(results)),
            ],
            reasoning="low",
        ),
    )
    assert found["store"] is False
    assert found["include"] == ["reasoning.encrypted_content"]
    image, document = found["input"][0]["content"]
    assert image["image_url"] == "data:image/png;base64,aGk="
    assert document["file_data"] == "data:application/pdf;base64,x"
    assert found["input"][1:] == [
        {
            "type": "reasoning",
            "id": "rs1",
            "summary": [
                {"type": "summary_text", "text": "a"},
                {"type": "summary_text", "text": "b"},
            ],
            "encrypted_content": "enc",
        },
        {"type": "function_call", "call_id": "c1", "name": "add", "arguments": '{"a": 1}'},
        {"type": "custom_tool_call", "call_id": "c2", "name": "sql", "input": "SELECT 1"},
        {"type": "function_call_output", "call_id": "c1", "output": "2"},
        {"type": "custom_tool_call_output", "call_id": "c2", "output": "2"},
    ]


def test_responses_reattaches_in_the_background_only() -> None:
    dialect = REGISTRY.dialect("openai-responses")
    target = Target(provider="p", dialect="x", model="m", base_url="http://h/v1", api_key="k")
    again = dialect.resume("r1/../x", 7, target)
    assert again is not None
    assert (again.method, again.url) == (
        "GET",
        "http://h/v1/responses/r1%2F..%2Fx?stream=true&starting_after=7",
    )
    assert body("openai-responses", asked(extra={"background": True}))["store"] is True


def test_a_reattached_decoder_tells_nothing_twice() -> None:
    def frame(number: int, **fields: Any) -> bytes:
        return b"data: " + json.dumps({"sequence_number": number, **fields}).encode() + b"\n\n"

    def delta(number: int, text: str) -> bytes:
        return frame(number, type="response.output_text.delta", output_index=0, delta=text)

    created = {"type": "response.created", "response": {"id": "r1", "background": True}}
    decoder = REGISTRY.dialect("openai-responses").decoder()
    events = decoder.feed(frame(0, **created) + delta(1, "a") + delta(2, "b") + b'data: {"sequ')
    assert events[0].resumable
    assert decoder.cursor == 2
    decoder.reattach()
    events += decoder.feed(delta(2, "b") + delta(3, "c"))
    completed = {"type": "response.completed", "response": {"id": "r1", "status": "completed"}}
    events += decoder.feed(frame(4, **completed)) + decoder.finish()
    assert [e.text for e in events if e.type == "text-delta"] == ["a", "b", "c"]
    assert events[-1].status == "complete"


def test_ollama_conversation() -> None:
    found = body("ollama", Request(messages=talk(), system="s", seed=1, max_tokens=5))
    assert found["options"] == {"num_predict": 5, "seed": 1}
    system, question, answer, result = found["messages"]
    assert system == {"role": "system", "content": "s"}
    assert question["images"] == ["aGk="]
    assert answer["thinking"] == "hm"
    assert answer["tool_calls"] == [{"function": {"name": "add", "arguments": {"a": 1}}}]
    assert result == {"role": "tool", "content": '{"n":2}', "tool_name": "add"}


def test_cohere_conversation() -> None:
    plan = ReasoningPart(text="plan", meta={"cohere": {"type": "tool_plan"}})
    messages = talk()
    messages[1].content = [plan, *messages[1].parts]
    _, answer, result = body("cohere", Request(messages=messages))["messages"]
    assert answer["tool_plan"] == "plan"
    assert answer["tool_calls"][0]["function"] == {"name": "add", "arguments": '{"a":1}'}
    assert result == {"role": "tool", "tool_call_id": "c1", "content": '{"n":2}'}


def test_converse_conversation() -> None:
    redacted = OpaquePart(payload={"reasoningContent": {"redactedContent": "zz"}})
    messages = talk()
    messages[1].content = [redacted, *messages[1].parts]
    found = body("bedrock-converse", Request(messages=messages, tools=[TOOL], max_tokens=9))
    assert found["inferenceConfig"] == {"maxTokens": 9}
    image = found["messages"][0]["content"][1]["image"]
    assert image == {"format": "png", "source": {"bytes": "aGk="}}
    first, thought, _, sent = found["messages"][1]["content"]
    assert first["reasoningContent"]["redactedContent"] == "zz"
    assert thought["reasoningContent"]["reasoningText"] == {"text": "hm", "signature": "sig"}
    assert sent["toolUse"] == {"toolUseId": "c1", "name": "add", "input": {"a": 1}}
    (result,) = found["messages"][2]["content"]
    assert result["toolResult"]["content"] == [{"json": {"n": 2}}]
    assert found["toolConfig"]["tools"][0]["toolSpec"]["inputSchema"] == {"json": TOOL.parameters}


def test_interactions_conversation() -> None:
    found = body("gemini-interactions", Request(messages=talk(), reasoning="low"))
    kinds = [s["type"] for s in found["input"]]
    assert kinds == ["user_input", "thought", "model_output", "function_call", "function_result"]
    assert found["input"][1]["signature"] == "sig"
    assert found["store"] is False


def test_completions_take_texts_only() -> None:
    assert body("completions", asked(system="s"))["prompt"] == "s\n\nhi"
    with pytest.raises(InputError):
        call("completions", Request(messages=talk()))
    with pytest.raises(InputError):
        call("completions", asked(tools=[TOOL]))


@pytest.mark.parametrize("name", NATIVE)
@pytest.mark.parametrize("choice", ["auto", "none", "required", "add"])
def test_tool_choices_are_said_or_refused(name: str, choice: str) -> None:
    request = asked(tools=[TOOL], tool_choice=choice)
    if (name, choice) in (("ollama", "required"), ("ollama", "add")):
        with pytest.raises(InputError):
            call(name, request)
    else:
        call(name, request)


@pytest.mark.parametrize("name", NATIVE)
def test_structured_output_and_extra_fields(name: str) -> None:
    schema = {"type": "object", "properties": {"unusual": {"type": "string"}}}
    found = body(name, asked(output=OutputSchema(schema=schema), extra={"own": {"x": 1}}))
    assert found["own"] == {"x": 1}
    assert "unusual" in json.dumps(found)


@pytest.mark.parametrize("name", NATIVE)
def test_a_call_that_never_ran_is_not_sent(name: str) -> None:
    cut = ToolCallPart(call_id="c9", name="add", arguments='{"a":', status="truncated")
    messages = [
        user("hi"),
        Message(role="assistant", content=[TextPart(text="so"), cut]),
        user("on"),
    ]
    assert "c9" not in json.dumps(body(name, Request(messages=messages)))


@pytest.mark.parametrize("name", ["anthropic", "openai-responses", "bedrock-converse"])
def test_what_a_wire_cannot_say_is_refused(name: str) -> None:
    with pytest.raises(InputError):
        call(name, asked(seed=1))


@pytest.mark.parametrize("name", [*NATIVE, "completions"])
def test_errors_are_typed_and_only_two_wires_resume(name: str) -> None:
    dialect = REGISTRY.dialect(name)
    error = dialect.error(429, {"retry-after": "3"}, b'{"error":{"message":"slow"}}')
    assert isinstance(error, RateLimitError)
    assert error.retry_after == 3
    assert isinstance(dialect.error(503, {}, b"<html>"), OverloadedError)
    target = Target(provider="p", dialect=name, model="m", base_url="http://h")
    keeps_responses = name in ("openai-responses", "gemini-interactions")
    assert (dialect.resume("r1", None, target) is not None) is keeps_responses
    assert isinstance(dialect.decoder(), ResumableDecoder) is keeps_responses


@pytest.mark.parametrize("name", [*NATIVE, "completions"])
def test_configured_headers_win_whatever_their_case(name: str) -> None:
    headers = call(name, asked(), headers={"Content-Type": "x/y", "X-Team": "a"}).headers
    assert headers["content-type"] == "x/y"
    assert headers["x-team"] == "a"
    assert "Content-Type" not in headers


def test_an_interaction_is_reattached_after_its_last_event_id() -> None:
    def frame(event_id: str, kind: str, **fields: Any) -> bytes:
        payload = {"event_type": kind, "event_id": event_id, **fields}
        return b"data: " + json.dumps(payload).encode() + b"\n\n"

    dialect = REGISTRY.dialect("gemini-interactions")
    decoder = dialect.decoder()
    created = {"id": "v1", "background": True}
    text = {"type": "text", "text": "a"}
    events = decoder.feed(frame("e1", "interaction.created", interaction=created))
    events += decoder.feed(frame("e2", "step.delta", index=0, delta=text) + b"data: {")
    target = Target(provider="p", dialect="x", model="m", base_url="http://h/v1")
    again = dialect.resume(decoder.response_id, decoder.cursor, target)
    assert again is not None
    assert again.url == "http://h/v1/interactions/v1?stream=true&last_event_id=e2"
    decoder.reattach()
    done = {"id": "v1", "status": "completed"}
    events += decoder.feed(frame("e3", "interaction.completed", interaction=done))
    events += decoder.finish()
    assert events[-1].status == "complete"


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("claude-3-7-sonnet-latest", "enabled"),
        ("claude-sonnet-4-20250514", "enabled"),
        ("claude-sonnet-4-5-20250929", "enabled"),
        ("claude-opus-4-6", "adaptive"),
        ("claude-sonnet-5", "adaptive"),
        ("anthropic.claude-opus-4-8-v1:0", "adaptive"),
        ("deepseek-v4", "enabled"),
    ],
)
def test_newer_claude_models_decide_how_long_they_think(model: str, kind: str) -> None:
    found = body("anthropic", asked(reasoning="low"), model=model)
    assert found["thinking"]["type"] == kind
    assert ("output_config" in found) is (kind == "adaptive")
    assert body("anthropic", asked(reasoning=2000), model=model)["thinking"]["type"] == "enabled"


@pytest.mark.parametrize("name", ["anthropic", "bedrock-converse", "openai-responses"])
def test_an_id_of_another_provider_is_mapped_alike_in_call_and_result(name: str) -> None:
    messages = talk()
    messages[1].content = [ToolCallPart(call_id="functions.add:0", name="add", arguments="{}")]
    messages[2].content = [ToolResultPart(call_id="functions.add:0", content="2")]
    text = json.dumps(body(name, Request(messages=messages)))
    assert "functions.add:0" not in text
    (mapped,) = {w for w in text.split('"') if w.startswith("call_") and len(w) == 29}
    assert text.count(mapped) == 2


@pytest.mark.parametrize("name", ["anthropic", "gemini", "bedrock-converse"])
@pytest.mark.parametrize("blank", ["", " ", "\n\t "])
def test_blank_texts_are_not_sent(name: str, blank: str) -> None:
    messages = [
        user(blank),
        Message(role="assistant", content=[TextPart(text=blank), RefusalPart(text=blank)]),
        Message(role="user", content=[TextPart(text="Hi"), TextPart(text=blank)]),
    ]
    sent = body(name, Request(messages=messages, system=blank))
    turns = sent.get("messages") or sent["contents"]
    assert len(turns) == 1
    assert len(turns[0].get("content") or turns[0]["parts"]) == 1
    assert not {"system", "systemInstruction"} & set(sent)


@pytest.mark.parametrize("name", ["anthropic", "gemini", "bedrock-converse"])
def test_a_conversation_without_anything_to_send_is_rejected(name: str) -> None:
    with pytest.raises(InputError, match="no message"):
        call(name, Request(messages=[user(" ")], system="Be brief."))
