"""Cutting growing Markdown into blocks, and what a terminal may see."""

from __future__ import annotations

import io
import itertools
import os
import re
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenwire.cli.render import Blocks, MarkdownPrinter
from tokenwire.cli.terminal import Out, inert

LINES = st.lists(
    st.sampled_from(["text", "", "```", "```py", "~~~", "    code", "- item", "  ", "# head"]),
    max_size=20,
)


@given(LINES, st.lists(st.integers(0, 80), max_size=10))
def test_blocks_joined_are_the_text_however_it_was_cut(lines: list[str], cuts: list[int]) -> None:
    text = "\n".join(lines)
    marks = sorted({min(c, len(text)) for c in cuts} | {0, len(text)})
    whole, pieces = Blocks(), Blocks()
    once = whole.push(text) + whole.finish()
    cut: list[str] = []
    for start, end in itertools.pairwise(marks):
        cut += pieces.push(text[start:end])
    cut += pieces.finish()
    assert cut == once
    assert "\n".join(once).strip() == text.strip()


def test_a_blank_line_in_a_fence_ends_no_block() -> None:
    blocks = Blocks()
    assert blocks.push("```py\na = 1\n\nb = 2\n") == []
    assert blocks.open == "```py\na = 1\n\nb = 2\n"
    assert blocks.push("```\nafter") == ["```py\na = 1\n\nb = 2\n```"]
    assert blocks.finish() == ["after"]


@given(st.text())
def test_nothing_that_is_made_inert_can_act(text: str) -> None:
    shown = inert(text)
    assert not any(ord(c) < 32 and c not in "\n\t" for c in shown)
    assert not any(0x7F <= ord(c) < 0xA0 for c in shown)
    assert not any(0x202A <= ord(c) <= 0x202E or 0x2066 <= ord(c) <= 0x2069 for c in shown)
    shown.encode()


def test_ordinary_text_and_emoji_stay_as_they_are() -> None:
    for text in ("Grüße, 世界!\n\tünder", "👩\u200d💻 ❤\ufe0f 🏳\ufe0f\u200d🌈", "नमस्ते"):
        assert inert(text) == text


@pytest.mark.parametrize("width", [20, 50])
def test_drawn_lines_are_not_filled_with_blanks(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a terminal thinks an emoji wider than we do, a filled line would wrap."""
    screen = io.StringIO()
    monkeypatch.setattr("sys.stdout", screen)
    monkeypatch.setenv("COLUMNS", str(width))
    printer = MarkdownPrinter(Out())
    printer.text("Joined: 👩\u200d💻 and more words than fit.\n\n- a list\n\n> quoted\n\nlast")
    printer.finish()
    lines = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line) for line in screen.getvalue().split("\n")]
    assert any("👩" in line for line in lines)
    assert [line for line in lines if line != line.rstrip(" ")] == []


@pytest.mark.parametrize("marker", ["> ", "- ", "1. ", "> - ", "* > ", ">"])
@pytest.mark.parametrize("number", [3, 30, 2000])
def test_deep_nesting_loses_no_text(marker: str, number: int) -> None:
    from rich.console import Console

    from tokenwire.cli.render import _markdown

    console = Console(file=io.StringIO(), width=60, force_terminal=True)
    console.print(_markdown(marker * number + "the answer"))
    assert "the answer" in console.file.getvalue()  # type: ignore[attr-defined]


def test_each_output_is_judged_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file takes text as it is; a terminal and a pipe, behind which may be one, take it inert."""
    evil = "\x1b]52;c;aGk=\x07 report\u202egpj.exe \u00ad\U000e0041\x9b31m"
    read, write = os.pipe()
    with open(tmp_path / "out", "w") as file, os.fdopen(write, "w") as pipe:
        for out, error, is_clean in ((file, pipe, (False, True)), (pipe, file, (True, False))):
            monkeypatch.setattr(sys, "stdout", out)
            monkeypatch.setattr(sys, "stderr", error)
            here = Out()
            texts = here.clean(evil), here.clean_aside(evil)
            for text, clean in zip(texts, is_clean, strict=True):
                hidden = any(char in text for char in "\x1b\x07\u202e\u00ad\U000e0041\x9b")
                assert hidden is not clean
            raw = Out(raw=True)
            assert raw.clean(evil) == raw.clean_aside(evil) == evil
            monkeypatch.undo()
    os.close(read)
