"""Declaring tools: signatures, annotations and docstrings to schemas; sets of tools; names."""

from __future__ import annotations

import asyncio
import enum
import functools
import sys
import types
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

import tokenwire.tools.registry
from tokenwire.errors import ConfigError
from tokenwire.tools import Tool, ToolContext, ToolSet, tool
from tokenwire.tools.demo import demo_tools
from tokenwire.tools.load import open_tools
from tokenwire.tools.schema import ArgumentsError, parse_docstring


class Unit(enum.Enum):
    METRIC = "metric"
    IMPERIAL = "imperial"


class Place(BaseModel):
    """Where."""

    city: str = Field(description="Its name")
    title: str | None = None


def google(city: str, days: int = 1, *, unit: Unit = Unit.METRIC) -> str:
    """Tell the weather.

    More about it: it is simulated.

    Args:
        city: Name of the city,
            in English.
        days (int, optional): How many days.
        unit: One of: metric, imperial.

    Returns:
        str: The weather.
    """
    return f"{city} {days} {unit.value}"


def numpy(city: str, days: int = 1) -> str:
    """Tell the weather.

    Parameters
    ----------
    city : str
        Name of the city,
        in English.
    days : int, optional
        How many days.

    Returns
    -------
    str
        The weather.
    """
    return city * days


def sphinx(city: str, days: int = 1) -> str:
    """Tell the weather.

    :param city: Name of the city,
        in English.
    :param int days: How many days.
    :returns: The weather.
    """
    return city * days


@pytest.mark.parametrize("function", [google, numpy, sphinx])
def test_docstrings_of_three_schools_say_the_same(function: Any) -> None:
    found = Tool.of(function)
    properties = found.parameters["properties"]
    assert found.description.startswith("Tell the weather.")
    assert "city" not in found.description
    assert properties["city"] == {"type": "string", "description": "Name of the city, in English."}
    assert properties["days"]["description"] == "How many days."
    assert found.parameters["required"] == ["city"]
    assert found.parameters["additionalProperties"] is False


def test_docstrings_of_no_school_do_no_harm() -> None:
    assert parse_docstring("") == ("", {})
    assert parse_docstring("Args:") == ("", {})
    assert parse_docstring("One: two.\nArgs: x") == ("One: two.\nArgs: x", {})
    assert parse_docstring("A.\n\nArgs:\n    nonsense\n    x: y\n")[1] == {"x": "y"}


def test_annotations_become_schema_and_arguments_become_values() -> None:
    def book(
        place: Place,
        nights: Annotated[int, Field(ge=1, le=30)],
        board: Literal["none", "half", "full"] = "none",
        unit: Unit = Unit.METRIC,
        tags: list[str] | None = None,
        price: float = Field(9.5, gt=0, description="In euros"),
    ) -> Any:
        return place, nights, board, unit, tags, price

    found = Tool.of(book)
    properties = found.parameters["properties"]
    assert properties["nights"] == {"type": "integer", "minimum": 1, "maximum": 30}
    assert properties["price"]["description"] == "In euros"
    assert properties["board"]["enum"] == ["none", "half", "full"]
    place = found.parameters["$defs"]["Place"]
    assert set(place["properties"]) == {"city", "title"}, "a property called title is no title"
    bound = found.bind({"place": {"city": "Rome"}, "nights": 2, "unit": "imperial"})
    assert bound["place"] == Place(city="Rome")
    assert bound["unit"] is Unit.IMPERIAL
    assert (bound["price"], bound["tags"]) == (9.5, None)
    assert found(**bound)[0].city == "Rome", "a tool can still be called as the function it is"
    with pytest.raises(ArgumentsError, match="nights"):
        found.bind({"place": {"city": "Rome"}, "nights": 31})
    with pytest.raises(ArgumentsError, match=r"place\.city"):
        found.bind({"place": {}, "nights": 3})


