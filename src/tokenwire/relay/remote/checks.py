"""What a producer outside of the server may append, and when that is in the log already.

Always true: an event that a reader could not decode again is refused by its index; what only the
server writes is refused; a decision is taken only as it stands in the run's mailbox.
"""

from __future__ import annotations

from typing import Any

import msgspec

from tokenwire.errors import ConflictError, InputError, LimitError
from tokenwire.events.codec import AnyEvent, decode, encode, from_fields, to_fields
from tokenwire.events.model import (
    ApprovalAnswer,
    Checkpoint,
    Control,
    Event,
    Heartbeat,
    Reconnect,
    RunClaim,
    RunEnd,
    RunStart,
)
from tokenwire.relay.commands import decode_command
from tokenwire.relay.record import json_of

__all__ = ["MOST_EVENT", "at_index", "checked_events", "is_same", "not_as_received", "refusal"]

#: Bytes of one event's JSON.
MOST_EVENT = 1 << 20
_RESERVED = (RunStart, RunClaim, Checkpoint, Heartbeat, Reconnect)
#: What the server says of a record, not its producer.
_SERVERS = ("seq", "t")


def refusal(reason: str, message: str, **details: Any) -> ConflictError:
    """409 with its ``reason``: ``gap``, ``conflict``, ``fenced``, ``closed``, ..."""
    return ConflictError(message, reason=reason, **details)


def at_index(index: int, message: str) -> InputError:
    """400 that names the event by its place in the append."""
    return InputError(f"events[{index}]: {message}", field=f"events[{index}]")


def checked_events(values: list[dict[str, Any]]) -> list[Event]:
    """JSON objects as events. Raises `InputError` that names the index, `LimitError`."""
    events: list[Event] = []
    for index, value in enumerate(values):
        try:
            event = from_fields(value)
            size = len(encode(event))
            decode(encode(event))
        except InputError as error:
            raise at_index(index, error.message) from error
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise at_index(index, "it cannot be encoded as JSON") from error
        if not isinstance(event, Event):
            raise at_index(index, f"unknown type '{event.type[:40]}'")
        if isinstance(event, _RESERVED):
            raise at_index(index, f"only the server writes '{event.type}'")
        if isinstance(event, RunEnd) and index + 1 < len(values):
            raise at_index(index + 1, "nothing may follow 'run-end'")
        if size > MOST_EVENT:
            raise LimitError(
                f"events[{index}] has more than {MOST_EVENT} bytes", limit="event", most=MOST_EVENT
            )
        event.t = 0
        events.append(event)
    return events


def is_same(event: AnyEvent, record: bytes) -> bool:
    """Whether ``record`` is what ``event`` became in the log."""
    return _plain(event) == _plain(decode(json_of(record)))


def _plain(event: AnyEvent) -> bytes:
    fields = {name: value for name, value in to_fields(event).items() if name not in _SERVERS}
    return msgspec.json.encode(fields)


def not_as_received(events: list[Event], mailbox: list[bytes]) -> int | None:
    """The index of a decision or command in ``events`` that is not in the ``mailbox``."""
    commands = [decode_command(data) for data in mailbox]
    received = [_plain(command) for command in commands if command is not None]
    for index, event in enumerate(events):
        if isinstance(event, ApprovalAnswer | Control) and _plain(event) not in received:
            return index
    return None
