"""Docstrings of public names: every parameter is described, every raised error is named."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from tokenwire import errors
from tokenwire.errors import InputError

MODULES = (
    "tokenwire",
    "tokenwire.server",
    "tokenwire.client",
    "tokenwire.testing",
    "tokenwire.sync",
)
ERRORS = set(errors.__all__)


def members(owner: type) -> Iterator[tuple[str, Any]]:
    """The public methods and properties of a class, other than those inherited from elsewhere."""
    for name in dir(owner):
        value = inspect.getattr_static(owner, name)
        if isinstance(value, classmethod | staticmethod):
            value = value.__func__
        if isinstance(value, property):
            value = value.fget
        if name.startswith("_") or not inspect.isfunction(value):
            continue
        if value.__module__ == owner.__module__:
            yield name, value


def callables() -> Iterator[tuple[str, Callable[..., Any], str]]:
    """(name, function, docstring). The parameters of a class are described in its docstring."""
    seen: set[int] = set()
    for module_name in MODULES:
        module = importlib.import_module(module_name)
        for name in module.__all__:
            value = getattr(module, name)
            if id(value) in seen or isinstance(value, str):
                continue
            seen.add(id(value))
            if inspect.isclass(value):
                if inspect.isfunction(value.__init__) and not dataclasses.is_dataclass(value):
                    doc = f"{inspect.getdoc(value) or ''} {inspect.getdoc(value.__init__) or ''}"
                    yield f"{module_name}.{name}", value.__init__, doc
                for member, function in members(value):
                    # What all methods share is described once, in the class.
                    own = inspect.getdoc(function)
                    doc = f"{own} {inspect.getdoc(value)}" if own else ""
                    yield f"{module_name}.{name}.{member}", function, doc
            else:
                yield f"{module_name}.{name}", value, inspect.getdoc(value) or ""


CALLABLES = list(callables())
STRUCTS = [
    value
    for module in map(importlib.import_module, MODULES)
    for value in (getattr(module, name) for name in module.__all__)
    if inspect.isclass(value) and issubclass(value, msgspec.Struct)
]


def parameters(function: Callable[..., Any]) -> list[str]:
    """The names that a caller writes."""
    names = [name for name in inspect.signature(function).parameters if not name.startswith("_")]
    return [name for name in names if name not in ("self", "cls")]


def raised(function: Callable[..., Any]) -> set[str]:
    """The errors of ours that the function itself raises; not those of what it calls."""
    code = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function))))
    nodes = [node.exc for node in ast.walk(code) if isinstance(node, ast.Raise)]
    calls = [node.func for node in nodes if isinstance(node, ast.Call)]
    return {ast.unparse(call).rpartition(".")[2] for call in calls} & ERRORS


def is_named(name: str, doc: str) -> bool:
    return re.search(rf"(?<![\w.])`+\**{re.escape(name)}(?!\w)", doc) is not None


@pytest.mark.parametrize(("name", "function", "doc"), CALLABLES, ids=[c[0] for c in CALLABLES])
def test_a_public_callable_describes_its_parameters_and_errors(
    name: str, function: Callable[..., Any], doc: str
) -> None:
    assert doc.strip(), "no docstring"
    assert not [p for p in parameters(function) if not is_named(p, doc)], "parameters"
    assert not [e for e in sorted(raised(function)) if not is_named(e, doc)], "errors"


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda s: s.__name__)
def test_a_public_value_describes_its_fields(struct: type[msgspec.Struct]) -> None:
    """In its docstring, or by a comment ``#:`` above the field."""
    source = inspect.getsource(struct)
    commented = set(re.findall(r"#:[^\n]*\n(?:\s*#[^\n]*\n)*\s+(\w+):", source))
    doc = inspect.getdoc(struct) or ""
    assert doc
    names = [name for name in struct.__struct_fields__ if name not in commented]
    assert not [name for name in names if not is_named(name, doc)]


def test_the_checks_see_what_they_should() -> None:
    def sample(wanted: int, other: int) -> None:
        """``other`` of `InputError`."""
        if wanted:
            raise errors.ConfigError("x")
        raise InputError("x")

    doc = sample.__doc__ or ""
    assert parameters(sample) == ["wanted", "other"]
    assert [is_named(name, doc) for name in ("wanted", "other")] == [False, True]
    assert raised(sample) == {"ConfigError", "InputError"}
    assert len(CALLABLES) > 100
    assert len(STRUCTS) > 8
