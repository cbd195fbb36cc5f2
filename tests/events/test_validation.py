"""What does not fit is named by its field, in words, and nothing of the value is repeated."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
import pytest
from msgspec import Meta

from tokenwire.errors import InputError
from tokenwire.events.validation import input_error
from tokenwire.observe.redact import redact


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    role: Literal["a", "b"]


class Outer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    inner: list[Inner] = []
    count: Annotated[int, Meta(ge=1, le=5)] | None = None
    share: float | None = None
    word: Annotated[str, Meta(max_length=3)] | None = None
    name: Annotated[str, Meta(pattern=r"^\d+$")] | None = None
    many: Annotated[list[str], Meta(max_length=1)] | None = None
    either: str | int | None = None


CASES = [
    ({"api_key": "sk-secret-secret"}, "unknown field 'api_key'", "api_key"),
    ({"inner": [{"role": "a", "x": 1}]}, "unknown field 'inner[0].x'", "inner[0].x"),
    ({"inner": [{}]}, "'inner[0].role' is missing", "inner[0].role"),
    ({"inner": [{"role": "c"}]}, "'inner[0].role' cannot be 'c'", "inner[0].role"),
    ({"inner": {}}, "'inner' must be a list, not an object", "inner"),
    ({"count": 0}, "'count' must be at least 1", "count"),
    ({"count": 6}, "'count' must be at most 5", "count"),
    ({"count": 1.5}, "'count' must be a whole number, not a fraction", "count"),
    ({"share": True}, "'share' must be a number, not true or false", "share"),
    ({"word": "four"}, "'word' may have at most 3 characters", "word"),
    ({"name": "x"}, r"'name' must match ^\d+$", "name"),
    ({"many": ["a", "b"]}, "'many' may have at most 1 elements", "many"),
    ({"either": []}, "'either' must be a whole number or a text, not a list", "either"),
    ([], "the body must be an object, not a list", ""),
]


@pytest.mark.parametrize(("value", "words", "field"), CASES, ids=lambda v: str(v)[:40])
def test_words_and_field(value: Any, words: str, field: str) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert(value, Outer)
    error = input_error(caught.value)
    assert isinstance(error, InputError)
    assert error.message == words
    assert error.details == {"field": field}
    assert redact(words) == words  # what a client is shown went through this


def test_a_place_can_be_named() -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert({"inner": [{"role": 5}]}, Outer)
    assert input_error(caught.value, at="list[3]").details["field"] == "list[3].inner[0].role"
