"""The event model as TypeScript: types and the order table, made from the Python model.

Run it without arguments to write `packages/client/src/core/events.generated.ts`; with ``--check``
it writes nothing and exits 1 when the file is not what the model says.
"""

from __future__ import annotations

import sys
import types
import typing
from pathlib import Path
from typing import Any, Literal, Union

import msgspec

from tokenwire.events.model import EVENT_TYPES, TRANSIENT, Event
from tokenwire.events.order import TABLE

TARGET = (
    Path(__file__).parent.parent / "packages" / "client" / "src" / "core" / "events.generated.ts"
)

HEADER = """\
// Made by scripts/ts_types.py from the Python event model; change it there.
/* The events of a run, and which may follow which. */
"""


def typescript(hint: Any) -> str:
    """A Python type hint as TypeScript."""
    if hint is Any:
        return "unknown"
    plain = {str: "string", int: "number", float: "number", bool: "boolean"}.get(hint)
    if plain:
        return plain
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        hints = typing.get_type_hints(hint)
        fields = [
            f"{field.encode_name}{'' if field.required else '?'}: {typescript(hints[field.name])}"
            for field in msgspec.structs.fields(hint)
        ]
        return "{ " + "; ".join(fields) + " }"
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return " | ".join(f'"{value}"' for value in args)
    if origin in (Union, types.UnionType):
        # What is absent is absent, never null; the `?` of the field says so.
        members = (typescript(arg) for arg in args if arg is not type(None))
        return " | ".join(dict.fromkeys(members))
    if origin is list:
        inner = typescript(args[0])
        return f"({inner})[]" if "|" in inner else f"{inner}[]"
    if origin is dict:
        return f"Record<string, {typescript(args[1])}>"
    raise TypeError(f"no TypeScript for {hint!r}")


def interface(name: str, cls: type[Event]) -> str:
    """One event type as an interface."""
    hints = typing.get_type_hints(cls)
    lines = [f"export interface {cls.__name__}Event extends Envelope {{", f'  type: "{name}";']
    for field in msgspec.structs.fields(cls):
        if field.name in ("seq", "t", "extra"):
            continue
        optional = "" if field.required else "?"
        lines.append(f"  {field.encode_name}{optional}: {typescript(hints[field.name])};")
    return "\n".join([*lines, "}"])


def union(name: str, members: list[str]) -> str:
    """A union type, one member a line."""
    return f"export type {name} =\n" + "\n".join(f"  | {member}" for member in members) + ";"


def order_table() -> str:
    """`TABLE` as a constant; an unknown event type may come wherever ``raw`` may."""
    lines = ["export const ORDER: Record<string, Record<string, string>> = {"]
    for state, moves in TABLE.items():
        lines.append(f'  "{state}": {{')
        lines += [f'    "{name}": "{following}",' for name, following in moves.items()]
        lines.append("  },")
    return "\n".join([*lines, "};"])


def render() -> str:
    """The whole file."""
    events = dict(sorted(EVENT_TYPES.items()))
    envelope = (
        "export interface Envelope {\n"
        "  /** Position in the run: 1, 2, 3, ... */\n  seq?: number;\n"
        "  /** Milliseconds since the run started. */\n  t?: number;\n}"
    )
    transient = ", ".join(f'"{cls.__struct_config__.tag}"' for cls in TRANSIENT)
    blocks = [
        HEADER.rstrip(),
        envelope,
        *(interface(name, cls) for name, cls in events.items()),
        union("RunEvent", [f"{cls.__name__}Event" for cls in events.values()]),
        "/** Told to readers, never stored: they move no cursor. */\n"
        f"export const TRANSIENT: readonly string[] = [{transient}];",
        "/** state -> event type -> next state */\n" + order_table(),
    ]
    return "\n\n".join(blocks) + "\n"


def main() -> int:
    """Write the file, or check it."""
    text = render()
    if "--check" in sys.argv[1:]:
        if TARGET.exists() and TARGET.read_text(encoding="utf-8") == text:
            return 0
        print(f"{TARGET.name} is out of date: run python scripts/ts_types.py", file=sys.stderr)
        return 1
    TARGET.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
