"""Lenient reading of other people's JSON, and the small casts that every decoder needs.

Always true: a value that is read has no lone surrogates unless `read` says so; numbers that JSON
does not have (``NaN``, ``1e999``) are None, except in a tool's arguments, which they make invalid;
nesting is bounded, so that an encoder never runs out of stack.
"""

from __future__ import annotations

import json
import re
from typing import Any, cast

import msgspec

__all__ = [
    "arguments_in",
    "arguments_text",
    "check_depth",
    "citation",
    "clean",
    "clean_all",
    "decode",
    "dump",
    "holds_text",
    "index_of",
    "items",
    "load",
    "number",
    "obj",
    "parse_arguments",
    "read",
    "rest_of",
    "split_tail",
    "text_of",
    "texts_of",
    "tokens_of",
]

#: The strict and fast way; whatever it raises, `read` may still read the value.
decode = msgspec.json.Decoder().decode
_EMPTY: dict[str, Any] = {}
_MOST_DEPTH = 200  # real payloads stay under 20; schemas in them under 60
_MOST_DIGITS = 300
#: Halves of characters that no pair holds; U+DC80 to U+DCFF stand for single bytes.
_LONE = re.compile("[\ud800-\udbff\udc00-\udc7f\udd00-\udfff]")
#: The beginning of a character at the end of a text: a high surrogate, or bytes of UTF-8.
_TAIL = re.compile(
    "(?:[\ud800-\udbff]|[\udcc2-\udcdf]|[\udce0-\udcef][\udc80-\udcbf]?"
    "|[\udcf0-\udcf4][\udc80-\udcbf]{0,2})\\Z"
)
#: Keys of objects that hold text, in the order of preference.
_TEXT_KEYS = ("text", "content", "summary", "thinking", "reasoning", "reasoning_content")


def load(data: bytes | str) -> Any:
    """JSON to values. Lone surrogates become U+FFFD. Raises `ValueError` and nothing else."""
    value, loose = read(data)
    return clean_all(value) if loose else value


def read(data: bytes | str) -> tuple[Any, bool]:
    """JSON to values, and whether its texts may hold halves of characters: lone surrogates, or
    U+DC80 to U+DCFF for bytes that are not UTF-8. Raises `ValueError` and nothing else."""
    loose = False
    try:
        value = decode(data)
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        value, loose = _lenient(data), True
    if len(data) > 2 * _MOST_DEPTH:
        check_depth(data, value)
    return value, loose


def _lenient(data: bytes | str, *, exact: bool = False) -> Any:
    """What the strict reader rejects but others send: halves of characters, raw control
    characters, numbers out of range (rejected here too if ``exact``)."""
    number_of = _reject if exact else _none
    try:
        text = data.decode("utf-8", "surrogateescape") if isinstance(data, bytes) else data
        value = json.loads(text, parse_constant=number_of, parse_int=_integer, strict=False)
        return _finite(value, exact)
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None


def _none(_word: str) -> None:
    """A number that JSON does not have."""


def _reject(word: str) -> Any:
    raise ValueError(f"{word} is not JSON")


def _integer(digits: str) -> int | None:
    return int(digits) if len(digits) <= _MOST_DIGITS else None


def _finite(value: Any, exact: bool) -> Any:
    if isinstance(value, float):
        if value in (float("inf"), float("-inf")):
            return _reject("a number out of range") if exact else None
    elif isinstance(value, list):
        return [_finite(v, exact) for v in cast(list[Any], value)]
    elif isinstance(value, dict):
        return {k: _finite(v, exact) for k, v in cast(dict[str, Any], value).items()}
    return value


def check_depth(data: bytes | str, value: Any) -> None:
    """Reject what an encoder could not encode again for lack of stack."""
    brackets = (
        data.count(b"[") + data.count(b"{")
        if isinstance(data, bytes)
        else data.count("[") + data.count("{")
    )
    if brackets <= _MOST_DEPTH:
        return
    level: list[Any] = [value]
    for _ in range(_MOST_DEPTH):
        below: list[Any] = []
        for inner in level:
            if isinstance(inner, dict):
                below.extend(cast(dict[str, Any], inner).values())
            elif isinstance(inner, list):
                below.extend(cast(list[Any], inner))
        level = [v for v in below if isinstance(v, dict | list)]
        if not level:
            return
    raise ValueError("the JSON is nested too deeply")


# --- halves of characters ------------------------------------------------------------------------