def test_parameters_may_have_names_that_pydantic_uses_itself() -> None:
    def odd(schema: str, copy: int, model_config: str = "x", _hidden: int = 1) -> Any:
        return schema, copy, model_config, _hidden

    found = Tool.of(odd)
    assert list(found.parameters["properties"]) == ["schema", "copy", "model_config", "_hidden"]
    assert found(**found.bind({"schema": "s", "copy": 1})) == ("s", 1, "x", 1)


def test_the_context_is_not_the_models_business() -> None:
    def work(city: str, *, context: ToolContext | None = None) -> str:
        return city

    assert list(Tool.of(work).parameters["properties"]) == ["city"]
    assert Tool.of(work).signature.context == "context"


def test_what_a_partial_has_bound_is_not_the_models_to_choose() -> None:
    def read(database: object, key: int, prefix: str = "") -> str:
        return f"{database}{key}{prefix}"

    found = Tool.of(functools.partial(read, database="secret"), name="read")
    assert found.parameters["properties"]["key"] == {"type": "integer"}
    assert list(found.parameters["properties"]) == ["key", "prefix"]
    assert found(**found.bind({"key": 3})) == "secret3"
    with pytest.raises(ArgumentsError, match="database"):
        found.bind({"key": 3, "database": "mine"})


def test_a_method_is_a_tool_of_its_object() -> None:
    class Shop:
        def __init__(self, name: str) -> None:
            self.name = name

        def price(self, item: str) -> str:
            """Tell a price."""
            return f"{item} at {self.name}"

    found = Tool.of(Shop("mine").price)
    assert list(found.parameters["properties"]) == ["item"]
    assert found(**found.bind({"item": "tea"})) == "tea at mine"


def test_a_decorated_method_is_the_tool_of_its_object() -> None:
    class Shop:
        def __init__(self, name: str) -> None:
            self.name = name

        @tool(needs_approval=True)
        def price(self, item: str) -> str:
            """Tell a price."""
            return f"{item} at {self.name}"

        @staticmethod
        @tool
        def hours() -> str:
            """Tell the hours."""
            return "nine to five"

    mine, yours = Shop("mine").price, Shop("yours").price
    assert list(mine.parameters["properties"]) == ["item"]
    assert (mine.name, mine.description, mine.needs_approval) == ("price", "Tell a price.", True)
    assert mine(**mine.bind({"item": "tea"})) == "tea at mine"
    assert yours(**yours.bind({"item": "tea"})) == "tea at yours"
    assert ToolSet([mine, Shop("x").hours]).names == ["price", "hours"]
    with pytest.raises(ConfigError, match="unbound method"):
        ToolSet([Shop.price])


def test_an_object_that_can_be_called_says_what_it_does() -> None:
    class Adder:
        def __init__(self, more: int) -> None:
            self.more = more

        async def __call__(self, number: int) -> int:
            """Add."""
            return number + self.more

    found = Tool.of(Adder(2), name="add")
    assert (found.description, list(found.parameters["properties"])) == ("Add.", ["number"])


def test_keyword_arguments_are_open() -> None:
    def anything(**values: int) -> Any:
        return values

    found = Tool.of(anything)
    assert found.parameters["additionalProperties"] is True
    assert found(**found.bind({"a": 1})) == {"a": 1}


def positional(*words: str) -> None: ...


def unknown(word: Missing) -> None: ...  # type: ignore[name-defined]  # noqa: F821


