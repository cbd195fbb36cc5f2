"""Odd bytes: every decoder gives events in legal order or a typed error, and nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.corpus import recordings
from support.order import in_order
from tokenwire.errors import FramingError, ProtocolError
from tokenwire.events.model import Error, StepEnd
from tokenwire.framing.aws_eventstream import encode_message
from tokenwire.providers import cohere, ollama
from tokenwire.providers.anthropic import decoder as anthropic
from tokenwire.providers.bedrock import converse as bedrock_converse
from tokenwire.providers.google import gemini
from tokenwire.providers.google import interactions as gemini_interactions
from tokenwire.providers.openai import completions
from tokenwire.providers.openai import responses as openai_responses

DIALECTS = {
    module.DIALECT.name: module.DIALECT
    for module in (
        anthropic,
        bedrock_converse,
        cohere,
        completions,
        gemini,
        gemini_interactions,
        ollama,
        openai_responses,
    )
}
FAMILY = {
    "anthropic": "messages",
    "bedrock-converse": "converse",
    "cohere": "cohere-v2",
    "gemini-interactions": "interactions",
    "openai-responses": "responses",
}
TYPES = (HealthCheck.too_slow, HealthCheck.data_too_large)
RELAXED = settings(max_examples=60, suppress_health_check=TYPES)


def run(dialect: Any, pieces: list[bytes]) -> list[Any]:
    """Feed all; after a typed error the decoder still closes what is open."""
    decoder = dialect.decoder()
    events: list[Any] = []
    error = None
    try:
        for piece in pieces:
            events += decoder.feed(piece)
    except (FramingError, ProtocolError) as problem:
        error = Error(scope="parse", code=problem.code, message=problem.message)
    try:
        events += decoder.finish(error)
    except (FramingError, ProtocolError) as problem:
        events += decoder.finish(Error(scope="parse", code=problem.code, message=problem.message))
    assert isinstance(events[-1], StepEnd)
    in_order(events)
    return events


@pytest.mark.parametrize("name", DIALECTS)
@RELAXED
@given(pieces=st.lists(st.binary(max_size=60), max_size=6))
def test_any_bytes(name: str, pieces: list[bytes]) -> None:
    run(DIALECTS[name], pieces)


# --- payloads whose fields have any type -----------------------------------------------------

KEYS = (
    "type event_type event_id index delta content_block message content parts text thought "
    "thoughtSignature functionCall name args partialArgs jsonPath stringValue willContinue id "
    "candidates finishReason usageMetadata usage error choices tool_calls function arguments done "
    "response output_index item_id item content_index summary_index part annotation annotations "
    "partial_json thinking signature citation stop_reason contentBlockIndex contentBlockDelta "
    "contentBlockStart contentBlockStop messageStop start toolUse toolUseId reasoningContent "
    "stopReason metadata step interaction status sequence_number output logprobs inlineData data "
    "groundingMetadata groundingSupports groundingChunks groundingChunkIndices citations sources "
    "tool_plan finish_reason code input call_id encrypted_content summary promptFeedback "
    "blockReason executableCode codeExecutionResult result partial_image_b64 incomplete_details"
).split()
TEXTS = (
    "text text_delta thinking thinking_delta tool_use input_json_delta signature_delta "
    "citations_delta content_block_start content_block_delta content_block_stop message_start "
    "message_delta message_stop error ping STOP SAFETY $.a $.a[0].b $ stop tool_calls "
    "response.created response.output_item.added response.output_item.done "
    "response.output_text.delta response.output_text.done response.content_part.added "
    "response.content_part.done response.function_call_arguments.delta response.completed "
    "response.failed response.output_text.annotation.added response.reasoning_summary_text.delta "
    "response.image_generation_call.partial_image response.web_search_call.searching "
    "message function_call reasoning web_search_call output_text summary_text custom_tool_call "
    "content-start content-delta content-end tool-call-start tool-call-delta tool-call-end "
    "citation-start message-end tool-plan-delta step.start step.delta step.stop "
    "interaction.created interaction.completed thought model_output arguments_delta completed"
).split()
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
    | st.sampled_from(TEXTS),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5)
    ),
    max_leaves=14,
)
PAYLOADS = st.lists(
    st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=6), min_size=1, max_size=6
)


@pytest.mark.parametrize("name", DIALECTS)
@settings(RELAXED, max_examples=150)
@given(payloads=PAYLOADS, named=st.booleans())
def test_any_payloads(name: str, payloads: list[dict[str, Any]], named: bool) -> None:
    data = b"".join(
        (f"event: {p.get('type')}\n" if named and isinstance(p.get("type"), str) else "").encode()
        + b"data: "
        + json.dumps(p).encode()
        + b"\n\n"
        for p in payloads
    )
    run(DIALECTS[name], [data])


@pytest.mark.parametrize("name", ["anthropic", "bedrock-converse"])
@RELAXED
@given(payloads=PAYLOADS, event=st.sampled_from(["chunk", "contentBlockDelta", "metadata", ""]))
def test_any_messages_of_an_event_stream(
    name: str, payloads: list[dict[str, Any]], event: str
) -> None:
    frames = [encode_message({":event-type": event}, json.dumps(p).encode()) for p in payloads]
    run(DIALECTS[name], frames)


# --- recordings with something wrong -----------------------------------------------------------


@pytest.mark.parametrize("name", DIALECTS)
@settings(RELAXED, max_examples=40)
@given(data=st.data())
def test_damaged_recordings(name: str, data: st.DataObject) -> None:
    found = [r for r in recordings(FAMILY.get(name, name)) if len(r.raw) < 60_000]
    if not found:
        pytest.skip("the shared corpus is not beside the project")
    raw = bytearray(data.draw(st.sampled_from(found)).raw)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, max(0, len(raw) - 1)))
        kind = data.draw(st.sampled_from(["flip", "drop", "double", "cut"]))
        if kind == "flip" and raw:
            raw[at] ^= data.draw(st.integers(1, 255))
        elif kind == "drop":
            del raw[at : at + data.draw(st.integers(1, 200))]
        elif kind == "double":
            raw[at:at] = raw[at : at + data.draw(st.integers(1, 400))]
        else:
            del raw[at:]
    events = run(DIALECTS[name], [bytes(raw)])
    again = run(DIALECTS[name], [bytes(raw[i : i + 11]) for i in range(0, len(raw), 11)])
    assert again[-1] == events[-1]


def payloads_of(raw: bytes) -> list[Any]:
    found: list[Any] = []
    for line in raw.splitlines():
        line = line.removeprefix(b"data:").strip()
        if line.startswith(b"{"):
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
    return found


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    return [path, *(p for key, v in inner for p in places(v, (*path, key)))]


@pytest.mark.parametrize("name", DIALECTS)
@settings(RELAXED, max_examples=60)
@given(data=st.data())
def test_a_value_of_another_type_in_a_recording(name: str, data: st.DataObject) -> None:
    found = [
        r
        for r in recordings(FAMILY.get(name, name))
        if len(r.raw) < 30_000 and r.framing != "aws-eventstream"
    ]
    if not found:
        pytest.skip("the shared corpus is not beside the project")
    payloads = payloads_of(data.draw(st.sampled_from(found)).raw)[:40]
    for _ in range(data.draw(st.integers(1, 4))):
        if not payloads:
            break
        payload = payloads[data.draw(st.integers(0, len(payloads) - 1))]
        path = data.draw(st.sampled_from(places(payload)))
        if not path:
            continue
        at = payload
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = data.draw(VALUES)
    lines = [json.dumps(p).encode() + b"\n" for p in payloads]
    run(DIALECTS[name], lines)
