"""The arguments of one tool call as their text arrives, whatever a server makes of deltas.

Always true: the work is linear in the text; text that only repeats what came is not emitted again;
two different sets of arguments for one call make the call invalid, never one of the two.
"""

from __future__ import annotations

import json
import re
from typing import Any

from tokenwire.providers.decoding.values import parse_arguments

__all__ = ["ArgumentText", "resolve"]

#: What can change the nesting of a JSON text; a backslash with what it escapes.
_MARKS = re.compile(r'\\.?|["{}\[\]]', re.DOTALL)
#: What servers write for arguments that have not come yet, before the real ones.
_NOTHING = re.compile(r'\s*(?:null|""|\[\])\s*(?=[{"])')
_MOST_ENCODINGS = 3
_MOST_VALUES = 16
_TWICE = "the arguments came twice, and differ"


class ArgumentText:
    """The pieces of one call's arguments. ``pieces`` is what was emitted, in order."""

    __slots__ = (
        "_chars",
        "_depth",
        "_escaped",
        "_position",
        "_repeats",
        "_string",
        "pieces",
        "rest",
    )

    def __init__(self) -> None:
        self.pieces: list[str] = []
        #: What came after the arguments were whole: the same again, or the real ones.
        self.rest: list[str] | None = None
        #: Text that was taken for a repetition: the index of its place in `pieces`, and itself.
        self._repeats: list[tuple[int, str]] = []
        self._position = self._depth = self._chars = 0
        self._string = self._escaped = False

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self.pieces)

    def new_text(self, piece: str) -> str:
        """What of ``piece`` is to be emitted (the caller adds it to `pieces`)."""
        if self.rest is not None:
            self.rest.append(piece)
            return ""
        if piece[:1] != "{" or not self.pieces:
            return piece
        whole = self.is_whole()
        if len(piece) >= self._chars:
            text = self.text
            if text.lstrip()[:1] == "{" and piece.startswith(text):
                self._repeats.append((len(self.pieces), text))
                return piece[len(text) :]
        if whole:
            self.rest = [piece]
            return ""
        return piece

    def is_whole(self) -> bool:
        """Whether the text so far is one JSON object from its first bracket to its last."""
        pieces = self.pieces
        for position in range(self._position, len(pieces)):
            self._scan(pieces[position])
        self._position = len(pieces)
        return self._depth == 0 and not self._string and self.text.lstrip()[:1] == "{"

    def _scan(self, text: str) -> None:
        self._chars += len(text)
        start, self._escaped = int(self._escaped), False
        for mark in _MARKS.finditer(text, start):
            sign = mark[0]
            if sign[0] == "\\":
                self._escaped = len(sign) == 1
            elif sign == '"':
                self._string = not self._string
            elif not self._string:
                self._depth += 1 if sign in "{[" else -1

    def resolve(self, text: str | None = None) -> tuple[Any, str | None, str | None]:
        """(arguments, why there are none, the right text where the emitted one is not). ``text``:
        the provider's final text, which is checked against the pieces."""
        emitted = self.text
        value, error, right = resolve(emitted, "".join(self.rest or ()))
        if error is not None and self._repeats and self.rest is None:
            plain = self._plain()
            inner, no_plain, _ = resolve(plain)
            if no_plain is None:  # no repetition after all: an object inside of a like one
                value, error, right = inner, None, plain
        if text is None or not text.strip() or text == emitted:
            return value, error, right
        final, no_final, inner_text = resolve(text)
        if no_final is not None and error is None and emitted.strip():
            return value, error, right
        if error is None and value and no_final is None:
            if final == value or not final:
                return value, error, right
            return None, _TWICE, None
        return final, no_final, inner_text or text

    def _plain(self) -> str:
        """The pieces as they came."""
        pieces, start = list[str](), 0
        for place, text in self._repeats:
            pieces += [*self.pieces[start:place], text]
            start = place
        return "".join([*pieces, *self.pieces[start:]])


def resolve(text: str, rest: str = "") -> tuple[Any, str | None, str | None]:
    """(arguments, why there are none, the right text where ``text`` is not it): whole arguments
    that come more than once count once, empty ones give way, and an encoded text is decoded."""
    nothing = _NOTHING.match(text)
    if nothing is not None:
        value, error, right = resolve(text[nothing.end() :], rest)
        return value, error, right or text[nothing.end() :]
    value, error = parse_arguments(text)
    if error is None and not rest.strip():
        return value, None, None
    if not rest.strip():
        inner = _decoded(text)
        if inner is not None:
            return parse_arguments(inner)[0], None, inner
    values = _values(text + rest)
    if values is None or len(values) < 2:
        return None, error or _TWICE, None
    only, right = values[0]
    for entry, piece in values[1:]:
        if not only:
            only, right = entry, piece
        elif entry and entry != only:
            return None, error or _TWICE, None
    return (only, None, right) if only else (None, error or _TWICE, None)


def _decoded(text: str) -> str | None:
    """The text of an object that was encoded as a JSON string, perhaps more than once."""
    for _ in range(_MOST_ENCODINGS):
        if text.lstrip()[:1] != '"':
            return None
        try:
            inner = json.loads(text)
        except (ValueError, RecursionError):
            return None
        if not isinstance(inner, str):
            return None
        text = inner
        if text.lstrip()[:1] == "{" and parse_arguments(text)[1] is None:
            return text
    return None


def _values(text: str) -> list[tuple[dict[str, Any], str]] | None:
    """The objects of a text that holds several one after another, each with its own text; None
    when it holds anything else."""
    decoder = json.JSONDecoder()
    values: list[tuple[dict[str, Any], str]] = []
    rest = text.strip()
    while rest:
        try:
            value, end = decoder.raw_decode(rest)
        except (ValueError, RecursionError):
            return None
        piece, rest = rest[:end], rest[end:].lstrip()
        if isinstance(value, str):
            piece = _decoded(piece) or piece
        if piece[0] != "{" or len(values) >= _MOST_VALUES:
            return None
        arguments, error = parse_arguments(piece)
        if error is not None:
            return None
        values.append((arguments, piece))
    return values
