"""Fixtures for pytest, there where tokenwire is installed: the functions of `tokenwire.testing`.

Always true: loading this imports nothing else of tokenwire; a fixture does when it is used.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tokenwire.testing import Cassette, ScriptedModel

__all__ = [
    "cassette",
    "cassette_config",
    "cut_everywhere",
    "eventually_ends",
    "pytest_addoption",
    "pytest_configure",
    "pytest_runtest_call",
    "scripted_model",
]

_CASSETTE = pytest.StashKey["Cassette"]()
_MARKER = (
    "cassette(path=None, *, speed, faults, repeats, ignore, redact, allow, headers): play the "
    "test's models from a file, or record them with --tokenwire-record"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options that record."""
    group = parser.getgroup("tokenwire", "recorded models (tokenwire)")
    group.addoption(
        "--tokenwire-record",
        action="store_const",
        const="new",
        dest="tokenwire_record",
        default="none",
        help="Record requests to models that are not in a test's cassette",
    )
    group.addoption(
        "--tokenwire-record-mode",
        choices=["none", "new", "all"],
        metavar="MODE",
        dest="tokenwire_record",
        default="none",
        help="none: play only (default); new: as --tokenwire-record; all: record anew, and replace",
    )


def pytest_configure(config: pytest.Config) -> None:
    """The marker."""
    config.addinivalue_line("markers", _MARKER)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Close a test's cassette as part of the test, which fails with what is wrong with it."""
    failure: BaseException | None = None
    try:
        return (yield)
    except BaseException as error:
        failure = error
        raise
    finally:
        cassette = item.stash.get(_CASSETTE, None)
        if cassette is not None:
            cassette.__exit__(None if failure is None else type(failure), failure, None)


@pytest.fixture
def cassette_config() -> dict[str, Any]:
    """Settings of every `cassette`: a dict of the arguments of `tokenwire.testing.Cassette`. A
    project has its own in ``conftest.py``, of any scope; those of the marker are added to it."""
    return {}


@pytest.fixture
def cassette(
    request: pytest.FixtureRequest, cassette_config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Cassette]:
    """`tokenwire.testing.Cassette` of this test: ``cassettes/MODULE/TEST.json`` beside its module,
    or the path that the marker has. The variables of base URLs lead to it
    (`tokenwire.testing.Cassette.env`)."""
    from tokenwire.testing import Cassette

    settings = dict(cassette_config)
    marker = request.node.get_closest_marker("cassette")
    place = None
    if marker is not None:
        place = marker.args[0] if marker.args else None
        for name, value in marker.kwargs.items():
            is_list = name in ("ignore", "redact", "allow", "headers")
            settings[name] = [*settings.get(name, ()), *value] if is_list else value
    name = re.sub(r"[^\w.\[\]-]+", "_", request.node.name)
    path = request.path.parent / (place or f"cassettes/{request.path.stem}/{name}.json")
    settings.setdefault("mode", request.config.getoption("tokenwire_record"))
    cassette = Cassette(path, **settings).start()
    request.node.stash[_CASSETTE] = cassette
    for variable, value in cassette.env().items():
        monkeypatch.setenv(variable, value)
    yield cassette
    cassette.close()


@pytest.fixture(autouse=True)
def _marked_cassette(request: pytest.FixtureRequest) -> None:
    """A marked test has its cassette without naming the fixture."""
    if request.node.get_closest_marker("cassette") is not None:
        request.getfixturevalue("cassette")


@pytest.fixture
def scripted_model() -> Callable[..., ScriptedModel]:
    """`tokenwire.testing.ScriptedModel`: ``scripted_model(["Hello", ", ", "world"])``."""
    from tokenwire.testing import ScriptedModel

    return ScriptedModel


@pytest.fixture
def cut_everywhere() -> Callable[..., None]:
    """`tokenwire.testing.cut_everywhere`: ``cut_everywhere(app, "/chat", resume="/chat/{run}")``
    asserts that a reader who is cut off anywhere gets all the same."""
    from tokenwire.testing import cut_everywhere as function

    return function


@pytest.fixture
def eventually_ends() -> Callable[..., dict[str, Any]]:
    """`tokenwire.testing.eventually_ends`: ``eventually_ends(live)`` asserts that every run
    ends."""
    from tokenwire.testing import eventually_ends as function

    return function
