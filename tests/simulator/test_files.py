"""Files that come with a question: described in the answer, never opened."""

from __future__ import annotations

from typing import Any

import pytest

from tokenwire.simulator.answers import answer
from tokenwire.simulator.files import files_of
from tokenwire.simulator.scenarios import script_for
from tokenwire.simulator.script import Ask, Say, SentFile, Turn
from tokenwire.simulator.wires.openai_chat import OpenAIChat


def ask(*contents: Any) -> Ask:
    messages = [{"role": "user", "content": content} for content in contents]
    return OpenAIChat().read({"messages": messages}, "/", {})


FILE = {
    "type": "file",
    "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,aGVsbG8="},
}


def test_a_file_is_named_with_its_type_and_size() -> None:
    text = answer(ask([FILE, {"type": "text", "text": "What is this?"}]), seed=1)
    assert "I cannot look into files" in text
    assert "`a.pdf`, `application/pdf`, 5 bytes" in text
    assert "> What is this?" in text
    assert "aGVsbG8" not in text


def test_a_file_without_words_is_a_question_of_its_own() -> None:
    both = ask("scenario:text", [FILE])
    assert both.prompt == ""
    (said,) = script_for(both, 1).steps
    assert isinstance(said, Say)
    assert "`a.pdf`" in said.text
    # And the next question without files is about itself again.
    assert "a.pdf" not in answer(ask([FILE], "Hello"), seed=1)


def test_a_scenario_is_played_whatever_comes_with_it() -> None:
    assert script_for(ask([FILE, {"type": "text", "text": "scenario:slow"}]), 1).name == "slow"


def test_names_and_types_are_no_markdown() -> None:
    files = [SentFile("`[x](http://e)`\n# big", "a`b", 1234567)]
    text = answer(Ask(model="demo", turns=[Turn("user", "", files=files)]), seed=1)
    assert "`[x](http://e)# big`, `ab`, 1,234,567 bytes" in text


def test_many_files_are_counted() -> None:
    files = [SentFile(f"{n}.txt", "text/plain", n) for n in range(25)]
    text = answer(Ask(model="demo", turns=[Turn("user", "", files=files)]), seed=1)
    assert "these 25 files" in text
    assert text.count("- `") == 20
    assert "- and 5 more" in text


@pytest.mark.parametrize(
    ("part", "wanted"),
    [
        (
            {"type": "image_url", "image_url": {"url": "https://h/a.png"}},
            SentFile("https://h/a.png", "image", None),
        ),
        (
            {"type": "input_image", "image_url": "data:image/png;base64,QUJD"},
            SentFile("", "image/png", 3),
        ),
        (
            {"type": "input_file", "file_url": "https://h/a.pdf"},
            SentFile("https://h/a.pdf", "file", None),
        ),
        (
            {"type": "input_audio", "input_audio": {"data": "QUI=", "format": "wav"}},
            SentFile("", "audio/wav", 2),
        ),
        (
            {"type": "document", "source": {"type": "url", "url": "https://h/a"}},
            SentFile("https://h/a", "document", None),
        ),
        (
            {"fileData": {"fileUri": "gs://b/a", "mimeType": "image/png"}},
            SentFile("gs://b/a", "image/png", None),
        ),
        ({"type": "file", "file": None}, None),
        ({"type": "image", "source": None}, None),
        ({"type": "new"}, None),
        ("no object", None),
    ],
)
def test_shapes_of_files(part: Any, wanted: SentFile | None) -> None:
    assert files_of([part]) == ([wanted] if wanted else [])


def test_text_files_are_found_among_the_words() -> None:
    text = (
        '<file name="a.txt" type="text/plain">\nHello\n</file>\n\n<file name="no end">\nWhat is it?'
    )
    found = ask(text)
    assert found.files == [SentFile("a.txt", "text/plain", 5)]
    assert found.prompt == '<file name="no end">\nWhat is it?'
