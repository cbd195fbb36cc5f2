"""Events to JSON bytes and back.

Always true: ``decode(encode(event)) == event``; one event has one JSON form (compact, fields in
the struct's order, defaults omitted, unknown fields last and sorted); unknown fields and unknown
types survive a round trip.
"""

from __future__ import annotations

from typing import Any, Union, cast

import msgspec

from tokenwire.errors import InputError
from tokenwire.events.model import EVENT_TYPES, Event, Unknown

__all__ = ["AnyEvent", "decode", "encode", "from_fields", "to_fields"]

AnyEvent = Event | Unknown

_encode = msgspec.json.Encoder().encode
_typed = msgspec.json.Decoder(cast(Any, Union[tuple(EVENT_TYPES.values())]))  # noqa: UP007
_plain = msgspec.json.Decoder()
_KNOWN = {name: frozenset(cls.__struct_encode_fields__) for name, cls in EVENT_TYPES.items()}


def encode(event: AnyEvent) -> bytes:
    """The canonical JSON bytes of an event, without a line end."""
    if type(event) is Unknown or event.extra is not None:  # type: ignore[union-attr]
        return _encode(to_fields(event))
    return _encode(event)


def decode(data: bytes | str) -> AnyEvent:
    """Bytes to an event. Raises `InputError` if they are not a JSON object with a ``type``."""
    try:
        event = cast(Event, _typed.decode(data))
    except msgspec.ValidationError:
        return from_fields(_object(data))
    except msgspec.DecodeError as error:
        raise InputError(f"not an event: {error}") from error
    # A canonical form shorter than the input means that a field was dropped. A JSON field named
    # "extra" must not become our own field of that name.
    size = len(data) if isinstance(data, bytes) else len(data.encode())
    if event.extra is None and len(_encode(event)) == size:
        return event
    return from_fields(_object(data))


def to_fields(event: AnyEvent) -> dict[str, Any]:
    """An event as a plain JSON object."""
    if isinstance(event, Unknown):
        return event.fields
    fields = cast(dict[str, Any], msgspec.to_builtins(event))
    extra = fields.pop("extra", None)
    if extra:
        fields.update(sorted(extra.items()))
    return fields


def from_fields(fields: dict[str, Any]) -> AnyEvent:
    """A plain JSON object as an event; an unknown ``type`` gives `Unknown`."""
    name = fields.get("type")
    if not isinstance(name, str):
        raise InputError("not an event: its 'type' is missing or not a string")
    cls = EVENT_TYPES.get(name)
    if cls is None:
        seq, t = fields.get("seq", 0), fields.get("t", 0)
        return Unknown(
            seq=seq if isinstance(seq, int) else 0, t=t if isinstance(t, int) else 0, fields=fields
        )
    own = _KNOWN[name]
    extra = {k: v for k, v in fields.items() if k not in own and k != "type"}
    nested = fields.get("extra")
    try:
        event = msgspec.convert({k: v for k, v in fields.items() if k in own and k != "extra"}, cls)
    except msgspec.ValidationError as error:
        raise InputError(f"not a valid '{name}' event: {error}") from error
    if "extra" in fields:
        extra["extra"] = nested
    event.extra = extra or None
    return event


def _object(data: bytes | str) -> dict[str, Any]:
    try:
        value = _plain.decode(data)
    except msgspec.DecodeError as error:
        raise InputError(f"not an event: {error}") from error
    if not isinstance(value, dict):
        raise InputError("not an event: expected a JSON object")
    return value
