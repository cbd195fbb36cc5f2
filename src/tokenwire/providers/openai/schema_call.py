"""A forced tool call by a JSON schema: the schema to request, and the text read as a call.

For servers that can hold a model to a schema (a grammar) and cannot hold it to a call.

Always true: pure; any cut of the text gives the same name and arguments, in linear time; text that
is no such call is given out as text, whole; a call whose text goes wrong or ends after its name has
a `problem`, so that it never runs.
"""

from __future__ import annotations

import re
from typing import Any, Literal

import msgspec

from tokenwire.errors import InputError
from tokenwire.events.request import Request, ToolSpec

__all__ = ["READING", "CallText", "Piece", "call_schema", "forced", "told"]

#: The name of this way among the quirks of one answer (`providers.base.Call.reading`).
READING = "call_in_text"

#: ``name``: the call begins. ``arguments``: a piece of their JSON text. ``text``: it is no call.
Piece = tuple[Literal["name", "arguments", "text"], str]

_FREE = ("auto", "none")
#: Keys below which a ``$ref`` is a value and no reference.
_VALUES = frozenset({"const", "enum", "default", "examples"})


def forced(request: Request) -> list[ToolSpec]:
    """The tools one of which must be called; none when the model may choose. Raises `InputError`
    when the one that must be called is not among the tools."""
    choice = request.tool_choice
    tools = [tool for tool in request.tools or [] if tool.native is None]
    if choice is None or choice in _FREE or not tools:
        return []
    if choice == "required":
        return tools
    named = [tool for tool in tools if tool.name == choice]
    if not named:
        raise InputError(f"tool_choice is '{choice}', but no tool has that name")
    return named


