"""A Python function to the JSON Schema that a model sees, and a call's arguments back to values.

Always true: the schema comes from the same pydantic model that validates, so what the model is
told and what is accepted cannot differ; a bad signature is refused when the tool is declared.
"""

from __future__ import annotations

import functools
import inspect
import re
import typing
from collections.abc import Callable
from typing import Annotated, Any, Final

from tokenwire.errors import ConfigError
from tokenwire.tools.per_call import PerCall

__all__ = [
    "ArgumentsError",
    "Signature",
    "clean_schema",
    "parse_docstring",
    "problems_of",
    "signature_of",
]

_MAX_PROBLEMS: Final = 5
#: ``city (str, optional): Where.`` and ``city: Where.``
_GOOGLE: Final = re.compile(r"^\*{0,2}(\w+)\s*+(?:\([^)]*\)\s*+)?:\s*+(.*)\Z")
#: ``city : str`` or ``city``
_NUMPY: Final = re.compile(r"^\*{0,2}(\w+)\s*(?::.*)?\Z")
#: ``:param str city: Where``: the name is the last word before the colon.
_SPHINX: Final = re.compile(r"^:param(?=\s)[^:]*?\b(\w++)\s*+:\s*+(.*)\Z")
_PARAMETER_HEADS: Final = frozenset({"args", "arguments", "parameters", "params", "keyword args"})
_OTHER_HEADS: Final = frozenset(
    "returns return raises raise yields yield examples example note notes warning warnings "
    "see also references attributes".split()
) | {"see also", "other parameters"}


class ArgumentsError(ValueError):
    """A call's arguments do not fit the tool's schema; ``str(error)`` tells the model where."""