def strange(word: types.FrameType) -> None: ...


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Tool.of(positional), "words"),
        (lambda: Tool.of(unknown), "Missing"),
        (lambda: Tool.of(strange), "strange"),
        (lambda: Tool.of(google, name="two words"), "tool name"),
        (lambda: Tool.of(google, timeout=0), "limits"),
        (lambda: Tool.of(google, allow="root"), "collection"),
        (lambda: Tool.from_schema("x", {"type": "string"}, google), "object"),
        (lambda: Tool.from_schema("x", int, google), "pydantic model"),
        (lambda: ToolSet([google, Tool.of(numpy, name="google")]), "duplicate tool name"),
        (lambda: Tool.from_schema("x", {}, executor="server"), "function"),
    ],
)
def test_what_cannot_be_a_tool_is_refused_when_declared(make: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make()


def test_a_raw_schema_is_checked_and_a_model_is_given_whole() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    raw = Tool.from_schema("raw", schema, lambda n: n)
    assert raw.bind({"n": 1}) == {"n": 1}
    with pytest.raises(ArgumentsError, match="n: is missing"):
        raw.bind({})
    model = Tool.from_schema("model", Place, lambda place: place)
    assert list(model.bind({"city": "Rome"}).values()) == [Place(city="Rome")]
    assert model.description == "Where."
    with pytest.raises(ArgumentsError, match="city"):
        model.bind({})


def test_where_a_tool_runs_is_told_apart() -> None:
    assert Tool.from_schema("x", {}).executor == "client"
    native = Tool.native_tool("web_search", {"type": "web_search"})
    assert native.spec.native == {"type": "web_search"}
    assert native.executor == "provider"


@pytest.mark.parametrize("error", [RuntimeError(), SystemExit(0)])
def test_approval_and_permission_rules_that_break_let_nothing_through(error: BaseException) -> None:
    def broken(_: Any) -> bool:
        raise error

    assert Tool.of(google, needs_approval=broken).asks({})
    assert not Tool.of(google, allow=broken).allows("root")
    assert Tool.of(google, needs_approval=lambda a: a["days"] > 3).asks({"days": 4})
    assert not Tool.of(google, needs_approval=lambda a: a["days"] > 3).asks({"days": 1})


def test_a_tool_set_knows_names_specs_and_who_may() -> None:
    @tool(allow={"root"}, name="admin")
    def secret() -> None: ...

    tools = ToolSet([google, secret])
    assert tools.names == ["google", "admin"]
    assert "google" in tools
    assert [s.name for s in tools.allowed("joe").specs()] == ["google"]
    assert [s.name for s in tools.allowed("root").specs()] == ["google", "admin"]
    assert (tools + ToolSet([numpy])).names == ["google", "admin", "numpy"]
    assert ToolSet.of(None).names == []


def test_free_form_input_needs_one_parameter() -> None:
    def query(sql: str) -> str:
        return sql

    assert Tool.of(query).bind("SELECT 1") == {"sql": "SELECT 1"}
    with pytest.raises(ArgumentsError, match="exactly one"):
        Tool.of(google).bind("x")


def test_tools_by_name() -> None:
    module = types.ModuleType("tools_for_this_test")
    module.many = [google, numpy]  # type: ignore[attr-defined]
    module.one = google  # type: ignore[attr-defined]
    module.number = 3  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module

    async def names(*wanted: str) -> list[str]:
        async with open_tools(wanted) as tools:
            return tools.names

    try:
        assert asyncio.run(names("demo")) == demo_tools().names
        assert asyncio.run(names("tools_for_this_test:many")) == ["google", "numpy"]
        assert asyncio.run(names("tools_for_this_test:one", "demo"))[0] == "google"
        for bad in (
            "nothing",
            "no_module:x",
            "tools_for_this_test:no",
            "tools_for_this_test:number",
        ):
            with pytest.raises(ConfigError):
                asyncio.run(names(bad))
    finally:
        del sys.modules[module.__name__]


def test_the_module_needs_no_pydantic_before_a_tool_is_declared() -> None:
    assert "pydantic" not in vars(tokenwire.tools.registry)


def test_a_rule_that_is_a_coroutine_lets_nobody_in() -> None:
    """A coroutine counts as true, and has said nothing."""

    async def no(_: Any) -> bool:
        return False

    class Later:
        async def __call__(self, _: Any) -> bool:
            return False

    for rule in (no, Later(), lambda value: no(value)):
        assert not Tool.of(google, allow=rule).allows("root")
        assert Tool.of(google, needs_approval=rule).asks({})


def test_who_may_use_every_tool_gets_the_set_itself() -> None:
    everyone = ToolSet([Tool.of(test_who_may_use_every_tool_gets_the_set_itself, name="all")])
    assert everyone.allowed("joe") is everyone
    nobody = ToolSet([Tool.of(lambda: "", name="none", allow=lambda _: False)])
    assert nobody.allowed("joe").names == []
