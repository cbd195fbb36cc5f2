"""Every recording of the native families decodes to its manifest's facts, however it is cut."""

from __future__ import annotations

import pytest

from corpus_support import (
    Recording,
    cut_every,
    cut_randomly,
    decode,
    merged,
    needs_corpus,
    recordings,
)
from native_support import check, decode_all, item_types
from tokenwire.events.model import Heartbeat
from tokenwire.providers import (
    anthropic,
    bedrock_converse,
    cohere,
    completions,
    gemini,
    gemini_interactions,
    ollama,
    openai_responses,
)

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
#: Where we disagree with a manifest on purpose: {file: {fact: (the manifest's, ours)}}.
DISAGREEMENTS = {
    # Asked for integer enums, Vertex says 1 for STOP; our field for the provider's word is a text.
    "vertex-gemini/openinference-test-gemini-token-counts-streaming.json": {
        "finish_reason": (1, "1")
    },
    # A blocked prompt is the whole answer: no candidate will follow, so nothing was cut off.
    "vertex-gemini/vertextest-streaming-failure-prompt-blocked-safety-with-message.sse": {
        "finish_reason": (None, "SAFETY"),
        "complete": (False, True),
    },
}
NATIVE = [r for family in DIALECTS for r in recordings(family)]


def plain(events):
    return merged([e for e in events if not isinstance(e, Heartbeat)])


@needs_corpus
@pytest.mark.parametrize("recording", NATIVE, ids=repr)
def test_facts(recording: Recording) -> None:
    dialect = DIALECTS[recording.family]
    decoder, events = decode_all(dialect, recording.raw, recording.content_type)
    assert check(recording, decoder, events) == DISAGREEMENTS.get(recording.file, {})


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
