"""Names that callers give: one or several, and what a principal may be called."""

from __future__ import annotations

from typing import Any

import pytest

from tokenwire.errors import InputError
from tokenwire.events.names import MOST_PRINCIPAL, checked_principal, names_of, principal_fault


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("demo", ["demo"]),
        (["a", "b"], ["a", "b"]),
        (("a",), ["a"]),
        ({"a": 1}, ["a"]),
        (iter(["a"]), ["a"]),
        ([], []),
        ("", [""]),
    ],
)
def test_a_text_is_one_name(value: Any, names: list[str]) -> None:
    assert names_of(value, "models") == names


@pytest.mark.parametrize("value", [None, 1, [1], ["a", None], b"demo", [b"demo"], object()])
def test_what_is_no_list_of_names_is_refused_by_name(value: Any) -> None:
    with pytest.raises(TypeError, match="models must be a list of texts"):
        names_of(value, "models")


GOOD = ["ann", "Ann Smith", "auth0|65f", "ann@example.com", "CN=Ann, O=Example", "安娜", "x" * 200]
BAD = [
    "", " ", "\n", "ann\n", "\tann", "a\nb", "a\r\nb", "a\0b", "a\x1b[31mb", "a\u2028b", "a\x85b",
    "a\u202eb", "a\u200bb", "\ufeffann", "\ud800", "ann ", " ann", "x" * (MOST_PRINCIPAL + 1),
    "x" * 100_000, None, True, 1, b"ann", ["ann"], {}, object(),
]  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_a_principal_is_one_line_of_visible_text(name: str) -> None:
    assert principal_fault(name) is None
    assert checked_principal(name) == name


@pytest.mark.parametrize("name", BAD, ids=lambda name: repr(name)[:20])
def test_no_other_name_is_a_principal(name: Any) -> None:
    fault = principal_fault(name)
    assert fault is not None
    assert len(fault) < 100
    assert fault.isprintable()
    if name != "":  # everybody, where no keys are used
        with pytest.raises(InputError, match="'principal' must"):
            checked_principal(name)
