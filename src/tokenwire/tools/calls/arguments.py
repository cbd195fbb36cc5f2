"""The JSON text of a call's arguments to a value, refusing whatever two readers could read in two
ways.

Always true: pure; any text gives a value or a reason in linear time, never an exception; a value
that comes out can be encoded as JSON again.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final

__all__ = ["MAX_ARGUMENT_BYTES", "MAX_DEPTH", "InvalidJSON", "depth_of", "parse_json"]

#: Deep enough for every real schema; far below where parsers and printers overflow their stacks.
MAX_DEPTH: Final = 64
#: A call's arguments are a question, not a file.
MAX_ARGUMENT_BYTES: Final = 256 * 1024
#: What a JSON number without a fraction may be, so that every encoder can write it again.
_INT_RANGE: Final = range(-(2**63), 2**64)
#: A whole string (its brackets do not count), or one bracket.
_NESTING: Final = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)


class InvalidJSON(ValueError):
    """The text is no acceptable JSON; ``str(error)`` says why."""


def parse_json(text: str, *, most: int = MAX_ARGUMENT_BYTES, depth: int = MAX_DEPTH) -> Any:
    """The value of a JSON text. Raises `InvalidJSON`: too long, too deep, duplicate keys, NaN or
    infinity, numbers out of range, lone surrogates, or no JSON at all."""
    if len(text) > most:
        raise InvalidJSON(f"longer than {most} bytes")
    if depth_of(text, stop=depth) > depth:
        raise InvalidJSON(f"nested deeper than {depth} levels")
    try:
        value = _decoder.decode(text)
        if "\\u" in text or not text.isascii():
            _encodable(value, most)
    except InvalidJSON:
        raise
    except json.JSONDecodeError as error:
        raise InvalidJSON(f"not valid JSON: {error.msg} at character {error.pos}") from None
    except ValueError:  # a number of thousands of digits
        raise InvalidJSON("a number is out of range") from None
    return value


def depth_of(text: str, *, stop: int = MAX_DEPTH) -> int:
    """How deep brackets nest, counted without recursion; no further than ``stop + 1``."""
    level = deepest = 0
    for match in _NESTING.finditer(text):
        first = text[match.start()]
        if first in "[{":
            level += 1
            deepest = max(deepest, level)
            if deepest > stop:
                break
        elif first in "]}":
            level -= 1
    return deepest


def _encodable(value: Any, most: int) -> None:
    try:
        size = len(json.dumps(value, ensure_ascii=False).encode())
    except UnicodeEncodeError:
        raise InvalidJSON("a string holds half of a surrogate pair") from None
    if size > most:
        raise InvalidJSON(f"longer than {most} bytes")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        keys: set[str] = set()
        for key, _ in pairs:
            if key in keys:
                raise InvalidJSON(f"the key {key[:80]!r} occurs twice in one object")
            keys.add(key)
    return value


def _constant(name: str) -> Any:
    raise InvalidJSON(f"{name} is not a JSON number")


def _integer(digits: str) -> int:
    number = int(digits)
    if number not in _INT_RANGE:
        raise InvalidJSON("a number is out of range")
    return number


def _float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise InvalidJSON("a number is out of range")
    return number


_decoder = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_constant, parse_int=_integer, parse_float=_float
)