def call_schema(tools: list[ToolSpec]) -> dict[str, Any]:
    """The schema of one call of one of ``tools``: an object with its name and its arguments."""
    definitions: dict[str, Any] = {}
    calls: list[dict[str, Any]] = []
    for number, tool in enumerate(tools):
        place = f"tool{number}"
        schema = {"type": "object", "properties": {}, **tool.parameters}
        definitions[place] = _moved(schema, f"#/$defs/{place}")
        calls.append(
            {
                "type": "object",
                "properties": {
                    "name": {"const": tool.name},
                    "arguments": {"$ref": f"#/$defs/{place}"},
                },
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
        )
    return {"$defs": definitions, "anyOf": calls}


def told(tools: list[ToolSpec]) -> str:
    """The tools in words, for a model whose chat template does not list them."""
    functions = [
        {"name": t.name, "description": t.description, "parameters": t.parameters} for t in tools
    ]
    return (
        "Call one of the functions below. Answer with one JSON object, "
        '{"name": the name of the function, "arguments": an object}, and nothing else.\n'
        + msgspec.json.encode(functions).decode()
    )


def _moved(schema: Any, place: str) -> Any:
    """A schema whose references to itself hold at its new place."""
    if isinstance(schema, list):
        return [_moved(item, place) for item in schema]
    if not isinstance(schema, dict):
        return schema
    fields: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "$ref" and isinstance(value, str) and value.startswith("#"):
            fields[key] = place + value[1:]
        else:
            fields[key] = value if key in _VALUES else _moved(value, place)
    return fields


# --- the way back --------------------------------------------------------------------------------

_SPACE = " \t\r\n"
_FENCE = "```json"
#: What stands before the name, and between it and the arguments; white space may stand around.
_BEFORE: tuple[str, ...] = ("{", '"name"', ":")
_BETWEEN: tuple[str, ...] = (",", '"arguments"', ":")
#: Before its name a call has no more characters than that.
_MOST_HEAD = 4096
#: What can change the nesting of a JSON text; a backslash with what it escapes.
_MARKS = re.compile(r'\\.?|["{}\[\]]', re.DOTALL)


class CallText:
    """The text of one choice, read as ``{"name": ..., "arguments": {...}}`` while it comes.

    A fence before it is skipped; what follows the arguments is not read.
    """

    def __init__(self) -> None:
        self._state = self._head
        #: Text that is not emitted yet: it may be ordinary text.
        self._pending: list[str] = []
        self._size = 0
        self._expected = list(_BEFORE)
        self._at = 0  # characters of the first expected word that have come
        self._name: list[str] | None = None
        self._depth = 0
        self._string = self._escaped = False
        self._out: list[Piece] = []

    def feed(self, piece: str) -> list[Piece]:
        """What is clear now, in order."""
        while piece:
            piece = self._state(piece)
        out, self._out = self._out, []
        return out

    def finish(self) -> list[Piece]:
        """What was held back, at the end."""
        if self._state == self._head and self._pending:
            self._give_up("")
        out, self._out = self._out, []
        return out

    @property
    def problem(self) -> tuple[Literal["invalid", "truncated"], str] | None:
        """Why the call, if there is one, may not run: its status, and words for the model."""
        if self._state == self._wrong:
            return "invalid", "the call is not of the form that was asked for"
        if self._state in (self._middle, self._arguments):
            return "truncated", "the call ended before its arguments did"
        return None

    # Each state takes some of the text, and returns the rest.

    def _head(self, text: str) -> str:
        """Up to the end of the name."""
        for position, char in enumerate(text):
            if self._name is not None:
                if self._ends_name(char):
                    return self._named(text, position)
            elif not self._goes_on(char):
                if self._expected or char != '"':
                    return self._give_up(text)
                self._name = ['"']
        self._pending.append(text)
        self._size += len(text)
        return self._give_up("") if self._size > _MOST_HEAD else ""

    def _ends_name(self, char: str) -> bool:
        """Take a character of the name's string; True when it closes it."""
        assert self._name is not None
        self._name.append(char)
        if self._escaped:
            self._escaped = False
            return False
        self._escaped = char == "\\"
        return char == '"'

    def _named(self, text: str, position: int) -> str:
        try:
            name = msgspec.json.decode("".join(self._name or ()).encode(), type=str)
        except (msgspec.MsgspecError, UnicodeError):
            return self._give_up(text)
        self._pending.clear()
        self._out.append(("name", name))
        self._expected = list(_BETWEEN)
        self._state = self._middle
        return text[position + 1 :]

    def _middle(self, text: str) -> str:
        """Between the name and its arguments."""
        for position, char in enumerate(text):
            if not self._goes_on(char):
                begins = not self._expected and char == "{"
                self._state = self._arguments if begins else self._wrong
                return text[position:]
        return ""

    def _arguments(self, text: str) -> str:
        """The arguments, up to the bracket that closes them."""
        start, self._escaped = int(self._escaped), False
        for mark in _MARKS.finditer(text, start):
            sign = mark[0]
            if sign[0] == "\\":
                self._escaped = len(sign) == 1
            elif sign == '"':
                self._string = not self._string
            elif not self._string:
                self._depth += 1 if sign in "{[" else -1
                if self._depth == 0:
                    self._out.append(("arguments", text[: mark.end()]))
                    self._state = self._after
                    return text[mark.end() :]
        self._out.append(("arguments", text))
        return ""

    def _wrong(self, text: str) -> str:
        self._out.append(("arguments", text))
        return ""

    def _after(self, text: str) -> str:
        return ""

    def _text(self, text: str) -> str:
        self._out.append(("text", text))
        return ""

    def _give_up(self, text: str) -> str:
        """It is no call: all of it is text."""
        self._out.append(("text", "".join([*self._pending, text])))
        self._pending.clear()
        self._state = self._text
        return ""

    def _goes_on(self, char: str) -> bool:
        """Whether the character continues the expected words (or is white space between)."""
        if self._at == 0 and char in _SPACE:
            return True
        if char == "`" and self._at == 0 and self._expected == list(_BEFORE):
            self._expected.insert(0, _FENCE)
        if not self._expected or char != self._expected[0][self._at]:
            return False
        self._at += 1
        if self._at == len(self._expected[0]):
            del self._expected[0]
            self._at = 0
        return True
