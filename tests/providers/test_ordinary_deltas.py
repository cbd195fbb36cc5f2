"""The short way of an ordinary delta gives the events of the general way, in any company."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.corpus import Recording, decode, needs_corpus, recordings
from tokenwire.events.codec import encode
from tokenwire.framing.sse import encode_frame
from tokenwire.providers import ollama
from tokenwire.providers.ollama import OllamaDecoder
from tokenwire.providers.openai import responses
from tokenwire.providers.openai.responses import ResponsesDecoder

NATIVE = Path(__file__).parents[2] / "conformance" / "providers" / "native.json"
CASES = [
    c for c in json.loads(NATIVE.read_text())["cases"] if c["family"] in ("responses", "ollama")
]
RECORDED = [r for family in ("responses", "ollama", "ollama-generate") for r in recordings(family)]
PIECE = {"type": "response.output_text.delta", "item_id": "m", "output_index": 0}
PIECE |= {"content_index": 0, "delta": "b", "sequence_number": 5}
RESPONSES: dict[str, dict[str, Any]] = {
    "another item": {"item_id": "n"},
    "another index": {"output_index": 1},
    "another content": {"content_index": 1},
    "no item": {"item_id": None},
    "log probabilities": {"logprobs": [{"token": "b", "logprob": -1}]},
    "no log probabilities": {"logprobs": []},
    "an unknown text": {"hint": "mind"},
    "an error": {"error": {"message": "overloaded", "code": "server_error"}},
    "no text": {"delta": ""},
    "an object": {"delta": {"text": "b"}},
    "an index that is text": {"output_index": "0"},
    "an index that is a fraction": {"content_index": 0.0},
    "a large number": {"sequence_number": 10**30},
    "another type": {"type": "response.refusal.delta"},
    "a failure": {"type": "response.failed", "response": {"error": {"message": "no"}}},
}
LINE: dict[str, Any] = {"model": "m", "created_at": "t", "done": False}
OLLAMA: dict[str, dict[str, Any]] = {
    "thinking": {"message": {"role": "assistant", "content": "b", "thinking": "hm"}},
    "another name of thinking": {"message": {"content": "b", "reasoning": "hm"}},
    "an unknown text": {"message": {"content": "b", "hint": "mind"}},
    "an error": {"message": {"content": "b"}, "error": "out of memory"},
    "no text": {"message": {"role": "assistant", "content": ""}},
    "a call": {"message": {"content": "", "tool_calls": [{"function": {"name": "f"}}]}},
    "log probabilities": {"message": {"content": "b"}, "logprobs": [{"token": "b"}]},
    "the end": {"message": {"content": "b"}, "done": True, "done_reason": "stop"},
    "no message": {"response": "b"},
    "a status": {"status": "loading"},
}


def both(monkeypatch: pytest.MonkeyPatch, make: Any, data: bytes) -> tuple[list[Any], list[Any]]:
    """The events of the two ways, as they are stored."""
    short = [encode(e) for e in decode(make(), [data])]
    monkeypatch.setattr(responses, "_MOST_MISSES", 0)
    monkeypatch.setattr(ollama, "_MOST_MISSES", 0)
    return short, [encode(e) for e in decode(make(), [data])]


def responses_stream(*payloads: dict[str, Any]) -> bytes:
    return b"".join(encode_frame(json.dumps(p), event=p.get("type")) for p in payloads)


@pytest.mark.parametrize("fields", RESPONSES.values(), ids=RESPONSES)
def test_an_odd_delta_of_responses(monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any]) -> None:
    odd = {k: v for k, v in (PIECE | fields).items() if v is not None}
    end = {"type": "response.completed", "response": {"id": "r", "status": "completed"}}
    data = responses_stream(PIECE, PIECE, odd, PIECE, PIECE, end, PIECE)
    short, general = both(monkeypatch, ResponsesDecoder, data)
    assert short == general


@pytest.mark.parametrize("fields", OLLAMA.values(), ids=OLLAMA)
def test_an_odd_line_of_ollama(monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any]) -> None:
    plain = LINE | {"message": {"role": "assistant", "content": "a"}}
    end = LINE | {"message": {"content": ""}, "done": True, "done_reason": "stop"}
    lines = (plain, plain, LINE | fields, plain, plain, end, plain)
    data = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    short, general = both(monkeypatch, OllamaDecoder, data)
    assert short == general


def test_half_a_character_waits_for_its_other_half(monkeypatch: pytest.MonkeyPatch) -> None:
    halves = (PIECE, PIECE | {"delta": "\ud83d"}, PIECE | {"delta": "\ude00"}, PIECE)
    short, general = both(monkeypatch, ResponsesDecoder, responses_stream(*halves))
    assert short == general
    assert any("😀" in str(json.loads(e).get("text")) for e in short)


def test_the_short_way_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    general = ResponsesDecoder.payload

    def payload(self: ResponsesDecoder, value: dict[str, Any], event: str) -> None:
        seen.append(event)
        general(self, value, event)

    monkeypatch.setattr(ResponsesDecoder, "payload", payload)
    decoder = ResponsesDecoder()
    decode(decoder, [responses_stream(*[PIECE] * 9)])
    assert (len(seen), decoder.payloads, decoder.cursor) == (1, 9, 5)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c["id"])
def test_a_case(monkeypatch: pytest.MonkeyPatch, case: dict[str, Any]) -> None:
    make = ResponsesDecoder if case["family"] == "responses" else OllamaDecoder
    data = case["raw"].encode() if "raw" in case else responses_stream(*case["payloads"])
    short, general = both(monkeypatch, make, data)
    assert short == general


@needs_corpus
@pytest.mark.parametrize("recording", RECORDED, ids=repr)
def test_a_recording(monkeypatch: pytest.MonkeyPatch, recording: Recording) -> None:
    make = ResponsesDecoder if recording.family == "responses" else OllamaDecoder
    short, general = both(monkeypatch, make, recording.wire)
    assert short == general
