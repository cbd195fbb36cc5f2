"""``tokenwire inspect``: recorded bytes of a provider, as events or as the facts of the answer.

Always true: with ``--json`` every file gets exactly one line, in order; that of a file which could
not be read has its ``error``.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any, Final

import msgspec

from tokenwire.cli.guess import FRAMINGS, guess_family, guess_framing
from tokenwire.cli.terminal import Out, inert, note
from tokenwire.errors import ConfigError, FramingError, InputError, ProtocolError, TokenwireError
from tokenwire.events.codec import to_fields
from tokenwire.events.model import Error, Event, Heartbeat, StepEnd
from tokenwire.providers.registry import FAMILIES, Registry
from tokenwire.providers.summary import facts

__all__ = ["Inspected", "inspect_bytes", "run_inspect"]

_FACTS: Final = (
    "text",
    "reasoning",
    "refusal",
    "tool_calls",
    "finish_reason",
    "usage",
    "error",
    "complete",
)


@dataclasses.dataclass(frozen=True, slots=True)
class Inspected:
    """What a recording holds. ``unreadable``: it is not this wire, and why."""

    family: str
    framing: str
    events: list[Event]
    unreadable: str | None = None


def run_inspect(
    files: list[Path],
    *,
    family: str | None = None,
    framing: str | None = None,
    as_json: bool = False,
    raw: bool = False,
) -> int:
    """Print each file; 1 when one could not be read, 2 when it was asked wrongly."""
    _check_names(family, framing)
    out, code = Out(raw=raw), 0
    for file in files:
        name = "standard input" if str(file) == "-" else str(file)
        try:
            data = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
            found = inspect_bytes(data, family=family, framing=framing)
        except (OSError, TokenwireError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            note(f"tokenwire: {name}: {reason}")
            code = max(code, 2 if isinstance(error, ConfigError) else 1)
            if as_json:
                unread = Error(scope="parse", code="unreadable", message=reason or "")
                out.write(_line(_ordered(facts([unread]))))
            continue
        if as_json:
            out.write(_line(_ordered(facts(found.events))))
        else:
            _print_events(out, name, found, title=len(files) > 1)
        if found.unreadable:
            note(f"tokenwire: {name}: {found.unreadable}")
            code = max(code, 1)
    return code


def inspect_bytes(
    data: bytes, *, family: str | None = None, framing: str | None = None
) -> Inspected:
    """Decode a whole recording. Raises `InputError` when its family cannot be guessed."""
    framing = framing or guess_framing(data)
    if not data.strip():
        raise InputError("it is empty")
    family = family or guess_family(data, framing)
    if family is None:
        raise InputError(
            f"no known protocol is recognised in it; say which with --family "
            f"({', '.join(FAMILIES)})"
        )
    decoder = Registry(env={}).dialect(family).decoder(content_type=FRAMINGS[framing])
    events: list[Event] = []
    error: Error | None = None
    unreadable: str | None = None
    try:
        events += decoder.feed(data)
    except (FramingError, ProtocolError) as problem:
        unreadable = problem.message
        error = Error(scope="parse", code=problem.code, message=problem.message)
    events += decoder.finish(error)
    if unreadable is None:
        unreadable = _nothing(events, family)
    return Inspected(family, framing, events, unreadable)


def _nothing(events: list[Event], family: str) -> str | None:
    """Why there is no event of the wire, when there is none: a page, or other bytes."""
    said: str | None = None
    for event in events:
        if isinstance(event, Error) and event.scope == "parse":
            said = event.message
        elif not isinstance(event, StepEnd):
            return None
    return said or f"nothing in it is an event of the family '{family}'"


def _check_names(family: str | None, framing: str | None) -> None:
    for word, given, known in (("family", family, FAMILIES), ("framing", framing, FRAMINGS)):
        if given is not None and given not in known:
            raise ConfigError(f"no {word} is called '{given}'; there are: {', '.join(known)}")


def _ordered(found: dict[str, Any]) -> dict[str, Any]:
    """What every recording has comes first, always in the same order."""
    return {name: found[name] for name in _FACTS} | found


def _line(value: dict[str, Any]) -> str:
    return msgspec.json.encode(value).decode() + "\n"


def _print_events(out: Out, name: str, found: Inspected, *, title: bool) -> None:
    if title:
        out.write(f"== {name} ({found.family}, {found.framing})\n")
    for event in found.events:
        if isinstance(event, Heartbeat):
            continue
        fields = to_fields(event)
        kind = fields.pop("type")
        shown = msgspec.json.encode(fields).decode()
        # JSON leaves characters above 0x7f as they are; a terminal acts upon some of them.
        out.write(f"{kind:<22} {inert(shown) if out.is_terminal else shown}\n")
