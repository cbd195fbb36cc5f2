"""The JSON value in a model's answer that also has other text: a byte-order mark, prose, a fence.

Always true: a value is taken whole or not at all: what is inside one that was cut off is never
taken for the answer; the work grows linearly with the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

__all__ = ["ValueText", "json_candidates"]

_FENCE: Final = "```"
_CLOSING: Final = {"{": "}", "[": "]"}
#: The first characters of a value in prose: brackets, and what only JSON has after them.
_BEGIN: Final = re.compile(r"\{\s*(?=[\"}])|\[\s*(?=[\"{\[\]\d\-tfn])")
#: A bracket at the end of what came, which may begin a value.
_MAYBE: Final = re.compile(r"[{\[]\s*\Z")
#: What can change the nesting of a JSON text; a backslash with what it escapes.
_MARKS: Final = re.compile(r"\\.?|[\"{}\[\]]", re.DOTALL)
_BLANK: Final = "\ufeff \t\r\n"
#: What a model thought, where its server leaves that in the answer.
_THINK, _THOUGHT = "<think>", "</think>"
_SCALAR: Final = frozenset('"-0123456789')
#: Values that are looked at; an answer with more is no answer of one value.
_MOST: Final = 8


def json_candidates(text: str) -> Iterator[str]:
    """What may be the requested JSON, best first: the whole text (or its one fenced block), fenced
    blocks, then objects and arrays that stand in prose."""
    text = text.removeprefix("\ufeff").strip().removeprefix("\ufeff")
    if text.startswith(_THINK):
        thought, _, answer = text.partition(_THOUGHT)
        if not answer:
            yield thought  # no JSON: what stands in a thought is no answer
            return
        text = answer.strip()
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


class ValueText:
    """The text of the one value in an answer that is still being written: from its first bracket to
    its last, without what stands around it. An object after a list replaces it, since lists in
    prose are more often notes than answers. Any cut of the answer gives the same text."""

    def __init__(self) -> None:
        #: How often a value has begun; the text of an earlier one is none of the later one's.
        self.values = 0
        self._bracket = ""  # of the value that has begun last
        self._inside = self._is_scalar = self._prose = False
        self._rest = ""
        self._depth = 0
        self._in_string = self._is_escaped = False
        #: What came before it is clear whether the answer begins with a thought; then None.
        self._head: str | None = ""
        self._in_thought = False

    def feed(self, piece: str) -> str:
        """The text of the value in the next piece of the answer; when `values` has grown, it is
        that of a new value."""
        text = ""
        if self._head is not None:
            piece = self._past_thought(self._head + piece)
        while piece and not self._is_scalar:
            if not self._inside:
                piece = self._begin(piece)
                if self._inside:
                    text = ""
                continue
            end = self._end(piece)
            text, piece = text + piece[:end], piece[end:]
        return piece if self._is_scalar else text

    def _past_thought(self, piece: str) -> str:
        """The piece without the thought that the answer begins with, or as much as is clear."""
        self._head = None
        if not self._in_thought:
            start = piece.lstrip(_BLANK)
            if len(start) < len(_THINK) and _THINK.startswith(start):
                self._head = piece
                return ""
            if not start.startswith(_THINK):
                return piece
            self._in_thought = True
        _, end, answer = piece.partition(_THOUGHT)
        if not end:
            self._head = piece[1 - len(_THOUGHT) :]
        return answer

    def _begin(self, piece: str) -> str:
        """Find where a value begins: what is left from there on."""
        piece, self._rest = self._rest + piece, ""
        if not self.values:
            piece = piece.lstrip(_BLANK)
            if not self._prose and piece and piece[0] in _SCALAR:
                self.values, self._is_scalar = 1, True
                return piece
            self._prose = self._prose or bool(piece)
        at = 0
        while (match := _BEGIN.search(piece, at)) is not None:
            bracket = match[0][0]
            if not self._bracket or (self._bracket, bracket) == ("[", "{"):
                self.values += 1
                self._bracket, self._inside = bracket, True
                return piece[match.start() :]
            at = match.end()
        maybe = _MAYBE.search(piece, at)
        self._rest = maybe[0] if maybe is not None else ""
        return ""

    def _end(self, piece: str) -> int:
        """Where the value ends in this piece, or the piece does."""
        start, self._is_escaped = int(self._is_escaped), False
        for mark in _MARKS.finditer(piece, start):
            sign = mark[0]
            if sign[0] == "\\":
                self._is_escaped = len(sign) == 1
            elif sign == '"':
                self._in_string = not self._in_string
            elif not self._in_string:
                self._depth += 1 if sign in "{[" else -1
                if self._depth == 0:
                    self._inside = False
                    return mark.end()
        return len(piece)