def clean(text: str) -> str:
    """The text as valid Unicode: halves that belong together joined, others U+FFFD."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        pass
    else:
        return text
    joined = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    single = _LONE.sub("\ufffd", joined)
    return single.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def clean_all(value: Any) -> Any:
    """`clean` for every text in a JSON value."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list):
        return [clean_all(v) for v in cast(list[Any], value)]
    if isinstance(value, dict):
        pairs = cast(dict[str, Any], value).items()
        return {clean(k): clean_all(v) for k, v in pairs}
    return value


def split_tail(text: str) -> tuple[str, str]:
    """The text without the half of a character at its end, and that half."""
    match = _TAIL.search(text)
    return (text, "") if match is None else (text[: match.start()], match.group())


# --- values --------------------------------------------------------------------------------------


def dump(value: Any) -> str:
    """Values to compact JSON text."""
    try:
        return msgspec.json.encode(value).decode()
    except UnicodeEncodeError:
        return msgspec.json.encode(clean_all(value)).decode()


def parse_arguments(text: str) -> tuple[Any, str | None]:
    """Arguments as a JSON object, or why they are none. Empty text and ``null`` mean ``{}``."""
    if not text.strip():
        return {}, None
    try:
        try:
            value = decode(text)
        except RecursionError:
            raise ValueError("the JSON is nested too deeply") from None
        except (msgspec.MsgspecError, UnicodeError):
            value = clean_all(_lenient(text, exact=True))
        check_depth(text, value)
    except ValueError as error:
        return None, f"the arguments are not valid JSON: {error}"
    if value is None:
        return {}, None
    if not isinstance(value, dict):
        return None, "the arguments are not a JSON object"
    return cast(dict[str, Any], value), None


def obj(value: Any) -> dict[str, Any]:
    """The value if it is an object, else an empty one (absent, null or of another type)."""
    return cast(dict[str, Any], value) if isinstance(value, dict) else _EMPTY


def items(value: Any) -> list[Any]:
    """The value if it is a list, else an empty one."""
    return cast(list[Any], value) if isinstance(value, list) else []


def text_of(value: Any) -> str:
    """The value if it is a text, else an empty one."""
    return value if isinstance(value, str) else ""


def texts_of(value: Any, depth: int = 4) -> str:
    """All text in a text, a block that holds text, or a list of these."""
    if isinstance(value, str):
        return value
    if depth == 0:
        return ""
    if isinstance(value, list):
        return "".join(texts_of(v, depth - 1) for v in cast(list[Any], value))
    if isinstance(value, dict):
        block = cast(dict[str, Any], value)
        for key in _TEXT_KEYS:
            text = texts_of(block.get(key), depth - 1)
            if text:
                return text
    return ""


def holds_text(value: Any, depth: int = 4) -> bool:
    """Whether there is any text in a value that is not blank."""
    if isinstance(value, str):
        return bool(value.strip())
    if depth == 0 or not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return any(holds_text(v, depth - 1) for v in cast(list[Any], inner))


#: The largest whole number that a double holds exactly.
_MOST_TOKENS = 2**53 - 1


def rest_of(before: str, whole: str) -> str | None:
    """What a whole text adds to its deltas; None where it contradicts them."""
    if whole.startswith(before):
        return whole[len(before) :]
    return "" if before.strip().startswith(whole.strip()) else None


def number(value: Any) -> int | None:
    """The value as a count, if it is one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if abs(value) < 2**63 and value == value else None


def tokens_of(value: Any) -> int | None:
    """A count of tokens; some servers write ``"12"``. A negative one is none, nor is one that no
    client could read exactly: sums of such counts would not fit into a record."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 16:
        return int(value)
    count = number(value)
    return count if count is not None and 0 <= count <= _MOST_TOKENS else None


#: Names under which servers send a call's arguments.
_ARGUMENTS = ("arguments", "args", "input", "parameters", "params", "arguments_json")


def arguments_in(call: dict[str, Any]) -> Any:
    """The arguments of a call, under whichever name a server sends them; None when it sends none:
    a call would run without those that are under another name."""
    values = [call[name] for name in _ARGUMENTS if call.get(name) is not None]
    return next((v for v in values if v not in ("", {})), values[0] if values else None)


def arguments_text(call: dict[str, Any]) -> str:
    """The same as text; empty when there are none."""
    value = arguments_in(call)
    return "" if value is None else value if isinstance(value, str) else dump(value)


def index_of(value: Any) -> int | None:
    """The value as an index; some servers write ``"0"``."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        return int(value)
    return number(value)


def citation(raw: Any, **fields: Any) -> dict[str, Any]:
    """One form for every provider's citations: ``url``, ``title``, ``text`` (what is cited),
    ``start``/``end`` with ``unit``, ``source`` where known; the provider's object is ``raw``."""
    return {**{k: v for k, v in fields.items() if v is not None and v != ""}, "raw": raw}
