"""Every recording of the native families decodes to its manifest's facts, however it is cut."""

from __future__ import annotations

import pytest

from support.corpus import (
    Recording,
    cut_every,
    cut_randomly,
    decode,
    merged,
    needs_corpus,
    recordings,
)
from support.native import check, decode_all, item_types
from support.order import in_order
from tokenwire.events.model import Heartbeat
from tokenwire.providers import cohere, ollama
from tokenwire.providers.anthropic import decoder as anthropic
from tokenwire.providers.bedrock import converse as bedrock_converse
from tokenwire.providers.google import gemini
from tokenwire.providers.google import interactions as gemini_interactions
from tokenwire.providers.openai import completions
from tokenwire.providers.openai import responses as openai_responses
from tokenwire.providers.summary import facts

DIALECTS = {
    "messages": anthropic.DIALECT,
    "gemini": gemini.DIALECT,
    "responses": openai_responses.DIALECT,
    "interactions": gemini_interactions.DIALECT,
    "ollama": ollama.DIALECT,
    "ollama-generate": ollama.DIALECT,
    "cohere-v2": cohere.DIALECT,
    "converse": bedrock_converse.DIALECT,
    "completions": completions.DIALECT,
}
#: An old server put a finish reason, the wire's only end marker, on every chunk.
MANY_ENDS = "gemini/genaijs-streaming-failure-recitation-no-content.sse"
#: What a person reads and a tool runs on.
SAID = ("text", "reasoning", "refusal", "tool_calls", "finish_reason")
NATIVE = [r for family in DIALECTS for r in recordings(family)]


def plain(events):
    return merged([e for e in events if not isinstance(e, Heartbeat)])


@needs_corpus
@pytest.mark.parametrize("recording", NATIVE, ids=repr)
def test_facts(recording: Recording) -> None:
    dialect = DIALECTS[recording.family]
    decoder, events = decode_all(dialect, recording.raw, recording.content_type)
    assert check(recording, decoder, events) == {}


@needs_corpus
@pytest.mark.parametrize("recording", NATIVE, ids=repr)
def test_cuts(recording: Recording) -> None:
    dialect = DIALECTS[recording.family]
    whole = decode(dialect.decoder(), [recording.raw])
    for cut in (cut_every(7), cut_randomly(1), cut_every(1)):
        pieces = decode(dialect.decoder(), cut(recording.raw))
        assert plain(pieces) == plain(whole)


@needs_corpus
@pytest.mark.parametrize(
    "recording",
    [r for r in NATIVE if "item_types" in r.expected and r.family != "gemini"],
    ids=repr,
)
def test_items(recording: Recording) -> None:
    dialect = DIALECTS[recording.family]
    _, events = decode_all(dialect, recording.raw)
    assert item_types(events) == recording.expected["item_types"]


@needs_corpus
@pytest.mark.parametrize("recording", [r for r in NATIVE if r.file != MANY_ENDS], ids=repr)
def test_a_cut_answer_never_looks_whole(recording: Recording) -> None:
    dialect, raw = DIALECTS[recording.family], recording.raw
    whole = facts(decode(dialect.decoder(), [raw]))
    for tenths in range(10):
        events = decode(dialect.decoder(), [raw[: len(raw) * tenths // 10]])
        in_order(events)
        found, end = facts(events), events[-1]
        if end.status == "complete":  # only what follows the end marker was cut off
            assert {k: found[k] for k in SAID} == {k: whole[k] for k in SAID}
        for call in found["tool_calls"]:
            assert call["arguments"] is None or call in whole["tool_calls"]
