"""Every recording of a Chat Completions stream gives the facts of its manifest, however cut."""

from __future__ import annotations

import pytest

from support.corpus import (
    Recording,
    cut_every,
    cut_randomly,
    decode,
    differences,
    merged,
    needs_corpus,
    recordings,
)
from tokenwire.providers.openai.chat import DIALECT
from tokenwire.providers.summary import facts

CHAT = recordings("chat")
#: Where we differ from a manifest on purpose: file -> {fact: why}.
ON_PURPOSE: dict[str, dict[str, str]] = {}


def new(recording: Recording):
    return DIALECT.decoder(content_type=recording.content_type)


@needs_corpus
def test_the_recordings_are_all_there() -> None:
    assert len(CHAT) == 219


@pytest.mark.parametrize("recording", CHAT, ids=repr)
def test_a_recording_decodes_to_its_facts(recording: Recording) -> None:
    events = decode(new(recording), [recording.wire])
    found = differences(recording.expected, facts(events))
    assert {k: v for k, v in found.items() if k not in ON_PURPOSE.get(recording.file, {})} == {}


#: Byte by byte is slow, so every large recording is cut in one of three ways and small ones in all.
SMALL = 6000
CUTS = {"1": cut_every(1), "7": cut_every(7), "random": cut_randomly(20261123)}


@pytest.mark.parametrize("cut", CUTS)
@needs_corpus
def test_any_cut_gives_the_same_events(cut: str) -> None:
    way = list(CUTS).index(cut)
    for number, recording in enumerate(CHAT):
        wire = recording.wire
        if len(wire) > SMALL and (number % 3 != way or len(wire) > 120_000):
            continue
        whole = merged(decode(new(recording), [wire]))
        pieces = merged(decode(new(recording), CUTS[cut](wire)))
        assert pieces == whole, recording.file
