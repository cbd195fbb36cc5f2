"""Whether two requests mean the same, and where they differ.

Always true: the order of fields, whitespace, the names of ids and what only identifies the caller
do not matter; everything else does. Text that was redacted matches any text in its place.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import msgspec

from tokenwire.testing.cassettes.file import Body

__all__ = ["REDACTED", "Difference", "Meaning", "differences", "meaning"]

#: What stands in the place of redacted text.
REDACTED = "[redacted]"
#: Fields at the top of a body that say for whom, and not what.
_CALLER = frozenset({"user", "metadata", "safety_identifier", "prompt_cache_key"})
#: Fields whose texts are names that a provider or a framework draws: the same name in two places
#: matters, which one it is does not.
_IDS = frozenset(
    "id call_id tool_call_id tool_use_id item_id message_id response_id previous_response_id"
    " request_id run_id session_id thread_id conversation_id".split()
)
#: Whose ``id`` says which one is meant.
_NAMED = frozenset({"prompt"})
#: Parameters of an address that hold a key.
KEYS = frozenset({"key", "api_key", "api-key", "apikey", "access_token", "token", "sig"})
_MISSING = object()


class Difference(NamedTuple):
    """One place in which a request and a recorded one differ; ``repr`` of each side, or a word."""

    path: str
    requested: str
    recorded: str


class Meaning(msgspec.Struct, frozen=True):
    """What is compared of a request."""

    method: str
    address: str
    query: dict[str, str]
    body: Any


def meaning(method: str, url: str, body: Body, ignore: Iterable[str] = ()) -> Meaning:
    """The meaning of a request. ``ignore``: paths into a JSON body, such as ``messages.*.name``,
    that do not matter."""
    address, _, search = url.partition("?")  # a host may be redacted, and is none any more
    pairs = parse_qsl(search, keep_blank_values=True)
    query = {name: value for name, value in sorted(pairs) if name.lower() not in KEYS}
    value = body.value
    if body.kind == "json":
        value = _data(value, ignore)
    return Meaning(method.upper(), address.rstrip("/"), query, value)


def differences(requested: Meaning, recorded: Meaning) -> list[Difference]:
    """Where they differ; nothing where they mean the same."""
    results: list[Difference] = []
    _compare(requested.method, recorded.method, "method", results)
    _compare(requested.address, recorded.address, "address", results)
    _compare(requested.query, recorded.query, "query", results)
    _compare(requested.body, recorded.body, "", results)
    return results


# --- what a JSON body means ----------------------------------------------------------------------


def _data(value: Any, ignore: Iterable[str]) -> Any:
    if isinstance(value, dict):
        value = {
            key: item for key, item in value.items() if key not in _CALLER and item is not None
        }
    for path in ignore:
        value = _without(value, path.split("."))
    return _with_ids(value, "", {})


def _without(value: Any, path: Sequence[str]) -> Any:
    first, rest = path[0], path[1:]
    if isinstance(value, dict):
        items = [
            (key, item if first not in ("*", key) else _without(item, rest) if rest else _MISSING)
            for key, item in value.items()
        ]
        return {key: item for key, item in items if item is not _MISSING}
    if isinstance(value, list):
        places = [
            item if first not in ("*", str(at)) else _without(item, rest) if rest else _MISSING
            for at, item in enumerate(value)
        ]
        return [item for item in places if item is not _MISSING]
    return value


def _with_ids(value: Any, parent: str, names: dict[str, str]) -> Any:
    """The value with ids numbered as they appear, and JSON in texts as data."""
    if isinstance(value, list):
        return [_with_ids(item, parent, names) for item in value]
    if not isinstance(value, dict):
        return value
    changed: dict[str, Any] = {}
    for key in sorted(value):
        item = value[key]
        if key in _IDS and isinstance(item, str) and parent not in _NAMED:
            changed[key] = names.setdefault(item, f"id {len(names) + 1}")
        elif key == "arguments" and isinstance(item, str):
            changed[key] = _with_ids(_parsed(item), key, {})
        else:
            changed[key] = _with_ids(item, key, names)
    return changed


def _parsed(text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, dict | list) else text


# --- comparing -----------------------------------------------------------------------------------


def _compare(requested: Any, recorded: Any, path: str, results: list[Difference]) -> None:
    if isinstance(requested, dict) and isinstance(recorded, dict):
        for key in [*requested, *(key for key in recorded if key not in requested)]:
            left, right = requested.get(key, _MISSING), recorded.get(key, _MISSING)
            _compare(left, right, f"{path}.{key}" if path else str(key), results)
    elif isinstance(requested, list) and isinstance(recorded, list):
        for at in range(max(len(requested), len(recorded))):
            left = requested[at] if at < len(requested) else _MISSING
            right = recorded[at] if at < len(recorded) else _MISSING
            _compare(left, right, f"{path}.{at}" if path else str(at), results)
    elif not _same(requested, recorded):
        results.append(Difference(path or "body", _shown(requested), _shown(recorded)))


def _same(requested: Any, recorded: Any) -> bool:
    if isinstance(recorded, str) and isinstance(requested, str):
        return requested == recorded or _fits(requested, recorded)
    if isinstance(recorded, bool) or isinstance(requested, bool):
        return requested is recorded
    return requested == recorded


def _fits(text: str, recorded: str) -> bool:
    """Whether ``text`` is ``recorded`` with other words in the places that were redacted."""
    first, *others = recorded.split(REDACTED)
    if not others or not text.startswith(first):
        return False
    *middle, last = others
    place = len(first)
    for part in middle:
        at = text.find(part, place)
        if at < 0:
            return False
        place = at + len(part)
    return len(text) - len(last) >= place and text.endswith(last)


def _shown(value: Any) -> str:
    if value is _MISSING:
        return "nothing"
    text = repr(value) if isinstance(value, bytes) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else f"{text[:199]}…"
