"""The checker of raw schemas, against pydantic's own schemas and the cases that it must refuse."""

from __future__ import annotations

from typing import Any

import pytest

from tokenwire.tools.json_schema import check_schema, problem

TREE = {
    "$defs": {
        "Node": {
            "type": "object",
            "properties": {
                "name": {"type": "string", "minLength": 1},
                "next": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]},
            },
            "required": ["name"],
            "additionalProperties": False,
        }
    },
    "$ref": "#/$defs/Node",
}


@pytest.mark.parametrize(
    ("value", "schema"),
    [
        (1, {"type": "integer"}),
        (1.0, {"type": "integer"}),
        (1, {"type": ["string", "number"]}),
        (None, {"type": "null"}),
        ({"a": 1}, {"properties": {"b": {"type": "string"}}}),
        ([1, "x"], {"prefixItems": [{"type": "integer"}, {"type": "string"}], "items": False}),
        ("x", {"enum": ["x", "y"]}),
        ({"name": "a", "next": {"name": "b", "next": None}}, TREE),
        (5, {"$ref": "https://elsewhere.example/schema"}),
        (5, {"$ref": "#/no/such/place"}),
        ({"x": 1}, {"additionalProperties": {"type": "integer"}}),
        ("(a+)+$", {"pattern": "(((a+)+)+)+$"}),
        (3, {"not": {"type": "string"}}),
        (3, {"oneOf": [{"type": "integer"}, {"type": "string"}]}),
    ],
)
def test_values_that_fit(value: Any, schema: Any) -> None:
    assert problem(value, schema) is None


@pytest.mark.parametrize(
    ("value", "schema", "words"),
    [
        ("1", {"type": "integer"}, "must be integer, not string"),
        (True, {"type": "integer"}, "not boolean"),
        (1.5, {"type": "integer"}, "must be integer"),
        (True, {"enum": [1]}, "must be one of 1"),
        (1, {"const": True}, "must be True"),
        ({}, {"required": ["a"]}, "a: is missing"),
        ({"a": 1}, {"additionalProperties": False}, "a: is not a known property"),
        ([1, 2], {"items": {"type": "string"}}, "[0]: must be string"),
        ([], {"minItems": 1}, "at least 1 items"),
        ("xxx", {"maxLength": 2}, "at most 2 characters"),
        (0, {"minimum": 1}, "at least 1"),
        (1, {"exclusiveMinimum": 1}, "more than 1"),
        (2, {"maximum": 1}, "at most 1"),
        (1, {"exclusiveMaximum": 1}, "less than 1"),
        (1, {"allOf": [{"type": "integer"}, {"minimum": 2}]}, "at least 2"),
        (None, {"anyOf": [{"type": "integer"}, {"type": "string"}]}, "none of the alternatives"),
        (3, {"oneOf": [{"type": "integer"}, {"minimum": 1}]}, "more than one"),
        ("x", {"not": {"type": "string"}}, "must not be"),
        (1, False, "nothing is allowed"),
        ({"name": "a", "next": {"name": ""}}, TREE, "next: fits none"),
        ({"a": {"b": [{"c": 1}]}}, {"properties": {"a": {"properties": {"b": {"items": {
            "properties": {"c": {"type": "string"}}}}}}}}, "a.b[0].c"),
    ],
)  # fmt: skip
def test_values_that_do_not_fit_say_where(value: Any, schema: Any, words: str) -> None:
    found = problem(value, schema)
    assert found is not None
    assert words in found


def test_a_schema_that_refers_to_itself_ends() -> None:
    assert problem(1, {"$ref": "#"}) is not None


def test_what_is_no_schema_of_an_object() -> None:
    assert check_schema({"type": "object"}) is None
    assert check_schema([]) is not None
    assert check_schema({"type": "array"}) is not None
    assert check_schema({"properties": []}) is not None
