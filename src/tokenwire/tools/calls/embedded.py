"""The JSON value in a model's answer that also has other text: a byte-order mark, prose, a fence.

Always true: a value is taken whole or not at all: what is inside one that was cut off is never
taken for the answer; the work grows linearly with the text.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

__all__ = ["json_candidates"]

_FENCE: Final = "```"
_CLOSING: Final = {"{": "}", "[": "]"}
#: Values that are looked at; an answer with more is no answer of one value.
_MOST: Final = 8


def json_candidates(text: str) -> Iterator[str]:
    """What may be the requested JSON, best first: the whole text (or its one fenced block), fenced
    blocks, then objects and arrays that stand in prose."""
    text = text.removeprefix("\ufeff").strip().removeprefix("\ufeff")
    blocks = list(_fenced(text))
    outer = _outer(text)
    yield outer if outer is not None else text
    yield from blocks[:_MOST]
    if not blocks:
        yield from _values(text)


def _outer(text: str) -> str | None:
    """What stands in a fenced block, when the whole text is one; it may hold fences itself."""
    if len(text) < 2 * len(_FENCE) or not (text.startswith(_FENCE) and text.endswith(_FENCE)):
        return None
    language, _, content = text[len(_FENCE) : -len(_FENCE)].partition("\n")
    language = language.strip()
    return content if not language or (language.isascii() and language.isalpha()) else None


def _fenced(text: str) -> Iterator[str]:
    """The contents of fenced blocks that are closed."""
    pieces = text.split(_FENCE)
    for block in pieces[1 : len(pieces) - (len(pieces) % 2 == 0) : 2]:
        language, line, content = block.partition("\n")
        if not line or "{" in language or "[" in language:  # all on one line, perhaps with a word
            starts = [i for i in (block.find("{"), block.find("[")) if i >= 0]
            content = block[min(starts) :] if starts else block
        yield content.strip()


def _values(text: str) -> Iterator[str]:
    """Balanced objects and arrays, from the outermost bracket on; none after one that is open."""
    found, at = 0, 0
    while found < _MOST:
        starts = [i for i in (text.find("{", at), text.find("[", at)) if i >= 0]
        if not starts:
            return
        start = min(starts)
        end = _end_of(text, start)
        if end is None:
            return
        yield text[start:end]
        found, at = found + 1, end


def _end_of(text: str, start: int) -> int | None:
    """The place after the value that begins at ``start``; None when it is not closed."""
    stack: list[str] = []
    in_string = is_escaped = False
    for place in range(start, len(text)):
        character = text[place]
        if in_string:
            if is_escaped:
                is_escaped = False
            elif character == "\\":
                is_escaped = True
            elif character == '"':
                in_string = False
        elif character == '"':
            in_string = True
        elif character in _CLOSING:
            stack.append(_CLOSING[character])
        elif character in ("}", "]"):
            if stack.pop() != character:
                return None
            if not stack:
                return place + 1
    return None
