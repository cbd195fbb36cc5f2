"""A plausible value for a JSON Schema, so that structured output can be tried without a model.

Always true: the same schema and draw give the same value; references are followed at most
`MAX_DEPTH` deep, so a schema that contains itself ends.
"""

from __future__ import annotations

import random
from typing import Any

__all__ = ["MAX_DEPTH", "instance"]

#: Deeper than any schema that people write by hand; ends schemas that contain themselves.
MAX_DEPTH = 12

_WORDS: dict[str, tuple[str, ...]] = {
    "name": ("Ada Lovelace", "Grace Hopper", "Alan Turing"),
    "title": ("On streaming", "A short note", "The quiet river"),
    "city": ("Paris", "Lagos", "Kyoto"),
    "country": ("France", "Nigeria", "Japan"),
    "email": ("ada@example.com", "grace@example.com"),
    "language": ("Python", "TypeScript"),
    "summary": ("A simulated summary.",),
    "description": ("A simulated description.",),
    "unit": ("celsius", "metre"),
    "color": ("blue", "green"),
}
_FORMATS = {
    "date-time": "2026-01-02T03:04:05Z",
    "date": "2026-01-02",
    "time": "03:04:05Z",
    "email": "ada@example.com",
    "uri": "https://example.com/",
    "uuid": "7c9e6679-7425-40de-944b-e07fc1f90ae7",
    "ipv4": "192.0.2.1",
    "duration": "PT3S",
}


def instance(schema: Any, draw: random.Random) -> Any:
    """A value that fits ``schema`` (its common words; patterns are not solved)."""
    root = schema if isinstance(schema, dict) else {}
    return _value(root, root, draw, "value", 0)


def _value(schema: Any, root: dict[str, Any], draw: random.Random, name: str, depth: int) -> Any:
    if not isinstance(schema, dict) or depth > MAX_DEPTH:
        return None
    if "$ref" in schema:
        return _value(_resolve(schema["$ref"], root), root, draw, name, depth + 1)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return draw.choice(schema["enum"])
    if "allOf" in schema:
        merged: dict[str, Any] = {}
        for one in schema["allOf"]:
            part = _resolve(one["$ref"], root) if "$ref" in one else one
            properties = {**merged.get("properties", {}), **part.get("properties", {})}
            merged = {**merged, **part, "properties": properties}
        return _value(merged, root, draw, name, depth + 1)
    for word in ("anyOf", "oneOf"):
        if schema.get(word):
            return _value(schema[word][0], root, draw, name, depth + 1)
    kind = schema.get("type") or ("object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = next((one for one in kind if one != "null"), "null")
    return _typed(str(kind).lower(), schema, root, draw, name, depth)


def _typed(
    kind: str,
    schema: dict[str, Any],
    root: dict[str, Any],
    draw: random.Random,
    name: str,
    depth: int,
) -> Any:
    if kind == "object":
        properties = schema.get("properties") or {}
        fields = properties
        if depth > 4:  # only what must be there, so that recursive schemas stay small
            required = schema.get("required") or []
            fields = {key: value for key, value in properties.items() if key in required}
        return {key: _value(sub, root, draw, key, depth + 1) for key, sub in fields.items()}
    if kind == "array":
        least = int(schema.get("minItems", 0 if depth > 4 else 2))
        count = min(least, int(schema.get("maxItems", least))) if least else least
        items = schema.get("items") or {}
        singular = name.removesuffix("s")
        return [_value(items, root, draw, singular, depth + 1) for _ in range(count)]
    if kind in ("integer", "number"):
        return _number(kind, schema, draw)
    if kind == "boolean":
        return draw.random() < 0.5
    if kind == "null":
        return None
    return _string(schema, draw, name)


def _number(kind: str, schema: dict[str, Any], draw: random.Random) -> int | float:
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    if low is None:
        low = 0 if high is None or high > 0 else high - 100
    if high is None:
        high = low + 100
    low += 1 if "exclusiveMinimum" in schema and kind == "integer" else 0
    high -= 1 if "exclusiveMaximum" in schema and kind == "integer" else 0
    if kind == "number":
        return round(low + (high - low) * (0.25 + draw.random() / 2), 2)
    value = draw.randint(int(low), int(high))
    step = int(schema.get("multipleOf", 1)) or 1
    return max(int(low), value - value % step)


def _string(schema: dict[str, Any], draw: random.Random, name: str) -> str:
    if schema.get("format") in _FORMATS:
        return _FORMATS[schema["format"]]
    lowered = name.lower()
    words = next((words for key, words in _WORDS.items() if key in lowered), None)
    text = draw.choice(words) if words else f"simulated {name}"
    least, most = int(schema.get("minLength", 0)), schema.get("maxLength")
    text = text.ljust(least, ".")
    return text[: int(most)] if most is not None else text


def _resolve(reference: Any, root: dict[str, Any]) -> Any:
    if not isinstance(reference, str) or not reference.startswith("#"):
        return {}
    place: Any = root
    for key in reference.lstrip("#/").split("/"):
        if key:
            place = place.get(key, {}) if isinstance(place, dict) else {}
    return place
