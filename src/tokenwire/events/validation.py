"""Validation errors in words: which field, what it must be, what it is.

Always true: the message names the field by its path (``messages[0].role``) and contains nothing of
the value but an enumeration's unknown word.
"""

from __future__ import annotations

import re

import msgspec

from tokenwire.errors import InputError

__all__ = ["input_error", "quoted", "whole_number"]

_AT = re.compile(r" - at `\$\.?([^`]*)`\Z")
_TYPES = {
    "str": "a text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "object": "an object",
    "array": "a list",
    "null": "null",
}
#: (msgspec's message, ours), the first match.
_WORDS: list[tuple[re.Pattern[str], str]] = [
    (re.compile(r"Expected `(?:float|int)` >= (\S+)"), "must be at least {0}"),
    (re.compile(r"Expected `(?:float|int)` <= (\S+)"), "must be at most {0}"),
    (re.compile(r"Expected `array` of length <= (\d+)"), "may have at most {0} elements"),
    (re.compile(r"Expected `str` of length <= (\d+)"), "may have at most {0} characters"),
    (re.compile(r"Expected `str` of length >= (\d+)"), "must have at least {0} characters"),
    (re.compile(r"Expected `str` matching regex '(.*)'"), "must match {0}"),
    (re.compile(r"Invalid (?:enum )?value (.*)"), "cannot be {0}"),
]
#: Characters of a name that a caller gave, and of all that is said of it.
_MOST_NAME, _MOST_TEXT = 80, 2000
_TYPE = re.compile(r"Expected `([^`]*)`, got `([^`]*)`")
_UNKNOWN = re.compile(r"Object contains unknown field `([^`]*)`")
_MISSING = re.compile(r"Object missing required field `([^`]*)`")


def input_error(
    error: msgspec.ValidationError, *, at: str = "", whole: str = "the body"
) -> InputError:
    """The error for the caller. ``at``: the path of the value; ``whole``: its name if the whole
    value is wrong."""
    text = quoted(str(error), _MOST_TEXT)
    place = _AT.search(text)
    path = at
    if place is not None and place[1]:
        path += place[1] if not at or place[1].startswith("[") else f".{place[1]}"
    problem = _AT.sub("", text)
    for pattern, words in ((_UNKNOWN, "unknown field '{0}'"), (_MISSING, "'{0}' is missing")):
        match = pattern.fullmatch(problem)
        if match is not None:
            name = quoted(match[1], _MOST_NAME)
            field = f"{path}.{name}" if path else name
            return InputError(words.format(field), field=field)
    return InputError(
        f"'{path}' {_must(problem)}" if path else f"{whole} {_must(problem)}", field=path
    )


def quoted(text: str, most: int = _MOST_NAME) -> str:
    """A text from outside as an error quotes it: its beginning and its end, where a parser says
    the place."""
    if len(text) <= most:
        return text
    return f"{text[: most // 2]}…{text[-(most // 2 - 1) :]}"


def whole_number(text: str, most_digits: int = 9) -> int | None:
    """A text of ASCII digits as a number; None for any other. (`str.isdigit` is true of texts that
    `int` refuses, such as ``"²"``.)"""
    if text.isascii() and text.isdigit() and len(text) <= most_digits:
        return int(text)
    return None


def _must(problem: str) -> str:
    match = _TYPE.fullmatch(problem)
    if match is not None:
        expected = [_TYPES.get(word, word) for word in match[1].split(" | ") if word != "null"]
        actual = "a fraction" if match[2] == "float" else _TYPES.get(match[2], match[2])
        return f"must be {' or '.join(expected)}, not {actual}"
    for pattern, words in _WORDS:
        match = pattern.fullmatch(problem)
        if match is not None:
            return words.format(match[1].replace("\\\\", "\\"))
    return f"is invalid: {problem[0].lower()}{problem[1:]}"
