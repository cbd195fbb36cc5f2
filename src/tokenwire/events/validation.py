"""A value that does not fit its type, in words: which field, what it must be, what it is.

Always true: the words name the field by its path (``messages[0].role``) and hold nothing of the
value but an enumeration's wrong word.
"""

from __future__ import annotations

import re

import msgspec

from tokenwire.errors import InputError

__all__ = ["misfit"]

_AT = re.compile(r" - at `\$\.?([^`]*)`$")
_TYPES = {
    "str": "a text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "object": "an object",
    "array": "a list",
    "null": "null",
}
#: (what msgspec says, the same about a field), the first that fits.
_WORDS: list[tuple[re.Pattern[str], str]] = [
    (re.compile(r"Expected `(?:float|int)` >= (\S+)"), "must be at least {0}"),
    (re.compile(r"Expected `(?:float|int)` <= (\S+)"), "must be at most {0}"),
    (re.compile(r"Expected `array` of length <= (\d+)"), "may have at most {0} elements"),
    (re.compile(r"Expected `str` of length <= (\d+)"), "may have at most {0} characters"),
    (re.compile(r"Expected `str` of length >= (\d+)"), "must have at least {0} characters"),
    (re.compile(r"Expected `str` matching regex '(.*)'"), "must match {0}"),
    (re.compile(r"Invalid (?:enum )?value (.*)"), "cannot be {0}"),
]
_TYPE = re.compile(r"Expected `([^`]*)`, got `([^`]*)`")
_UNKNOWN = re.compile(r"Object contains unknown field `([^`]*)`")
_MISSING = re.compile(r"Object missing required field `([^`]*)`")


def misfit(error: msgspec.ValidationError, *, at: str = "", whole: str = "the body") -> InputError:
    """The error for whoever gave the value. ``at``: where the value stands; ``whole``: what it is
    called when all of it is wrong."""
    text = str(error)
    place = _AT.search(text)
    path = at
    if place is not None and place[1]:
        path += place[1] if not at or place[1].startswith("[") else f".{place[1]}"
    said = _AT.sub("", text)
    for pattern, words in ((_UNKNOWN, "unknown field '{0}'"), (_MISSING, "'{0}' is missing")):
        found = pattern.fullmatch(said)
        if found is not None:
            field = f"{path}.{found[1]}" if path else found[1]
            return InputError(words.format(field), field=field)
    return InputError(f"'{path}' {_must(said)}" if path else f"{whole} {_must(said)}", field=path)


def _must(said: str) -> str:
    found = _TYPE.fullmatch(said)
    if found is not None:
        wanted = [_TYPES.get(word, word) for word in found[1].split(" | ") if word != "null"]
        given = "a fraction" if found[2] == "float" else _TYPES.get(found[2], found[2])
        return f"must be {' or '.join(wanted)}, not {given}"
    for pattern, words in _WORDS:
        found = pattern.fullmatch(said)
        if found is not None:
            return words.format(found[1].replace("\\\\", "\\"))
    return f"does not fit: {said[0].lower()}{said[1:]}"
