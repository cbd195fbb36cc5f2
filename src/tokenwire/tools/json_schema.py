"""Check a JSON value against a JSON Schema, for tools and answers that come with a raw schema.

Always true: pure; covers what providers' structured output covers (types, properties, items, enums,
bounds, combinations, local references); ``pattern`` and ``format`` reach the model but are not
checked, because a foreign schema must not choose a regular expression that we run.
"""

from __future__ import annotations

from typing import Any, Final

__all__ = ["check_schema", "problem"]

_MAX_DEPTH: Final = 200


def check_schema(schema: Any) -> str | None:
    """Why this is not a schema of an object, or None if it is one."""
    if not isinstance(schema, dict):
        return "a JSON Schema must be an object"
    if schema.get("type", "object") != "object" and "anyOf" not in schema:
        return f"its top level must be of type 'object', not {schema.get('type')!r}"
    if not isinstance(schema.get("properties", {}), dict):
        return "its 'properties' must be an object"
    return None


def problem(value: Any, schema: Any) -> str | None:
    """The first mismatch of ``value``, as ``path: reason``; None if it fits."""
    return _check(value, schema, schema, "", 0)


def _check(value: Any, schema: Any, root: Any, path: str, depth: int) -> str | None:
    if schema is True or not isinstance(schema, dict):
        return None if schema is not False else _at(path, "nothing is allowed here")
    if depth > _MAX_DEPTH:
        return _at(path, "nested too deep")
    if "$ref" in schema:
        reason = _check(value, _resolve(schema["$ref"], root), root, path, depth + 1)
        if reason:
            return reason
    return (
        _types(value, schema, path)
        or _choices(value, schema, path)
        or _bounds(value, schema, path)
        or _properties(value, schema, root, path, depth)
        or _items(value, schema, root, path, depth)
        or _combined(value, schema, root, path, depth)
    )


def _types(value: Any, schema: dict[str, Any], path: str) -> str | None:
    expected = schema.get("type")
    if expected is None:
        return None
    names = expected if isinstance(expected, list) else [expected]
    if any(_is(value, name) for name in names):
        return None
    return _at(path, f"must be {' or '.join(map(str, names))}, not {_kind(value)}")


def _is(value: Any, name: Any) -> bool:
    if name == "integer":
        return (isinstance(value, int) and not isinstance(value, bool)) or (
            isinstance(value, float) and value.is_integer()
        )
    if name == "number":
        return isinstance(value, int | float) and not isinstance(value, bool)
    return _kind(value) == name


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string", dict: "object"}
    return kinds.get(type(value), "array")


def _choices(value: Any, schema: dict[str, Any], path: str) -> str | None:
    if "const" in schema and not _same(value, schema["const"]):
        return _at(path, f"must be {schema['const']!r}")
    options = schema.get("enum")
    if isinstance(options, list) and not any(_same(value, option) for option in options):
        return _at(path, f"must be one of {', '.join(map(repr, options[:20]))}")
    return None


def _same(one: Any, other: Any) -> bool:
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _bounds(value: Any, schema: dict[str, Any], path: str) -> str | None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _number(value, schema, path)
    if isinstance(value, str):
        low, high, what = "minLength", "maxLength", "characters"
    elif isinstance(value, list):
        low, high, what = "minItems", "maxItems", "items"
    elif isinstance(value, dict):
        low, high, what = "minProperties", "maxProperties", "properties"
    else:
        return None
    if len(value) < schema.get(low, 0):
        return _at(path, f"must have at least {schema[low]} {what}")
    if high in schema and len(value) > schema[high]:
        return _at(path, f"must have at most {schema[high]} {what}")
    return None


def _number(value: float, schema: dict[str, Any], path: str) -> str | None:
    if "minimum" in schema and value < schema["minimum"]:
        return _at(path, f"must be at least {schema['minimum']}")
    if "maximum" in schema and value > schema["maximum"]:
        return _at(path, f"must be at most {schema['maximum']}")
    if "exclusiveMinimum" in schema and value <= schema["exclusiveMinimum"]:
        return _at(path, f"must be more than {schema['exclusiveMinimum']}")
    if "exclusiveMaximum" in schema and value >= schema["exclusiveMaximum"]:
        return _at(path, f"must be less than {schema['exclusiveMaximum']}")
    return None


def _properties(value: Any, schema: dict[str, Any], root: Any, path: str, depth: int) -> str | None:
    if not isinstance(value, dict):
        return None
    properties = schema.get("properties") or {}
    for name in schema.get("required") or []:
        if name not in value:
            return _at(_join(path, name), "is missing")
    others = schema.get("additionalProperties", True)
    for name, item in value.items():
        inner = properties.get(name, others)
        if name not in properties and others is False:
            return _at(_join(path, name), "is not a known property")
        reason = _check(item, inner, root, _join(path, name), depth + 1)
        if reason:
            return reason
    return None


def _items(value: Any, schema: dict[str, Any], root: Any, path: str, depth: int) -> str | None:
    if not isinstance(value, list):
        return None
    first = schema.get("prefixItems") or []
    rest = schema.get("items", True)
    for number, item in enumerate(value):
        inner = first[number] if number < len(first) else rest
        reason = _check(item, inner, root, f"{path}[{number}]", depth + 1)
        if reason:
            return reason
    return None


def _combined(value: Any, schema: dict[str, Any], root: Any, path: str, depth: int) -> str | None:
    for inner in schema.get("allOf") or []:
        reason = _check(value, inner, root, path, depth + 1)
        if reason:
            return reason
    for word in ("anyOf", "oneOf"):
        options = schema.get(word)
        if not options:
            continue
        reasons = [_check(value, inner, root, path, depth + 1) for inner in options]
        fits = reasons.count(None)
        if fits == 0:
            return reasons[-1] if len(reasons) == 1 else _at(path, "fits none of the alternatives")
        if word == "oneOf" and fits > 1:
            return _at(path, "fits more than one of the alternatives")
    if "not" in schema and _check(value, schema["not"], root, path, depth + 1) is None:
        return _at(path, "is what it must not be")
    return None


def _resolve(reference: Any, root: Any) -> Any:
    """Local references only (``#/$defs/Name``); another one allows everything."""
    if not isinstance(reference, str) or not reference.startswith("#"):
        return True
    node = root
    for step in reference[1:].split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if not isinstance(node, dict) or name not in node:
            return True
        node = node[name]
    return node


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _at(path: str, reason: str) -> str:
    return f"{path or 'the value'}: {reason}"
