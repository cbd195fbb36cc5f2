"""Reasoning between tags inside the text, split off however the text is cut."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.corpus import decode
from tokenwire.framing.sse import encode_frame
from tokenwire.providers.openai.chat import DIALECT
from tokenwire.providers.openai.think_tags import ThinkSplitter
from tokenwire.providers.summary import facts


def split(pieces: list[str], *, begins_open: bool = False) -> dict[str, str]:
    splitter, found = ThinkSplitter(begins_open=begins_open), {"text": "", "reasoning": ""}
    for kind, piece in [p for x in pieces for p in splitter.feed(x)] + splitter.finish():
        found[kind] += piece
    return found


@pytest.mark.parametrize(
    ("text", "reasoning", "rest"),
    [
        ("<think>a</think>b", "a", "b"),
        ("b", "", "b"),
        ("a < b <thin", "", "a < b <thin"),
        ("<think>a</th", "a</th", ""),
        (" \n<think>a</think>b", "a", " \nb"),
        ("<think>a</think>y<think>b</think>z", "a", "y<think>b</think>z"),
        ("write <think> first", "", "write <think> first"),
        ("<<think>a", "", "<<think>a"),
        ("a</think>b", "", "ab"),
    ],
)
def test_tags_split_the_text(text: str, reasoning: str, rest: str) -> None:
    want = {"text": rest, "reasoning": reasoning}
    assert split([text]) == want
    assert split(list(text)) == want


@pytest.mark.parametrize(
    ("text", "reasoning", "rest"),
    [
        ("a</think>b", "a", "b"),
        ("<think>a</think>b", "a", "b"),
        ("a</think>b<think>c", "a", "b<think>c"),
        ("a", "a", ""),
    ],
)
def test_an_answer_may_begin_inside_its_reasoning(text: str, reasoning: str, rest: str) -> None:
    want = {"text": rest, "reasoning": reasoning}
    assert split([text], begins_open=True) == want
    assert split(list(text), begins_open=True) == want


@given(
    st.lists(st.sampled_from(["<think>", "</think>", "<", "/", "think>", "a", "</"]), max_size=12)
)
def test_any_cut_splits_alike(tokens: list[str]) -> None:
    whole = "".join(tokens)
    assert split([whole]) == split(list(whole)) == split(tokens)


@pytest.mark.parametrize("on", [True, False])
def test_the_decoder_splits_only_where_the_quirk_is_on(on: bool) -> None:
    chunks: list[Any] = [
        {"id": "r", "choices": [{"delta": {"content": c}}]} for c in "<think>a</think>b"
    ]
    data = b"".join(encode_frame(json.dumps(c)) for c in chunks) + encode_frame("[DONE]")
    found = facts(decode(DIALECT.decoder(quirks=frozenset({"think_tags"} if on else ())), [data]))
    assert found["text"] == ("b" if on else "<think>a</think>b")
    assert found["reasoning"] == ("a" if on else "")
