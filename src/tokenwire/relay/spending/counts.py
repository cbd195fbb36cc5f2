"""Token counts by kind, as a provider bills them.

Always true: ``input_tokens`` includes what came from the cache or went into it, and audio and
images; ``output_tokens`` includes reasoning, audio and images. A detail never exceeds its whole,
and no sum exceeds what a store can hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from tokenwire.events.model import Usage

__all__ = ["MOST_TOKENS", "Counts", "bounded", "counts_of", "details_of"]

#: Tokens that one call may have: a count beyond it is a mistake, and says nothing.
MOST_TOKENS = 10**12
_MOST_SUM = 2**63 - 1


def bounded(total: int) -> int:
    """A sum, at most what a store can hold."""
    return min(total, _MOST_SUM)


class Counts(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Tokens. ``cache_write_1h_tokens``: of those written, into a cache that is kept for an hour;
    ``unsplit_tokens``: of a provider that reports no more than a total."""

    input_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0
    input_audio_tokens: int = 0
    input_image_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    output_audio_tokens: int = 0
    output_image_tokens: int = 0
    unsplit_tokens: int = 0

    @property
    def total(self) -> int:
        """All tokens."""
        return self.input_tokens + self.output_tokens + self.unsplit_tokens

    def items(self) -> list[tuple[str, int]]:
        """Each kind, by name."""
        return [(name, getattr(self, name)) for name in self.__struct_fields__]

    def add(self, other: Counts) -> None:
        """Add ``other``'s tokens."""
        for name in Counts.__struct_fields__:
            setattr(self, name, bounded(getattr(self, name) + getattr(other, name)))

    def without(self, kind: str) -> Counts:
        """What is left when the tokens of one kind are taken out: ``input`` are those that no cache
        had, ``output`` those that are no reasoning, when the other kinds were taken out before."""
        whole = "output_tokens" if kind in ("output", "reasoning") else "input_tokens"
        name = f"{kind}_tokens"
        left = msgspec.structs.replace(self)
        setattr(left, whole, getattr(self, whole) - getattr(self, name))
        setattr(left, name, 0)
        for detail, bound in _WHOLES.items():
            setattr(left, detail, min(getattr(left, detail), getattr(left, bound)))
        return left


_WHOLES = {
    "cached_input_tokens": "input_tokens",
    "cache_write_tokens": "input_tokens",
    "cache_write_1h_tokens": "cache_write_tokens",
    "input_audio_tokens": "input_tokens",
    "input_image_tokens": "input_tokens",
    "reasoning_tokens": "output_tokens",
    "output_audio_tokens": "output_tokens",
    "output_image_tokens": "output_tokens",
}
#: Where a provider's own object has the details, by wire: OpenAI's two and Gemini's.
_INPUT_DETAILS = ("prompt_tokens_details", "input_tokens_details", "promptTokensDetails")
_OUTPUT_DETAILS = (
    "completion_tokens_details",
    "output_tokens_details",
    "candidatesTokensDetails",
)
_MODALITIES = ("audio", "image")


def counts_of(reported: Mapping[str, int]) -> Counts:
    """The counts of one call, by the fields of `Usage` and of `details_of`. A negative count is
    none, and a detail beyond its whole is cut to it."""
    values = {
        name: max(0, reported.get(name, 0))
        for name in Counts.__struct_fields__
        if name != "unsplit_tokens"
    }
    for name, whole in _WHOLES.items():
        values[name] = min(values[name], values[whole])
    if not values["input_tokens"] and not values["output_tokens"]:
        values["unsplit_tokens"] = max(0, reported.get("total_tokens", 0))
    return Counts(**values)


def details_of(usage: Usage) -> dict[str, int]:
    """What only the provider's own object says: audio, images, and how long a cache lives."""
    raw = usage.raw
    if not raw:
        return {}
    details: dict[str, int] = {}
    for prefix, places in (("input", _INPUT_DETAILS), ("output", _OUTPUT_DETAILS)):
        for place in places:
            for modality, count in _by_modality(raw.get(place)):
                if modality in _MODALITIES:
                    details[f"{prefix}_{modality}_tokens"] = count
    cache = raw.get("cache_creation")
    if isinstance(cache, dict):
        count = _count(cache.get("ephemeral_1h_input_tokens"))
        if count is not None:
            details["cache_write_1h_tokens"] = count
    return details


def _by_modality(value: Any) -> Iterable[tuple[str, int]]:
    """OpenAI: an object with ``audio_tokens``; Gemini: a list of modalities."""
    if isinstance(value, dict):
        for name, number in value.items():
            if (count := _count(number)) is not None:
                yield str(name).removesuffix("_tokens"), count
    elif isinstance(value, list):
        for entry in value:
            if isinstance(entry, dict) and (count := _count(entry.get("tokenCount"))) is not None:
                yield str(entry.get("modality", "")).lower(), count


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
