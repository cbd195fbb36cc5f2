"""Public names: listed, sorted, importable, documented."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

import tokenwire

MODULES = sorted(
    m.name
    for m in pkgutil.walk_packages(tokenwire.__path__, "tokenwire.")
    if not m.name.endswith("__main__")
)


def test_every_public_name_of_the_package_can_be_had():
    for name in tokenwire.__all__:
        assert getattr(tokenwire, name) is not None
    assert set(tokenwire.__all__) - {"__version__"} == set(tokenwire._WHERE)
    assert dir(tokenwire) == sorted(tokenwire.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = tokenwire.no_such_name
    with pytest.raises(AttributeError, match="'open_log'; use 'open_store'"):
        _ = tokenwire.open_log


@pytest.mark.parametrize("name", MODULES)
def test_every_listed_name_exists_and_lists_are_sorted(name):
    module = importlib.import_module(name)
    listed = getattr(module, "__all__", [])
    assert len(listed) == len(set(listed))
    for item in listed:
        assert hasattr(module, item), f"{name}.{item}"


def test_every_error_has_its_own_code_status_and_words():
    from tokenwire import errors

    codes: dict[str, type] = {}
    for name in errors.__all__:
        cls = getattr(errors, name)
        assert cls.__doc__
        assert 400 <= cls.http_status < 600
        assert isinstance(cls.retryable, bool)
        parent = codes.get(cls.code)
        assert parent is None or issubclass(cls, parent) or issubclass(parent, cls), cls.code
        codes[cls.code] = cls
        assert name in (errors.__doc__ or ""), f"{name} is not in the drawn tree"


def test_every_event_can_be_imported_from_the_package_of_events():
    from tokenwire import events
    from tokenwire.events import model

    names = set(model.__all__) - {"EVENT_TYPES", "TRANSIENT"}
    assert names < set(events.__all__)
    for name in names:
        assert getattr(events, name) is getattr(model, name)
