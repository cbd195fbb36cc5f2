"""Whatever a tool returned, to JSON that a model can read, or the reason why not.

Always true: pure; the work is bounded by the tool's cap, however large, deep or cyclic the value
is; what comes out can be encoded, logged and sent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from typing import Any, Final

import msgspec

from tokenwire.errors import TokenwireError
from tokenwire.tools.calls.arguments import MAX_DEPTH

__all__ = ["BadResult", "error_text", "json_value"]

#: What looks like a secret or a place on this machine, in the words of somebody's exception.
_SECRETS: Final = re.compile(
    r"(?:sk|pk|rk|key|ghp|gho|xox[abp])[-_][A-Za-z0-9_\-]{12,}"
    r"|(?i:bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}"
    r"|(?i:api[_-]?key|token|password|secret|authorization)[\"']?\s*[=:]\s*[\"']?[^\s\"',;&]+"
    r"|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"
)


class BadResult(ValueError):
    """The value is no acceptable result; ``code`` is ``oversize`` or ``bad_result``."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def json_value(value: Any, cap: int) -> Any:
    """The value as plain JSON, at most ``cap`` bytes. Raises `BadResult`."""
    if isinstance(value, str):
        return _text(value, cap)
    if hasattr(value, "model_dump"):
        try:
            value = value.model_dump(mode="json")
        except (ValueError, RecursionError) as error:
            raise BadResult("bad_result", f"a {type(value).__name__} cannot be dumped") from error
    _measure(value, cap)
    try:
        data = msgspec.json.encode(value, enc_hook=_plain)
        plain = msgspec.json.decode(data)
    except (TypeError, NotImplementedError):
        kind = type(value).__name__
        raise BadResult("bad_result", f"the result ({kind}) is not made of JSON values") from None
    except RecursionError:
        raise BadResult("bad_result", "the result contains itself or nests too deep") from None
    except (ValueError, OverflowError, UnicodeError) as error:
        raise BadResult("bad_result", f"the result is no JSON: {type(error).__name__}") from None
    if len(data) > cap:
        raise _oversize(cap)
    return plain


def error_text(error: BaseException, most: int = 500) -> str:
    """An exception in words for the model and the person: bounded, without obvious secrets."""
    try:
        words = str(error)[: 4 * most]
    except Exception:  # an exception whose own __str__ is broken
        words = ""
    words = _SECRETS.sub("***", words).encode("utf-8", "replace").decode()
    if isinstance(error, TokenwireError) and words:  # written for whoever reads it
        return words[:most]
    name = type(error).__name__
    return (f"{name}: {words}" if words else name)[:most]


def _text(value: str, cap: int) -> str:
    if len(value) > cap:
        raise _oversize(cap)
    if value.isascii():
        return value
    data = value.encode("utf-8", "replace")
    if len(data) > cap:
        raise _oversize(cap)
    return data.decode()


def _measure(value: Any, cap: int) -> None:
    """Stop early at what is too big, too deep or cyclic, before anything copies it."""
    budget = cap
    open_ids: set[int] = set()
    stack: list[tuple[Any, bool]] = [(value, False)]
    while stack:
        item, leaving = stack.pop()
        if leaving:
            open_ids.discard(id(item))
            continue
        budget -= len(item) if isinstance(item, str | bytes | bytearray) else 1
        if budget < 0:
            raise _oversize(cap)
        if not isinstance(item, Mapping | list | tuple | Set):
            continue
        if id(item) in open_ids:
            raise BadResult("bad_result", "the result contains itself")
        if len(open_ids) >= MAX_DEPTH:
            raise BadResult("bad_result", f"the result nests deeper than {MAX_DEPTH} levels")
        if len(item) > budget:
            raise _oversize(cap)
        open_ids.add(id(item))
        stack.append((item, True))
        if isinstance(item, Mapping):
            stack.extend((part, False) for pair in item.items() for part in pair)
        else:
            stack.extend((part, False) for part in item)


def _plain(value: Any) -> Any:
    """Values of other libraries that say themselves what they are."""
    for name, arguments in (("model_dump", {"mode": "json"}), ("tolist", {}), ("isoformat", {})):
        method = getattr(value, name, None)
        if callable(method):
            return method(**arguments)
    if isinstance(value, Mapping):
        return dict(value)
    raise NotImplementedError


def _oversize(cap: int) -> BadResult:
    return BadResult("oversize", f"the result is larger than {cap} bytes; ask for less")
