"""The regular expressions of the TypeScript packages, as patterns of this language.

Both engines backtrack, so what is superlinear in one is in the other. A literal is told from a
division by what stands before it; strings, templates and comments are skipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from support.worst_cases import Found

PACKAGES = Path(__file__).parents[2] / "packages"

_SKIPPED = r"""//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'"""
_LITERAL = (
    r"/((?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\[\n*])(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\[\n])*)/"
)
_TOKEN = re.compile(rf"({_SKIPPED})|{_LITERAL}([dgimsuvy]*)", re.DOTALL)
#: A value ends so: a slash behind it divides. Words that are followed by a value are none.
_VALUE = re.compile(r"[\w$)\]}]\s*\Z")
_WORD = re.compile(r"\b(?:return|typeof|case|in|of|yield|await|else|do|void|delete)\s*\Z")


def script_patterns() -> list[Found]:
    """Every literal of the packages' sources. Raises `re.error` for one that cannot be translated,
    so that none is left out."""
    files = sorted(path for path in PACKAGES.glob("*/src/**/*.ts*") if path.is_file())
    return [
        Found(f"{path.relative_to(PACKAGES)}: /{source}/{flags}", translated(source, flags), NEVER)
        for path in files
        for source, flags in literals(path.read_text("utf-8"))
    ]


NEVER: frozenset[str] = frozenset()


def literals(text: str) -> Iterator[tuple[str, str]]:
    """Source and flags of each literal."""
    place = 0
    while match := _TOKEN.search(text, place):
        place = match.end()
        if match[1] is not None:
            continue
        before = text[max(0, match.start() - 40) : match.start()]
        if _VALUE.search(before) and not _WORD.search(before):
            place = match.start() + 1  # a division
            continue
        yield match[2], match[3]


def translated(source: str, flags: str) -> re.Pattern[str]:
    """A pattern of JavaScript in this language."""
    text = re.sub(r"\(\?<(?![=!])", "(?P<", source)
    text = re.sub(r"\\k<", "(?P=", text)
    text = text.replace("[^]", r"[\s\S]")
    text = re.sub(r"\\u\{([0-9a-fA-F]+)\}", lambda m: rf"\U{int(m[1], 16):08x}", text)
    end = "$" if "m" in flags else r"\\Z"
    pieces = re.split(r"(\[(?:\\.|[^\]\\])*\])", text)  # every second one is a class
    for place, piece in enumerate(pieces):
        wide = r"\\u00a1-\\uffff" if place % 2 else r"[\\u00a1-\\uffff]"
        piece = re.sub(r"\\[pP]\{[^}]*\}", wide, piece)
        pieces[place] = piece if place % 2 else re.sub(r"(?<!\\)\$", end, piece)
    text = "".join(pieces)
    number = re.ASCII
    for flag, value in (("i", re.I), ("m", re.M), ("s", re.DOTALL)):
        number |= value if flag in flags else 0
    return re.compile(text, number)
