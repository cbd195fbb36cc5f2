"""A caller's own fields in the request to a provider: as they are where it speaks the caller's
wire, under its own names where it has the same thing, and nowhere else.

Always true: pure; nothing that a dialect or the configuration set is replaced; what goes nowhere is
named by `dropped_fields`.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from tokenwire.events.request import PassedFields
from tokenwire.providers.base import Call

__all__ = ["dropped_fields", "with_passed"]

Path = tuple[str, ...]

_SAME: Final = "user service_tier safety_identifier prompt_cache_key prompt_cache_retention".split()
_CONFIG: Final = "generationConfig"
#: (the caller's wire, the provider's dialect) -> field -> where it goes.
_PLACES: Final[dict[tuple[str, str], dict[str, Path]]] = {
    ("openai-chat", "openai-responses"): {
        **{name: (name,) for name in _SAME},
        "verbosity": ("text", "verbosity"),
    },
    ("openai-chat", "completions"): {
        name: (name,) for name in ["user", "presence_penalty", "frequency_penalty", "logit_bias"]
    },
    ("openai-chat", "gemini"): {
        "presence_penalty": (_CONFIG, "presencePenalty"),
        "frequency_penalty": (_CONFIG, "frequencyPenalty"),
        "logprobs": (_CONFIG, "responseLogprobs"),
        "top_logprobs": (_CONFIG, "logprobs"),
        "top_k": (_CONFIG, "topK"),
    },
    ("openai-chat", "ollama"): {
        "presence_penalty": ("options", "presence_penalty"),
        "frequency_penalty": ("options", "frequency_penalty"),
        "top_k": ("options", "top_k"),
    },
    ("openai-chat", "cohere"): {
        "presence_penalty": ("presence_penalty",),
        "frequency_penalty": ("frequency_penalty",),
        "logprobs": ("logprobs",),
        "top_k": ("k",),
    },
    ("openai-chat", "anthropic"): {"user": ("metadata", "user_id"), "top_k": ("top_k",)},
    ("openai-responses", "openai-chat"): {name: (name,) for name in _SAME},
    ("openai-responses", "anthropic"): {"user": ("metadata", "user_id")},
    ("anthropic", "gemini"): {"top_k": (_CONFIG, "topK")},
    ("anthropic", "ollama"): {"top_k": ("options", "top_k")},
    ("anthropic", "cohere"): {"top_k": ("k",)},
}
#: Values that ask for nothing: nobody needs to be told that they went nowhere.
_NOTHING: Final[tuple[Any, ...]] = (0, False, {}, [], "", "auto", "disabled")


def with_passed(call: Call, dialect: str, passed: PassedFields | None) -> Call:
    """``call`` with the fields that ``dialect`` has a place for."""
    if passed is None or not passed.fields:
        return call
    places = {name: _place(name, dialect, passed) for name in passed.fields}
    body: dict[str, Any] = msgspec.json.decode(call.body)
    for name, place in places.items():
        if place is not None:
            _put(body, place, passed.fields[name])
    return msgspec.structs.replace(call, body=msgspec.json.encode(body))


def dropped_fields(dialect: str | None, passed: PassedFields | None) -> list[str]:
    """The fields that ask for something and have no place in ``dialect`` (None: an agent)."""
    if passed is None:
        return []
    return sorted(
        name
        for name, value in passed.fields.items()
        if value not in _NOTHING and (dialect is None or _place(name, dialect, passed) is None)
    )


def _place(name: str, dialect: str, passed: PassedFields) -> Path | None:
    if passed.wire == dialect:
        return (name,)
    return _PLACES.get((passed.wire, dialect), {}).get(name)


def _put(body: dict[str, Any], place: Path, value: Any) -> None:
    """Put a value where nothing is; a name in another case is the same name to some servers."""
    for name in place[:-1]:
        inner = body.setdefault(name, {})
        if not isinstance(inner, dict):
            return
        body = inner
    if place[-1].casefold() not in {key.casefold() for key in body}:
        body[place[-1]] = value
