"""Structured output: request a schema, follow the growing value, get one validated value.

Always true: pure; the result has passed the user's own model or schema; the values before it are
prefixes of it and are not validated.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import Any, Final

import msgspec

from tokenwire.errors import ConfigError, ProtocolError
from tokenwire.events.fold import Fold
from tokenwire.events.message import TextPart
from tokenwire.events.model import (
    Event,
    StepReset,
    StepStart,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
)
from tokenwire.events.request import OutputSchema, Request, ToolSpec
from tokenwire.tools.calls.arguments import InvalidJSON, parse_json
from tokenwire.tools.calls.embedded import ValueText, json_candidates
from tokenwire.tools.calls.partial import PartialValue
from tokenwire.tools.json_schema import problem
from tokenwire.tools.schema import clean_schema, problems_of

__all__ = ["OUTPUT_TOOL", "Structured", "partial_values", "structured"]

#: The tool that a model is made to call where its provider has no mechanism of its own.
OUTPUT_TOOL: Final = "give_answer"
_MOST: Final = 8 * 1024 * 1024


@dataclasses.dataclass(frozen=True, slots=True)
class Structured:
    """A requested schema, and how to read the answer."""

    output: OutputSchema
    _read: Callable[[Any], Any]

    def request(
        self, request: Request, *, by_tool: bool = False, among_tools: bool = False
    ) -> Request:
        """The request that asks for this shape: by the provider's own mechanism, or by a tool
        that the model must call (or, ``among_tools``, may call after others)."""
        if not by_tool:
            return msgspec.structs.replace(request, output=self.output)
        spec = ToolSpec(
            name=OUTPUT_TOOL,
            description="Give the final answer in this form.",
            parameters=self.output.schema,
        )
        choice = "required" if among_tools or request.tools else OUTPUT_TOOL
        return msgspec.structs.replace(
            request, tools=[*(request.tools or []), spec], tool_choice=choice, output=None
        )

    def read_answer(self, state: Fold) -> Any:
        """The checked value of a run: of the answer tool's call, or of the last step's text."""
        for part in reversed(state.parts.values()):
            if part.kind == "tool-call" and part.attrs.get("name") == OUTPUT_TOOL:
                return self.read(part.text or _dumped(part.attrs.get("arguments", {})))
        parts = state.step_parts(state.steps[-1]) if state.steps else []
        return self.read("".join(part.text for part in parts if isinstance(part, TextPart)))

    def read(self, text: str) -> Any:
        """The checked value of a whole answer: the answer itself, or the one JSON value among its
        prose. Raises `ProtocolError` that says what is wrong."""
        failure: ProtocolError | None = None
        for candidate in json_candidates(text):
            try:
                return self._checked(candidate)
            except ProtocolError as error:
                failure = failure or error
        assert failure is not None  # the whole answer is always a candidate
        raise failure

    def _checked(self, text: str) -> Any:
        try:
            value = parse_json(text, most=_MOST)
        except InvalidJSON as error:
            raise ProtocolError(f"the model's answer is not the requested JSON: {error}") from None
        try:
            return self._read(value)
        except ValueError as error:
            raise ProtocolError(f"the model's answer does not fit the schema: {error}") from None


def structured(shape: Any, *, name: str = "answer", strict: bool = True) -> Structured:
    """Ask for ``shape``: a pydantic model, any type that pydantic knows (``list[str]``), or a JSON
    Schema. A shape that is no object is asked for inside one, under ``value``."""
    if isinstance(shape, OutputSchema):
        return Structured(shape, lambda value: _by_schema(value, shape.schema))
    if isinstance(shape, dict):
        return Structured(
            OutputSchema(schema=shape, name=name, strict=strict),
            lambda value: _by_schema(value, shape),
        )
    from pydantic import TypeAdapter, ValidationError
    from pydantic.errors import PydanticUserError

    try:
        adapter: Any = TypeAdapter(shape)
        schema = adapter.json_schema()
    except PydanticUserError as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"no JSON Schema for {shape!r}: {reason}") from error
    wrapped = schema.get("type") != "object" and "$ref" not in schema
    if wrapped:
        schema = _inside_object(schema)

    def read(value: Any) -> Any:
        try:
            if not wrapped:
                return adapter.validate_python(value)
            if not isinstance(value, dict) or "value" not in value:
                raise ValueError("'value' is missing")
            return adapter.validate_python(value["value"])
        except ValidationError as error:
            raise ValueError(problems_of(error)) from None

    own = getattr(shape, "__name__", name) if isinstance(shape, type) and not wrapped else name
    schema = _closed(clean_schema(schema)) if strict else clean_schema(schema)
    return Structured(OutputSchema(schema=schema, name=own, strict=strict), read)


async def partial_values(events: AsyncIterable[Event]) -> AsyncIterator[Any]:
    """The growing value of an answer, whenever it has changed: from its text, or from the call of
    the answer tool. The last one is everything that came, still unchecked. ``events``: a run,
    which is looked at once for each batch that came, or any events, looked at one by one."""
    growing = _Growing()
    async for batch in _batches(events):
        for event in batch:
            growing.push(event)
        if growing.changed(growing.partial.value):
            yield growing.last_value
    value = growing.partial.finish()
    if value is not None and growing.changed(value):
        yield value


class _Growing:
    """The answer's text so far, and what was shown of it."""

    def __init__(self) -> None:
        self.partial = PartialValue()
        self._text = ValueText()
        self.last_value: Any = None
        self._part: int | None = None  # that of the answer tool's call

    def push(self, event: Event) -> None:
        if isinstance(event, StepReset | StepStart):
            self.partial, self._part, self._text = PartialValue(), None, ValueText()
        elif isinstance(event, ToolCallStart) and event.name == OUTPUT_TOOL:
            self.partial, self._part = PartialValue(), event.part
        elif isinstance(event, TextDelta) and self._part is None:
            before = self._text.values
            text = self._text.feed(event.text)
            if self._text.values > max(before, 1):
                self.partial = PartialValue()
            if text:
                self.partial.push(text)
        elif isinstance(event, ToolCallDelta) and event.part == self._part:
            self.partial.push(event.text)

    def changed(self, value: Any) -> bool:
        if value is None or value is self.last_value or value == self.last_value:
            return False
        self.last_value = value
        return True


async def _batches(events: Any) -> AsyncIterator[list[Event]]:
    if hasattr(events, "batches"):
        async for batch in events.batches():
            yield batch
    else:
        async for event in events:
            yield [event]


def _dumped(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _by_schema(value: Any, schema: dict[str, Any]) -> Any:
    reason = problem(value, schema)
    if reason:
        raise ValueError(reason)
    return value


def _inside_object(schema: dict[str, Any]) -> dict[str, Any]:
    definitions = schema.pop("$defs", None)
    outer: dict[str, Any] = {
        "type": "object",
        "properties": {"value": schema},
        "required": ["value"],
    }
    if definitions:
        outer["$defs"] = definitions
    return outer


def _closed(schema: Any) -> Any:
    """Strict mode of the providers wants every object closed and every property required."""
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {
        key: value if key in ("default", "const", "enum", "examples") else _closed(value)
        for key, value in schema.items()
    }
    if closed.get("type") == "object" and isinstance(closed.get("properties"), dict):
        closed.setdefault("additionalProperties", False)
        closed["required"] = list(closed["properties"])
    return closed
