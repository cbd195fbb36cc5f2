"""Tools: functions that a model may ask for, with their limits, and sets of them.

Always true: a tool set is closed (a name that is not in it cannot run); two tools of one name are
refused; who may not use a tool gets the answer of somebody for whom it does not exist.
"""

from __future__ import annotations

import copy
import dataclasses
import re
import types
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, Final, Literal, overload

from tokenwire.errors import ConfigError
from tokenwire.events.principal import Principal, is_listed
from tokenwire.events.request import ToolSpec
from tokenwire.exits import EXITS, is_by_signal
from tokenwire.tools.context import ToolContext
from tokenwire.tools.json_schema import check_schema, problem
from tokenwire.tools.rules import verdict
from tokenwire.tools.schema import (
    ArgumentsError,
    Signature,
    clean_schema,
    problems_of,
    signature_of,
)

__all__ = ["Tool", "ToolSet", "tool"]
#: The name under which `Tool.bind` gives an instance that is to be passed by position.
MODEL: Final = "*"

#: Every provider accepts these names.
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")

Executor = Literal["server", "client", "provider"]
Approval = bool | Callable[[dict[str, Any]], bool]
Allow = Callable[[str], bool] | Collection[str | Principal] | None


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Tool:
    """A function with its description for the model and its limits.

    ``timeout``: seconds. ``output_cap``: bytes of its result as JSON. ``concurrency``: calls of it
    that run at once in this process. ``needs_approval``: True, False, or a function of the
    arguments; ``approval_timeout``: seconds after which such an approval ends as denied,
    ``expired``, None: those of the run. ``idempotent``: may be started again when a crash left its
    outcome unknown.
    ``allow``: who may use it (a collection of names and `Principal`, or a function of the name).
    ``executor``: ``client`` tools are answered by the browser, ``provider`` ones by the provider.
    """

    name: str
    function: Callable[..., Any] | None
    signature: Signature
    description: str = ""
    timeout: float = 30.0
    output_cap: int = 256 * 1024
    concurrency: int = 8
    needs_approval: Approval = False
    approval_timeout: float | None = None
    idempotent: bool = False
    allow: Allow = None
    executor: Executor = "server"
    strict: bool | None = None
    #: A provider-run tool's own object, passed through: ``{"type": "web_search"}``.
    native: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ConfigError(
                f"invalid tool name {self.name!r}: use letters, digits, '_' and '-', at most 64, "
                "and begin with a letter"
            )
        if self.timeout <= 0 or self.output_cap <= 0 or self.concurrency <= 0:
            raise ConfigError(f"tool '{self.name}': limits must be positive numbers")
        if self.approval_timeout is not None and not self.approval_timeout > 0:
            raise ConfigError(f"tool '{self.name}': approval_timeout must be more than 0 s")
        if self.executor == "server" and self.function is None:
            raise ConfigError(f"tool '{self.name}' runs on the server and needs a function")
        if isinstance(self.allow, str):
            raise ConfigError(f"tool '{self.name}': allow must be a collection of principals")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The function itself, so that a decorated function can still be called and tested."""
        if self.function is None:
            raise ConfigError(f"tool '{self.name}' runs on the {self.executor}")
        return self.function(*args, **kwargs)

    def __get__(self, instance: Any, owner: type | None = None) -> Tool:
        """A decorated method, asked for by way of an object, is the tool of that object."""
        if instance is None or not self.signature.unbound or self.function is None:
            return self
        signature = copy.copy(self.signature)
        signature.unbound = False
        bound = types.MethodType(self.function, instance)
        return dataclasses.replace(self, function=bound, signature=signature)

    @property
    def parameters(self) -> dict[str, Any]:
        """The JSON Schema of its arguments."""
        return self.signature.parameters

    @property
    def spec(self) -> ToolSpec:
        """The tool as the model sees it."""
        return ToolSpec(
            name=self.name,
            description=self.description,
            parameters=self.parameters,
            strict=self.strict,
            executor=self.executor,
            native=self.native,
        )

    def bind(self, arguments: Any) -> dict[str, Any]:
        """The call's ``arguments`` as keyword arguments of the function. Raises `ArgumentsError` if
        they do not fit."""
        if isinstance(arguments, str):  # free-form input of a 'text' call
            names = list(self.parameters.get("properties", {}))
            if len(names) != 1:
                raise ArgumentsError("free-form input needs a tool with exactly one parameter")
            arguments = {names[0]: arguments}
        if not isinstance(arguments, dict):
            raise ArgumentsError("the arguments must be a JSON object")
        return self.signature.bind(arguments)

    def asks(self, arguments: dict[str, Any]) -> bool:
        """Whether a person must approve a call with these ``arguments``. A rule that raises means
        yes."""
        if not callable(self.needs_approval):
            return self.needs_approval
        try:
            return verdict(self.needs_approval(arguments))
        except (Exception, *EXITS) as error:  # a broken rule must not let anything through
            if is_by_signal(error):
                raise
            return True

    def allows(self, principal: str) -> bool:
        """Whether ``principal`` may use it. A rule that raises means no."""
        if self.allow is None:
            return True
        if not callable(self.allow):
            return is_listed(principal, self.allow)
        try:
            return verdict(self.allow(principal))
        except (Exception, *EXITS) as error:  # a broken rule must not let anybody through
            if is_by_signal(error):
                raise
            return False

    @classmethod
    def of(cls, function: Callable[..., Any], *, name: str | None = None, **options: Any) -> Tool:
        """A tool from ``function``: schema from its signature, annotations and docstring. ``name``:
        default the function's; ``options``: the fields of `Tool`. Raises `ConfigError`."""
        signature = signature_of(function, ToolContext)
        options.setdefault("description", signature.description)
        return cls(
            name=name or getattr(function, "__name__", type(function).__name__),
            function=function,
            signature=signature,
            **options,
        )

    @classmethod
    def from_schema(
        cls,
        name: str,
        schema: dict[str, Any] | type,
        function: Callable[..., Any] | None = None,
        **options: Any,
    ) -> Tool:
        """A tool from a JSON Schema or a pydantic model of its arguments.

        ``name``: for the model. ``function`` gets keyword arguments for a JSON ``schema``, and one
        instance for a pydantic model; without it the tool runs on the client (or on the provider,
        with ``executor="provider"``). ``options``: the fields of `Tool`. Raises `ConfigError`.
        """
        if function is None:
            options.setdefault("executor", "client")
        signature = _model_signature(schema) if isinstance(schema, type) else _raw(name, schema)
        options.setdefault("description", signature.description)
        return cls(name=name, function=function, signature=signature, **options)

    @classmethod
    def native_tool(cls, name: str, native: dict[str, Any]) -> Tool:
        """A tool ``name`` that the provider runs, by the provider's own object ``native``."""
        empty = Signature({"type": "object", "properties": {}}, lambda arguments: arguments)
        return cls(name=name, function=None, signature=empty, executor="provider", native=native)


