"""``tokenwire inspect``: a provider's recorded bytes, as events or as facts of the answer.

Always true: with ``--json`` every file has exactly one line, in order; that of an unreadable file
has its ``error``.
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
    """The events of a recording. ``unreadable``: why it is not of this wire."""

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
    """Print each file. Returns 1 if one is unreadable, 2 for a wrong option."""
    _check_names(family, framing)
    out, code = Out(raw=raw), 0
    for file in files:
        name = "standard input" if str(file) == "-" else str(file)
        try:
            data = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
            recording = inspect_bytes(data, family=family, framing=framing)
        except (OSError, TokenwireError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            note(f"tokenwire: {name}: {reason}")
            code = max(code, 2 if isinstance(error, ConfigError) else 1)
            if as_json:
                unread = Error(scope="parse", code="unreadable", message=reason or "")
                out.write(_line(_ordered(facts([unread]))))
            continue
        if as_json:
            out.write(_line(_ordered(facts(recording.events))))
        else:
            _print_events(out, name, recording, title=len(files) > 1)
        if recording.unreadable:
            note(f"tokenwire: {name}: {recording.unreadable}")
            code = max(code, 1)
    return code


def inspect_bytes(
    data: bytes, *, family: str | None = None, framing: str | None = None
) -> Inspected:
    """Decode a whole recording. Raises `InputError` if its family is unknown."""
    framing = framing or guess_framing(data)
    if not data.strip():
        raise InputError("the file is empty")
    family = family or guess_family(data, framing)
    if family is None:
        raise InputError(f"unknown protocol; choose one with --family ({', '.join(FAMILIES)})")
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
    """Why a recording without any event of the wire has none: a page, or other bytes."""
    reason: str | None = None
    for event in events:
        if isinstance(event, Error) and event.scope == "parse":
            reason = event.message
        elif not isinstance(event, StepEnd):
            return None
    return reason or f"no event of the family '{family}' in it"


def _check_names(family: str | None, framing: str | None) -> None:
    for word, name, choices in (("family", family, FAMILIES), ("framing", framing, FRAMINGS)):
        if name is not None and name not in choices:
            raise ConfigError(f"unknown {word} '{name}'; choose one of {', '.join(choices)}")


def _ordered(values: dict[str, Any]) -> dict[str, Any]:
    """The facts of every recording first, in a fixed order."""
    return {name: values[name] for name in _FACTS} | values


def _line(value: dict[str, Any]) -> str:
    return msgspec.json.encode(value).decode() + "\n"


def _print_events(out: Out, name: str, recording: Inspected, *, title: bool) -> None:
    if title:
        out.write(f"== {name} ({recording.family}, {recording.framing})\n")
    for event in recording.events:
        if isinstance(event, Heartbeat):
            continue
        fields = to_fields(event)
        kind = fields.pop("type")
        text = msgspec.json.encode(fields).decode()
        # JSON does not escape characters above 0x7f; a terminal interprets some of them.
        out.write(f"{kind:<22} {inert(text) if out.is_terminal else text}\n")