class Signature:
    """What a function takes: its schema, and a way from a JSON object to keyword arguments."""

    def __init__(
        self,
        parameters: dict[str, Any],
        bind: Callable[[dict[str, Any]], dict[str, Any]],
        *,
        description: str = "",
        context: str | None = None,
        values: dict[str, PerCall] | None = None,
        unbound: bool = False,
    ) -> None:
        self.parameters = parameters
        self.description = description
        #: The function is a method that lacks its object.
        self.unbound = unbound
        #: The name of the parameter that takes the `ToolContext`, if there is one.
        self.context = context
        #: The parameters whose values are made for each call.
        self.values = values or {}
        self._bind = bind

    def bind(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Keyword arguments for the function. Raises `ArgumentsError`."""
        return self._bind(arguments)

    def wrap(self, name: str) -> None:
        """Give the function one argument that holds them all, for functions without a signature
        of their own."""
        inner = self._bind
        self._bind = lambda arguments: {name: inner(arguments)}


def signature_of(function: Callable[..., Any], context_type: type) -> Signature:
    """The signature of ``function``. A parameter annotated with ``context_type`` is left out.
    Raises `ConfigError` for a signature without a JSON Schema."""
    # pydantic costs more to import than all of tokenwire: only who declares a tool pays.
    from pydantic import ConfigDict, Field, ValidationError, create_model
    from pydantic.errors import PydanticUserError

    name = getattr(function, "__name__", type(function).__name__)
    summary, documented = parse_docstring(_doc_of(function))
    hints = _hints(function, name)
    bound = function.keywords if isinstance(function, functools.partial) else {}
    fields: dict[str, Any] = {}
    names: dict[str, str] = {}
    context: str | None = None
    values: dict[str, PerCall] = {}
    extra = False
    unbound = _is_method(function)
    for number, parameter in enumerate(inspect.signature(function).parameters.values()):
        if parameter.name in bound or (unbound and number == 0):
            continue  # bound by functools.partial, or by its object: not the model's to choose
        hint = hints.get(parameter.name, Any)
        if _is_context(hint, context_type):
            context = parameter.name
            continue
        per_call = _per_call(hint, parameter.default)
        if per_call is not None:
            _check_kind(name, function, parameter.name, per_call)
            values[parameter.name] = per_call
            continue
        if parameter.kind is parameter.VAR_KEYWORD:
            extra = True
            continue
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.POSITIONAL_ONLY):
            raise ConfigError(
                f"tool '{name}': the parameter '{parameter.name}' cannot be passed by name; "
                "make it an ordinary or keyword-only one"
            )
        default = ... if parameter.default is parameter.empty else parameter.default
        field_info = Field(alias=parameter.name, description=documented.get(parameter.name))
        # A neutral name, so that a parameter called 'schema' or 'copy' hides nothing of pydantic.
        field = f"p{len(fields)}"
        names[field] = parameter.name
        # What an annotation or default says of itself wins over the docstring.
        fields[field] = (Annotated[hint, field_info, *_own(hint)], default)
    try:
        model: Any = create_model(
            name, __config__=ConfigDict(extra="allow" if extra else "forbid"), **fields
        )
        parameters = clean_schema(model.model_json_schema())
    except PydanticUserError as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"tool '{name}': no JSON Schema for a parameter: {reason}") from error

    def bind(arguments: dict[str, Any]) -> dict[str, Any]:
        try:
            checked = model.model_validate(arguments)
        except ValidationError as error:
            raise ArgumentsError(problems_of(error)) from None
        values = {names[field]: getattr(checked, field) for field in fields}
        return values | dict(checked.model_extra or {})

    return Signature(
        parameters, bind, description=summary, context=context, values=values, unbound=unbound
    )


def _per_call(hint: Any, default: Any) -> PerCall | None:
    marks = [default, *getattr(hint, "__metadata__", ())]
    return next((mark for mark in marks if isinstance(mark, PerCall)), None)


def _check_kind(name: str, function: Callable[..., Any], parameter: str, value: PerCall) -> None:
    plain = inspect.isfunction(function) and not (
        inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
    )
    if plain and value.is_async:
        raise ConfigError(
            f"tool '{name}': the value of '{parameter}' is made by an async function, so the tool "
            "must be 'async def'"
        )


def _is_method(function: Callable[..., Any]) -> bool:
    """Whether it is a function of a class's body, which lacks its object."""
    if not inspect.isfunction(function):
        return False
    return next(iter(inspect.signature(function).parameters), "") == "self"


def _doc_of(function: Callable[..., Any]) -> str:
    """What a function says of itself, or an object's class or its ``__call__``."""
    if inspect.isroutine(function) or isinstance(function, functools.partial):
        return inspect.getdoc(getattr(function, "func", function)) or ""
    return inspect.getdoc(type(function)) or inspect.getdoc(type(function).__call__) or ""


def parse_docstring(doc: str) -> tuple[str, dict[str, str]]:
    """(what it does, parameter -> description) of a Google, NumPy or Sphinx docstring."""
    summary: list[str] = []
    texts: dict[str, list[str]] = {}
    section, current, indent = "summary", "", 0
    lines = doc.splitlines()
    for number, line in enumerate(lines):
        text = line.strip()
        below = lines[number + 1].strip() if number + 1 < len(lines) else ""
        head = text.rstrip(":").lower()
        is_head = bool(text) and (text.endswith(":") or _is_rule(below))
        if is_head and (head in _PARAMETER_HEADS or head in _OTHER_HEADS):
            section = "google" if text.endswith(":") else "numpy"
            section = section if head in _PARAMETER_HEADS else "other"
            current, indent = "", 0
        elif _is_rule(text) or (section == "other" and not text.startswith(":")):
            continue
        elif match := _SPHINX.match(text):
            section, current = "sphinx", match[1]
            texts[current] = [match[2]]
        elif text.startswith(":") and section in ("summary", "sphinx"):
            section, current = "sphinx", ""
        elif section == "summary":
            summary.append(text)
        elif section == "sphinx":
            if current and text:
                texts[current].append(text)
        elif text:
            depth = len(line) - len(line.lstrip())
            pattern = _GOOGLE if section == "google" else _NUMPY
            match = pattern.match(text) if not current or depth <= indent else None
            if match:
                current, indent = match[1], depth
                texts[current] = [match[2]] if section == "google" else []
            elif current:
                texts[current].append(text)
    return "\n".join(summary).strip(), {k: " ".join(v).strip() for k, v in texts.items() if any(v)}


def clean_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """A pydantic schema without its generated titles, which cost tokens and tell nothing."""
    cleaned = _clean(schema)
    cleaned.setdefault("type", "object")
    if cleaned["type"] == "object":
        cleaned.setdefault("properties", {})
    return cleaned


def _clean(schema: Any, *, names: bool = False) -> Any:
    if isinstance(schema, list):
        return [_clean(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    # Below 'properties' the keys are names that a user chose; 'title' may be one of them.
    return {
        key: value
        if key in ("default", "const", "enum", "examples") and not names
        else _clean(value, names=key in ("properties", "$defs") and not names)
        for key, value in schema.items()
        if names or not (key == "title" and isinstance(value, str))
    }


def _own(hint: Any) -> tuple[Any, ...]:
    """What ``Annotated`` says, again: of two, pydantic takes the later."""
    return getattr(hint, "__metadata__", ())


def _is_rule(text: str) -> bool:
    return len(text) >= 3 and set(text) <= {"-"}


def _hints(function: Callable[..., Any], name: str) -> dict[str, Any]:
    if isinstance(function, functools.partial):
        return _hints(function.func, name)
    target = function if inspect.isroutine(function) else type(function).__call__
    try:
        return typing.get_type_hints(target, include_extras=True)
    except NameError as error:
        raise ConfigError(
            f"tool '{name}': an annotation uses the unknown name {error.name!r}"
        ) from error


def _is_context(hint: Any, context_type: type) -> bool:
    options = typing.get_args(hint) or (hint,)
    return any(isinstance(o, type) and issubclass(o, context_type) for o in options)


def problems_of(error: Any) -> str:
    """A pydantic ``ValidationError`` in words for the model, without its input."""
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    lines = [
        f"{'.'.join(str(step) for step in problem['loc']) or 'arguments'}: {problem['msg']}"
        for problem in problems[:_MAX_PROBLEMS]
    ]
    more = len(problems) - len(lines)
    return "; ".join(lines) + (f"; and {more} more" if more > 0 else "")