@overload
def tool(function: Callable[..., Any], /) -> Tool: ...
@overload
def tool(
    *,
    name: str | None = None,
    description: str = ...,
    timeout: float = 30.0,
    output_cap: int = 256 * 1024,
    concurrency: int = 8,
    needs_approval: Approval = False,
    approval_timeout: float | None = None,
    idempotent: bool = False,
    allow: Allow = None,
    executor: Executor = "server",
    strict: bool | None = None,
) -> Callable[[Callable[..., Any]], Tool]: ...
def tool(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a tool of ``function``: ``@tool``, or ``@tool(timeout=5, needs_approval=True)`` with the
    fields of `Tool` as ``options``. Raises `ConfigError`."""
    if function is not None:
        return Tool.of(function, **options)
    return lambda decorated: Tool.of(decorated, **options)


class ToolSet:
    """Tools by name. ``tools``: tools and plain functions. Raises `ConfigError` for two of one name
    and for an unbound method."""

    def __init__(self, tools: Iterable[Tool | Callable[..., Any]] = ()) -> None:
        self._tools: dict[str, Tool] = {}
        if isinstance(tools, str) or not isinstance(tools, Iterable):
            raise ConfigError(
                f"tools must be a list of functions and tools, not {type(tools).__name__}"
            )
        for item in tools:
            entry = item if isinstance(item, Tool) else Tool.of(item)
            if entry.signature.unbound:
                raise ConfigError(
                    f"tool '{entry.name}' is an unbound method; pass it bound: object.{entry.name}"
                )
            if entry.name in self._tools:
                raise ConfigError(f"duplicate tool name '{entry.name}'; rename one")
            self._tools[entry.name] = entry

    @classmethod
    def of(cls, tools: ToolSet | Iterable[Tool | Callable[..., Any]] | None) -> ToolSet:
        """A tool set from any value of a ``tools`` argument."""
        return tools if isinstance(tools, ToolSet) else cls(tools or ())

    def __iter__(self) -> Iterator[Tool]:
        return iter(self._tools.values())

    def __len__(self) -> int:
        return len(self._tools)

    def __contains__(self, name: object) -> bool:
        return name in self._tools

    def __add__(self, other: ToolSet | Iterable[Tool | Callable[..., Any]]) -> ToolSet:
        return ToolSet([*self, *other])

    def get(self, name: str) -> Tool | None:
        """The tool called ``name``, or None."""
        return self._tools.get(name)

    @property
    def names(self) -> list[str]:
        """The names, in the order in which the tools were given."""
        return list(self._tools)

    def specs(self) -> list[ToolSpec]:
        """The specifications for the model."""
        return [entry.spec for entry in self]

    def allowed(self, principal: str) -> ToolSet:
        """The tools that ``principal`` may use; all of them are this set itself."""
        allowed = [entry for entry in self if entry.allows(principal)]
        return self if len(allowed) == len(self) else ToolSet(allowed)


def _raw(name: str, schema: dict[str, Any]) -> Signature:
    reason = check_schema(schema)
    if reason:
        raise ConfigError(f"tool '{name}': {reason}")
    parameters = {"type": "object", "properties": {}, **schema}

    def bind(arguments: dict[str, Any]) -> dict[str, Any]:
        reason = problem(arguments, parameters)
        if reason:
            raise ArgumentsError(reason)
        return arguments

    return Signature(parameters, bind, description=str(schema.get("description", "")))


def _model_signature(model: Any) -> Signature:
    from pydantic import ValidationError

    if not hasattr(model, "model_json_schema"):
        raise ConfigError(
            f"{model.__name__} is not a pydantic model; pass a model or a JSON Schema"
        )
    schema = clean_schema(model.model_json_schema())

    def bind(arguments: dict[str, Any]) -> dict[str, Any]:
        try:
            return {MODEL: model.model_validate(arguments)}
        except ValidationError as error:
            raise ArgumentsError(problems_of(error)) from None

    return Signature(schema, bind, description=str(schema.pop("description", "")))
